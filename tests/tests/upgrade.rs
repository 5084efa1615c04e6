//! `moxctl upgrade` under load, to a build with another id: no connection is refused, no message is
//! lost, nobody waits longer than draining may take. And a build that does not come to serve is
//! left again for the old one.
//!
//! In the gate the other build is a copy of the binaries with the id in them replaced: what a build
//! made with another `MOX_BUILD_ID` differs in, without making one. With `MOX_NIGHTLY=1` cargo makes
//! it. The build that fails costs 30 s and more, so it is tried with `MOX_NIGHTLY=1` alone (the gate
//! has `bins/moxd/tests/tree.rs`, with roles made for the test).

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests")]

use ipc::{BuildId, Role};
use mox_tests::{
    client::Imap,
    load::{Load, PASSWORD, USER, Way, each_is_there_once},
    needs_root,
    second_build::second_build,
    tree::{Options, Tree, binary, wait_until},
    wire::Wire,
};
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

/// The id of the other build.
const OTHER: &str = "another-build-id";

/// What nobody waits longer than: the drain deadline and two seconds.
const LONGEST: Duration = Duration::from_secs(12);

/// A new tree that does not serve is given up within this and a bit.
const CALLED_BACK: Duration = Duration::from_secs(90);

/// Binaries in a folder of their own, as a package installs them.
struct Installed(tempfile::TempDir);

