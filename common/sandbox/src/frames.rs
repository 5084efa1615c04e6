//! Where a thread is: the calls on its stack, as addresses in the program's file.
//!
//! Names would have to be read from that file, which a confined process cannot open. So the log gets
//! numbers, and whoever reads it has `addr2line` look them up in the same build.

use std::ffi::{c_int, c_void};

/// Calls that are noted, from the innermost on.
const MOST: usize = 48;

/// "Go on" and "that is enough" to the unwinder; any number but the first ends its walk.
const GO_ON: c_int = 0;
const ENOUGH: c_int = 5;

type Note = extern "C" fn(*mut c_void, *mut c_void) -> c_int;

// The unwinder that panics use anyway (Itanium C++ ABI, level 1), and what the linker knows of where
// the program lies.
#[expect(unsafe_code, reason = "functions and symbols of the platform, which std does not show")]
unsafe extern "C" {
    fn _Unwind_Backtrace(note: Note, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    static __executable_start: u8;
    static etext: u8;
}

struct Frames {
    at: Vec<usize>,
    start: usize,
    end: usize,
}

/// The calls under way on this thread, innermost first: addresses relative to where the program was
/// loaded, each inside the call instruction. Those in other libraries are left out.
#[must_use]
#[expect(unsafe_code, reason = "calls the platform's unwinder")]
pub fn frames() -> Vec<usize> {
    let start = (&raw const __executable_start).addr();
    let end = (&raw const etext).addr();
    let mut frames = Frames { at: Vec::with_capacity(MOST), start, end };
    // SAFETY: the unwinder calls `note` on this thread with a context of its own and our argument,
    // and has done so for the last time when it returns; `frames` outlives that.
    unsafe { _Unwind_Backtrace(note, (&raw mut frames).cast()) };
    frames.at
}

#[expect(unsafe_code, reason = "is called back by the platform's unwinder")]
extern "C" fn note(context: *mut c_void, argument: *mut c_void) -> c_int {
    // SAFETY: the argument is what `frames` gave, used by nobody else meanwhile.
    let frames = unsafe { &mut *argument.cast::<Frames>() };
    // SAFETY: the context is the unwinder's own, valid during this call.
    let next = unsafe { _Unwind_GetIP(context) };
    // The address to return to may be behind the end of the calling function.
    let call = next.wrapping_sub(1);
    if (frames.start..frames.end).contains(&call) {
        frames.at.push(call - frames.start);
    }
    if frames.at.len() < MOST { GO_ON } else { ENOUGH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn inner() -> Vec<usize> {
        std::hint::black_box(frames())
    }

    #[inline(never)]
    fn deep(levels: usize) -> Vec<usize> {
        let found = if levels == 0 { inner() } else { deep(levels - 1) };
        std::hint::black_box(found)
    }

    #[test]
    fn the_callers_are_on_the_list() {
        let found = inner();
        assert!(found.len() > 2 && found.len() <= MOST, "{found:x?}");
        // Where a function lies, as the log would tell it.
        let start = (&raw const __executable_start).addr();
        let inside = inner as *const () as usize - start;
        assert!(found.iter().any(|at| (inside..inside + 4096).contains(at)), "{found:x?}");
        assert_eq!(deep(500).len(), MOST, "bounded");
    }
}
