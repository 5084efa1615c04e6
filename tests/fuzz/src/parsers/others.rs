//! DKIM, whose a message is, records of DNS, what a proxy says, settings, the words of the supervisor,
//! addresses.

use crate::source::{Source, pieces};
use config::{
    Static,
    directory::{Directory, Host, edit},
};
use daemon::{Report, orders::Order, supervision::Message};
use dns::{MAX_RECORDS, Record};
use httpd::forwarded_for;
use mailauth::{
    author::{self, mailboxes},
    dkim::{
        Algorithm, BodyHash, Canonicalization, DEFAULT_SIGNED, Draft, MAX_BLOCK, Recipe, Selector,
        check_signable, fields,
    },
    forged::Forged,
    trace,
};
use types::{Address, Domain, Localpart, ReversePath, UnixNanos};

fn domain() -> Domain {
    "example.org".parse().expect("a domain")
}

/// A user's own header: who is named in it is in its octets, and the same when written plainly; a
/// second From, or a line that is no field, is refused whatever stands before and behind it.
pub(crate) fn author(input: &[u8]) {
    if let Some(named) = mailboxes::read(input) {
        assert!(!named.is_empty());
        for address in named {
            let plain = address.to_string();
            assert_eq!(mailboxes::read(plain.as_bytes()), Some(vec![address]), "{plain}");
        }
    }
    if let Some(end) = author::end(input) {
        assert!(matches!(&input[end..], [b'\n', ..] | [b'\r', b'\n', ..]));
    }
    let header = &input[..author::end(input).unwrap_or(input.len())];
    let Ok(found) = author::read(header) else { return };
    let with = |more: &[u8]| author::read(&[more, header].concat());
    assert_eq!(with(b"X-More: x\r\n").as_ref(), Ok(&found));
    assert!(with(format!("From: {found}\r\n").as_bytes()).is_err(), "two authors");
    assert!(with(b"no field\r\n").is_err());
    assert!(with(b" goes on from nothing\r\n").is_err());
}

/// What a face puts on top: whole fields, with no end of the header and no second field in them.
pub(crate) fn trace(input: &[u8]) {
    let lacks = trace::lacks_header(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (received, whole) = (trace::is_received(text), trace::is_fields(text));
    assert!(whole || !received);
    if !whole || text.is_empty() {
        return;
    }
    assert!(text.ends_with("\r\n") && !text.contains("\r\n\r\n") && !text.contains('\0'));
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "a bare line end");
    assert!(!lacks, "fields are a header");
    let first = text.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).count() - 1;
    assert!(!received || first == 1, "one field alone");
}

/// A message on its way in: however it is split, no field that plainly says to be our
/// Authentication-Results is left, nothing is made up, and what is no header is left alone.
pub(crate) fn forged(input: &[u8]) {
    let mut source = Source::new(input);
    let seed = source.octet();
    let message = source.rest();
    let ours: Domain = "mx.example.org".parse().expect("a domain");
    let filtered = |seed: Option<u8>, message: &[u8]| {
        let mut filter = Forged::new(vec![ours.clone()]);
        let mut out = Vec::new();
        match seed {
            Some(seed) => {
                pieces(message, seed).for_each(|piece| out.extend_from_slice(&filter.push(piece)));
            }
            None => out.extend_from_slice(&filter.push(message)),
        }
        out.extend_from_slice(&filter.finish());
        (out, filter.removed())
    };
    let (out, removed) = filtered(None, message);
    assert_eq!(filtered(Some(seed), message), (out.clone(), removed), "any split gives the same");
    assert!(removed > 0 || out == message);
    let mut left = message.iter();
    assert!(out.iter().all(|octet| left.any(|other| other == octet)), "something was made up");
    if trace::lacks_header(message) {
        assert_eq!(out, message, "no header");
        return;
    }
    for line in out.split_inclusive(|octet| *octet == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            return;
        }
        let line = line.to_ascii_lowercase();
        let Some(rest) = line.strip_prefix(b"authentication-results") else { continue };
        let Some(value) = rest.trim_ascii_start().strip_prefix(b":") else { continue };
        let id = value.trim_ascii_start().strip_prefix(b"mx.example.org");
        let is_ours = id.is_some_and(|behind| matches!(behind, [b';' | b' ' | b'\r' | b'\n', ..]));
        assert!(!is_ours, "{}", line.escape_ascii());
    }
}

