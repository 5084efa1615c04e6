//! Attached archives that are known to break whoever opens them: well-formed where a program goes by
//! the form, and small. Nothing of ours opens an archive; this holds that to it.

/// Archives inside of archives.
const DEPTH: usize = 200;
/// Repetitions of 258 zeros in [`bomb`].
const ZEROS: usize = 40_000;

/// How PKZIP compresses: not at all, and RFC 1951.
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// A file in an archive, as its headers say that it is.
struct Entry<'a> {
    name: &'a str,
    method: u16,
    crc: u32,
    /// Octets that it is said to have when it is unpacked.
    claimed: u32,
    data: &'a [u8],
}

fn put(out: &mut Vec<u8>, numbers: &[(u32, usize)]) {
    for (number, octets) in numbers {
        out.extend_from_slice(&number.to_le_bytes()[..*octets]);
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Entry<'_> {
    /// Version, flags, method, time, CRC-32 and the lengths: the same in both headers.
    fn facts(&self, out: &mut Vec<u8>) {
        put(
            out,
            &[
                (20, 2),
                (0, 2),
                (self.method.into(), 2),
                (0, 4),
                (self.crc, 4),
                (number(self.data.len()), 4),
                (self.claimed, 4),
                (number(self.name.len()), 2),
                (0, 2),
            ],
        );
    }

    fn local(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PK\x03\x04");
        self.facts(out);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(self.data);
    }

    fn central(&self, at: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PK\x01\x02\x14\x00");
        self.facts(out);
        put(out, &[(0, 2), (0, 2), (0, 2), (0, 4), (at, 4)]);
        out.extend_from_slice(self.name.as_bytes());
    }
}

/// The end of an archive: entries, octets of their list, where it begins.
fn end(out: &mut Vec<u8>, entries: u32, octets: u32, at: u32) {
    out.extend_from_slice(b"PK\x05\x06");
    put(out, &[(0, 2), (0, 2), (entries, 2), (entries, 2), (octets, 4), (at, 4), (0, 2)]);
}

fn archive(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    entry.local(&mut out);
    let at = number(out.len());
    entry.central(0, &mut out);
    let octets = number(out.len()).saturating_sub(at);
    end(&mut out, 1, octets, at);
    out
}

/// CRC-32 of RFC 1952 §8.
fn crc(data: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !data.iter().fold(!0, |crc, octet| (0..8).fold(crc ^ u32::from(*octet), step))
}

/// An archive in an archive, and so on: who unpacks what is in it runs out of stack or of names.
pub(super) fn nested() -> Vec<u8> {
    let mut inner = b"the end\r\n".to_vec();
    for _ in 0..DEPTH {
        let entry = Entry {
            name: "a.zip",
            method: STORED,
            crc: crc(&inner),
            claimed: number(inner.len()),
            data: &inner,
        };
        inner = archive(&entry);
    }
    inner
}

/// RFC 1951 §3.2.6: a zero, and then 258 times what came before, again and again: about 10 MB from a
/// seven hundredth of that, said to be 4 GiB.
pub(super) fn bomb() -> Vec<u8> {
    let mut bits: Vec<bool> = vec![true, true, false];
    let push = |bits: &mut Vec<bool>, code: u16, length: u32| {
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    };
    // The literal 0, then length 258 (code 285) at distance 1 (code 0), then the end.
    push(&mut bits, 0b0011_0000, 8);
    for _ in 0..ZEROS {
        push(&mut bits, 0b1100_0101, 8);
        push(&mut bits, 0, 5);
    }
    push(&mut bits, 0, 7);
    let octet = |bits: &[bool]| bits.iter().rev().fold(0, |octet, bit| octet << 1 | u8::from(*bit));
    let data: Vec<u8> = bits.chunks(8).map(octet).collect();
    let entry = Entry { name: "zeros", method: DEFLATED, crc: 0, claimed: u32::MAX, data: &data };
    archive(&entry)
}

/// Many names for the same octets, and for the header before them: unpacked, the archive is in
/// itself again and again.
pub(super) fn itself() -> Vec<u8> {
    let mut out = Vec::new();
    let entry = Entry { name: "again.zip", method: STORED, crc: 0, claimed: 64, data: &[b'P'; 64] };
    entry.local(&mut out);
    let at = number(out.len());
    // All of it up to its own end, which no honest file reaches.
    let whole = Entry { claimed: u32::MAX >> 1, ..entry };
    for _ in 0..1_000 {
        whole.central(0, &mut out);
    }
    // Its list of files is the archive from the start.
    end(&mut out, 1_000, at, 0);
    out
}

/// A list of files that lies: more entries than octets, one that begins behind the end, one in the
/// middle of the list, names that leave the folder, a comment that is not there.
pub(super) fn lying_list() -> Vec<u8> {
    let mut out = Vec::new();
    let names = ["../../../../etc/passwd", "C:\\x", "", "a\0b", "\u{202e}cod.exe"];
    let entry = |name| Entry { name, method: 99, crc: 7, claimed: 1, data: b"x" };
    for name in names {
        entry(name).local(&mut out);
    }
    let at = number(out.len());
    for (n, name) in (0u32..).zip(names) {
        let begins = [0, u32::MAX, at, at.wrapping_add(3), 1 << 31].get(n as usize).copied();
        entry(name).central(begins.unwrap_or_default(), &mut out);
    }
    end(&mut out, 0xffff, u32::MAX, u32::MAX.wrapping_sub(1));
    let comment = out.len() - 2;
    out[comment..].copy_from_slice(&[0xff, 0xff]);
    // And once more: which of the two ends counts, readers do not agree on.
    end(&mut out, 0, 0, 0);
    out
}

/// RFC 4648 §4, in lines.
pub(super) fn base64(data: &[u8]) -> Vec<u8> {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for line in data.chunks(57) {
        for three in line.chunks(3) {
            let octet = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
            let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
            for place in 0..4 {
                let sign = SIGNS[(bits >> (18 - 6 * place) & 63) as usize];
                out.push(if place as usize <= three.len() { sign } else { b'=' });
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::{Engine as _, prelude::BASE64_STANDARD};

    #[test]
    fn what_carries_them_is_base64() {
        for archive in [nested(), bomb(), itself(), lying_list(), Vec::new(), b"ab".to_vec()] {
            let lines = base64(&archive);
            let text: Vec<u8> = lines.into_iter().filter(|b| !b"\r\n".contains(b)).collect();
            assert_eq!(BASE64_STANDARD.decode(text).unwrap(), archive);
        }
    }

    #[test]
    fn they_are_archives_and_small() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        for archive in [nested(), bomb(), itself(), lying_list()] {
            assert!(archive.starts_with(b"PK\x03\x04") && archive.len() < 100_000);
            assert!(archive.windows(4).any(|octets| octets == b"PK\x05\x06"));
        }
    }
}
