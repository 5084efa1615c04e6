//! The supervision channel: what the supervisor and a process say to each other.
//!
//! Fixed binary layouts, one packet a message, append only: an old process may still be draining
//! under a newer supervisor. What a process sends is of one size and totally decoded, since the
//! supervisor is root and believes nothing; what the supervisor sends is believed.

use config::{Format, Level};
use ipc::Role;

/// The longest message in either direction.
pub const MAX_MESSAGE: usize = 4096;

/// The size of everything that a process sends.
pub const REPORT_OCTETS: usize = 16;

/// Descriptors beside [`Message::Start`]: the slice, then the figures.
pub const START_DESCRIPTORS: usize = 2;

/// The largest slice a process reads.
pub const MAX_SLICE: usize = 1 << 20;

/// The first message to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What it is.
    pub role: Role,
    /// Which of its role, from 0.
    pub instance: u16,
    /// The supervisor's process id: if the parent is another by now, the process ends.
    pub supervisor: u32,
    /// Gifts that follow before it confines itself.
    pub gifts: u16,
    /// All processes share one uid.
    pub without_root: bool,
    /// A call outside the profile is printed before it ends the process (tests).
    pub trap: bool,
    /// Layers it must not run without, by [`crate::layer_bit`].
    pub require: u16,
    /// How it logs.
    pub log: config::Log,
    /// How many processes each role has, by role number: the dialers it will hold.
    pub instances: Vec<(Role, u16)>,
    /// Its own folder.
    pub own_folder: Option<String>,
}

/// A descriptor for a process: one with each message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gift {
    /// A listening socket, `LISTENER/KIND/IP:PORT` or `control`.
    Listener(String),
    /// An open file, such as `tls/public/cert`.
    File(String),
    /// The connector to a server, new or in place of a dead one.
    ToServer(Role, u16),
    /// The connector of a client.
    FromClient(Role, u16),
    /// Another process's figures, read only.
    Figures(Role, u16),
    /// A folder it may read (its path; the descriptor is the folder).
    ReadOnlyFolder(String),
}

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who the process is.
    Start(Start),
    /// A descriptor.
    Give(Gift),
    /// Take nothing new, finish what there is, end within this many milliseconds.
    Drain(u32),
    /// Log this much from now on.
    LogLevel(Level),
    /// Go on logging to the descriptor that comes with this.
    LogFile,
}

/// What a process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// It is confined and serves. Two bits for each layer in the order of `sandbox::Layer::ALL`:
    /// 0 enforced, 1 partly, 2 missing.
    Ready(u32),
    /// Its event loop runs; counted from 1.
    Heartbeat(u64),
    /// It will end by itself now, as planned: no fault, no back-off.
    PlannedEnd,
}

/// A message that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of the supervision channel")]
pub struct NotAMessage;

const START: u8 = 1;
const DRAIN: u8 = 2;
const LOG_LEVEL: u8 = 3;
const LOG_FILE: u8 = 4;
const LISTENER: u8 = 16;
const FILE: u8 = 17;
const TO_SERVER: u8 = 18;
const FROM_CLIENT: u8 = 19;
const FIGURES: u8 = 20;
const READ_ONLY_FOLDER: u8 = 21;

const READY: u8 = 1;
const HEARTBEAT: u8 = 2;
const PLANNED_END: u8 = 3;

/// The number of a level on the wire; also in the control socket's orders.
pub(crate) fn level_number(level: Level) -> u8 {
    match level {
        Level::Error => 1,
        Level::Warn => 2,
        Level::Info => 3,
        Level::Debug => 4,
        Level::Trace => 5,
    }
}

/// The inverse of [`level_number`].
pub(crate) fn level_from(number: u8) -> Option<Level> {
    config::LEVELS.into_iter().map(|(_, level)| level).find(|&level| level_number(level) == number)
}

