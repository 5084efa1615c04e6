//! A header section as fields, octet by octet as it stands: what a signature covers must not
//! depend on how anybody reads it.

/// Fields in one header section; more is no mail that anybody wrote.
const MAX_FIELDS: usize = 10_000;

/// A header field as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    raw: &'a [u8],
    name: &'a [u8],
    value: &'a [u8],
}

/// Why a header section cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// A line that is neither a field nor the continuation of one.
    #[error("a line of the header is no field")]
    NoField,
    /// A CR or LF that is not part of a CRLF. Readers differ in what such a field is.
    #[error("a line of the header does not end with CRLF")]
    LineEnd,
    /// More than anybody needs.
    #[error("more than {MAX_FIELDS} header fields")]
    TooMany,
}

impl<'a> Field<'a> {
    /// One field with its CRLF.
    ///
    /// # Errors
    /// [`BadHeader`] when it is not exactly one.
    pub fn parse(raw: &'a [u8]) -> Result<Self, BadHeader> {
        match *fields(raw)? {
            [field] => Ok(field),
            _ => Err(BadHeader::NoField),
        }
    }

    /// All of it, with its CRLF.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The name, in its own case, without white space before the colon.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// What follows the colon, folds included, without the last CRLF.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    fn of_lines(raw: &'a [u8]) -> Result<Self, BadHeader> {
        let colon = memchr::memchr(b':', raw).ok_or(BadHeader::NoField)?;
        let (name, rest) = raw.split_at(colon);
        // RFC 5322 §4.5: old mail may have white space before the colon.
        let name = name.trim_ascii_end();
        let is_name = !name.is_empty() && name.iter().all(|b| (33..=126).contains(b));
        let value = rest.get(1..).and_then(|value| value.strip_suffix(b"\r\n"));
        match value {
            Some(value) if is_name => Ok(Self { raw, name, value }),
            Some(_) | None => Err(BadHeader::NoField),
        }
    }
}

/// The fields of a header section: up to its empty line, or its end.
///
/// # Errors
/// [`BadHeader`].
pub fn fields(header: &[u8]) -> Result<Vec<Field<'_>>, BadHeader> {
    let mut fields = Vec::new();
    let mut rest = header;
    while !rest.is_empty() && !rest.starts_with(b"\r\n") {
        let mut length = line_length(rest)?;
        while let Some(b' ' | b'\t') = rest.get(length) {
            length += line_length(rest.get(length..).unwrap_or_default())?;
        }
        if fields.len() == MAX_FIELDS {
            return Err(BadHeader::TooMany);
        }
        let (raw, tail) = rest.split_at(length);
        fields.push(Field::of_lines(raw)?);
        rest = tail;
    }
    Ok(fields)
}

/// The length of the first line, with its CRLF.
fn line_length(text: &[u8]) -> Result<usize, BadHeader> {
    let at = memchr::memchr2(b'\r', b'\n', text).ok_or(BadHeader::LineEnd)?;
    if text.get(at..at + 2) == Some(b"\r\n") { Ok(at + 2) } else { Err(BadHeader::LineEnd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_belong_to_their_field() {
        let header = b"From: a@b\r\nX :\r\n\t1\r\n 2\r\n\r\nbody: no\r\n";
        let fields = fields(header).unwrap();
        let names: Vec<_> = fields.iter().map(Field::name).collect();
        assert_eq!(names, [&b"From"[..], b"X"]);
        assert_eq!(fields[1].value(), b"\r\n\t1\r\n 2");
        assert_eq!(fields.iter().flat_map(|f| f.raw().to_vec()).collect::<Vec<_>>(), header[..24]);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for (header, problem) in [
            (&b"no colon\r\n"[..], BadHeader::NoField),
            (b": no name\r\n", BadHeader::NoField),
            (b"na me: x\r\n", BadHeader::NoField),
            (b" continuation: first\r\n", BadHeader::NoField),
            (b"A: x\n", BadHeader::LineEnd),
            (b"A: x\rB: y\r\n", BadHeader::LineEnd),
            (b"A: x", BadHeader::LineEnd),
            (b"A: x\r\n y", BadHeader::LineEnd),
        ] {
            assert_eq!(fields(header), Err(problem), "{:?}", String::from_utf8_lossy(header));
        }
        assert_eq!(fields(&b"A:\r\n".repeat(MAX_FIELDS + 1)), Err(BadHeader::TooMany));
        assert!(Field::parse(b"A: x\r\nB: y\r\n").is_err());
    }
}
