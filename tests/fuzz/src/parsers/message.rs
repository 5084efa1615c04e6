//! RFC 5322 and MIME: everything that reads what strangers wrote, and what we write ourselves.

use crate::source::{Source, pieces};
use message::{
    Envelope, Facts, Job, Kind, Limits, Sections, Structure,
    address::{self, Entry},
    charset, compose,
    date::Date,
    dsn::{Action, Dsn, Recipient, Returned},
    encoded_word,
    field::{FieldPicker, Fields, unfold},
    html,
    media::{Disposition, Encoding, Media, decoded_param, parse_encoding, parse_languages},
    preview, thread,
    transfer::Decoder,
};
use types::{Address, UnixNanos};

/// Bounds that an input of a few octets reaches.
fn small() -> Limits {
    Limits {
        depth: 3,
        parts: 6,
        header: 200,
        header_read: 120,
        values: 150,
        part_text: 60,
        text: 100,
        header_text: 80,
    }
}

fn facts<'p>(given: impl Iterator<Item = &'p [u8]>, limits: Limits) -> Facts {
    let mut job = Job::new(limits);
    given.for_each(|piece| job.push(piece));
    job.finish()
}

/// A whole message: any split gives the same facts, within the bounds; structure and envelope come
/// back from their stored forms as they were; every part lies inside its parent.
pub(crate) fn index(input: &[u8]) {
    let mut source = Source::new(input);
    let (marks, seed) = (source.octet(), source.octet());
    let limits = if marks & 1 == 0 { Limits::default() } else { small() };
    let content = source.rest();
    let whole = facts(std::iter::once(content), limits);
    assert_eq!(facts(pieces(content, seed), limits), whole);
    let structure = &whole.structure;
    assert!(!structure.parts.is_empty() && structure.parts.len() <= limits.parts);
    assert!(structure.sections().fits(content.len() as u64, &limits), "{structure:?}");
    assert_eq!(Structure::decode(&structure.encode()).as_ref(), Ok(structure));
    let sections = structure.sections();
    assert_eq!(Sections::decode(&sections.encode()).as_ref(), Ok(&sections));
    assert_eq!(Envelope::decode(&whole.envelope.encode()).as_ref(), Ok(&whole.envelope));
    let text: usize = whole.texts.iter().map(|part| part.text.len()).sum();
    assert!(text <= limits.text && whole.header_text.len() <= limits.header_text);
    assert!(whole.texts.iter().all(|part| part.text.len() <= limits.part_text));
    assert!(!whole.preview.contains(['\r', '\n', '\0']) && whole.preview.len() <= 1024);
    for (at, part) in structure.parts.iter().enumerate() {
        assert!(at == 0 || structure.find(&structure.path(at)).is_some(), "{at}");
        if part.span.kind == Kind::Leaf {
            assert_eq!(structure.children(at).count(), 0);
        }
    }
}

/// The stored forms, from a parser or a disk that lies: what is taken is what is written.
pub(crate) fn codec(input: &[u8]) {
    let mut source = Source::new(input);
    let kind = source.octet() % 3;
    let form = source.rest();
    match kind {
        0 => {
            if let Ok(structure) = Structure::decode(form) {
                assert_eq!(Structure::decode(&structure.encode()), Ok(structure));
            }
        }
        1 => {
            if let Ok(envelope) = Envelope::decode(form) {
                assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
            }
        }
        _ => {
            if let Ok(sections) = Sections::decode(form) {
                assert_eq!(Sections::decode(&sections.encode()).as_ref(), Ok(&sections));
                let size = sections.spans.last().map_or(0, |span| span.body.end);
                let _ = sections.fits(size, &Limits::default());
                for at in 0..sections.spans.len().min(64) {
                    let _ = sections.find(&sections.path(at));
                }
            }
        }
    }
}

