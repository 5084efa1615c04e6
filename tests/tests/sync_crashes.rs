//! A vault of the real tree that dies at the n-th of its syncs, for many n, under load: nothing that
//! was acknowledged is lost: no message, and no key whose record was told. Done by strace, which kills
//! it as it asks for the sync.
//!
//! Some n in the gate, more with `MOX_NIGHTLY=1`; with a uid per role, and without root.
//!
//! The processes are not made to be looked at: they cannot be traced by their own uid, and the
//! supervisor starts them again at once. So this program itself is installed under the names of the
//! vaults; started by the supervisor, it becomes the real one, behind strace if it finds an order to
//! do so. strace leaves (`-D`) the place of the supervisor's child to the process it watches.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test program tells what it tries")]

use daemon::orders::Order;
use ipc::Role;
use mox_tests::{
    load::{Load, Way, each_is_there_once, total},
    tree::{As, Options, Tree, binary, wait_until},
};
use std::{
    collections::BTreeSet,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

/// Who dies.
const VAULTS: [Role; 3] = [Role::Accountd, Role::QueueRunner, Role::Keyholder];

/// Who runs the tree without root, if we are root.
const USER: u32 = 64_312;

/// How long it may take until a process has asked for so many syncs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Crashes of one tree: the supervisor waits longer and longer before it starts a process again.
const CRASHES_OF_TREE: usize = 5;

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    if let Some(vault) = VAULTS.into_iter().find(|role| role.name() == name) {
        eprintln!("{}", become_it(vault));
        return ExitCode::FAILURE;
    }
    if std::env::args().any(|arg| arg == "--list") {
        // Named among the ignored ones it would never be run.
        if !std::env::args().any(|arg| arg == "--ignored") {
            println!("what_was_acknowledged_survives_a_crash_at_any_sync: test");
        }
        return ExitCode::SUCCESS;
    }
    let strace = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    if !strace.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no strace, though this is the pipeline");
        eprintln!("SKIPPED: needs strace");
        return ExitCode::SUCCESS;
    }
    let me = rustix::process::geteuid();
    trial(As::User(if me.is_root() { USER } else { me.as_raw() }));
    if me.is_root() {
        trial(As::whoever());
    }
    ExitCode::SUCCESS
}

/// Where an installation has what.
struct Installed(PathBuf);

impl Installed {
    fn real(&self, role: Role) -> PathBuf {
        self.0.join("real").join(role.binary())
    }

    /// The order to die at a sync: its number.
    fn order(&self, role: Role) -> PathBuf {
        self.0.join("orders").join(role.binary())
    }

    fn make(folder: &Path) -> Self {
        let installed = Self(folder.to_owned());
        let mode = |path: &Path, bits| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
        };
        mode(folder, 0o755);
        for (name, bits) in [("real", 0o755), ("orders", 0o777)] {
            std::fs::create_dir(folder.join(name)).unwrap();
            mode(&folder.join(name), bits);
        }
        for role in Role::ALL {
            let path = folder.join(role.binary());
            if VAULTS.contains(&role) {
                std::fs::hard_link(binary(role.binary()), installed.real(role)).unwrap();
                std::fs::hard_link(std::env::current_exe().unwrap(), path).unwrap();
            } else if !path.exists() {
                std::fs::hard_link(binary(role.binary()), path).unwrap();
            }
        }
        std::fs::hard_link(binary("moxd"), folder.join("moxd")).unwrap();
        installed
    }
}

/// Becomes the real process; comes back only with an error.
fn become_it(role: Role) -> std::io::Error {
    let own = std::env::current_exe().unwrap_or_default();
    let installed = Installed(own.parent().map(Path::to_owned).unwrap_or_default());
    let order = installed.order(role);
    let Ok(number) = std::fs::read_to_string(&order) else {
        return Command::new(installed.real(role)).arg0(role.name()).exec();
    };
    // Once: its next life shall live.
    if let Err(error) = std::fs::remove_file(&order) {
        return error;
    }
    let inject = format!("inject=fsync,fdatasync:signal=KILL:when={number}");
    let mut strace = Command::new("/usr/bin/strace");
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"]);
    strace.arg(inject).arg(installed.real(role)).exec()
}

