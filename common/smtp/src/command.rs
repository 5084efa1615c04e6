//! The grammar of command lines, RFC 5321 §4.1.1 and the extensions we know.
//!
//! A line becomes a [`Command`] or a [`SyntaxError`]; whether it is in its place is the session's
//! question.

use crate::{ForwardPath, ReverseGiven, date, path::RawPath};
use base64::Engine as _;
use types::{HostLiteral, Secret, UnixNanos};

/// How much a server bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Users' port: AUTH and FUTURERELEASE are known, a strange EHLO argument is not read.
    pub submission: bool,
    /// Every tolerance off.
    pub pedantic: bool,
}

impl Dialect {
    /// Port 25.
    #[must_use]
    pub const fn mx() -> Self {
        Self { submission: false, pedantic: false }
    }

    /// Ports 587 and 465.
    #[must_use]
    pub const fn submission() -> Self {
        Self { submission: true, pedantic: false }
    }
}

/// A command line, understood.
#[derive(Clone)]
pub enum Command {
    /// EHLO.
    Ehlo(Hello),
    /// HELO.
    Helo(Hello),
    /// STARTTLS, RFC 3207.
    StartTls,
    /// AUTH, RFC 4954.
    Auth {
        /// In upper case, at most 20 octets.
        mechanism: String,
        /// The decoded initial response.
        initial: Option<Secret<Vec<u8>>>,
    },
    /// MAIL FROM.
    Mail(Mail),
    /// RCPT TO.
    Rcpt(ForwardPath, RcptNeeds),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, argument dropped.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY, argument dropped: the answer never depends on it.
    Vrfy,
    /// EXPN, idem.
    Expn,
    /// HELP.
    Help,
}

/// Whether a recipient's path left ASCII; allowed only in a transaction with SMTPUTF8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RcptNeeds {
    /// Nothing.
    Ascii,
    /// SMTPUTF8 on MAIL (RFC 6531 §3.4).
    SmtpUtf8,
}

/// Characters that are kept of what is not read.
const MAX_UNREAD: usize = 255;

/// How a client names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// A name or an address literal.
    Name(HostLiteral),
    /// Not read: mail programs of users send anything, and nothing depends on it. As it was said,
    /// for the log-in history: at most 255 characters, none of them for control.
    Unread(String),
}

/// MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The reverse-path.
    pub from: ReverseGiven,
    /// What followed.
    pub params: MailParams,
}

/// Parameters of MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParams {
    /// SIZE, RFC 1870: what the client expects to send.
    pub size: Option<u64>,
    /// BODY, RFC 6152.
    pub body: Option<Body>,
    /// SMTPUTF8, RFC 6531.
    pub smtputf8: bool,
    /// REQUIRETLS, RFC 8689.
    pub requiretls: bool,
    /// HOLDFOR or HOLDUNTIL, RFC 4865.
    pub hold: Option<Hold>,
}

/// BODY of MAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `BODY=7BIT`.
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// When a submission asks to be sent (RFC 4865).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// So many seconds from now.
    For(u32),
    /// Not before this time; the text as given, for DSNs.
    Until(UnixNanos, String),
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// No verb we know.
    #[error("unknown command")]
    Unknown,
    /// A verb we know, with something else behind it than it takes.
    #[error("{0}")]
    Arguments(&'static str),
    /// A path over 256 octets.
    #[error("path too long")]
    PathTooLong,
    /// A parameter twice, or two that exclude each other.
    #[error("parameter given twice")]
    Duplicate,
    /// A parameter nobody announced.
    #[error("unknown parameter")]
    UnknownParameter,
    /// A BODY other than 7BIT and 8BITMIME.
    #[error("unknown body type")]
    UnknownBody,
    /// A reverse-path beyond ASCII without SMTPUTF8.
    #[error("reverse-path needs SMTPUTF8")]
    NeedsSmtpUtf8,
    /// No base64 where it must be.
    #[error("bad base64")]
    Base64,
}

/// The longest mechanism name, RFC 4422 §3.1.
const MAX_MECHANISM: usize = 20;

