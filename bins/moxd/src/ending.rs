//! The end of everything, in the order of dependency: nobody loses a server it still needs.

use ipc::Role;

use crate::tree::{Key, Mode, Tree};

/// The order of the end: who brings work in goes first, who carries it out last.
const ENDING: [&[Role]; 4] = [
    &[
        Role::SmtpdMx,
        Role::SmtpdSubmission,
        Role::ImapdFront,
        Role::ImapdSession,
        Role::HttpdWeb,
        Role::HttpdAdmin,
    ],
    &[Role::QueueRunner],
    &[Role::Accountd],
    &[Role::Parser, Role::Outbound, Role::Resolver, Role::Keyholder],
];

impl Tree {
    /// Begins to end everything.
    pub(crate) fn go_down(&mut self) {
        if self.mode == Mode::Running {
            self.mode = Mode::Stopping(0);
            self.drain_group(0);
            self.go_down_further();
        }
    }

    fn drain_group(&mut self, group: usize) {
        let keys: Vec<Key> =
            self.slots.keys().filter(|(role, _)| ENDING[group].contains(role)).copied().collect();
        for key in keys {
            self.drain(key);
        }
    }

    pub(crate) fn go_down_further(&mut self) {
        while let Mode::Stopping(group) = self.mode {
            let left = self
                .slots
                .iter()
                .any(|((role, _), slot)| slot.now.is_some() && ENDING[group].contains(role));
            if left {
                return;
            }
            if group + 1 == ENDING.len() {
                self.mode = Mode::Down;
                return;
            }
            self.mode = Mode::Stopping(group + 1);
            self.drain_group(group + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_ends_once_and_clients_before_their_servers() {
        let group = |role: Role| ENDING.iter().position(|roles| roles.contains(&role)).unwrap();
        for role in Role::ALL {
            let times: usize =
                ENDING.iter().map(|g| g.iter().filter(|r| **r == role).count()).sum();
            assert_eq!(times, 1, "{role}");
        }
        for edge in ipc::WIRING {
            assert!(group(edge.client) <= group(edge.server), "{} {}", edge.client, edge.server);
        }
    }
}
