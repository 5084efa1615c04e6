//! Limits of connections and of what strangers may deliver, counted in one place for all faces.

use crate::auth::limiter::{Concurrent, Window, Windowed, narrow};
use config::limits;
use std::{cell::RefCell, net::IpAddr, rc::Rc, time::Duration};
use types::{AccountId, UnixNanos};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The counters.
pub(crate) struct Gate {
    per_minute: Windowed,
    open: Concurrent,
    messages_minute: Windowed<AccountId>,
    messages_day: Windowed<AccountId>,
    /// In KiB.
    octets_minute: Windowed<AccountId>,
    octets_day: Windowed<AccountId>,
}

/// What a new connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    TooManyConnections,
    TooManyPerMinute,
}

/// A place in the limit of concurrent connections; given back when dropped.
pub(crate) struct Pass {
    gate: Rc<RefCell<Gate>>,
    ip: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.borrow_mut().open.leave(self.ip);
    }
}

/// Octets as they are counted.
fn kib(octets: u64) -> u32 {
    u32::try_from(octets.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Gate {
    pub(crate) fn new(gate: &limits::Gate, delivery: &limits::Delivery) -> Self {
        let window = |length, max| Window { length, max: narrow(max) };
        let octets = |length, max: limits::Classes| Window { length, max: max.map(kib) };
        Self {
            per_minute: Windowed::new(window(MINUTE, gate.connections_per_minute)),
            open: Concurrent::new(narrow(gate.connections)),
            messages_minute: Windowed::new(window(MINUTE, delivery.messages_per_minute)),
            messages_day: Windowed::new(window(DAY, delivery.messages_per_day)),
            octets_minute: Windowed::new(octets(MINUTE, delivery.octets_per_minute)),
            octets_day: Windowed::new(octets(DAY, delivery.octets_per_day)),
        }
    }

    /// A connection from `ip`. Refused ones count in the rate too: who hammers on stays out.
    pub(crate) fn enter(
        this: &Rc<RefCell<Self>>,
        ip: IpAddr,
        now: UnixNanos,
    ) -> Result<Pass, Closed> {
        let mut gate = this.borrow_mut();
        let has_room = gate.per_minute.has_room((), ip, 1, now);
        gate.per_minute.add((), ip, 1, now);
        if !has_room {
            return Err(Closed::TooManyPerMinute);
        }
        if !gate.open.enter(ip) {
            return Err(Closed::TooManyConnections);
        }
        drop(gate);
        Ok(Pass { gate: Rc::clone(this), ip })
    }

    /// Whether a stranger may put another message of so many octets into an account.
    pub(crate) fn may_deliver(
        &self,
        ip: IpAddr,
        account: AccountId,
        octets: u64,
        now: UnixNanos,
    ) -> bool {
        let size = kib(octets);
        self.messages_minute.has_room(account, ip, 1, now)
            && self.messages_day.has_room(account, ip, 1, now)
            && self.octets_minute.has_room(account, ip, size, now)
            && self.octets_day.has_room(account, ip, size, now)
    }

    /// A stranger's message was taken.
    pub(crate) fn delivered(
        &mut self,
        ip: IpAddr,
        account: AccountId,
        octets: u64,
        now: UnixNanos,
    ) {
        let size = kib(octets);
        self.messages_minute.add(account, ip, 1, now);
        self.messages_day.add(account, ip, 1, now);
        self.octets_minute.add(account, ip, size, now);
        self.octets_day.add(account, ip, size, now);
    }

    /// Forgets the rates. Places that are held stay counted, their holders give them back.
    pub(crate) fn clear(&mut self) {
        self.per_minute.clear();
        self.messages_minute.clear();
        self.messages_day.clear();
        self.octets_minute.clear();
        self.octets_day.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_counted_and_given_back() {
        let limits = limits::Gate {
            connections: [2, 9, 9],
            connections_per_minute: [4, 9, 9],
            ..limits::Gate::default()
        };
        let gate = Rc::new(RefCell::new(Gate::new(&limits, &limits::Delivery::default())));
        let ip = "192.0.2.1".parse().unwrap();
        let at = |s: i64| UnixNanos::from_seconds(1000 + s);
        let enter = |s| Gate::enter(&gate, ip, at(s));
        let (one, two) = (enter(0).ok().unwrap(), enter(0).ok().unwrap());
        assert_eq!(enter(0).err(), Some(Closed::TooManyConnections));
        drop(one);
        assert!(enter(0).is_ok());
        assert_eq!(enter(0).err(), Some(Closed::TooManyPerMinute));
        assert!(enter(61).is_ok());
        drop(two);
    }

    #[test]
    fn mail_is_counted_by_account() {
        let limits = limits::Delivery {
            messages_per_minute: [2, 9, 9],
            octets_per_day: [10 << 10, 1 << 20, 1 << 20],
            ..limits::Delivery::default()
        };
        let mut gate = Gate::new(&limits::Gate::default(), &limits);
        let (ip, other) = ("192.0.2.1".parse().unwrap(), "198.51.100.1".parse().unwrap());
        let (ann, bob) = (AccountId::from_bytes([1; 10]), AccountId::from_bytes([2; 10]));
        let at = |s: i64| UnixNanos::from_seconds(1000 + s);
        gate.delivered(ip, ann, 4096, at(0));
        gate.delivered(ip, ann, 1, at(0));
        assert!(!gate.may_deliver(ip, ann, 0, at(1)), "two in a minute");
        // A large sender of many accounts' mail is no flood of one.
        assert!(gate.may_deliver(ip, bob, 0, at(1)) && gate.may_deliver(other, ann, 0, at(1)));
        assert!(gate.may_deliver(ip, ann, 5 << 10, at(61)));
        assert!(!gate.may_deliver(ip, ann, (5 << 10) + 1, at(61)), "ten KiB in a day");
        gate.clear();
        assert!(gate.may_deliver(ip, ann, 10 << 10, at(61)));
    }
}
