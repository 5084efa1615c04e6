//! What the supervisor knows and does.

use crate::{
    cli::{Confine, Processes},
    failure::Failure,
    reach::{SHORT, Sockets},
    show::Output,
};
use daemon::orders::{Order, give};
use ipc::{
    BuildId, Role,
    schema::{
        control_capnp::{account_admin, key_control, queue_admin},
        types_capnp::key_value,
    },
    within,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Gives an order; prints what it answers.
pub(crate) fn order(sockets: &Sockets, order: Order, output: Output) -> Result<(), Failure> {
    for line in ask(sockets, order)? {
        output.line(&line);
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

/// Every key of any object: one that is down has none of what only a running one has. What a row is
/// about stands first, what is long stands last; the rest by the alphabet.
fn columns(objects: &[Value]) -> Vec<&str> {
    let keys = objects.iter().filter_map(Value::as_object).flat_map(|object| object.keys());
    let mut columns: Vec<&str> = keys.map(String::as_str).collect();
    columns.sort_unstable_by_key(|c| {
        let place = match *c {
            "process" | "role" | "client" => 0,
            "action" | "server" | "pid" => 1,
            "layers" | "on" | "why" | "right" => 3,
            _ => 2,
        };
        (place, *c)
    });
    columns.dedup();
    columns
}

/// Prints objects with whatever keys they have.
fn print(output: Output, objects: &[Value]) {
    if objects.is_empty() {
        return;
    }
    let columns = columns(objects);
    let cells = |object: &Value| columns.iter().map(|c| object[*c].clone()).collect();
    let rows: Vec<Vec<Value>> = objects.iter().map(cells).collect();
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
    let rows = objects(&ask(sockets, order)?)?;
    match what {
        Some(Processes::Profiles) if !output.json => {
            rows.iter().flat_map(profile).for_each(|line| output.line(&line));
        }
        Some(_) | None => print(output, &rows),
    }
    Ok(())
}

/// Columns of the text of profiles.
const WIDTH: usize = 90;

/// A role's profile as a text: each group of calls with its reason, then the calls.
fn profile(role: &Value) -> Vec<String> {
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or("?").to_owned();
    let mut lines = vec![text(role, "role")];
    for grant in role["grants"].as_array().into_iter().flatten() {
        lines.push(format!("  {}: {}", text(grant, "group"), text(grant, "why")));
        let mut line = String::new();
        for call in grant["calls"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !line.is_empty() && line.len() + call.len() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            line.push_str(if line.is_empty() { "    " } else { " " });
            line.push_str(call);
        }
        lines.push(line);
    }
    lines
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

/// Silence of a process above which that is an alarm; heartbeats come every 5 s.
const SILENCE: u64 = 30;

/// What is odd about a process of the table.
fn oddities(process: &Value) -> Vec<String> {
    let text = |key: &str| process.get(key).and_then(Value::as_str).unwrap_or("?");
    let number = |key: &str| process.get(key).and_then(Value::as_u64).unwrap_or(0);
    let name = text("process");
    let mut odd = Vec::new();
    if text("state") != "serving" {
        odd.push(format!("{name} is {}", text("state")));
    }
    if number("faults") > 0 {
        odd.push(format!("{name} died {} times lately: {}", number("faults"), text("last_end")));
    }
    if number("heard_seconds_ago") >= SILENCE {
        odd.push(format!("{name} was not heard of for {} s", number("heard_seconds_ago")));
    }
    odd
}

/// Walls that do not stand everywhere, each with the processes that lack it.
fn missing_walls(processes: &[Value]) -> Vec<String> {
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for process in processes {
        let layers = process.get("layers").and_then(Value::as_object);
        for (layer, state) in layers.into_iter().flatten() {
            let state = state.as_str().unwrap_or("?");
            if state != "enforced" {
                let name = process.get("process").and_then(Value::as_str).unwrap_or("?");
                missing.entry(format!("{layer} is {state}")).or_default().push(name);
            }
        }
    }
    let tell = |(what, of): (String, Vec<&str>)| match of.len() {
        all if all == processes.len() => format!("one wall less: {what} for all processes"),
        _ => format!("one wall less: {what} for {}", of.join(", ")),
    };
    missing.into_iter().map(tell).collect()
}

/// Everything in short: is each process there, what waits, what an administrator must look at.
pub(crate) fn status(sockets: &Sockets, output: Output) -> Result<(), Failure> {
    let mut told = Vec::new();
    let done = tell_status(sockets, &mut told);
    // Of a server that is not there, not even that it has no alarms.
    if done.is_ok() || !told.is_empty() {
        output.facts(&told);
    }
    done
}

fn tell_status(sockets: &Sockets, facts: &mut Facts) -> Result<(), Failure> {
    let mut tell = |key: &str, value: Value| facts.push((key.to_owned(), value));
    // Vaults talk to no other build, so this is said before they are asked.
    for build in ask(sockets, Order::Build)? {
        let ours = BuildId::OURS.to_string();
        if build != ours {
            let why = format!("this moxctl is of another build than the server: {ours}");
            tell("alarm", Value::String(why));
        }
        tell("build", Value::String(build));
    }
    let processes = objects(&ask(sockets, Order::Processes)?)?;
    let running = processes.iter().filter(|p| p.get("pid").is_some_and(|pid| !pid.is_null()));
    tell("processes running", Value::from(running.count()));
    tell("processes", Value::from(processes.len()));
    for odd in missing_walls(&processes).into_iter().chain(processes.iter().flat_map(oddities)) {
        tell("alarm", Value::String(odd));
    }
    let keyholder = Role::Keyholder.name();
    let first = sockets.ask(keyholder, async |control: key_control::Client| {
        let answer = within(SHORT, control.status_request().send().promise).await?;
        Ok(read_facts(answer.get()?.get_lines()?)?.into_iter().map(uses_of_keys).collect())
    });
    let accountd = Role::Accountd.name();
    let second = sockets.ask(accountd, async |admin: account_admin::Client| {
        let answer = within(SHORT, admin.status_request().send().promise).await?;
        read_facts(answer.get()?.get_lines()?)
    });
    let queue = Role::QueueRunner.name();
    let third = sockets.ask(queue, async |admin: queue_admin::Client| {
        let answer = within(SHORT, admin.status_request().send().promise).await?;
        read_facts(answer.get()?.get_lines()?)
    });
    // One that does not answer hides nothing that the others say.
    let mut failure = Ok(());
    for told in [first, second, third] {
        match told {
            Ok(more) => facts.extend(more),
            Err(error) => failure = Err(error),
        }
    }
    failure
}

type Facts = Vec<(String, Value)>;

/// What keyholder counted, by who asked; what it refused is an alarm, as is what it calls one.
fn uses_of_keys((what, count): (String, Value)) -> (String, Value) {
    if what == "alarm" {
        (what, count)
    } else if what.ends_with(" refused") {
        let count = count.as_str().unwrap_or("?");
        ("alarm".to_owned(), Value::String(format!("keyholder: {what}: {count}")))
    } else {
        (format!("keyholder for {what}"), count)
    }
}

fn read_facts(
    lines: ipc::capnp::struct_list::Reader<'_, key_value::Owned>,
) -> Result<Facts, Failure> {
    let mut facts = Vec::new();
    for line in lines {
        let value = String::from_utf8_lossy(line.get_value()?).into_owned();
        facts.push((line.get_key()?.to_string()?, Value::String(value)));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_a_text_of_short_lines() {
        let calls: Vec<String> = (0..40).map(|n| format!("call_{n}")).collect();
        let lines = profile(&serde_json::json!({
            "role": "parser", "grants": [{ "group": "memory", "why": "to grow", "calls": calls }],
        }));
        assert_eq!(lines[..2], ["parser", "  memory: to grow"]);
        assert!(lines[2].starts_with("    call_0 call_1 "), "{lines:?}");
        assert!(lines.len() > 5 && lines.iter().all(|line| line.len() <= WIDTH + 1), "{lines:?}");
        assert!(lines.last().unwrap().ends_with("call_39"));
    }

    #[test]
    fn no_row_loses_a_field_for_the_first_one() {
        let rows = [
            serde_json::json!({ "role": "resolver", "process": "resolver", "state": "waiting" }),
            serde_json::json!({
                "process": "parser", "pid": 7, "role": "parser", "state": "serving",
                "layers": { "uid": "enforced" }, "up_seconds": 3,
            }),
        ];
        let expected = ["process", "role", "pid", "state", "up_seconds", "layers"];
        assert_eq!(columns(&rows), expected);
        let rows = [
            serde_json::json!({ "role": "parser", "action": "fork", "verdict": "own" }),
            serde_json::json!({ "role": "parser", "action": "a", "verdict": "not-tried", "why": "x" }),
            serde_json::json!({ "role": "parser", "action": "b", "verdict": "refused", "by": "uids",
                                "how": "EPERM", "on": "/keys" }),
        ];
        let expected = ["role", "action", "by", "how", "verdict", "on", "why"];
        assert_eq!(columns(&rows), expected);
    }

    #[test]
    fn what_is_odd_about_a_process_is_said() {
        let well = serde_json::json!({
            "process": "parser-0", "state": "serving", "faults": 0, "heard_seconds_ago": 3,
            "layers": { "uid": "enforced", "seccomp": "enforced" },
        });
        assert!(oddities(&well).is_empty());
        let ill = serde_json::json!({
            "process": "parser-0", "state": "waiting", "faults": 3, "last_end": "signal 9",
            "heard_seconds_ago": 31, "layers": { "uid": "missing", "landlock": "missing" },
        });
        let odd = oddities(&ill);
        assert_eq!(odd[0], "parser-0 is waiting");
        assert_eq!(odd[1], "parser-0 died 3 times lately: signal 9");
        assert_eq!(odd.len(), 3);
        assert_eq!(oddities(&serde_json::json!({})).len(), 1);
        assert!(missing_walls(std::slice::from_ref(&well)).is_empty());
        let other = serde_json::json!({ "process": "outbound", "layers": { "uid": "missing" } });
        assert_eq!(
            missing_walls(&[ill, other]),
            [
                "one wall less: landlock is missing for parser-0",
                "one wall less: uid is missing for all processes",
            ]
        );
    }
}
