//! Limits by address class: failed log-ins, connections a minute, connections at once.
//!
//! An address counts in three classes, itself, its network and its region, and each must have room.
//! Everything is bounded: a table that is full forgets its oldest entries, never grows.

use config::limits;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use types::UnixNanos;

/// Networks remembered in one table. A sender with more addresses than this has them all in few
/// regions, which stay counted.
const MAX_ENTRIES: usize = 100_000;

/// A network an address is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    /// 1, 2 or 3.
    class: u8,
    /// The first octets, the others zero; IPv4 as mapped IPv6.
    prefix: [u8; 16],
}

/// The three networks of an address, narrowest first: IPv4 /32 /26 /21, IPv6 /64 /48 /32.
pub(crate) fn networks(ip: IpAddr) -> [Network; 3] {
    let (octets, bits) = match ip.to_canonical() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), [128, 96 + 26, 96 + 21]),
        IpAddr::V6(v6) => (v6.octets(), [64, 48, 32]),
    };
    let mut out = [Network { class: 0, prefix: [0; 16] }; 3];
    for (class, (network, bits)) in (1u8..).zip(out.iter_mut().zip(bits)) {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        *network = Network { class, prefix: (u128::from_be_bytes(octets) & mask).to_be_bytes() };
    }
    out
}

impl Network {
    /// The octets under which it is written down.
    pub(crate) fn to_bytes(self) -> [u8; 17] {
        let mut out = [0; 17];
        out[0] = self.class;
        out[1..].copy_from_slice(&self.prefix);
        out
    }

    /// The inverse; None for other octets.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&class, prefix) = bytes.split_first()?;
        let prefix = prefix.try_into().ok()?;
        (1..=3).contains(&class).then_some(Self { class, prefix })
    }

    fn index(self) -> usize {
        usize::from(self.class.clamp(1, 3) - 1)
    }
}

/// A window and how much fits into it, per class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) length: Duration,
    pub(crate) max: [u32; 3],
}

/// Configured limits in the width they are counted in.
pub(crate) fn narrow(classes: limits::Classes) -> [u32; 3] {
    classes.map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// Counted events of one network in one window: how many, and when the window began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) began: UnixNanos,
    pub(crate) count: u32,
}

/// One window over all networks, for each `K` apart.
#[derive(Debug)]
pub(crate) struct Windowed<K = ()> {
    window: Window,
    counts: BTreeMap<(K, Network), Count>,
}

impl<K: Ord + Copy> Windowed<K> {
    pub(crate) fn new(window: Window) -> Self {
        Self { window, counts: BTreeMap::new() }
    }

    fn current(&self, key: K, network: Network, now: UnixNanos) -> u32 {
        self.counts.get(&(key, network)).filter(|c| self.lasts(c, now)).map_or(0, |c| c.count)
    }

    fn lasts(&self, count: &Count, now: UnixNanos) -> bool {
        // A clock set back must not hold a window open for ever.
        count.began <= now && now < count.began.plus(self.window.length)
    }

    /// Whether `more` fit in every class.
    pub(crate) fn has_room(&self, key: K, ip: IpAddr, more: u32, now: UnixNanos) -> bool {
        let fits = |n: &Network| {
            self.current(key, *n, now).saturating_add(more) <= self.window.max[n.index()]
        };
        networks(ip).iter().all(fits)
    }

    /// Counts them.
    pub(crate) fn add(&mut self, key: K, ip: IpAddr, more: u32, now: UnixNanos) {
        for network in networks(ip) {
            let count = self.current(key, network, now);
            if count == 0 {
                self.make_room(now);
                self.counts.insert((key, network), Count { began: now, count: more });
            } else if let Some(entry) = self.counts.get_mut(&(key, network)) {
                entry.count = count.saturating_add(more);
            }
        }
    }

    /// Takes one event back.
    fn refund(&mut self, key: K, ip: IpAddr, now: UnixNanos) {
        for network in networks(ip) {
            let count = self.current(key, network, now);
            if let Some(entry) = self.counts.get_mut(&(key, network)).filter(|_| count > 0) {
                entry.count = count - 1;
            }
        }
    }

