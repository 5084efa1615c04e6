//! `moxctl queue`.

use crate::{
    cli::{Filter, Queue},
    failure::Failure,
    reach::{SHORT, Sockets},
    show::{Output, time},
};
use ipc::{
    Role,
    schema::control_capnp::{queue_admin, queue_filter},
    within,
};
use serde_json::Value;
use types::QueueId;

const COLUMNS: [&str; 9] =
    ["id", "account", "from", "to", "size", "queued", "attempts", "next_attempt", "last_error"];

pub(crate) fn run(sockets: &Sockets, what: Queue, output: Output) -> Result<(), Failure> {
    sockets.ask(Role::QueueRunner.name(), async |admin: queue_admin::Client| match what {
        Queue::List { mut filter } => {
            // Naming nothing lists everything: looking is harmless.
            filter.all = true;
            list(&admin, &filter, output).await
        }
        Queue::Retry { filter } => {
            let mut request = admin.retry_request();
            fill(&filter, request.get().init_filter())?;
            let answer = within(SHORT, request.send().promise).await?;
            output.fact("made due", &Value::from(answer.get()?.get_count()));
            Ok(())
        }
        Queue::Drop { filter } => {
            let mut request = admin.drop_request();
            fill(&filter, request.get().init_filter())?;
            let answer = within(SHORT, request.send().promise).await?;
            output.fact("dropped", &Value::from(answer.get()?.get_count()));
            Ok(())
        }
    })
}

fn fill(filter: &Filter, mut to: queue_filter::Builder<'_>) -> Result<(), Failure> {
    to.set_account(&filter.account);
    to.set_from(&filter.from);
    to.set_to(&filter.to);
    to.set_all(filter.all);
    let count = u32::try_from(filter.ids.len()).map_err(|_| Failure::Failed("too many".into()))?;
    let mut ids = to.init_ids(count);
    for (at, text) in (0..).zip(&filter.ids) {
        let id: QueueId =
            text.parse().map_err(|_| Failure::Failed(format!("{text}: not a queue id")))?;
        ids.set(at, id.as_bytes());
    }
    Ok(())
}

async fn list(admin: &queue_admin::Client, filter: &Filter, output: Output) -> Result<(), Failure> {
    let (mut after, mut rows) = (Vec::new(), Vec::new());
    loop {
        let mut request = admin.list_request();
        fill(filter, request.get().init_filter())?;
        request.get().set_after(&after);
        let answer = within(SHORT, request.send().promise).await?;
        let page = answer.get()?;
        for item in page.get_items()? {
            after = item.get_id()?.to_vec();
            let id = QueueId::try_from(item.get_id()?)
                .map_err(|_| Failure::Failed("the queue answered without an id".into()))?;
            rows.push(vec![
                Value::String(id.to_string()),
                Value::String(item.get_account()?.to_string()?),
                Value::String(item.get_from()?.to_string()?),
                Value::String(item.get_to()?.to_string()?),
                Value::from(item.get_size()),
                time(item.get_queued_unix_ns()),
                Value::from(item.get_attempts()),
                time(item.get_next_attempt_unix_ns()),
                Value::String(item.get_last_error()?.to_string()?),
            ]);
        }
        if !page.get_more() {
            break;
        }
    }
    output.table(&COLUMNS, &rows);
    Ok(())
}
