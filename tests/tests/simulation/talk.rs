//! SMTP by the line, for clients and servers outside of the tree.

use std::io;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    time::timeout,
};

use super::remote::PATIENCE;

/// A connection.
pub(super) struct Lines {
    stream: BufReader<DuplexStream>,
    /// Of a line that is not whole yet: a reader may be cut off in it.
    begun: Vec<u8>,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) last: String,
    /// All its lines.
    pub(super) lines: Vec<String>,
}

impl Lines {
    pub(super) fn new(stream: DuplexStream) -> Self {
        Self { stream: BufReader::new(stream), begun: Vec::new() }
    }

    /// How much of the next line has come.
    pub(super) fn begun(&self) -> usize {
        self.begun.len()
    }

    /// Whether the next line begins so.
    pub(super) async fn is_next(&mut self, octet: u8) -> io::Result<bool> {
        let filled = timeout(PATIENCE, self.stream.fill_buf()).await;
        Ok(filled.map_err(|_| io::ErrorKind::TimedOut)??.first() == Some(&octet))
    }

    async fn raw_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let read = timeout(PATIENCE, self.stream.read_until(b'\n', &mut self.begun)).await;
        if read.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.begun)))
    }

    /// The next line; None at the end.
    pub(super) async fn line(&mut self) -> io::Result<Option<String>> {
        let line = self.raw_line().await?;
        Ok(line.map(|line| String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).into()))
    }

    /// Content up to the lone dot, dots taken away.
    pub(super) async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let line = self.raw_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line == b".\r\n" {
                return Ok(content);
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    pub(super) async fn say(&mut self, text: &str) -> io::Result<()> {
        self.send(format!("{text}\r\n").as_bytes()).await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, written).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// A whole reply.
    pub(super) async fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            lines.push(line.clone());
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("no reply: {line}")))?;
            return Ok(Reply { code, last: line, lines });
        }
    }

    /// Says something, and hears the reply.
    pub(super) async fn ask(&mut self, text: &str) -> io::Result<Reply> {
        self.say(text).await?;
        self.reply().await
    }
}
