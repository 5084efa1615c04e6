//! The twin's side: confine, try, exit with what the kernel did.

use std::io::Write;
use std::path::PathBuf;

use super::action::{Action, Target};
use super::{ALLOWED, Layers, NO_TARGET, NONE, NOT_SET_UP, REACHED, SIBLING, TWIN};
use crate::confine::{ConfineOptions, Walls, apply};
use crate::profile::Profile;

/// A twin's arguments after the first: role, layers, action, path, sibling, root or not, own
/// folder, then folders to read.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) role: String,
    pub(super) layers: Layers,
    pub(super) action: Action,
    pub(super) path: Option<String>,
    pub(super) sibling: Option<u32>,
    pub(super) without_root: bool,
    pub(super) own_folder: Option<PathBuf>,
    pub(super) read_only: Vec<PathBuf>,
}

impl Order {
    pub(super) fn arguments(&self) -> Vec<std::ffi::OsString> {
        let text = |value: Option<String>| value.unwrap_or_else(|| NONE.to_owned()).into();
        let mut arguments = vec![
            self.role.clone().into(),
            self.layers.as_str().into(),
            self.action.as_str().into(),
            text(self.path.clone()),
            text(self.sibling.map(|id| id.to_string())),
            if self.without_root { "one-uid".into() } else { "own-uid".into() },
            self.own_folder.clone().map_or_else(|| NONE.into(), PathBuf::into_os_string),
        ];
        arguments.extend(self.read_only.iter().map(|folder| folder.clone().into_os_string()));
        arguments
    }

    pub(super) fn parse(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<Order> {
        let mut next = || arguments.next().filter(|argument| argument != NONE);
        let role = next()?.into_string().ok()?;
        let layers = next()?.to_str()?.parse().ok()?;
        let action = next()?.to_str()?.parse().ok()?;
        let path = next().map(std::ffi::OsString::into_string).transpose().ok()?;
        let sibling = next().map(|id| id.to_str()?.parse().ok());
        let sibling = match sibling {
            Some(None) => return None,
            Some(id) => id,
            None => None,
        };
        let without_root = match next()?.to_str()? {
            "one-uid" => true,
            "own-uid" => false,
            _ => return None,
        };
        let own_folder = next().map(PathBuf::from);
        let read_only = arguments.map(PathBuf::from).collect();
        Some(Order { role, layers, action, path, sibling, without_root, own_folder, read_only })
    }
}

/// Each role calls this first thing in `main`, with the profiles of its binary's roles: returns at
/// once in service; in a twin it never returns.
///
/// The argument is the supervisor's to give, and gives nobody anything: a twin confines itself to
/// the same profile or less, and ends.
pub fn run_if_twin(profiles: &[&Profile]) {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|first| first.to_str()) {
        Some(REACHED) => std::process::exit(ALLOWED),
        Some(SIBLING) => std::process::exit(wait_to_be_tried(profiles)),
        Some(TWIN) => {
            let code = Order::parse(arguments)
                .ok_or_else(|| "unreadable order".to_owned())
                .and_then(|order| carry_out(&order, profiles))
                .unwrap_or_else(|why| {
                    // The parent reads it if the code says so; there is nobody else to tell.
                    let _ = writeln!(std::io::stderr(), "{why}");
                    NOT_SET_UP
                });
            std::process::exit(code)
        }
        Some(_) | None => {}
    }
}

fn carry_out(order: &Order, profiles: &[&Profile]) -> Result<i32, String> {
    let profile = profiles
        .iter()
        .find(|profile| profile.role == order.role)
        .ok_or_else(|| format!("this binary has no role {}", order.role))?;
    let target = Target { path: order.path.clone(), sibling: order.sibling };
    let attempt = order
        .action
        .prepare(&target)
        .map_err(|error| format!("prepare {}: {error}", order.action.as_str()))?;
    let Some(attempt) = attempt else { return Ok(NO_TARGET) };
    let walls =
        Walls { landlock: order.layers >= Layers::Landlock, seccomp: order.layers >= Layers::All };
    let options = ConfineOptions {
        own_folder: order.own_folder.clone(),
        read_only: order.read_only.clone(),
        without_root: order.without_root,
        ..ConfineOptions::default()
    };
    apply(profile, &options, walls).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    Ok(match attempt() {
        Ok(()) => ALLOWED,
        Err(errno) if order.action.passed_the_walls(errno) => ALLOWED,
        Err(rustix::io::Errno::NOENT) => NO_TARGET,
        Err(errno) => errno.raw_os_error(),
    })
}

/// A process for others to try their hands on: confined like a role by all but the last two walls,
/// says that it is, and ends when its standard input does.
fn wait_to_be_tried(profiles: &[&Profile]) -> i32 {
    let walls = Walls { landlock: false, seccomp: false };
    let options =
        ConfineOptions { without_root: true, own_folder: None, ..ConfineOptions::default() };
    // Which role's limits it has does not matter; its uid does, and that it is non-dumpable.
    let Some(profile) = profiles.first() else { return NOT_SET_UP };
    let options = match profile.folders {
        crate::Folders::Own => ConfineOptions { own_folder: Some("/".into()), ..options },
        crate::Folders::None | crate::Folders::ReadOnly => options,
    };
    if let Err(error) = apply(profile, &options, walls) {
        let _ = writeln!(std::io::stderr(), "{error}");
        return NOT_SET_UP;
    }
    let mut out = std::io::stdout();
    if out.write_all(b".").and_then(|()| out.flush()).is_err() {
        return NOT_SET_UP;
    }
    match std::io::copy(&mut std::io::stdin(), &mut std::io::sink()) {
        Ok(_) => 0,
        Err(_) => NOT_SET_UP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_back() {
        let order = Order {
            role: "accountd".to_owned(),
            layers: Layers::All,
            action: Action::SignalSibling,
            path: None,
            sibling: Some(42),
            without_root: true,
            own_folder: Some("/var/lib/mox/accounts".into()),
            read_only: vec!["/srv/www".into(), "/srv/two".into()],
        };
        let read = Order::parse(order.arguments().into_iter()).unwrap();
        assert_eq!(read.arguments(), order.arguments());
        assert_eq!((read.sibling, read.path, read.read_only.len()), (Some(42), None, 2));
    }

    #[test]
    fn nonsense_is_no_order() {
        for text in [
            "",
            "parser",
            "parser uids",
            "parser uids fly - - own-uid -",
            "parser uids fork - x own-uid -",
            "parser uids fork - - root -",
        ] {
            let words = text.split_whitespace().map(Into::into);
            assert!(Order::parse(words).is_none(), "{text}");
        }
    }
}
