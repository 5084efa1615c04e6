//! The interfaces `Parser`, `Job` and `Facts`: decode, call, encode.

use crate::{
    Bounds, Watchdog,
    encode::{self, Pieces},
    watchdog::cpu_time,
};
use daemon::{
    Figures,
    figures::{Count, Time},
};
use ipc::{
    capnp,
    schema::parser_capnp::{self, facts, job, parser},
};
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Where jobs wait for their turn, and what the process has done so far.
pub(crate) struct Desk {
    bounds: Bounds,
    watchdog: Watchdog,
    figures: Figures,
    turn: Arc<Semaphore>,
    jobs: Cell<u32>,
    faulty: Cell<bool>,
    done: Notify,
}

impl Desk {
    pub(crate) fn new(bounds: Bounds, watchdog: Watchdog, figures: Figures) -> Self {
        Self {
            bounds,
            watchdog,
            figures,
            turn: Arc::new(Semaphore::new(1)),
            jobs: Cell::new(0),
            faulty: Cell::new(false),
            done: Notify::new(),
        }
    }

    fn is_worn_out(&self) -> bool {
        self.faulty.get()
            || self.jobs.get() >= self.bounds.jobs
            || cpu_time() >= self.bounds.cpu_of_life
    }

    /// No further job begins.
    pub(crate) fn close(&self) {
        self.turn.close();
    }

    /// Waits until the process has done its share and nothing is in hand.
    pub(crate) async fn worn_out(&self) {
        while !(self.turn.is_closed() && self.turn.available_permits() == 1) {
            self.done.notified().await;
        }
    }

    /// Waits until nothing is in hand.
    pub(crate) async fn idle(&self) {
        while self.turn.available_permits() == 0 {
            self.done.notified().await;
        }
    }

    /// Runs a step of the job in hand; a panic there is its end, and soon that of the process.
    fn step<T>(&self, step: impl FnOnce() -> T) -> Result<T, capnp::Error> {
        catch_unwind(AssertUnwindSafe(step)).map_err(|_| {
            self.faulty.set(true);
            capnp::Error::failed("the job failed".to_owned())
        })
    }
}

/// The right to be the job in hand. Its end is where the process looks at itself.
struct Turn {
    desk: Rc<Desk>,
    permit: Option<OwnedSemaphorePermit>,
    began: Instant,
    cpu_before: Duration,
}

impl Turn {
    fn allow(&self, octets: u64) {
        let mebibytes = u32::try_from(octets.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let bounds = &self.desk.bounds;
        let by_size = bounds.cpu_per_mib.saturating_mul(mebibytes);
        let end = self.cpu_before.saturating_add(bounds.cpu_per_job).saturating_add(by_size);
        self.desk.watchdog.allow_until(end);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let desk = &self.desk;
        desk.watchdog.rest();
        desk.jobs.set(desk.jobs.get() + 1);
        desk.figures.count(Count::ParserJobs);
        desk.figures.observe(Time::ParserJob, self.began.elapsed());
        if desk.is_worn_out() {
            // Before the permit is back, so that none of those who wait gets it.
            desk.turn.close();
        }
        self.permit = None;
        desk.done.notify_one();
    }
}

struct Parser(Rc<Desk>);

pub(crate) fn bootstrap(desk: Rc<Desk>) -> capnp::capability::Client {
    let client: parser::Client = ipc::new_client(Parser(desk));
    client.client
}

impl parser::Server for Parser {
    async fn job(
        self: Rc<Self>,
        _: parser::JobParams,
        mut results: parser::JobResults,
    ) -> Result<(), capnp::Error> {
        let desk = Rc::clone(&self.0);
        let permit = Arc::clone(&desk.turn).acquire_owned().await.map_err(|_| {
            // No fault of the message: it was not looked at.
            capnp::Error::overloaded("this parser is at its end, ask the next".to_owned())
        })?;
        let turn =
            Turn { permit: Some(permit), began: Instant::now(), cpu_before: cpu_time(), desk };
        turn.allow(0);
        let reading = message::Job::new(turn.desk.bounds.message);
        let in_hand = RefCell::new(Some(InHand { turn, reading, octets: 0 }));
        results.get().set_job(ipc::new_client(Job { in_hand }));
        Ok(())
    }
}

struct InHand {
    turn: Turn,
    reading: message::Job,
    octets: u64,
}

struct Job {
    in_hand: RefCell<Option<InHand>>,
}

fn over() -> capnp::Error {
    capnp::Error::failed("this job is over".to_owned())
}

impl job::Server for Job {
    async fn write(self: Rc<Self>, params: job::WriteParams) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let chunk = params.get_chunk()?;
        if chunk.len() > job::MAX_CHUNK as usize {
            return Err(capnp::Error::failed("a chunk above the bound".to_owned()));
        }
        // Taken out while it works: after a panic the job is gone.
        let in_hand = self.in_hand.borrow_mut().take().ok_or_else(over)?;
        let InHand { turn, mut reading, octets } = in_hand;
        let octets = octets + chunk.len() as u64;
        turn.allow(octets);
        let reading = turn.desk.step(move || {
            reading.push(chunk);
            reading
        })?;
        *self.in_hand.borrow_mut() = Some(InHand { turn, reading, octets });
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: job::FinishParams,
        mut results: job::FinishResults,
    ) -> Result<(), capnp::Error> {
        let InHand { turn, reading, .. } = self.in_hand.borrow_mut().take().ok_or_else(over)?;
        let pieces = turn.desk.step(move || Pieces::new(reading.finish()))?;
        results.get().set_facts(ipc::new_client(Facts { pieces, _turn: turn }));
        Ok(())
    }
}

