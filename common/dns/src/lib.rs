//! DNS lookups with their DNSSEC status, over hickory.
//!
//! Two ways to know whether an answer is authentic: validate it here ([`Mode::Validate`]), or
//! believe the AD bit of a name server on a trusted path ([`Mode::TrustAd`]). What is deliberately
//! not here: policy (DANE, SPF), and retries, which the callers' deadlines decide.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let servers = ["127.0.0.1:53".parse()?];
//! let dns = dns::Dns::new(&dns::Settings::new(&servers, dns::Mode::TrustAd))?;
//! let answer = dns.lookup("example.org", dns::Kind::Mx).await;
//! println!("{} records, authentic: {}", answer.records().len(), answer.authentic);
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod answer;
mod negative;
mod resolve;
mod upstream;

pub use answer::{Answer, Failure, Kind, MAX_RECORDS, Outcome, Record};
pub use resolve::{BadSettings, Dns};
pub use upstream::{Mode, Settings, system_servers};
