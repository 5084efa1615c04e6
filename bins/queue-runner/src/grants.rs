//! What queue-runner holds.

use config::Queue;
use daemon::Workers;
use ipc::Dialer;
use std::{path::PathBuf, rc::Rc, sync::Arc};
use storage::Disk;
use tokio::net::UnixListener;
use types::{Clock, Domain};

/// Which users, by uid, may use the control socket.
pub type Allowed = Rc<dyn Fn(u32) -> bool>;

/// Its rights and surroundings.
pub struct Grants {
    /// Our name: who reports failures.
    pub hostname: Domain,
    /// The schedule.
    pub queue: Queue,
    /// Its own folder: `queue.db` and `spool/`.
    pub folder: PathBuf,
    /// The disk under it.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Rc<dyn Clock>,
    /// `Outbox` and `Delivery`.
    pub accountd: Dialer,
    /// `Outbound`.
    pub outbound: Dialer,
    /// `HostKeys`.
    pub keyholder: Dialer,
    /// Its figures.
    pub figures: daemon::Figures,
    /// Where moxctl comes in; its peers are checked by uid.
    pub control: Option<(UnixListener, Allowed)>,
    /// Called when a sync failed: the process has to end.
    pub fatal: Arc<dyn Fn(&storage::Error) + Send + Sync>,
    /// Where SQL and syncs are worked on.
    pub workers: Workers,
}
