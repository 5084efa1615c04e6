//! The supervisor with real processes: started, wired, killed, restarted, upgraded, ended.
//!
//! The children are this program itself, linked beside a copy of moxd under the roles' names. Each
//! runs the real frame (`daemon::start`) with its role's real profile, and does what it is told in
//! words: over TCP if it is a face, over the control socket if it is a vault, and over the wiring
//! by any client of it. As root the whole is done twice: with a uid per role, and without root.

#![expect(clippy::print_stdout, reason = "a test program tells what it tries")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use daemon::{
    Inherited, Socket,
    orders::{self, Order},
};
use ipc::{Incoming, Role};
use sandbox::trial::Verdict;
use serde_json::Value;

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    let twin = std::env::args().nth(1).is_some_and(|first| first.starts_with("--twin"));
    if name.parse::<Role>().is_ok() || twin {
        return daemon::start(&Role::ALL, profile, child::run);
    }
    if std::env::args().any(|arg| arg == "--list") {
        // Named among the ignored ones it would never be run.
        if !std::env::args().any(|arg| arg == "--ignored") {
            println!("tree: test");
        }
        return ExitCode::SUCCESS;
    }
    a_weakened_profile_fails_the_trial();
    a_required_wall_that_is_missing_refuses_the_start();
    trial(None);
    if nix::unistd::geteuid().is_root() {
        trial(Some(64_123));
        // As root, `serve` would use the machine's own /run/mox.
        a_file_is_applied_whole_or_not_at_all(Some(64_123));
    } else {
        a_file_is_applied_whole_or_not_at_all(None);
    }
    ExitCode::SUCCESS
}

/// Binaries in a folder with a name like this have a parser with a hole.
const WEAK: &str = "weak";

/// The walls of a role.
fn profile(role: Role) -> &'static sandbox::Profile {
    use sandbox::{Call, Grant, Group, Profile, groups, profiles};
    static EXECUTABLE: Group = Group {
        name: "a hole",
        why: "mmap without the rule that nothing is executable",
        calls: &[Call::with_any_arguments("mmap", nix::libc::SYS_mmap)],
    };
    static WEAK_PARSER: Profile = Profile {
        grants: &[
            Grant { group: &groups::RUNTIME, why: "as parser" },
            Grant { group: &groups::THREADS, why: "as parser" },
            Grant { group: &groups::MEMORY, why: "as parser" },
            Grant { group: &groups::DYING, why: "as parser" },
            Grant { group: &groups::SOCKET_IO, why: "as parser" },
            Grant { group: &groups::FD_CHANNEL, why: "as parser" },
            Grant { group: &EXECUTABLE, why: "a hole" },
        ],
        ..profiles::PARSER
    };
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().and_then(Path::file_name).unwrap();
    if role == Role::Parser && folder.to_str().unwrap().starts_with(WEAK) {
        return &WEAK_PARSER;
    }
    profiles::of_role(role.name()).unwrap()
}

