//! AUTH (RFC 4954): relays a SASL exchange whose meaning lives in another process.

use super::{
    Question, Role, limits,
    session::{Action, Phase, Session},
    transaction::Transaction,
};
use crate::{
    AuthRefused, Reply,
    command::{Hello, decode_base64},
};
use base64::Engine as _;
use std::time::Duration;
use types::Secret;

impl Session {
    pub(super) fn auth(
        &mut self,
        open: Option<Transaction>,
        mechanism: String,
        initial: Option<Secret<Vec<u8>>>,
    ) -> Phase {
        let in_place = self.settings.role == Role::Submission
            && self.extended
            && !self.logged_in
            && open.is_none();
        if !in_place {
            return self.out_of_order(open, "AUTH not possible now");
        }
        // No mechanism at all: even a challenge and its answer let a listener guess offline.
        if self.tls.is_none() && self.settings.require_tls {
            return self.login_failed(AuthRefused::TlsRequired);
        }
        self.ledger.sasl_lines = 1;
        self.slow_down();
        let agent = match &self.hello {
            Some(Hello::Name(name)) => name.to_string(),
            Some(Hello::Unread(said)) => said.clone(),
            None => String::new(),
        };
        self.ask(Question::AuthStart { mechanism, initial, agent }, Phase::SaslAsked)
    }

    /// Guessing gets slower with each failure; the limits per network are counted elsewhere.
    fn slow_down(&mut self) {
        let seconds = self.ledger.failed_logins.saturating_sub(limits::SLOW_AFTER_LOGINS);
        if seconds > 0 {
            self.pause(Duration::from_secs(u64::from(seconds)));
        }
    }

    pub(super) fn sasl_line(&mut self, line: &[u8]) -> Phase {
        if line == b"*" {
            self.actions.push(Action::Forget);
            return self.login_failed(AuthRefused::Cancelled);
        }
        self.ledger.sasl_lines = self.ledger.sasl_lines.saturating_add(1);
        match decode_base64(line) {
            Ok(data) if self.ledger.sasl_lines <= limits::MAX_SASL_LINES => {
                self.ask(Question::AuthRespond(data), Phase::SaslAsked)
            }
            Ok(_) => {
                self.actions.push(Action::Forget);
                self.login_failed(AuthRefused::BadMessage)
            }
            Err(_) => {
                self.actions.push(Action::Forget);
                self.login_failed(AuthRefused::Base64)
            }
        }
    }

    /// The line behind data with success. The log-in stands already; only an empty line agrees.
    pub(super) fn sasl_last(&mut self, line: &[u8]) -> Phase {
        if line.is_empty() || line == b"=" {
            return self.logged_in();
        }
        self.actions.push(Action::Forget);
        self.login_failed(if line == b"*" {
            AuthRefused::Cancelled
        } else {
            AuthRefused::BadMessage
        })
    }

    pub(super) fn challenge(&mut self, data: &[u8]) {
        let text = base64::engine::general_purpose::STANDARD.encode(data);
        self.reply(Reply::challenge(text));
    }

    pub(super) fn logged_in(&mut self) -> Phase {
        self.logged_in = true;
        self.ledger.failed_logins = 0;
        self.slow(false);
        self.reply(Reply::new(235, (2, 7, 0), "Logged in"));
        Phase::Ready
    }

    pub(super) fn login_failed(&mut self, why: AuthRefused) -> Phase {
        if why == AuthRefused::TooManyFailures {
            return self.close_with(why.into());
        }
        // Our own fault is not held against the client.
        if why != AuthRefused::Temporary {
            self.ledger.failed_logins = self.ledger.failed_logins.saturating_add(1);
        }
        if self.ledger.failed_logins >= self.settings.limits.failed_logins {
            return self.close_with(Reply::new(421, (4, 7, 0), "Too many failed log-ins"));
        }
        if self.ledger.failed_logins == limits::SLOW_AFTER_LOGINS {
            self.slow(true);
        }
        self.reply(why.into());
        Phase::Ready
    }
}
