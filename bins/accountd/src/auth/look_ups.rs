//! How often each face may have a name looked up. A look-up costs a place in the vault and two uses of
//! keyholder's pepper, whose rate is that of accountd as a whole: a face that was taken over would
//! else use it up for all of them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Look-ups of one face in a second. Three faces ask; keyholder serves 5,000 uses
/// (`[limits.keys] pepper_refuse`).
const MAX_A_SECOND: u32 = 600;

/// Counts by role, each of the second that is running.
#[derive(Default)]
pub(crate) struct LookUps(RefCell<BTreeMap<u8, (Instant, u32)>>);

impl LookUps {
    /// Counts one, unless the face has had its share; that is an alarm, once in a second.
    pub(crate) fn may(&self, role: u8, now: Instant) -> bool {
        let mut all = self.0.borrow_mut();
        let (began, count) = all.entry(role).or_insert((now, 0));
        if now.saturating_duration_since(*began) >= Duration::from_secs(1) {
            (*began, *count) = (now, 0);
        }
        if *count == MAX_A_SECOND {
            let edge = ipc::Role::from_number(role).map(tracing::field::display);
            tracing::error!(edge, "ALARM: more names looked up than this process should need");
        }
        // One above the limit is enough to know that it was said.
        *count = count.saturating_add(1).min(MAX_A_SECOND + 1);
        *count <= MAX_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_face_is_refused_alone() {
        let look_ups = LookUps::default();
        let now = Instant::now();
        let served = (0..10_000).filter(|_| look_ups.may(1, now)).count();
        assert_eq!(served, 600);
        assert!(look_ups.may(2, now));
        assert!(!look_ups.may(1, now + Duration::from_millis(999)));
        assert!(look_ups.may(1, now + Duration::from_secs(1)));
    }
}
