//! A reload: the settings are read, the administrator's files looked at, then all is applied; if
//! anything is wrong with either, nothing is. One at a time, since looking at files takes a moment
//! in which nobody is kept waiting.

use std::collections::VecDeque;

use anyhow::bail;
use config::Static;
use ipc::Role;
use tokio::sync::{mpsc, oneshot};

use crate::{
    check::Check,
    control::Answer,
    notify::Notify,
    ports::{Missing, Ports},
    required,
    source::Source,
    table::absent,
    tree::{Ground, Mode, Tree},
};

/// Who asked: an order, which gets an answer, or a signal.
type Asker = Option<oneshot::Sender<Answer>>;

/// Settings whose files have been looked at.
pub(crate) struct Checked {
    asker: Asker,
    settings: Static,
    found: Result<(), String>,
}

/// Reloads that were asked for.
pub(crate) struct Reloads {
    /// Behind the one whose files are looked at.
    waiting: VecDeque<Asker>,
    is_busy: bool,
    done: mpsc::Sender<Checked>,
    checked: mpsc::Receiver<Checked>,
}

impl Reloads {
    pub(crate) fn new() -> Self {
        let (done, checked) = mpsc::channel(1);
        Self { waiting: VecDeque::new(), is_busy: false, done, checked }
    }

    /// Begins a reload, or has it wait for the one before.
    pub(crate) fn ask(&mut self, asker: Asker, tree: &Tree, source: &Source, notify: &Notify) {
        if tree.mode != Mode::Running {
            refuse(asker);
            return;
        }
        // Signals alone have no bound, and one that waits does what the next one asks for.
        if asker.is_some() || !self.waiting.iter().any(Option::is_none) {
            self.waiting.push_back(asker);
        }
        self.begin_next(&tree.ground, source, notify);
    }

    /// Waits for the keyholders that look at files: they are ours, and to be gone before another build
    /// is.
    pub(crate) async fn end(mut self) {
        if self.is_busy {
            self.checked.recv().await;
        }
    }

    fn begin_next(&mut self, ground: &Ground, source: &Source, notify: &Notify) {
        while !self.is_busy
            && let Some(asker) = self.waiting.pop_front()
        {
            notify.reloading();
            match prepare(ground, source) {
                Ok((settings, check)) => {
                    self.is_busy = true;
                    let done = self.done.clone();
                    tokio::task::spawn_local(async move {
                        let found = check.run().await;
                        // Nobody takes it: everything ends.
                        let _ = done.send(Checked { asker, settings, found }).await;
                    });
                }
                Err(error) => tell(asker, Err(format!("{error:#}")), notify),
            }
        }
    }

    /// The next whose files have been looked at.
    pub(crate) async fn checked(&mut self) -> Option<Checked> {
        self.checked.recv().await
    }

    /// Applies it, or says why not, and begins the next.
    pub(crate) fn finish(
        &mut self,
        checked: Checked,
        tree: &mut Tree,
        source: &Source,
        notify: &Notify,
    ) {
        self.is_busy = false;
        let Checked { asker, settings, found } = checked;
        if tree.mode != Mode::Running {
            refuse(asker);
            self.waiting.drain(..).for_each(refuse);
            return;
        }
        let done = found.and_then(|()| {
            apply(tree, settings, source.missing()).map_err(|error| format!("{error:#}"))
        });
        tell(asker, done, notify);
        self.begin_next(&tree.ground, source, notify);
    }
}

/// A process that is replaced while all drain would not be started again.
fn refuse(asker: Asker) {
    if let Some(answer) = asker {
        drop(answer.send(Err("the server is ending".to_owned())));
    }
}

fn tell(asker: Asker, done: Answer, notify: &Notify) {
    notify.say("READY=1");
    match asker {
        // A client that has gone needs no answer.
        Some(answer) => drop(answer.send(done)),
        None => {
            if let Err(why) = done {
                tracing::error!(why, "the configuration was not applied");
            }
        }
    }
}

/// Reads the settings; opens the files.
fn prepare(ground: &Ground, source: &Source) -> anyhow::Result<(Static, Check)> {
    let mut new = source.load()?;
    new.control_uids = ground.identities.admins();
    let old = &ground.settings;
    if (&new.data_dir, new.uid_base) != (&old.data_dir, old.uid_base) {
        bail!("data_dir and uid_base change at a restart only");
    }
    let check = Check::prepare(ground, &new)?;
    Ok((new, check))
}

fn apply(tree: &mut Tree, new: Static, missing: Missing) -> anyhow::Result<Vec<String>> {
    let sockets = |ports: &Ports, role| -> Vec<String> {
        ports.of(role).map(|(name, _)| name.to_owned()).collect()
    };
    let before: Vec<_> =
        Role::ALL.map(|role| (sockets(&tree.ground.ports, role), tree.instances(role))).into();
    if let Some(why) = required::lacking(tree, &new) {
        bail!("{why}");
    }
    tree.ground.ports.apply(&new, missing)?;
    let old = std::mem::replace(&mut tree.ground.settings, new);
    tree.make_slots()?;
    let new = &tree.ground.settings;
    let (mut lines, mut changed) = (Vec::new(), Vec::new());
    let has_files = |settings: &config::Static| {
        crate::files::of_keyholder(settings).is_ok_and(|files| !files.is_empty())
    };
    for (role, (before, processes)) in Role::ALL.into_iter().zip(before) {
        let slice = old.slice(role.name()) != new.slice(role.name());
        let ports = before != sockets(&tree.ground.ports, role);
        // New certificates may lie in the same files.
        let files = role == Role::Keyholder && has_files(new);
        let all = old.require != new.require || old.log.format != new.log.format;
        let is_other = slice || ports || files || all;
        match (processes > 0, tree.instances(role) > 0) {
            (false, true) => lines.push(format!("{role} is started")),
            (true, false) => lines.push(format!("{role} ends")),
            (true, true) if is_other => {
                if tree.runs(role) {
                    lines.push(format!("{role} is replaced"));
                }
                lines.extend(absent(tree, role));
                changed.push(role);
            }
            (true, true) | (false, false) => {}
        }
    }
    let level = (old.log.level != new.log.level).then_some(new.log.level);
    let replaced = changed.len();
    for role in changed {
        tree.restart(role);
    }
    if let Some(level) = level {
        tree.log_level(None, level);
    }
    tracing::info!(replaced, "the configuration was applied");
    Ok(lines)
}
