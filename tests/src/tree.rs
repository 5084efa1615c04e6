//! The real tree, every process of it, in a folder and on an address of its own; ended with the test.

use daemon::orders::{self, Order};
use ipc::Role;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// The tree is whole by then, or the test fails with the log.
const START: Duration = Duration::from_secs(60);

/// What `localserve` says when every process serves.
const WHOLE: &str = "mox runs in";

/// What is added to the well-known port numbers, by [`Tree::address`] too.
pub const PORT_OFFSET: u16 = 20_000;

/// Under whom the supervisor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Root: each role its own uid, from this one on.
    Root {
        /// The first of them.
        uid_base: u32,
    },
    /// This user, for all of them.
    User(u32),
}

impl As {
    /// Root with uids for tests, or whoever runs the test.
    #[must_use]
    pub fn whoever() -> Self {
        let me = rustix::process::geteuid();
        // Limits of threads are counted by uid: trees that run side by side share none.
        let uid_base = 100_000 + own_number() % 60_000 * 16;
        if me.is_root() { Self::Root { uid_base } } else { Self::User(me.as_raw()) }
    }
}

/// How to start a tree.
pub struct Options {
    /// Under whom.
    pub who: As,
    /// A folder that is there already and stays; else a temporary one.
    pub folder: Option<PathBuf>,
    /// What is logged.
    pub log_level: &'static str,
    /// The text of a `mox.toml` to serve, with `${ip}` and `${data}` in it; else a development
    /// server. Only for [`As::User`]: root would use the control sockets of this machine's server.
    pub settings: Option<String>,
    /// Where the binaries are; else beside the tests.
    pub binaries: Option<PathBuf>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            who: As::whoever(),
            folder: None,
            log_level: "info",
            settings: None,
            binaries: None,
            environment: Vec::new(),
        }
    }
}

/// A running server.
pub struct Tree {
    moxd: Child,
    ip: Ipv4Addr,
    options: Options,
    temporary: Option<tempfile::TempDir>,
    log: Log,
}

/// What the processes of a tree have logged: in this mode they log to moxd's standard error.
type Log = Arc<Mutex<String>>;

/// A number that no other tree of this machine has at the moment: tests run side by side, in one
/// process or in many.
fn own_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::process::id().wrapping_mul(16).wrapping_add(n % 16)
}

/// An address of 127/8 that no other test of this machine has at the moment.
#[must_use]
pub fn own_address() -> Ipv4Addr {
    let [_, a, b, c] = own_number().to_be_bytes();
    // Every address of lo's 127/8 is one of this machine but 127.0.0.0 and 127.255.255.255.
    Ipv4Addr::new(127, 64 | (a & 63), b, c)
}

impl Tree {
    /// Starts one with everything at its default.
    ///
    /// # Panics
    /// When it does not come up; with its log.
    #[must_use]
    pub fn start() -> Tree {
        Self::with(Options::default())
    }

    /// Starts one.
    ///
    /// # Panics
    /// When it does not come up; with its log.
    #[must_use]
    pub fn with(options: Options) -> Tree {
        let temporary = if options.folder.is_some() { None } else { Some(passable_folder()) };
        let ip = own_address();
        let log = Log::default();
        let moxd = spawn(&options, ip, &folder_of(&options, temporary.as_ref()), &log);
        Tree { moxd, ip, options, temporary, log }
    }

    /// The address of a service, by its port, where the settings name it.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }

    /// Kills every process with SIGKILL at once, as a power cut of the processes alone, and starts
    /// the tree anew in the same folder.
    ///
    /// # Panics
    /// When it does not come up again.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// The first half of that.
    ///
    /// # Panics
    /// When a process outlives it.
    pub fn crash(&mut self) {
        let pids: Vec<u32> = self.processes().into_iter().map(|p| p.pid).collect();
        self.end();
        for pid in &pids {
            // Those that die with moxd are gone already.
            let _ = kill(*pid, rustix::process::Signal::KILL);
        }
        // The listening sockets are theirs, too, until the last one is gone.
        let gone = || pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        assert!(wait_until(START, gone), "processes outlive SIGKILL");
    }

    /// The second half.
    ///
    /// # Panics
    /// When it does not come up again.
    pub fn restart(&mut self) {
        let folder = self.folder();
        self.moxd = spawn(&self.options, self.ip, &folder, &self.log);
    }

