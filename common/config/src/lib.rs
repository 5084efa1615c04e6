//! The grammar of mox.toml and domains.toml, and the slice of it each process gets.
//!
//! Pure: text in, checked settings or all faults with their places out. It opens no file and knows
//! no process.
//!
//! ```
//! let text = "hostname = \"mail.example.org\"\n[listener.a]\nips = [\"127.0.0.1\"]\nsmtp = {}\n";
//! let settings = config::Static::parse(text, "mox.toml").expect("a complete file");
//! assert_eq!(settings.listeners["a"].services.len(), 1);
//! let faults = config::Static::parse("hostnam = 1", "mox.toml").unwrap_err();
//! assert!(faults.iter().any(|fault| fault.to_string().contains("did you mean \"hostname\"")));
//! ```

#![forbid(unsafe_code)]

pub mod directory;
mod layer;
pub mod limits;
mod listener;
mod problem;
mod read;
mod settings;
pub mod slice;
mod snapshot;
mod units;

pub use layer::Layer;
pub use listener::{Certificate, Kind, Listener, Service, Tls};
pub use problem::Problem;
pub use settings::{
    Authorities, Dns, DnsMode, Format, LEVELS, Level, Local, Log, Postmaster, Queue, Static, UIDS,
};
pub use snapshot::{Snapshot, SnapshotDomain};
