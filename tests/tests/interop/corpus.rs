//! Messages that are read differently by those who read MIME carelessly: one subject each.

use base64::Engine as _;
use mox_tests::needs;
use std::path::PathBuf;

/// A header without its end.
const TOP: &str =
    "From: Ann <ann@a.test>\r\nTo: bob@b.test\r\nSubject: mime\r\nMIME-Version: 1.0\r\n";

/// A part: its fields, then its text.
fn part(fields: &str, text: &str) -> String {
    format!("{fields}\r\n{text}")
}

fn text(words: &str) -> String {
    part("Content-Type: text/plain\r\n", words)
}

/// A multipart entity and what may be odd about it.
struct Multi<'a> {
    boundary: &'a str,
    subtype: &'a str,
    fields: &'a str,
    before: &'a str,
    after: &'a str,
    closed: bool,
}

impl Default for Multi<'_> {
    fn default() -> Self {
        Self { boundary: "sep", subtype: "mixed", fields: "", before: "", after: "", closed: true }
    }
}

impl Multi<'_> {
    fn of(&self, parts: &[String]) -> String {
        let Self { boundary, subtype, fields, before, after, closed } = self;
        let mut out = format!(
            "Content-Type: multipart/{subtype}; boundary=\"{boundary}\"\r\n{fields}\r\n{before}"
        );
        for part in parts {
            out.push_str(&format!("--{boundary}\r\n{part}\r\n"));
        }
        if *closed {
            out.push_str(&format!("--{boundary}--\r\n"));
        }
        out + after
    }
}

fn mixed(parts: &[String]) -> String {
    Multi::default().of(parts)
}

fn rfc822(fields: &str, message: &str) -> String {
    part(&format!("Content-Type: message/rfc822\r\n{fields}"), message)
}

/// A part in a multipart in a multipart, and so on.
pub(crate) fn deep(levels: usize) -> String {
    (0..levels).fold(text("leaf"), |inside, n| {
        Multi { boundary: &format!("d{n}x"), ..Multi::default() }.of(&[inside])
    })
}