/// A child: does what it is told.
mod child {
    use super::*;
    use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _};

    pub(super) async fn run(mut inherited: Inherited) -> anyhow::Result<()> {
        let listeners = std::mem::take(&mut inherited.listeners);
        let me = Rc::new(inherited.dialers.clone());
        let planned = inherited.planned_end.clone();
        let (end, mut ended) = tokio::sync::mpsc::channel(1);
        let told = Rc::new(Told { dialers: me, planned, end });
        for listener in listeners {
            tokio::task::spawn_local(listen(listener.socket, Rc::clone(&told)));
        }
        loop {
            tokio::select! {
                biased;
                Some(mut acceptor) = inherited.acceptors.recv() => {
                    let told = Rc::clone(&told);
                    tokio::task::spawn_local(async move {
                        while let Some(incoming) = acceptor.accept().await {
                            if let Incoming::Slot(slot) = incoming {
                                tokio::task::spawn_local(serve_slot(slot, Rc::clone(&told)));
                            }
                        }
                    });
                }
                Some(()) = ended.recv() => return Ok(()),
                _ = inherited.stop.draining() => return Ok(()),
            }
        }
    }

    struct Told {
        dialers: Rc<std::collections::BTreeMap<(Role, u16), ipc::Dialer>>,
        planned: daemon::PlannedEnd,
        end: tokio::sync::mpsc::Sender<()>,
    }

    async fn listen(socket: Socket, told: Rc<Told>) {
        match socket {
            Socket::Tcp(socket) => {
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                while let Ok((stream, _)) = socket.accept().await {
                    tokio::task::spawn_local(talk(stream, Rc::clone(&told)));
                }
            }
            Socket::Unix(socket) => {
                let socket = tokio::net::UnixListener::from_std(socket).unwrap();
                while let Ok((stream, _)) = socket.accept().await {
                    tokio::task::spawn_local(talk(stream, Rc::clone(&told)));
                }
            }
        }
    }

    async fn talk(stream: impl AsyncRead + AsyncWrite, told: Rc<Told>) {
        let (read, mut write) = tokio::io::split(stream);
        let mut lines = tokio::io::BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = Box::pin(obey(&line, &told)).await;
            let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
        }
    }

    async fn serve_slot(slot: OwnedFd, told: Rc<Told>) {
        let channel = daemon::Channel::new(slot).unwrap();
        let none = sandbox::channel::Expect::Exactly(0);
        while let Ok(Some(asked)) = channel.receive(1024, none).await {
            let line = String::from_utf8(asked.bytes).unwrap();
            let answer = Box::pin(obey(&line, &told)).await;
            let _ = channel.send(answer.as_bytes(), &[]).await;
        }
    }

    async fn obey(line: &str, told: &Told) -> String {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "pid" => std::process::id().to_string(),
            "exit" => std::process::exit(rest.parse().unwrap()),
            "open" => format!("{:?}", std::fs::File::open(rest).map(drop)),
            "panic" => {
                tokio::task::spawn_local(async { panic!("told to") });
                "panicking".to_owned()
            }
            "planned" => {
                told.planned.announce().await;
                let _ = told.end.send(()).await;
                "ending".to_owned()
            }
            "via" => {
                let mut words = rest.splitn(3, ' ');
                let role: Role = words.next().unwrap().parse().unwrap();
                let instance: u16 = words.next().unwrap().parse().unwrap();
                let Some(dialer) = told.dialers.get(&(role, instance)) else {
                    return "no such edge".to_owned();
                };
                match dialer.slot().await {
                    Err(error) => format!("unavailable: {error}"),
                    Ok(slot) => {
                        let channel = daemon::Channel::new(slot).unwrap();
                        channel.send(words.next().unwrap().as_bytes(), &[]).await.unwrap();
                        let none = sandbox::channel::Expect::Exactly(0);
                        match channel.receive(1024, none).await {
                            Ok(Some(answer)) => String::from_utf8(answer.bytes).unwrap(),
                            other => format!("gone: {other:?}"),
                        }
                    }
                }
            }
            _ => "?".to_owned(),
        }
    }
}

/// A running supervisor.
struct Tree {
    moxd: Child,
    dir: tempfile::TempDir,
    binaries: tempfile::TempDir,
    offset: u16,
    own_uids: bool,
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.moxd.kill();
        let _ = self.moxd.wait();
    }
}

impl Tree {
    fn start(uid: Option<u32>) -> Self {
        Self::start_from("sound", uid)
    }

