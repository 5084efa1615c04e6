//! A name server in small: the records a test gives it, over UDP on an address of its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

/// A record.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    A(Ipv4Addr),
    /// Preference and host; `.` is the root.
    Mx(u16, String),
    Txt(String),
}

impl Record {
    fn kind(&self) -> u16 {
        match self {
            Self::A(_) => 1,
            Self::Mx(..) => 15,
            Self::Txt(_) => 16,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Self::A(ip) => ip.octets().to_vec(),
            Self::Mx(preference, host) => [preference.to_be_bytes().to_vec(), name(host)].concat(),
            // RFC 1035 §3.3: strings of at most 255 octets, one after another.
            Self::Txt(text) => text
                .as_bytes()
                .chunks(255)
                .flat_map(|part| [&[u8::try_from(part.len()).unwrap()], part].concat())
                .collect(),
        }
    }
}

/// A name as labels.
fn name(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in text.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

type Records = Arc<Mutex<BTreeMap<String, Vec<Record>>>>;

/// A running name server; its thread ends with the program.
pub(crate) struct Zone {
    pub(crate) address: SocketAddr,
    records: Records,
}

impl Zone {
    pub(crate) fn start(ip: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let (address, records) = (socket.local_addr().unwrap(), Records::default());
        let known = Arc::clone(&records);
        std::thread::spawn(move || {
            let mut query = [0; 1_500];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                // Whoever asked may be gone.
                let _ = socket.send_to(&answer(&query[..len], &known), from);
            }
        });
        Self { address, records }
    }

    pub(crate) fn add(&self, name: &str, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.entry(name.to_owned()).or_default().push(record);
    }
}

/// RFC 1035 §4.1: a header, the question again, answers with a pointer to its name.
fn answer(query: &[u8], records: &BTreeMap<String, Vec<Record>>) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let label = &query[at + 1..][..usize::from(query[at])];
        labels.push(String::from_utf8(label.to_vec()).unwrap().to_ascii_lowercase());
        at += 1 + label.len();
    }
    let (asked, kind) = (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]));
    let end = at + 5;
    let below = format!(".{asked}");
    let exists = records.contains_key(&asked) || records.keys().any(|n| n.ends_with(&below));
    let found = records.get(&asked).into_iter().flatten().filter(|record| record.kind() == kind);
    let mut answers: Vec<(u16, Vec<u8>)> = found.map(|r| (r.kind(), r.data())).collect();
    let count = answers.len();
    let (code, denials) = match (exists, count) {
        (false, _) => (3, 1),
        (true, 0) => (0, 1),
        (true, _) => (0, 0),
    };
    if denials == 1 {
        // RFC 2308 §3: the SOA says how long it is not there.
        let numbers = [1_u32, 3_600, 600, 86_400, 1];
        let soa = numbers.iter().flat_map(|n| n.to_be_bytes());
        answers.push((6, [0, 0].into_iter().chain(soa).collect()));
    }
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1]);
    out.extend(u16::try_from(count).unwrap().to_be_bytes());
    out.extend([0, denials, 0, 0]);
    out.extend(&query[12..end]);
    for (kind, data) in answers {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 1]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    out
}
