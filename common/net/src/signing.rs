//! Signatures made in another process.
//!
//! rustls asks for a signature synchronously, in the middle of a handshake. A thread that waits
//! for keyholder there must be one that nobody else needs, so the step of the handshake that signs
//! runs on a blocking thread (see `tls.rs`) that holds a *signing slot*: a SOCK_SEQPACKET socket
//! to keyholder, one request and one answer at a time. The slot reaches the signer through a
//! thread-local turn; where there is no turn there is no signature, so the thread that serves all
//! sessions can never be stalled by keyholder, whatever rustls does.
//!
//! The wire format (the other end is `slot.rs` of keyholder):
//!
//! | request | octets |
//! |---|---|
//! | key id: start of the SHA-256 of the SPKI, big endian | 8 |
//! | TLS SignatureScheme | 2 |
//! | the octets to sign, as TLS defines them | up to 256 |
//!
//! The answer is the signature. An answer of one octet is a refusal (no signature is that short);
//! its value says why.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{Signer, SigningKey},
};
use std::{
    cell::RefCell,
    fmt,
    future::Future,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Signatures under way at once in one process, and so the threads that may wait for them.
const SLOTS: usize = 8;
/// How long keyholder may take for one signature (architecture §6).
const SIGN_DEADLINE: Duration = Duration::from_secs(1);
/// What TLS lets a server sign is at most this long: 64 + 34 + 48 in TLS 1.3, 64 + 4 + 133 in 1.2.
const MAX_MESSAGE: usize = 256;
/// The longest signature: RSA-4096.
const MAX_SIGNATURE: usize = 512;
const REQUEST_HEAD: usize = 10;

/// There is no signing slot to be had: keyholder is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no signing slot: keyholder is not there at the moment")]
pub struct NoSlot;

type Dial = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<OwnedFd, NoSlot>>>>>;

/// The signing slots of a process. Cheap to clone.
#[derive(Clone)]
pub struct SigningSlots {
    dial: Dial,
    turns: Arc<Semaphore>,
    idle: Idle,
}

type Idle = Arc<Mutex<Vec<OwnedFd>>>;

impl SigningSlots {
    /// Slots that `dial` gets, as `ipc::Dialer::slot` does. They are kept for the next handshake.
    pub fn new<F>(dial: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = Result<OwnedFd, NoSlot>> + 'static,
    {
        Self {
            dial: Rc::new(move || Box::pin(dial())),
            turns: Arc::new(Semaphore::new(SLOTS)),
            idle: Arc::default(),
        }
    }

    /// Waits for its turn and gets a slot that is alive.
    pub(crate) async fn lease(&self) -> Result<Lease, NoSlot> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| NoSlot)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let slot = match idle {
                // After a restart of keyholder all idle slots are dead: they are sorted out here
                // and cost no handshake.
                Some(slot) if is_quiet(&slot) => slot,
                Some(_dead) => continue,
                None => {
                    let slot = (self.dial)().await?;
                    prepare(&slot).map_err(|_| NoSlot)?;
                    slot
                }
            };
            return Ok(Lease { slot: Some(slot), idle: Arc::clone(&self.idle), _turn: turn });
        }
    }
}

impl fmt::Debug for SigningSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningSlots").field("free", &self.turns.available_permits()).finish()
    }
}

fn prepare(slot: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_timeout(slot, sockopt::Timeout::Recv, Some(SIGN_DEADLINE))?;
    sockopt::set_socket_timeout(slot, sockopt::Timeout::Send, Some(SIGN_DEADLINE))?;
    // A slot blocks, whatever state it came in; the time-out above is its bound.
    Ok(rustix::io::ioctl_fionbio(slot, false)?)
}

