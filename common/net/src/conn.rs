//! A connection that is plain or TLS, and writes that end.

use crate::ServerTlsStream;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

/// A client's connection, before or after STARTTLS.
#[derive(Debug)]
pub enum Conn<S = TcpStream> {
    /// In the clear.
    Plain(S),
    /// Over TLS.
    Tls(Box<ServerTlsStream<S>>),
}

impl<S> Conn<S> {
    /// Whether it is over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Conn::Tls(_))
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &S {
        match self {
            Conn::Plain(socket) => socket,
            Conn::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Conn<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Conn::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Conn::Tls(tls) => Pin::new(&mut **tls).poll_read(context, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Conn<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Conn::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Conn::Tls(tls) => Pin::new(&mut **tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Conn::Plain(socket) => Pin::new(socket).poll_flush(context),
            Conn::Tls(tls) => Pin::new(&mut **tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Conn::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Conn::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Conn::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Conn::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Conn::Plain(socket) => socket.is_write_vectored(),
            Conn::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

/// Why a peer did not get what we sent.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It took nothing for the whole of the deadline.
    #[error("the peer does not read")]
    Stalled,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Writes all of it. The deadline is for progress, not for the whole: it starts anew with every
/// octet the peer takes, so a large answer over a slow line ends well and a peer that reads
/// nothing does not hold us.
///
/// # Errors
/// [`WriteError`]; how much was written is then unknown.
pub async fn write_within(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    deadline: Duration,
) -> Result<(), WriteError> {
    while !bytes.is_empty() {
        let step = tokio::time::timeout(deadline, writer.write(bytes)).await;
        match step.map_err(|_| WriteError::Stalled)?? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            taken => bytes = bytes.get(taken..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Flushes, within a deadline. TLS may hold records back until this.
///
/// # Errors
/// [`WriteError`].
pub async fn flush_within(
    writer: &mut (impl AsyncWrite + Unpin),
    deadline: Duration,
) -> Result<(), WriteError> {
    let flushed = tokio::time::timeout(deadline, writer.flush()).await;
    Ok(flushed.map_err(|_| WriteError::Stalled)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_peer_that_does_not_read_ends_the_write() {
        let (mut near, _far) = tokio::io::duplex(16);
        let written = write_within(&mut near, &[0; 64], Duration::from_millis(20)).await;
        assert!(matches!(written, Err(WriteError::Stalled)));
    }

    #[tokio::test]
    async fn a_slow_peer_gets_all_of_it() {
        let (mut near, mut far) = tokio::io::duplex(8);
        let deadline = Duration::from_millis(200);
        let (written, read) = tokio::join!(
            async {
                let written = write_within(&mut near, &[7; 64], deadline).await;
                drop(near);
                written
            },
            async {
                let mut all = Vec::new();
                let mut step = [0; 8];
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    match far.read(&mut step).await.unwrap() {
                        0 => return all,
                        got => all.extend_from_slice(&step[..got]),
                    }
                }
            }
        );
        written.unwrap();
        assert_eq!(read, [7; 64]);
    }

    #[tokio::test]
    async fn a_closed_peer_is_an_error() {
        let (mut near, far) = tokio::io::duplex(8);
        drop(far);
        let written = write_within(&mut near, &[7; 64], Duration::from_secs(1)).await;
        assert!(matches!(written, Err(WriteError::Broken(_))));
    }
}
