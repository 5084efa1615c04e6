//! One session: moves octets between the relay and the machine, and its questions to accountd.
//!
//! While it is idle it holds the machine, the ticket and a few references, and no buffer: what is
//! heavy runs in boxed futures that are gone when a command is over.

use super::{
    Shared,
    account::{Link, Trouble},
    calls,
    content::{self, Appending, Streamed},
};
use crate::front::HandOver;
use imap::{
    Event, Limits, Out, Piece, Reader,
    session::{Next, Session},
};
use message::transfer::Decoder;
use net::{WriteError, write_within};
use std::{io, rc::Rc, time::Duration};
use tokio::{
    io::Interest,
    net::UnixStream,
    time::{Instant, sleep_until},
};

/// A ticket lives for ten minutes (architecture §2).
const RENEW: Duration = Duration::from_secs(300);
/// The next try when accountd was away.
const RENEW_AGAIN: Duration = Duration::from_secs(20);
/// Tries to find accountd again, first and longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How soon a client is missed that sent more commands before it hung up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Output gathered between two questions before it is sent.
const GATHER: usize = 32 * 1024;

/// Why a session ends. Each has been said to the client where that makes sense.
#[derive(Debug)]
enum Over {
    /// The client is gone, or does not read.
    Client,
    /// The client was told.
    Said,
    /// The ticket is refused.
    Refused,
    /// A literal cannot be finished.
    Torn,
}

impl From<Trouble> for Over {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused => Self::Refused,
            Trouble::Away | Trouble::MailboxGone => Self::Torn,
        }
    }
}

impl From<WriteError> for Over {
    fn from(_: WriteError) -> Self {
        Self::Client
    }
}

struct Connection {
    shared: Rc<Shared>,
    socket: UnixStream,
    session: Session,
    reader: Reader,
    link: Link,
    out: Out,
    pending: Vec<u8>,
    appending: Option<Appending>,
    renew_at: Instant,
    retry: Option<(Instant, Duration)>,
    heard_at: Instant,
}

/// What there is to do.
enum Woke {
    Readable,
    Word,
    Renew,
    Retry,
    Late,
    Drain,
}

pub(super) async fn run(shared: &Rc<Shared>, about: HandOver, socket: UnixStream) {
    let session_id = about.peer.session;
    tracing::info!(
        session = %session_id,
        login = about.login,
        sasl = about.authenticate,
        "a connection came over"
    );
    let now = Instant::now();
    let mut link = Link::new(shared, about.peer, about.ticket);
    let limits = &shared.limits;
    let most = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let reader = Reader::new(Limits {
        line: most(limits.line),
        literal: limits.literal.into(),
        command: most(limits.literals_total).saturating_add(most(limits.line)),
        literals: most(limits.literals),
        message: limits.append,
    });
    let mut out = Out::new();
    // Redeemed before the log-in is answered: OK means that there is an account.
    let redeemed = Box::pin(link.account()).await;
    let session = Session::new(limits.append, link.modseq());
    let mut connection = Connection {
        shared: Rc::clone(shared),
        socket,
        session,
        reader,
        link,
        out: Out::new(),
        pending: about.buffered,
        appending: None,
        renew_at: now + RENEW,
        retry: None,
        heard_at: now,
    };
    let over = match redeemed {
        Ok(_) => {
            connection.session.logged_in(&about.tag, &mut out);
            connection.out = out;
            match connection.go_on().await {
                Ok(never) => match never {},
                Err(over) => over,
            }
        }
        Err(trouble) => {
            connection.out.status(
                Some(&about.tag),
                imap::Condition::No,
                Some(&imap::ResponseCode::Unavailable),
                "try again later",
            );
            connection.out.text("* BYE try again later\r\n");
            let _ = connection.flush().await;
            trouble.into()
        }
    };
    if let Over::Refused = over {
        connection.out.text("* BYE you have to log in again\r\n");
        let _ = connection.flush().await;
    }
    tracing::info!(session = %session_id, ?over, "session is over");
}

/// There is no way out of a session but its end.
enum Never {}

