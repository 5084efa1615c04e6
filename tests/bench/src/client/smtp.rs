//! SMTP as a sending server speaks it.

use super::conn::{Conn, Transport};
use anyhow::bail;
use std::{net::SocketAddr, time::Instant};

/// One connection.
pub(crate) struct Smtp {
    conn: Conn,
}

impl Smtp {
    pub(crate) async fn open(to: SocketAddr, helo: &str) -> anyhow::Result<Self> {
        let mut smtp = Self { conn: Conn::open(to, Transport::Clear).await? };
        smtp.reply(b'2').await?;
        let offers = smtp.command(&format!("EHLO {helo}"), b'2').await?;
        if !offers.to_ascii_uppercase().contains("PIPELINING") {
            bail!("{to} does not offer PIPELINING");
        }
        Ok(smtp)
    }

    async fn reply(&mut self, class: u8) -> anyhow::Result<String> {
        let mut all = String::new();
        loop {
            let line = self.conn.line().await?;
            all.push_str(&String::from_utf8_lossy(line));
            if line.get(3) != Some(&b'-') {
                if line.first() == Some(&class) {
                    return Ok(all);
                }
                bail!("unexpected reply {:?}", all.trim_end());
            }
        }
    }

    async fn command(&mut self, line: &str, class: u8) -> anyhow::Result<String> {
        self.conn.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply(class).await
    }

    /// One transaction; no line of the message may begin with a dot. Returns when its last octet
    /// was sent.
    pub(crate) async fn deliver(
        &mut self,
        from: &str,
        to: &str,
        message: &[u8],
    ) -> anyhow::Result<Instant> {
        let envelope = format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        self.conn.send(envelope.as_bytes()).await?;
        for class in [b'2', b'2', b'3'] {
            self.reply(class).await?;
        }
        self.conn.send(&[message, b".\r\n"].concat()).await?;
        let sent = Instant::now();
        self.reply(b'2').await?;
        Ok(sent)
    }

    pub(crate) async fn quit(mut self) {
        // The work is done: how the server takes leave changes nothing.
        let _ = self.command("QUIT", b'2').await;
    }
}
