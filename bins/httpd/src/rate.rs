//! Limits of requests: a minute's and an hour's, for an address and for the networks around it.

use config::limits::Classes;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Networks that are counted at once. When full, what has been quiet for an hour goes; when that
/// is not enough, newcomers are counted by their widest network alone.
const MAX_NETWORKS: usize = 60_000;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Class (0: the address, 2: the widest network) and the network's first octets.
type Network = (u8, IpAddr);

/// Counts in fixed windows.
pub(crate) struct Limiter {
    per_minute: Classes,
    per_hour: Classes,
    counts: BTreeMap<Network, Count>,
    swept: Option<Instant>,
}

struct Count {
    minute: (Instant, u64),
    hour: (Instant, u64),
}

impl Limiter {
    pub(crate) fn new(per_minute: Classes, per_hour: Classes) -> Self {
        Self { per_minute, per_hour, counts: BTreeMap::new(), swept: None }
    }

    /// Counts a request; whether it is within all limits. What is refused counts too: who does
    /// not slow down stays out.
    pub(crate) fn admit(&mut self, ip: IpAddr, now: Instant) -> bool {
        let mut admitted = true;
        for (class, network) in networks(ip).into_iter().enumerate() {
            let key = (u8::try_from(class).unwrap_or(u8::MAX), network);
            if !self.counts.contains_key(&key) && !self.make_room(class, now) {
                continue;
            }
            let count =
                self.counts.entry(key).or_insert(Count { minute: (now, 0), hour: (now, 0) });
            let minute = bump(&mut count.minute, MINUTE, now);
            let hour = bump(&mut count.hour, HOUR, now);
            let most = |limits: &Classes| limits.get(class).copied().unwrap_or(u64::MAX);
            admitted &= minute <= most(&self.per_minute) && hour <= most(&self.per_hour);
        }
        admitted
    }

    /// Whether one more network may be counted.
    fn make_room(&mut self, class: usize, now: Instant) -> bool {
        let full = |counts: &BTreeMap<_, _>| counts.len() >= MAX_NETWORKS;
        // Not at each request: a sweep looks at all of them.
        let due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= MINUTE);
        if full(&self.counts) && due {
            self.swept = Some(now);
            self.counts.retain(|_, count| now.saturating_duration_since(count.hour.0) < HOUR);
        }
        // A tenth more for the widest networks: those of an attack are few.
        let widest = class == 2 && self.counts.len() < MAX_NETWORKS + MAX_NETWORKS / 10;
        !full(&self.counts) || widest
    }
}

fn bump(window: &mut (Instant, u64), length: Duration, now: Instant) -> u64 {
    if now.saturating_duration_since(window.0) >= length {
        *window = (now, 0);
    }
    window.1 = window.1.saturating_add(1);
    window.1
}

/// IPv4: /32, /26, /21; IPv6: /64, /48, /32.
fn networks(ip: IpAddr) -> [IpAddr; 3] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => [32, 26, 21].map(|bits| {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }),
        IpAddr::V6(ip) => [64, 48, 32].map(|bits| {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_around_an_address() {
        assert_eq!(
            networks(ip("192.0.2.77")),
            [ip("192.0.2.77"), ip("192.0.2.64"), ip("192.0.0.0")]
        );
        assert_eq!(networks(ip("::ffff:192.0.2.77")), networks(ip("192.0.2.77")));
        assert_eq!(
            networks(ip("2001:db8:1:2:3::4")),
            [ip("2001:db8:1:2::"), ip("2001:db8:1::"), ip("2001:db8::")]
        );
    }

    #[test]
    fn an_address_then_its_network() {
        let mut limiter = Limiter::new([3, 5, 100], [1000; 3]);
        let start = Instant::now();
        let admitted = |limiter: &mut Limiter, from: &str, at| limiter.admit(ip(from), at);
        assert!((0..3).all(|_| admitted(&mut limiter, "192.0.2.1", start)));
        assert!(!admitted(&mut limiter, "192.0.2.1", start));
        assert!(admitted(&mut limiter, "192.0.2.2", start), "a neighbour");
        assert!(!admitted(&mut limiter, "192.0.2.3", start), "its network is used up");
        assert!(admitted(&mut limiter, "192.0.2.99", start), "another /26");
        assert!(admitted(&mut limiter, "192.0.2.1", start + MINUTE));
    }

    #[test]
    fn hours_count_too() {
        let mut limiter = Limiter::new([1000; 3], [2, 100, 100]);
        let start = Instant::now();
        assert!(limiter.admit(ip("192.0.2.1"), start));
        assert!(limiter.admit(ip("192.0.2.1"), start + MINUTE));
        assert!(!limiter.admit(ip("192.0.2.1"), start + MINUTE * 2));
        assert!(limiter.admit(ip("192.0.2.1"), start + HOUR));
    }

    #[test]
    fn memory_is_bounded_and_newcomers_are_still_limited() {
        let mut limiter = Limiter::new([10, 10, 100], [1000; 3]);
        let start = Instant::now();
        for n in 0..u128::from(MAX_NETWORKS as u32) {
            limiter.admit(IpAddr::V6((0x2001_0db8u128 << 96 | n << 64).into()), start);
        }
        assert!(limiter.counts.len() <= MAX_NETWORKS + MAX_NETWORKS / 10);
        let stranger = ip("198.51.100.7");
        assert!(limiter.admit(stranger, start));
        assert!((0..200).any(|_| !limiter.admit(stranger, start)), "by its widest network");
        limiter.admit(stranger, start + HOUR);
        assert!(limiter.counts.len() < 10, "swept");
    }
}
