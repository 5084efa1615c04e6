//! The system's randomness, by seed: the libraries and the product ask `getrandom`, which is here.
//!
//! An argument would not reach the standard library's hash maps, and those decide in which order
//! the objects of a connection die. So the function itself is replaced, in this test alone.

use super::chance::fill_for_the_system;
use std::slice;

/// `getrandom(2)` for whoever asks the C library, as `std` and the crate `getrandom` do.
///
/// # Safety
/// As that of the C library: `buffer` has room for `length` octets.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the C library's function takes a pointer")]
pub(super) unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller says that there is room, and gives nobody else the buffer meanwhile.
    let bytes = unsafe { slice::from_raw_parts_mut(buffer, length) };
    if !fill_for_the_system(bytes) {
        let given = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty());
        return given.map_or(-1, |count| isize::try_from(count).unwrap_or(-1));
    }
    isize::try_from(length).unwrap_or(-1)
}

/// Whether that works: two threads of one seed draw the same, and so do their hash maps.
#[test]
fn a_seeded_thread_draws_by_its_seed() {
    use std::hash::{BuildHasher as _, RandomState};
    let draw = |seed: Option<u64>| {
        let thread = std::thread::spawn(move || {
            if let Some(seed) = seed {
                super::chance::seed_the_system(seed);
            }
            RandomState::new().hash_one(7)
        });
        thread.join().unwrap()
    };
    assert_eq!(draw(Some(1)), draw(Some(1)));
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(draw(None), draw(None));
}
