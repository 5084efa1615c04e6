//! Commands as types: what a client can ask for, once it was read.

use crate::{
    date::{CalendarDate, DateTime},
    flags::{Flags, Keyword, System},
    name::{MailboxName, NameError, SpecialUse},
    pattern::Pattern,
    set::SequenceSet,
};
use std::fmt;
use types::Secret;

/// Octets of a tag: it comes back in every answer.
const MAX_TAG: usize = 128;

/// The tag of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// `1*<any ASTRING-CHAR except "+">`.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let ok = |&byte: &u8| crate::parse::is_astring_char(byte) && byte != b'+';
        if !(1..=MAX_TAG).contains(&text.len()) || !text.iter().all(ok) {
            return None;
        }
        String::from_utf8(text.to_vec()).ok().map(Self)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole command.
pub struct Command {
    /// Its tag.
    pub tag: Tag,
    /// What it asks for.
    pub verb: Verb,
}

/// A name in a command: a well-formed command may name what can be no mailbox, which is a NO and no
/// BAD.
pub(crate) type Named = Result<MailboxName, NameError>;

/// What a command asks for.
pub enum Verb {
    /// CAPABILITY
    Capability,
    /// NOOP
    Noop,
    /// LOGOUT
    Logout,
    /// ID (RFC 2971): the name and version a client gives, for logs.
    Id(Vec<(String, Option<String>)>),
    /// STARTTLS
    StartTls,
    /// AUTHENTICATE
    Authenticate {
        /// In upper case.
        mechanism: String,
        /// RFC 4959: decoded; `=` is present and empty.
        initial: Option<Secret<Vec<u8>>>,
    },
    /// LOGIN
    Login(Login),
    /// ENABLE
    Enable(Vec<String>),
    /// SELECT and EXAMINE
    Select {
        /// Which.
        mailbox: Named,
        /// EXAMINE.
        read_only: bool,
    },
    /// CREATE
    Create {
        /// Which.
        mailbox: Named,
        /// RFC 6154 §3; `Err` for a use that is not known.
        role: Result<Option<SpecialUse>, ()>,
    },
    /// DELETE
    Delete(Named),
    /// RENAME
    Rename {
        /// The old name.
        from: Named,
        /// The new name.
        to: Named,
    },
    /// SUBSCRIBE and UNSUBSCRIBE
    Subscribe {
        /// Which.
        mailbox: Named,
        /// SUBSCRIBE.
        on: bool,
    },
    /// LIST
    List(ListCommand),
    /// LSUB
    Lsub(Result<Pattern, NameError>),
    /// NAMESPACE
    Namespace,
    /// STATUS
    Status {
        /// Which.
        mailbox: Named,
        /// What of it.
        items: Vec<StatusItem>,
    },
    /// IDLE
    Idle,
    /// CHECK
    Check,
    /// CLOSE
    Close,
    /// UNSELECT
    Unselect,
    /// EXPUNGE, and UID EXPUNGE with a set
    Expunge(Option<SequenceSet>),
    /// SEARCH
    Search(SearchCommand),
    /// FETCH
    Fetch(Fetch),
    /// STORE
    Store(Store),
    /// COPY and MOVE
    Copy {
        /// Which messages.
        set: SequenceSet,
        /// By UID.
        uid: bool,
        /// Where to.
        to: Named,
        /// MOVE.
        and_remove: bool,
    },
}

/// A LOGIN command.
pub struct Login {
    /// The login address, as UTF-8.
    pub user: String,
    /// The password, octets as sent.
    pub password: Secret<Vec<u8>>,
}

/// The beginning of an APPEND, up to its message.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// The tag.
    pub tag: Tag,
    /// Where to.
    pub mailbox: Named,
    /// The flags.
    pub flags: Flags,
    /// The internal date, if given.
    pub date: Option<DateTime>,
    /// Octets of the message.
    pub size: u64,
    /// It comes as literal8 (RFC 3516 §4.4): its line ends are not to be touched.
    pub binary: bool,
    /// Whether the client waits for a continuation before it sends them.
    pub waits: bool,
}

/// `LIST` with everything of RFC 5258.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCommand {
    /// Selection options.
    pub select: ListSelect,
    /// The patterns, reference included; `Err` for text that is not encoded as it should be.
    pub patterns: Result<Vec<Pattern>, NameError>,
    /// `LIST "" ""`: asks for the separator.
    pub root_only: bool,
    /// Return options.
    pub give: ListReturn,
}

/// `list-select-opts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListSelect {
    /// SUBSCRIBED
    pub subscribed: bool,
    /// SPECIAL-USE (RFC 6154 §2)
    pub special_use: bool,
    /// RECURSIVEMATCH
    pub recursive: bool,
}

