//! The words of the store: mailboxes, UIDs, flags, keywords, roles.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A message's number in its mailbox (RFC 9051 §2.3.1.1); from 1.
pub type Uid = u32;

/// A modification sequence of the account (RFC 7162 §3.1): one counter for messages, mailboxes and
/// annotations, one value for each transaction.
pub type ModSeq = u64;

/// The first value of the counter: an account that was just made stands here.
pub const FIRST_MODSEQ: ModSeq = 2;

/// A mailbox; never used twice in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId(pub i64);

/// A message in a mailbox; kept when it moves, never used twice in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub i64);

/// The bytes of a message, shared by its copies in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub i64);

/// Special uses of mailboxes (RFC 6154); at most one live mailbox has each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `\Archive`
    Archive = 1,
    /// `\Drafts`
    Drafts = 2,
    /// `\Junk`
    Junk = 3,
    /// `\Sent`
    Sent = 4,
    /// `\Trash`
    Trash = 5,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Archive, Self::Drafts, Self::Junk, Self::Sent, Self::Trash];

    pub(crate) fn to_column(role: Option<Self>) -> i64 {
        role.map_or(0, |r| r as i64)
    }

    pub(crate) fn from_column(value: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as i64 == value)
    }
}

/// The flags every mailbox has: the system flags of RFC 9051 §2.3.2 and its well-known keywords.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(u32);

impl Flags {
    /// `\Seen`
    pub const SEEN: Self = Self(1);
    /// `\Answered`
    pub const ANSWERED: Self = Self(1 << 1);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(1 << 2);
    /// `\Deleted`
    pub const DELETED: Self = Self(1 << 3);
    /// `\Draft`
    pub const DRAFT: Self = Self(1 << 4);
    /// `$Forwarded`
    pub const FORWARDED: Self = Self(1 << 5);
    /// `$Junk`
    pub const JUNK: Self = Self(1 << 6);
    /// `$NotJunk`
    pub const NOT_JUNK: Self = Self(1 << 7);
    /// `$Phishing`
    pub const PHISHING: Self = Self(1 << 8);
    /// `$MDNSent`
    pub const MDN_SENT: Self = Self(1 << 9);
    const KNOWN: u32 = (1 << 10) - 1;

    /// None.
    pub const NONE: Self = Self(0);

    /// The bits, for the wire between our processes.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From bits; unknown ones are dropped.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::KNOWN)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 10] = [
            "\\Seen",
            "\\Answered",
            "\\Flagged",
            "\\Deleted",
            "\\Draft",
            "$Forwarded",
            "$Junk",
            "$NotJunk",
            "$Phishing",
            "$MDNSent",
        ];
        f.debug_list()
            .entries(NAMES.iter().zip(0..).filter(|(_, n)| self.0 & (1 << n) != 0).map(|(t, _)| t))
            .finish()
    }
}

/// A keyword of a user: lower case, an IMAP atom (RFC 9051 §9 `flag-keyword`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyword(Box<str>);

/// A text that is no keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a keyword: 1 to 100 printable ASCII characters, none of (){{%*\"\\] or a space")]
pub struct KeywordError;

impl Keyword {
    /// The longest, in octets.
    pub const MAX_OCTETS: usize = 100;

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Keyword {
    type Err = KeywordError;

    fn from_str(text: &str) -> Result<Self, KeywordError> {
        let is_atom_char = |b: u8| (0x21..=0x7e).contains(&b) && !b"(){%*\"\\]".contains(&b);
        let fits = !text.is_empty() && text.len() <= Self::MAX_OCTETS;
        if fits && text.bytes().all(is_atom_char) {
            Ok(Self(text.to_ascii_lowercase().into_boxed_str()))
        } else {
            Err(KeywordError)
        }
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Most keywords a mailbox may have in use.
pub const MAX_KEYWORDS: usize = 100;

/// Most keywords one message may have.
pub const MAX_MESSAGE_KEYWORDS: usize = 30;

/// The keywords of a message: bits over the list of its mailbox. What a bit means is said by the
/// list read in the same batch, since a number is given again when its keyword is out of use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct KeywordBits(u128);

impl KeywordBits {
    /// None.
    pub const NONE: Self = Self(0);

    /// One bit.
    #[must_use]
    pub const fn one(number: u8) -> Self {
        Self(1 << (number as u32 % 128))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0u8..128).filter(move |n| self.0 & (1 << n) != 0)
    }

    /// As stored: little-endian without trailing zeros, NULL for none.
    pub(crate) fn to_column(self) -> Option<Vec<u8>> {
        let bytes = self.0.to_le_bytes();
        let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        (len > 0).then(|| bytes[..len].to_vec())
    }

    pub(crate) fn from_column(bytes: Option<&[u8]>) -> Self {
        let mut full = [0u8; 16];
        for (to, from) in full.iter_mut().zip(bytes.unwrap_or_default()) {
            *to = *from;
        }
        Self(u128::from_le_bytes(full))
    }
}

impl fmt::Debug for KeywordBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.numbers()).finish()
    }
}

/// A set of UIDs: sorted ranges that do not touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UidSet(Vec<RangeInclusive<Uid>>);

impl UidSet {
    /// Every UID.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![1..=Uid::MAX])
    }

    /// The ranges, in any order; overlaps are joined, empty ones and 0 dropped.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<Uid>>) -> Self {
        let mut sorted: Vec<_> = ranges
            .into_iter()
            .map(|r| (*r.start()).max(1)..=*r.end())
            .filter(|r| !r.is_empty())
            .collect();
        sorted.sort_unstable_by_key(|r| *r.start());
        let mut joined: Vec<RangeInclusive<Uid>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match joined.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                Some(_) | None => joined.push(range),
            }
        }
        Self(joined)
    }

    /// One UID each.
    pub fn from_uids(uids: impl IntoIterator<Item = Uid>) -> Self {
        Self::from_ranges(uids.into_iter().map(|u| u..=u))
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<Uid>] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `uid` is in it.
    #[must_use]
    pub fn has(&self, uid: Uid) -> bool {
        let at = self.0.partition_point(|r| *r.end() < uid);
        self.0.get(at).is_some_and(|r| r.contains(&uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyword_bits_as_stored() {
        assert_eq!(KeywordBits::NONE.to_column(), None);
        for number in 0..100 {
            let bits = KeywordBits::one(number).with(KeywordBits::one(3));
            let stored = bits.to_column().unwrap();
            assert_eq!(KeywordBits::from_column(Some(&stored)), bits);
            assert!(stored.len() <= 13);
        }
    }

    #[test]
    fn keywords_are_atoms_in_lower_case() {
        assert_eq!("$Label1".parse::<Keyword>().unwrap().as_str(), "$label1");
        for bad in ["", "a b", "a(", "a\\b", "a]", "é", "a*", "\u{7f}", &"a".repeat(101)] {
            assert_eq!(bad.parse::<Keyword>(), Err(KeywordError), "{bad:?}");
        }
    }

    #[test]
    fn uid_sets_are_joined_and_sorted() {
        let set = UidSet::from_ranges([5..=9, 1..=2, 3..=3, 8..=12, 0..=0, 20..=20]);
        assert_eq!(set.ranges(), [1..=3, 5..=12, 20..=20]);
        assert!(set.has(3) && set.has(12) && !set.has(4) && !set.has(13) && !set.has(0));
        assert_eq!(UidSet::from_ranges([1..=Uid::MAX, 5..=7]), UidSet::all());
    }
}
