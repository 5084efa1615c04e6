//! The loads: what clients do to a server, and how long it took them.

pub(crate) mod connect;
pub(crate) mod deliver;
pub(crate) mod fetch;
pub(crate) mod fill;
pub(crate) mod idle;

use std::time::Duration;

/// The password of every account.
pub(crate) const PASSWORD: &str = "benchpass123";

/// The domain of every account.
pub(crate) const DOMAIN: &str = "bench.test";

/// The address, which is the name to log in with, of user `n`.
pub(crate) fn user(n: u64) -> String {
    format!("u{n}@{DOMAIN}")
}

/// The value below which `percent` of 100 are; 0 of none.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// As milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.0);
        assert_eq!(percentile(&values, 95.0), 4.0);
        assert_eq!(percentile(&[], 95.0), 0.0);
    }
}
