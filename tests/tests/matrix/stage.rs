//! The real tree with one binary replaced by `impostor`, and what it said.

use ipc::schema::control_capnp::{account_admin, key_control};
use mox_tests::tree::{As, Options, PORT_OFFSET, Tree, binary, wait_until};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// A user without rights, where the test is root.
const PLAIN_UID: u32 = 63_600;
/// By then an attack has come to its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The password of [`USER`].
pub(crate) const PASSWORD: &str = "correct horse battery";
/// The one of [`OTHER`].
pub(crate) const OTHER_PASSWORD: &str = "a staple of another kind";
/// Who types it into the process that was taken over.
pub(crate) const USER: &str = "ann@example.org";
/// Who does not.
pub(crate) const OTHER: &str = "bob@example.org";
const ADMIN_PASSWORD: &str = "administrators know this";
/// The public half of a client key of [`OTHER`].
const CLIENT_KEY: [u8; 32] = [0xab; 32];

/// The binaries there are.
const BINARIES: [&str; 9] = [
    "accountd",
    "httpd",
    "imapd",
    "keyholder",
    "outbound",
    "parser",
    "queue-runner",
    "resolver",
    "smtpd",
];

/// Each face with a name, and so a key, of its own: only then can one be told from another.
fn settings() -> String {
    let port = |well_known: u16| well_known + PORT_OFFSET;
    let tls = "tls = { self_signed = true }";
    format!(
        "hostname = \"mx.example.org\"\ndata_dir = \"${{data}}\"\n\
         [log]\nlevel = \"info\"\n[dns]\nservers = [\"127.0.0.1:9\"]\nmode = \"trust-ad\"\n\
         [listener.mx]\nips = [\"${{ip}}\"]\nhostname = \"mx.example.org\"\n{tls}\n\
         smtp = {{ port = {} }}\n\
         [listener.submit]\nips = [\"${{ip}}\"]\nhostname = \"submit.example.org\"\n{tls}\n\
         submission = {{ port = {}, require_tls = false }}\n\
         [listener.imap]\nips = [\"${{ip}}\"]\nhostname = \"imap.example.org\"\n{tls}\n\
         imap = {{ port = {}, require_tls = false }}\n\
         [listener.web]\nips = [\"${{ip}}\"]\nhostname = \"www.example.org\"\n{tls}\n\
         https = {{ port = {} }}\n\
         [listener.admin]\nips = [\"${{ip}}\"]\nhostname = \"admin.example.org\"\n{tls}\n\
         admin = {{ port = {} }}\n",
        port(25),
        port(587),
        port(143),
        port(443),
        port(8443),
    )
}

/// A server with two accounts and a hosted domain, stopped: the scene before the take-over.
pub(crate) struct Stage {
    place: tempfile::TempDir,
    orders: serde_json::Value,
    /// What keyholder has on the disk.
    pub(crate) secrets: Vec<Vec<u8>>,
}

impl Stage {
    /// Sets it.
    pub(crate) fn set() -> Self {
        let place = tempfile::tempdir().unwrap();
        let stage = Self { place, orders: serde_json::Value::Null, secrets: Vec::new() };
        passable(stage.place.path());
        let tree = stage.tree(None);
        let run = |args: &[&str], password: &str| {
            let reads = !password.is_empty();
            let output = if reads { tree.moxctl_with(args, password) } else { tree.moxctl(args) };
            assert!(output.status.success(), "{args:?}: {output:?}");
        };
        run(&["domain", "add", "example.org", ""], "");
        run(&["account", "add", "ann", USER], PASSWORD);
        run(&["account", "add", "bob", OTHER], OTHER_PASSWORD);
        let fingerprint: String = CLIENT_KEY.iter().map(|octet| format!("{octet:02x}")).collect();
        run(&["clientkey", "add", "bob", &fingerprint, OTHER], "");
        let keys = tls_keys(&tree);
        set_admin_password(&tree);
        let secrets = files_below(&tree.folder().join("keys"));
        drop(tree);
        let orders = serde_json::json!({
            "user": USER, "password": PASSWORD, "other": OTHER, "domain": "example.org",
            "admin_password": ADMIN_PASSWORD, "keys": keys, "client_key": CLIENT_KEY,
        });
        Self { orders, secrets, ..stage }
    }

    fn tree(&self, binaries: Option<PathBuf>) -> Tree {
        let me = rustix::process::geteuid();
        Tree::with(Options {
            who: As::User(if me.is_root() { PLAIN_UID } else { me.as_raw() }),
            folder: Some(self.place.path().join("data/mox")),
            settings: Some(settings()),
            binaries,
            ..Options::default()
        })
    }

