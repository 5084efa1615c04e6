//! Known answers of the indexer: where parts, headers and bodies of odd messages stand.

use crate::{
    Indexer, Limits, SectionKind, Sink,
    structure::{Kind, Opaque, Part, Structure},
};
use proptest::prelude::*;

const HEAD: &str = "From: a@b.test\r\nSubject: t\r\nMIME-Version: 1.0\r\n";

/// A sink that puts the content of each part together again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents(Vec<(usize, Vec<u8>, bool)>);

impl Sink for Contents {
    fn content(&mut self, index: usize, content: &[u8]) {
        match self.0.last_mut() {
            Some((last, octets, false)) if *last == index => octets.extend_from_slice(content),
            Some(_) | None => self.0.push((index, content.to_vec(), false)),
        }
    }

    fn end(&mut self, index: usize) {
        match self.0.last_mut() {
            Some((last, _, ended)) if *last == index => *ended = true,
            Some(_) | None => self.0.push((index, Vec::new(), true)),
        }
    }
}

fn read(message: &[u8], step: usize, limits: Limits) -> (Structure, Contents) {
    let mut indexer = Indexer::with_sink(limits, Contents::default());
    for chunk in message.chunks(step.max(1)) {
        indexer.push(chunk);
    }
    indexer.finish_with()
}

fn structure(message: &str) -> Structure {
    read(message.as_bytes(), message.len(), Limits::default()).0
}

/// Each part as `path type [kind] body`, its body as text.
fn shown(message: &str) -> Vec<String> {
    let structure = structure(message);
    let show = |index: usize, part: &Part| {
        let path: Vec<_> = structure.path(index).iter().map(ToString::to_string).collect();
        let kind = match part.span.kind {
            Kind::Leaf => String::new(),
            Kind::Multipart => " *".to_owned(),
            Kind::Message => " @".to_owned(),
            Kind::Opaque(why) => format!(" {why:?}"),
        };
        let body = &message[part.span.body.start as usize..part.span.body.end as usize];
        let body =
            if matches!(part.span.kind, Kind::Multipart | Kind::Message) { "" } else { body };
        format!("{} {}/{}{kind} {body:?}", path.join("."), part.media.kind, part.media.subtype)
    };
    structure.parts.iter().enumerate().map(|(index, part)| show(index, part)).collect()
}

fn multipart(boundary: &str, parts: &[&str]) -> String {
    let mut out = format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n");
    for part in parts {
        out.push_str(&format!("--{boundary}\r\n{part}\r\n"));
    }
    out + &format!("--{boundary}--\r\n")
}

#[test]
fn plain_messages() {
    assert_eq!(shown("A: b\r\n\r\nhi\r\n"), ["1 text/plain \"hi\\r\\n\""]);
    assert_eq!(shown("A: b\r\n"), ["1 text/plain \"\""]);
    assert_eq!(shown("A: b"), ["1 text/plain \"\""]);
    assert_eq!(shown("A: b\r\n\r\n"), ["1 text/plain \"\""]);
    assert_eq!(shown(""), ["1 text/plain \"\""]);
    assert_eq!(shown("\r\nA: b\r\n"), ["1 text/plain \"A: b\\r\\n\""]);
    assert_eq!(shown("A: b\n\nbare\nlf"), ["1 text/plain \"bare\\nlf\""]);
    assert_eq!(shown("A: b\r\n\r\na\rb\r"), ["1 text/plain \"a\\rb\\r\""]);
}

#[test]
fn multiparts() {
    let two = multipart("bb", &["A: 1\r\n\r\none", "\r\ntwo\r\n"]);
    assert_eq!(
        shown(&(HEAD.to_owned() + &two)),
        [" multipart/mixed * \"\"", "1 text/plain \"one\"", "2 text/plain \"two\\r\\n\""]
    );
    // Parts without header, without body, without anything.
    let empty = multipart("bb", &["", "\r\n", "A: 1", "\r\njust body"]);
    assert_eq!(
        shown(&empty)[1..],
        [
            "1 text/plain \"\"",
            "2 text/plain \"\"",
            "3 text/plain \"\"",
            "4 text/plain \"just body\""
        ]
    );
    // Padding, and boundaries in the middle of a line.
    let odd = two.replace("--bb\r\n", "--bb  \t\r\n").replace("one", "x --bb\r\n y--bb--");
    assert_eq!(shown(&odd)[1], "1 text/plain \"x --bb\\r\\n y--bb--\"");
    // Preamble and epilogue belong to nobody; a delimiter in the epilogue does not count.
    let around = two.replace("\r\n\r\n--bb", "\r\n\r\npre\r\n--bb") + "post\r\n--bb\r\n\r\nno";
    assert_eq!(shown(&around).len(), 3);
    // Never closed.
    let open = two.replace("--bb--\r\n", "");
    assert_eq!(shown(&open)[2], "2 text/plain \"two\\r\\n\\r\\n\"");
}

