//! A name server that knows every name: each has an address and takes its own mail. What comes in is
//! judged by DNS, and a test must not ask the machine's.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

/// The address of every name.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

const A: u16 = 1;
const MX: u16 = 15;
/// Octets of a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Answers until the test ends; where it listens.
///
/// # Errors
/// When it cannot listen.
pub fn serve() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((octets, client)) = socket.recv_from(&mut question) {
            let answer = question.get(..octets).and_then(answer);
            // Whoever asks nonsense gets no answer; who is gone needs none.
            let _ = answer.map(|answer| socket.send_to(&answer, client));
        }
    });
    Ok(address)
}

/// The answer to a query: the same question, and one record or none. None for what is no query.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    let question = question(query.get(HEADER..)?)?;
    let kind = u16::from_be_bytes(*question.split_last_chunk::<4>()?.1.first_chunk()?);
    let data: Option<Vec<u8>> = match kind {
        A => Some(ADDRESS.octets().to_vec()),
        // Preference, and a pointer to the name in the question (RFC 1035 §4.1.4).
        MX => Some(vec![0, 10, 0xc0, 12]),
        _ => None,
    };
    let mut out = id.to_vec();
    // An answer, recursion asked for and had, all of it authentic (RFC 4035 §3.2.3).
    out.extend([0x81, 0xa0, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    out.extend(question);
    if let Some(data) = data {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        // Class IN, a minute.
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// The first question of a query, without what follows it: name, type, class.
fn question(octets: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match usize::from(*octets.get(at)?) {
            0 => return octets.get(..at + 5),
            label => at += label + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_itself_and_a_record() {
        let query = |kind| {
            let head = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            [&head[..], b"\x01a\x07example\0", &[0, kind, 0, 1], b"\0\0\x29rest"].concat()
        };
        let told = answer(&query(1)).unwrap();
        assert!(told.starts_with(&[7, 8, 0x81, 0xa0, 0, 1, 0, 1]), "{told:?}");
        assert!(told.ends_with(&[0, 4, 192, 0, 2, 7]), "{told:?}");
        assert_eq!(answer(&query(28)).unwrap().get(7), Some(&0), "no such record");
        assert_eq!(answer(&query(1)[..20]), None);
    }
}
