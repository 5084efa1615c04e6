//! Small clients of the protocols, on blocking sockets: they send what a test says and read whole
//! replies. They know no more of a protocol than where a reply ends.

use crate::wire::Wire;
use base64::Engine as _;
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

fn line(from: &mut BufReader<Wire>) -> io::Result<String> {
    let mut text = Vec::new();
    if from.read_until(b'\n', &mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&text).trim_end_matches(['\r', '\n']).to_owned())
}

/// A client of SMTP.
pub struct Smtp(BufReader<Wire>);

/// A reply of SMTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The code.
    pub code: u16,
    /// Its lines.
    pub lines: Vec<String>,
}

impl Smtp {
    /// Connects, reads the greeting and says EHLO.
    ///
    /// # Errors
    /// As the socket says, or `ConnectionRefused` for a greeting other than 220.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(Wire::dial(address)?)
    }

    /// As [`Self::connect`], from an address of ours.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        Self::over(Wire::dial_from(source, address)?)
    }

    /// Over a connection that was made already, perhaps secured: reads the greeting, says EHLO.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn over(wire: Wire) -> io::Result<Self> {
        let mut client = Self(BufReader::new(wire));
        let greeting = client.reply()?;
        if greeting.code != 220 {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{greeting:?}")));
        }
        client.command("EHLO client.example")?;
        Ok(client)
    }

    /// STARTTLS, the handshake, and EHLO again.
    ///
    /// # Errors
    /// As the socket says, or `Unsupported` when the server does not want to.
    pub fn start_tls(mut self) -> io::Result<Self> {
        let reply = self.command("STARTTLS")?;
        if reply.code != 220 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{reply:?}")));
        }
        let mut client = Self(BufReader::new(self.0.into_inner().secured()?));
        client.command("EHLO client.example")?;
        Ok(client)
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// As the socket says.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = line(&mut self.0)?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if last {
                break;
            }
        }
        let code = lines.first().and_then(|l| l.get(..3)).and_then(|c| c.parse().ok());
        Ok(Reply { code: code.unwrap_or(0), lines })
    }

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// As the socket says.
    pub fn command(&mut self, text: &str) -> io::Result<Reply> {
        self.raw(format!("{text}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends these octets.
    ///
    /// # Errors
    /// As the socket says.
    pub fn raw(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(octets)
    }

    /// Logs in with PLAIN.
    ///
    /// # Errors
    /// As the socket says.
    pub fn log_in(&mut self, user: &str, password: &str) -> io::Result<Reply> {
        let plain = format!("\0{user}\0{password}");
        let text = base64::engine::general_purpose::STANDARD.encode(plain);
        self.command(&format!("AUTH PLAIN {text}"))
    }

    /// Sends a message, dots stuffed; the reply that decided, which is the last one.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> io::Result<Reply> {
        let reply = self.command(&format!("MAIL FROM:<{from}>"))?;
        if reply.code != 250 {
            return Ok(reply);
        }
        for to in to {
            let reply = self.command(&format!("RCPT TO:<{to}>"))?;
            if reply.code != 250 {
                self.command("RSET")?;
                return Ok(reply);
            }
        }
        let reply = self.command("DATA")?;
        if reply.code != 354 {
            return Ok(reply);
        }
        let mut stuffed = Vec::with_capacity(message.len() + 64);
        for line in message.split_inclusive(|&b| b == b'\n') {
            if line.first() == Some(&b'.') {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        if !stuffed.ends_with(b"\r\n") {
            stuffed.extend_from_slice(b"\r\n");
        }
        stuffed.extend_from_slice(b".\r\n");
        self.raw(&stuffed)?;
        self.reply()
    }
}

/// A client of IMAP.
pub struct Imap {
    stream: BufReader<Wire>,
    next: u32,
}

/// What came for a command: untagged responses, literals in them as they came, and the tagged one.
#[derive(Debug, Clone, Default)]
pub struct Responses {
    /// Untagged.
    pub untagged: Vec<Vec<u8>>,
    /// The tagged response without its tag.
    pub tagged: String,
}

impl Responses {
    /// Whether the command succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.tagged.starts_with("OK")
    }

    /// All of it as text.
    #[must_use]
    pub fn text(&self) -> String {
        let untagged = self.untagged.iter().map(|r| String::from_utf8_lossy(r).into_owned());
        untagged.chain([self.tagged.clone()]).collect::<Vec<_>>().join("\n")
    }
}

impl Imap {
    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// As the socket says, or `ConnectionRefused` for BYE.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(Wire::dial(address)?)
    }

    /// Over a connection that was made already, perhaps secured: reads the greeting.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn over(wire: Wire) -> io::Result<Self> {
        let mut stream = BufReader::new(wire);
        let greeting = line(&mut stream)?;
        if !greeting.starts_with("* OK") {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, greeting));
        }
        Ok(Self { stream, next: 0 })
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// As the socket says, or `PermissionDenied`.
    pub fn log_in(address: SocketAddr, user: &str, password: &str) -> io::Result<Self> {
        Self::connect(address)?.logged_in(user, password)
    }

    /// As [`Self::log_in`], from an address of ours.
    ///
    /// # Errors
    /// As [`Self::log_in`].
    pub fn log_in_from(
        source: Ipv4Addr,
        address: SocketAddr,
        user: &str,
        password: &str,
    ) -> io::Result<Self> {
        Self::over(Wire::dial_from(source, address)?)?.logged_in(user, password)
    }

    /// Logs in.
    ///
    /// # Errors
    /// As the socket says, or `PermissionDenied`.
    pub fn logged_in(self, user: &str, password: &str) -> io::Result<Self> {
        let mut client = self;
        let response = client.command(&format!("LOGIN \"{user}\" \"{password}\""))?;
        if response.is_ok() {
            Ok(client)
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, response.text()))
        }
    }

    /// Sends a command and reads to its tagged response.
    ///
    /// # Errors
    /// As the socket says.
    pub fn command(&mut self, text: &str) -> io::Result<Responses> {
        let tag = self.start(text)?;
        self.finish(&tag)
    }

    /// Sends a command; its tag.
    ///
    /// # Errors
    /// As the socket says.
    pub fn start(&mut self, text: &str) -> io::Result<String> {
        self.next += 1;
        let tag = format!("t{}", self.next);
        self.raw(format!("{tag} {text}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// Sends these octets.
    ///
    /// # Errors
    /// As the socket says.
    pub fn raw(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets)
    }

    /// Reads to the tagged response of a command.
    ///
    /// # Errors
    /// As the socket says.
    pub fn finish(&mut self, tag: &str) -> io::Result<Responses> {
        let mut responses = Responses::default();
        loop {
            let response = self.response()?;
            let text = String::from_utf8_lossy(&response);
            if let Some(rest) = text.strip_prefix(&format!("{tag} ")) {
                responses.tagged = rest.to_owned();
                return Ok(responses);
            }
            responses.untagged.push(response);
        }
    }

    /// Reads one response, untagged, tagged or a continuation, with its literals in place.
    ///
    /// # Errors
    /// As the socket says.
    pub fn response(&mut self) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let mut text = Vec::new();
            if self.stream.read_until(b'\n', &mut text)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while matches!(text.last(), Some(b'\r' | b'\n')) {
                text.pop();
            }
            whole.extend_from_slice(&text);
            let literal = text
                .strip_suffix(b"}")
                .and_then(|t| t.iter().rposition(|&b| b == b'{').and_then(|at| t.get(at + 1..)))
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
            let Some(octets) = literal else { return Ok(whole) };
            whole.extend_from_slice(b"\r\n");
            let start = whole.len();
            whole.resize(start + octets, 0);
            self.stream.read_exact(whole.get_mut(start..).unwrap_or_default())?;
        }
    }

    /// APPENDs a message.
    ///
    /// # Errors
    /// As the socket says.
    pub fn append(&mut self, mailbox: &str, message: &[u8]) -> io::Result<Responses> {
        let tag = self.start(&format!("APPEND \"{mailbox}\" {{{}}}", message.len()))?;
        let go = self.response()?;
        if go.first() != Some(&b'+') {
            let text = String::from_utf8_lossy(&go);
            let tagged = text.strip_prefix(&format!("{tag} ")).unwrap_or(&text).to_owned();
            return Ok(Responses { untagged: Vec::new(), tagged });
        }
        self.raw(message)?;
        self.raw(b"\r\n")?;
        self.finish(&tag)
    }
}
