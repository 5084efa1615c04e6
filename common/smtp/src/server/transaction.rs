//! MAIL, RCPT, DATA: one transaction from its beginning to the answer that makes us responsible.

use super::{
    Begin, Now, Question, Role, limits,
    session::{Action, Phase, Session, Taken},
};
use crate::{
    CommitRefused, DataEnd, DataRefused, ForwardPath, Hold, Mail, MailRefused, RcptRefused,
    Received, Reply, ReverseGiven, SyntaxError, command::RcptNeeds,
};
use types::{ReversePath, UnixNanos};

/// A transaction between MAIL and the end of DATA.
pub(super) struct Transaction {
    null: bool,
    smtputf8: bool,
    requiretls: bool,
    accepted: u32,
    /// The first accepted recipient.
    first: Option<ForwardPath>,
}

impl Session {
    pub(super) fn mail(&mut self, open: Option<Transaction>, mail: Mail, now: Now) -> Phase {
        if self.hello.is_none() {
            return self.out_of_order(open, "Say EHLO first");
        }
        if open.is_some() {
            return self.out_of_order(open, "A transaction is open already");
        }
        if self.ledger.accepted_data == 0
            && self.ledger.failed_data > self.settings.limits.failed_data
        {
            return self.close_with(Reply::new(550, (5, 1, 0), "Too many failed messages"));
        }
        if self.ledger.transactions >= limits::MAX_TRANSACTIONS {
            return self.close_with(Reply::new(421, (4, 7, 0), "Too many messages, come again"));
        }
        match self.envelope(mail, now) {
            Ok(begin) => {
                self.ledger.transactions = self.ledger.transactions.saturating_add(1);
                let transaction = Transaction {
                    null: begin.from == ReversePath::Null,
                    smtputf8: begin.params.smtputf8,
                    requiretls: begin.params.requiretls,
                    accepted: 0,
                    first: None,
                };
                self.ask(Question::Begin(begin), Phase::BeginAsked(transaction))
            }
            Err(reply) => self.bad(None, reply),
        }
    }

    /// What can be said about MAIL without asking anybody.
    fn envelope(&self, mail: Mail, now: Now) -> Result<Begin, Reply> {
        let params = mail.params;
        let refuse = |why: MailRefused| Err(Reply::from(&why));
        if self.settings.role == Role::Submission && !self.logged_in {
            return refuse(MailRefused::NotLoggedIn);
        }
        if params.requiretls && !self.settings.requiretls {
            return Err(Reply::from(&SyntaxError::UnknownParameter));
        }
        if params.requiretls && self.tls.is_none() {
            return refuse(MailRefused::RequireTlsWithoutTls);
        }
        if params.size.is_some_and(|size| size > self.settings.max_size) {
            return refuse(MailRefused::TooLarge);
        }
        let latest = now.wall.plus(limits::MAX_HOLD);
        let hold_until = match &params.hold {
            None => None,
            Some(Hold::For(seconds)) => {
                Some(now.wall.plus(std::time::Duration::from_secs(u64::from(*seconds))))
            }
            Some(Hold::Until(at, _)) => Some(*at),
        };
        if hold_until.is_some_and(|at: UnixNanos| at < now.wall || at > latest) {
            return refuse(MailRefused::HoldOutOfRange);
        }
        let from = match mail.from {
            ReverseGiven::Null => ReversePath::Null,
            ReverseGiven::Address(address) => ReversePath::Address(address),
            ReverseGiven::Literal(..) => return refuse(MailRefused::Literal),
        };
        let hello = self.hello_name();
        Ok(Begin { hello, extended: self.extended, from, params, hold_until })
    }

    pub(super) fn begun(&mut self, open: Transaction, answer: Result<(), MailRefused>) -> Phase {
        match answer {
            Ok(()) => {
                self.reply(Reply::new(250, (2, 1, 0), "Sender ok"));
                Phase::Open(open)
            }
            Err(why) => {
                self.actions.push(Action::Forget);
                let close = matches!(&why, MailRefused::Said(said) if said.close);
                let reply = Reply::from(&why);
                if close { self.close_with(reply) } else { self.refused(None, reply) }
            }
        }
    }

    /// A refusal by judgement: no fault of form, so it does not count as a bad command.
    fn refused(&mut self, open: Option<Transaction>, reply: Reply) -> Phase {
        self.reply(reply);
        Self::back(open)
    }

    pub(super) fn rcpt(
        &mut self,
        open: Option<Transaction>,
        path: ForwardPath,
        needs: RcptNeeds,
    ) -> Phase {
        let Some(open) = open else {
            return self.out_of_order(None, "Say MAIL first");
        };
        let mx = self.settings.role == Role::Mx;
        let refusal = if needs == RcptNeeds::SmtpUtf8 && !open.smtputf8 {
            Some(RcptRefused::NeedsSmtpUtf8)
        } else if mx && self.settings.require_tls && self.tls.is_none() {
            Some(RcptRefused::TlsFirst)
        } else if matches!(path, ForwardPath::Literal(..)) {
            Some(RcptRefused::Literal)
        } else if open.accepted >= self.settings.limits.recipients
            // A DSN goes to whoever sent the mail: one address.
            || (mx && open.null && open.accepted > 0)
        {
            Some(RcptRefused::TooMany)
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.recipient_refused(open, &why);
        }
        self.ask(Question::Recipient(path.clone()), Phase::RecipientAsked(open, path))
    }

