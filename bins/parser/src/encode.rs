//! Facts in the words of the schema, below its bounds.

use ipc::schema::parser_capnp::summary;
use message::{Facts, address::Entry, envelope::mailboxes};

/// Message-ids of References that are told; `message` keeps fewer.
const MAX_REFERENCES: usize = 1_000;

/// Addresses of From that are told.
const MAX_FROM: usize = 100;

/// Addresses of To, Cc and Bcc that are told.
const MAX_RECIPIENTS: usize = 1_000;

/// The longest address told, in octets: above any valid one.
const MAX_ADDRESS: usize = 400;

/// Facts and their stored forms.
pub(crate) struct Pieces {
    pub(crate) facts: Facts,
    pub(crate) envelope: Vec<u8>,
    pub(crate) structure: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(facts: Facts) -> Self {
        let (envelope, structure) = (facts.envelope.encode(), facts.structure.encode());
        Self { facts, envelope, structure }
    }
}

/// The addresses of some lists as text. What is no address is told as it stands: whoever asks how
/// many there are must not take two for one.
fn addresses<'a>(lists: impl IntoIterator<Item = &'a Vec<Entry>>, bound: usize) -> Vec<String> {
    lists
        .into_iter()
        .flat_map(|list| mailboxes(list))
        .map(|mailbox| match mailbox.address() {
            Some(address) => address.to_string(),
            None => {
                let localpart = String::from_utf8_lossy(&mailbox.localpart);
                let host = String::from_utf8_lossy(&mailbox.host);
                let mut text = format!("{localpart}@{host}");
                text.truncate(text.floor_char_boundary(MAX_ADDRESS));
                text
            }
        })
        .take(bound)
        .collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn fill(mut list: ipc::capnp::text_list::Builder<'_>, texts: &[String]) {
    for (at, text) in (0..).zip(texts) {
        list.set(at, text.as_str());
    }
}

pub(crate) fn summary(pieces: &Pieces, mut to: summary::Builder<'_>) {
    let facts = &pieces.facts;
    to.set_size(facts.size);
    to.set_header_length(facts.header_length());
    to.set_lines(facts.lines);
    to.set_opaque(facts.is_opaque());
    if let Some(sent) = facts.sent {
        to.set_sent_unix_ns(sent.at.0);
        to.set_has_date(true);
    }
    to.set_message_id(facts.message_id.as_deref().unwrap_or_default());
    let references = &facts.references[..facts.references.len().min(MAX_REFERENCES)];
    fill(to.reborrow().init_references(count(references.len())), references);
    to.set_subject_base(&facts.base_subject.text);
    to.set_is_response(facts.base_subject.is_response);
    to.set_is_dsn(facts.is_dsn);
    let from = addresses([&facts.envelope.from], MAX_FROM);
    fill(to.reborrow().init_from_addresses(count(from.len())), &from);
    to.set_from_field_count(facts.from_fields);
    to.set_received_count(facts.received);
    to.set_preview(&facts.preview);
    to.set_text_parts(count(facts.texts.len()));
    let envelope = &facts.envelope;
    let recipients = addresses([&envelope.to, &envelope.cc, &envelope.bcc], MAX_RECIPIENTS);
    fill(to.reborrow().init_recipients(count(recipients.len())), &recipients);
    to.set_parts(count(facts.structure.parts.len()));
}