/// Whole messages by name.
pub(crate) fn ours() -> Vec<(String, Vec<u8>)> {
    let two = [text("first"), text("second\r\n\r\n")];
    let inner = format!("{TOP}\r\ninner text");
    let inner_multi = TOP.to_owned() + &Multi { boundary: "in", ..Multi::default() }.of(&two);
    let with = |entity: &str| format!("{TOP}{entity}").into_bytes();
    let open = Multi { boundary: "in", closed: false, ..Multi::default() };
    let digest = Multi { subtype: "digest", ..Multi::default() };
    let encoded = base64::engine::general_purpose::STANDARD.encode(&inner);
    let attachment = part(
        "Content-Type: application/pdf; name=\"a b.pdf\"\r\nContent-Disposition: attachment;\r\n \
         filename=\"a b.pdf\"; size=5\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Description: a paper\r\nContent-ID: <one@a.test>\r\nContent-MD5: xyz\r\n\
         Content-Language: en, de\r\nContent-Location: http://a.test/x\r\n",
        "aGVsbG8=",
    );
    let related = Multi { boundary: "rel", subtype: "related", ..Multi::default() }.of(&[
        part("Content-Type: text/html; charset=\"utf-8\"\r\n", "<p>text"),
        part("Content-Type: image/png\r\nContent-ID: <pic>\r\n", "png"),
    ]);
    let alternative = Multi { boundary: "alt", subtype: "alternative", ..Multi::default() }
        .of(&[text("text"), related]);
    let report = Multi { subtype: "report", ..Multi::default() }.of(&[
        text("it failed"),
        part(
            "Content-Type: message/delivery-status\r\n",
            "Reporting-MTA: dns; a.test\r\n\r\nFinal-Recipient: rfc822; c@c.test\r\n",
        ),
        part("Content-Type: text/rfc822-headers\r\n", TOP),
    ]);
    let deep = deep(49);
    let many: Vec<String> = (0..500).map(|n| text(&format!("part {n}"))).collect();
    let bare = |body: &str| format!("{TOP}\r\n{body}").into_bytes();
    let untyped = "Content-Type: multipart/mixed; boundary=sep\r\n\r\n";

    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("plain", with(&text("hello\r\n"))),
        ("header-alone", TOP.into()),
        ("header-cut", TOP.trim_end().into()),
        ("empty-body", bare("")),
        ("no-type", bare("text\r\n")),
        ("two-parts", with(&mixed(&two))),
        (
            "prologue-epilogue",
            with(
                &Multi { before: "not shown\r\n", after: "nor this\r\n\r\n", ..Multi::default() }
                    .of(&two),
            ),
        ),
        ("not-closed", with(&Multi { closed: false, ..Multi::default() }.of(&two))),
        ("empty-parts", with(&mixed(&[String::new(), "\r\n".into(), text("")]))),
        ("part-without-header", with(&mixed(&["\r\nbody alone".into()]))),
        (
            "inner-boundary-longer",
            with(&mixed(&[
                Multi { boundary: "sepx", ..Multi::default() }.of(&two),
                text("behind"),
            ])),
        ),
        (
            "inner-boundary-shorter",
            with(
                &Multi { boundary: "sepx", ..Multi::default() }.of(&[mixed(&two), text("behind")]),
            ),
        ),
        (
            "space-behind-boundary",
            with(&mixed(&two).replace("--sep\r\n", "--sep \t\r\n").replace("--sep--", "--sep-- ")),
        ),
        ("message", with(&mixed(&[text("see"), rfc822("", &inner)]))),
        ("message-of-parts", with(&mixed(&[text("see"), rfc822("", &inner_multi)]))),
        ("message-alone", with(&rfc822("", &inner))),
        ("message-alone-of-parts", with(&rfc822("", &inner_multi))),
        (
            "message-in-message",
            with(&mixed(&[rfc822("", &format!("{TOP}{}", rfc822("", &inner)))])),
        ),
        (
            "message-encoded",
            with(&mixed(&[rfc822(
                "Content-Transfer-Encoding: base64\r\n",
                &format!("{encoded}\r\n"),
            )])),
        ),
        ("message-empty", with(&mixed(&[rfc822("", ""), text("behind")]))),
        ("message-header-alone", with(&mixed(&[rfc822("", TOP), text("behind")]))),
        ("digest", with(&digest.of(&[format!("\r\n{inner}"), format!("\r\n{inner}")]))),
        ("digest-with-type", with(&digest.of(&[text("no message")]))),
        ("message-global", with(&mixed(&[part("Content-Type: message/global\r\n", &inner)]))),
        ("report", with(&report)),
        (
            "message-partial",
            with(&part("Content-Type: message/partial; id=\"x\"; number=1\r\n", &inner)),
        ),
        ("type-twice", with(&format!("Content-Type: text/plain\r\n{}", mixed(&[text("one")])))),
        ("no-boundary", with("Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n")),
        ("no-parts", with(&mixed(&[]))),
        ("boundary-never-comes", with(&format!("{untyped}nothing here\r\n"))),
        ("boundary-ends-it", with(&format!("{untyped}--sep"))),
        ("boundary-closes-it", with(&format!("{untyped}--sep--\r\n"))),
        ("part-with-bad-header", with(&mixed(&["no header at all\r\n\r\nbody".into()]))),
        (
            "boundary-in-a-line",
            with(&mixed(&[text("a --sep\r\n --sep\r\n>--sep"), text("second")])),
        ),
        ("inner-not-closed", with(&mixed(&[open.of(&[text("inside")]), text("behind")]))),
        ("attachments", with(&mixed(&[alternative, attachment]))),
        ("deep", with(&deep)),
        ("many", with(&mixed(&many))),
        (
            "boundary-folded",
            with(
                "Content-Type: multipart/mixed;\r\n\tboundary=\"a b:c/d\"\r\n\r\n\
                  --a b:c/d\r\n\r\nx\r\n--a b:c/d--\r\n",
            ),
        ),
        (
            "comments",
            with(
                "Content-Type: multipart/mixed (hi); (there) boundary=sep (end)\r\n\r\n\
                  --sep\r\n\r\nx\r\n--sep--\r\n",
            ),
        ),
        (
            "multipart-encoded",
            with(
                &Multi { fields: "Content-Transfer-Encoding: base64\r\n", ..Multi::default() }
                    .of(&two),
            ),
        ),
        ("eight-bit", [TOP.as_bytes(), b"X-Odd: \xff\xfe\r\n\r\n\xff\r\n"].concat()),
        ("space-before-colon", b"From : a@a.test\r\nSubject : x\r\n\r\nhi\r\n".to_vec()),
        ("line-of-an-mbox", format!("From ann Mon\r\n{TOP}\r\nx\r\n").into_bytes()),
        ("leading-empty-line", format!("\r\n{TOP}\r\nx\r\n").into_bytes()),
        (
            "parameters",
            with(
                "Content-Type: text/plain; charset=\"us\\\"ascii\"; format=flowed;\r\n \
                  x*0=\"long \"; x*1=value; y*=utf-8''%c3%a4\r\n\r\nx\r\n",
            ),
        ),
        (
            "disposition-odd",
            with(
                "Content-Type: text/plain\r\nContent-Disposition: INLINE\r\n\
                  Content-Transfer-Encoding: Quoted-Printable\r\n\r\n=3D\r\n",
            ),
        ),
        (
            "envelope",
            b"Date: Sat, 21 Nov 2026 01:10:50 +0000\r\nFrom: \"Q. \\\"X\\\" Y\" <q@a.test>\r\n\
              Sender: s@a.test\r\nReply-To: r@a.test, Other <o@a.test>\r\n\
              To: group: a@a.test, B <b@b.test>;, =?utf-8?q?G=C3=BC?= <g@a.test>\r\n\
              Cc: undisclosed:;\r\nBcc: <route@a.test>\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\
              \tfolded\r\nMessage-ID: <m@a.test>\r\nIn-Reply-To: <n@a.test>\r\n\r\nx\r\n"
                .to_vec(),
        ),
    ];
    cases.into_iter().map(|(name, octets)| (name.to_owned(), octets)).collect()
}

/// The messages that the `mail-parser` crate, our oracle for header values, is tested with; with the
/// line ends of mail.
pub(crate) fn theirs() -> Vec<(String, Vec<u8>)> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let mut found = Vec::new();
    let sources = home.map(|home| home.join("registry/src"));
    for registry in sources.iter().flat_map(std::fs::read_dir).flatten().flatten() {
        for package in std::fs::read_dir(registry.path()).into_iter().flatten().flatten() {
            if package.file_name().to_string_lossy().starts_with("mail-parser-0.11.") {
                collect(&package.path().join("resources/eml"), &mut found);
            }
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    let there = needs(!found.is_empty(), || "no sources of mail-parser in CARGO_HOME".into());
    if there { found } else { Vec::new() }
}

fn collect(folder: &std::path::Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|end| end == "eml") {
            let above = path.parent().and_then(|p| p.file_name()).unwrap_or_default();
            let name =
                format!("{}-{}", above.to_string_lossy(), entry.file_name().to_string_lossy());
            into.push((name, with_crlf(&std::fs::read(&path).unwrap())));
        }
    }
}

fn with_crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + 64);
    for line in octets.split_inclusive(|&b| b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        out.extend_from_slice(text);
        if line.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}
