//! For the tests of the profiles: ordinary work of a role, done inside its walls.
//!
//! `workload ROLE KIND [FOLDER | PORT]` confines itself to the role's profile with the trap on and
//! works; a call that the profile lacks ends it with a line that names the call.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's program")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::sockopt;
use sandbox::channel::{self, Expect};
use sandbox::{Breach, ConfineOptions, Folders, confine, figures, memfd, process, profiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is there before the walls are.
struct Before {
    tls: (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>),
    config: OwnedFd,
    figures: OwnedFd,
    listener: std::net::TcpListener,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, kind, rest @ ..] = arguments.as_slice() else { std::process::exit(2) };
    let profile = profiles::of_role(role).unwrap();
    let before = Before {
        tls: tls_configs(),
        config: memfd::sealed("config", b"[listeners]").unwrap(),
        figures: figures::create("figures").unwrap(),
        listener: std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
    };
    before.listener.set_nonblocking(true).unwrap();
    // aws-lc opens /dev/sysgenid with its first random bytes.
    aws_lc_rs::rand::fill(&mut [0; 8]).unwrap();
    let folder = rest.first().map(PathBuf::from);
    let options = ConfineOptions {
        own_folder: folder.clone().filter(|_| profile.folders == Folders::Own),
        read_only: folder
            .clone()
            .into_iter()
            .filter(|_| profile.folders == Folders::ReadOnly)
            .collect(),
        supervisor: Some(match kind.as_str() {
            "orphaned" => u32::MAX >> 1,
            _ => std::os::unix::process::parent_id(),
        }),
        without_root: kind == "required",
        require: if kind == "required" { vec![sandbox::Layer::Uid] } else { Vec::new() },
        breach: Breach::Trap,
    };
    if kind == "threaded" {
        // Never joined: it is there while `confine` looks.
        std::thread::spawn(std::thread::park);
    }
    let report = confine(profile, &options).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(3)
    });
    assert!(report.complete(), "{report}");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match kind.as_str() {
            "runtime" => runtime_work(&before).await,
            "tls" => tls_work(&before).await,
            "accept" => accept_work(before.listener).await,
            "files" => file_work(folder.as_deref().unwrap()),
            "read" => read_work(folder.as_deref().unwrap()),
            "outgoing" => outgoing_work(rest[0].parse().unwrap()).await,
            "abort" => std::process::abort(),
            "wait" => wait().await,
            "full-log" => {
                let full = rustix::io::write(rustix::stdio::stderr(), b"one line too many\n");
                assert_eq!(full.unwrap_err(), rustix::io::Errno::FBIG);
            }
            _ => std::process::exit(2),
        }
    });
    drop(local);
    drop(runtime);
    println!("done");
}

/// What every role does: loops, threads, memory, descriptors, figures, a panic.
async fn runtime_work(before: &Before) {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(5), terminate.recv()).await;
    assert!(waited.is_err());

    let jobs: Vec<_> = (0..8).map(|n| tokio::task::spawn_blocking(move || churn(n))).collect();
    for job in jobs {
        job.await.unwrap();
    }
    std::thread::Builder::new().name("worker".into()).spawn(|| churn(3)).unwrap().join().unwrap();

    let caught = std::panic::catch_unwind(|| panic!("a panic ends its session only"));
    assert!(caught.is_err());
    assert!(sandbox::frames().len() > 2, "and says where it was");

    let (a, b) = channel::seqpacket_pair().unwrap();
    let (inner, _other) = channel::stream_pair().unwrap();
    channel::send_with_fds(&a, b"edge", &[inner.as_fd()]).unwrap();
    let received = channel::recv_with_fds(&b, 64, Expect::Exactly(1)).unwrap().unwrap();
    assert!(channel::is_unix_stream(&received.descriptors[0]).unwrap());
    channel::peer_uid(&a).unwrap();

    assert_eq!(memfd::read_sealed(&before.config, 100).unwrap(), b"[listeners]");
    figures::map_to_write(&before.figures).unwrap()[3].fetch_add(1, Ordering::Relaxed);
    process::set_name("renamed").unwrap();
    assert!(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_nsec >= 0);
    assert!(rustix::process::getrlimit(rustix::process::Resource::Nofile).current.is_some());
}

