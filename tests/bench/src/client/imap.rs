//! IMAP as far as the loads need it: responses are counted, literals skipped.

use super::conn::{Conn, Transport};
use anyhow::{Context as _, bail};
use std::net::SocketAddr;

/// The most of a response line that is kept.
const KEPT: usize = 200_000;

/// One connection.
pub(crate) struct Imap {
    conn: Conn,
    tag: u32,
    literal_plus: bool,
}

/// What a command brought back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// FETCH responses.
    pub(crate) fetches: u64,
    /// The number of the last EXISTS.
    pub(crate) exists: Option<u64>,
    /// The last untagged response of another kind.
    pub(crate) other: String,
}

impl Imap {
    pub(crate) async fn connect(to: SocketAddr, transport: Transport) -> anyhow::Result<Self> {
        let mut conn = Conn::open(to, transport).await?;
        let greeting = conn.line().await?;
        if !greeting.starts_with(b"* OK") {
            bail!("greeting {:?}", String::from_utf8_lossy(greeting));
        }
        Ok(Self { conn, tag: 0, literal_plus: false })
    }

    pub(crate) async fn login(&mut self, user: &str, password: &str) -> anyhow::Result<()> {
        self.command(&format!("LOGIN \"{user}\" \"{password}\"")).await?;
        let offers = self.command("CAPABILITY").await?;
        self.literal_plus = offers.other.contains("LITERAL+");
        Ok(())
    }

    /// Octets that came in.
    pub(crate) fn received(&self) -> u64 {
        self.conn.received
    }

    /// The next response up to its first literal.
    pub(crate) async fn response(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut first = None;
        loop {
            let line = self.conn.line().await?;
            let literal = literal(line);
            first.get_or_insert_with(|| line[..line.len().min(KEPT)].to_vec());
            match literal {
                Some(n) => self.conn.skip(n).await?,
                None => return Ok(first.unwrap_or_default()),
            }
        }
    }

    pub(crate) async fn command(&mut self, line: &str) -> anyhow::Result<Answer> {
        self.begin(line).await?;
        self.finish().await
    }

    /// Sends a command.
    pub(crate) async fn begin(&mut self, line: &str) -> anyhow::Result<()> {
        self.tag += 1;
        self.conn.send(format!("a{} {line}\r\n", self.tag).as_bytes()).await
    }

    async fn finish(&mut self) -> anyhow::Result<Answer> {
        let mut answer = Answer::default();
        let tag = format!("a{} ", self.tag);
        loop {
            let line = self.response().await?;
            if let Some(status) = line.strip_prefix(tag.as_bytes()) {
                if status.starts_with(b"OK") {
                    return Ok(answer);
                }
                bail!("{}", String::from_utf8_lossy(status).trim_end());
            }
            answer.take(&line);
        }
    }

    /// Waits until the server wants more.
    pub(crate) async fn continuation(&mut self) -> anyhow::Result<()> {
        loop {
            let line = self.response().await?;
            if line.starts_with(b"+") {
                return Ok(());
            }
            if !line.starts_with(b"* ") {
                bail!("{}", String::from_utf8_lossy(&line).trim_end());
            }
        }
    }

    pub(crate) async fn append(&mut self, mailbox: &str, message: &[u8]) -> anyhow::Result<()> {
        let plus = if self.literal_plus { "+" } else { "" };
        let size = message.len();
        self.begin(&format!("APPEND \"{mailbox}\" (\\Seen) {{{size}{plus}}}")).await?;
        if !self.literal_plus {
            self.continuation().await?;
        }
        self.conn.send(&[message, b"\r\n"].concat()).await?;
        self.finish().await.map(|_| ())
    }

    /// How many messages a mailbox has, without selecting it.
    pub(crate) async fn messages(&mut self, mailbox: &str) -> anyhow::Result<u64> {
        let status = self.command(&format!("STATUS \"{mailbox}\" (MESSAGES)")).await?.other;
        let (_, number) = status.rsplit_once("MESSAGES ").context("STATUS without MESSAGES")?;
        let digits = number.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        Ok(digits.parse()?)
    }

    pub(crate) async fn select(&mut self, mailbox: &str) -> anyhow::Result<u64> {
        let answer = self.command(&format!("SELECT \"{mailbox}\"")).await?;
        answer.exists.context("SELECT without EXISTS")
    }
}

impl Answer {
    fn take(&mut self, line: &[u8]) {
        let mut words = line.split(|b| *b == b' ').skip(1);
        let number = words.next().and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
        match (number, words.next()) {
            (Some(_), Some(kind)) if kind.starts_with(b"FETCH") => self.fetches += 1,
            (Some(n), Some(kind)) if kind.starts_with(b"EXISTS") => self.exists = Some(n),
            _ => self.other = String::from_utf8_lossy(line).into_owned(),
        }
    }
}

/// The length of the literal that follows a line.
fn literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r\n")?.strip_suffix(b"}")?;
    let open = line.iter().rposition(|&b| b == b'{')?;
    std::str::from_utf8(&line[open + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_responses_are_recognised() {
        assert_eq!(literal(b"* 1 FETCH (BODY[] {123}\r\n"), Some(123));
        assert_eq!(literal(b"* 1 FETCH (FLAGS ())\r\n"), None);
        let mut answer = Answer::default();
        for line in [&b"* 7 EXISTS\r\n"[..], b"* 1 FETCH (UID 1)\r\n", b"* OK done\r\n"] {
            answer.take(line);
        }
        assert_eq!((answer.exists, answer.fetches), (Some(7), 1));
        assert_eq!(answer.other, "* OK done\r\n");
    }
}