    /// What moxd says when it does not start, after a crash.
    ///
    /// # Panics
    /// When it does start.
    #[must_use]
    pub fn refusal(&self) -> String {
        let mut command = command(&self.options, self.ip, &self.folder());
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        if let (As::User(uid), true) = (self.options.who, rustix::process::geteuid().is_root()) {
            command.uid(uid).gid(uid);
        }
        let mut moxd = command.spawn().expect("moxd starts");
        let ended = wait_until(START, || matches!(moxd.try_wait(), Ok(Some(_))));
        if !ended {
            let _ = moxd.kill();
        }
        let output = moxd.wait_with_output().expect("it ends");
        assert!(ended && !output.status.success(), "it started, though it must not");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Everything of the server.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.options, self.temporary.as_ref())
    }

    /// The address of a service, by its well-known port.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port + PORT_OFFSET)
    }

    /// The pid of moxd.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        self.moxd.id()
    }

    /// The folder of control sockets.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder().join("run/control")
    }

    /// Gives the supervisor an order.
    ///
    /// # Errors
    /// As [`orders::give`].
    pub fn order(&self, order: Order) -> std::io::Result<Vec<String>> {
        orders::give(&self.control().join("moxd"), order)
    }

    /// All processes but the supervisor, as it knows them; none while it does not answer.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let lines = self.order(Order::Processes).unwrap_or_default();
        lines.iter().filter_map(|line| Process::read(&serde_json::from_str(line).ok()?)).collect()
    }

    /// Waits until all processes serve.
    ///
    /// # Panics
    /// When they do not come to.
    pub fn wait_until_whole(&self) {
        let control = self.control().join("moxd");
        let whole = wait_until(START, || everything_serves(&control));
        assert!(whole, "not all processes serve: {:#?}", self.order(Order::Processes));
    }

    /// The pid of an instance of a role.
    #[must_use]
    pub fn pid(&self, role: Role, instance: u16) -> Option<u32> {
        let mine = |p: &Process| p.role == role && p.instance == instance;
        self.processes().into_iter().find(mine).map(|p| p.pid)
    }

    /// The first process of a role, while it runs.
    #[must_use]
    pub fn process(&self, role: Role) -> Option<Process> {
        self.processes().into_iter().find(|p| p.role == role && p.instance == 0)
    }

    /// Kills an instance of a role; waits until another one serves.
    ///
    /// # Panics
    /// When there is none, before or after.
    pub fn kill_and_wait(&self, role: Role, instance: u16) {
        let old = self.pid(role, instance).expect("it runs");
        kill(old, rustix::process::Signal::KILL).expect("it can be killed");
        let again = || self.pid(role, instance).filter(|new| *new != old);
        assert!(wait_until(START, || again().is_some()), "{role} was not started again");
    }

    /// Runs moxctl.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn moxctl(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(binary("moxctl"));
        command.arg("--control").arg(self.control()).args(args).stdin(Stdio::null());
        command.output().expect("moxctl starts")
    }

    /// Runs moxctl with a line on its standard input, such as a password.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn moxctl_with(&self, args: &[&str], line: &str) -> std::process::Output {
        use std::io::Write as _;
        let mut command = Command::new(binary("moxctl"));
        command.arg("--control").arg(self.control()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("moxctl starts");
        let mut input = child.stdin.take().expect("it was piped");
        writeln!(input, "{line}").expect("it reads");
        drop(input);
        child.wait_with_output().expect("it ends")
    }

    /// What was logged so far, for a test that looks for words.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // With settings of its own each role has a file.
        let files = std::fs::read_dir(self.folder().join("log")).into_iter().flatten();
        for file in files.flatten() {
            text.push_str(&std::fs::read_to_string(file.path()).unwrap_or_default());
        }
        text
    }

    /// Kills the supervisor, and nobody else.
    pub fn end(&mut self) {
        // Fails only if it is gone.
        let _ = self.moxd.kill();
        let _ = self.moxd.wait();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let logs = self.logs();
            let tail: Vec<&str> = logs.lines().rev().take(200).collect();
            eprintln!("the last lines of the logs:");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// A row of the process table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it is.
    pub role: Role,
    /// Which of its role.
    pub instance: u16,
    /// Its pid.
    pub pid: u32,
    /// How often it was started.
    pub lives: u64,
    /// How its life before this one ended.
    pub last_end: String,
}

impl Process {
    fn read(row: &Value) -> Option<Self> {
        Some(Self {
            role: row.get("role")?.as_str()?.parse().ok()?,
            instance: u16::try_from(row.get("instance")?.as_u64()?).ok()?,
            pid: u32::try_from(row.get("pid")?.as_u64()?).ok()?,
            lives: row.get("lives")?.as_u64()?,
            last_end: row.get("last_end")?.as_str().unwrap_or_default().to_owned(),
        })
    }
}