/// Grows and shrinks a thread's heap, which is when glibc would look into /proc.
fn churn(n: usize) {
    for _ in 0..3 {
        let blocks: Vec<Vec<u8>> = (0..4000).map(|i| vec![0; 1000 + (i * n) % 500]).collect();
        assert_eq!(blocks.len(), 4000);
    }
    std::thread::sleep(Duration::from_millis(2));
}

fn tls_configs() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["mx.example.org".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap();
    let client =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A handshake as faces make it: the step that signs on a thread of the pool.
async fn tls_work(before: &Before) {
    let (server, client) = before.tls.clone();
    // A slot in which keyholder's answer is waited for.
    let (slot, _keyholder) = channel::seqpacket_pair().unwrap();
    for way in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&slot, way, Some(Duration::from_millis(20))).unwrap();
        assert!(sockopt::socket_timeout(&slot, way).unwrap().is_some());
    }
    let late = channel::recv_with_fds(&slot, 64, Expect::Exactly(0)).unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::WouldBlock);
    for _ in 0..3 {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let connector = tokio_rustls::TlsConnector::from(client.clone());
        let task = tokio::task::spawn_local(async move {
            let name = "mx.example.org".try_into().unwrap();
            let mut tls = connector.connect(name, far).await.unwrap();
            tls.write_all(b"EHLO client").await.unwrap();
            let mut reply = Vec::new();
            tls.read_to_end(&mut reply).await.unwrap();
            assert_eq!(reply, b"250 OK");
        });
        let hello =
            tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), near)
                .await
                .unwrap();
        let config = server.clone();
        let accept = tokio::task::spawn_blocking(move || hello.into_stream(config)).await.unwrap();
        let mut tls = accept.await.unwrap();
        let mut text = [0; 11];
        tls.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"EHLO client");
        tls.write_all(b"250 OK").await.unwrap();
        tls.shutdown().await.unwrap();
        task.await.unwrap();
    }
}

/// Says that it is there, and stays.
async fn wait() {
    println!("here");
    std::io::stdout().flush().unwrap();
    std::future::pending().await
}

/// Prints the port of a listener that was there before, and echoes one connection.
async fn accept_work(listener: std::net::TcpListener) {
    let port = listener.local_addr().unwrap().port();
    println!("{port}");
    std::io::stdout().flush().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (mut stream, from) = listener.accept().await.unwrap();
    assert!(from.ip().is_loopback() && stream.local_addr().unwrap().ip().is_loopback());
    stream.set_nodelay(true).unwrap();
    assert!(stream.take_error().unwrap().is_none());
    let mut byte = [0; 1];
    stream.read_exact(&mut byte).await.unwrap();
    stream.write_all(&byte).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// What SQLite and the segment store do to a folder.
fn file_work(folder: &Path) {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    let inside = folder.join("a");
    std::fs::create_dir(&inside).unwrap();
    let path = inside.join("new");
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"segment").unwrap();
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    file.set_len(3).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "seg");
    assert_eq!(file.metadata().unwrap().len(), 3);
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 100).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8192).unwrap();
    let named = inside.join("named");
    std::fs::rename(&path, &named).unwrap();
    std::fs::copy(&named, inside.join("copy")).unwrap();
    assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 2);
    let dir = std::fs::File::open(&inside).unwrap();
    dir.sync_all().unwrap();
    let beneath =
        process::open_beneath(&dir, Path::new("named"), OFlags::RDONLY, Mode::empty()).unwrap();
    assert!(rustix::fs::fstatfs(&beneath).unwrap().f_bsize > 0);
    assert!(!inside.join("missing").exists());
    std::fs::remove_dir_all(&inside).unwrap();
    // Outside its folder: refused by Landlock, and no reason to die.
    let outside = std::fs::File::open("/etc/passwd").unwrap_err();
    assert_eq!(outside.kind(), std::io::ErrorKind::PermissionDenied);
}

fn read_work(folder: &Path) {
    assert_eq!(std::fs::read(folder.join("index.html")).unwrap(), b"<p>");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    assert!(std::fs::File::open("/etc/passwd").is_err());
}

async fn outgoing_work(port: u16) {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // A source address, as an administrator may choose one.
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), to);
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    stream.write_all(b"x").await.unwrap();
}
