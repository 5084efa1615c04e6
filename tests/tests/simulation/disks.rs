//! Disks that are full for a while.

use super::world::World;
use ipc::Role;
use std::{rc::Rc, time::Duration};
use storage::Fault;
use tokio::time::sleep;

/// The pause before a disk is full, and how long it is, at most.
const PAUSE: Duration = Duration::from_secs(10 * 60);
const FULL: Duration = Duration::from_secs(4 * 60);
/// Writes that still have room.
const ROOM: u64 = 12;

/// Fills a disk so often, and makes room again.
pub(super) async fn fill_some(world: Rc<World>, times: u64) {
    for _ in 0..times {
        sleep(world.up_to(PAUSE)).await;
        let role = if world.below(3) == 0 { Role::QueueRunner } else { Role::Accountd };
        world.note(&format!("the disk of {role} is full"));
        world.disk(role).inject(Fault::Full(world.below(ROOM)));
        world.full.borrow_mut().insert(role);
        sleep(world.up_to(FULL)).await;
        world.note(&format!("the disk of {role} has room"));
        world.disk(role).heal();
        world.full.borrow_mut().remove(&role);
    }
}