#[test]
fn boundaries_that_begin_alike() {
    let inner = multipart("bbb", &["\r\nin1", "\r\nin2"]);
    let outer = multipart("bb", &[&inner, "\r\nout"]);
    assert_eq!(
        shown(&outer)[1..],
        [
            "1 multipart/mixed * \"\"",
            "1.1 text/plain \"in1\"",
            "1.2 text/plain \"in2\"",
            "2 text/plain \"out\""
        ]
    );
    let inner = multipart("bb", &["\r\nin1"]);
    let outer = multipart("bbb", &[&inner, "\r\nout"]);
    assert_eq!(shown(&outer)[2..], ["1.1 text/plain \"in1\"", "2 text/plain \"out\""]);
    // `--bb--x` is the delimiter of `bb--x`, not the end of `bb`.
    let outer = multipart("bb--x", &[&multipart("bb", &["\r\nin"]), "\r\nout"]);
    assert_eq!(shown(&outer)[2..], ["1.1 text/plain \"in\"", "2 text/plain \"out\""]);
}

#[test]
fn an_unclosed_multipart_ends_with_the_one_around_it() {
    let inner = multipart("cc", &["\r\nin"]).replace("\r\n--cc--\r\n", "");
    let outer = multipart("bb", &[&inner, "\r\nout"]);
    assert_eq!(shown(&outer)[2..], ["1.1 text/plain \"in\"", "2 text/plain \"out\""]);
}

#[test]
fn multiparts_that_are_none() {
    for message in [
        "Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n",
        "Content-Type: multipart/mixed; boundary=zz\r\n\r\nnothing\r\n",
        "Content-Type: multipart/mixed; boundary=zz\r\n\r\n--zz--\r\n",
        "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n",
    ] {
        let structure = structure(message);
        assert_eq!(structure.parts.len(), 1, "{message}");
        assert_eq!(structure.parts[0].span.kind, Kind::Opaque(Opaque::NoBoundary));
        assert_eq!(structure.parts[0].imap_media(), ("application", "octet-stream"));
        assert_eq!(
            structure.section(&[1], SectionKind::Content).unwrap().end,
            message.len() as u64
        );
    }
    assert_eq!(
        shown("Content-Type: multipart/mixed; boundary=zz\r\n\r\n--zz"),
        [" multipart/mixed * \"\"", "1 text/plain \"\""]
    );
}

#[test]
fn embedded_messages() {
    let inner = format!("Content-Type: message/rfc822\r\n\r\n{HEAD}\r\ninner");
    let message = multipart("bb", &["\r\none", &inner]);
    assert_eq!(shown(&message)[2..], ["2 message/rfc822 @ \"\"", "2.1 text/plain \"inner\""]);
    let structure = structure(&message);
    let text = |path: &[u32], kind: SectionKind| {
        let range = structure.section(path, kind)?;
        Some(message[range.start as usize..range.end as usize].to_owned())
    };
    assert_eq!(text(&[2], SectionKind::Header), Some(format!("{HEAD}\r\n")));
    assert_eq!(text(&[2], SectionKind::Text).as_deref(), Some("inner"));
    assert_eq!(text(&[2, 1], SectionKind::Content).as_deref(), Some("inner"));
    assert_eq!(text(&[2, 1], SectionKind::Mime), Some(format!("{HEAD}\r\n")));
    assert_eq!(text(&[2], SectionKind::Content), Some(format!("{HEAD}\r\ninner")));
    assert_eq!(
        text(&[2], SectionKind::Mime).as_deref(),
        Some("Content-Type: message/rfc822\r\n\r\n")
    );
    assert_eq!(text(&[1], SectionKind::Header), None);
    for path in [&[3][..], &[1, 1], &[2, 2], &[2, 1, 1], &[0], &[2, 0]] {
        assert_eq!(text(path, SectionKind::Content), None, "{path:?}");
    }
    assert_eq!(text(&[], SectionKind::Content).as_deref(), Some(message.as_str()));
    assert_eq!(text(&[], SectionKind::Mime), None);
    let envelope = structure.parts[3].envelope.as_ref().unwrap();
    assert_eq!(envelope.subject.as_deref(), Some(&b"t"[..]));
    assert!(structure.parts[0].envelope.is_none());
}

