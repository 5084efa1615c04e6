//! Sets of message numbers: as a client writes them, and resolved.
//!
//! A client may name four thousand million messages in nine bytes, so sets are kept as ranges all
//! the way and never as one entry a number.

use std::fmt;

/// Ranges one set may have: 64 KiB of command line hold no more different ones anyway.
const MAX_RANGES: usize = 16_384;

/// One end of a range in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Number(u32),
    /// `*`: the largest number in use.
    Star,
}

/// `sequence-set` of RFC 9051 §9, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSet(pub(crate) Written);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// `$`, the saved result of a search (RFC 5182).
    Saved,
    Ranges(Vec<(Bound, Bound)>),
}

impl SequenceSet {
    /// The grammar: `(seq-number / seq-range) *("," ..)` or `$`. None for anything else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text == b"$" {
            return Some(Self(Written::Saved));
        }
        let mut ranges = Vec::new();
        for part in text.split(|&byte| byte == b',') {
            if ranges.len() >= MAX_RANGES {
                return None;
            }
            let mut ends = part.splitn(2, |&byte| byte == b':');
            let first = bound(ends.next()?)?;
            let last = match ends.next() {
                Some(end) => bound(end)?,
                None => first,
            };
            ranges.push((first, last));
        }
        Some(Self(Written::Ranges(ranges)))
    }

    /// Whether it is `$`.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        matches!(self.0, Written::Saved)
    }

    /// The numbers it names where `star` is the largest in use; `$` gives `saved`.
    #[must_use]
    pub fn resolve(&self, star: u32, saved: &NumberSet) -> NumberSet {
        match &self.0 {
            Written::Saved => saved.clone(),
            Written::Ranges(ranges) => NumberSet::from_ranges(ranges.iter().map(|&(a, b)| {
                let of = |bound| match bound {
                    Bound::Number(number) => number,
                    Bound::Star => star,
                };
                (of(a).min(of(b)), of(a).max(of(b)))
            })),
        }
    }

    /// Whether each number is at most `exists`, and `*` is used with at least one message
    /// (RFC 9051 §9, `seq-number`: BAD otherwise).
    #[must_use]
    pub fn fits(&self, exists: u32) -> bool {
        match &self.0 {
            Written::Saved => true,
            Written::Ranges(ranges) => {
                let ok = |bound| match bound {
                    Bound::Number(number) => number <= exists,
                    Bound::Star => exists > 0,
                };
                ranges.iter().all(|&(a, b)| ok(a) && ok(b))
            }
        }
    }
}

impl fmt::Display for SequenceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |f: &mut fmt::Formatter<'_>, bound: Bound| match bound {
            Bound::Number(number) => write!(f, "{number}"),
            Bound::Star => f.write_str("*"),
        };
        match &self.0 {
            Written::Saved => f.write_str("$"),
            Written::Ranges(ranges) => {
                for (at, &(first, last)) in ranges.iter().enumerate() {
                    if at > 0 {
                        f.write_str(",")?;
                    }
                    one(f, first)?;
                    if first != last {
                        f.write_str(":")?;
                        one(f, last)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn bound(text: &[u8]) -> Option<Bound> {
    if text == b"*" {
        return Some(Bound::Star);
    }
    // nz-number: no sign, no leading zero, at most ten digits.
    if !matches!(text.first(), Some(b'1'..=b'9')) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().map(Bound::Number)
}

/// A set of numbers above zero, as sorted ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberSet {
    ranges: Vec<(u32, u32)>,
}

impl NumberSet {
    /// Without members.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// From inclusive ranges in any order; zero is left out.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut sorted: Vec<(u32, u32)> = ranges
            .into_iter()
            .map(|(first, last)| (first.max(1), last))
            .filter(|&(first, last)| first <= last)
            .collect();
        sorted.sort_unstable();
        let mut set = Self::new();
        for (first, last) in sorted {
            set.add_range(first, last);
        }
        set
    }

    /// Adds a range whose first number is not below the last range's first.
    fn add_range(&mut self, first: u32, last: u32) {
        match self.ranges.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            Some(_) | None => self.ranges.push((first, last)),
        }
    }

    /// Adds a number that is larger than all members, which is how rows arrive. Others are added
    /// too, at a price.
    pub fn push(&mut self, number: u32) {
        match self.ranges.last() {
            Some(&(first, _)) if number < first => {
                *self = Self::from_ranges(self.ranges.iter().copied().chain([(number, number)]));
            }
            Some(_) | None if number > 0 => self.add_range(number, number),
            Some(_) | None => {}
        }
    }

    /// The ranges, inclusive, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// How many members.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().fold(0u64, |sum, &(first, last)| {
            sum.saturating_add(u64::from(last.saturating_sub(first))).saturating_add(1)
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The smallest member.
    #[must_use]
    pub fn min(&self) -> Option<u32> {
        self.ranges.first().map(|range| range.0)
    }

    /// The largest member.
    #[must_use]
    pub fn max(&self) -> Option<u32> {
        self.ranges.last().map(|range| range.1)
    }

    /// Whether it holds `number`.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < number);
        self.ranges.get(at).is_some_and(|range| range.0 <= number)
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// The members of both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        let mut both = Self::new();
        while let (Some(&&(a0, a1)), Some(&&(b0, b1))) = (a.peek(), b.peek()) {
            let (first, last) = (a0.max(b0), a1.min(b1));
            if first <= last {
                both.add_range(first, last);
            }
            if a1 < b1 {
                a.next();
            } else {
                b.next();
            }
        }
        both
    }

    /// The members of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.ranges.iter().chain(&other.ranges).copied())
    }

    /// The members that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut gaps = Vec::with_capacity(other.ranges.len().saturating_add(1));
        let mut next = 1u32;
        let mut open = true;
        for &(first, last) in &other.ranges {
            if next < first {
                gaps.push((next, first.saturating_sub(1)));
            }
            open = last < u32::MAX;
            next = last.saturating_add(1);
        }
        if open {
            gaps.push((next, u32::MAX));
        }
        self.intersect(&Self { ranges: gaps })
    }

    /// Its first members, at most `count`, taken out of it.
    pub fn take_first(&mut self, count: u32) -> Self {
        let mut taken = Self::new();
        let mut left = count;
        let mut keep = Vec::new();
        for &(first, last) in &self.ranges {
            let size = last.saturating_sub(first).saturating_add(1);
            if left == 0 {
                keep.push((first, last));
            } else if size <= left {
                taken.ranges.push((first, last));
                left = left.saturating_sub(size);
            } else {
                let middle = first.saturating_add(left);
                taken.ranges.push((first, middle.saturating_sub(1)));
                keep.push((middle, last));
                left = 0;
            }
        }
        self.ranges = keep;
        taken
    }
}