    pub(super) fn recipient_answered(
        &mut self,
        mut open: Transaction,
        path: ForwardPath,
        answer: Result<(), RcptRefused>,
    ) -> Phase {
        if let Err(why) = answer {
            return self.recipient_refused(open, &why);
        }
        open.accepted = open.accepted.saturating_add(1);
        open.first.get_or_insert(path);
        self.reply(Reply::new(250, (2, 1, 5), "Recipient ok"));
        Phase::Open(open)
    }

    fn recipient_refused(&mut self, open: Transaction, why: &RcptRefused) -> Phase {
        let reply = Reply::from(why);
        // What is refused for good are names that somebody tries; what is refused for now (a full
        // transaction, a store that is away) bounds a flood only.
        let (count, most) = if reply.code() >= 500 {
            (&mut self.ledger.refused_recipients, limits::MAX_REFUSED_RECIPIENTS)
        } else {
            (&mut self.ledger.deferred_recipients, limits::MAX_DEFERRED_RECIPIENTS)
        };
        *count = count.saturating_add(1);
        if *count > most {
            return self.close_with(Reply::new(421, (4, 7, 0), "Too many refused recipients"));
        }
        let close = matches!(why, RcptRefused::Said(said) if said.close);
        if close { self.close_with(reply) } else { self.refused(Some(open), reply) }
    }

    pub(super) fn data(&mut self, open: Option<Transaction>) -> Phase {
        match open {
            Some(open) if open.accepted > 0 => self.ask(Question::OpenData, Phase::DataAsked(open)),
            open => self.out_of_order(open, "No recipient"),
        }
    }

    pub(super) fn data_answered(
        &mut self,
        open: Transaction,
        answer: Result<(), DataRefused>,
    ) -> Phase {
        match answer {
            Ok(()) => self.receive(open),
            Err(why) => {
                self.failed();
                let close = matches!(&why, DataRefused::Said(said) if said.close);
                let reply = Reply::from(&why);
                if close { self.close_with(reply) } else { self.refused(None, reply) }
            }
        }
    }

    fn receive(&mut self, open: Transaction) -> Phase {
        self.reply(Reply::plain(354, "Go ahead, end with a dot on a line of its own"));
        self.actions.push(Action::ReadData);
        Phase::Receiving(open)
    }

    pub(super) fn data_end(
        &mut self,
        open: &Transaction,
        end: DataEnd,
        taken: Taken,
        now: Now,
    ) -> Phase {
        let refusal = if let Some(defect) = end.defect {
            Some(CommitRefused::Defect(defect))
        } else if end.received > self.settings.limits.received {
            Some(CommitRefused::Loop)
        } else if taken == Taken::Lost {
            Some(CommitRefused::Unavailable)
        } else if self.settings.role == Role::Submission && !end.separator {
            Some(CommitRefused::NoSeparator)
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.message_refused(&why);
        }
        let field = self.received(open, now);
        self.ask(Question::Commit(field), Phase::CommitAsked)
    }

    fn received(&self, open: &Transaction, now: Now) -> String {
        let mx = self.settings.role == Role::Mx;
        let only = open.first.as_ref().filter(|_| open.accepted == 1);
        let recipient = only.and_then(|path| path.at(&self.settings.host));
        Received {
            hello: &self.hello_name(),
            peer: mx.then_some(self.peer.ip),
            by: &self.settings.host,
            extended: self.extended,
            smtputf8: open.smtputf8,
            tls: self.tls.as_ref(),
            authenticated: self.logged_in,
            requiretls: open.requiretls,
            id: self.peer.id,
            recipient: recipient.as_ref(),
            at: now.wall,
        }
        .to_field()
    }

    pub(super) fn committed(&mut self, answer: Result<String, CommitRefused>) -> Phase {
        match answer {
            Ok(id) => {
                self.ledger.accepted_data = self.ledger.accepted_data.saturating_add(1);
                self.ledger.idle = 0;
                self.actions.push(Action::Forget);
                // Durable: from here on the message is ours (RFC 5321 §4.2.5).
                self.reply(Reply::new(250, (2, 2, 0), format!("Accepted {id}")));
                Phase::Ready
            }
            Err(why) => self.message_refused(&why),
        }
    }

    fn message_refused(&mut self, why: &CommitRefused) -> Phase {
        self.failed();
        let mut close = false;
        if let CommitRefused::Said(said) = why {
            close = said.close;
            if said.is_unknown_recipient() {
                self.pause(limits::UNKNOWN_PAUSE);
            }
            if self.settings.role == Role::Mx {
                self.slow(true);
            }
        }
        let reply = Reply::from(why);
        // RFC 5321 §4.1.1.4: whatever the answer, the transaction is over.
        if close { self.close_with(reply) } else { self.refused(None, reply) }
    }

    fn failed(&mut self) {
        self.ledger.failed_data = self.ledger.failed_data.saturating_add(1);
        self.actions.push(Action::Forget);
    }
}