impl Command {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// [`SyntaxError`].
    pub fn parse(line: &[u8], dialect: &Dialect) -> Result<Self, SyntaxError> {
        // RFC 6531 §3.3 lets UTF-8 into arguments; other octets belong nowhere.
        let line = std::str::from_utf8(line).map_err(|_| {
            if known_verb(line) {
                SyntaxError::Arguments("not UTF-8")
            } else {
                SyntaxError::Unknown
            }
        })?;
        let (verb, rest) = match line.find(' ') {
            Some(at) => line.split_at_checked(at).unwrap_or((line, "")),
            None => (line, ""),
        };
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        let args = Args { rest, dialect };
        if is("MAIL") {
            args.mail()
        } else if is("RCPT") {
            args.rcpt()
        } else if is("DATA") {
            args.none(Self::Data)
        } else if is("EHLO") {
            args.hello(true).map(Self::Ehlo)
        } else if is("HELO") {
            args.hello(false).map(Self::Helo)
        } else if is("RSET") {
            args.none(Self::Rset)
        } else if is("QUIT") {
            args.none(Self::Quit)
        } else if is("STARTTLS") {
            args.none(Self::StartTls)
        } else if is("AUTH") {
            args.auth()
        } else if is("NOOP") {
            Ok(Self::Noop)
        } else if is("HELP") {
            Ok(Self::Help)
        } else if is("VRFY") {
            args.some(Self::Vrfy)
        } else if is("EXPN") {
            args.some(Self::Expn)
        } else {
            Err(SyntaxError::Unknown)
        }
    }

    /// The verb, for logs and metrics.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Ehlo(_) => "ehlo",
            Self::Helo(_) => "helo",
            Self::StartTls => "starttls",
            Self::Auth { .. } => "auth",
            Self::Mail(_) => "mail",
            Self::Rcpt(..) => "rcpt",
            Self::Data => "data",
            Self::Rset => "rset",
            Self::Noop => "noop",
            Self::Quit => "quit",
            Self::Vrfy => "vrfy",
            Self::Expn => "expn",
            Self::Help => "help",
        }
    }
}

fn known_verb(line: &[u8]) -> bool {
    const VERBS: [&[u8]; 13] = [
        b"EHLO",
        b"HELO",
        b"STARTTLS",
        b"AUTH",
        b"MAIL",
        b"RCPT",
        b"DATA",
        b"RSET",
        b"NOOP",
        b"QUIT",
        b"VRFY",
        b"EXPN",
        b"HELP",
    ];
    let verb = line.split(|&b| b == b' ').next().unwrap_or_default();
    VERBS.iter().any(|known| known.eq_ignore_ascii_case(verb))
}

/// Decodes base64 strictly: RFC 4954 §4 takes no white space and no missing padding.
pub(crate) fn decode_base64(text: &[u8]) -> Result<Secret<Vec<u8>>, SyntaxError> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map(Secret::new)
        .map_err(|_| SyntaxError::Base64)
}

/// What follows the verb: empty, or a space and more.
struct Args<'a> {
    rest: &'a str,
    dialect: &'a Dialect,
}