    /// From a folder of binaries with a name like this.
    fn start_from(name: &str, uid: Option<u32>) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let binaries = tempfile::Builder::new().prefix(name).tempdir_in(target).unwrap();
        install(binaries.path());
        let dir = tempfile::tempdir().unwrap();
        for folder in [dir.path(), binaries.path()] {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(folder, uid, uid).unwrap();
        }
        // Tests of other programs run at the same time; from 32768 on are the clients' own ports.
        let offset = 14_000 + u16::try_from(std::process::id() % 16_000).unwrap();
        let mut command = Command::new(binaries.path().join("moxd"));
        command
            .args(["localserve", "--port-offset", &offset.to_string(), "--dir"])
            .arg(dir.path().join("d"))
            .stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut moxd = command.spawn().unwrap();
        let mut out = BufReader::new(moxd.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("mox runs in "), "{line:?}");
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let own_uids = nix::unistd::geteuid().is_root() && uid.is_none();
        Self { moxd, dir, binaries, offset, own_uids }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("d")
    }

    fn order(&self, order: Order) -> std::io::Result<Vec<String>> {
        orders::give(&self.data().join("run/control/moxd"), order)
    }

    /// What `moxctl` makes of it: its exit code, its output and its complaint.
    fn moxctl(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let moxctl = Path::new(env!("CARGO_BIN_EXE_moxd")).with_file_name("moxctl");
        assert!(moxctl.exists(), "{} is missing: cargo build -p moxctl", moxctl.display());
        let mut command = Command::new(moxctl);
        command.arg("--control").arg(self.data().join("run/control")).args(words);
        let ended = command.stdin(Stdio::null()).output().unwrap();
        let text = |octets| String::from_utf8(octets).unwrap();
        (ended.status.code(), text(ended.stdout), text(ended.stderr))
    }

    fn table(&self) -> Vec<Value> {
        let lines = self.order(Order::Processes).unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn row(&self, process: &str) -> Value {
        self.table().into_iter().find(|row| row["process"] == process).unwrap()
    }

    fn pid(&self, process: &str) -> u64 {
        self.row(process)["pid"].as_u64().unwrap()
    }

    /// Says something to `smtpd-mx`.
    fn ask(&self, words: &str) -> String {
        self.try_ask(words).unwrap()
    }

    fn try_ask(&self, words: &str) -> std::io::Result<String> {
        let stream = TcpStream::connect(("127.0.0.1", 25 + self.offset))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        (&stream).write_all(format!("{words}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain: {what}\n{:#?}", self.table());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_until_whole(&self) {
        self.wait_for("everything serves", || {
            self.order(Order::Processes).is_ok()
                && self.table().iter().all(|row| row["state"] == "serving")
        });
    }
}

/// A copy of moxd, and this program under the name of every role.
fn install(folder: &Path) {
    std::fs::copy(env!("CARGO_BIN_EXE_moxd"), folder.join("moxd")).unwrap();
    let own = std::env::current_exe().unwrap();
    for role in Role::ALL {
        let path = folder.join(role.binary());
        if !path.exists() {
            std::fs::hard_link(&own, path).unwrap();
        }
    }
}

fn kill(pid: u64) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn lives(row: &Value) -> u64 {
    row["lives"].as_u64().unwrap()
}

fn trial(uid: Option<u32>) {
    println!("tree as {}", uid.map_or("ourselves".to_owned(), |uid| format!("uid {uid}")));
    let mut tree = Tree::start(uid);
    everything_serves_behind_its_walls(&tree);
    wires_reach_exactly_who_is_in_the_table(&tree);
    a_killed_server_is_replaced_under_its_clients(&tree);
    a_breach_ends_the_process_and_it_comes_back(&tree);
    planned_ends_are_no_faults(&tree);
    a_crash_loop_backs_off_and_others_live_on(&tree);
    drained_and_started_again_by_order(&tree);
    forbidden_things_are_refused_in_twins(&tree);
    a_second_server_is_told_who_is_in_its_way(&tree);
    an_upgrade_refuses_no_connection(&tree);
    if uid.is_none() {
        a_build_that_does_not_serve_is_taken_back(&tree);
    }
    everything_ends(&mut tree);
}

fn everything_serves_behind_its_walls(tree: &Tree) {
    tree.wait_until_whole();
    let table = tree.table();
    assert!(table.len() >= Role::ALL.len());
    let mut uids = std::collections::BTreeMap::new();
    for row in &table {
        assert_eq!(row["layers"]["seccomp"], "enforced", "{row}");
        assert_eq!(row["layers"]["no-new-privs"], "enforced", "{row}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", row["pid"])).unwrap();
        assert!(status.contains("\nSeccomp:\t2"), "{row}: {status}");
        let uid = &row["uid"];
        let all_four = format!("\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        assert!(status.contains(&all_four), "{row}: {status}");
        uids.insert(row["role"].as_str().unwrap().to_owned(), row["uid"].as_u64().unwrap());
    }
    let mut distinct: Vec<_> = uids.values().collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), if tree.own_uids { Role::ALL.len() } else { 1 });
    assert_eq!(tree.order(Order::Wiring).unwrap().len(), ipc::WIRING.len());
    assert_eq!(tree.order(Order::Profiles).unwrap().len(), Role::ALL.len());
    assert!(tree.order(Order::LogFiles).unwrap().is_empty());
}

