//! The content of a job on its way from queue-runner's spool to a socket.
//!
//! It comes once, through a channel of one chunk. Its beginning is kept, so that a message of usual
//! size can go to a second host, or to more recipients than one transaction takes. Of a longer one a
//! host that fails in the middle means "try again later".

use std::rc::Rc;
use tokio::sync::mpsc;

/// Octets kept of one message: with all jobs at work 32 MiB.
const KEPT: usize = 128 * 1024;

/// Whoever sends the content went away, and the job with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// A message's content, chunk by chunk; the channel ends it with `None`.
pub(crate) struct Content {
    channel: mpsc::Receiver<Option<Vec<u8>>>,
    /// Chunks from the beginning, all there were while `whole`.
    kept: Vec<Rc<Vec<u8>>>,
    octets: usize,
    whole: bool,
    ended: bool,
    /// The next of `kept` to be read.
    at: usize,
}

impl Content {
    pub(crate) fn new(channel: mpsc::Receiver<Option<Vec<u8>>>) -> Self {
        Self { channel, kept: Vec::new(), octets: 0, whole: true, ended: false, at: 0 }
    }

    /// The next chunk; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Rc<Vec<u8>>>, Gone> {
        if let Some(chunk) = self.kept.get(self.at) {
            self.at = self.at.saturating_add(1);
            return Ok(Some(Rc::clone(chunk)));
        }
        if self.ended {
            return Ok(None);
        }
        let Some(chunk) = self.channel.recv().await.ok_or(Gone)? else {
            self.ended = true;
            return Ok(None);
        };
        let chunk = Rc::new(chunk);
        self.octets = self.octets.saturating_add(chunk.len());
        if self.octets > KEPT {
            self.whole = false;
            self.kept = Vec::new();
        }
        if self.whole {
            self.kept.push(Rc::clone(&chunk));
            self.at = self.kept.len();
        }
        Ok(Some(chunk))
    }

    /// Goes back to the beginning; whether that was possible.
    pub(crate) fn rewind(&mut self) -> bool {
        if self.whole {
            self.at = 0;
        }
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(content: &mut Content) -> Result<Vec<u8>, Gone> {
        let mut octets = Vec::new();
        while let Some(chunk) = content.next().await? {
            octets.extend_from_slice(&chunk);
        }
        Ok(octets)
    }

    fn given(chunks: &[&[u8]], ended: bool) -> Content {
        let (send, channel) = mpsc::channel(8);
        for chunk in chunks {
            send.try_send(Some(chunk.to_vec())).unwrap();
        }
        if ended {
            send.try_send(None).unwrap();
        }
        Content::new(channel)
    }

    #[tokio::test]
    async fn short_content_is_read_again_from_any_place() {
        let mut content = given(&[b"one", b"two", b"three"], true);
        assert_eq!(content.next().await.unwrap().unwrap().as_slice(), b"one");
        for _ in 0..3 {
            assert!(content.rewind());
            assert_eq!(all(&mut content).await.unwrap(), b"onetwothree");
            assert_eq!(content.next().await, Ok(None));
        }
    }

    #[tokio::test]
    async fn long_content_is_not_kept() {
        let chunk = vec![b'x'; KEPT / 2 + 1];
        let mut content = given(&[&chunk, &chunk], true);
        assert_eq!(content.next().await.unwrap().unwrap().len(), chunk.len());
        assert!(content.rewind());
        assert_eq!(all(&mut content).await.unwrap().len(), 2 * chunk.len());
        assert!(!content.rewind() && content.kept.is_empty());
    }

    #[tokio::test]
    async fn a_sender_that_goes_away_is_told_from_the_end() {
        let mut content = given(&[b"one"], false);
        assert_eq!(all(&mut content).await, Err(Gone));
    }
}