fn folder_of(options: &Options, temporary: Option<&tempfile::TempDir>) -> PathBuf {
    match (&options.folder, temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(temporary)) => temporary.path().join("mox"),
        (None, None) => unreachable!("one of both was made"),
    }
}

/// A temporary folder that the roles can pass on the way to theirs.
fn passable_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let passable = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(folder.path(), passable).expect("it is ours");
    folder
}

fn command(options: &Options, ip: Ipv4Addr, folder: &Path) -> Command {
    let installed = options.binaries.as_ref().map(|folder| folder.join("moxd"));
    let mut command = Command::new(installed.unwrap_or_else(|| binary("moxd")));
    match &options.settings {
        None => {
            command.arg("localserve").arg("--dir").arg(folder);
            command.arg("--ip").arg(ip.to_string());
            command.arg("--port-offset").arg(PORT_OFFSET.to_string());
            command.arg("--log-level").arg(options.log_level);
            if let As::Root { uid_base } = options.who {
                command.arg("--uid-base").arg(uid_base.to_string());
            }
        }
        Some(settings) => {
            let text = settings.replace("${ip}", &ip.to_string());
            let text = text.replace("${data}", &folder.display().to_string());
            let file = folder.with_file_name("mox.toml");
            std::fs::write(&file, text).expect("the folder is ours");
            let readable = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&file, readable).expect("it is ours");
            command.arg("serve").arg("--config").arg(file);
        }
    }
    command
}

fn spawn(options: &Options, ip: Ipv4Addr, folder: &Path, log: &Log) -> Child {
    let mut command = command(options, ip, folder);
    command.env_clear().envs(options.environment.iter().cloned());
    command.current_dir("/").stdin(Stdio::null());
    match options.who {
        As::User(uid) if rustix::process::geteuid().is_root() => {
            let parent = folder.parent().expect("not the root");
            std::os::unix::fs::chown(parent, Some(uid), Some(uid)).expect("we are root");
            command.uid(uid).gid(uid);
        }
        As::User(_) | As::Root { .. } => {}
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut moxd = command.spawn().expect("moxd starts");
    let said = BufReader::new(moxd.stdout.take().expect("it was piped"));
    let errors = BufReader::new(moxd.stderr.take().expect("it was piped"));
    let (whole, waiting) = mpsc::channel();
    // Both pipes are read to their end, or a full one would stop the tree.
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            if line.contains(WHOLE) {
                let _ = whole.send(());
            }
        }
    });
    let kept = Arc::clone(log);
    std::thread::spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            let mut text = kept.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&line);
            text.push('\n');
        }
    });
    let started = match options.settings {
        None => waiting.recv_timeout(START).is_ok(),
        Some(_) => wait_until(START, || everything_serves(&folder.join("run/control/moxd"))),
    };
    if !started {
        let _ = moxd.kill();
        let _ = moxd.wait();
        let text = log.lock().unwrap_or_else(PoisonError::into_inner);
        panic!("the tree did not start:\n{text}");
    }
    moxd
}

fn everything_serves(control: &Path) -> bool {
    let lines = orders::give(control, Order::Processes).unwrap_or_default();
    let serving = |line: &String| {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        row.get("state").and_then(Value::as_str) == Some("serving")
    };
    !lines.is_empty() && lines.iter().all(serving)
}

/// Sends a signal to a process of a tree of ours.
///
/// # Errors
/// When it is gone.
pub fn kill(pid: u32, signal: rustix::process::Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Stops a process and waits until each of its threads stands still: the signal reaches one, which
/// tells the others when it is its turn to run.
///
/// # Errors
/// As [`kill`].
///
/// # Panics
/// If it does not stop.
pub fn stop(pid: u32) -> std::io::Result<()> {
    kill(pid, rustix::process::Signal::STOP)?;
    let stands = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
        // Behind the name, which may hold anything.
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    };
    let all =
        || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|mut tasks| tasks.all(stands));
    assert!(wait_until(START, all), "process {pid} does not stop");
    Ok(())
}

/// Looks again and again, until it holds or the time is over; whether it holds.
#[must_use]
pub fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A binary of the product, beside the tests.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("we run");
    let folder = test.ancestors().nth(2).map(Path::to_owned).expect("target/PROFILE/deps/TEST");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build first", path.display());
    path
}