/// The result. It keeps the turn: there is one message in memory at a time, and accountd drops this
/// when it has what it wants.
struct Facts {
    pieces: Pieces,
    _turn: Turn,
}

impl facts::Server for Facts {
    async fn summary(
        self: Rc<Self>,
        _: facts::SummaryParams,
        mut results: facts::SummaryResults,
    ) -> Result<(), capnp::Error> {
        encode::summary(&self.pieces, results.get().init_summary());
        Ok(())
    }

    async fn blob(
        self: Rc<Self>,
        params: facts::BlobParams,
        mut results: facts::BlobResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let whole = match params.get_kind()? {
            parser_capnp::Blob::Envelope => &self.pieces.envelope,
            parser_capnp::Blob::Structure => &self.pieces.structure,
            parser_capnp::Blob::Headers => self.pieces.facts.header_text.as_bytes(),
        };
        let mut to = results.get();
        to.set_data(piece(whole, params.get_offset()));
        to.set_total(whole.len() as u64);
        Ok(())
    }

    async fn text(
        self: Rc<Self>,
        params: facts::TextParams,
        mut results: facts::TextResults,
    ) -> Result<(), capnp::Error> {
        let params = params.get()?;
        let text = self.pieces.facts.texts.get(params.get_index() as usize);
        let text = text.ok_or_else(|| capnp::Error::failed("no such text".to_owned()))?;
        let mut to = results.get();
        to.set_data(piece(text.text.as_bytes(), params.get_offset()));
        to.set_total(text.text.len() as u64);
        Ok(())
    }
}

fn piece(whole: &[u8], offset: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
    let end = whole.len().min(start.saturating_add(facts::MAX_PIECE as usize));
    &whole[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_job_and_wears_the_process_out() {
        let desk = Rc::new(Desk::new(Bounds::default(), Watchdog::asleep(), Figures::detached()));
        let permit = Arc::clone(&desk.turn).try_acquire_owned().unwrap();
        let turn = Turn {
            permit: Some(permit),
            began: Instant::now(),
            cpu_before: cpu_time(),
            desk: Rc::clone(&desk),
        };
        assert!(!desk.is_worn_out());
        assert_eq!(desk.step(|| 7).unwrap(), 7);
        assert!(desk.step(|| panic!("as a fault of ours would")).is_err());
        assert!(desk.is_worn_out() && !desk.turn.is_closed());
        drop(turn);
        assert!(desk.turn.is_closed());
        assert_eq!(desk.turn.available_permits(), 1);
    }

    #[test]
    fn pieces_cover_the_whole() {
        let whole: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let mut read = Vec::new();
        while (read.len()) < whole.len() {
            let piece = piece(&whole, read.len() as u64);
            assert!(!piece.is_empty() && piece.len() <= facts::MAX_PIECE as usize);
            read.extend_from_slice(piece);
        }
        assert!(read == whole);
        assert!(piece(&whole, u64::MAX).is_empty());
    }
}
