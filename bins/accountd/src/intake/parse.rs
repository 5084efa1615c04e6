//! Has `parser` read a message, and believes nothing of what it says that does not fit the message.
//!
//! A message that ends its parser, or takes too long, gets a second try in another one, for the first
//! may have died of its neighbour; then it is opaque octets, never refused for that and never tried
//! a third time.

use super::spool::Spooled;
use crate::store::Facts;
use futures::future::LocalBoxFuture;
use ipc::{
    Line, Unavailable, capnp,
    schema::parser_capnp::{Blob, facts, job, parser, summary},
    within,
};
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::sync::Mutex;
use types::UnixNanos;

/// A job may take 2 s + 20 ms per MiB of CPU, which its parser sees to. The first try may take twice
/// that: what takes longer is a parser that hangs, or a machine so busy that the second try, which
/// may take this long, is the better one.
const FIRST: Duration = Duration::from_secs(4);
const LAST: Duration = Duration::from_secs(20);
/// On its way to the parser and back.
const PER_MIB: Duration = Duration::from_millis(200);
/// How long a call inside a job may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a parser that restarts is waited for.
const AWAY: Duration = Duration::from_secs(5);
/// The pause between two dials.
const DIAL_AGAIN: Duration = Duration::from_millis(20);
/// Octets of a message's blobs together; more makes it opaque. A session gets them in one answer, and
/// one above its bound would end the line of every session of its process, each time somebody looks
/// at the message. The most parts and addresses that a parser tells of are 3 MiB.
const MAX_BLOBS: u64 = 3_840 << 10;
/// Octets of text of one part.
const MAX_TEXT: u64 = 1 << 20;
/// Octets of text of all parts.
const MAX_TEXTS: u64 = 32 << 20;
const MAX_TEXT_PARTS: u32 = 10_000;
const MAX_ADDRESSES: u32 = 1_000;
const MAX_REFERENCES: usize = 100;
/// Octets of a Message-ID we keep.
const MAX_ID: usize = 998;
const MAX_PREVIEW: usize = 1_024;
const MAX_SUBJECT: usize = 8_192;
const TRIES: usize = 2;

/// What is known of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parsed {
    /// None: opaque.
    pub(crate) facts: Option<Facts>,
    /// No parser managed it: whether it is opaque is not known.
    pub(crate) is_unread: bool,
    pub(crate) header_length: u64,
    pub(crate) received_count: u32,
    pub(crate) from_addresses: Vec<String>,
    pub(crate) from_field_count: u32,
    pub(crate) has_date: bool,
    pub(crate) recipients: Vec<String>,
}

/// No parser answers at all: temporary, and no fault of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no parser answers")]
pub(crate) struct NoParser;

/// The parsers there are; each does one job at a time.
pub(crate) struct Parsers {
    each: Vec<One>,
    next: Cell<usize>,
}

struct One {
    line: Line<parser::Client>,
    turn: Rc<Mutex<()>>,
}

enum Tried {
    Parsed(Box<Parsed>),
    /// It died, was too slow, or said what cannot be.
    Failed,
    Away,
}

impl Parsers {
    pub(crate) fn new(lines: impl IntoIterator<Item = Line<parser::Client>>) -> Self {
        let one = |line| One { line, turn: Rc::default() };
        Self { each: lines.into_iter().map(one).collect(), next: Cell::new(0) }
    }

    /// Reads one message.
    pub(crate) async fn parse(&self, message: &Spooled) -> Result<Parsed, NoParser> {
        let mut failed = 0;
        let began = tokio::time::Instant::now();
        while failed < TRIES {
            let Some(one) = self.choose() else { return Err(NoParser) };
            let _turn = one.turn.lock().await;
            let deadline = deadline(failed, message.len());
            let tried = tokio::time::timeout(deadline, job(&one.line, message)).await;
            match tried {
                Ok(Tried::Parsed(parsed)) => return Ok(*parsed),
                Ok(Tried::Failed) | Err(_) => {
                    failed += 1;
                    tracing::warn!(failed, size = message.len(), "a parser failed on a message");
                }
                Ok(Tried::Away) if began.elapsed() < AWAY => {
                    // It is always restarted at once; dialling waits for that. Only a dial that
                    // fails without waiting comes here at once.
                    tokio::time::sleep(DIAL_AGAIN).await;
                }
                Ok(Tried::Away) => return Err(NoParser),
            }
        }
        Ok(Parsed { is_unread: true, ..Parsed::default() })
    }