/// Address lists: bounded; an address that was understood is the same when written and read again.
pub(crate) fn addresses(input: &[u8]) {
    let entries = address::parse_list(input);
    assert!(entries.len() <= Limits::ADDRESSES);
    let weight: usize = entries
        .iter()
        .map(|entry| match entry {
            Entry::Mailbox(m) => m.localpart.len() + m.host.len(),
            Entry::GroupStart(name) => name.len(),
            Entry::GroupEnd => 0,
        })
        .sum();
    assert!(weight <= input.len(), "more octets than there were");
    let known: Vec<(String, Address)> = entries
        .iter()
        .filter_map(Entry::mailbox)
        .filter_map(|mailbox| Some((mailbox.display_name(), mailbox.address()?)))
        .take(50)
        .collect();
    let mut header = compose::Header::new();
    let shown: Vec<(&str, &Address)> =
        known.iter().map(|(name, address)| (name.as_str(), address)).collect();
    header.addresses("To", &shown);
    let envelope = Envelope::read(header.as_octets(), 1 << 20);
    let again: Vec<Address> = envelope.to.iter().filter_map(|e| e.mailbox()?.address()).collect();
    let wanted: Vec<Address> = known.into_iter().map(|(_, address)| address).collect();
    assert_eq!(again, wanted, "{}", header.as_octets().escape_ascii());
}

/// Dates: the one that was understood is the same when written and read again.
pub(crate) fn date(input: &[u8]) {
    if let Some(date) = Date::parse(input) {
        let text = date.to_rfc5322();
        // A leap second at the end of the last year is in the next one.
        let again = Date::parse(text.as_bytes());
        assert!(again == Some(date) || text.contains(" 2262 "), "{text}");
        let _ = date.day();
    }
}

/// Encoded words: decoding is bounded and forges no lines; what is encoded comes back.
pub(crate) fn words(input: &[u8]) {
    let mut source = Source::new(input);
    let limit = source.below(300);
    let value = source.rest();
    let text = encoded_word::decode(value, limit);
    assert!(text.len() <= limit && !text.contains(char::is_control));
    let whole = encoded_word::decode(value, usize::MAX);
    assert!(whole.len() <= 3 * value.len() + 3);
    // A mark of the byte order at the beginning is no text.
    let kept = |c: &char| !c.is_control() && *c != '\u{feff}';
    let clean: String = String::from_utf8_lossy(value).chars().filter(kept).collect();
    let encoded = encoded_word::encode(&clean);
    assert!(encoded.is_ascii());
    assert_eq!(encoded_word::decode(encoded.as_bytes(), usize::MAX), clean, "{encoded}");
}

/// HTML and previews: bounded text.
pub(crate) fn markup(input: &[u8]) {
    let mut source = Source::new(input);
    let limit = usize::from(u16::from_le_bytes(source.array()));
    let document = String::from_utf8_lossy(source.rest()).into_owned();
    let text = html::to_text(&document, limit);
    assert!(text.len() <= limit);
    let shown = preview::preview(&text);
    assert!(shown.len() <= 1024 && !shown.contains('\n'));
}

/// Charsets: bounded text from any octets under any name.
pub(crate) fn charsets(input: &[u8]) {
    let mut source = Source::new(input);
    let length = source.below(24);
    let label = source.octets(length);
    let octets = source.rest();
    let text = charset::decode(label, octets);
    assert!(text.len() <= 3 * octets.len() + 3, "{} from {}", text.len(), octets.len());
    let _ = charset::is_known(label);
}

fn undone<'p>(encoding: Encoding, given: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    let (mut decoder, mut out) = (Decoder::new(encoding), Vec::new());
    given.for_each(|piece| decoder.push(piece, &mut out));
    decoder.finish(&mut out);
    out
}

/// Transfer encodings: any split gives the same, and never more octets than went in; what we encode
/// comes back.
pub(crate) fn transfer(input: &[u8]) {
    let mut source = Source::new(input);
    let (kind, seed) = (source.octet(), source.octet());
    let body = source.rest();
    let encoding = match kind % 3 {
        0 => Encoding::Base64,
        1 => Encoding::QuotedPrintable,
        _ => Encoding::SevenBit,
    };
    let whole = undone(encoding, std::iter::once(body));
    assert_eq!(undone(encoding, pieces(body, seed)), whole);
    assert!(whole.len() <= body.len());
    let encoded = compose::quoted_printable(body);
    assert!(encoded.split(|&b| b == b'\n').all(|line| line.len() <= 77 && line.is_ascii()));
    let back = undone(Encoding::QuotedPrintable, std::iter::once(&encoded[..]));
    assert_eq!(back, body, "{}", encoded.escape_ascii());
}

