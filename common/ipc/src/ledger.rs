//! What a peer makes us hold: its open calls, the objects we export to it, octets it has not read.

use std::{cell::Cell, collections::HashMap};

/// The books of one connection. Only frames of the peer make a figure fall (Finish, Release), or
/// its reading of what we sent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Calls and bootstraps of the peer that it has not finished, with the exports their answers
    /// carried.
    answers: HashMap<u32, Vec<u32>>,
    /// Exports by id, with the references the peer holds.
    exports: HashMap<u32, u32>,
}

impl Ledger {
    pub(crate) fn open_calls(&self) -> usize {
        self.answers.len()
    }

    pub(crate) fn exported(&self) -> usize {
        self.exports.len()
    }

    /// The peer asked something.
    pub(crate) fn called(&mut self, question: u32) {
        self.answers.entry(question).or_default();
    }

    /// The peer is done with an answer.
    pub(crate) fn finished(&mut self, question: u32, release_results: bool) {
        let carried = self.answers.remove(&question).unwrap_or_default();
        if release_results {
            for id in carried {
                self.released(id, 1);
            }
        }
    }

    /// The peer dropped references.
    pub(crate) fn released(&mut self, id: u32, references: u32) {
        if let Some(held) = self.exports.get_mut(&id) {
            *held = held.saturating_sub(references);
            if *held == 0 {
                self.exports.remove(&id);
            }
        }
    }

    /// We sent an answer with these exports. After an early Finish the runtime sends none that
    /// stay, so an unknown question counts nothing.
    pub(crate) fn answered(&mut self, question: u32, ids: &[u32]) {
        if let Some(carried) = self.answers.get_mut(&question) {
            carried.extend_from_slice(ids);
            self.sent(ids);
        }
    }

    /// We sent these exports otherwise: as arguments, or as what a promise became.
    pub(crate) fn sent(&mut self, ids: &[u32]) {
        for &id in ids {
            let held = self.exports.entry(id).or_default();
            *held = held.saturating_add(1);
        }
    }
}

/// Octets handed to the writer and not yet taken by the socket.
#[derive(Debug, Default)]
pub(crate) struct Unsent(Cell<usize>);

impl Unsent {
    pub(crate) fn add(&self, octets: usize) {
        self.0.set(self.0.get().saturating_add(octets));
    }

    pub(crate) fn taken(&self, octets: usize) {
        self.0.set(self.0.get().saturating_sub(octets));
    }

    pub(crate) fn octets(&self) -> usize {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_peer_makes_figures_fall() {
        let mut ledger = Ledger::default();
        for question in 0..10 {
            ledger.called(question);
            ledger.answered(question, &[question, 100]);
        }
        assert_eq!((ledger.open_calls(), ledger.exported()), (10, 11));
        for question in 0..5 {
            ledger.finished(question, false);
        }
        assert_eq!((ledger.open_calls(), ledger.exported()), (5, 11));
        for question in 5..10 {
            ledger.finished(question, true);
        }
        assert_eq!((ledger.open_calls(), ledger.exported()), (0, 6));
        for id in 0..5 {
            ledger.released(id, 1);
        }
        ledger.released(100, 4);
        assert_eq!(ledger.exported(), 1);
        ledger.released(100, u32::MAX);
        assert_eq!(ledger.exported(), 0);
    }

    #[test]
    fn a_question_that_is_finished_twice_or_was_never_asked_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.called(1);
        ledger.answered(1, &[7]);
        ledger.finished(1, false);
        ledger.finished(1, true);
        ledger.finished(2, true);
        ledger.answered(3, &[8]);
        assert_eq!((ledger.open_calls(), ledger.exported()), (0, 1));
    }
}