/// Neither closed nor with something to read: an answer nobody waits for would be taken for the
/// answer to the next question.
fn is_quiet(slot: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(slot, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// A slot during one handshake; goes back when dropped, on whatever thread.
pub(crate) struct Lease {
    slot: Option<OwnedFd>,
    idle: Idle,
    _turn: OwnedSemaphorePermit,
}

impl Lease {
    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        // Taken out: after any fault it is not put back. A late answer on it would be taken for
        // the answer to the next question.
        let slot = self.slot.take().ok_or_else(|| failed("the signing slot broke"))?;
        let answer = (|| {
            let sent = send(&slot, request, SendFlags::NOSIGNAL)?;
            if sent != request.len() {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            let mut answer = vec![0; MAX_SIGNATURE + 1];
            let (_, got) = recv(&slot, &mut answer[..], RecvFlags::empty())?;
            answer.truncate(got);
            Ok(answer)
        })()
        .map_err(|error| {
            tracing::warn!(%error, "keyholder did not sign");
            failed("keyholder did not sign")
        })?;
        match *answer {
            [] => Err(failed("keyholder is gone")),
            [why] => {
                self.slot = Some(slot);
                tracing::warn!(why = refusal(why), "keyholder refused to sign");
                Err(failed("keyholder refused to sign"))
            }
            _ if answer.len() > MAX_SIGNATURE => Err(failed("keyholder's answer is too long")),
            _ => {
                self.slot = Some(slot);
                Ok(answer)
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < SLOTS {
                idle.push(slot);
            }
        }
    }
}

fn failed(what: &str) -> rustls::Error {
    rustls::Error::General(what.into())
}

fn refusal(why: u8) -> &'static str {
    match why {
        b's' => "not the shape of a server's handshake",
        b'k' => "no such key on this edge",
        b'r' => "above the rate of this edge",
        _ => "a fault in keyholder",
    }
}

/// What one handshake does on this thread.
pub(crate) struct Turn {
    lease: Option<Lease>,
    /// A signature was made: the lease has done its work.
    pub(crate) signed: bool,
    /// A ticket of ours was opened: there may be nothing to sign.
    pub(crate) ticket_opened: bool,
    /// Channel binding of the certificate that was chosen.
    pub(crate) end_point: Option<Arc<[u8]>>,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

impl Turn {
    /// A turn with a slot.
    pub(crate) fn new(lease: Lease) -> Self {
        Self { lease: Some(lease), signed: false, ticket_opened: false, end_point: None }
    }

    /// Gives the slot back: there is nothing more to sign.
    pub(crate) fn release(&mut self) {
        self.lease = None;
    }

    /// Runs a step of the handshake with this turn.
    pub(crate) fn run<T>(self, step: impl FnOnce() -> T) -> (T, Turn) {
        /// Takes the turn away even when the step panics: this thread serves others next.
        struct Cleared;
        impl Drop for Cleared {
            fn drop(&mut self) {
                drop(TURN.take());
            }
        }
        TURN.set(Some(self));
        let cleared = Cleared;
        let outcome = step();
        let turn = TURN.take();
        drop(cleared);
        let spent = Turn { lease: None, signed: false, ticket_opened: false, end_point: None };
        (outcome, turn.unwrap_or(spent))
    }

    /// Notes something in the turn of this thread, if it has one.
    pub(crate) fn note(change: impl FnOnce(&mut Turn)) {
        TURN.with_borrow_mut(|turn| turn.as_mut().map(change));
    }
}

/// A private key of keyholder's.
#[derive(Clone)]
pub(crate) struct RemoteKey {
    pub(crate) key_id: u64,
    pub(crate) spki: Arc<[u8]>,
    pub(crate) algorithm: SignatureAlgorithm,
    pub(crate) schemes: Arc<[SignatureScheme]>,
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteKey({:016x})", self.key_id)
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.schemes.iter().copied().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RemoteSigner { key_id: self.key_id, scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        // Without it `CertifiedKey::keys_match` could not see a wrong pairing.
        Some(SubjectPublicKeyInfoDer::from(&self.spki[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

#[derive(Debug)]
struct RemoteSigner {
    key_id: u64,
    scheme: SignatureScheme,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        if message.len() > MAX_MESSAGE {
            return Err(failed("too long to be signed"));
        }
        let mut request = Vec::with_capacity(REQUEST_HEAD + message.len());
        request.extend_from_slice(&self.key_id.to_be_bytes());
        request.extend_from_slice(&u16::from(self.scheme).to_be_bytes());
        request.extend_from_slice(message);
        TURN.with_borrow_mut(|turn| {
            let turn = turn.as_mut().ok_or_else(|| failed("a signature outside of its turn"))?;
            let lease = turn.lease.as_mut().ok_or_else(|| failed("a second signature"))?;
            let signature = lease.exchange(&request)?;
            turn.signed = true;
            Ok(signature)
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn signer() -> RemoteSigner {
        RemoteSigner { key_id: 7, scheme: SignatureScheme::ED25519 }
    }

    /// Slots whose other ends are given to `far`.
    fn slots() -> (SigningSlots, Rc<RefCell<Vec<OwnedFd>>>) {
        let far = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&far);
        let slots = SigningSlots::new(move || {
            let (near, other) = pair();
            kept.borrow_mut().push(other);
            async { Ok(near) }
        });
        (slots, far)
    }

    #[tokio::test]
    async fn an_exchange_and_the_slot_is_used_again() {
        let (slots, far) = slots();
        for _ in 0..3 {
            let lease = slots.lease().await.unwrap();
            let end = rustix::io::dup(&far.borrow()[0]).unwrap();
            let keyholder = std::thread::spawn(move || {
                let mut request = [0; 300];
                let (_, got) = recv(&end, &mut request[..], RecvFlags::empty()).unwrap();
                assert_eq!(request[..got], *b"\0\0\0\0\0\0\0\x07\x08\x07message");
                send(&end, &[9; 64], SendFlags::empty()).unwrap();
            });
            let (signature, turn) = Turn::new(lease).run(|| signer().sign(b"message"));
            assert_eq!(signature.unwrap(), [9; 64]);
            assert!(turn.signed);
            keyholder.join().unwrap();
        }
        assert_eq!(far.borrow().len(), 1, "one slot for one after the other");
    }

    #[tokio::test]
    async fn dead_slots_are_sorted_out() {
        let (slots, far) = slots();
        let leases = [slots.lease().await.unwrap(), slots.lease().await.unwrap()];
        drop(leases);
        far.borrow_mut().clear();
        drop(slots.lease().await.unwrap());
        assert_eq!(far.borrow().len(), 1, "a new one was dialled");
        // An answer nobody asked for makes a slot unusable as well.
        send(&far.borrow()[0], b"late answer", SendFlags::empty()).unwrap();
        drop(slots.lease().await.unwrap());
        assert_eq!(far.borrow().len(), 2);
    }

    #[tokio::test]
    async fn refusals_and_silence_are_errors() {
        let (slots, far) = slots();
        let lease = slots.lease().await.unwrap();
        send(&far.borrow()[0], b"s", SendFlags::empty()).unwrap();
        let (refused, turn) = Turn::new(lease).run(|| signer().sign(b"message"));
        assert!(refused.is_err() && !turn.signed);
        drop(turn);
        // A silent keyholder: the deadline ends it and the slot is not used again.
        let silent = slots.lease().await.unwrap();
        let started = std::time::Instant::now();
        let (late, turn) = Turn::new(silent).run(|| signer().sign(b"message"));
        assert!(late.is_err());
        assert!(started.elapsed() < SIGN_DEADLINE * 2);
        drop(turn);
        assert!(slots.idle.lock().unwrap().is_empty());
        assert!(signer().sign(b"message").is_err(), "no turn, no signature");
    }

    #[tokio::test]
    async fn no_more_than_the_slots_at_once() {
        let (slots, _far) = slots();
        let mut leases = Vec::new();
        for _ in 0..SLOTS {
            leases.push(slots.lease().await.unwrap());
        }
        let cut = Duration::from_millis(10);
        assert!(tokio::time::timeout(cut, slots.lease()).await.is_err());
        leases.pop();
        assert!(tokio::time::timeout(cut, slots.lease()).await.is_ok());
    }
}
