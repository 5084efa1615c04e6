//! The binary for libFuzzer: `MOX_FUZZ_TARGET=NAME mox-fuzz CORPUS.. -max_total_time=5`.
//!
//! One binary for all targets: linking is what costs most.

#![no_main]
#![allow(unsafe_code, missing_docs, unreachable_pub, reason = "what libFuzzer's macro makes")]

use libfuzzer_sys::fuzz_target;
use mox_fuzz::{TARGETS, Target};
use std::sync::OnceLock;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let wanted = std::env::var("MOX_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == wanted);
        found.unwrap_or_else(|| panic!("MOX_FUZZ_TARGET names no target: {wanted:?}"))
    })
}

fuzz_target!(|input: &[u8]| (target().run)(input));
