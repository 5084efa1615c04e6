//! Reading lines and blocks from a peer without ever holding more than a bound.
//!
//! The reader keeps what it has got in itself, so each method may be cancelled (a `select!` with a
//! deadline or a push from elsewhere) without losing an octet.

use std::{io, ops::Range};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is asked of the kernel at once.
const READ_STEP: usize = 16 * 1024;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The line is longer than the caller allows. It is still being discarded: call
    /// [`LineReader::skip_line`] to get behind it.
    #[error("line too long")]
    TooLong,
    /// The peer closed the connection between two lines.
    #[error("connection closed")]
    Closed,
    /// The peer closed the connection inside a line or block.
    #[error("connection closed inside a line")]
    Torn,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Reads lines (ended by LF, given out with it) and counted blocks.
///
/// What a line end has to look like (CRLF only, what a bare CR means) is the protocol's to judge:
/// the octets are given out as they came.
#[derive(Debug)]
pub struct LineReader<R> {
    inner: R,
    held: Vec<u8>,
    // What the caller has not been given yet.
    rest: Range<usize>,
    // How much of `rest` is known to hold no LF.
    searched: usize,
    at_end: bool,
}

impl<R> LineReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, held: Vec::new(), rest: 0..0, searched: 0, at_end: false }
    }

    /// Reads from `inner`, after `first`, which somebody else has read from it already.
    pub fn with_read_ahead(inner: R, first: Vec<u8>) -> Self {
        Self { inner, rest: 0..first.len(), held: first, searched: 0, at_end: false }
    }

    /// What was read and not given out yet.
    #[must_use]
    pub fn buffered(&self) -> &[u8] {
        self.held.get(self.rest.clone()).unwrap_or_default()
    }

    /// The stream, to write to.
    pub fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The stream, to look at.
    #[must_use]
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// Gives the stream back, with what was read ahead of the caller.
    #[must_use]
    pub fn into_parts(self) -> (R, Vec<u8>) {
        let ahead = self.buffered().to_vec();
        (self.inner, ahead)
    }

    /// Gives the stream back for a TLS handshake, if nothing was read ahead.
    ///
    /// What a peer (or somebody between us) sent in the clear behind STARTTLS must never be taken
    /// as if it had come over TLS: RFC 3207 §4.2, RFC 9051 §11.1 (command injection). Throwing
    /// it away instead would hide the attack.
    ///
    /// # Errors
    /// The number of octets that were there; the connection is to be closed.
    pub fn into_clean(self) -> Result<R, usize> {
        match self.rest.len() {
            0 => Ok(self.inner),
            ahead => Err(ahead),
        }
    }

    fn give(&mut self, length: usize) -> &[u8] {
        let start = self.rest.start;
        let end = start.saturating_add(length).min(self.rest.end);
        self.rest.start = end;
        self.searched = 0;
        self.held.get(start..end).unwrap_or_default()
    }
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// The next line with its LF, of at most `longest` octets in all.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn line(&mut self, longest: usize) -> Result<&[u8], ReadError> {
        loop {
            if let Some(length) = self.find_line_end() {
                if length > longest {
                    return Err(ReadError::TooLong);
                }
                return Ok(self.give(length));
            }
            if self.rest.len() >= longest {
                return Err(ReadError::TooLong);
            }
            self.fill().await?;
        }
    }

    /// Throws the current line away, to its LF, and says how long it was. It has no bound in
    /// length, only in memory: the caller's deadline bounds it.
    ///
    /// # Errors
    /// [`ReadError`], not `TooLong`.
    pub async fn skip_line(&mut self) -> Result<u64, ReadError> {
        let mut skipped = 0u64;
        loop {
            if let Some(length) = self.find_line_end() {
                self.give(length);
                return Ok(skipped.saturating_add(length as u64));
            }
            // A line cut here by a cancelled call goes on as a line: the caller closes then.
            skipped = skipped.saturating_add(self.rest.len() as u64);
            self.give(self.rest.len());
            self.fill().await?;
        }
    }

    /// Some octets, at least one and at most `most`; empty at the end of the stream.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self, most: usize) -> io::Result<&[u8]> {
        if self.rest.is_empty() && most > 0 {
            match self.fill().await {
                Ok(()) => {}
                Err(ReadError::Broken(error)) => return Err(error),
                Err(ReadError::Closed | ReadError::Torn | ReadError::TooLong) => return Ok(&[]),
            }
        }
        Ok(self.give(most))
    }

    /// Waits until something is there to be given out.
    ///
    /// # Errors
    /// [`ReadError`], not `TooLong`.
    pub async fn ready(&mut self) -> Result<(), ReadError> {
        if self.rest.is_empty() { self.fill().await } else { Ok(()) }
    }

    /// Reads once. Cancel-safe: `held` only changes after the read is done.
    async fn fill(&mut self) -> Result<(), ReadError> {
        if self.at_end {
            return Err(self.ended());
        }
        if self.rest.is_empty() {
            self.held.clear();
        } else if self.rest.start > 0 {
            self.held.copy_within(self.rest.clone(), 0);
            self.held.truncate(self.rest.len());
        }
        self.rest = 0..self.held.len();
        self.held.reserve(READ_STEP);
        let mut step = (&mut self.inner).take(READ_STEP as u64);
        let got = step.read_buf(&mut self.held).await?;
        if got == 0 {
            self.at_end = true;
            return Err(self.ended());
        }
        self.rest.end = self.held.len();
        Ok(())
    }

    fn ended(&self) -> ReadError {
        if self.rest.is_empty() { ReadError::Closed } else { ReadError::Torn }
    }

    /// The length of the line that is there, with its LF. Each octet is looked at once, or a line
    /// that arrives octet by octet would cost the square of its length.
    fn find_line_end(&mut self) -> Option<usize> {
        let unseen = self.buffered().get(self.searched..)?;
        let found = memchr::memchr(b'\n', unseen).map(|at| self.searched + at + 1);
        if found.is_none() {
            self.searched = self.rest.len();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::VecDeque,
        pin::Pin,
        task::{Context, Poll},
    };
    use tokio::io::ReadBuf;

    /// Gives its pieces one at a time.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Pieces {
        fn of(bytes: &[u8], size: usize) -> Self {
            Self(bytes.chunks(size).map(<[u8]>::to_vec).collect())
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let left = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !left.is_empty() {
                    self.0.push_front(left);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    async fn read_script(size: usize) -> Vec<Vec<u8>> {
        let text =
            b"EHLO a\r\n\nliteral {5}\r\nab\ncd NOOP\r\nover-long line of many octets\r\nlast\r\n";
        let mut reader = LineReader::new(Pieces::of(text, size));
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(reader.line(20).await.unwrap().to_vec());
        }
        let mut block = Vec::new();
        while block.len() < 5 {
            let most = 5 - block.len();
            block.extend_from_slice(reader.chunk(most).await.unwrap());
        }
        seen.push(block);
        seen.push(reader.line(20).await.unwrap().to_vec());
        assert!(matches!(reader.line(20).await, Err(ReadError::TooLong)));
        assert_eq!(reader.skip_line().await.unwrap(), 31);
        seen.push(reader.line(20).await.unwrap().to_vec());
        assert!(matches!(reader.line(20).await, Err(ReadError::Closed)));
        seen
    }

    #[tokio::test]
    async fn any_split_gives_the_same_lines() {
        let whole = read_script(usize::MAX).await;
        assert_eq!(whole[0], b"EHLO a\r\n");
        assert_eq!(whole[1], b"\n");
        assert_eq!(whole[3], b"ab\ncd");
        assert_eq!(whole[4], b" NOOP\r\n");
        assert_eq!(whole[5], b"last\r\n");
        for size in 1..40 {
            assert_eq!(read_script(size).await, whole, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn the_longest_line_is_exact_and_memory_is_bounded() {
        let mut line = vec![b'x'; 99];
        line.push(b'\n');
        assert_eq!(LineReader::new(&line[..]).line(100).await.unwrap().len(), 100);
        assert!(matches!(LineReader::new(&line[..]).line(99).await, Err(ReadError::TooLong)));
        let endless = tokio::io::repeat(b'x');
        let mut reader = LineReader::new(endless);
        assert!(matches!(reader.line(100_000).await, Err(ReadError::TooLong)));
        assert!(reader.held.capacity() < 100_000 + 4 * READ_STEP);
    }

    #[tokio::test]
    async fn a_torn_line_is_no_line() {
        let mut reader = LineReader::new(&b"QUI"[..]);
        assert!(matches!(reader.line(10).await, Err(ReadError::Torn)));
        assert!(matches!(reader.line(10).await, Err(ReadError::Torn)));
        assert_eq!(reader.buffered(), b"QUI");
    }

    #[tokio::test]
    async fn plaintext_behind_starttls_is_seen() {
        let mut reader = LineReader::new(&b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n"[..]);
        reader.line(512).await.unwrap();
        assert_eq!(reader.into_clean().err(), Some(30));
        let mut reader = LineReader::new(&b"STARTTLS\r\n"[..]);
        reader.line(512).await.unwrap();
        assert!(reader.into_clean().is_ok());
        let mut reader = LineReader::new(&b"a\nbc"[..]);
        reader.line(512).await.unwrap();
        assert_eq!(reader.into_parts().1, b"bc");
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut reader = LineReader::new(near);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"NO").await.unwrap();
        let cut = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(cut, reader.line(100)).await.is_err());
        tokio::io::AsyncWriteExt::write_all(&mut far, b"OP\r\n").await.unwrap();
        assert_eq!(reader.line(100).await.unwrap(), b"NOOP\r\n");
    }
}
