//! The walls, tried on this machine by twins: each role, each layer alone and together.
//!
//! Run as root, each role's twin has a uid of its own, as in service; otherwise all share this
//! user's, as in a tree that was started without root. What only uids can refuse is asked for
//! under root only.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sandbox::Profile;
use sandbox::profiles;
use sandbox::trial::{Action, Layers, Outcome, Targets, Trial, Verdict, table};

const UID_BASE: u32 = 52_000;

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `target/debug/examples/NAME`, which `cargo test` builds beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build -p sandbox --examples", path.display());
    path
}

fn trial(profile: &'static Profile) -> Trial {
    let number = profiles::ALL.iter().position(|other| other.role == profile.role);
    let uid = UID_BASE + u32::try_from(number.unwrap_or(99)).unwrap();
    let own = (profile.folders == sandbox::Folders::Own).then(|| PathBuf::from("/usr/share"));
    Trial {
        profile,
        binary: example("twin"),
        identity: root().then_some((uid, uid)),
        own_folder: own,
        read_only: Vec::new(),
    }
}

fn refusal(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Refused { by, .. } => Some(by),
        Verdict::Own | Verdict::Allowed | Verdict::NotTried { .. } => None,
    }
}

#[test]
fn every_role_is_refused_everything_but_its_own_work() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let file = folder.path().join("account.db");
    std::fs::write(&file, b"mail").unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = |path: &std::path::Path| Some(path.to_str().unwrap().to_owned());
    let targets = Targets {
        account_file: text(&file),
        key_folder: text(folder.path()),
        peer_socket: text(&socket),
        sibling: None,
    };
    let trials: Vec<Trial> = profiles::ALL.into_iter().map(trial).collect();
    let rows = table(&trials, &targets).unwrap();
    assert_eq!(rows.len(), 12 * Action::ALL.len());
    let holes: Vec<_> = rows
        .iter()
        .filter(|row| refusal(&row.verdict).is_none() && row.verdict != Verdict::Own)
        .collect();
    assert!(holes.is_empty(), "{holes:#?}");
    let by = |role: &str, action: &str| {
        let row = rows.iter().find(|row| row.role == role && row.action == action).unwrap();
        refusal(&row.verdict).unwrap_or("own").to_owned()
    };
    // The table of the design: what each layer is the first to refuse.
    assert_eq!(by("parser", "open-system-file"), "landlock");
    assert_eq!(by("parser", "inet-socket"), "seccomp");
    assert_eq!(by("parser", "executable-memory"), "seccomp");
    assert_eq!(by("parser", "execute"), "landlock");
    assert_eq!(by("accountd", "open-system-file"), "landlock");
    assert_eq!(by("smtpd-mx", "listen"), "seccomp");
    assert_eq!(by("outbound", "inet-socket"), "own");
    assert_eq!(by("outbound", "inet-datagram"), "seccomp");
    assert_eq!(by("outbound", "listen"), "seccomp");
    assert_eq!(by("smtpd-mx", "connect-listener"), "seccomp");
    assert_eq!(by("smtpd-mx", "end-listener"), "seccomp");
    assert_eq!(by("outbound", "mount"), "uids");
    if root() {
        for action in [
            "signal-sibling",
            "signal-supervisor",
            "trace-sibling",
            "open-account-file",
            "open-key-folder",
            "connect-peer-socket",
            "reopen-for-writing",
        ] {
            assert_eq!(by("smtpd-mx", action), "uids", "{action}");
        }
    }
    // What the supervisor sends to moxctl is read back.
    let json = serde_json::to_string(&rows).unwrap();
    assert_eq!(serde_json::from_str::<Vec<sandbox::trial::Row>>(&json).unwrap(), rows);
}

#[test]
fn a_hole_is_seen() {
    // Only the role's name matters on this side: the twin has the profile.
    static WEAK: Profile = Profile { role: "weak-parser", ..profiles_parser() };
    const fn profiles_parser() -> Profile {
        Profile {
            role: "",
            grants: &[],
            limits: sandbox::Limits {
                open_files: 0,
                memory: 0,
                file_size: None,
                threads: 0,
                cpu_seconds: None,
            },
            folders: sandbox::Folders::None,
            tcp: sandbox::Tcp::None,
        }
    }
    let weak = trial(&WEAK);
    let targets = Targets::default();
    for action in [
        Action::ExecutableMemory,
        Action::InetSocket,
        Action::InetConnect,
        Action::NetlinkSocket,
        Action::Fork,
    ] {
        assert_eq!(weak.verdict(action, &targets), Verdict::Allowed, "{action:?}");
    }
    for action in [Action::Execute, Action::Listen, Action::IoUring] {
        assert!(refusal(&weak.verdict(action, &targets)).is_some(), "{action:?}");
    }
}

#[test]
fn each_layer_alone() {
    let parser = trial(&profiles::PARSER);
    let targets = Targets::default();
    let run = |layers, action| parser.run(layers, action, &targets).unwrap();
    assert_eq!(run(Layers::Uids, Action::OpenSystemFile), Outcome::Allowed);
    assert_eq!(run(Layers::Landlock, Action::OpenSystemFile), Outcome::Refused(13));
    assert_eq!(run(Layers::All, Action::OpenSystemFile), Outcome::Killed);
    assert_eq!(run(Layers::Uids, Action::Execute), Outcome::Allowed);
    assert_eq!(run(Layers::Landlock, Action::ExecutableMemory), Outcome::Allowed);
    assert_eq!(run(Layers::All, Action::ExecutableMemory), Outcome::Killed);
    assert_eq!(run(Layers::Landlock, Action::Listen), Outcome::Allowed);
    assert_eq!(run(Layers::All, Action::Listen), Outcome::Killed);
    // Without a target nothing is claimed.
    assert_eq!(run(Layers::All, Action::SignalSibling), Outcome::NoTarget);
    assert_eq!(run(Layers::All, Action::OpenKeyFolder), Outcome::NoTarget);
}

#[test]
fn a_twin_that_cannot_confine_itself_is_no_result() {
    let mut accountd = trial(&profiles::ACCOUNTD);
    accountd.own_folder = Some("/no/such/folder".into());
    let error = accountd.run(Layers::All, Action::Fork, &Targets::default()).unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
    if root() {
        let mut parser = trial(&profiles::PARSER);
        parser.identity = None;
        let error = parser.run(Layers::All, Action::Fork, &Targets::default()).unwrap_err();
        assert!(error.to_string().contains("refuses to run as root"), "{error}");
    }
}