#[test]
fn embedded_multiparts_lend_their_parts() {
    let deep = multipart("cc", &["\r\ni1", "\r\ni2"]);
    let inner = format!("Content-Type: message/rfc822\r\n\r\n{HEAD}{deep}");
    let message = multipart("bb", &["\r\none", &inner]);
    assert_eq!(
        shown(&message)[2..],
        [
            "2 message/rfc822 @ \"\"",
            "2 multipart/mixed * \"\"",
            "2.1 text/plain \"i1\"",
            "2.2 text/plain \"i2\""
        ]
    );
    // At the top, and inside each other.
    let top = format!("Content-Type: message/rfc822\r\n\r\n{inner}");
    assert_eq!(
        shown(&top),
        [
            "1 message/rfc822 @ \"\"",
            "1.1 message/rfc822 @ \"\"",
            "1.1 multipart/mixed * \"\"",
            "1.1.1 text/plain \"i1\"",
            "1.1.2 text/plain \"i2\""
        ]
    );
    let structure = structure(&top);
    for index in 0..structure.parts.len() {
        let part = &structure.parts[index].span;
        let path = structure.path(index);
        if part.kind != Kind::Multipart {
            assert_eq!(structure.find(&path), Some(index), "{path:?}");
        }
    }
}

#[test]
fn digests_hold_messages() {
    let digest =
        multipart("bb", &["\r\nSubject: d\r\n\r\nd1", "Content-Type: text/plain\r\n\r\nd2"])
            .replace("/mixed", "/digest");
    assert_eq!(
        shown(&digest)[1..],
        ["1 message/rfc822 @ \"\"", "1.1 text/plain \"d1\"", "2 text/plain \"d2\""]
    );
}

#[test]
fn encoded_messages_are_not_entered() {
    let inner = "Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\nQTogYg==";
    let message = multipart("bb", &[inner]);
    let (structure, contents) = read(message.as_bytes(), 3, Limits::default());
    assert_eq!(structure.parts[1].span.kind, Kind::Opaque(Opaque::Encoded));
    assert_eq!(structure.parts[1].span.decoded, 4);
    assert_eq!(contents.0, [(1, b"A: b".to_vec(), true)]);
}

#[test]
fn header_values() {
    let message = "Content-Type: image/png; name=a\r\nContent-Type: text/plain\r\n\
        Content-ID: <i@d>\r\nContent-Description: x\r\n y\r\nContent-MD5: m\r\n\
        Content-Language: de, en\r\nContent-Location: http://l/\r\n\
        Content-Transfer-Encoding: X-Odd\r\nContent-Disposition: inline; filename=f\r\n\r\nab\n";
    let structure = structure(message);
    let part = &structure.parts[0];
    assert!(part.media.is("image", Some("png")));
    assert_eq!(part.id.as_deref(), Some(&b"<i@d>"[..]));
    assert_eq!(part.description.as_deref(), Some(&b"x y"[..]));
    assert_eq!(part.md5.as_deref(), Some(&b"m"[..]));
    assert_eq!(part.language, [b"de".to_vec(), b"en".to_vec()]);
    assert_eq!(part.location.as_deref(), Some(&b"http://l/"[..]));
    assert_eq!(part.encoding_name.as_deref(), Some(&b"X-Odd"[..]));
    assert_eq!(part.filename().as_deref(), Some("f"));
    assert!(!part.is_attachment() && !part.span.encoding_is_known());
    assert_eq!((part.span.lines, part.span.size(), part.span.decoded), (1, 3, 3));
}

