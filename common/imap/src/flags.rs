//! Flags of messages: those kept as bits, and other keywords.
//!
//! Keywords compare without case (RFC 9051 §2.3.2), so they are kept in one case.

use std::fmt;

/// Keywords one command may name.
pub(crate) const MAX_KEYWORDS: usize = 100;
/// Octets in a keyword: what an account keeps.
const MAX_KEYWORD: usize = 100;

/// A flag that is kept as a bit: the five a client may change of RFC 9051 §2.3.2, and the
/// keywords with a registered spelling that the account itself acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// `\Seen`
    Seen,
    /// `\Answered`
    Answered,
    /// `\Flagged`
    Flagged,
    /// `\Deleted`
    Deleted,
    /// `\Draft`
    Draft,
    /// `$Forwarded`
    Forwarded,
    /// `$Junk`
    Junk,
    /// `$NotJunk`
    NotJunk,
    /// `$Phishing`
    Phishing,
    /// `$MDNSent`
    MdnSent,
}

impl System {
    /// All, in the order they are written and of their bits.
    pub const ALL: [Self; 10] = [
        Self::Seen,
        Self::Answered,
        Self::Flagged,
        Self::Deleted,
        Self::Draft,
        Self::Forwarded,
        Self::Junk,
        Self::NotJunk,
        Self::Phishing,
        Self::MdnSent,
    ];

    /// Its name as it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
            Self::Forwarded => "$Forwarded",
            Self::Junk => "$Junk",
            Self::NotJunk => "$NotJunk",
            Self::Phishing => "$Phishing",
            Self::MdnSent => "$MDNSent",
        }
    }

    const fn bit(self) -> u32 {
        match self {
            Self::Seen => 1,
            Self::Answered => 2,
            Self::Flagged => 4,
            Self::Deleted => 8,
            Self::Draft => 16,
            Self::Forwarded => 32,
            Self::Junk => 64,
            Self::NotJunk => 128,
            Self::Phishing => 256,
            Self::MdnSent => 512,
        }
    }
}

/// Any other keyword, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keyword(String);

impl Keyword {
    /// `flag-keyword`: an atom. None for anything else.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let fits = (1..=MAX_KEYWORD).contains(&text.len());
        if !fits || !text.iter().all(|&byte| crate::parse::is_atom_char(byte)) {
            return None;
        }
        Some(Self(std::str::from_utf8(text).ok()?.to_ascii_lowercase()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flag {
    /// One kept as a bit.
    System(System),
    /// Another keyword.
    Keyword(Keyword),
}

impl Flag {
    /// A flag a client may set. `\Recent` and unknown system flags are none.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let known =
            System::ALL.into_iter().find(|flag| flag.name().as_bytes().eq_ignore_ascii_case(text));
        if let Some(system) = known {
            return Some(Self::System(system));
        }
        Keyword::new(text).map(Self::Keyword)
    }
}

/// The flags of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    bits: u32,
    /// Sorted, without repeats.
    keywords: Vec<Keyword>,
}

impl Flags {
    /// From the bits of [`System::ALL`], lowest first, and other keywords.
    #[must_use]
    pub fn new(bits: u32, keywords: impl IntoIterator<Item = Keyword>) -> Self {
        let mut keywords: Vec<Keyword> = keywords.into_iter().collect();
        keywords.sort();
        keywords.dedup();
        Self { bits: bits & 0x3ff, keywords }
    }

    /// The bits of [`System::ALL`], lowest first.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether a system flag is set.
    #[must_use]
    pub const fn has(&self, flag: System) -> bool {
        self.bits & flag.bit() != 0
    }

    /// Whether a keyword is set.
    #[must_use]
    pub fn has_keyword(&self, keyword: &Keyword) -> bool {
        self.keywords.binary_search(keyword).is_ok()
    }

    /// The keywords, sorted.
    #[must_use]
    pub fn keywords(&self) -> &[Keyword] {
        &self.keywords
    }

    /// The system flags set.
    pub fn system(&self) -> impl Iterator<Item = System> + '_ {
        System::ALL.into_iter().filter(|&flag| self.has(flag))
    }

    /// Sets one.
    pub fn insert(&mut self, flag: Flag) {
        match flag {
            Flag::System(system) => self.bits |= system.bit(),
            Flag::Keyword(keyword) => {
                if let Err(at) = self.keywords.binary_search(&keyword) {
                    self.keywords.insert(at, keyword);
                }
            }
        }
    }

    /// Takes all of `other` away.
    pub fn remove_all(&mut self, other: &Self) {
        self.bits &= !other.bits;
        self.keywords.retain(|keyword| !other.has_keyword(keyword));
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Self) {
        self.bits |= other.bits;
        for keyword in &other.keywords {
            self.insert(Flag::Keyword(keyword.clone()));
        }
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits == 0 && self.keywords.is_empty()
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut all = Self::default();
        for flag in flags {
            all.insert(flag);
        }
        all
    }
}

impl fmt::Display for Flags {
    /// Without the parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .system()
            .map(|flag| -> &str { flag.name() })
            .chain(self.keywords.iter().map(Keyword::as_str));
        for (at, name) in names.enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Flags {
        text.split(' ').filter_map(|word| Flag::new(word.as_bytes())).collect()
    }

    #[test]
    fn spelling_is_one() {
        let mixed = flags("\\sEEN $junk Work \\Flagged WORK");
        assert_eq!(mixed.to_string(), "\\Seen \\Flagged $Junk work");
        assert_eq!(mixed.bits(), 1 + 4 + 64);
        for bad in ["", "\\Recent", "\\*", "a b", "a]", "a(", "a%", "\\", "a\"", "ä", "a\u{7f}"] {
            assert_eq!(Flag::new(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Keyword::new(&[b'x'; MAX_KEYWORD + 1]), None);
    }

    #[test]
    fn sets() {
        let mut mine = flags("\\Seen a b");
        mine.add_all(&flags("\\Draft c b"));
        assert_eq!(mine.to_string(), "\\Seen \\Draft a b c");
        mine.remove_all(&flags("\\Seen a zz"));
        assert_eq!(mine, flags("\\Draft b c"));
        assert!(!mine.is_empty() && flags("").is_empty());
    }
}