impl Connection {
    async fn go_on(&mut self) -> Result<Never, Over> {
        let mut next = Next::Read;
        loop {
            next = match next {
                Next::Ask(question) => {
                    if self.out.len() > GATHER || self.out.has_content() {
                        Box::pin(self.flush()).await?;
                    }
                    // What only reads is done for nobody when the client is gone.
                    let in_vain = question.only_reads();
                    let asked = calls::ask(&mut self.link, &mut self.appending, question);
                    let answer = tokio::select! {
                        biased;
                        answer = Box::pin(asked) => answer?,
                        () = hung_up(&self.socket), if in_vain => return Err(Over::Client),
                    };
                    self.session.answer(answer, &mut self.out)
                }
                Next::Flush => {
                    Box::pin(self.flush()).await?;
                    // A client that reads fast never makes the socket wait.
                    tokio::task::yield_now().await;
                    self.session.sent(&mut self.out)
                }
                Next::Message(true) => {
                    if self.reader.accept_message() {
                        self.out.text("+ ready\r\n");
                    }
                    Next::Read
                }
                Next::Message(false) => {
                    self.reader.refuse_message();
                    Next::Read
                }
                Next::Read => self.read(false).await?,
                Next::Idle => self.read(true).await?,
                Next::Close => {
                    Box::pin(self.flush()).await?;
                    return Err(Over::Said);
                }
            };
        }
    }

    /// Reads until there is something to do.
    async fn read(&mut self, idle: bool) -> Result<Next, Over> {
        self.link.ahead = None;
        if let Some(modseq) = self.session.applied() {
            self.link.applied(modseq);
        }
        self.reader.set_names(self.session.names());
        if idle {
            self.reader.expect_line();
        }
        loop {
            let mut input = self.pending.as_slice();
            let event = self.reader.feed(&mut input);
            let used = self.pending.len() - input.len();
            self.pending.drain(..used);
            if self.pending.is_empty() {
                self.pending = Vec::new();
            }
            let out = &mut self.out;
            match event {
                Event::More => {
                    if !self.out.is_empty() {
                        Box::pin(self.flush()).await?;
                    }
                    if let Some(next) = self.wait(idle).await? {
                        return Ok(next);
                    }
                }
                Event::Continue => out.text("+ ready\r\n"),
                Event::Command(frame) => {
                    return Ok(match imap::parse(&frame, self.session.names()) {
                        Ok(command) => self.session.command(command, out),
                        Err(error) => {
                            let tag = imap::tag_of(&frame);
                            self.session.syntax_error(tag.as_ref(), error.0, out)
                        }
                    });
                }
                Event::Line(line) => return Ok(self.session.line(&line, out)),
                Event::Append(append) => return Ok(self.session.append(append, out)),
                Event::Message(octets) => Box::pin(self.pass_on(&octets)).await,
                Event::MessageEnd => return Ok(self.session.message_end(out)),
                Event::Refused(refusal) => {
                    // What was begun with accountd and not committed never happened.
                    self.appending = None;
                    return Ok(self.session.refused(&refusal, out));
                }
            }
        }
    }

    async fn pass_on(&mut self, octets: &[u8]) {
        let Some(appending) = &mut self.appending else { return };
        if let Err(trouble) = appending.write(octets).await {
            tracing::debug!(?trouble, "an APPEND broke off");
            self.appending = None;
            self.session.message_failed();
        }
    }

