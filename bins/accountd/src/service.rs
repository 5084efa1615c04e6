//! What every interface works with: the directory, who may do what, the store, and the hands.

use crate::{
    alarms::Alarms,
    auth::authority::Authority,
    directory::Directories,
    gate::Gate,
    intake::{names::Names, parse::Parsers, spool::Places, turns::Turns},
    keys::Keyholder,
    outbox::Outboxes,
    store::{self, Limits, Store},
};
use daemon::Workers;
use std::{cell::RefCell, path::PathBuf, rc::Rc, sync::Arc};
use storage::Disk;
use types::{AccountId, Clock, Domain};

/// Free space below which no new mail is taken: 5 % of the disk or this, whichever is less.
const LOW_SPACE: u64 = 1 << 30;

/// What the static configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) hostname: Domain,
    pub(crate) max_message: u64,
    /// Received fields beyond which a message goes round in circles (RFC 5321 §6.3).
    pub(crate) received: u32,
    /// Instances of imapd session.
    pub(crate) sessions: u16,
    /// A development server.
    pub(crate) is_local: bool,
    /// Ask DNS whether strangers' domains take mail.
    pub(crate) check_senders: bool,
}

/// All of accountd but the sockets.
pub(crate) struct Service {
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) authority: Authority,
    pub(crate) directories: Rc<Directories>,
    pub(crate) store: Store,
    pub(crate) parsers: Parsers,
    pub(crate) names: Names,
    pub(crate) places: Places,
    pub(crate) turns: Turns,
    pub(crate) keyholder: Rc<Keyholder>,
    pub(crate) gate: Rc<RefCell<Gate>>,
    pub(crate) outboxes: Outboxes,
    pub(crate) alarms: Alarms,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) workers: Workers,
}

impl Service {
    /// An account's mail, with what the directory allows it now.
    pub(crate) fn account(&self, id: AccountId) -> store::Account {
        let account = self.store.account(id);
        let snapshot = self.directories.now();
        let quota = snapshot.directory.account_by_id(id).map_or(0, |entry| entry.quota);
        account.set_limits(Limits { quota: Some(quota).filter(|quota| *quota > 0) });
        account
    }

    /// Whether there is too little space for new mail. Not knowing counts as enough: the write
    /// itself will tell.
    pub(crate) fn is_disk_low(&self) -> bool {
        self.disk.space(&self.folder).is_ok_and(|space| {
            let reserve = LOW_SPACE.min(space.total / 20);
            space.free < reserve
        })
    }

    /// The session instance an account is served by: the same one for all its sessions, so that a
    /// take-over of one instance concerns 1/K of the accounts.
    pub(crate) fn session_instance(&self, account: AccountId) -> u16 {
        use std::hash::{Hash as _, Hasher as _};
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(0, 0);
        account.as_bytes().hash(&mut hasher);
        let count = u64::from(self.settings.sessions.max(1));
        u16::try_from(hasher.finish() % count).unwrap_or(0)
    }
}