    /// Starts the tree with the impostor in place of a binary.
    pub(crate) fn taken_over(&self, taken: &str) -> Tree {
        assert!(BINARIES.contains(&taken));
        let folder = self.place.path().join("binaries");
        std::fs::create_dir(&folder).unwrap();
        passable(&folder);
        for name in BINARIES.into_iter().filter(|name| *name != taken) {
            std::os::unix::fs::symlink(binary(name), folder.join(name)).unwrap();
        }
        // These two look beside themselves, and must find this folder.
        for (from, to) in [("moxd", "moxd"), ("impostor", taken)] {
            let (from, to) = (binary(from), folder.join(to));
            if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).unwrap();
            }
        }
        let file = folder.join("impostor.json");
        std::fs::write(&file, self.orders.to_string()).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        self.tree(Some(folder))
    }
}

fn passable(folder: &Path) {
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    let data = folder.join("data");
    if !folder.ends_with("binaries") {
        std::fs::create_dir(&data).unwrap();
    }
}

fn files_below(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Calls a vault's control socket.
fn call<C, T>(
    tree: &Tree,
    socket: &str,
    work: impl AsyncFnOnce(C) -> Result<T, ipc::capnp::Error>,
) -> T
where
    C: ipc::capnp::capability::FromClientHook + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let path = tree.control().join(socket);
    local.block_on(&runtime, async {
        let socket = tokio::net::UnixStream::connect(path).await.unwrap();
        let stream = ipc::Stream::from_unix(socket).unwrap();
        let (client, run) = ipc::connect::<C>(stream, ipc::Limits::SHORT_CALLS);
        tokio::task::spawn_local(run);
        work(client).await.unwrap()
    })
}

/// The public ids of the keys of the faces, by role.
fn tls_keys(tree: &Tree) -> BTreeMap<String, u64> {
    let lines: Vec<String> = call(tree, "keyholder", async |keys: key_control::Client| {
        let answer = keys.keys_request().send().promise.await?;
        answer.get()?.get_list()?.iter().map(|line| Ok(line?.to_string()?)).collect()
    });
    let of_tls = lines.iter().filter_map(|line| {
        let mut words = line.split(' ');
        let role = words.next().filter(|word| *word == "tls").and(words.next())?;
        Some((role.to_owned(), u64::from_str_radix(words.next()?, 16).ok()?))
    });
    let keys: BTreeMap<String, u64> = of_tls.collect();
    assert_eq!(keys.len(), 5, "{lines:?}");
    keys
}

fn set_admin_password(tree: &Tree) {
    call(tree, "accountd", async |admin: account_admin::Client| {
        let mut request = admin.admin_password_request();
        request.get().set_password(ADMIN_PASSWORD);
        request.send().promise.await.map(drop)
    });
}

/// What each impostor of a tree said, by process: attempt and outcome. A process that was started
/// again says it again, and must say the same.
pub(crate) type Said = BTreeMap<String, BTreeMap<String, String>>;

/// Waits until these processes have come to the end of their attack.
pub(crate) fn said(tree: &Tree, processes: &[&str]) -> Said {
    let read = || {
        let mut all = Said::new();
        for line in tree.logs().lines() {
            let Some((_, rest)) = line.split_once("IMPOSTOR ") else { continue };
            let parts: Vec<&str> = rest.trim_end().split(" | ").collect();
            let [process, what, outcome] = parts[..] else { panic!("{line}") };
            let of_process = all.entry(process.to_owned()).or_default();
            if let Some(before) = of_process.insert(what.to_owned(), outcome.to_owned()) {
                assert_eq!(before, outcome, "{line}");
            }
        }
        all
    };
    let ended = || {
        let all = read();
        processes.iter().all(|p| all.get(*p).is_some_and(|said| said.contains_key("end")))
    };
    assert!(wait_until(PATIENCE, ended), "{:#?}\n{}", read(), tree.logs());
    read()
}

/// Compares what a process said with what it may: `got` worked, everything else was refused, and
/// `tried` says how many attempts there were, so that none is lost.
pub(crate) fn only(said: &Said, process: &str, got: &[&str], refused: &[&str]) {
    let of_process = &said[process];
    let table = got
        .iter()
        .map(|what| ((*what).to_owned(), "Got".to_owned()))
        .chain(refused.iter().map(|what| ((*what).to_owned(), "Refused".to_owned())));
    let table: BTreeMap<String, String> = table.collect();
    let wrong: Vec<_> = of_process
        .iter()
        .filter(|(what, outcome)| table.get(*what) != Some(outcome))
        .map(|(what, outcome)| format!("{what}: {outcome}"))
        .chain(
            table
                .keys()
                .filter(|what| !of_process.contains_key(*what))
                .map(|what| format!("{what}: was not tried")),
        )
        .collect();
    assert!(wrong.is_empty(), "{process} is not as the matrix says: {wrong:#?}");
}
