//! The administrator's certificates and keys are looked at before they are used. We parse nothing, so
//! for each listener a keyholder without edges and clients does it behind its own walls, and
//! says by the code it ends with what is wrong.

use std::{os::fd::OwnedFd, path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context as _;
use config::Static;
use daemon::{
    PairFault,
    supervision::{Message, Start},
};
use ipc::Role;
use sandbox::process::Exit;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    child::{Child, Recipe, What},
    files::{self, Pair},
    identity::Identity,
    required,
    tree::Ground,
};

/// How long one keyholder may look.
const PATIENCE: Duration = Duration::from_secs(20);
/// What it says before it ends.
const EVENTS: usize = 8;

/// A check that is ready to be made.
pub(crate) struct Check {
    pairs: Vec<Looker>,
    binary: PathBuf,
    identity: Option<Identity>,
    start: Start,
}

/// What one keyholder is given.
struct Looker {
    pair: Pair,
    slice: OwnedFd,
    figures: OwnedFd,
    log: Stdio,
}

impl Check {
    /// Opens everything that it takes for these settings.
    pub(crate) fn prepare(ground: &Ground, settings: &Static) -> anyhow::Result<Self> {
        let role = Role::Keyholder;
        let mut pairs = Vec::new();
        for pair in files::pairs(settings)? {
            let slice = config::slice::Keyholder::that_checks(&pair.listener);
            pairs.push(Looker {
                slice: sandbox::memfd::sealed("slice", &slice)?,
                figures: sandbox::figures::create("check")?,
                log: ground.logs.stream(role).context("log of keyholder")?,
                pair,
            });
        }
        let start = Start {
            role,
            instance: 0,
            supervisor: std::process::id(),
            gifts: 2,
            without_root: ground.identities.without_root(),
            trap: false,
            require: required::bits(settings),
            log: settings.log,
            instances: Vec::new(),
            own_folder: ground
                .layout
                .own_folder(role)
                .and_then(|path| path.to_str().map(str::to_owned)),
        };
        let identity = ground.identities.given(role);
        Ok(Self { pairs, binary: ground.binaries.path(role), identity, start })
    }

    /// Makes it; what is wrong, for each listener.
    pub(crate) async fn run(self) -> Result<(), String> {
        let mut wrong = Vec::new();
        for Looker { pair, slice, figures, log } in self.pairs {
            let recipe = Recipe {
                role: Role::Keyholder,
                binary: &self.binary,
                identity: self.identity,
                log,
            };
            let Pair { listener, cert, key, files } = pair;
            let (events, mut happened) = mpsc::channel(EVENTS);
            let child = match Child::start(recipe, 0, events) {
                Ok(child) => child,
                Err(error) => {
                    wrong.push(format!("no keyholder to check listener {listener}: {error}"));
                    continue;
                }
            };
            child.tell(&Message::Start(self.start.clone()), vec![slice, figures]);
            for (gift, file) in files {
                child.tell(&Message::Give(gift), vec![file]);
            }
            let ended = timeout(PATIENCE, async {
                while let Some(event) = happened.recv().await {
                    match event.what {
                        What::Said(_) => {}
                        What::Nonsense => child.kill(),
                        What::Ended(exit) => return Some(exit),
                    }
                }
                None
            });
            let fault = match ended.await {
                Ok(Some(Exit::Code(0))) => continue,
                Ok(Some(Exit::Code(code))) => {
                    if let Some(layer) = daemon::missing_layer(code) {
                        // So do all the others.
                        return Err(required::refusal((Role::Keyholder, 0), layer));
                    }
                    PairFault::from_code(code)
                }
                Ok(Some(Exit::Signal(_)) | None) => None,
                Err(_) => {
                    child.kill();
                    None
                }
            };
            wrong.push(match fault {
                Some(fault) => {
                    let path = if fault.is_of_key() { key } else { cert };
                    format!("listener {listener}: {}: {fault}", path.display())
                }
                None => format!("listener {listener}: keyholder ended before it had checked the certificate; its log says why"),
            });
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}