impl<'a> Args<'a> {
    /// RFC 5321 §4.1.1 says to tolerate white space at the end; users' programs have no need of it.
    fn trimmed(&self) -> &'a str {
        if self.dialect.submission { self.rest } else { self.rest.trim_end_matches([' ', '\t']) }
    }

    fn none(&self, command: Command) -> Result<Command, SyntaxError> {
        if self.trimmed().is_empty() {
            Ok(command)
        } else {
            Err(SyntaxError::Arguments("no argument expected"))
        }
    }

    fn some(&self, command: Command) -> Result<Command, SyntaxError> {
        if self.rest.trim().is_empty() {
            Err(SyntaxError::Arguments("argument expected"))
        } else {
            Ok(command)
        }
    }

    fn hello(&self, extended: bool) -> Result<Hello, SyntaxError> {
        if self.dialect.submission && !self.dialect.pedantic {
            let said = self.rest.trim().chars().filter(|c| !c.is_control());
            return Ok(Hello::Unread(said.take(MAX_UNREAD).collect()));
        }
        let text = self.trimmed().strip_prefix(' ').unwrap_or_default();
        // Behind an address literal some clients add a text of their own.
        let text = match text.split_once(' ') {
            Some((literal, _)) if literal.starts_with('[') && extended => literal,
            _ => text,
        };
        match text.parse() {
            Ok(HostLiteral::Ip(_)) if !extended => Err(SyntaxError::Arguments("domain expected")),
            Ok(name) => Ok(Hello::Name(name)),
            Err(_) => Err(SyntaxError::Arguments("domain or address literal expected")),
        }
    }

    fn auth(&self) -> Result<Command, SyntaxError> {
        let text = self.trimmed().strip_prefix(' ').unwrap_or_default();
        let (mechanism, initial) = match text.split_once(' ') {
            None => (text, None),
            Some((mechanism, initial)) if self.dialect.pedantic => (mechanism, Some(initial)),
            // Some mail programs send several spaces.
            Some((mechanism, initial)) => (mechanism, Some(initial.trim_start_matches(' '))),
        };
        // RFC 4422 §3.1: sasl-mech = 1*20mech-char.
        let char = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if mechanism.is_empty() || mechanism.len() > MAX_MECHANISM || !mechanism.bytes().all(char) {
            return Err(SyntaxError::Arguments("bad mechanism"));
        }
        let initial = match initial {
            None => None,
            Some("") => return Err(SyntaxError::Arguments("empty initial response")),
            // RFC 4954 §4: a single equals sign is an initial response of no octets.
            Some("=") => Some(Secret::new(Vec::new())),
            Some(text) => Some(decode_base64(text.as_bytes())?),
        };
        Ok(Command::Auth { mechanism: mechanism.to_owned(), initial })
    }

    /// Behind `FROM:` or `TO:`; one space there is common.
    fn behind(&self, keyword: &str) -> Result<&'a str, SyntaxError> {
        let text = self.trimmed().strip_prefix(' ').unwrap_or_default();
        let head = text.get(..keyword.len()).filter(|head| head.eq_ignore_ascii_case(keyword));
        let rest = head.and_then(|_| text.get(keyword.len()..));
        let rest = rest.ok_or(SyntaxError::Arguments("FROM: or TO: expected"))?;
        Ok(if self.dialect.pedantic { rest } else { rest.strip_prefix(' ').unwrap_or(rest) })
    }

    fn mail(&self) -> Result<Command, SyntaxError> {
        let (path, rest) = RawPath::cut(self.behind("FROM:")?)?;
        let params = MailParams::parse(rest, self.dialect)?;
        // Only now: SMTPUTF8 may stand behind the path.
        if !params.smtputf8 && !path.is_ascii() {
            return Err(SyntaxError::NeedsSmtpUtf8);
        }
        Ok(Command::Mail(Mail { from: path.reverse(self.dialect.pedantic)?, params }))
    }

    fn rcpt(&self) -> Result<Command, SyntaxError> {
        let (path, rest) = RawPath::cut(self.behind("TO:")?)?;
        if !rest.is_empty() {
            let spaced = rest.strip_prefix(' ').is_some_and(|rest| !rest.is_empty());
            return Err(if spaced {
                SyntaxError::UnknownParameter
            } else {
                SyntaxError::Arguments("space expected behind path")
            });
        }
        let needs = if path.is_ascii() { RcptNeeds::Ascii } else { RcptNeeds::SmtpUtf8 };
        Ok(Command::Rcpt(path.forward(self.dialect.pedantic)?, needs))
    }
}

