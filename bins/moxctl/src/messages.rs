//! `moxctl message show`: a message as it is stored, to standard output.

use crate::{
    cli::Message,
    failure::Failure,
    reach::{LONG, Sockets},
};
use ipc::{
    Role, capnp,
    schema::{
        control_capnp::{account_admin, problem, queue_admin},
        types_capnp::byte_sink,
    },
    within,
};
use std::{io::Write as _, rc::Rc};
use types::QueueId;

pub(crate) fn run(sockets: &Sockets, what: Message) -> Result<(), Failure> {
    let Message::Show { what, uid, mailbox } = what;
    match uid {
        Some(uid) => sockets.ask(Role::Accountd.name(), async |admin: account_admin::Client| {
            let mut request = admin.message_show_request();
            request.get().set_account(&what);
            request.get().set_mailbox(&mailbox);
            request.get().set_uid(uid);
            request.get().set_sink(ipc::new_client(Terminal));
            let answer = within(LONG, request.send().promise).await?;
            done(answer.get()?.get_problem()?)
        }),
        None => {
            let id: QueueId = what.parse().map_err(|_| {
                Failure::Usage(format!("{what}: not a queue id; an account needs a UID, too"))
            })?;
            sockets.ask(Role::QueueRunner.name(), async |admin: queue_admin::Client| {
                let mut request = admin.show_request();
                request.get().set_queue_id(id.as_bytes());
                request.get().set_sink(ipc::new_client(Terminal));
                let answer = within(LONG, request.send().promise).await?;
                done(answer.get()?.get_problem()?)
            })
        }
    }
}

/// A problem of the server as our failure.
pub(crate) fn done(problem: problem::Reader<'_>) -> Result<(), Failure> {
    match problem.get_kind()? {
        problem::Kind::None => Ok(()),
        problem::Kind::Missing
        | problem::Kind::Exists
        | problem::Kind::Invalid
        | problem::Kind::Temporary
        | problem::Kind::InUse => Err(Failure::Failed(problem.get_text()?.to_string()?)),
    }
}

/// Standard output as a sink.
struct Terminal;

impl byte_sink::Server for Terminal {
    async fn write(self: Rc<Self>, params: byte_sink::WriteParams) -> Result<(), capnp::Error> {
        let chunk = params.get()?.get_chunk()?;
        std::io::stdout().write_all(chunk).map_err(|e| capnp::Error::failed(e.to_string()))
    }

    async fn end(
        self: Rc<Self>,
        _: byte_sink::EndParams,
        _: byte_sink::EndResults,
    ) -> Result<(), capnp::Error> {
        std::io::stdout().flush().map_err(|e| capnp::Error::failed(e.to_string()))
    }
}
