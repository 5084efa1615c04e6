//! Status responses: OK, NO, BAD, BYE with their codes.

use crate::{flags::Flags, out::Out, set::NumberSet};

/// The five conditions of RFC 9051 §7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It was done.
    Ok,
    /// It could not be done.
    No,
    /// It was no valid command.
    Bad,
    /// The connection ends.
    Bye,
}

/// `resp-text-code` of RFC 9051 §7.1, RFC 5530, RFC 4315.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseCode {
    /// RFC 5530 §3: the mailbox exists already.
    AlreadyExists,
    /// APPENDUID of RFC 4315 §3.
    AppendUid(u32, u32),
    /// Wrong credentials.
    AuthenticationFailed,
    /// Right credentials that may not do this.
    AuthorizationFailed,
    /// A charset that is not known; the ones that are.
    BadCharset,
    /// Never possible.
    Cannot,
    /// The capabilities.
    Capability(String),
    /// A bug of the client.
    ClientBug,
    /// The mailbox selected before is closed.
    Closed,
    /// An administrator has to act.
    ContactAdmin,
    /// COPYUID of RFC 4315 §3: source and target, in the same order.
    CopyUid(u32, NumberSet, NumberSet),
    /// A message was removed by somebody else meanwhile.
    ExpungeIssued,
    /// Children have to go first.
    HasChildren,
    /// A bound was reached.
    Limit,
    /// No such mailbox.
    NonExistent,
    /// The saved search result was not saved.
    NotSaved,
    /// No room left.
    OverQuota,
    /// The flags a client can change for good.
    PermanentFlags(Option<Flags>),
    /// TLS comes first.
    PrivacyRequired,
    /// The mailbox was opened to read.
    ReadOnly,
    /// The mailbox was opened to read and write.
    ReadWrite,
    /// A fault of ours.
    ServerBug,
    /// It would work after CREATE.
    TryCreate,
    /// RFC 7888 §4 and RFC 4469 §4.2: the command or message is too large.
    TooBig,
    /// The next UID.
    UidNext(u32),
    /// The UIDVALIDITY.
    UidValidity(u32),
    /// Something behind us is away for the moment.
    Unavailable,
    /// A transfer encoding that cannot be decoded.
    UnknownCte,
    /// The first message without `\Seen` (IMAP4rev1).
    Unseen(u32),
    /// RFC 6154 §3: that use cannot be given.
    UseAttr,
}

impl ResponseCode {
    fn write(&self, out: &mut Out) {
        match self {
            Self::AlreadyExists => out.text("ALREADYEXISTS"),
            Self::AppendUid(validity, uid) => out.show(format_args!("APPENDUID {validity} {uid}")),
            Self::AuthenticationFailed => out.text("AUTHENTICATIONFAILED"),
            Self::AuthorizationFailed => out.text("AUTHORIZATIONFAILED"),
            Self::BadCharset => out.text("BADCHARSET (US-ASCII UTF-8)"),
            Self::Cannot => out.text("CANNOT"),
            Self::Capability(list) => out.show(format_args!("CAPABILITY {list}")),
            Self::ClientBug => out.text("CLIENTBUG"),
            Self::Closed => out.text("CLOSED"),
            Self::ContactAdmin => out.text("CONTACTADMIN"),
            Self::CopyUid(validity, from, to) => {
                out.show(format_args!("COPYUID {validity} {from} {to}"));
            }
            Self::ExpungeIssued => out.text("EXPUNGEISSUED"),
            Self::HasChildren => out.text("HASCHILDREN"),
            Self::Limit => out.text("LIMIT"),
            Self::NonExistent => out.text("NONEXISTENT"),
            Self::NotSaved => out.text("NOTSAVED"),
            Self::OverQuota => out.text("OVERQUOTA"),
            Self::PermanentFlags(None) => out.text("PERMANENTFLAGS ()"),
            Self::PermanentFlags(Some(flags)) => {
                out.show(format_args!("PERMANENTFLAGS ({flags} \\*)"));
            }
            Self::PrivacyRequired => out.text("PRIVACYREQUIRED"),
            Self::ReadOnly => out.text("READ-ONLY"),
            Self::ReadWrite => out.text("READ-WRITE"),
            Self::ServerBug => out.text("SERVERBUG"),
            Self::TryCreate => out.text("TRYCREATE"),
            Self::TooBig => out.text("TOOBIG"),
            Self::UidNext(uid) => out.show(format_args!("UIDNEXT {uid}")),
            Self::UidValidity(validity) => out.show(format_args!("UIDVALIDITY {validity}")),
            Self::Unavailable => out.text("UNAVAILABLE"),
            Self::UnknownCte => out.text("UNKNOWN-CTE"),
            Self::Unseen(seq) => out.show(format_args!("UNSEEN {seq}")),
            Self::UseAttr => out.text("USEATTR"),
        }
    }
}

impl Out {
    /// A tagged (`Some`) or untagged status line. `text` is ours, never the client's: it is not
    /// escaped.
    pub fn status(
        &mut self,
        tag: Option<&crate::command::Tag>,
        condition: Condition,
        code: Option<&ResponseCode>,
        text: &str,
    ) {
        match tag {
            Some(tag) => self.text(tag.as_str()),
            None => self.text("*"),
        }
        self.text(match condition {
            Condition::Ok => " OK ",
            Condition::No => " NO ",
            Condition::Bad => " BAD ",
            Condition::Bye => " BYE ",
        });
        if let Some(code) = code {
            self.text("[");
            code.write(self);
            self.text("] ");
        }
        self.text(text);
        self.text("\r\n");
    }

    /// An untagged line without strings that need quoting.
    pub(crate) fn untagged(&mut self, value: impl std::fmt::Display) {
        self.show(format_args!("* {value}\r\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Piece, Tag};

    #[test]
    fn lines() {
        let mut out = Out::new();
        let tag = Tag::new(b"a1").unwrap();
        let sets = (NumberSet::from_iter([3, 4, 7]), NumberSet::from_iter([1, 2, 3]));
        out.status(Some(&tag), Condition::Ok, Some(&ResponseCode::CopyUid(9, sets.0, sets.1)), "x");
        out.status(None, Condition::Bye, None, "bye");
        out.status(None, Condition::Ok, Some(&ResponseCode::PermanentFlags(None)), "none");
        assert_eq!(
            out.take(),
            [Piece::Bytes(
                b"a1 OK [COPYUID 9 3:4,7 1:3] x\r\n* BYE bye\r\n* OK [PERMANENTFLAGS ()] none\r\n"
                    .to_vec()
            )]
        );
    }
}