    /// An idle one, else the next in turn.
    fn choose(&self) -> Option<&One> {
        let start = self.next.get();
        self.next.set(start.wrapping_add(1));
        let count = self.each.len();
        let at = |n: usize| self.each.get((start.wrapping_add(n)) % count.max(1));
        (0..count).filter_map(at).find(|one| one.turn.try_lock().is_ok()).or_else(|| at(0))
    }
}

/// How long a try may take after so many that failed.
fn deadline(failed: usize, size: u64) -> Duration {
    let mib = u32::try_from(size >> 20).unwrap_or(u32::MAX);
    let base = if failed == 0 { FIRST } else { LAST };
    base.saturating_add(PER_MIB.saturating_mul(mib))
}

async fn job(line: &Line<parser::Client>, message: &Spooled) -> Tried {
    let parser = match line.client().await {
        Ok(parser) => parser,
        Err(Unavailable::Away | Unavailable::OtherBuild | Unavailable::Late) => return Tried::Away,
        Err(Unavailable::Broken) => return Tried::Away,
    };
    match run(&parser, message).await {
        Ok(parsed) => Tried::Parsed(Box::new(parsed)),
        // At its planned end: it has not looked at the message, which is not to pay for that.
        Err(error) if error.kind == capnp::ErrorKind::Overloaded => Tried::Away,
        Err(error) => {
            tracing::warn!(%error, "a parser job did not come to its end");
            Tried::Failed
        }
    }
}

async fn call<T>(call: impl Future<Output = Result<T, capnp::Error>>) -> Result<T, capnp::Error> {
    within(CALL, call).await.map_err(|why| capnp::Error::failed(why.to_string()))
}

/// A piece of something, and how long all of it is.
type Piece = (Vec<u8>, u64);

/// A question that was sent, and its answer when it comes.
type Asking = LocalBoxFuture<'static, Result<Piece, capnp::Error>>;

/// What nearly every message needs, asked for before anything is known of it.
struct Asked {
    headers: Asking,
    envelope: Asking,
    structure: Asking,
    first_text: Asking,
}

async fn run(parser: &parser::Client, message: &Spooled) -> Result<Parsed, capnp::Error> {
    let mut request = parser.job_request();
    request.get().set_size_hint(message.len());
    // Calls go to objects that are still to come, so that a usual message is one question and one
    // answer: with an answer for each step the parser would wait for us most of the time.
    // A parser that still works at another's job answers later; the whole job has its deadline.
    let started = request.send();
    let job: job::Client = started.pipeline.get_job();
    let mut offset = 0;
    while offset < message.len() {
        let piece = message.read(offset).map_err(|e| capnp::Error::failed(e.to_string()))?;
        offset += piece.len() as u64;
        let mut request = job.write_request();
        request.get().set_chunk(&piece);
        request.send().await?;
    }
    let finished = job.finish_request().send();
    let facts: facts::Client = finished.pipeline.get_facts();
    let summary = facts.summary_request().send().promise;
    let asked = Asked {
        headers: ask_blob(&facts, Blob::Headers, 0),
        envelope: ask_blob(&facts, Blob::Envelope, 0),
        structure: ask_blob(&facts, Blob::Structure, 0),
        first_text: ask_text(&facts, 0, 0),
    };
    started.promise.await?;
    finished.promise.await?;
    let response = call(summary).await?;
    let summary = response.get()?.get_summary()?;
    if summary.get_size() != message.len() {
        return Err(lie("another size"));
    }
    read(&facts, summary, asked).await
}

