//! Limits of connections and of what strangers may deliver, counted in one place for all faces.

use crate::auth::limiter::{Concurrent, Window, Windowed};
use config::limits;
use std::{cell::RefCell, net::IpAddr, rc::Rc, time::Duration};
use types::UnixNanos;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The counters.
pub(crate) struct Gate {
    per_minute: Windowed,
    open: Concurrent,
    messages_minute: Windowed,
    messages_day: Windowed,
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

fn narrow(classes: limits::Classes) -> [u32; 3] {
    classes.map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

impl Gate {
    pub(crate) fn new(gate: &limits::Gate, delivery: &limits::Delivery) -> Self {
        let window = |length, max| Windowed::new(Window { length, max: narrow(max) });
        Self {
            per_minute: window(MINUTE, gate.connections_per_minute),
            open: Concurrent::new(narrow(gate.connections)),
            messages_minute: window(MINUTE, delivery.messages_per_minute),
            messages_day: window(DAY, delivery.messages_per_day),
        }
    }

    /// A connection from `ip`. Refused ones count in the rate too: who hammers on stays out.
    pub(crate) fn enter(
        this: &Rc<RefCell<Self>>,
        ip: IpAddr,
        now: UnixNanos,
    ) -> Result<Pass, Closed> {
        let mut gate = this.borrow_mut();
        let has_room = gate.per_minute.has_room(ip, now);
        gate.per_minute.add(ip, now);
        if !has_room {
            return Err(Closed::TooManyPerMinute);
        }
        if !gate.open.enter(ip) {
            return Err(Closed::TooManyConnections);
        }
        drop(gate);
        Ok(Pass { gate: Rc::clone(this), ip })
    }

    /// Whether a stranger may begin another message.
    pub(crate) fn may_deliver(&self, ip: IpAddr, now: UnixNanos) -> bool {
        self.messages_minute.has_room(ip, now) && self.messages_day.has_room(ip, now)
    }

    /// A stranger's message was taken.
    pub(crate) fn delivered(&mut self, ip: IpAddr, now: UnixNanos) {
        self.messages_minute.add(ip, now);
        self.messages_day.add(ip, now);
    }

    /// Forgets the rates. Places that are held stay counted, their holders give them back.
    pub(crate) fn clear(&mut self) {
        self.per_minute.clear();
        self.messages_minute.clear();
        self.messages_day.clear();
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
        assert!(gate.borrow().may_deliver(ip, at(0)));
    }
}
