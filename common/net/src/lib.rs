//! Accept loops, bounded line reading, TLS with a remote signer.
//!
//! What a face needs between the kernel's sockets and its session machine: [`accept_loop`] with a
//! bound of open connections, [`LineReader`] that never holds more than its bound,
//! [`TlsAcceptor`] whose private keys are in another process, [`Conn`] that is plain or TLS, and
//! writes that end. For processes that connect, [`ClientTls`].
//!
//! This crate knows no protocol above TLS. A face makes its acceptor by [`TlsAcceptor::of_edge`];
//! tests and others give slots ([`SigningSlots::new`]) and [`Certificates`] themselves.

#![forbid(unsafe_code)]

mod accept;
mod certificates;
mod client;
mod client_certificate;
mod conn;
mod keyholder;
mod lines;
mod signing;
mod tickets;
mod tls;

pub use accept::{Connections, Permit, accept_loop};
pub use certificates::{Certificate, CertificateProblem, Certificates};
pub use client::{ClientTls, ClientTlsError, PeerFacts, Verify, system_roots};
pub use conn::{Conn, WriteError, flush_within, write_within};
pub use keyholder::follow_certificates;
pub use lines::{LineReader, ReadError};
pub use signing::{NoSlot, SigningSlots};
pub use tls::{TlsAcceptor, TlsError, TlsFacts, TlsOptions, draw_first_random};

/// Why a [`TlsAcceptor`] cannot be made.
pub use rustls::Error as TlsSetupError;

/// The server's half of a TLS connection.
pub type ServerTlsStream<S> = tokio_rustls::server::TlsStream<S>;
/// The client's half of a TLS connection.
pub type ClientTlsStream<S> = tokio_rustls::client::TlsStream<S>;