fn lie(what: &str) -> capnp::Error {
    capnp::Error::failed(format!("parser says what cannot be: {what}"))
}

async fn read(
    facts: &facts::Client,
    summary: summary::Reader<'_>,
    asked: Asked,
) -> Result<Parsed, capnp::Error> {
    let size = summary.get_size();
    let header_length = summary.get_header_length();
    if header_length > size {
        return Err(lie("a header longer than the message"));
    }
    let parsed = Parsed {
        is_unread: false,
        facts: None,
        header_length,
        received_count: summary.get_received_count(),
        from_addresses: texts(summary.get_from_addresses()?)?,
        from_field_count: summary.get_from_field_count(),
        has_date: summary.get_has_date(),
        recipients: texts(summary.get_recipients()?)?,
    };
    if summary.get_opaque() {
        return Ok(parsed);
    }
    let preview = summary.get_preview()?.to_str()?;
    let base_subject = summary.get_subject_base()?.to_str()?;
    let message_id = summary.get_message_id()?.to_str()?;
    let references = texts(summary.get_references()?)?;
    let first_kept = references.len().saturating_sub(MAX_REFERENCES);
    let mut room = MAX_BLOBS;
    let headers = blob(facts, Blob::Headers, asked.headers.await?, &mut room).await?;
    let facts = Facts {
        sent: summary.get_has_date().then(|| UnixNanos(summary.get_sent_unix_ns())),
        envelope: blob(facts, Blob::Envelope, asked.envelope.await?, &mut room).await?,
        body_structure: blob(facts, Blob::Structure, asked.structure.await?, &mut room).await?,
        sections: Vec::new(),
        header_text: String::from_utf8_lossy(&headers).into_owned(),
        headers,
        preview: Some(cut(preview, MAX_PREVIEW)),
        message_id: Some(message_id.to_owned()).filter(|id| (1..=MAX_ID).contains(&id.len())),
        references: references.into_iter().skip(first_kept).collect(),
        base_subject: cut(base_subject, MAX_SUBJECT),
        is_response: summary.get_is_response(),
        is_dsn: summary.get_is_dsn(),
        body_text: body_text(facts, summary.get_text_parts(), asked.first_text).await?,
        recipients: parsed.recipients.iter().filter_map(|text| recipient(text)).collect(),
    };
    Ok(Parsed { facts: Some(facts), ..parsed })
}

/// At most `max` octets of a text, whole characters.
fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

fn recipient(text: &str) -> Option<crate::store::Recipient> {
    let address: types::Address = text.parse().ok()?;
    Some(super::recipients::stored(&address))
}

fn texts(list: capnp::text_list::Reader<'_>) -> Result<Vec<String>, capnp::Error> {
    if list.len() > MAX_ADDRESSES {
        return Err(lie("a list that is too long"));
    }
    let mut out = Vec::new();
    for text in list {
        let text = text?.to_str()?;
        if text.len() <= MAX_ID {
            out.push(text.to_owned());
        }
    }
    Ok(out)
}

/// Reads the rest of something in pieces; `total` may not change on the way, nor pass the bound.
async fn pieces(
    max: u64,
    first: Piece,
    mut next: impl AsyncFnMut(u64) -> Result<Piece, capnp::Error>,
) -> Result<Vec<u8>, capnp::Error> {
    let (mut out, total) = first;
    if total > max {
        return Err(lie("more than is kept"));
    }
    while (out.len() as u64) < total {
        let (piece, again) = next(out.len() as u64).await?;
        if piece.is_empty() || again != total {
            return Err(lie("a total that changes"));
        }
        out.extend_from_slice(&piece);
    }
    if out.len() as u64 == total { Ok(out) } else { Err(lie("more than its total")) }
}

/// Asks at once; the answer is waited for later.
fn ask_blob(facts: &facts::Client, kind: Blob, offset: u64) -> Asking {
    let mut request = facts.blob_request();
    request.get().set_kind(kind);
    request.get().set_offset(offset);
    let promise = request.send().promise;
    Box::pin(async move {
        let response = call(promise).await?;
        let response = response.get()?;
        Ok((response.get_data()?.to_vec(), response.get_total()))
    })
}

