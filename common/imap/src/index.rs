//! Which message has which sequence number, in one session.
//!
//! Kept as runs of consecutive UIDs, so a mailbox from which nothing was removed costs twelve bytes
//! whatever its size: ten thousand idle sessions must stay cheap.

use crate::set::NumberSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    /// Messages before this run.
    before: u32,
}

impl Run {
    fn len(self) -> u32 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    fn end(self) -> u32 {
        self.before.saturating_add(self.len())
    }
}

/// The messages a session knows, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UidIndex {
    runs: Vec<Run>,
}

impl UidIndex {
    /// Of these UIDs.
    #[must_use]
    pub fn new(uids: &NumberSet) -> Self {
        let mut before = 0u32;
        let runs = uids
            .ranges()
            .iter()
            .map(|&(first, last)| {
                let run = Run { first, last, before };
                before = run.end();
                run
            })
            .collect();
        Self { runs }
    }

    /// EXISTS.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end())
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The largest UID.
    #[must_use]
    pub fn last_uid(&self) -> Option<u32> {
        self.runs.last().map(|run| run.last)
    }

    /// All UIDs.
    #[must_use]
    pub fn uids(&self) -> NumberSet {
        NumberSet::from_ranges(self.runs.iter().map(|run| (run.first, run.last)))
    }

    /// The sequence number of a UID.
    #[must_use]
    pub fn seq(&self, uid: u32) -> Option<u32> {
        let run = self.runs.get(self.runs.partition_point(|run| run.last < uid))?;
        let inside = uid.checked_sub(run.first)?;
        run.before.checked_add(inside)?.checked_add(1)
    }

    /// The UID of a sequence number.
    #[must_use]
    pub fn uid(&self, seq: u32) -> Option<u32> {
        let run = self.runs.get(self.runs.partition_point(|run| run.end() < seq))?;
        run.first.checked_add(seq.checked_sub(run.before)?.checked_sub(1)?)
    }

    /// The UIDs of these sequence numbers; unknown numbers have none.
    #[must_use]
    pub fn uids_of(&self, seqs: &NumberSet) -> NumberSet {
        let mut ranges = Vec::new();
        for &(first, last) in seqs.ranges() {
            let from = self.runs.partition_point(|run| run.end() < first);
            for run in self.runs.iter().skip(from) {
                if run.before >= last {
                    break;
                }
                let low = first.saturating_sub(run.before).max(1).saturating_sub(1);
                let high = last.min(run.end()).saturating_sub(run.before).saturating_sub(1);
                ranges.push((run.first.saturating_add(low), run.first.saturating_add(high)));
            }
        }
        NumberSet::from_ranges(ranges)
    }

    /// The sequence numbers of these UIDs; unknown UIDs have none.
    #[must_use]
    pub fn seqs_of(&self, uids: &NumberSet) -> NumberSet {
        let mut ranges = Vec::new();
        for &(first, last) in uids.ranges() {
            let from = self.runs.partition_point(|run| run.last < first);
            for run in self.runs.iter().skip(from) {
                if run.first > last {
                    break;
                }
                let low = first.max(run.first).saturating_sub(run.first);
                let high = last.min(run.last).saturating_sub(run.first);
                let of = |inside: u32| run.before.saturating_add(inside).saturating_add(1);
                ranges.push((of(low), of(high)));
            }
        }
        NumberSet::from_ranges(ranges)
    }

    /// The same messages in as few ranges as can be: what lies between two neighbours was removed,
    /// because a new message gets a UID above all others. A large mailbox with many gaps would not
    /// fit a call otherwise.
    #[must_use]
    pub fn widen(&self, uids: &NumberSet) -> NumberSet {
        let seqs = self.seqs_of(uids);
        NumberSet::from_ranges(
            seqs.ranges().iter().filter_map(|&(a, b)| Some((self.uid(a)?, self.uid(b)?))),
        )
    }

    /// Adds a message at the end; false if its UID is not above all others.
    pub fn push(&mut self, uid: u32) -> bool {
        let before = self.len();
        match self.runs.last_mut() {
            Some(run) if uid <= run.last => false,
            Some(run) if uid == run.last.saturating_add(1) => {
                run.last = uid;
                true
            }
            Some(_) | None => {
                self.runs.push(Run { first: uid, last: uid, before });
                true
            }
        }
    }

    /// Removes messages; the sequence numbers they had, which are to be announced from the
    /// largest down, so that none shifts before it is named (RFC 9051 §7.5.1).
    pub fn remove(&mut self, uids: &NumberSet) -> NumberSet {
        let gone = self.seqs_of(uids);
        if !gone.is_empty() {
            *self = Self::new(&self.uids().without(uids));
        }
        gone
    }

    /// Bytes on the heap, to measure idle sessions.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.runs.capacity().saturating_mul(size_of::<Run>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(
            uids in prop::collection::btree_set(1u32..80, 0..60),
            gone in prop::collection::btree_set(1u32..80, 0..30),
            seqs in prop::collection::btree_set(1u32..80, 0..30),
        ) {
            let mut index = UidIndex::new(&uids.iter().copied().collect());
            let mut list: Vec<u32> = uids.iter().copied().collect();
            prop_assert_eq!(index.len() as usize, list.len());
            for (at, &uid) in list.iter().enumerate() {
                prop_assert_eq!(index.seq(uid), Some(at as u32 + 1));
                prop_assert_eq!(index.uid(at as u32 + 1), Some(uid));
            }
            prop_assert_eq!(index.uid(0), None);
            prop_assert_eq!(index.uid(list.len() as u32 + 1), None);
            let wanted: BTreeSet<u32> =
                seqs.iter().filter_map(|&s| list.get(s as usize - 1).copied()).collect();
            let found = index.uids_of(&seqs.iter().copied().collect());
            prop_assert_eq!(found.iter().collect::<BTreeSet<_>>(), wanted);
            let wide = index.widen(&gone.iter().copied().collect());
            prop_assert_eq!(wide.intersect(&index.uids()), index.uids_of(&index.seqs_of(&gone.iter().copied().collect())));
            prop_assert_eq!(index.widen(&index.uids()).ranges().len(), usize::from(!index.is_empty()));
            let numbers = index.remove(&gone.iter().copied().collect());
            for seq in numbers.iter().rev() {
                let uid = list.remove(seq as usize - 1);
                prop_assert!(gone.contains(&uid));
            }
            prop_assert!(list.iter().all(|uid| !gone.contains(uid)));
            prop_assert_eq!(index.uids().iter().collect::<Vec<_>>(), list.clone());
            prop_assert!(index.push(100));
            prop_assert!(!index.push(100));
            prop_assert_eq!(index.seq(100), Some(list.len() as u32 + 1));
        }
    }

    #[test]
    fn a_mailbox_without_gaps_is_one_run() {
        let mut index = UidIndex::default();
        for uid in 1..=100_000 {
            assert!(index.push(uid));
        }
        assert!(index.heap() <= 4 * size_of::<Run>());
        assert_eq!(index.uid(77_777), Some(77_777));
    }
}
