//! Jobs over an in-memory edge, as accountd gives them.

#![expect(clippy::unwrap_used, reason = "this is a test from top to bottom")]

use ::parser::{Bounds, Grants, Watchdog};
use daemon::{Figures, Stop, Stopper, figures::Count};
use ipc::{
    Limits, Line, Role,
    capnp::Error,
    memory_edge,
    schema::parser_capnp::{Blob, facts, job, parser as served},
};
use message::{Envelope, Structure, poison};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, LocalSet},
};

const MESSAGE: &[u8] = b"From: Ann <ann@a.test>, =?utf-8?q?J=C3=B6rg?= <not an address>\r\n\
    To: bob@b.test\r\nSubject: Re: =?utf-8?q?gr=C3=BCn?=\r\nMessage-ID: <M@A.test>\r\n\
    References: <r@a.test>\r\nDate: Fri, 21 Nov 1997 09:55:06 -0600\r\nReceived: x\r\n\
    Content-Type: text/html\r\n\r\n<p>Hello</p>\r\n";

struct Tree {
    line: Line<served::Client>,
    figures: Figures,
    stopper: Stopper,
    process: JoinHandle<()>,
}

async fn tree(bounds: Bounds) -> Tree {
    let (dialer, acceptor) = memory_edge(Role::Accountd, 0);
    let (clients, receiver) = mpsc::channel(1);
    clients.send(acceptor).await.unwrap();
    let (stopper, stop) = Stop::new();
    let figures = Figures::detached();
    let grants = Grants { clients: receiver, figures, stop };
    let process = tokio::task::spawn_local(async move {
        ::parser::run(grants, bounds, Watchdog::asleep()).await;
        drop(clients);
    });
    Tree { line: Line::new(dialer, Limits::default()), figures, stopper, process }
}

async fn begin(line: &Line<served::Client>) -> Result<job::Client, Error> {
    let client = line.client().await.map_err(|e| Error::failed(e.to_string()))?;
    client.job_request().send().promise.await?.get()?.get_job()
}

async fn read(line: &Line<served::Client>, message: &[u8]) -> Result<facts::Client, Error> {
    let job = begin(line).await?;
    for chunk in message.chunks(job::MAX_CHUNK as usize) {
        let mut request = job.write_request();
        request.get().set_chunk(chunk);
        request.send().await?;
    }
    job.finish_request().send().promise.await?.get()?.get_facts()
}

async fn blob(facts: &facts::Client, kind: Blob) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let mut request = facts.blob_request();
        request.get().set_kind(kind);
        request.get().set_offset(whole.len() as u64);
        let answer = request.send().promise.await.unwrap();
        let answer = answer.get().unwrap();
        let piece = answer.get_data().unwrap();
        assert!(piece.len() <= facts::MAX_PIECE as usize);
        whole.extend_from_slice(piece);
        if whole.len() as u64 >= answer.get_total() {
            return whole;
        }
        assert!(!piece.is_empty());
    }
}

fn within(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(50), test).await.expect("it takes too long");
    });
}

#[test]
fn a_message_goes_in_and_facts_come_out() {
    within(async {
        let tree = tree(Bounds::default()).await;
        let facts = read(&tree.line, MESSAGE).await.unwrap();
        let answer = facts.summary_request().send().promise.await.unwrap();
        let summary = answer.get().unwrap().get_summary().unwrap();
        assert_eq!(summary.get_size(), MESSAGE.len() as u64);
        assert_eq!(summary.get_header_length(), MESSAGE.len() as u64 - 14);
        assert_eq!(summary.get_lines(), 10);
        assert!(!summary.get_opaque());
        assert_eq!(summary.get_sent_unix_ns(), 880_127_706_000_000_000);
        assert!(summary.get_has_date());
        assert_eq!(summary.get_message_id().unwrap(), "m@a.test");
        assert_eq!(summary.get_references().unwrap().get(0).unwrap(), "r@a.test");
        assert_eq!(summary.get_subject_base().unwrap(), "grün");
        assert!(summary.get_is_response() && !summary.get_is_dsn());
        let from = summary.get_from_addresses().unwrap();
        assert_eq!(from.len(), 2);
        assert_eq!(from.get(0).unwrap(), "ann@a.test");
        assert_eq!((summary.get_from_field_count(), summary.get_received_count()), (1, 1));
        assert_eq!(summary.get_preview().unwrap(), "Hello");
        assert_eq!((summary.get_text_parts(), summary.get_parts()), (1, 1));
        assert_eq!(summary.get_recipients().unwrap().get(0).unwrap(), "bob@b.test");

        let structure = Structure::decode(&blob(&facts, Blob::Structure).await).unwrap();
        assert!(structure.parts[0].media.is("text", Some("html")));
        let envelope = Envelope::decode(&blob(&facts, Blob::Envelope).await).unwrap();
        assert_eq!(envelope.decoded_subject(), "Re: grün");
        let headers = String::from_utf8(blob(&facts, Blob::Headers).await).unwrap();
        assert!(headers.contains("Subject: Re: grün\n"), "{headers}");
        let answer = facts.text_request().send().promise.await.unwrap();
        assert_eq!(answer.get().unwrap().get_data().unwrap(), b"Hello");
        let mut request = facts.text_request();
        request.get().set_index(1);
        assert!(request.send().promise.await.is_err());
    });
}