impl FromIterator<u32> for NumberSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        Self::from_ranges(numbers.into_iter().map(|number| (number, number)))
    }
}

impl fmt::Display for NumberSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &(first, last)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}:{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn written(text: &str) -> SequenceSet {
        SequenceSet::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_9051() {
        let none = NumberSet::new();
        assert_eq!(written("2,4:7,9,12:*").resolve(15, &none).to_string(), "2,4:7,9,12:15");
        assert_eq!(written("*:4,5:7").resolve(10, &none).to_string(), "4:10");
        // A range above the last UID names the last message.
        assert_eq!(written("3291:*").resolve(17, &none).to_string(), "17:3291");
        assert!(!written("3:*").fits(0));
        assert!(written("3:*").fits(3));
        assert!(!written("4").fits(3));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in ["", "0", "1,", ",1", "1:", ":1", "a", "-1", "01", "4294967296", "1:2:3", "$,1"]
        {
            assert_eq!(SequenceSet::parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(SequenceSet::parse(vec![b'1'; 1].as_slice()).is_some());
        assert!(SequenceSet::parse("1,".repeat(MAX_RANGES).as_bytes()).is_none());
        assert!(written("$").is_saved());
    }

    #[test]
    fn the_whole_range_costs_nothing() {
        let all = written("1:4294967295").resolve(1, &NumberSet::new());
        assert_eq!(all.len(), u64::from(u32::MAX));
        assert!(all.without(&all).is_empty());
        let mut rest = all.clone();
        assert_eq!(rest.take_first(100).to_string(), "1:100");
        assert_eq!(rest.min(), Some(101));
    }

    proptest! {
        #[test]
        fn algebra_is_that_of_sets(
            a in prop::collection::btree_set(1u32..60, 0..40),
            b in prop::collection::btree_set(1u32..60, 0..40),
            n in 0u32..50,
        ) {
            let (x, y): (NumberSet, NumberSet) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let set = |s: &NumberSet| s.iter().collect::<BTreeSet<u32>>();
            prop_assert_eq!(set(&x.union(&y)), &a | &b);
            prop_assert_eq!(set(&x.intersect(&y)), &a & &b);
            prop_assert_eq!(set(&x.without(&y)), &a - &b);
            prop_assert_eq!(x.len(), a.len() as u64);
            for i in 0..70 { prop_assert_eq!(x.contains(i), a.contains(&i)); }
            let mut rest = x.clone();
            let first = rest.take_first(n);
            prop_assert_eq!(first.len(), u64::from(n).min(a.len() as u64));
            prop_assert_eq!(first.union(&rest), x.clone());
            if !x.is_empty() {
                let again = written(&x.to_string()).resolve(0, &NumberSet::new());
                prop_assert_eq!(again, x);
            }
        }
    }
}
