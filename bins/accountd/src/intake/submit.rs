//! A user's message: checked, completed, signed, and committed to his account's outbox in one
//! transaction. Then the answer is 250, and nobody has waited for the queue.

use super::{
    header, own_header, recipients,
    refusal::Refusal,
    spool::{Crowded, Spool, Spooled, Way},
};
use crate::{
    auth::authority::Session,
    outbox::{self, Envelope},
    service::Service,
    store::{self, NewMessage, SendLimits, Submission},
};
use aws_lc_rs::digest;
use std::time::Duration;
use types::{Address, ReversePath, SessionId, SubmissionId, UnixNanos};

/// How long a client's repeat is recognised: mail programs come again at once or when somebody
/// presses the button again, servers that submit for others within minutes. Not longer: a client of
/// which nobody knows that it heard the answer may also send the same octets again because the first
/// ones could not be delivered.
const REPEAT: Duration = Duration::from_secs(15 * 60);

/// What a submission is besides its content.
pub(crate) struct Draft {
    pub(crate) from: ReversePath,
    pub(crate) recipients: Vec<Address>,
    pub(crate) smtputf8: bool,
    pub(crate) eight_bit: bool,
    pub(crate) require_tls: bool,
    /// RFC 4865; None is now.
    pub(crate) hold_until: Option<UnixNanos>,
    /// That in the client's words: "so many seconds from now" is another time at the repeat.
    pub(crate) hold_asked: String,
}

impl Draft {
    /// What a repeat has in common with the first: the envelope and the octets that came.
    fn digest(&self, content: &[u8; 32]) -> [u8; 32] {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut field = |octets: &[u8]| {
            hash.update(&(octets.len() as u64).to_be_bytes());
            hash.update(octets);
        };
        field(self.from.to_inner().as_bytes());
        for recipient in &self.recipients {
            field(recipient.to_string().as_bytes());
        }
        field(content);
        field(&[self.smtputf8, self.eight_bit, self.require_tls].map(u8::from));
        field(self.hold_asked.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        out
    }
}

impl Service {
    /// Whether a session may use this reverse-path.
    pub(crate) fn check_sender(
        &self,
        session: &Session,
        from: &ReversePath,
    ) -> Result<(), Refusal> {
        let ReversePath::Address(address) = from else { return Ok(()) };
        let snapshot = self.directories.now();
        let directory = &snapshot.directory;
        let account = directory.account_by_id(session.live.basis.account);
        if !account.is_some_and(|account| directory.may_send_as(account, address)) {
            return Err(Refusal::new(550, "5.7.1", "You may not send as this address"));
        }
        if directory.domain(address.domain()).is_some_and(|domain| !domain.enabled) {
            return Err(Refusal::new(451, "4.3.0", "Mail from this domain is suspended"));
        }
        Ok(())
    }

    /// Takes a whole message: its submission id. Of a repeat, that of the first. A repeat is one of
    /// which it is not known that its client heard the answer to the first.
    pub(crate) async fn submit(
        &self,
        session: &Session,
        connection: SessionId,
        draft: Draft,
        message: Spooled,
        received: &str,
    ) -> Result<SubmissionId, Refusal> {
        let parsed = self.parsers.parse(&message).await?;
        if parsed.is_unread {
            return Err(Refusal::ours());
        }
        let Some(facts) = parsed.facts else {
            return Err(Refusal::new(554, "5.6.0", "The message header cannot be read"));
        };
        let author = own_header::author(&message)?;
        // Who judges the message later goes by the parser.
        let is_agreed = match (parsed.from_field_count, parsed.from_addresses.as_slice()) {
            (1, [one]) => one.parse::<Address>().is_ok_and(|one| one == author),
            _ => false,
        };
        if !is_agreed {
            return Err(Refusal::new(550, "5.6.0", "The From field can be read in several ways"));
        }
        self.check_sender(session, &ReversePath::Address(author.clone()))?;
        let now = self.clock.now();
        // RFC 6409 §8.2, §8.3: the submission server adds what is missing.
        let mut added = received.to_owned();
        let mut message_id = facts.message_id.clone();
        if message_id.is_none() {
            let id = header::message_id(&self.settings.hostname).map_err(|_| Refusal::ours())?;
            added.push_str(&format!("Message-ID: <{id}>\r\n"));
            message_id = Some(id);
        }
        if !parsed.has_date {
            added.push_str(&format!("Date: {}\r\n", header::date(now)));
        }
        let signatures = self.sign(&author, &message, &added, parsed.header_length).await?;
        let prefix = format!("{signatures}{added}");
        let header_length = parsed.header_length + prefix.len() as u64;
        let message = message.with_prefix(prefix.into_bytes());

        let account = session.live.basis.account;
        let snapshot = self.directories.now();
        let entry = snapshot.directory.account_by_id(account).ok_or_else(Refusal::ours)?;
        let limits = SendLimits {
            messages: entry.max_outgoing_per_day,
            first_time: entry.max_first_time_per_day,
        };
        let msg = message_id.unwrap_or_default();
        let envelope = Envelope {
            from: draft.from.to_inner(),
            recipients: draft.recipients.iter().map(ToString::to_string).collect(),
            smtputf8: draft.smtputf8,
            // RFC 6152 §3: what the next server is told, whatever the client forgot to say.
            eight_bit: draft.eight_bit || message.is_eight_bit(),
            require_tls: draft.require_tls,
            header_length,
            message_id: msg.clone(),
            subject: facts.base_subject,
        };
        let content = message.content().map_err(|error| {
            tracing::error!(%error, "a spooled message");
            Refusal::ours()
        })?;
        let mut copy = NewMessage::new(store::Target::Role(store::Role::Sent), content, now);
        copy.prefix = message.prefix().to_vec();
        let id = outbox::submission_id(account).map_err(|_| Refusal::ours())?;
        // Without a Message-ID of its own, two equal messages may be two messages.
        let is_named = facts.message_id.is_some();
        let said = is_named.then(|| (draft.digest(&message.hash()), now.plus(REPEAT)));
        let submission = Submission {
            id,
            said,
            message: copy,
            keep_copy: false,
            envelope: envelope.encode(),
            recipients: draft.recipients.iter().map(recipients::stored).collect(),
            release: draft.hold_until,
            limits,
        };
        // 250 is said after this commit, never before.
        let submitted = self.account(account).submit(submission).await?;
        let id = submitted.id;
        if submitted.repeat {
            tracing::info!(
                session = %connection,
                account = entry.name,
                submission = %id,
                msg,
                "submitted before: not taken again"
            );
            return Ok(id);
        }
        self.outboxes.committed(account);
        tracing::info!(
            session = %connection,
            account = entry.name,
            submission = %id,
            msg,
            recipients = draft.recipients.len(),
            size = message.len(),
            "submitted"
        );
        Ok(id)
    }

    /// A new spool for a message to us.
    pub(crate) fn spool(&self, way: Way) -> Result<Spool, Crowded> {
        let place = self.places.take(way)?;
        Ok(Spool::new(&self.folder, self.settings.max_message, self.workers, place))
    }

    /// And for one from the queue, which has our own fields and signatures on top already.
    pub(crate) fn spool_from_queue(&self) -> Result<Spool, Crowded> {
        let place = self.places.take(Way::Queue)?;
        Ok(Spool::new(&self.folder, store::MAX_MESSAGE, self.workers, place))
    }
}
