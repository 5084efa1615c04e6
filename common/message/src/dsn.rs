//! Delivery status notifications written (RFC 3464 in RFC 6522's multipart/report).

use crate::{
    compose::{Composed, Entity, Header, message},
    date::Date,
};
use types::{Address, Domain};

/// Octets of the original header that are sent back.
const MAX_HEADER: usize = 64 << 10;

/// Octets of a diagnostic text that are repeated.
const MAX_DIAGNOSTIC: usize = 2_000;

/// What became of a recipient (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet delivered; attempts go on.
    Delayed,
    /// Delivered.
    Delivered,
    /// Handed to a server that sends no notifications.
    Relayed,
    /// Delivered to a list that answers for its members.
    Expanded,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }
}

/// The per-recipient fields (RFC 3464 §2.3).
#[derive(Debug, Clone)]
pub struct Recipient<'a> {
    /// Whom it was to reach.
    pub final_recipient: &'a Address,
    /// ORCPT as the sender gave it, decoded: `rfc822;ann@example.org`.
    pub original_recipient: Option<&'a str>,
    /// What became of it.
    pub action: Action,
    /// The enhanced status code (RFC 3463).
    pub status: (u8, u16, u16),
    /// The server that said so.
    pub remote_mta: Option<&'a str>,
    /// Its words, such as `550 5.1.1 no such user`.
    pub diagnostic: Option<&'a str>,
    /// When it was last tried.
    pub last_attempt: Option<Date>,
    /// Until when it will be tried, if it is delayed.
    pub will_retry_until: Option<Date>,
}

/// What of the original message goes back.
#[derive(Debug, Clone, Copy)]
pub enum Returned<'a> {
    /// Its header block (RET=HDRS).
    Header(&'a [u8]),
    /// All of it (RET=FULL).
    Full(&'a [u8]),
}

/// A notification to be written.
#[derive(Debug, Clone)]
pub struct Dsn<'a> {
    /// Who writes: `postmaster` of this host.
    pub from: &'a Address,
    /// The reverse-path of the original message.
    pub to: &'a Address,
    /// Its subject.
    pub subject: &'a str,
    /// Its date.
    pub date: Date,
    /// Its Message-ID with brackets; also what the boundary is made from.
    pub message_id: &'a str,
    /// The Message-ID of the original with brackets, so that clients show both together.
    pub in_reply_to: Option<&'a str>,
    /// What a person reads.
    pub explanation: &'a str,
    /// This host.
    pub reporting_mta: &'a Domain,
    /// ENVID as the sender gave it, decoded (RFC 3461 §4.4).
    pub envelope_id: Option<&'a str>,
    /// When the original message came.
    pub arrival: Option<Date>,
    /// The recipients reported, at least one.
    pub recipients: &'a [Recipient<'a>],
    /// What goes back.
    pub returned: Returned<'a>,
}

impl Dsn<'_> {
    /// Writes it. It has to be sent with a null reverse-path (RFC 5321 §4.5.5).
    #[must_use]
    pub fn compose(&self) -> Composed {
        let mut header = Header::new();
        header.date("Date", &self.date);
        header.addresses("From", &[("Mail Delivery System", self.from)]);
        header.addresses("To", &[("", self.to)]);
        header.text("Subject", self.subject);
        header.field("Message-ID", self.message_id);
        if let Some(original) = self.in_reply_to {
            header.field("In-Reply-To", original);
            header.field("References", original);
        }
        // RFC 3834 §5: keeps vacation programs and other servers from answering.
        header.field("Auto-Submitted", "auto-replied");
        let mut explanation = Entity::text("text/plain", self.explanation);
        explanation.add_field("Content-Description", "Notification");
        let mut status = Entity::verbatim("message/delivery-status", self.status());
        status.add_field("Content-Description", "Delivery report");
        let returned = match self.returned {
            Returned::Header(block) => {
                let block = &block[..block.len().min(MAX_HEADER)];
                let mut part = Entity::text_octets("text/rfc822-headers", block);
                part.add_field("Content-Description", "Headers of the undelivered message");
                part
            }
            Returned::Full(original) => {
                // RFC 2046 §5.2.1: never under an encoding.
                let mut part = Entity::verbatim("message/rfc822", original.to_vec());
                part.add_field("Content-Description", "Undelivered message");
                part
            }
        };
        let params = "report-type=delivery-status";
        let body =
            Entity::multipart("report", params, self.message_id, &[explanation, status, returned]);
        message(&header, &body)
    }

    fn status(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut message_fields = Header::new();
        let reporting = format!("dns; {}", self.reporting_mta.as_ascii());
        message_fields.field("Reporting-MTA", &reporting);
        if let Some(id) = self.envelope_id {
            message_fields.field("Original-Envelope-Id", &escaped(id));
        }
        if let Some(arrival) = &self.arrival {
            message_fields.date("Arrival-Date", arrival);
        }
        out.extend_from_slice(message_fields.as_octets());
        for recipient in self.recipients {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(recipient.fields().as_octets());
        }
        out
    }
}