impl MailParams {
    /// Reads `*(SP esmtp-param)`, RFC 5321 §4.1.2.
    fn parse(text: &str, dialect: &Dialect) -> Result<Self, SyntaxError> {
        let mut params = Self::default();
        let mut auth_seen = false;
        let mut rest = text;
        while !rest.is_empty() {
            rest = rest.strip_prefix(' ').ok_or(SyntaxError::Arguments("space expected"))?;
            let (word, tail) = match rest.find(' ') {
                Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
                None => (rest, ""),
            };
            rest = tail;
            let (keyword, value) = match word.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (word, None),
            };
            params.take(keyword, value, dialect, &mut auth_seen)?;
        }
        Ok(params)
    }

    fn take(
        &mut self,
        keyword: &str,
        value: Option<&str>,
        dialect: &Dialect,
        auth_seen: &mut bool,
    ) -> Result<(), SyntaxError> {
        const BAD: SyntaxError = SyntaxError::Arguments("bad parameter value");
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        // esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
        let sound = keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && keyword.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !sound {
            return Err(SyntaxError::Arguments("bad parameter"));
        }
        let digits = |text: &str, most: usize| {
            !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit())
        };
        if is("SIZE") {
            // RFC 1870 §3: size-value = 1*20DIGIT; 20 digits may pass u64, and mean "too large".
            let value = value.filter(|v| digits(v, 20)).ok_or(BAD)?;
            once(&mut self.size, value.parse().unwrap_or(u64::MAX))
        } else if is("BODY") {
            let body = match value.ok_or(BAD)? {
                v if v.eq_ignore_ascii_case("7BIT") => Body::SevenBit,
                v if v.eq_ignore_ascii_case("8BITMIME") => Body::EightBitMime,
                _ => return Err(SyntaxError::UnknownBody),
            };
            once(&mut self.body, body)
        } else if is("SMTPUTF8") && value.is_none() {
            flag(&mut self.smtputf8)
        } else if is("REQUIRETLS") && value.is_none() {
            flag(&mut self.requiretls)
        } else if is("SMTPUTF8") || is("REQUIRETLS") {
            Err(BAD)
        } else if is("AUTH") {
            // RFC 4954 §5: read and ignored; we trust nobody's word about other authentications.
            value.filter(|v| is_xtext(v)).ok_or(BAD)?;
            flag(auth_seen)
        } else if is("HOLDFOR") && dialect.submission {
            // RFC 4865 §4: nine digits, without leading zero.
            let value = value.filter(|v| digits(v, 9) && !v.starts_with('0')).ok_or(BAD)?;
            once(&mut self.hold, Hold::For(value.parse().map_err(|_| BAD)?))
        } else if is("HOLDUNTIL") && dialect.submission {
            let value = value.ok_or(BAD)?;
            let until = date::parse_rfc3339_utc(value).ok_or(BAD)?;
            once(&mut self.hold, Hold::Until(until, value.to_owned()))
        } else {
            Err(SyntaxError::UnknownParameter)
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), SyntaxError> {
    if slot.replace(value).is_some() { Err(SyntaxError::Duplicate) } else { Ok(()) }
}

fn flag(slot: &mut bool) -> Result<(), SyntaxError> {
    if std::mem::replace(slot, true) { Err(SyntaxError::Duplicate) } else { Ok(()) }
}