    /// A success: forgets what the address itself counted for, in all its classes.
    pub(crate) fn credit(&mut self, key: K, ip: IpAddr, now: UnixNanos) {
        let all = networks(ip);
        let own = self.current(key, all[0], now);
        for network in all {
            if let Some(entry) = self.counts.get_mut(&(key, network)) {
                entry.count = entry.count.saturating_sub(own);
                if entry.count == 0 {
                    self.counts.remove(&(key, network));
                }
            }
        }
    }

    fn make_room(&mut self, now: UnixNanos) {
        if self.counts.len() < MAX_ENTRIES {
            return;
        }
        let length = self.window.length;
        self.counts.retain(|_, c| c.began <= now && now < c.began.plus(length));
        if self.counts.len() < MAX_ENTRIES {
            return;
        }
        // Still full: the older half goes. Regions go last, they say most about an attacker.
        let mut began: Vec<UnixNanos> = self.counts.values().map(|c| c.began).collect();
        let middle = began.len() / 2;
        let (_, &mut median, _) = began.select_nth_unstable(middle);
        self.counts.retain(|(_, network), c| network.class == 3 || c.began > median);
        if self.counts.len() >= MAX_ENTRIES {
            self.counts.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.counts.clear();
    }
}

impl Windowed {
    /// What is counted now, to be written down.
    pub(crate) fn rows(&self, now: UnixNanos) -> Vec<(Network, Count)> {
        let lasting = self.counts.iter().filter(|(_, c)| self.lasts(c, now));
        lasting.map(|(((), network), count)| (*network, *count)).collect()
    }

    /// Takes over what was written down.
    pub(crate) fn restore(&mut self, rows: impl IntoIterator<Item = (Network, Count)>) {
        let rows = rows.into_iter().take(MAX_ENTRIES);
        self.counts.extend(rows.map(|(network, count)| (((), network), count)));
    }
}

/// Failed log-ins: a short and a long window.
#[derive(Debug)]
pub(crate) struct FailedLogins {
    minute: Windowed,
    day: Windowed,
    changed: bool,
    /// An address came to its limit since these were last written down.
    reached: bool,
}

/// Failed log-ins as they are written down.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) minute: Vec<(Network, Count)>,
    pub(crate) day: Vec<(Network, Count)>,
}

impl FailedLogins {
    pub(crate) fn new(limits: &limits::Gate) -> Self {
        let window =
            |seconds, max| Window { length: Duration::from_secs(seconds), max: narrow(max) };
        Self {
            minute: Windowed::new(window(60, limits.failed_logins_per_minute)),
            day: Windowed::new(window(86_400, limits.failed_logins_per_day)),
            changed: false,
            reached: false,
        }
    }

    /// Whether another attempt may be looked at.
    pub(crate) fn may_try(&self, ip: IpAddr, now: UnixNanos) -> bool {
        self.minute.has_room((), ip, 1, now) && self.day.has_room((), ip, 1, now)
    }

    pub(crate) fn failed(&mut self, ip: IpAddr, now: UnixNanos) {
        self.minute.add((), ip, 1, now);
        self.day.add((), ip, 1, now);
        self.changed = true;
        self.reached |= !self.may_try(ip, now);
    }

    /// Somebody asked for a challenge and went away. It may have been a process of ours that died, so
    /// the day forgets it; above its limit nothing is added.
    pub(crate) fn gave_up(&mut self, ip: IpAddr, now: UnixNanos) {
        if self.may_try(ip, now) {
            self.minute.add((), ip, 1, now);
            self.changed = true;
            self.reached |= !self.may_try(ip, now);
        }
    }

    /// Takes back one that was counted before it was known.
    pub(crate) fn refund(&mut self, ip: IpAddr, now: UnixNanos) {
        self.minute.refund((), ip, now);
        self.day.refund((), ip, now);
        self.changed = true;
    }

    pub(crate) fn succeeded(&mut self, ip: IpAddr, now: UnixNanos) {
        // The day's count stays: somebody with one account of his own could else wipe out at will
        // what he tries on others.
        self.minute.credit((), ip, now);
        self.changed = true;
    }

    /// Whether they are to be written down soon: who came to his limit must not get around it by
    /// what ends this process.
    pub(crate) fn are_urgent(&self) -> bool {
        self.reached
    }