    /// Waits for the client, for accountd, or for time to pass.
    async fn wait(&mut self, idle: bool) -> Result<Option<Next>, Over> {
        if !self.link.is_live() && self.retry.is_none() {
            self.retry = Some((Instant::now(), FIRST_PAUSE));
        }
        let late_at = self.heard_at + self.shared.limits.idle;
        let retry_at = self.retry.map(|(at, _)| at);
        let timer = [Some(self.renew_at), retry_at, Some(late_at)].into_iter().flatten().min();
        let timer = timer.unwrap_or(late_at);
        let woke = tokio::select! {
            biased;
            _ = self.shared.stop.draining(), if !self.reader.inside_command() => Woke::Drain,
            readable = self.socket.readable() => match readable {
                Ok(()) => Woke::Readable,
                Err(_) => return Err(Over::Client),
            },
            () = self.link.word.said.notified() => Woke::Word,
            () = sleep_until(timer) => {
                if timer == late_at { Woke::Late }
                else if Some(timer) == retry_at { Woke::Retry }
                else { Woke::Renew }
            }
        };
        match woke {
            Woke::Readable => {
                self.take_in()?;
                Ok(None)
            }
            Woke::Word => {
                if let Some(why) = self.link.revoked() {
                    tracing::info!(why, "a right was taken back");
                    return Err(Over::Refused);
                }
                Ok(self.told(idle))
            }
            Woke::Renew => {
                match Box::pin(self.link.renew()).await {
                    Ok(()) => self.renew_at = Instant::now() + RENEW,
                    Err(Trouble::Refused) => return Err(Over::Refused),
                    Err(Trouble::Away | Trouble::MailboxGone) => {
                        self.renew_at = Instant::now() + RENEW_AGAIN;
                    }
                }
                Ok(None)
            }
            Woke::Retry => {
                // accountd was restarted: find it again, so that IDLE hears of new mail.
                match Box::pin(self.link.account()).await {
                    Ok(_) => {
                        self.retry = None;
                        return Ok(self.told(idle));
                    }
                    Err(Trouble::Refused) => return Err(Over::Refused),
                    Err(Trouble::Away | Trouble::MailboxGone) => {
                        let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| pause);
                        let longer = (pause * 2).min(LONGEST_PAUSE);
                        self.retry = Some((Instant::now() + pause, longer));
                    }
                }
                Ok(None)
            }
            Woke::Late => {
                self.out.text("* BYE you were silent for too long\r\n");
                Box::pin(self.flush()).await?;
                Err(Over::Said)
            }
            Woke::Drain => {
                self.out.text("* BYE shutting down\r\n");
                Box::pin(self.flush()).await?;
                Err(Over::Said)
            }
        }
    }

    /// Tells the machine how far the account is. None: nothing comes of it.
    fn told(&mut self, idle: bool) -> Option<Next> {
        let next = self.session.changed(self.link.modseq(), &mut self.out);
        let quiet = if idle { Next::Idle } else { Next::Read };
        (next != quiet).then_some(next)
    }

    /// Reads what there is.
    fn take_in(&mut self) -> Result<(), Over> {
        let mut scratch = self.shared.scratch.borrow_mut();
        match self.socket.try_read(&mut scratch) {
            Ok(0) => Err(Over::Client),
            Ok(count) => {
                self.pending.extend_from_slice(scratch.get(..count).unwrap_or_default());
                self.heard_at = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Over::Client),
        }
    }

    /// Sends what there is, content of messages streamed from accountd.
    async fn flush(&mut self) -> Result<(), Over> {
        for piece in self.out.take() {
            match piece {
                Piece::Bytes(bytes) => {
                    write_within(&mut self.socket, &bytes, self.shared.limits.write).await?;
                }
                Piece::Content { uid, from, to, binary } => {
                    let open = self.link.mailbox().await?;
                    let (socket, patience) = (&mut self.socket, self.shared.limits.write);
                    let each = async |chunk: &[u8]| {
                        let chunk = if binary { chunk.into() } else { imap::without_nul(chunk) };
                        write_within(socket, &chunk, patience).await.map_err(Over::from)
                    };
                    match content::stream(&open.client, uid, (from, to), each).await? {
                        Streamed::Whole => {}
                        // The literal was announced: only the end of the connection is left.
                        Streamed::Missing => return Err(Over::Torn),
                    }
                }
                Piece::Decoded { uid, from, to, encoding, skip, length } => {
                    let open = self.link.mailbox().await?;
                    let (socket, patience) = (&mut self.socket, self.shared.limits.write);
                    let mut decoder = Decoder::new(encoding);
                    let mut window = Window { skip, left: length };
                    let each = async |chunk: &[u8]| {
                        let mut decoded = Vec::new();
                        decoder.push(chunk, &mut decoded);
                        write_within(socket, window.cut(&decoded), patience)
                            .await
                            .map_err(Over::from)
                    };
                    match content::stream(&open.client, uid, (from, to), each).await? {
                        Streamed::Whole => {}
                        Streamed::Missing => return Err(Over::Torn),
                    }
                    let mut decoded = Vec::new();
                    decoder.finish(&mut decoded);
                    write_within(&mut self.socket, window.cut(&decoded), patience).await?;
                    if window.left > 0 {
                        return Err(Over::Torn);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Ends when the other side has hung up, whatever it sent before that.
async fn hung_up(socket: &UnixStream) {
    loop {
        match socket.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_AGAIN).await,
            Ok(_) | Err(_) => return,
        }
    }
}

/// The octets of a decoded part that were asked for.
struct Window {
    skip: u64,
    left: u64,
}

impl Window {
    fn cut<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let length = |octets: &[u8]| u64::try_from(octets.len()).unwrap_or(u64::MAX);
        let skipped = self.skip.min(length(octets));
        self.skip -= skipped;
        let rest = octets.get(usize::try_from(skipped).unwrap_or(usize::MAX)..).unwrap_or_default();
        let taken = self.left.min(length(rest));
        self.left -= taken;
        rest.get(..usize::try_from(taken).unwrap_or(usize::MAX)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_over_chunks() {
        let all: Vec<u8> = (0..100).collect();
        for size in [1, 3, 7, 100] {
            let mut window = Window { skip: 10, left: 25 };
            let cut: Vec<u8> =
                all.chunks(size).flat_map(|chunk| window.cut(chunk).to_vec()).collect();
            assert_eq!(cut, all[10..35]);
            assert_eq!((window.skip, window.left), (0, 0));
        }
    }
}
