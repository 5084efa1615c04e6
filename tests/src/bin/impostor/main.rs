//! A process that was taken over: takes a role's place in the real tree and tries what that role's
//! descriptors let it call.
//!
//! It is started by moxd in place of the role's binary, takes over exactly the role's descriptors,
//! closes itself into exactly the role's profile, and then does as an attacker would. What came of
//! each attempt is a line in the log; `tests/tests/matrix` reads them and knows what each has to be.
//! It is a tool of tests and in no package.

#![forbid(unsafe_code)]

mod doors;
mod faces;
mod keys;
mod liars;
mod orders;
mod session;
mod vaults;

use daemon::Inherited;
use ipc::{Role, capnp};
use orders::Orders;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::start_prepared(&Role::ALL, profile, |_, _| Orders::read(), attack)
}

fn profile(role: Role) -> &'static sandbox::Profile {
    sandbox::profiles::of_role(role.name()).expect("every role has a profile")
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It worked.
    Got,
    /// Whoever was asked said no.
    Refused,
    /// Nobody answered, or the connection is gone: that proves nothing.
    Broken,
}

impl Outcome {
    /// Of a call: an interface that the other side has not is a refusal like any other.
    fn of<T>(result: Result<T, capnp::Error>) -> Self {
        match result {
            Ok(_) => Outcome::Got,
            Err(error) if ipc::is_gone(&error) => {
                tracing::debug!(%error, "no answer");
                Outcome::Broken
            }
            Err(_) => Outcome::Refused,
        }
    }

    fn when(got: bool) -> Self {
        if got { Outcome::Got } else { Outcome::Refused }
    }
}

/// Says what came of attempts under the name of this process.
#[derive(Clone)]
struct Report {
    name: String,
}

impl Report {
    fn tell(&self, what: &str, outcome: Outcome) {
        // One text, so that the log's format cannot take it apart.
        tracing::info!("IMPOSTOR {} | {what} | {outcome:?}", self.name);
    }
}

async fn attack(mut inherited: Inherited, orders: Orders) -> anyhow::Result<()> {
    let report = Report { name: daemon::process_name(inherited.role, inherited.instance) };
    wired_as_the_table_says(&inherited, &report);
    match inherited.role {
        Role::SmtpdMx
        | Role::SmtpdSubmission
        | Role::ImapdFront
        | Role::HttpdWeb
        | Role::HttpdAdmin => faces::attack(&mut inherited, &orders, &report).await?,
        Role::ImapdSession => session::attack(&mut inherited, &orders, &report).await?,
        Role::QueueRunner => vaults::queue_runner(&inherited, &orders, &report).await?,
        Role::Accountd => vaults::accountd(&inherited, &orders, &report).await?,
        Role::Keyholder => vaults::keyholder(&inherited, &report),
        Role::Parser => liars::parser(&mut inherited, &report).await,
        Role::Outbound => liars::outbound(&mut inherited, &report).await,
        Role::Resolver => liars::resolver(&mut inherited, &report).await,
    }
    report.tell("end", Outcome::Got);
    inherited.stop.draining().await;
    Ok(())
}

/// Whom it can ask at all: a dialler for each edge of the table, and for nobody else.
fn wired_as_the_table_says(inherited: &Inherited, report: &Report) {
    let whom = |role: Role| inherited.dialers.keys().any(|(server, _)| *server == role);
    for role in Role::ALL {
        let is_an_edge = ipc::edge(inherited.role, role).is_some();
        if whom(role) != is_an_edge {
            report.tell(&format!("reach {role}"), Outcome::when(whom(role)));
        }
    }
    if inherited.role != Role::HttpdWeb {
        let folders = !inherited.read_only_folders.is_empty();
        report.tell("folders of others", Outcome::when(folders));
    }
}