/// RFC 3461 §4: printable ASCII but "+" and "=", or "+" and two upper-case hex digits.
fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    while let Some(b) = bytes.next() {
        let sound = match b {
            b'+' => hex(bytes.next()) && hex(bytes.next()),
            b'=' => false,
            other => other.is_ascii_graphic(),
        };
        if !sound {
            return false;
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(line: &str) -> Result<Command, SyntaxError> {
        Command::parse(line.as_bytes(), &Dialect::mx())
    }

    fn users(line: &str) -> Result<Command, SyntaxError> {
        Command::parse(line.as_bytes(), &Dialect::submission())
    }

    fn params(text: &str) -> Result<MailParams, SyntaxError> {
        let command = users(&format!("MAIL FROM:<a@b.example>{text}"))?;
        let Command::Mail(mail) = command else { panic!("{}", command.verb()) };
        Ok(mail.params)
    }

    #[test]
    fn verbs_in_any_case() {
        for (line, verb) in [
            ("EHLO mail.example.net", "ehlo"),
            ("ehlo [192.0.2.1]", "ehlo"),
            ("EHLO [192.0.2.1] my text", "ehlo"),
            ("EHLO [IPv6:2001:db8::1]", "ehlo"),
            ("Helo mail.example.net ", "helo"),
            ("starttls", "starttls"),
            ("data", "data"),
            ("DATA  ", "data"),
            ("rset", "rset"),
            ("NOOP", "noop"),
            ("NOOP with whatever", "noop"),
            ("quit", "quit"),
            ("VRFY postmaster", "vrfy"),
            ("EXPN staff SMTPUTF8", "expn"),
            ("HELP me", "help"),
        ] {
            assert_eq!(mx(line).map(|c| c.verb()).as_ref(), Ok(&verb), "{line}");
        }
    }

    #[test]
    fn what_is_no_command() {
        for line in [
            "",
            " ",
            "GET / HTTP/1.1",
            "MAILFROM:<>",
            "BDAT 10",
            "EHLO\ta",
            "DATA\r",
            "\u{0}",
            "ETRN a",
        ] {
            assert_eq!(mx(line).err(), Some(SyntaxError::Unknown), "{line:?}");
        }
        for line in [
            "EHLO",
            "EHLO ",
            "HELO [192.0.2.1]",
            "EHLO a b",
            "HELO a_-",
            "RSET x",
            "QUIT now",
            "DATA x",
            "STARTTLS tls",
            "VRFY",
            "EXPN ",
            "MAIL",
            "MAIL <a@b.example>",
            "MAIL FROM a@b.example",
            "MAIL FROM:",
            "MAIL FROM:a@b.example",
            "MAIL FROM:  <a@b.example>",
            "RCPT TO:",
            "RCPT FROM:<a@b.example>",
            "MAIL FROM:<a@b.example>SIZE=1",
            "MAIL FROM:<a@b.example>  SIZE=1",
            "RCPT TO:<a@b.example>x",
        ] {
            assert!(matches!(mx(line), Err(SyntaxError::Arguments(_))), "{line:?}");
        }
        assert_eq!(Command::parse(b"\xff\xfe", &Dialect::mx()).err(), Some(SyntaxError::Unknown));
        assert!(matches!(
            Command::parse(b"MAIL FROM:<\xff@b.example>", &Dialect::mx()),
            Err(SyntaxError::Arguments(_))
        ));
    }

    #[test]
    fn white_space_at_the_end_is_for_strangers_only() {
        assert!(mx("MAIL FROM:<a@b.example> ").is_ok());
        assert!(users("MAIL FROM:<a@b.example> ").is_err());
        assert!(users("QUIT ").is_err());
    }

    #[test]
    fn one_space_behind_the_colon_is_borne() {
        let pedantic = Dialect { pedantic: true, ..Dialect::mx() };
        for line in ["MAIL FROM: <a@b.example>", "rcpt to: <a@b.example>"] {
            assert!(mx(line).is_ok());
            assert!(Command::parse(line.as_bytes(), &pedantic).is_err());
        }
    }

    #[test]
    fn mail_parameters() {
        let got = params(" SIZE=12 body=8bitmime SMTPUTF8 AUTH=<> REQUIRETLS HOLDFOR=60").unwrap();
        let want = MailParams {
            size: Some(12),
            body: Some(Body::EightBitMime),
            smtputf8: true,
            requiretls: true,
            hold: Some(Hold::For(60)),
        };
        assert_eq!(got, want);
        assert_eq!(params(" SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
        assert!(matches!(
            params(" HOLDUNTIL=2027-01-01T00:00:00Z").unwrap().hold,
            Some(Hold::Until(..))
        ));
        for (text, want) in [
            (" SIZE=1 size=2", SyntaxError::Duplicate),
            (" SMTPUTF8 SMTPUTF8", SyntaxError::Duplicate),
            (" AUTH=a AUTH=b", SyntaxError::Duplicate),
            (" HOLDFOR=1 HOLDUNTIL=2027-01-01T00:00:00Z", SyntaxError::Duplicate),
            (" RET=FULL", SyntaxError::UnknownParameter),
            (" X", SyntaxError::UnknownParameter),
            (" BODY=BINARYMIME", SyntaxError::UnknownBody),
        ] {
            assert_eq!(params(text), Err(want), "{text}");
        }
        for text in [
            " SIZE",
            " SIZE=",
            " SIZE=-1",
            " SIZE=+1",
            " SIZE=999999999999999999999",
            " BODY",
            " SMTPUTF8=1",
            " AUTH",
            " AUTH=",
            " AUTH=a+2",
            " AUTH=a+2f",
            " =1",
            " -a=1",
            " HOLDFOR=0",
            " HOLDFOR=01",
            " HOLDUNTIL=tomorrow",
        ] {
            assert!(matches!(params(text), Err(SyntaxError::Arguments(_))), "{text}");
        }
        // Not announced on port 25, so unknown there.
        assert_eq!(mx("MAIL FROM:<> HOLDFOR=60").err(), Some(SyntaxError::UnknownParameter));
        assert_eq!(
            mx("RCPT TO:<a@b.example> NOTIFY=NEVER").err(),
            Some(SyntaxError::UnknownParameter)
        );
    }

    #[test]
    fn paths_beyond_ascii_need_smtputf8_wherever_it_stands() {
        assert_eq!(mx("MAIL FROM:<é@b.example>").err(), Some(SyntaxError::NeedsSmtpUtf8));
        assert_eq!(mx("MAIL FROM:<a@bücher.example>").err(), Some(SyntaxError::NeedsSmtpUtf8));
        assert!(mx("MAIL FROM:<é@bücher.example> SIZE=1 SMTPUTF8").is_ok());
        assert!(matches!(mx("RCPT TO:<é@b.example>"), Ok(Command::Rcpt(_, RcptNeeds::SmtpUtf8))));
    }

    #[test]
    fn auth_lines() {
        let initial = |line: &str| match users(line) {
            Ok(Command::Auth { mechanism, initial }) => {
                (mechanism, initial.map(|i| i.expose().clone()))
            }
            other => panic!("{line}: {:?}", other.map(|c| c.verb())),
        };
        assert_eq!(initial("AUTH PLAIN"), ("PLAIN".to_owned(), None));
        assert_eq!(initial("auth PLAIN ="), ("PLAIN".to_owned(), Some(vec![])));
        assert_eq!(
            initial("AUTH PLAIN   AGEAYg=="),
            ("PLAIN".to_owned(), Some(b"\0a\0b".to_vec()))
        );
        assert_eq!(initial("AUTH SCRAM-SHA-256-PLUS").0, "SCRAM-SHA-256-PLUS");
        for line in [
            "AUTH",
            "AUTH ",
            "AUTH plain",
            "AUTH ABCDEFGHIJKLMNOPQRSTU",
            "AUTH PLAIN ",
            "AUTH PLAIN A",
            "AUTH PLAIN AGEAYg",
            "AUTH PLAIN AGEAYg== x",
            "AUTH A/B",
        ] {
            assert!(users(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_users_ehlo_is_not_read() {
        let said = |line: &str| {
            let Ok(Command::Ehlo(Hello::Unread(said))) = users(line) else { panic!("{line}") };
            said
        };
        assert_eq!(said("EHLO my pc_1 (home)"), "my pc_1 (home)");
        assert_eq!(said("EHLO a\tb\u{1b}[c"), "ab[c");
        assert_eq!(said("EHLO"), "");
        assert_eq!(said(&format!("EHLO {}", "x".repeat(400))).len(), MAX_UNREAD);
    }

    mod any {
        use super::*;
        use proptest::prelude::*;
        use types::{Address, Localpart};

        fn address() -> impl Strategy<Value = Address> {
            let localpart = "[ -~é]{1,20}"
                .prop_filter_map("a localpart", |text| Localpart::from_unquoted(&text).ok());
            let domain = "[a-z]{1,9}(\\.[a-z0-9]{1,9}){0,3}"
                .prop_filter_map("a domain", |text| text.parse().ok());
            (localpart, domain).prop_map(|(localpart, domain)| Address::new(localpart, domain))
        }

        proptest! {
            #[test]
            fn envelopes_come_back(from in address(), to in address(), size in any::<u64>()) {
                let line = format!("MAIL FROM:<{from}> SIZE={size} SMTPUTF8");
                let Ok(Command::Mail(mail)) = mx(&line) else { panic!("{line}") };
                prop_assert_eq!(mail.from, ReverseGiven::Address(from));
                prop_assert_eq!(mail.params.size, Some(size));
                let line = format!("RCPT TO:<{to}>");
                let Ok(Command::Rcpt(path, _)) = mx(&line) else { panic!("{line}") };
                prop_assert_eq!(path, ForwardPath::Address(to));
            }

            #[test]
            fn nothing_breaks_it(line in proptest::collection::vec(any::<u8>(), 0..80), verb in 0usize..6) {
                let verb = ["", "MAIL FROM:<", "RCPT TO:", "AUTH ", "EHLO ", "MAIL FROM:<a@b.c> "][verb];
                let line = [verb.as_bytes(), &line].concat();
                for dialect in [Dialect::mx(), Dialect::submission()] {
                    // What is taken can be printed on one line: no CR or LF gets through.
                    match Command::parse(&line, &dialect) {
                        Ok(Command::Mail(mail)) => {
                            prop_assert!(!mail.from.to_string().contains(['\r', '\n', '\0']));
                        }
                        Ok(Command::Rcpt(path, _)) => {
                            prop_assert!(!path.to_string().contains(['\r', '\n', '\0']));
                        }
                        Ok(other) => prop_assert!(!other.verb().is_empty()),
                        Err(why) => prop_assert!(crate::Reply::from(&why).code() >= 500),
                    }
                }
            }
        }
    }
}