impl Message {
    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Message::Start(start) => start.encode(&mut out),
            Message::Drain(millis) => {
                out.push(DRAIN);
                out.extend(millis.to_le_bytes());
            }
            Message::LogLevel(level) => out.extend([LOG_LEVEL, level_number(*level)]),
            Message::LogFile => out.push(LOG_FILE),
            Message::Give(gift) => gift.encode(&mut out),
        }
        out
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// [`NotAMessage`], for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAMessage> {
        let mut at = Cursor(bytes);
        let message = match at.octet()? {
            START => Message::Start(Start::decode(&mut at)?),
            DRAIN => Message::Drain(at.u32()?),
            LOG_LEVEL => Message::LogLevel(level_from(at.octet()?).ok_or(NotAMessage)?),
            LOG_FILE => Message::LogFile,
            LISTENER => Message::Give(Gift::Listener(at.text()?)),
            FILE => Message::Give(Gift::File(at.text()?)),
            READ_ONLY_FOLDER => Message::Give(Gift::ReadOnlyFolder(at.text()?)),
            TO_SERVER => Message::Give(Gift::ToServer(at.role()?, at.u16()?)),
            FROM_CLIENT => Message::Give(Gift::FromClient(at.role()?, at.u16()?)),
            FIGURES => Message::Give(Gift::Figures(at.role()?, at.u16()?)),
            _ => return Err(NotAMessage),
        };
        // Later builds may append fields, so what is left over is no fault.
        Ok(message)
    }

    /// How many descriptors come with it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        match self {
            Message::Start(_) => START_DESCRIPTORS,
            Message::Give(_) | Message::LogFile => 1,
            Message::Drain(_) | Message::LogLevel(_) => 0,
        }
    }
}

impl Gift {
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, body) = match self {
            Gift::Listener(name) => (LISTENER, Err(name)),
            Gift::File(name) => (FILE, Err(name)),
            Gift::ReadOnlyFolder(path) => (READ_ONLY_FOLDER, Err(path)),
            Gift::ToServer(role, instance) => (TO_SERVER, Ok((role, instance))),
            Gift::FromClient(role, instance) => (FROM_CLIENT, Ok((role, instance))),
            Gift::Figures(role, instance) => (FIGURES, Ok((role, instance))),
        };
        out.push(kind);
        match body {
            Ok((role, instance)) => {
                out.push(role.number());
                out.extend(instance.to_le_bytes());
            }
            Err(text) => put_text(out, text),
        }
    }
}

impl Start {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([START, self.role.number()]);
        out.extend(self.instance.to_le_bytes());
        out.extend(self.supervisor.to_le_bytes());
        out.extend(self.gifts.to_le_bytes());
        out.push(u8::from(self.without_root) | u8::from(self.trap) << 1);
        out.extend(self.require.to_le_bytes());
        out.push(match self.log.format {
            Format::Text => 0,
            Format::Json => 1,
        });
        out.push(level_number(self.log.level));
        out.push(u8::try_from(self.instances.len()).expect("there are fewer than 256 roles"));
        for (role, count) in &self.instances {
            out.push(role.number());
            out.extend(count.to_le_bytes());
        }
        put_text(out, self.own_folder.as_deref().unwrap_or(""));
    }

    fn decode(at: &mut Cursor<'_>) -> Result<Self, NotAMessage> {
        let role = at.role()?;
        let instance = at.u16()?;
        let supervisor = at.u32()?;
        let gifts = at.u16()?;
        let flags = at.octet()?;
        let require = at.u16()?;
        let format = match at.octet()? {
            0 => Format::Text,
            1 => Format::Json,
            _ => return Err(NotAMessage),
        };
        let level = level_from(at.octet()?).ok_or(NotAMessage)?;
        let mut instances = Vec::new();
        for _ in 0..at.octet()? {
            instances.push((at.role()?, at.u16()?));
        }
        let own_folder = Some(at.text()?).filter(|path| !path.is_empty());
        Ok(Self {
            role,
            instance,
            supervisor,
            gifts,
            without_root: flags & 1 != 0,
            trap: flags & 2 != 0,
            require,
            log: config::Log { format, level },
            instances,
            own_folder,
        })
    }
}

