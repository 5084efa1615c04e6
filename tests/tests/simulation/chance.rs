//! Chance by seed, for what the simulation decides and for what the product draws.

use std::cell::RefCell;

/// `SplitMix64`: small, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// From a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Octets.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[0];
        }
    }
}

thread_local! {
    static OF_THE_SYSTEM: RefCell<Option<Chance>> = const { RefCell::new(None) };
}

/// From now on this thread's system randomness comes from a seed, where the test binary sees to it
/// that the system is not asked (`randomness.rs`).
pub(super) fn seed_the_system(seed: u64) {
    OF_THE_SYSTEM.with(|chance| *chance.borrow_mut() = Some(Chance::new(seed)));
}

/// Random octets for a thread that was seeded; false for any other.
pub(super) fn fill_for_the_system(bytes: &mut [u8]) -> bool {
    // A thread that ends may ask for randomness when its own is gone already.
    let filled = OF_THE_SYSTEM.try_with(|chance| {
        let mut chance = chance.try_borrow_mut().ok()?;
        chance.as_mut().map(|chance| chance.fill(bytes))
    });
    filled.is_ok_and(|filled| filled.is_some())
}