    /// The counts, if they changed since they were last asked for.
    pub(crate) fn unwritten(&mut self, now: UnixNanos) -> Option<Failures> {
        self.reached = false;
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| Failures { minute: self.minute.rows(now), day: self.day.rows(now) })
    }

    /// What could not be written is still to be.
    pub(crate) fn not_written(&mut self) {
        self.changed = true;
    }

    pub(crate) fn restore(&mut self, rows: Failures) {
        self.minute.restore(rows.minute);
        self.day.restore(rows.day);
    }

    pub(crate) fn clear(&mut self) {
        self.minute.clear();
        self.day.clear();
        self.changed = true;
    }
}

/// Connections at once.
#[derive(Debug)]
pub(crate) struct Concurrent {
    max: [u32; 3],
    open: BTreeMap<Network, u32>,
}

impl Concurrent {
    pub(crate) fn new(max: [u32; 3]) -> Self {
        Self { max, open: BTreeMap::new() }
    }

    /// Takes a place in every class, or none.
    pub(crate) fn enter(&mut self, ip: IpAddr) -> bool {
        let all = networks(ip);
        let full = |n: &Network| self.open.get(n).copied().unwrap_or(0) >= self.max[n.index()];
        if all.iter().any(full) {
            return false;
        }
        for network in all {
            *self.open.entry(network).or_default() += 1;
        }
        true
    }