/// `list-return-opts`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListReturn {
    /// SUBSCRIBED
    pub subscribed: bool,
    /// CHILDREN
    pub children: bool,
    /// STATUS
    pub status: Vec<StatusItem>,
}

/// `status-att`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusItem {
    /// MESSAGES
    Messages,
    /// RECENT of RFC 3501, always 0
    Recent,
    /// UIDNEXT
    UidNext,
    /// UIDVALIDITY
    UidValidity,
    /// UNSEEN
    Unseen,
    /// DELETED
    Deleted,
    /// SIZE
    Size,
    /// APPENDLIMIT (RFC 7889 §3)
    AppendLimit,
}

/// FETCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Which messages.
    pub set: SequenceSet,
    /// By UID.
    pub uid: bool,
    /// What of them.
    pub items: Vec<FetchItem>,
}

/// Numbers of a part from the outside in; empty for the message.
pub type PartPath = Vec<u32>;

/// `<offset.length>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartial {
    /// The first octet.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// `fetch-att`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchItem {
    /// FLAGS
    Flags,
    /// UID
    Uid,
    /// INTERNALDATE
    InternalDate,
    /// RFC822.SIZE
    Size,
    /// ENVELOPE
    Envelope,
    /// BODY
    Body,
    /// BODYSTRUCTURE
    BodyStructure,
    /// RFC822
    Rfc822,
    /// RFC822.HEADER
    Rfc822Header,
    /// RFC822.TEXT
    Rfc822Text,
    /// BODY\[..\]
    Section {
        /// The part.
        path: PartPath,
        /// What of it.
        text: SectionText,
        /// A piece of it.
        partial: Option<FetchPartial>,
        /// BODY.PEEK
        peek: bool,
    },
    /// BINARY\[..\]
    Binary {
        /// The part.
        path: PartPath,
        /// A piece of it.
        partial: Option<FetchPartial>,
        /// BINARY.PEEK
        peek: bool,
    },
    /// BINARY.SIZE\[..\]
    BinarySize(PartPath),
}

/// What of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionText {
    /// The whole part.
    All,
    /// HEADER
    Header,
    /// HEADER.FIELDS and HEADER.FIELDS.NOT
    Fields {
        /// As the client wrote them.
        names: Vec<String>,
        /// All but these.
        not: bool,
    },
    /// TEXT
    Text,
    /// MIME
    Mime,
}

/// SEARCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchCommand {
    /// Answers by UID.
    pub uid: bool,
    /// None: without RETURN. `RETURN ()` is ALL.
    pub give: Option<SearchReturn>,
    /// Whether the charset is one of ours.
    pub charset_known: bool,
    /// What to look for.
    pub key: SearchKey,
}

/// `search-return-opts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchReturn {
    /// MIN
    pub min: bool,
    /// MAX
    pub max: bool,
    /// ALL
    pub all: bool,
    /// COUNT
    pub count: bool,
    /// SAVE (RFC 5182)
    pub save: bool,
}

/// `search-key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchKey {
    /// All of these; none is ALL.
    And(Vec<SearchKey>),
    /// OR
    Or(Box<SearchKey>, Box<SearchKey>),
    /// NOT
    Not(Box<SearchKey>),
    /// A sequence set.
    Seqs(SequenceSet),
    /// UID
    Uids(SequenceSet),
    /// NEW and RECENT match nothing (`\Recent` is never set), OLD all.
    Nothing,
    /// What a row tells.
    Row(RowKey),
    /// What the Date field tells.
    Sent(DayKey),
    /// FROM, TO, CC, BCC, SUBJECT, BODY, TEXT
    Text(crate::session::TextScope, String),
    /// HEADER
    Header(String, String),
}

/// What a row tells about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// A flag kept as a bit.
    System(System),
    /// KEYWORD
    Keyword(Keyword),
    /// LARGER
    Larger(u64),
    /// SMALLER
    Smaller(u64),
    /// BEFORE, ON, SINCE
    Received(DayKey),
}

/// A comparison of days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayKey {
    /// On an earlier day.
    Before(CalendarDate),
    /// On that day.
    On(CalendarDate),
    /// On that day or later.
    Since(CalendarDate),
}

impl DayKey {
    pub(crate) fn matches(self, day: CalendarDate) -> bool {
        match self {
            Self::Before(limit) => day < limit,
            Self::On(wanted) => day == wanted,
            Self::Since(first) => day >= first,
        }
    }
}

/// STORE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which messages.
    pub set: SequenceSet,
    /// By UID.
    pub uid: bool,
    /// What to do with the flags.
    pub how: StoreHow,
    /// .SILENT
    pub silent: bool,
    /// The flags.
    pub flags: Flags,
}

/// FLAGS, +FLAGS, -FLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreHow {
    /// These and no others.
    Replace,
    /// These too.
    Add,
    /// Not these.
    Remove,
}
