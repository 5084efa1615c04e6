//! A session on a stream of bytes, still without I/O: whoever has the socket asks [`Connection`]
//! for the next [`Step`], carries it out, and asks again.
//!
//! Bounded by itself: it asks for more bytes only when no whole line is left, so what waits is one
//! line and one read; replies that wait are flushed above [`limits::MAX_UNSENT`].

use super::{
    Answer, Now, Peer, Question, Settings, limits,
    session::{Action, Event, Session, Taken},
};
use crate::{DataEnd, Input, Line, Receiver, TlsFacts};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// What to do next.
pub enum Step {
    /// Send these bytes now.
    Send(Vec<u8>),
    /// Read some bytes and give them to [`Connection::received`], or say
    /// [`Connection::timed_out`].
    Read(Duration),
    /// Find out and come back with [`Connection::answer`].
    Ask(Question),
    /// Content of the message; give it to the sink.
    Content(Vec<u8>),
    /// Drop what belongs to the transaction or log-in under way.
    Forget,
    /// Do a TLS handshake, come back with [`Connection::secured`] or [`Connection::not_secured`].
    /// Within [`limits::HANDSHAKE`].
    StartTls,
    /// Wait so long.
    Pause(Duration),
    /// End the connection.
    Close,
}

enum Mode {
    Lines,
    Data {
        receiver: Receiver,
        since: Instant,
    },
    /// The last content may still be on its way to the sink.
    Ended(DataEnd),
    /// A question or a handshake is out.
    Waiting,
    Closed,
}

/// What happened on a connection since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Command lines.
    pub commands: u64,
    /// Replies of class 4 and 5.
    pub refusals: u64,
}

/// A session and the bytes around it.
pub struct Connection {
    session: Option<Session>,
    settings: Arc<Settings>,
    input: Input,
    unsent: Vec<u8>,
    todo: VecDeque<Action>,
    mode: Mode,
    taken: Taken,
    slow: bool,
    tally: Tally,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(settings: Arc<Settings>, peer: Peer, now: Now) -> Self {
        let (session, todo) =
            Session::new(Arc::clone(&settings), peer, now).handle(Event::Start, now);
        Self {
            session: Some(session),
            settings,
            input: Input::default(),
            unsent: Vec::new(),
            todo: todo.into(),
            mode: Mode::Lines,
            taken: Taken::Whole,
            slow: false,
            tally: Tally::default(),
        }
    }

    fn limits(&self) -> &limits::Limits {
        &self.settings.limits
    }

