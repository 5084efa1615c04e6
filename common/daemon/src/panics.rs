//! What a panic leaves behind: a line in the log and a count.
//!
//! The line names the place and the calls that led there, as addresses in the binary (names would
//! have to be read from a file, which ends a process that may open none); moxd(8) says how to look
//! them up. The message is logged only if it is a literal of our source: a formatted one may quote
//! what it choked on, and mail must not get into a log that way.

use std::{any::Any, panic};

use crate::figures::{Count, Figures};

/// Installs the hook. With `abort` a panic ends the process at once instead of unwinding: keyholder
/// has nothing to lose and keys to keep.
pub(crate) fn install(figures: Figures, abort: bool) {
    panic::set_hook(Box::new(move |panic| {
        figures.count(Count::Panics);
        let place = panic.location().map_or_else(|| "?".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        let backtrace = told(&sandbox::frames());
        tracing::error!(place, thread, message = message(panic.payload()), backtrace, "panic");
        if abort {
            std::process::abort();
        }
    }));
}

fn message(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(withheld: it may quote content)")
}

/// Addresses as `addr2line` takes them.
fn told(frames: &[usize]) -> String {
    frames.iter().map(|at| format!("{at:#x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words() {
        assert_eq!(told(&[0x1f, 0xabc]), "0x1f 0xabc");
    }

    #[test]
    fn only_literals_are_repeated() {
        assert_eq!(message(&"a literal"), "a literal");
        assert!(message(&String::from("Subject: secret")).starts_with("(withheld"));
    }
}
