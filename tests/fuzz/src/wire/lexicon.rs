//! Words a caller may say: what makes sense for a field of this name, and what makes none.

use crate::source::Source;

/// What is known of the server that is spoken to.
#[derive(Debug, Clone, Default)]
pub struct Lexicon {
    /// Tickets that the server gave, on other edges too.
    pub tickets: Vec<Vec<u8>>,
    /// A header block that keyholder signs.
    pub block: Vec<u8>,
}

const ADDRESSES: &[&str] = &[
    "mox@localhost",
    "ann@example.net",
    "",
    "postmaster@localhost",
    "@localhost",
    "\"a b\"@localhost",
    "mox@localhost\r\nX: y",
    "nobody@localhost",
    "gr\u{fc}n@example.net",
    "<>",
];
const DOMAINS: &[&str] = &[
    "localhost",
    "example.org",
    "mx.example.org",
    "",
    "[192.0.2.1]",
    "x..y",
    "xn--grn-ioa.example",
];
const NAMES: &[&str] = &[
    "Inbox",
    "mox",
    "example.org",
    "Sent",
    "a/b",
    "",
    "inbox",
    "../../etc",
    "a//b",
    "Trash/x",
    "\u{7f}",
    "new",
];
const MECHANISMS: &[&str] = &[
    "PLAIN",
    "SCRAM-SHA-256",
    "LOGIN",
    "EXTERNAL",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256-PLUS",
    "CRAM-MD5",
    "",
    "plain",
];
const PASSWORDS: &[&str] = &["moxmoxmox", "moxadmin", "", "x", "moxmoxmox\0"];
const RECEIVED: &[&str] = &[
    "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n",
    "",
    "X",
    "Received: a\r\n\r\nbody",
    "Received: \0\r\n",
];
const OTHERS: &[&str] =
    &["", "a", "$label", "Subject", "s1", "\\Seen", "text\r\nline", "test/submission", "\0"];
const CHUNKS: &[&[u8]] = &[
    b"From: ann@example.net\r\nTo: mox@localhost\r\nSubject: x\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n",
    b"Subject: x\r\n",
    b"",
    b"\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
    b"\0\xff\n\r",
    b"Content-Type: message/rfc822\r\n\r\n",
];
const INITIALS: &[&[u8]] = &[
    b"\0mox@localhost\0moxmoxmox",
    b"n,,n=mox@localhost,r=abcdefghij",
    b"\0mox@localhost\0wrong",
    b"",
    b"\0\0",
    b"y,,n=,r=",
    b"p=tls-exporter,,n=mox@localhost,r=abc",
];
const ADDRESSES_OF_PEERS: &[&[u8]] = &[
    &[127, 0, 0, 1],
    &[192, 0, 2, 9],
    &[0; 16],
    &[0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2],
    b"",
    &[1; 5],
];
const TOML: &[&[u8]] =
    &[b"", b"[domain.\"localhost\"]\n", b"\xff", b"[account.mox]\nid = \"../../etc\"\n"];

/// Sizes around which bounds lie.
const SIZES: [usize; 8] = [63, 300, 4_097, 12_289, 65_535, 65_536, 65_537, 200_000];

impl Lexicon {
    /// A text for a field.
    pub(crate) fn text(&self, field: &str, source: &mut Source<'_>) -> Vec<u8> {
        let known: &[&str] = match field {
            "to" | "from" | "address" | "addresses" | "recipients" | "login" => ADDRESSES,
            "domain" | "domains" | "helo" | "ehlo" | "serverName" => DOMAINS,
            "mailbox" | "name" | "account" | "after" => NAMES,
            "mechanism" => MECHANISMS,
            "password" => PASSWORDS,
            "received" | "headerPrefix" => RECEIVED,
            "listener" => &["test/submission", "test/imap", ""],
            "selector" => &["s1", "2026a", "", "a.b", "../x"],
            _other => OTHERS,
        };
        match source.octet() {
            choice @ ..200 => known[usize::from(choice) % known.len()].as_bytes().to_vec(),
            250.. => vec![b'a'; *source.pick(&SIZES)],
            // Not always UTF-8: the reader of a Text has to find out.
            _raw => {
                let length = source.below(64);
                source.octets(length).to_vec()
            }
        }
    }

    /// Octets for a field.
    pub(crate) fn data(&self, field: &str, source: &mut Source<'_>) -> Vec<u8> {
        let choice = source.octet();
        if choice >= 250 {
            return vec![source.octet(); *source.pick(&SIZES)];
        }
        if choice >= 170 {
            let length = source.below(64);
            return source.octets(length).to_vec();
        }
        let at = usize::from(choice);
        let one = |known: &[&[u8]]| known[at % known.len()].to_vec();
        match field {
            "ticket" if !self.tickets.is_empty() => {
                let mut ticket = self.tickets[at % self.tickets.len()].clone();
                // Now and then one that was tampered with.
                if choice >= 128 && !ticket.is_empty() {
                    let bit = source.below(ticket.len() * 8);
                    ticket[bit / 8] ^= 1 << (bit % 8);
                }
                ticket
            }
            "headers" => self.block.clone(),
            "chunk" => one(CHUNKS),
            "initial" | "data" => one(INITIALS),
            "ip" | "localIp" => one(ADDRESSES_OF_PEERS),
            "session" => vec![choice; 8],
            "clientKey" | "fingerprint" => vec![choice; 32],
            "text" => one(TOML),
            "exporter" | "endPoint" => Vec::new(),
            _other => vec![choice; [16, 8, 0, 32][at % 4]],
        }
    }

    /// A number; small ones are the most likely to name something.
    pub(crate) fn number(source: &mut Source<'_>) -> u64 {
        match source.octet() {
            small @ ..200 => u64::from(small) % 20,
            200..210 => u64::from(u32::MAX),
            210..220 => u64::MAX,
            220..230 => i64::MAX as u64,
            230..240 => 1 << 31,
            _raw => u64::from_le_bytes(source.array()),
        }
    }
}
