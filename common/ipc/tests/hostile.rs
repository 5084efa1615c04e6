//! A hostile peer on a connection: floods, garbage, and answers that are never read. The server
//! ends that connection, keeps serving others, and holds a bounded amount of memory.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test")]

use ipc::schema::{resolver_capnp, types_capnp};
use ipc::{Ended, Incoming, Limits, Line, Offence, Role, Stream, memory_edge, new_client, serve};
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split},
    task::{LocalSet, spawn_local},
};

/// A resolver that answers every question with a big answer, and counts its living objects.
struct Echo {
    answer_octets: usize,
    living: Rc<Cell<usize>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.living.set(self.living.get() - 1);
    }
}

impl resolver_capnp::resolver::Server for Echo {
    async fn lookup(
        self: Rc<Self>,
        _: resolver_capnp::resolver::LookupParams,
        mut results: resolver_capnp::resolver::LookupResults,
    ) -> Result<(), capnp::Error> {
        let octets = u32::try_from(self.answer_octets).unwrap();
        let mut records = results.get().init_answer().init_records(1);
        records.reborrow().get(0).init_txt(octets);
        Ok(())
    }

    async fn reverse(
        self: Rc<Self>,
        _: resolver_capnp::resolver::ReverseParams,
        _: resolver_capnp::resolver::ReverseResults,
    ) -> Result<(), capnp::Error> {
        std::future::pending().await
    }
}

fn server(answer_octets: usize, living: &Rc<Cell<usize>>) -> capnp::capability::Client {
    living.set(living.get() + 1);
    let echo = Echo { answer_octets, living: Rc::clone(living) };
    let client: resolver_capnp::resolver::Client = new_client(echo);
    client.client
}

/// Small limits, so that a test reaches them.
const TIGHT: Limits = Limits {
    open_calls: 64,
    exports: 64,
    unsent_octets: 64 * 1024,
    patience: Duration::from_millis(300),
    message_words: 1 << 12,
};

fn local<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// The server's end of a stream whose other end the test holds, and how serving it ends.
fn serving(
    limits: Limits,
    answer_octets: usize,
    living: &Rc<Cell<usize>>,
) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<Ended>) {
    let (ours, theirs) = duplex(64 * 1024);
    let (read, write) = split(ours);
    let bootstrap = server(answer_octets, living);
    (theirs, spawn_local(serve(Stream::new(read, write), bootstrap, limits)))
}

fn client_over(end: tokio::io::DuplexStream) -> resolver_capnp::resolver::Client {
    let (read, write) = split(end);
    let network = capnp_rpc::twoparty::VatNetwork::new(
        tokio_util::compat::TokioAsyncReadCompatExt::compat(read),
        tokio_util::compat::TokioAsyncWriteCompatExt::compat_write(write),
        capnp_rpc::rpc_twoparty_capnp::Side::Client,
        capnp::message::ReaderOptions::new(),
    );
    let mut system = capnp_rpc::RpcSystem::new(Box::new(network), None);
    let client = system.bootstrap(capnp_rpc::rpc_twoparty_capnp::Side::Server);
    spawn_local(system);
    client
}

#[test]
fn a_flood_of_calls_that_never_end_is_cut_off_at_once() {
    local(async {
        let living = Rc::default();
        let (theirs, ended) = serving(TIGHT, 1, &living);
        let client = client_over(theirs);
        let calls: Vec<_> =
            (0..1_000).map(|_| spawn_local(client.reverse_request().send().promise)).collect();
        assert_eq!(ended.await.unwrap(), Ended::Refused(Offence::OpenCalls));
        for call in calls {
            assert!(call.await.unwrap().is_err());
        }
        assert_eq!(living.get(), 0);
    });
}

#[test]
fn a_peer_that_reads_no_answers_is_given_up() {
    local(async {
        let living = Rc::default();
        let (theirs, ended) = serving(TIGHT, 16 * 1024, &living);
        // The calls are written by an honest client whose reading half is a dead end.
        let (client_end, mut tap) = duplex(1 << 20);
        let client = client_over(client_end);
        let (unread, mut to_server) = split(theirs);
        let pump = spawn_local(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(octets @ 1..) = tap.read(&mut buffer).await {
                if to_server.write_all(&buffer[..octets]).await.is_err() {
                    break;
                }
            }
        });
        let calls: Vec<_> =
            (0..60).map(|_| spawn_local(client.lookup_request().send().promise)).collect();
        assert_eq!(ended.await.unwrap(), Ended::Refused(Offence::UnreadAnswers));
        assert_eq!(living.get(), 0);
        drop((unread, calls));
        pump.abort();
    });
}

