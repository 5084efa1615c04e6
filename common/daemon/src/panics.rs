//! What a panic leaves behind: a line in the log and a count.
//!
//! The line names the place. The message is logged only if it is a literal of our source: a
//! formatted one may quote what it choked on, and mail must not get into a log that way. No
//! backtrace: resolving it opens files, which ends a process that may open none.

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
        tracing::error!(place, thread, message = message(panic.payload()), "panic");
        if abort {
            std::process::abort();
        }
    }));
}

fn message(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(withheld: it may quote content)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_are_repeated() {
        assert_eq!(message(&"a literal"), "a literal");
        assert!(message(&String::from("Subject: secret")).starts_with("(withheld"));
    }
}
