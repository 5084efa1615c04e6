//! What the supervisor knows and does.

use crate::{
    cli::{Confine, Processes},
    failure::Failure,
    reach::{SHORT, Sockets},
    show::Output,
};
use daemon::orders::{Order, give};
use ipc::{
    Role,
    schema::control_capnp::{account_admin, queue_admin},
    within,
};
use serde_json::Value;

/// Gives an order; prints what it answers.
pub(crate) fn order(sockets: &Sockets, order: Order) -> Result<(), Failure> {
    for line in ask(sockets, order)? {
        println!("{line}");
    }
    Ok(())
}

pub(crate) fn ask(sockets: &Sockets, order: Order) -> Result<Vec<String>, Failure> {
    give(&sockets.path("moxd"), order).map_err(|error| Failure::connecting("moxd", &error))
}

/// The answers that are one JSON object a line.
fn objects(lines: &[String]) -> Result<Vec<Value>, Failure> {
    let bad = |error: serde_json::Error| Failure::Failed(format!("answer of moxd: {error}"));
    lines.iter().map(|line| serde_json::from_str(line).map_err(bad)).collect()
}

/// Prints objects with whatever keys they have.
fn print(output: Output, objects: &[Value]) {
    let Some(first) = objects.first().and_then(Value::as_object) else { return };
    let mut columns: Vec<&str> = first.keys().map(String::as_str).collect();
    // What a row is about stands first, what is long stands last; the rest by the alphabet.
    columns.sort_by_key(|c| match *c {
        "process" | "role" | "client" => 0,
        "action" | "server" | "pid" => 1,
        "layers" | "why" | "right" => 3,
        _ => 2,
    });
    let rows: Vec<Vec<Value>> = objects
        .iter()
        .map(|object| columns.iter().map(|c| object.get(*c).cloned().unwrap_or_default()).collect())
        .collect();
    output.table(&columns, &rows);
}

pub(crate) fn processes(
    sockets: &Sockets,
    what: Option<&Processes>,
    output: Output,
) -> Result<(), Failure> {
    let order = match what {
        None => Order::Processes,
        Some(Processes::Wiring) => Order::Wiring,
        Some(Processes::Profiles) => Order::Profiles,
    };
    print(output, &objects(&ask(sockets, order)?)?);
    Ok(())
}

pub(crate) fn confine(sockets: &Sockets, what: &Confine, output: Output) -> Result<(), Failure> {
    let Confine::Test { role } = what;
    let rows = objects(&ask(sockets, Order::ConfineTest(*role))?)?;
    print(output, &rows);
    let allowed = rows
        .iter()
        .filter(|row| {
            row.as_object().is_some_and(|o| o.values().any(|v| v.as_str() == Some("ALLOWED")))
        })
        .count();
    if allowed > 0 {
        return Err(Failure::Failed(format!("{allowed} forbidden actions are ALLOWED")));
    }
    if rows.is_empty() {
        // A test that tried nothing proves nothing.
        return Err(Failure::Failed("nothing was tried".into()));
    }
    Ok(())
}

/// Everything in short: is each process there, what waits, which accounts are not well.
pub(crate) fn status(sockets: &Sockets, output: Output) -> Result<(), Failure> {
    let processes = objects(&ask(sockets, Order::Processes)?)?;
    let running = processes.iter().filter(|p| p.get("pid").is_some_and(|pid| !pid.is_null()));
    output.fact("processes running", &Value::from(running.count()));
    output.fact("processes", &Value::from(processes.len()));
    let accountd = Role::Accountd.name();
    sockets.ask(accountd, async |admin: account_admin::Client| {
        let answer = within(SHORT, admin.status_request().send().promise).await?;
        for line in answer.get()?.get_lines()? {
            let value = String::from_utf8_lossy(line.get_value()?).into_owned();
            output.fact(line.get_key()?.to_str()?, &Value::String(value));
        }
        Ok(())
    })?;
    let queue = Role::QueueRunner.name();
    sockets.ask(queue, async |admin: queue_admin::Client| {
        let answer = within(SHORT, admin.status_request().send().promise).await?;
        for line in answer.get()?.get_lines()? {
            let value = String::from_utf8_lossy(line.get_value()?).into_owned();
            output.fact(line.get_key()?.to_str()?, &Value::String(value));
        }
        Ok(())
    })
}
