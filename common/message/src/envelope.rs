//! The envelope of a message's header as IMAP knows it (RFC 9051 §7.5.2): values as written, so
//! that clients decode them, with decoded forms beside.

use crate::{
    Limits,
    address::{Entry, Mailbox, parse_list},
    date::Date,
    encoded_word,
    field::{Fields, unfold_trimmed},
};

/// The longest text value kept, in octets.
const MAX_TEXT: usize = 16 << 10;

/// The longest decoded subject, in octets.
pub(crate) const MAX_SUBJECT: usize = 4 << 10;

/// Header values, unfolded, otherwise as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// Date.
    pub date: Option<Vec<u8>>,
    /// Subject, encoded words left alone.
    pub subject: Option<Vec<u8>>,
    /// From. Several fields of one name are one list.
    pub from: Vec<Entry>,
    /// Sender.
    pub sender: Vec<Entry>,
    /// Reply-To.
    pub reply_to: Vec<Entry>,
    /// To.
    pub to: Vec<Entry>,
    /// Cc.
    pub cc: Vec<Entry>,
    /// Bcc.
    pub bcc: Vec<Entry>,
    /// In-Reply-To.
    pub in_reply_to: Option<Vec<u8>>,
    /// Message-ID.
    pub message_id: Option<Vec<u8>>,
}

impl Envelope {
    /// Reads the envelope of a header block. Text fields count the first time they occur, address
    /// fields are joined; when `values` octets are kept the rest is left out.
    #[must_use]
    pub fn read(block: &[u8], values: usize) -> Self {
        let mut envelope = Self::default();
        let mut room = values;
        for field in Fields::new(block) {
            let Some(target) = envelope.target(field.name) else { continue };
            match target {
                Target::Text(slot) => {
                    if slot.is_none() {
                        let mut value = unfold_trimmed(field.value);
                        value.truncate(MAX_TEXT.min(room));
                        room -= value.len();
                        *slot = Some(value);
                    }
                }
                Target::List(list) => {
                    for entry in parse_list(&unfold_trimmed(field.value)) {
                        let weight = entry.weight();
                        if list.len() + 1 >= Limits::ADDRESSES || weight > room {
                            break;
                        }
                        room -= weight;
                        list.push(entry);
                    }
                    close_group(list);
                }
            }
        }
        envelope
    }

    /// The Sender to show: From's if there is none (RFC 9051 §7.5.2).
    #[must_use]
    pub fn sender_or_from(&self) -> &[Entry] {
        if self.sender.is_empty() { &self.from } else { &self.sender }
    }

    /// The Reply-To to show: From's if there is none.
    #[must_use]
    pub fn reply_to_or_from(&self) -> &[Entry] {
        if self.reply_to.is_empty() { &self.from } else { &self.reply_to }
    }

    /// The date, read.
    #[must_use]
    pub fn sent(&self) -> Option<Date> {
        self.date.as_deref().and_then(Date::parse)
    }

    /// The subject, decoded; empty if there is none.
    #[must_use]
    pub fn decoded_subject(&self) -> String {
        encoded_word::decode(self.subject.as_deref().unwrap_or_default(), MAX_SUBJECT)
    }

    /// Octets of all values.
    pub(crate) fn weight(&self) -> usize {
        let texts = [&self.date, &self.subject, &self.in_reply_to, &self.message_id];
        let lists = [&self.from, &self.sender, &self.reply_to, &self.to, &self.cc, &self.bcc];
        texts.iter().filter_map(|text| text.as_ref()).map(Vec::len).sum::<usize>()
            + lists.iter().flat_map(|list| list.iter()).map(Entry::weight).sum::<usize>()
    }

    fn target(&mut self, name: &[u8]) -> Option<Target<'_>> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"date" => Target::Text(&mut self.date),
            b"subject" => Target::Text(&mut self.subject),
            b"in-reply-to" => Target::Text(&mut self.in_reply_to),
            b"message-id" => Target::Text(&mut self.message_id),
            b"from" => Target::List(&mut self.from),
            b"sender" => Target::List(&mut self.sender),
            b"reply-to" => Target::List(&mut self.reply_to),
            b"to" => Target::List(&mut self.to),
            b"cc" => Target::List(&mut self.cc),
            b"bcc" => Target::List(&mut self.bcc),
            _ => return None,
        })
    }
}

enum Target<'a> {
    Text(&'a mut Option<Vec<u8>>),
    List(&'a mut Vec<Entry>),
}

/// A list that was cut inside a group still closes it.
fn close_group(list: &mut Vec<Entry>) {
    let last = list.iter().rev().find(|entry| !matches!(entry, Entry::Mailbox(_)));
    if matches!(last, Some(Entry::GroupStart(_))) {
        list.push(Entry::GroupEnd);
    }
}

/// The addresses of a list, group marks left out.
pub fn mailboxes(list: &[Entry]) -> impl Iterator<Item = &Mailbox> {
    list.iter().filter_map(Entry::mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\nSUBJECT: =?utf-8?q?gr=C3=BCn?=\r\n\
        \x20tea\r\nFrom: Ann <ann@a.test>\r\nTo: b@b.test\r\nTo: c@c.test\r\nSubject: second\r\n\
        Message-ID: <x@y>\r\n\r\nFrom: not@this\r\n";

    #[test]
    fn values_as_written_and_decoded() {
        let envelope = Envelope::read(BLOCK, usize::MAX);
        assert_eq!(envelope.subject.as_deref(), Some(&b"=?utf-8?q?gr=C3=BCn?= tea"[..]));
        assert_eq!(envelope.decoded_subject(), "grün tea");
        assert_eq!(envelope.to.len(), 2);
        assert_eq!(mailboxes(&envelope.from).count(), 1);
        assert_eq!(envelope.sender_or_from(), envelope.from);
        assert_eq!(envelope.reply_to_or_from(), envelope.from);
        assert_eq!(envelope.sent().map(|date| date.at.seconds()), Some(880_127_706));
        assert_eq!(envelope.message_id.as_deref(), Some(&b"<x@y>"[..]));
        assert!(envelope.cc.is_empty());
    }

    #[test]
    fn the_weight_is_bounded() {
        let many = b"To: group: a@example.org, b@example.org,\r\n".repeat(5_000);
        for room in [0, 10, 1_000, 100_000] {
            let envelope = Envelope::read(&many, room);
            assert!(envelope.weight() <= room, "{room}: {}", envelope.weight());
        }
        let all = Envelope::read(&many, usize::MAX);
        assert!(all.to.len() <= Limits::ADDRESSES + 1);
        assert_eq!(all.to.last(), Some(&Entry::GroupEnd));
    }
}