/// An answer of a hostile DNS server: what we make of its records is no longer than they were.
pub(crate) fn dns_record(input: &[u8]) {
    let Ok(message) = hickory_proto::op::Message::from_vec(input) else { return };
    for record in message.answers.iter().take(MAX_RECORDS) {
        match Record::of(&record.data) {
            Record::Txt(text) => assert!(text.len() <= input.len()),
            Record::Tlsa { data, .. } => assert!(data.len() <= input.len()),
            Record::Name(name)
            | Record::Mx { exchange: name, .. }
            | Record::Srv { target: name, .. } => {
                assert!(name.is_ascii() && !name.is_empty() && name.len() <= 4 * 255, "{name}");
                assert!(name == "." || name.ends_with("\\.") || !name.ends_with('.'), "{name}");
            }
            Record::Ip(_) | Record::Other(_) => {}
        }
    }
}

/// The field of a proxy that is believed: its last word, whatever the client wrote before it.
pub(crate) fn forwarded(input: &[u8]) {
    let Ok(field) = std::str::from_utf8(input) else { return };
    let found = forwarded_for(field);
    assert_eq!(forwarded_for(&format!("192.0.2.1, {field}")), found);
    if let Some(ip) = found {
        assert_eq!(forwarded_for(&ip.to_string()), Some(ip));
        assert_eq!(forwarded_for(&format!("{field}, [{ip}]")), Some(ip));
    }
}

/// A header that is signed: its fields are all of it, and keyholder takes what the signer makes of
/// it, for its own domain and no other.
pub(crate) fn dkim_draft(input: &[u8]) {
    let mut source = Source::new(input);
    let (marks, seed) = (source.octet(), source.octet());
    let header = source.rest();
    let canonicalization = |bit: u8| {
        if marks & bit == 0 { Canonicalization::Relaxed } else { Canonicalization::Simple }
    };
    let hash = |seed: Option<u8>| {
        let mut hash = BodyHash::new(canonicalization(1));
        match seed {
            Some(seed) => pieces(header, seed).for_each(|piece| hash.update(piece)),
            None => hash.update(header),
        }
        hash.finish()
    };
    let body_hash = hash(None);
    assert_eq!(hash(Some(seed)), body_hash, "any split gives the same hash");
    let Ok(found) = fields(header) else { return };
    let whole: Vec<u8> = found.iter().flat_map(|field| field.raw().iter().copied()).collect();
    assert!(header.starts_with(&whole), "fields that are not the header's");
    let (domain, selector): (_, Selector) = (domain(), "s1".parse().expect("a selector"));
    let recipe = Recipe {
        domain: &domain,
        selector: &selector,
        algorithm: Algorithm::Ed25519Sha256,
        header: canonicalization(2),
        body: canonicalization(1),
        identity: None,
        signed: &DEFAULT_SIGNED,
        seal: marks & 4 == 0,
        time: UnixNanos::from_seconds(1_790_000_000),
        expires: None,
    };
    let Ok(draft) = Draft::new(&recipe, &found, &body_hash) else { return };
    let signable = check_signable(draft.block(), &domain);
    let signable = signable.unwrap_or_else(|why| panic!("{why}: {}", draft.block().escape_ascii()));
    assert_eq!((signable.selector, signable.algorithm), (selector.clone(), recipe.algorithm));
    let other = "example.net".parse().expect("a domain");
    assert!(check_signable(draft.block(), &other).is_err(), "signed for another domain");
    let field = draft.finish(&[7; 64]);
    assert!(field.ends_with("\r\n") && fields(field.as_bytes()).is_ok_and(|f| f.len() == 1));
}