#[test]
fn lines_and_sizes() {
    let message = multipart("bb", &["\r\n1\r\n2\r\n3", "\r\n1\r\n", "\r\n"]);
    let spans: Vec<_> =
        structure(&message).parts.iter().map(|p| (p.span.lines, p.span.size())).collect();
    assert_eq!(spans[1..], [(2, 7), (1, 3), (0, 0)]);
    assert_eq!(spans[0].1, (message.len() - message.find("--bb").unwrap()) as u64);
}

#[test]
fn too_deep_too_many_too_large() {
    let mut deep = "\r\nleaf".to_owned();
    for level in 0..60 {
        deep = multipart(&format!("n{level}n"), &[&deep]);
    }
    let structure = structure(&deep);
    assert_eq!(structure.parts.len(), 51);
    assert_eq!(structure.parts[50].span.kind, Kind::Opaque(Opaque::Depth));

    let limits = Limits { parts: 3, ..Limits::default() };
    let many = multipart("bb", &["\r\n1", "\r\n2", "\r\n3", "\r\n4"]);
    let (structure, _) = read(many.as_bytes(), 7, limits);
    assert_eq!(structure.parts.len(), 3);
    assert_eq!(structure.parts[2].span.kind, Kind::Opaque(Opaque::Parts));
    assert_eq!(structure.parts[2].span.body.end, many.len() as u64);

    let limits = Limits { header: 100, header_read: 50, ..Limits::default() };
    let large = format!("Subject: {}\r\nContent-Type: text/html\r\n\r\nx", "y".repeat(200));
    let (structure, _) = read(large.as_bytes(), 7, limits);
    assert_eq!(structure.parts[0].span.kind, Kind::Opaque(Opaque::Header));
    assert!(structure.parts[0].media.is("text", Some("plain")));
    assert_eq!(structure.parts[0].span.body.start, large.len() as u64 - 1);
}

#[test]
fn a_header_that_is_cut_has_no_parts() {
    let cut = multipart("bb", &["Content-Type: multipart/mixed; boundary=cc", "\r\nx"]);
    let structure = structure(&cut);
    assert_eq!(structure.parts[1].span.kind, Kind::Opaque(Opaque::Cut));
    assert_eq!(structure.parts[1].span.size(), 0);
    assert_eq!(structure.parts.len(), 3);
}

/// Lines that make multiparts, messages and what looks like them.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        "--a\r\n",
        "--a--\r\n",
        "--b\r\n",
        "--b--\n",
        "--a",
        "-",
        "--",
        "--ab\r\n",
        "Content-Type: multipart/mixed; boundary=a\r\n",
        "Content-Type: multipart/x;boundary=b\r\n",
        "Content-Type: multipart/digest; boundary=a\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        " folded\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "YWJj\r\n",
        "x=3D\r\n",
        "text",
        "\u{e9}\r\n",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(600),
        ..ProptestConfig::default()
    })]
    #[test]
    fn chunks_do_not_matter(pieces in prop::collection::vec(piece(), 0..40), step in 1usize..20) {
        let message = pieces.concat();
        let limits = Limits { depth: 4, parts: 12, header: 300, header_read: 200, ..Limits::default() };
        let whole = read(message.as_bytes(), message.len(), limits);
        prop_assert_eq!(&whole, &read(message.as_bytes(), step, limits));
        let (structure, contents) = whole;
        // The layout is one, and what the sink saw is what the spans say.
        prop_assert!(structure.sections().fits(message.len() as u64, &limits));
        for (index, octets, ended) in contents.0 {
            prop_assert!(ended);
            let span = &structure.parts[index].span;
            prop_assert_eq!(octets.len() as u64, span.decoded);
            if span.encoding.is_identity() {
                let body = &message.as_bytes()[span.body.start as usize..span.body.end as usize];
                prop_assert_eq!(body, octets.as_slice());
                let lines = body.iter().filter(|b| **b == b'\n').count() as u64;
                prop_assert_eq!(lines, span.lines);
            }
        }
        // Every part has a path that finds it again.
        for index in 0..structure.parts.len() {
            if structure.parts[index].span.kind != Kind::Multipart {
                prop_assert_eq!(structure.find(&structure.path(index)), Some(index));
            }
        }
        prop_assert_eq!(Structure::decode(&structure.encode()), Ok(structure));
    }
}