/// Header blocks and the values of single fields.
pub(crate) fn fields(input: &[u8]) {
    let mut source = Source::new(input);
    let (marks, seed) = (source.octet(), source.octet());
    let block = source.rest();
    let raw: usize = Fields::new(block).map(|field| field.raw.len()).sum();
    assert!(raw <= block.len());
    for field in Fields::new(block) {
        assert!(!unfold(field.value).iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        let media = Media::parse(field.value);
        assert!(media.params.len() <= Limits::PARAMETERS);
        let _ = decoded_param(&media.params, "name");
        let _ = Disposition::parse(field.value);
        let _ = parse_encoding(field.value);
        let _ = parse_languages(field.value);
        let _ = thread::canonical_id(field.value);
    }
    assert!(thread::references(block).len() <= Limits::REFERENCES);
    let _ = thread::message_id(block);
    let names: &[&[u8]] = &[b"Subject", b"x"];
    let pick = |seed: Option<u8>| {
        let (mut picker, mut out) = (FieldPicker::new(names, marks & 1 == 0), Vec::new());
        match seed {
            Some(seed) => pieces(block, seed).for_each(|piece| picker.push(piece, &mut out)),
            None => picker.push(block, &mut out),
        }
        picker.finish(&mut out);
        out
    };
    let whole = pick(None);
    assert_eq!(pick(Some(seed)), whole);
    assert!(whole.len() <= block.len() + 4);
}

/// What we write ourselves, with hostile values in it: it has the fields it should have and no
/// other, and says the same when it is read.
pub(crate) fn composed(input: &[u8]) {
    let mut source = Source::new(input);
    let mut text = || {
        let length = source.below(90);
        String::from_utf8_lossy(source.octets(length)).into_owned()
    };
    let (subject, explanation, id, remote, diagnostic) = (text(), text(), text(), text(), text());
    let original = source.rest();
    let ann: Address = "ann@example.org".parse().expect("an address");
    let host = "mx.example.org".parse().expect("a domain");
    let date = Date { at: UnixNanos::from_seconds(1_790_000_000), zone_minutes: 0 };
    let recipients = [Recipient {
        final_recipient: &ann,
        original_recipient: Some(&remote),
        action: Action::Failed,
        status: (5, 1, 1),
        remote_mta: Some(&remote),
        diagnostic: Some(&diagnostic),
        last_attempt: Some(date),
        will_retry_until: None,
    }];
    let dsn = Dsn {
        from: &ann,
        to: &ann,
        subject: &subject,
        date,
        message_id: "<1@example.org>",
        in_reply_to: Some(&id),
        explanation: &explanation,
        reporting_mta: &host,
        envelope_id: Some(&id),
        arrival: Some(date),
        recipients: &recipients,
        returned: Returned::Header(original),
    };
    let composed = dsn.compose();
    let read = facts(std::iter::once(&composed.octets[..]), Limits::default());
    assert_eq!((read.from_fields, read.received), (1, 0));
    let once = |name: &str| Fields::new(&composed.octets).filter(|f| f.is(name)).count();
    for name in ["From", "To", "Subject", "Date", "Message-ID", "Content-Type"] {
        assert_eq!(once(name), 1, "{name}: {}", composed.octets.escape_ascii());
    }
    assert!(
        composed.octets.split(|&b| b == b'\n').all(|line| line.len() <= 999),
        "a line too long"
    );
    assert!(read.structure.parts.len() >= 4, "{}", composed.octets.escape_ascii());
    let words = |text: &str| {
        let clean = |c: char| if c.is_control() || c == '\u{feff}' { ' ' } else { c };
        text.chars().map(clean).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&read.subject), words(&subject), "{}", composed.octets.escape_ascii());
}