#[test]
fn one_at_a_time_and_the_next_when_it_is_dropped() {
    within(async {
        let tree = tree(Bounds::default()).await;
        let first = read(&tree.line, MESSAGE).await.unwrap();
        let line = tree.line.clone();
        let second = tokio::task::spawn_local(async move { read(&line, MESSAGE).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
        // A job that is dropped half-way gives its turn back too.
        drop(begin(&tree.line).await.unwrap());
        read(&tree.line, MESSAGE).await.unwrap();
    });
}

#[test]
fn a_job_keeps_to_its_words() {
    within(async {
        let tree = tree(Bounds::default()).await;
        let job = begin(&tree.line).await.unwrap();
        let mut request = job.write_request();
        request.get().set_chunk(&vec![b'x'; job::MAX_CHUNK as usize + 1]);
        let too_long = request.send().await;
        let finished = job.finish_request().send().promise.await;
        // A failed write of a stream fails the calls behind it.
        assert!(too_long.is_err() || finished.is_err());
        drop((job, finished));
        let job = begin(&tree.line).await.unwrap();
        job.finish_request().send().promise.await.unwrap();
        assert!(job.finish_request().send().promise.await.is_err());
    });
}

#[test]
fn it_ends_after_its_share_and_says_so_to_those_who_wait() {
    within(async {
        let tree = tree(Bounds { jobs: 2, ..Bounds::default() }).await;
        read(&tree.line, MESSAGE).await.unwrap();
        let second = read(&tree.line, MESSAGE).await.unwrap();
        let line = tree.line.clone();
        let third = tokio::task::spawn_local(async move { read(&line, MESSAGE).await.is_ok() });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!tree.process.is_finished());
        drop(second);
        tree.process.await.unwrap();
        assert!(!third.await.unwrap());
        assert_eq!(tree.figures.value(Count::ParserJobs), 2);
    });
}

#[test]
fn it_finishes_the_job_in_hand_when_it_is_to_stop() {
    within(async {
        let tree = tree(Bounds::default()).await;
        let job = begin(&tree.line).await.unwrap();
        tree.stopper.drain(Duration::from_secs(10));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!tree.process.is_finished());
        assert!(begin(&tree.line).await.is_err());
        let answer = job.finish_request().send().promise.await.unwrap();
        let facts = answer.get().unwrap().get_facts().unwrap();
        assert!(facts.summary_request().send().promise.await.is_ok());
        // The answer holds the facts too.
        drop((job, answer, facts));
        tree.process.await.unwrap();
    });
}

#[test]
fn hostile_messages_pass_the_edge_within_its_bounds() {
    within(async {
        let tree = tree(Bounds::default()).await;
        for poison in poison::ALL {
            let mut message = poison.message();
            message.truncate(400 << 10);
            let facts = read(&tree.line, &message).await.unwrap();
            let answer = facts.summary_request().send().promise.await;
            let size = answer.as_ref().map(|a| a.get().unwrap().get_summary().unwrap().get_size());
            assert_eq!(size.ok(), Some(message.len() as u64), "{}", poison.name);
            let structure = Structure::decode(&blob(&facts, Blob::Structure).await).unwrap();
            assert!(structure.sections().fits(message.len() as u64, &message::Limits::default()));
            Envelope::decode(&blob(&facts, Blob::Envelope).await).unwrap();
        }
    });
}

/// What this process has written to and nobody could drop, in KiB.
fn kibibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The longest message there is, in text and as an attachment: it passes, and is nowhere whole.
#[test]
fn a_message_of_100_mib_passes_in_bounded_memory() {
    const SIZE: usize = 100 << 20;
    const GROWTH: u64 = 48 << 10;
    within(async {
        let tree = tree(Bounds::default()).await;
        let head = "From: ann@a.test\r\nSubject: long\r\nContent-Type: multipart/mixed; boundary=b\
             \r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/zip\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n";
        let line = [&[b'Q'; 76][..], b"\r\n"].concat();
        let chunk = line.repeat(job::MAX_CHUNK as usize / line.len());
        let before = kibibytes();
        let job = begin(&tree.line).await.unwrap();
        let mut sent = 0;
        let mut first = Some(head.as_bytes());
        while sent < SIZE {
            let piece = first.take().unwrap_or(&chunk);
            let piece = &piece[..piece.len().min(SIZE - sent)];
            let mut request = job.write_request();
            request.get().set_chunk(piece);
            request.send().await.unwrap();
            sent += piece.len();
        }
        let answer = job.finish_request().send().promise.await.unwrap();
        let facts = answer.get().unwrap().get_facts().unwrap();
        let structure = Structure::decode(&blob(&facts, Blob::Structure).await).unwrap();
        assert_eq!(structure.parts.len(), 3);
        assert_eq!(structure.parts.last().unwrap().span.body.end, SIZE as u64);
        let growth = kibibytes().saturating_sub(before);
        assert!(growth < GROWTH, "{growth} KiB for {SIZE} octets");
    });
}