fn wires_reach_exactly_who_is_in_the_table(tree: &Tree) {
    for process in ["accountd", "keyholder"] {
        assert_eq!(tree.ask(&format!("via {process} 0 pid")), tree.pid(process).to_string());
    }
    let second = tree.ask("via accountd 0 via parser 1 pid");
    assert_eq!(second, tree.pid("parser.1").to_string());
    assert_eq!(tree.ask("via resolver 0 pid"), "no such edge");
    assert_eq!(tree.ask("via accountd 0 via queue-runner 0 pid"), "no such edge");
}

fn a_killed_server_is_replaced_under_its_clients(tree: &Tree) {
    let mut longest = Duration::ZERO;
    for _ in 0..4 {
        let old = tree.pid("accountd");
        kill(old);
        let begun = Instant::now();
        let new = loop {
            let answer = tree.ask("via accountd 0 pid");
            if answer.parse().is_ok_and(|pid: u64| pid != old) {
                break answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{answer}");
        };
        longest = longest.max(begun.elapsed());
        tree.wait_until_whole();
        assert_eq!(new, tree.pid("accountd").to_string());
        // Its own lines to servers are wired again too.
        assert_eq!(
            tree.ask("via accountd 0 via keyholder 0 pid"),
            tree.pid("keyholder").to_string()
        );
    }
    println!("  a killed accountd was answered for again after {longest:?} at most");
}

fn a_breach_ends_the_process_and_it_comes_back(tree: &Tree) {
    let before = lives(&tree.row("smtpd-mx"));
    assert_eq!(tree.ask("open /etc/hostname"), "", "it must not live to answer");
    tree.wait_for("smtpd-mx is back", || lives(&tree.row("smtpd-mx")) == before + 1);
    tree.wait_until_whole();
    let row = tree.row("smtpd-mx");
    assert_eq!(row["last_end"], "signal 31: a system call outside its profile");
    assert_eq!(tree.ask("via accountd 0 pid"), tree.pid("accountd").to_string());
    // A panic in a task ends that task and nothing else.
    assert_eq!(tree.ask("panic"), "panicking");
    assert_eq!(tree.ask("pid"), tree.pid("smtpd-mx").to_string());
}

fn planned_ends_are_no_faults(tree: &Tree) {
    for _ in 0..10 {
        let before = lives(&tree.row("parser"));
        assert_eq!(tree.ask("via accountd 0 via parser 0 planned"), "ending");
        tree.wait_for("parser is back", || lives(&tree.row("parser")) == before + 1);
        tree.wait_until_whole();
    }
    // Nor are the deaths that are its job.
    for _ in 0..10 {
        let before = lives(&tree.row("parser"));
        kill(tree.pid("parser"));
        tree.wait_for("parser is back", || lives(&tree.row("parser")) == before + 1);
        tree.wait_until_whole();
    }
    assert_eq!(tree.row("parser")["faults"], 0);
}

fn a_crash_loop_backs_off_and_others_live_on(tree: &Tree) {
    let begun = Instant::now();
    for _ in 0..7 {
        let before = lives(&tree.row("outbound"));
        tree.wait_for("outbound serves", || tree.row("outbound")["state"] == "serving");
        kill(tree.pid("outbound"));
        tree.wait_for("outbound is back", || lives(&tree.row("outbound")) > before);
    }
    // Five at once, then 0.1 s and 0.2 s.
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert!(tree.row("outbound")["faults"].as_u64().unwrap() >= 7);
    assert_eq!(tree.ask("via accountd 0 pid"), tree.pid("accountd").to_string());
    tree.wait_until_whole();
}

fn drained_and_started_again_by_order(tree: &Tree) {
    let before = tree.row("accountd");
    tree.order(Order::Restart(Role::Accountd)).unwrap();
    tree.wait_for("accountd is new", || lives(&tree.row("accountd")) == lives(&before) + 1);
    tree.wait_until_whole();
    assert_eq!(tree.row("accountd")["faults"], before["faults"]);
    assert_eq!(tree.ask("via accountd 0 pid"), tree.pid("accountd").to_string());
    // Nothing has changed, so nothing is replaced.
    assert!(tree.order(Order::Reload).unwrap().is_empty());
    tree.order(Order::LogLevel(None, config::Level::Debug)).unwrap();
    tree.order(Order::LogLevel(Some(Role::Parser), config::Level::Info)).unwrap();
}

fn forbidden_things_are_refused_in_twins(tree: &Tree) {
    let rows = tree.order(Order::ConfineTest(Some(Role::Parser))).unwrap();
    assert!(rows.len() > 10, "{rows:?}");
    for row in &rows {
        let row: sandbox::trial::Row = serde_json::from_str(row).unwrap();
        assert_eq!(row.role, "parser");
        assert!(matches!(row.verdict, Verdict::Own | Verdict::Refused { .. }), "{row:?}");
    }
    let (code, said, complaint) = tree.moxctl(&["confine", "test", "parser"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{said}");
    assert_eq!(said.lines().count(), rows.len() + 1, "{said}");
    // The supervisor went on meanwhile, and nobody else was hurt.
    tree.wait_until_whole();
}

/// The trial that an administrator makes is worth something only if it shows a hole: here a real
/// tree has one, in the walls of its parser, and nothing else differs.
fn a_weakened_profile_fails_the_trial() {
    println!("tree with a hole");
    let uid = nix::unistd::geteuid().is_root().then_some(64_124);
    let mut tree = Tree::start_from(WEAK, uid);
    tree.wait_until_whole();
    for role in [&["parser"][..], &[]] {
        let (code, said, complaint) = tree.moxctl(&[&["confine", "test"], role].concat());
        assert_eq!(code, Some(1), "{said}{complaint}");
        assert!(complaint.contains("forbidden actions are ALLOWED"), "{complaint}");
        let row = |action: &str| {
            let about = |line: &&str| {
                let mut words = line.split_whitespace();
                words.next() == Some("parser") && words.next() == Some(action)
            };
            said.lines().find(about).unwrap_or_default()
        };
        assert!(row("executable-memory").contains("ALLOWED"), "{said}");
        assert!(row("fork").contains("refused"), "{said}");
        let others = said.lines().filter(|line| !line.starts_with("parser "));
        assert_eq!(others.filter(|line| line.contains("ALLOWED")).count(), 0, "{said}");
    }
    everything_ends(&mut tree);
}

fn a_second_server_is_told_who_is_in_its_way(tree: &Tree) {
    let refused = Command::new(tree.binaries.path().join("moxd"))
        .args(["localserve", "--port-offset", &tree.offset.to_string(), "--dir"])
        .arg(tree.dir.path().join("other"))
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(said.contains("cannot listen on 127.0.0.1:"), "{said}");
    assert!(said.contains("another program listens there"), "{said}");
    assert!(!tree.dir.path().join("other").exists(), "ports come before folders");
}

fn an_upgrade_refuses_no_connection(tree: &Tree) {
    let old = tree.pid("smtpd-mx");
    let begun = Instant::now();
    tree.order(Order::Upgrade).unwrap();
    let mut asked = 0;
    // Every connection made meanwhile is answered, by the old process or by the new one.
    while begun.elapsed() < Duration::from_millis(1500) {
        match tree.try_ask("pid") {
            Ok(answer) if !answer.is_empty() => asked += 1,
            // Accepted by the old one as it ended: the client of such a connection tries again.
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
    }
    tree.wait_until_whole();
    assert_ne!(tree.pid("smtpd-mx"), old);
    assert_eq!(tree.ask("via accountd 0 pid"), tree.pid("accountd").to_string());
    println!("  {asked} connections were answered during an upgrade");
}

fn a_build_that_does_not_serve_is_taken_back(tree: &Tree) {
    // The next build's keyholder is a program that ends at once.
    let keyholder = tree.binaries.path().join("keyholder");
    let kept = tree.binaries.path().join("keyholder.kept");
    std::fs::rename(&keyholder, &kept).unwrap();
    std::fs::copy("/bin/false", &keyholder).unwrap();
    let begun = Instant::now();
    tree.order(Order::Upgrade).unwrap();
    let deadline = begun + Duration::from_secs(60);
    std::thread::sleep(Duration::from_secs(25));
    while Instant::now() < deadline {
        let whole = tree.order(Order::Processes).is_ok()
            && tree.table().iter().all(|row| row["state"] == "serving");
        if whole {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    tree.wait_until_whole();
    assert!(begun.elapsed() >= Duration::from_secs(30));
    assert_eq!(tree.ask("via keyholder 0 pid"), tree.pid("keyholder").to_string());
    std::fs::rename(&kept, &keyholder).unwrap();
    println!("  a broken build was taken back after {:?}", begun.elapsed());
}

fn everything_ends(tree: &mut Tree) {
    let pids: Vec<u64> = tree.table().iter().map(|row| row["pid"].as_u64().unwrap()).collect();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(tree.moxd.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = tree.moxd.wait().unwrap();
    assert!(status.success(), "{status}");
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives on");
    }
    let mut nothing = Vec::new();
    assert!(
        TcpStream::connect(("127.0.0.1", 25 + tree.offset))
            .map(|mut s| s.read_to_end(&mut nothing))
            .is_err()
    );
}

/// Without root there is no uid for each process and no bound on its threads.
fn a_required_wall_that_is_missing_refuses_the_start() {
    println!("walls that are required and missing");
    let binaries = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    install(binaries.path());
    let dir = tempfile::tempdir().unwrap();
    let uid = nix::unistd::geteuid().is_root().then_some(64_125);
    for folder in [dir.path(), binaries.path()] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(folder, uid, uid).unwrap();
    }
    let (file, data) = (dir.path().join("mox.toml"), dir.path().join("data"));
    let port = 9_000 + u16::try_from(std::process::id() % 900).unwrap();
    let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    std::fs::set_permissions(dir.path().join("notify"), PermissionsExt::from_mode(0o777)).unwrap();
    told.set_nonblocking(true).unwrap();
    for layer in ["uid", "threads"] {
        let text = format!(
            "hostname = \"mail.example.org\"\ndata_dir = {data:?}\n[sandbox]\n\
             require = [\"seccomp\", {layer:?}]\n[listener.a]\nips = [\"127.0.0.1\"]\n\
             smtp = {{ port = {port} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        let mut command = Command::new(binaries.path().join("moxd"));
        command.arg("serve").arg("--config").arg(&file);
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut moxd = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        moxd.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(moxd.0.wait().unwrap().code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("moxd: ") && last.contains("[sandbox] require"), "{said}");
        assert!(last.contains(&format!(" lacks the wall {layer},")), "{said}");
        let role = last.trim_start_matches("moxd: ").split(['.', ' ']).next().unwrap();
        assert!(role.parse::<Role>().is_ok(), "{said}");
        let log = std::fs::read_to_string(data.join("log").join(format!("{role}.log"))).unwrap();
        assert!(log.contains(&format!("the required layer {layer} does not stand")), "{log}");
        assert!(told.recv(&mut [0; 64]).is_err(), "it was never ready");
    }
}

/// `moxd serve` with a file: reload, refusal, log files.
fn a_file_is_applied_whole_or_not_at_all(uid: Option<u32>) {
    println!("serve");
    let binaries = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    install(binaries.path());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mox.toml");
    let data = dir.path().join("data");
    let base = 10_000 + u16::try_from(std::process::id() % 3900).unwrap();
    let write = |port: u16, more: &str| {
        let text = format!(
            "hostname = \"mail.example.org\"\ndata_dir = {data:?}\n{more}\n[listener.a]\n\
             ips = [\"127.0.0.1\"]\nsmtp = {{ port = {port} }}\n[listener.b]\n\
             ips = [\"127.0.0.1\"]\nsmtp = {{ port = {second} }}\n",
            second = base + 2,
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    };
    for folder in [dir.path(), binaries.path()] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(folder, uid, uid).unwrap();
    }
    write(base, "");
    // As systemd starts it: with a way to be told, watched, and with its ports bound already.
    let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    std::fs::set_permissions(dir.path().join("notify"), PermissionsExt::from_mode(0o777)).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let notified = || {
        let mut octets = [0; 256];
        let length = told.recv(&mut octets).unwrap();
        String::from_utf8(octets[..length].to_vec()).unwrap()
    };
    let state = || std::iter::repeat_with(notified).find(|said| said != "WATCHDOG=1").unwrap();
    let [first, second] =
        [base, base + 2].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    // Who connects before it runs is answered if these very sockets go on.
    let early = [base, base + 2].map(|port| TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$0\" serve --config \"$1\"",
        ])
        .arg(binaries.path().join("moxd"))
        .arg(&file)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("LISTEN_FDS", "2")
        .env("LISTEN_PID", "")
        .env("WATCHDOG_USEC", "1000000")
        .stdin(Stdio::from(OwnedFd::from(first)))
        .stdout(Stdio::from(OwnedFd::from(second)));
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut moxd = Ended(command.spawn().unwrap());
    // It holds the listener too.
    drop(command);
    let control = data.join("run/control/moxd");
    let table = || -> Vec<Value> {
        let lines = orders::give(&control, Order::Processes).unwrap_or_default();
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain: {what}\n{:#?}", table());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let whole = || !table().is_empty() && table().iter().all(|row| row["state"] == "serving");
    let pid = |process: &str| {
        table().iter().find(|row| row["process"] == process).and_then(|row| row["pid"].as_u64())
    };
    let answers = |port: u16| {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
        let mut answer = String::new();
        (&stream).write_all(b"pid\n").is_ok()
            && BufReader::new(&stream).read_line(&mut answer).is_ok()
            && answer.trim_end().parse().ok() == pid("smtpd-mx")
    };
    assert_eq!(state(), "READY=1");
    wait("everything serves", &whole);
    assert!(answers(base));
    assert_eq!(pid("imapd-front"), None, "nobody serves what is not configured");
    for stream in &early {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut stream, mut answer) = (stream, String::new());
        stream.write_all(b"pid\n").unwrap();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end().parse().ok(), pid("smtpd-mx"));
    }
    // Again and again, not only at the start.
    for _ in 0..3 {
        assert!(std::iter::repeat_with(notified).take(8).any(|said| said == "WATCHDOG=1"));
    }

    let front = Role::ImapdFront;
    for order in [Order::Restart(front), Order::LogLevel(Some(front), config::Level::Info)] {
        let absent = orders::give(&control, order).unwrap_err().to_string();
        assert_eq!(absent, "error: imapd-front is not in this configuration");
    }

    let (mx, accountd) = (pid("smtpd-mx"), pid("accountd"));
    write(base + 1, "unknown = 1");
    let refused = orders::give(&control, Order::Reload).unwrap_err().to_string();
    let place = format!("{}:3:1: unknown key \"unknown\"", file.display());
    assert!(refused.contains(&place), "{refused}");
    assert_eq!((pid("smtpd-mx"), pid("accountd")), (mx, accountd), "nothing has changed");
    assert!(answers(base));

    write(base + 1, "[sandbox]\nrequire = [\"seccomp\", \"uid\"]");
    let refused = orders::give(&control, Order::Reload).unwrap_err().to_string();
    assert!(refused.contains("lacks the wall uid,"), "{refused}");
    assert_eq!((pid("smtpd-mx"), pid("accountd")), (mx, accountd), "nothing has changed");
    assert!(answers(base));

    write(base + 1, "");
    // It is not busy any more after one that was refused, either.
    for _ in 0..2 {
        for begins in ["RELOADING=1\nMONOTONIC_USEC=", "READY=1"] {
            assert!(state().starts_with(begins));
        }
    }
    let replaced = orders::give(&control, Order::Reload).unwrap();
    assert_eq!(replaced, ["smtpd-mx is replaced"]);
    wait("the new port answers", &|| whole() && answers(base + 1));
    assert!(TcpStream::connect(("127.0.0.1", base)).is_err(), "the old port is closed");
    assert_eq!(pid("accountd"), accountd, "accountd has nothing to do with it");

    write(base + 1, "[log]\nlevel = \"debug\"\n[limits.smtp]\nrecipients = 500");
    signal(moxd.0.id(), nix::sys::signal::Signal::SIGHUP);
    let second = pid("smtpd-mx");
    wait("the signal does it too", &|| whole() && pid("smtpd-mx") != second);

    let files = orders::give(&control, Order::LogFiles).unwrap();
    assert_eq!(files.len(), Role::ALL.len());
    let log = data.join("log/smtpd-mx.log");
    assert!(files.contains(&log.display().to_string()));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("smtpd-mx ") && text.contains("draining"), "{text}");

    signal(moxd.0.id(), nix::sys::signal::Signal::SIGTERM);
    assert!(moxd.0.wait().unwrap().success());
    assert!(std::iter::repeat_with(state).take(8).any(|said| said == "STOPPING=1"));
}

/// Killed when a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}