impl Recipient<'_> {
    fn fields(&self) -> Header {
        let mut fields = Header::new();
        if let Some(original) = self.original_recipient {
            fields.field("Original-Recipient", &escaped(original));
        }
        let address = self.final_recipient.to_string();
        // RFC 6533 §3: an address outside US-ASCII has a type of its own.
        let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
        fields.field("Final-Recipient", &format!("{kind}; {}", escaped(&address)));
        fields.field("Action", self.action.word());
        let (class, subject, detail) = self.status;
        fields.field("Status", &format!("{class}.{subject}.{detail}"));
        if let Some(remote) = self.remote_mta {
            fields.field("Remote-MTA", &format!("dns; {}", escaped(remote)));
        }
        if let Some(diagnostic) = self.diagnostic {
            let diagnostic = &diagnostic[..diagnostic.floor_char_boundary(MAX_DIAGNOSTIC)];
            fields.field("Diagnostic-Code", &format!("smtp; {}", escaped(diagnostic)));
        }
        if let Some(last) = &self.last_attempt {
            fields.date("Last-Attempt-Date", last);
        }
        if let Some(until) = &self.will_retry_until {
            fields.date("Will-Retry-Until", until);
        }
        fields
    }
}

/// Characters outside printable US-ASCII as `\x{HEX}` (RFC 6533 §3, utf-8-addr-xtext), so that the
/// report passes servers without SMTPUTF8.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            out.push(if c.is_ascii_control() { ' ' } else { c });
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Job, Limits, SectionKind};
    use types::UnixNanos;

    #[test]
    fn a_notification_is_one() {
        let from: Address = "postmaster@mx.test".parse().unwrap();
        let to: Address = "ann@a.test".parse().unwrap();
        let lost: Address = "jörg@b.test".parse().unwrap();
        let host: Domain = "mx.test".parse().unwrap();
        let date = Date { at: UnixNanos::from_seconds(880_127_706), zone_minutes: 0 };
        let recipients = [
            Recipient {
                final_recipient: &lost,
                original_recipient: Some("rfc822;x@y.test"),
                action: Action::Failed,
                status: (5, 1, 1),
                remote_mta: Some("mx.b.test"),
                diagnostic: Some("550 5.1.1 no\r\nInjected: yes"),
                last_attempt: Some(date),
                will_retry_until: None,
            },
            Recipient {
                final_recipient: &to,
                original_recipient: None,
                action: Action::Delayed,
                status: (4, 4, 1),
                remote_mta: None,
                diagnostic: None,
                last_attempt: None,
                will_retry_until: Some(date),
            },
        ];
        let dsn = Dsn {
            from: &from,
            to: &to,
            subject: "Undelivered mail",
            date,
            message_id: "<abc@mx.test>",
            in_reply_to: Some("<orig@a.test>"),
            explanation: "Your mail could not be delivered.\n",
            reporting_mta: &host,
            envelope_id: Some("QQ314159"),
            arrival: Some(date),
            recipients: &recipients,
            returned: Returned::Header(b"Subject: hi\r\nX: \xff\r\n\r\n"),
        };
        let composed = dsn.compose();
        assert!(!composed.needs_smtputf8 && !composed.needs_8bitmime);
        let mut job = Job::new(Limits::default());
        job.push(&composed.octets);
        let facts = job.finish();
        assert!(facts.is_dsn);
        assert_eq!(facts.message_id.as_deref(), Some("abc@mx.test"));
        assert_eq!(facts.references, ["orig@a.test"]);
        assert_eq!(facts.preview, "Your mail could not be delivered.");
        let types: Vec<_> = facts
            .structure
            .parts
            .iter()
            .map(|p| format!("{}/{}", p.media.kind, p.media.subtype))
            .collect();
        assert_eq!(
            types,
            ["multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"]
        );
        let range = facts.structure.section(&[2], SectionKind::Content).unwrap();
        let status = &composed.octets[range.start as usize..range.end as usize];
        assert_eq!(
            String::from_utf8_lossy(status),
            "Reporting-MTA: dns; mx.test\r\n\
             Original-Envelope-Id: QQ314159\r\n\
             Arrival-Date: Fri, 21 Nov 1997 15:55:06 +0000\r\n\
             \r\n\
             Original-Recipient: rfc822;x@y.test\r\n\
             Final-Recipient: utf-8; j\\x{F6}rg@b.test\r\n\
             Action: failed\r\n\
             Status: 5.1.1\r\n\
             Remote-MTA: dns; mx.b.test\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 no Injected: yes\r\n\
             Last-Attempt-Date: Fri, 21 Nov 1997 15:55:06 +0000\r\n\
             \r\n\
             Final-Recipient: rfc822; ann@a.test\r\n\
             Action: delayed\r\n\
             Status: 4.4.1\r\n\
             Will-Retry-Until: Fri, 21 Nov 1997 15:55:06 +0000\r\n"
        );
    }

    #[test]
    fn the_whole_message_goes_back_as_it_was() {
        let address: Address = "postmaster@mx.test".parse().unwrap();
        let host: Domain = "mx.test".parse().unwrap();
        let date = Date { at: UnixNanos::default(), zone_minutes: 0 };
        let original = b"Subject: \xe4\r\n\r\nbody\r\n";
        let dsn = Dsn {
            from: &address,
            to: &address,
            subject: "s",
            date,
            message_id: "<a@b>",
            in_reply_to: None,
            explanation: "x",
            reporting_mta: &host,
            envelope_id: None,
            arrival: None,
            recipients: &[],
            returned: Returned::Full(original),
        };
        let composed = dsn.compose();
        assert!(composed.needs_8bitmime);
        let mut job = Job::new(Limits::default());
        job.push(&composed.octets);
        let facts = job.finish();
        let range = facts.structure.section(&[3], SectionKind::Content).unwrap();
        assert_eq!(&composed.octets[range.start as usize..range.end as usize], original);
    }
}
