//! What we write out for moxctl: the process table, the wiring, the profiles. One JSON object a
//! line; made of our own knowledge alone, never of a text from a process.

use std::time::Instant;

use ipc::{Carries, Role};
use sandbox::process::Exit;
use serde_json::{Value, json};

use crate::tree::{Slot, Tree, name};

/// Every process.
pub(crate) fn processes(tree: &Tree) -> Vec<String> {
    let now = Instant::now();
    let lines = tree.slots.iter().map(|(key, slot)| {
        let mut line = json!({
            "process": name(*key),
            "role": key.0.name(),
            "instance": key.1,
            "uid": tree.ground.identities.of(key.0).uid,
            "state": state(slot),
            "lives": slot.lives,
            "faults": slot.backoff.faults(),
            "last_end": slot.last_end.map(end),
        });
        if let Some(running) = &slot.now {
            line["pid"] = json!(running.child.id());
            line["up_seconds"] = json!(now.duration_since(running.since).as_secs());
            line["heard_seconds_ago"] = json!(now.duration_since(running.heard).as_secs());
            if running.ready.is_some() {
                line["layers"] = layers(running.layers);
            }
        }
        line.to_string()
    });
    lines.collect()
}

/// The processes of a role that do not run, and why, for whoever gave an order about it.
pub(crate) fn absent(tree: &Tree, role: Role) -> Vec<String> {
    if tree.instances(role) == 0 && !tree.runs(role) {
        return vec![format!("{role} is not in this configuration")];
    }
    let of_role = tree.slots.iter().filter(|(key, slot)| key.0 == role && slot.now.is_none());
    let told = of_role.map(|(key, slot)| match slot.last_end {
        Some(exit) => format!(
            "{} does not run: it ended by {} and is started again by itself",
            name(*key),
            end(exit)
        ),
        None => format!("{} does not run yet", name(*key)),
    });
    told.collect()
}

fn state(slot: &Slot) -> &'static str {
    match &slot.now {
        None => "waiting",
        Some(running) if running.kill_at.is_some() => "draining",
        Some(running) if running.ready.is_none() => "starting",
        Some(_) => "serving",
    }
}

fn end(exit: Exit) -> String {
    match exit {
        Exit::Code(code) if code == i32::from(daemon::BAD_FILE) => {
            format!("exit {code}: a file it starts from is not sound; its log says where")
        }
        Exit::Code(code) => match daemon::missing_layer(code) {
            Some(layer) => format!("exit {code}: it lacks the required wall {layer}"),
            None => format!("exit {code}"),
        },
        Exit::Signal(31) => "signal 31: a system call outside its profile".to_owned(),
        Exit::Signal(signal) => format!("signal {signal}"),
    }
}

/// Two bits a layer, as `daemon::Report::Ready` has them.
fn layers(bits: u32) -> Value {
    let mut bits = bits;
    let mut out = serde_json::Map::new();
    for layer in sandbox::Layer::ALL {
        let state = match bits & 3 {
            0 => "enforced",
            1 => "partly",
            _ => "missing",
        };
        out.insert(layer.as_str().to_owned(), json!(state));
        bits >>= 2;
    }
    Value::Object(out)
}

/// Every edge.
pub(crate) fn wiring() -> Vec<String> {
    let lines = ipc::WIRING.iter().map(|edge| {
        let carries = match edge.carries {
            Carries::Rpc => "calls",
            Carries::RpcAndSigningSlots => "calls and signing slots",
            Carries::HandOver => "connections",
        };
        let line = json!({
            "client": edge.client.name(),
            "server": edge.server.name(),
            "bootstrap": edge.bootstrap,
            "carries": carries,
            "right": edge.right,
        });
        line.to_string()
    });
    lines.collect()
}

/// Every role's system calls, with the reason for each group.
pub(crate) fn profiles() -> Vec<String> {
    let lines = Role::ALL.into_iter().filter_map(|role| {
        let profile = sandbox::profiles::of_role(role.name())?;
        let grants: Vec<Value> = profile
            .grants
            .iter()
            .map(|grant| {
                let calls: Vec<_> = grant.group.calls.iter().map(sandbox::Call::name).collect();
                json!({ "group": grant.group.name, "why": grant.why, "calls": calls })
            })
            .collect();
        Some(json!({ "role": role.name(), "grants": grants }).to_string())
    });
    lines.collect()
}