    /// Slow mode: the carrier may read once a second and send one octet a second, as long as it
    /// keeps its deadlines.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Whether nothing would be lost if it ended now.
    #[must_use]
    pub fn is_between_commands(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_between_commands)
    }

    /// Whether the client has said more than was looked at so far.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.input.as_slice().is_empty()
    }

    /// What was counted, and begins anew.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// What to do next.
    pub fn poll(&mut self, now: Now) -> Step {
        loop {
            if self.unsent.len() > limits::MAX_UNSENT {
                return Step::Send(std::mem::take(&mut self.unsent));
            }
            if let Some(action) = self.todo.pop_front() {
                match self.start(action, now) {
                    Some(step) => return step,
                    None => continue,
                }
            }
            let step = match std::mem::replace(&mut self.mode, Mode::Waiting) {
                // Asked again without an answer: the carrier broke its contract.
                Mode::Waiting | Mode::Closed => {
                    self.mode = Mode::Closed;
                    return Step::Close;
                }
                Mode::Ended(end) => {
                    self.mode = Mode::Lines;
                    let taken = self.taken;
                    self.event(Event::DataEnd(end, taken), now);
                    None
                }
                Mode::Lines => {
                    self.mode = Mode::Lines;
                    self.next_line(now)
                }
                Mode::Data { receiver, since } => self.next_content(receiver, since, now),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Begins an action; gives the step, or nothing if it is done already. What must be sent
    /// first puts the action back.
    fn start(&mut self, action: Action, now: Now) -> Option<Step> {
        let needs_flush = match &action {
            Action::StartTls | Action::Pause(_) | Action::Close => true,
            // Replies may wait for the answer: the client pipelined, or there are none.
            Action::Reply(_)
            | Action::Ask(_)
            | Action::Forget
            | Action::ReadData
            | Action::Slow(_) => false,
        };
        if needs_flush && !self.unsent.is_empty() {
            self.todo.push_front(action);
            return Some(Step::Send(std::mem::take(&mut self.unsent)));
        }
        match action {
            Action::Reply(reply) => {
                self.tally.refusals =
                    self.tally.refusals.saturating_add(u64::from(reply.is_error()));
                reply.write(&mut self.unsent);
                None
            }
            Action::Ask(question) => {
                self.mode = Mode::Waiting;
                Some(Step::Ask(question))
            }
            Action::Forget => Some(Step::Forget),
            Action::StartTls => {
                // RFC 3207 §4.2 and CVE-2011-0411: commands that came in the clear behind
                // STARTTLS must not be taken for commands of the secured session.
                self.input.clear();
                self.mode = Mode::Waiting;
                Some(Step::StartTls)
            }
            Action::ReadData => {
                self.taken = Taken::Whole;
                let receiver = Receiver::new(self.settings.max_size);
                self.mode = Mode::Data { receiver, since: now.mono };
                None
            }
            Action::Pause(time) => Some(Step::Pause(time)),
            Action::Slow(slow) => {
                self.slow = slow;
                None
            }
            Action::Close => {
                self.mode = Mode::Closed;
                self.todo.clear();
                Some(Step::Close)
            }
        }
    }

    fn flush_or(&mut self, step: Step) -> Step {
        if self.unsent.is_empty() { step } else { Step::Send(std::mem::take(&mut self.unsent)) }
    }

    fn next_line(&mut self, now: Now) -> Option<Step> {
        let sasl = self.session.as_ref().is_some_and(Session::in_sasl);
        // RFC 4954 §4 bounds AUTH with its initial response like the lines behind it.
        let auth = self.input.as_slice().get(..5).is_some_and(|w| w.eq_ignore_ascii_case(b"AUTH "));
        let limit = if sasl || auth { Input::MAX_AUTH_LINE } else { self.limits().command_line };
        match self.input.line(limit) {
            Line::Whole { bytes, bare_lf } => {
                self.tally.commands = self.tally.commands.saturating_add(1);
                self.event(Event::Line { bytes: &bytes, bare_lf }, now);
                None
            }
            Line::TooLong => {
                self.input.clear();
                self.event(Event::LineTooLong, now);
                None
            }
            Line::Incomplete => Some(self.flush_or(Step::Read(self.limits().idle))),
        }
    }

    fn next_content(&mut self, mut receiver: Receiver, since: Instant, now: Now) -> Option<Step> {
        let mut chunk = Vec::new();
        let (used, end) = receiver.take(self.input.as_slice(), &mut chunk, limits::CHUNK);
        self.input.consume(used);
        let wanted = self.taken == Taken::Whole && !chunk.is_empty();
        let step = wanted.then_some(Step::Content(chunk));
        if let Some(end) = end {
            self.mode = Mode::Ended(end);
            return step;
        }
        self.mode = Mode::Data { receiver, since };
        if step.is_some() || used > 0 {
            return step;
        }
        let left = self.limits().data.saturating_sub(now.mono.saturating_duration_since(since));
        if left.is_zero() {
            self.event(Event::TimedOut, now);
            return None;
        }
        Some(self.flush_or(Step::Read(left.min(self.limits().idle))))
    }

    fn event(&mut self, event: Event<'_>, now: Now) {
        if let Some(session) = self.session.take() {
            let (session, actions) = session.handle(event, now);
            self.session = Some(session);
            self.todo.extend(actions);
        }
    }

    /// Bytes from the client.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    /// What was asked with [`Step::Ask`].
    pub fn answer(&mut self, answer: Answer, now: Now) {
        self.mode = Mode::Lines;
        self.event(Event::Answer(answer), now);
    }

    /// The handshake is done.
    pub fn secured(&mut self, facts: TlsFacts, now: Now) {
        self.mode = Mode::Lines;
        self.event(Event::TlsDone(facts), now);
    }

    /// The handshake failed.
    pub fn not_secured(&mut self, now: Now) {
        self.mode = Mode::Lines;
        self.event(Event::TlsFailed, now);
    }

    /// The sink lost the content; the rest of the message is read and dropped, and the answer is
    /// temporary.
    pub fn content_lost(&mut self) {
        self.taken = Taken::Lost;
    }

    /// Nothing came within the time of [`Step::Read`].
    pub fn timed_out(&mut self, now: Now) {
        self.mode = Mode::Lines;
        self.event(Event::TimedOut, now);
    }

    /// The process is to stop: at once between two commands, else behind the one under way. Call
    /// it while a [`Step::Read`] is carried out, or before the next [`Self::poll`].
    pub fn stop(&mut self, now: Now) {
        self.event(Event::Stop, now);
    }
}