/// A block that a caller wants signed: nothing but DKIM of its domain.
pub(crate) fn dkim_signable(input: &[u8]) {
    if check_signable(input, &domain()).is_ok() {
        assert!(input.len() <= MAX_BLOCK && input.ends_with(b"b="));
        let text = String::from_utf8_lossy(input).to_ascii_lowercase();
        assert!(text.contains("dkim-signature") && text.contains("example.org"));
    }
}

/// mox.toml: every fault has its place, what is taken makes a slice for every process.
pub(crate) fn settings(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Static::parse(&text, "mox.toml") {
        Ok(settings) => {
            for role in ipc::Role::ALL {
                let slice = settings.slice(role.name()).expect("a slice for each role");
                assert!(serde_json::from_slice::<serde_json::Value>(&slice).is_ok());
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            places(&problems, &text);
        }
    }
}

fn places(problems: &[config::Problem], text: &str) {
    let lines = text.split('\n').count();
    for problem in problems {
        assert!(problem.line <= lines, "{problem}");
        assert!(!problem.message.is_empty());
    }
}

/// domains.toml: every fault has its place; a directory that is taken stays one after edits.
pub(crate) fn domains(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let host = Host { names: vec!["mx.example.org".parse().expect("a domain")], ..Host::default() };
    let directory = match Directory::parse("domains.toml", &text, &host) {
        Ok(directory) => directory,
        Err(problems) => {
            assert!(!problems.is_empty());
            return places(&problems, &text);
        }
    };
    for (domain, _) in directory.domains() {
        assert!(directory.is_local(domain));
        let address: Address = format!("x@{domain}").parse().expect("an address");
        let _ = directory.resolve(&address);
        let _ = directory.login(&address);
    }
    for account in directory.accounts() {
        assert_eq!(directory.account(&account.name).map(|a| a.id), Some(account.id));
    }
    let new: Domain = "new.example".parse().expect("a domain");
    if directory.domain(&new).is_none() {
        // A file whose tables are written inline may be refused; it is then as it was.
        let Ok(edited) = edit::apply(&text, &edit::Edit::DomainAdd(&new)) else { return };
        let again = Directory::parse("domains.toml", &edited, &host);
        let again = again.unwrap_or_else(|why| panic!("spoilt by an edit: {why:?}\n{edited}"));
        assert!(again.domain(&new).is_some());
        assert_eq!(again.accounts().count(), directory.accounts().count());
    }
}

/// The supervisor's messages, a process's reports, moxctl's orders.
pub(crate) fn supervision(input: &[u8]) {
    if let Ok(message) = Message::decode(input) {
        assert!(message.descriptors() <= 16);
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    if let Ok(report) = Report::decode(input) {
        assert_eq!(report.encode(), input, "a report has one form");
    }
    if let Ok(order) =
        input.try_into().map_err(|_| ()).and_then(|o| Order::decode(o).map_err(|_| ()))
    {
        assert_eq!(order.encode(), input, "an order has one form");
    }
}

/// Addresses, domains and paths: what was understood is the same when written and read again.
pub(crate) fn addresses(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse().as_ref(), Ok(&address), "{address}");
    }
    if let Ok(localpart) = Localpart::from_unquoted(text) {
        assert_eq!(localpart.to_string().parse().as_ref(), Ok(&localpart), "{localpart}");
    }
    if let Ok(domain) = text.parse::<Domain>() {
        assert_eq!(domain.as_ascii().parse().as_ref(), Ok(&domain), "{domain}");
        assert_eq!(domain.to_unicode().parse().as_ref(), Ok(&domain), "{}", domain.to_unicode());
        assert!(domain.is_at_or_below(&domain) && domain.as_ascii().len() <= 255);
    }
    if let Ok(path) = ReversePath::from_inner(text) {
        let inner = path.to_inner();
        assert_eq!(ReversePath::from_inner(&inner).as_ref(), Ok(&path), "{inner}");
    }
}