/// As [`ask_blob`].
fn ask_text(facts: &facts::Client, index: u32, offset: u64) -> Asking {
    let mut request = facts.text_request();
    request.get().set_index(index);
    request.get().set_offset(offset);
    let promise = request.send().promise;
    Box::pin(async move {
        let response = call(promise).await?;
        let response = response.get()?;
        Ok((response.get_data()?.to_vec(), response.get_total()))
    })
}

/// Takes what it reads from `room`.
async fn blob(
    facts: &facts::Client,
    kind: Blob,
    first: Piece,
    room: &mut u64,
) -> Result<Vec<u8>, capnp::Error> {
    let whole = pieces(*room, first, async |offset| ask_blob(facts, kind, offset).await).await?;
    *room = room.saturating_sub(whole.len() as u64);
    Ok(whole)
}

async fn body_text(
    facts: &facts::Client,
    parts: u32,
    first: Asking,
) -> Result<Vec<String>, capnp::Error> {
    if parts > MAX_TEXT_PARTS {
        return Err(lie("too many texts"));
    }
    let mut out = Vec::new();
    let mut left = MAX_TEXTS;
    let mut first = Some(first);
    for index in 0..parts {
        let piece = match first.take() {
            Some(first) => first.await?,
            None => ask_text(facts, index, 0).await?,
        };
        let octets =
            pieces(MAX_TEXT.min(left), piece, async |offset| ask_text(facts, index, offset).await)
                .await?;
        left = left.saturating_sub(octets.len() as u64);
        out.push(String::from_utf8(octets).map_err(|_| lie("a text that is no UTF-8"))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::{Limits, Role, memory_edge};
    use std::cell::RefCell;

    /// What a parser that was taken over might say.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Lie {
        None,
        Size,
        Header,
        Texts,
        NoUtf8,
        TotalChanges,
        Endless,
        TooMuch,
        NoAnswer,
        /// None: it is at its planned end, and the fifth one after it is not.
        AtItsEnd,
        Hangs,
    }

    struct Liar(Lie, Rc<Cell<u32>>);

    struct LiarsJob(Lie, RefCell<u64>);

    struct LiarsFacts(Lie, u64);

    impl parser::Server for Liar {
        async fn job(
            self: Rc<Self>,
            _: parser::JobParams,
            mut results: parser::JobResults,
        ) -> Result<(), capnp::Error> {
            self.1.set(self.1.get() + 1);
            if self.0 == Lie::AtItsEnd && self.1.get() < 5 {
                return Err(capnp::Error::overloaded("ask the next".into()));
            }
            results.get().set_job(ipc::new_client(LiarsJob(self.0, RefCell::new(0))));
            Ok(())
        }
    }

    impl job::Server for LiarsJob {
        async fn write(self: Rc<Self>, params: job::WriteParams) -> Result<(), capnp::Error> {
            *self.1.borrow_mut() += params.get()?.get_chunk()?.len() as u64;
            Ok(())
        }

        async fn finish(
            self: Rc<Self>,
            _: job::FinishParams,
            mut results: job::FinishResults,
        ) -> Result<(), capnp::Error> {
            if self.0 == Lie::Hangs {
                std::future::pending::<()>().await;
            }
            let size = *self.1.borrow();
            results.get().set_facts(ipc::new_client(LiarsFacts(self.0, size)));
            Ok(())
        }
    }

    impl facts::Server for LiarsFacts {
        async fn summary(
            self: Rc<Self>,
            _: facts::SummaryParams,
            mut results: facts::SummaryResults,
        ) -> Result<(), capnp::Error> {
            let Self(lie, size) = *self;
            let mut to = results.get().init_summary();
            to.set_size(if lie == Lie::Size { size + 1 } else { size });
            to.set_header_length(if lie == Lie::Header { size + 1 } else { size });
            to.set_text_parts(if lie == Lie::Texts { u32::MAX } else { 1 });
            to.set_preview("é".repeat(2_000).as_str());
            to.set_message_id("x".repeat(5_000).as_str());
            Ok(())
        }

        async fn blob(
            self: Rc<Self>,
            params: facts::BlobParams,
            mut results: facts::BlobResults,
        ) -> Result<(), capnp::Error> {
            let offset = params.get()?.get_offset();
            let mut to = results.get();
            let total = match self.0 {
                Lie::TotalChanges => 10 + offset,
                Lie::TooMuch => u64::MAX,
                Lie::Endless => 10,
                Lie::None
                | Lie::Size
                | Lie::Header
                | Lie::Texts
                | Lie::NoUtf8
                | Lie::NoAnswer
                | Lie::AtItsEnd
                | Lie::Hangs => 2,
            };
            to.set_total(total);
            to.set_data(if self.0 == Lie::Endless { b"" } else { b"ab" });
            Ok(())
        }

        async fn text(
            self: Rc<Self>,
            _: facts::TextParams,
            mut results: facts::TextResults,
        ) -> Result<(), capnp::Error> {
            if self.0 == Lie::NoAnswer {
                return Err(capnp::Error::failed("gone".into()));
            }
            results.get().set_total(2);
            results.get().set_data(if self.0 == Lie::NoUtf8 { b"\xff\xfe" } else { b"ok" });
            Ok(())
        }
    }

    async fn parse(lie: Lie) -> (Parsed, u32) {
        let (dialer, mut acceptor) = memory_edge(Role::Accountd, 0);
        let jobs = Rc::new(Cell::new(0));
        let counted = Rc::clone(&jobs);
        tokio::task::spawn_local(async move {
            while let Some(ipc::Incoming::Rpc(stream)) = acceptor.accept().await {
                let liar: parser::Client = ipc::new_client(Liar(lie, Rc::clone(&counted)));
                tokio::task::spawn_local(ipc::serve(stream, liar.client, Limits::default()));
            }
        });
        let parsers = Parsers::new([Line::new(dialer, Limits::default())]);
        let message = Spooled::of(b"A: b\r\n\r\ntext\r\n".to_vec());
        (parsers.parse(&message).await.unwrap(), jobs.get())
    }

    #[test]
    fn a_parser_at_its_planned_end_costs_the_message_no_try() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (parsed, jobs) = parse(Lie::AtItsEnd).await;
            assert!(parsed.facts.is_some());
            assert_eq!(jobs, 5);
        });
    }

    #[test]
    fn a_parser_that_hangs_is_left_soon() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let began = tokio::time::Instant::now();
            let (parsed, jobs) = parse(Lie::Hangs).await;
            assert!(parsed.facts.is_none() && parsed.is_unread, "no fault of the message");
            assert_eq!((jobs, began.elapsed().as_secs()), (2, (FIRST + LAST).as_secs()));
        });
        // A large message has the time it needs; a small one is not kept waiting.
        assert_eq!(deadline(0, 1_000), FIRST);
        assert_eq!(deadline(0, 100 << 20), FIRST + Duration::from_secs(20));
        assert_eq!(deadline(1, 1_000), LAST);
    }

    #[test]
    fn what_does_not_fit_the_message_is_not_believed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (parsed, jobs) = parse(Lie::None).await;
            let facts = parsed.facts.unwrap();
            assert_eq!(jobs, 1);
            assert_eq!((facts.envelope.as_slice(), facts.body_text.len()), (&b"ab"[..], 1));
            assert_eq!(facts.preview.unwrap().len(), MAX_PREVIEW);
            assert_eq!(facts.message_id, None);
            for lie in [
                Lie::Size,
                Lie::Header,
                Lie::Texts,
                Lie::NoUtf8,
                Lie::TotalChanges,
                Lie::Endless,
                Lie::TooMuch,
                Lie::NoAnswer,
            ] {
                let (parsed, jobs) = parse(lie).await;
                assert!(parsed.facts.is_none(), "{lie:?}");
                assert_eq!((parsed.header_length, jobs), (0, 2), "{lie:?}");
            }
        });
    }
}