impl Report {
    /// As it travels.
    #[must_use]
    pub fn encode(self) -> [u8; REPORT_OCTETS] {
        let (kind, value) = match self {
            Report::Ready(layers) => (READY, u64::from(layers)),
            Report::Heartbeat(count) => (HEARTBEAT, count),
            Report::PlannedEnd => (PLANNED_END, 0),
        };
        let mut out = [0; REPORT_OCTETS];
        out[0] = kind;
        out[8..].copy_from_slice(&value.to_le_bytes());
        out
    }

    /// The inverse of [`Self::encode`]: every packet is either exactly one report or refused.
    ///
    /// # Errors
    /// [`NotAMessage`], for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAMessage> {
        let whole: &[u8; REPORT_OCTETS] = bytes.try_into().map_err(|_| NotAMessage)?;
        let [kind, zeros @ .., a, b, c, d, e, f, g, h] = *whole;
        if zeros != [0; 7] {
            return Err(NotAMessage);
        }
        let value = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        match kind {
            READY => u32::try_from(value).map(Report::Ready).map_err(|_| NotAMessage),
            HEARTBEAT => Ok(Report::Heartbeat(value)),
            PLANNED_END if value == 0 => Ok(Report::PlannedEnd),
            _ => Err(NotAMessage),
        }
    }
}

/// Longer texts are cut off by their caller's construction: names of listeners and paths.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names and paths are shorter than 64 KiB");
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NotAMessage> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(NotAMessage)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotAMessage> {
        self.take(N)?.try_into().map_err(|_| NotAMessage)
    }

    fn octet(&mut self) -> Result<u8, NotAMessage> {
        self.array().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, NotAMessage> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, NotAMessage> {
        self.array().map(u32::from_le_bytes)
    }

    fn role(&mut self) -> Result<Role, NotAMessage> {
        Role::from_number(self.octet()?).ok_or(NotAMessage)
    }

    fn text(&mut self) -> Result<String, NotAMessage> {
        let length = self.u16()?;
        let bytes = self.take(usize::from(length))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| NotAMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Message> {
        let start = Start {
            role: Role::ImapdFront,
            instance: 3,
            supervisor: 77,
            gifts: 9,
            without_root: true,
            trap: false,
            require: 0x205,
            log: config::Log { format: Format::Json, level: Level::Debug },
            instances: vec![(Role::ImapdSession, 4), (Role::Accountd, 1)],
            own_folder: Some("/var/lib/mox/keys".into()),
        };
        let bare = Start { own_folder: None, instances: vec![], trap: true, ..start.clone() };
        vec![
            Message::Start(start),
            Message::Start(bare),
            Message::Give(Gift::Listener("public/imaps/[::1]:993".into())),
            Message::Give(Gift::File("tls/public/cert".into())),
            Message::Give(Gift::ReadOnlyFolder("/srv/web".into())),
            Message::Give(Gift::ToServer(Role::Accountd, 0)),
            Message::Give(Gift::FromClient(Role::SmtpdMx, 1)),
            Message::Give(Gift::Figures(Role::Parser, 65_535)),
            Message::Drain(10_000),
            Message::LogLevel(Level::Trace),
            Message::LogFile,
        ]
    }

    #[test]
    fn messages_are_read_back_and_cut_ones_refused() {
        for message in messages() {
            let bytes = message.encode();
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(Message::decode(&bytes), Ok(message));
            for cut in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..cut]), Err(NotAMessage));
            }
        }
    }

    #[test]
    fn a_report_is_one_size_and_totally_decoded() {
        for report in [Report::Ready(7), Report::Heartbeat(u64::MAX), Report::PlannedEnd] {
            let bytes = report.encode();
            assert_eq!(Report::decode(&bytes), Ok(report));
            assert!(Report::decode(&bytes[1..]).is_err());
            assert!(Report::decode(&[&bytes[..], &[0]].concat()).is_err());
            // Whatever is decoded is what its encoding says: no two packets mean the same.
            for at in 0..REPORT_OCTETS {
                for bit in 0..8 {
                    let mut flipped = bytes;
                    flipped[at] ^= 1 << bit;
                    if let Ok(other) = Report::decode(&flipped) {
                        assert_eq!(other.encode(), flipped);
                    }
                }
            }
        }
        assert!(Report::decode(b"").is_err());
    }
}