#[test]
fn a_declared_giant_is_refused_on_its_header() {
    local(async {
        let living = Rc::default();
        let (mut theirs, ended) = serving(TIGHT, 1, &living);
        // One segment of 2^28 words: 2 GiB.
        theirs.write_all(&[0, 0, 0, 0, 0, 0, 0, 0x10]).await.unwrap();
        assert!(matches!(ended.await.unwrap(), Ended::Broken(_)));
        assert_eq!(living.get(), 0);
    });
}

#[test]
fn garbage_ends_its_own_connection_only() {
    local(async {
        let living = Rc::default();
        let (dialer, mut acceptor) = memory_edge(Role::Outbound, 0);
        let honest_server = server(8, &living);
        spawn_local(async move {
            while let Some(Incoming::Rpc(stream)) = acceptor.accept().await {
                spawn_local(serve(stream, honest_server.clone(), Limits::default()));
            }
        });
        let line: Line<resolver_capnp::resolver::Client> = Line::new(dialer, Limits::default());

        // A frame that a client really sends, to flip bits in.
        let (client_end, mut tap) = duplex(1 << 16);
        let client = client_over(client_end);
        let call = spawn_local(client.lookup_request().send().promise);
        let mut frame = vec![0; 4096];
        let octets = tap.read(&mut frame).await.unwrap();
        frame.truncate(octets);
        call.abort();

        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..600u32 {
            let (mut theirs, ended) = serving(TIGHT, 1, &living);
            let mut bytes = frame.clone();
            if round % 3 == 0 {
                bytes = (0..64).map(|_| next().to_le_bytes()[0]).collect();
            } else {
                for _ in 0..=(round % 3) {
                    let bit = usize::try_from(next()).unwrap() % (bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            let cut = usize::try_from(next()).unwrap() % (bytes.len() + 1);
            let sent = if round % 2 == 0 { &bytes[..] } else { &bytes[..cut] };
            let _ = theirs.write_all(sent).await;
            let _ = theirs.shutdown().await;
            drop(theirs);
            tokio::time::timeout(Duration::from_secs(2), ended).await.unwrap().unwrap();
        }
        // All objects of the broken connections are gone, and the honest one is served.
        assert_eq!(living.get(), 1);
        let answer = line.client().await.unwrap().lookup_request().send().promise.await.unwrap();
        let answer = answer.get().unwrap().get_answer().unwrap();
        assert!(matches!(answer.which().unwrap(), resolver_capnp::answer::Records(_)));
    });
}

#[test]
fn a_line_is_opened_again_after_its_server_died() {
    local(async {
        let living = Rc::default();
        let (dialer, mut acceptor) = memory_edge(Role::Outbound, 0);
        let bootstrap = server(8, &living);
        spawn_local(async move {
            let mut serving: Option<tokio::task::JoinHandle<Ended>> = None;
            while let Some(Incoming::Rpc(stream)) = acceptor.accept().await {
                if let Some(old) = serving.take() {
                    old.abort();
                }
                let task = spawn_local(serve(stream, bootstrap.clone(), Limits::default()));
                let handle = task.abort_handle();
                serving = Some(task);
                spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    handle.abort();
                });
            }
        });
        let line: Line<resolver_capnp::resolver::Client> = Line::new(dialer, Limits::default());
        for _ in 0..3 {
            let client = line.client().await.unwrap();
            client.lookup_request().send().promise.await.unwrap();
            // A call that waits when the server dies fails at once, as temporary.
            let error = client.reverse_request().send().promise.await.err().unwrap();
            assert!(ipc::is_gone(&error), "{error}");
            tokio::task::yield_now().await;
        }
    });
}

/// A client that holds what it is given: exports are bounded too.
#[test]
fn objects_that_are_never_released_are_bounded() {
    struct Giver(Rc<Cell<usize>>);
    struct Held(Rc<Cell<usize>>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    impl types_capnp::handle::Server for Held {}
    impl ipc::schema::accountd_capnp::config::Server for Giver {
        async fn current(
            self: Rc<Self>,
            _: ipc::schema::accountd_capnp::config::CurrentParams,
            _: ipc::schema::accountd_capnp::config::CurrentResults,
        ) -> Result<(), capnp::Error> {
            Ok(())
        }
        async fn watch(
            self: Rc<Self>,
            _: ipc::schema::accountd_capnp::config::WatchParams,
            mut results: ipc::schema::accountd_capnp::config::WatchResults,
        ) -> Result<(), capnp::Error> {
            self.0.set(self.0.get() + 1);
            results.get().set_handle(new_client(Held(Rc::clone(&self.0))));
            Ok(())
        }
    }
    local(async {
        let held = Rc::new(Cell::new(0));
        let (ours, theirs) = duplex(64 * 1024);
        let (read, write) = split(ours);
        let giver: ipc::schema::accountd_capnp::config::Client =
            new_client(Giver(Rc::clone(&held)));
        let ended = spawn_local(serve(Stream::new(read, write), giver.client, TIGHT));
        let (read, write) = split(theirs);
        let network = capnp_rpc::twoparty::VatNetwork::new(
            tokio_util::compat::TokioAsyncReadCompatExt::compat(read),
            tokio_util::compat::TokioAsyncWriteCompatExt::compat_write(write),
            capnp_rpc::rpc_twoparty_capnp::Side::Client,
            capnp::message::ReaderOptions::new(),
        );
        let mut system = capnp_rpc::RpcSystem::new(Box::new(network), None);
        let client: ipc::schema::accountd_capnp::config::Client =
            system.bootstrap(capnp_rpc::rpc_twoparty_capnp::Side::Server);
        spawn_local(system);
        // Released ones do not count.
        for _ in 0..500 {
            drop(client.watch_request().send().promise.await.unwrap());
        }
        let mut kept = Vec::new();
        while let Ok(answer) = client.watch_request().send().promise.await {
            kept.push(answer.get().unwrap().get_handle().unwrap());
        }
        assert_eq!(ended.await.unwrap(), Ended::Refused(Offence::Exports));
        // The answer that passes the bound still goes out; the next frame of the peer ends it.
        assert!(kept.len() >= 50 && kept.len() <= TIGHT.exports + 1, "{}", kept.len());
        assert_eq!(held.get(), 0);
    });
}

/// An object that holds one of its peer's goes with the connection, however that ends: a cycle of
/// the two would hold the place of every object of the connection for ever.
#[test]
fn objects_that_hold_each_other_go_with_their_connection() {
    use ipc::schema::accountd_capnp::config;
    struct Giver(Rc<Cell<usize>>);
    struct Watch(
        Rc<Cell<usize>>,
        #[expect(dead_code, reason = "held")] types_capnp::watched::Client,
    );
    struct Ear(Rc<Cell<usize>>);
    impl Drop for Watch {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    impl Drop for Ear {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    impl types_capnp::handle::Server for Watch {}
    impl types_capnp::watched::Server for Ear {}
    impl config::Server for Giver {
        async fn watch(
            self: Rc<Self>,
            params: config::WatchParams,
            mut results: config::WatchResults,
        ) -> Result<(), capnp::Error> {
            self.0.set(self.0.get() + 1);
            let watch = Watch(Rc::clone(&self.0), params.get()?.get_sink()?);
            results.get().set_handle(new_client(watch));
            Ok(())
        }
    }
    for kill_server in [true, false] {
        local(async {
            let held = Rc::new(Cell::new(0));
            let (ours, theirs) = duplex(64 * 1024);
            let stream = |end| {
                let (read, write) = split(end);
                Stream::new(read, write)
            };
            let giver: config::Client = new_client(Giver(Rc::clone(&held)));
            let serving = spawn_local(serve(stream(ours), giver.client, TIGHT));
            let (client, asking) = ipc::connect::<config::Client>(stream(theirs), TIGHT);
            let asking = spawn_local(asking);
            let mut request = client.watch_request();
            held.set(held.get() + 1);
            request.get().set_sink(new_client(Ear(Rc::clone(&held))));
            let answer = request.send().promise.await.unwrap();
            let handle = answer.get().unwrap().get_handle().unwrap();
            assert_eq!(held.get(), 2);
            let (killed, other) = if kill_server { (serving, asking) } else { (asking, serving) };
            killed.abort();
            assert!(killed.await.unwrap_err().is_cancelled());
            assert_eq!(other.await.unwrap(), Ended::Closed);
            drop((client, handle, answer));
            assert_eq!(held.get(), 0, "killed the server: {kill_server}");
        });
    }
}
