//! The trace field this hop adds, RFC 5321 §4.4.

use crate::date;
use std::net::IpAddr;
use types::{Address, Domain, HostLiteral, SessionId, UnixNanos};

/// What is told about the TLS of a connection, in words: `TLSv1.3`, `TLS_AES_128_GCM_SHA256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The protocol version.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
}

/// A Received field in the making.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What the client called itself.
    pub hello: &'a HostLiteral,
    /// Where it connected from; left out for users, whose whereabouts are nobody's business.
    pub peer: Option<IpAddr>,
    /// Our name.
    pub by: &'a Domain,
    /// EHLO rather than HELO.
    pub extended: bool,
    /// SMTPUTF8 was used.
    pub smtputf8: bool,
    /// TLS of the connection.
    pub tls: Option<&'a TlsFacts>,
    /// The client logged in.
    pub authenticated: bool,
    /// REQUIRETLS was used.
    pub requiretls: bool,
    /// The connection.
    pub id: SessionId,
    /// The recipient, if there is one only: two would learn of each other.
    pub recipient: Option<&'a Address>,
    /// When the message was whole.
    pub at: UnixNanos,
}

/// Lines are folded before this column.
const FOLD: usize = 76;

impl Received<'_> {
    /// `with` of RFC 3848 and RFC 6531 §4.3.
    fn protocol(&self) -> String {
        let base = match (self.smtputf8, self.extended) {
            (true, _) => "UTF8SMTP",
            (false, true) => "ESMTP",
            (false, false) => return "SMTP".to_owned(),
        };
        let tls = if self.tls.is_some() { "S" } else { "" };
        let auth = if self.authenticated { "A" } else { "" };
        format!("{base}{tls}{auth}")
    }

    /// The field, folded, with its CRLF.
    #[must_use]
    pub fn to_field(&self) -> String {
        let mut words = vec!["from".to_owned(), self.hello.to_string()];
        if let Some(peer) = self.peer {
            words.push(format!("({})", HostLiteral::Ip(peer)));
        }
        words.extend(["by".to_owned(), self.by.to_string(), "via".to_owned(), "tcp".to_owned()]);
        words.extend(["with".to_owned(), self.protocol()]);
        if self.requiretls {
            words.push("(requiretls)".to_owned());
        }
        words.extend(["id".to_owned(), self.id.to_string()]);
        if let Some(tls) = self.tls {
            words.push(format!("({} {})", tls.version, tls.cipher));
        }
        if let Some(recipient) = self.recipient {
            words.extend(["for".to_owned(), format!("<{recipient}>")]);
        }
        if let Some(last) = words.last_mut() {
            last.push(';');
        }
        words.push(date::rfc5322(self.at));
        let mut field = "Received:".to_owned();
        let mut column = field.len();
        for word in words {
            if column.saturating_add(1).saturating_add(word.len()) > FOLD {
                field.push_str("\r\n\t");
                column = 1;
            } else {
                field.push(' ');
                column = column.saturating_add(1);
            }
            field.push_str(&word);
            column = column.saturating_add(word.len());
        }
        field.push_str("\r\n");
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_field() {
        let tls = TlsFacts { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() };
        let hello = "client.example.net".parse().unwrap();
        let by = "mx.example.org".parse().unwrap();
        let to = "alice@example.org".parse().unwrap();
        let mut field = Received {
            hello: &hello,
            peer: Some("192.0.2.1".parse().unwrap()),
            by: &by,
            extended: true,
            smtputf8: false,
            tls: Some(&tls),
            authenticated: false,
            requiretls: false,
            id: SessionId::from_bytes([0; 8]),
            recipient: Some(&to),
            at: UnixNanos::from_seconds(1_795_224_009),
        };
        assert_eq!(
            field.to_field(),
            "Received: from client.example.net ([192.0.2.1]) by mx.example.org via tcp\r\n\
             \twith ESMTPS id aaaaaaaaaaaaa (TLSv1.3 TLS_AES_128_GCM_SHA256) for\r\n\
             \t<alice@example.org>; Sat, 21 Nov 2026 01:20:09 +0000\r\n"
        );
        assert!(field.to_field().lines().all(|l| l.len() <= FOLD));
        field.recipient = None;
        field.smtputf8 = true;
        field.authenticated = true;
        assert!(field.to_field().contains("with UTF8SMTPSA id aaaaaaaaaaaaa"));
        // RFC 5322 §3.6.7: the date always stands behind a semicolon.
        assert!(field.to_field().contains(";\r\n\tSat"));
        (field.extended, field.smtputf8) = (false, false);
        assert!(field.to_field().contains("with SMTP id"));
    }
}