impl Installed {
    /// Those of this build.
    fn ours() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in names() {
            std::fs::hard_link(binary(name), folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Installs another one over it, as a package manager does: written beside, then renamed.
    fn replace(&self, name: &str, octets: &[u8]) {
        use std::os::unix::fs::PermissionsExt as _;
        let beside = self.path("new");
        std::fs::write(&beside, octets).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&beside, self.path(name)).unwrap();
    }

    /// Installs the other build over this one.
    fn upgrade(&self, other: &Other) {
        for (name, octets) in &other.0 {
            self.replace(name, octets);
        }
    }

    /// What the installed moxctl says.
    fn status(&self, tree: &Tree) -> String {
        let mut moxctl = Command::new(self.path("moxctl"));
        let output = moxctl.arg("--control").arg(tree.control()).arg("status").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }
}

/// The other build: its binaries by their names.
struct Other(Vec<(&'static str, Vec<u8>)>);

impl Other {
    /// Made by cargo, or from this one.
    fn new() -> Self {
        if nightly() { Self::built() } else { Self::patched() }
    }

    fn built() -> Self {
        let begun = Instant::now();
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let names: Vec<&str> = names().into_iter().collect();
        let folder = second_build(place, OTHER, &names);
        eprintln!("the second build took {:?}", begun.elapsed());
        let octets = |name| std::fs::read(folder.join(name)).unwrap();
        let other: Vec<_> = names.into_iter().map(|name| (name, octets(name))).collect();
        for (name, octets) in &other {
            let ours = memchr::memmem::find(octets, &BuildId::OURS.to_bytes());
            assert!(ours.is_none(), "{name} is of the first build");
        }
        Self(other)
    }

    fn patched() -> Self {
        let patched = |name| {
            let mut octets = std::fs::read(binary(name)).unwrap();
            let ours = BuildId::OURS.to_bytes();
            let found: Vec<usize> = memchr::memmem::find_iter(&octets, &ours).collect();
            assert!(!found.is_empty(), "{name} has no build id");
            for at in found {
                let id = octets.get_mut(at..at + OTHER.len()).unwrap();
                id.copy_from_slice(OTHER.as_bytes());
            }
            (name, octets)
        };
        Self(names().into_iter().map(patched).collect())
    }
}

fn nightly() -> bool {
    std::env::var_os("MOX_NIGHTLY").is_some()
}

fn names() -> BTreeSet<&'static str> {
    Role::ALL.into_iter().map(Role::binary).chain(["moxd", "moxctl"]).collect()
}

fn start(installed: &Installed) -> Tree {
    Tree::with(Options { binaries: Some(installed.0.path().to_owned()), ..Options::default() })
}

fn pids(tree: &Tree) -> BTreeSet<u32> {
    tree.processes().into_iter().map(|process| process.pid).collect()
}

/// Of which build the programs are that run; for a plain user that is what `moxctl status` says.
fn all_are_of(tree: &Tree, id: &[u8]) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let processes = tree.processes();
    !processes.is_empty()
        && processes.iter().all(|process| {
            let exe = std::fs::read(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
            memchr::memmem::find(&exe, id).is_some()
        })
}

/// Networks of their own: connections are limited by where they come from.
fn source(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 190, number * 8, 1)
}

/// Of what one client had to wait for: the longest time.
#[derive(Default)]
struct Waited(Duration);

impl Waited {
    /// Tries again until it works. A server that ends says so or closes, and another one takes the
    /// next connection; a connection that is refused is a fault.
    fn until<T>(&mut self, mut attempt: impl FnMut() -> io::Result<T>) -> T {
        let begun = Instant::now();
        loop {
            match attempt() {
                Ok(done) => {
                    self.0 = self.0.max(begun.elapsed());
                    return done;
                }
                Err(error) => {
                    let refused = Errno::from_io_error(&error) == Some(Errno::CONNREFUSED);
                    assert!(!refused, "a connection was refused: {error}");
                    assert!(begun.elapsed() < CALLED_BACK, "no success for long: {error}");
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

fn log_in(number: u8, address: SocketAddr) -> io::Result<Imap> {
    let mut imap = Imap::log_in_from(source(number), address, USER, PASSWORD)?;
    if !imap.command("SELECT INBOX")?.is_ok() {
        return Err(io::Error::other("no inbox for now"));
    }
    Ok(imap)
}

/// Waits for new mail; comes again when it is sent away.
fn idle(number: u8, address: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut waited = Waited::default();
    while !stop.load(Ordering::Relaxed) {
        let mut imap = waited.until(|| {
            let mut imap = log_in(number, address)?;
            imap.start("IDLE")?;
            Ok(imap)
        });
        // Mail comes all the time, so there is always something to hear, at the end BYE.
        while imap.response().is_ok() && !stop.load(Ordering::Relaxed) {}
    }
    waited.0
}

/// Reads again and again.
fn fetch(number: u8, address: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut waited = Waited::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        waited.until(|| {
            let mut imap: Imap = match connection.take() {
                Some(open) => open,
                None => log_in(number, address)?,
            };
            let fetched = imap.command("FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[TEXT]<0.20>)")?;
            // BAD: the mailbox was empty as the session saw it.
            if fetched.is_ok() || fetched.tagged.starts_with("BAD") {
                connection = Some(imap);
                return Ok(());
            }
            Err(io::Error::other(fetched.tagged))
        });
        thread::sleep(Duration::from_millis(50));
    }
    waited.0
}

/// Asks for a page, a new connection each time. While it drains, the answer may be 503.
fn browse(number: u8, address: SocketAddr, stop: &AtomicBool) -> Duration {
    again_and_again(stop, || {
        let mut wire = Wire::dial_from(source(number), address)?;
        wire.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 8];
        wire.read_exact(&mut answer)
    })
}

/// Shakes hands and waits for the greeting, a new connection each time.
fn greet(number: u8, address: SocketAddr, stop: &AtomicBool) -> Duration {
    again_and_again(stop, || {
        Wire::dial_from(source(number), address)?.secured().and_then(Imap::over).map(drop)
    })
}

fn again_and_again(stop: &AtomicBool, mut attempt: impl FnMut() -> io::Result<()>) -> Duration {
    let mut waited = Waited::default();
    while !stop.load(Ordering::Relaxed) {
        waited.until(&mut attempt);
        thread::sleep(Duration::from_millis(250));
    }
    waited.0
}

/// Upgrades under load, waits until `done`, and looks at what the clients met.
fn under_load(tree: &Tree, longest: Duration, upgrade: impl FnOnce(), done: impl Fn() -> bool) {
    let stop = &AtomicBool::new(false);
    let (imap, imaps, http) = (tree.address(143), tree.address(993), tree.address(80));
    let load = Load::start(tree, &[Way::Mx, Way::Mx, Way::Submission, Way::Submission], 0);
    thread::scope(|scope| {
        let mut readers: Vec<ScopedJoinHandle<'_, Duration>> = Vec::new();
        readers.extend((0..10).map(|n| scope.spawn(move || idle(n, imap, stop))));
        readers.push(scope.spawn(move || fetch(20, imap, stop)));
        readers.push(scope.spawn(move || browse(22, http, stop)));
        readers.push(scope.spawn(move || greet(21, imaps, stop)));
        thread::sleep(Duration::from_secs(1));
        upgrade();
        let upgraded = wait_until(CALLED_BACK, &done);
        thread::sleep(Duration::from_secs(1));
        // Mail goes on for a moment, so that who waits for some hears of the end.
        stop.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(500));
        let sent = load.finish();
        let waits: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(upgraded, "it did not come to an end");
        eprintln!("senders: {sent:#?}; readers: {waits:?}");
        for waited in sent.iter().map(|sent| &sent.longest).chain(&waits) {
            assert!(*waited <= longest, "somebody waited {waited:?}");
        }
        assert!(sent.iter().all(|sent| sent.refused == 0), "connections were refused");
        each_is_there_once(tree, &sent);
    });
}

fn is_deleted(link: &Path) -> bool {
    std::fs::read_link(link).unwrap().to_string_lossy().ends_with(" (deleted)")
}

#[test]
fn another_build_takes_over_under_load() {
    // Without it the rest is tried all the same.
    let _ = needs_root("look into the programs that run");
    let (installed, other) = (Installed::ours(), Other::new());
    let tree = start(&installed);
    let before = pids(&tree);
    assert!(all_are_of(&tree, &BuildId::OURS.to_bytes()));
    let status = installed.status(&tree);
    assert!(status.contains(&format!("build: {}\n", BuildId::OURS)), "{status}");
    let begun = Instant::now();
    let upgrade = || {
        installed.upgrade(&other);
        let ordered = tree.moxctl(&["upgrade"]);
        assert!(ordered.status.success(), "{ordered:?}");
    };
    let done = || {
        let now = pids(&tree);
        now.len() == before.len() && now.is_disjoint(&before) && all_are_of(&tree, OTHER.as_bytes())
    };
    under_load(&tree, LONGEST, upgrade, done);
    eprintln!("all of it took {:?}", begun.elapsed());
    let status = installed.status(&tree);
    assert!(status.contains(&format!("build: {OTHER}\n")), "{status}");
    let supervisor = PathBuf::from(format!("/proc/{}/exe", tree.supervisor()));
    assert!(!is_deleted(&supervisor), "the old supervisor still runs");
}

#[test]
fn a_build_that_does_not_serve_is_left_again() {
    if !nightly() {
        eprintln!("SKIPPED: takes 40 s, runs with MOX_NIGHTLY=1");
        return;
    }
    let (installed, other) = (Installed::ours(), Other::new());
    let tree = start(&installed);
    let before = pids(&tree);
    let upgrade = || {
        installed.upgrade(&other);
        installed.replace("keyholder", &std::fs::read("/bin/false").unwrap());
        assert!(tree.moxctl(&["upgrade"]).status.success());
    };
    let done = || {
        let now = pids(&tree);
        now.len() == before.len()
            && now.is_disjoint(&before)
            && all_are_of(&tree, &BuildId::OURS.to_bytes())
    };
    // The new tree has 30 s to come to serve.
    under_load(&tree, LONGEST * 2 + Duration::from_secs(30), upgrade, done);
    let supervisor = PathBuf::from(format!("/proc/{}/exe", tree.supervisor()));
    assert!(is_deleted(&supervisor), "the new supervisor still runs");
}