    /// Gives the places back.
    pub(crate) fn leave(&mut self, ip: IpAddr) {
        for network in networks(ip) {
            if let Some(open) = self.open.get_mut(&network) {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    self.open.remove(&network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const SECOND: i64 = 1;

    fn at(seconds: i64) -> UnixNanos {
        UnixNanos::from_seconds(1_000_000 + seconds * SECOND)
    }

    #[test]
    fn classes_of_addresses() {
        let same = |a: &str, b: &str| {
            let (a, b) = (networks(ip(a)), networks(ip(b)));
            [a[0] == b[0], a[1] == b[1], a[2] == b[2]]
        };
        assert_eq!(same("192.0.2.1", "192.0.2.1"), [true, true, true]);
        assert_eq!(same("192.0.2.1", "::ffff:192.0.2.1"), [true, true, true]);
        assert_eq!(same("192.0.2.1", "192.0.2.63"), [false, true, true]);
        assert_eq!(same("192.0.2.1", "192.0.2.64"), [false, false, true]);
        assert_eq!(same("192.0.0.1", "192.0.8.1"), [false, false, false]);
        assert_eq!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::"), [true, true, true]);
        assert_eq!(same("2001:db8:0:1::1", "2001:db8:0:2::1"), [false, true, true]);
        assert_eq!(same("2001:db8:1::", "2001:db8:2::"), [false, false, true]);
        for network in networks(ip("2001:db8::1")) {
            assert_eq!(Network::from_bytes(&network.to_bytes()), Some(network));
        }
        assert!(Network::from_bytes(&[0; 17]).is_none());
    }

    #[test]
    fn a_window_fills_and_ends() {
        let mut failed = FailedLogins::new(&limits::Gate::default());
        for n in 0..10 {
            assert!(failed.may_try(ip("192.0.2.1"), at(n)), "{n}");
            failed.failed(ip("192.0.2.1"), at(n));
        }
        assert!(!failed.may_try(ip("192.0.2.1"), at(10)));
        assert!(failed.may_try(ip("192.0.2.2"), at(10)));
        assert!(failed.may_try(ip("192.0.2.1"), at(61)));
        // A clock set back by an hour opens no door for ever, and closes none.
        assert!(failed.may_try(ip("192.0.2.1"), at(-3600)));
    }

    #[test]
    fn the_limits_are_the_configured_ones() {
        let limits = limits::Gate {
            failed_logins_per_minute: [2, 30, 90],
            failed_logins_per_day: [3, 150, 450],
            ..limits::Gate::default()
        };
        let mut failed = FailedLogins::new(&limits);
        failed.failed(ip("192.0.2.1"), at(0));
        failed.failed(ip("192.0.2.1"), at(0));
        assert!(!failed.may_try(ip("192.0.2.1"), at(1)));
        assert!(failed.may_try(ip("192.0.2.1"), at(61)));
        failed.failed(ip("192.0.2.1"), at(61));
        assert!(!failed.may_try(ip("192.0.2.1"), at(200)));
    }

    #[test]
    fn neighbours_share_the_wider_classes() {
        let mut failed = FailedLogins::new(&limits::Gate::default());
        for n in 0..30u8 {
            failed.failed(ip(&format!("192.0.2.{n}")), at(0));
        }
        assert!(!failed.may_try(ip("192.0.2.60"), at(1)));
        assert!(failed.may_try(ip("192.0.2.100"), at(1)));
    }

    #[test]
    fn success_forgives_the_address_for_the_minute_alone() {
        let mut failed = FailedLogins::new(&limits::Gate::default());
        for _ in 0..5 {
            for _ in 0..9 {
                failed.failed(ip("192.0.2.1"), at(0));
            }
            failed.succeeded(ip("192.0.2.1"), at(0));
            assert!(failed.may_try(ip("192.0.2.1"), at(0)));
        }
        for _ in 0..5 {
            failed.failed(ip("192.0.2.1"), at(0));
        }
        assert!(!failed.may_try(ip("192.0.2.1"), at(100)));
        assert!(failed.may_try(ip("192.0.2.1"), at(90_000)));
    }

    #[test]
    fn both_windows_survive_a_restart() {
        let mut failed = FailedLogins::new(&limits::Gate::default());
        for n in 0..50 {
            failed.failed(ip("192.0.2.1"), at(n * 61));
        }
        for _ in 0..10 {
            failed.failed(ip("203.0.113.1"), at(4000));
        }
        let rows = failed.unwritten(at(4000)).unwrap();
        assert!(failed.unwritten(at(4000)).is_none());
        let mut again = FailedLogins::new(&limits::Gate::default());
        again.restore(rows);
        assert!(!again.may_try(ip("192.0.2.1"), at(4000)));
        assert!(!again.may_try(ip("203.0.113.1"), at(4001)));
        assert!(again.may_try(ip("203.0.113.1"), at(4061)));
        again.clear();
        assert!(again.may_try(ip("192.0.2.1"), at(4000)));
    }

    #[test]
    fn who_gives_up_is_stopped_for_a_minute_and_no_neighbour_with_him() {
        let mut failed = FailedLogins::new(&limits::Gate::default());
        for _ in 0..40 {
            failed.gave_up(ip("192.0.2.1"), at(1));
        }
        assert!(!failed.may_try(ip("192.0.2.1"), at(2)));
        assert!(failed.may_try(ip("192.0.2.2"), at(2)), "10 of 30 in its network");
        for minute in 1..20 {
            assert!(failed.may_try(ip("192.0.2.1"), at(minute * 61)), "{minute}");
            for _ in 0..10 {
                failed.gave_up(ip("192.0.2.1"), at(minute * 61));
            }
        }
    }

    #[test]
    fn a_limit_that_was_reached_is_urgent_once() {
        let mut failed = FailedLogins::new(&limits::Gate::default());
        for n in 0..10 {
            assert!(!failed.are_urgent(), "{n}");
            failed.failed(ip("192.0.2.1"), at(n));
        }
        assert!(failed.are_urgent());
        failed.unwritten(at(10)).unwrap();
        assert!(!failed.are_urgent());
        failed.failed(ip("203.0.113.1"), at(10));
        assert!(!failed.are_urgent());
    }

    #[test]
    fn tables_are_bounded() {
        let window = Window { length: Duration::from_secs(60), max: [1, 1, 1] };
        let mut counts = Windowed::new(window);
        for n in 0..60_000u32 {
            counts.add((), IpAddr::from(std::net::Ipv4Addr::from(n << 12)), 1, at(0));
        }
        assert!(counts.counts.len() <= MAX_ENTRIES);
    }

    #[test]
    fn places_are_given_back() {
        let mut open = Concurrent::new([2, 3, 4]);
        assert!(open.enter(ip("192.0.2.1")) && open.enter(ip("192.0.2.1")));
        assert!(!open.enter(ip("192.0.2.1")));
        assert!(open.enter(ip("192.0.2.2")));
        assert!(!open.enter(ip("192.0.2.3")));
        open.leave(ip("192.0.2.1"));
        assert!(open.enter(ip("192.0.2.3")));
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            open.leave(ip(address));
        }
        assert!(open.open.is_empty());
    }
}