/// Numbers of syncs.
fn numbers() -> Vec<usize> {
    if std::env::var_os("MOX_NIGHTLY").is_some() { (1..=20).collect() } else { vec![1, 2, 4] }
}

/// DKIM keys that keyholder makes for a domain, one domain after the other.
struct Keys {
    /// The domain whose keys are made last.
    last: String,
    domains: usize,
    /// Records of the first domain, as they were told: whoever published one relies on its key.
    told: BTreeSet<String>,
}

impl Keys {
    fn begin(tree: &Tree) -> Self {
        let added = tree.moxctl(&["domain", "add", "kept.example", ""]);
        assert!(added.status.success(), "{added:?}");
        let mut told = BTreeSet::new();
        let both = wait_until(PATIENCE, || {
            told = Self::read(tree);
            told.len() == 2
        });
        assert!(both, "no keys were made: {told:?}");
        Self { last: String::new(), domains: 0, told }
    }

    fn read(tree: &Tree) -> BTreeSet<String> {
        let status = String::from_utf8(tree.moxctl(&["status"]).stdout).unwrap();
        let own = status.lines().filter(|line| line.contains("._domainkey.kept.example"));
        own.map(str::to_owned).collect()
    }

    /// A domain more, in place of the last one: with it come two keys. Whatever becomes of them, the
    /// domain is there.
    fn add_some(&mut self, tree: &Tree) {
        if !self.last.is_empty() {
            let _ = tree.moxctl(&["domain", "remove", &self.last]);
        }
        self.domains += 1;
        self.last = format!("d{}.example", self.domains);
        let _ = tree.moxctl(&["domain", "add", &self.last, ""]);
    }

    fn are_all_there(&self, tree: &Tree) {
        let all = || self.told.is_subset(&Self::read(tree));
        assert!(wait_until(PATIENCE, all), "lost: {:?} of {:?}", self.told, Self::read(tree));
    }
}

fn trial(who: As) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let installed = Installed::make(folder.path());
    let binaries = Some(folder.path().to_owned());
    let mut tree = Tree::with(Options { who, binaries, ..Options::default() });
    println!("{who:?}");
    let load = Load::start(&tree, &[Way::Mx, Way::Mx, Way::Submission, Way::Submission], 0);
    let numbers = numbers();
    let (mut died, mut keys) = (0, Keys::begin(&tree));
    for some in numbers.chunks(CRASHES_OF_TREE) {
        for (number, role) in some.iter().flat_map(|n| VAULTS.map(|role| (n, role))) {
            let before = tree.process(role).unwrap().lives;
            std::fs::write(installed.order(role), number.to_string()).unwrap();
            tree.order(Order::Restart(role)).unwrap();
            // One end was ordered; the next is its death, and then it is there again.
            let mut last_end = String::new();
            let again = wait_until(PATIENCE, || {
                if role == Role::Keyholder {
                    // It syncs nothing but what it makes.
                    keys.add_some(&tree);
                }
                let again = tree.process(role).filter(|process| process.lives >= before + 2);
                last_end = again.map(|process| process.last_end).unwrap_or_default();
                !last_end.is_empty()
            });
            assert!(again, "{role} never came to sync {number}");
            assert_eq!(last_end, "signal 9", "{role} at sync {number}");
            println!("{role} died at sync {number}");
            died += 1;
            tree.wait_until_whole();
            keys.are_all_there(&tree);
        }
        tree.crash_and_restart();
        keys.are_all_there(&tree);
    }
    let sent = load.finish();
    println!("{who:?}: {} messages, {died} deaths", total(&sent));
    each_is_there_once(&tree, &sent);
}
