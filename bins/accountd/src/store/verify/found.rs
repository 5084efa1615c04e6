//! What a check of an account found, by class, with bounds.

use std::collections::BTreeMap;

/// Findings of one class that are listed; more are counted.
const MAX_LISTED: usize = 20;

/// A class of what can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// SQLite's own structures.
    Structure,
    /// A row names another that is not there.
    References,
    /// Numbers and sequences of the account and its mailboxes.
    Sequences,
    /// Names and parents of mailboxes.
    Names,
    /// Counters of mailboxes and keywords.
    Counters,
    /// What the account uses.
    Usage,
    /// How often content is referred to, and content nobody refers to.
    Refcounts,
    /// Content that is missing, of the wrong length, or whose bytes are damaged.
    Content,
    /// Segment files and their rows.
    Segments,
    /// Threads and parents.
    Threads,
    /// Annotations.
    Annotations,
    /// What the junk filter learned.
    Junk,
    /// The databases of credentials, which are not the store's.
    Credentials,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of which class.
    pub check: Check,
    /// What.
    pub what: String,
    /// It was mended.
    pub fixed: bool,
    /// It was not, and would be with `fix`.
    pub fixable: bool,
}

impl Check {
    /// Whether `fix` mends what is found.
    fn is_mended(self) -> bool {
        match self {
            Self::Counters | Self::Usage | Self::Refcounts | Self::Threads | Self::Junk => true,
            Self::Structure
            | Self::References
            | Self::Sequences
            | Self::Names
            | Self::Content
            | Self::Segments
            | Self::Annotations
            | Self::Credentials => false,
        }
    }
}

/// What a step found, with bounds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) listed: Vec<Finding>,
    /// How many more, by class, whether mended, whether `fix` would.
    pub(super) more: BTreeMap<(Check, bool, bool), u64>,
}

impl Found {
    pub(super) fn add(&mut self, check: Check, what: String, fixed: bool) {
        self.put(Finding { check, what, fixed, fixable: !fixed && check.is_mended() });
    }

    pub(super) fn put(&mut self, finding: Finding) {
        let same = self.listed.iter().filter(|f| f.check == finding.check).count();
        if same < MAX_LISTED {
            self.listed.push(finding);
        } else {
            let kind = (finding.check, finding.fixed, finding.fixable);
            *self.more.entry(kind).or_default() += 1;
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        for finding in other.listed {
            self.put(finding);
        }
        for (kind, count) in other.more {
            *self.more.entry(kind).or_default() += count;
        }
    }

    /// After a run with `fix`, what is not mended is not mended by another one.
    pub(super) fn finish(mut self, fix: bool) -> Vec<Finding> {
        for ((check, fixed, fixable), count) in self.more {
            let what = format!("and {count} more");
            self.listed.push(Finding { check, what, fixed, fixable });
        }
        for finding in &mut self.listed {
            finding.fixable &= !fix;
        }
        self.listed
    }
}
