//! Signing slots: the other end of `signing.rs` in common/net, where the wire format is described.
//!
//! A request is one packet, key id (8), scheme (2), message; so is the answer, the signature or one
//! octet that says why there is none. A client that asks for what is no handshake loses the slot.

use crate::{edge::EdgeThread, shape};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{io, os::fd::OwnedFd, rc::Rc};
use tokio::io::{Interest, unix::AsyncFd};

/// The longest request: longer ones are no handshake.
const MAX_REQUEST: usize = 10 + 256;

/// Why nothing was signed, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Not a TLS server's handshake, or a scheme that TLS has not there.
    Shape,
    /// No such key on this edge, or it cannot do the scheme.
    Key,
    /// Above the rate of this edge.
    Rate,
}

impl Refusal {
    fn octet(self) -> u8 {
        match self {
            Refusal::Shape => b's',
            Refusal::Key => b'k',
            Refusal::Rate => b'r',
        }
    }
}

/// Serves a slot until the client closes it, stops reading, or asks for what it must not.
pub(crate) async fn serve(slot: OwnedFd, edge: &Rc<EdgeThread>) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "deprecated because a type may change its descriptor under the reactor's feet; \
                  OwnedFd does not, and the successor is unsafe"
    )]
    let slot = AsyncFd::with_interest(slot, Interest::READABLE)?;
    let mut request = [0; MAX_REQUEST + 1];
    loop {
        let got = slot
            .async_io(Interest::READABLE, |fd| {
                // Whoever has the other end can change whether it blocks; the flag cannot.
                Ok(recv(fd, &mut request[..], RecvFlags::DONTWAIT)?.1)
            })
            .await?;
        if got == 0 {
            return Ok(());
        }
        let answer = answer(request.get(..got).unwrap_or_default(), edge);
        let octets = match &answer {
            Ok(signature) => signature.as_slice(),
            Err(refusal) => &[refusal.octet()],
        };
        match send(slot.get_ref(), octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => {}
            // It has asked again and again without reading: that is no client of ours.
            Err(Errno::AGAIN) => return Err(io::Error::from(io::ErrorKind::WouldBlock)),
            Err(error) => return Err(error.into()),
        }
        if answer == Err(Refusal::Shape) {
            return Err(io::Error::other("asked for what is no handshake"));
        }
        // The other slots of this edge are next.
        tokio::task::yield_now().await;
    }
}

fn answer(request: &[u8], edge: &EdgeThread) -> Result<Vec<u8>, Refusal> {
    let parsed = request.split_first_chunk::<8>().and_then(|(id, rest)| {
        let (scheme, message) = rest.split_first_chunk::<2>()?;
        Some((u64::from_be_bytes(*id), u16::from_be_bytes(*scheme), message))
    });
    let Some((id, scheme, message)) = parsed.filter(|_| request.len() <= MAX_REQUEST) else {
        edge.refused("not a request");
        return Err(Refusal::Shape);
    };
    let allowed = shape::handshake(message).is_some_and(|handshake| handshake.allows(scheme));
    if !allowed {
        edge.refused("not the shape of a TLS server's signature");
        return Err(Refusal::Shape);
    }
    let Some(key) = edge.tls_key(id) else {
        edge.refused("no such key on this edge");
        return Err(Refusal::Key);
    };
    if !edge.may_sign_tls() {
        return Err(Refusal::Rate);
    }
    match key.sign_tls(scheme, message) {
        Ok(signature) => {
            edge.count_tls();
            Ok(signature)
        }
        Err(error) => {
            edge.refused(&error.to_string());
            Err(Refusal::Key)
        }
    }
}
