//! Both roles with sockets and connectors, against an accountd in memory that dies and comes back.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

#[path = "../../../../common/imap/src/session/tests/account.rs"]
#[expect(dead_code, reason = "shared with the tests of common/imap")]
mod account;
mod accountd;

use accountd::{Life, World};
use config::{limits, slice::ImapListener};
use daemon::{Stop, Stopper};
use imapd::{front, session};
use ipc::{Acceptor, Dialer, Role};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd, rc::Rc, sync::Arc, time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::mpsc,
    task::LocalSet,
    time::timeout,
};
use types::SystemClock;

fn connector() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// The tree around imapd.
struct Tree {
    world: Rc<World>,
    life: Option<Life>,
    to_accountd: Vec<(Role, Dialer)>,
    address: SocketAddr,
    stopper: Stopper,
}

impl Tree {
    fn start(limits: &limits::Imap) -> Self {
        let world = Rc::new(World::default());
        world.account.borrow_mut().deliver("Inbox", "", b"Subject: first\r\n\r\nhello\r\n");
        let to_accountd: Vec<(Role, Dialer)> = [Role::ImapdFront, Role::ImapdSession]
            .into_iter()
            .map(|role| (role, Dialer::pending()))
            .collect();
        let dialer = |role| to_accountd.iter().find(|(r, _)| *r == role).unwrap().1.clone();
        let (stopper, stop) = Stop::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = connector();
        let (fronts, for_session) = mpsc::channel(4);
        fronts.try_send(Acceptor::from_connector(Role::ImapdFront, 0, far).unwrap()).unwrap();
        tokio::task::spawn_local(session::run(session::Grants {
            limits: limits.clone(),
            accountd: dialer(Role::ImapdSession),
            fronts: for_session,
            stop: stop.clone(),
        }));
        let known = ImapListener {
            name: "test/imap".to_owned(),
            hostname: "localhost".parse().unwrap(),
            implicit_tls: false,
            starttls: false,
            require_tls: false,
            client_auth: false,
            only_tls_1_3: false,
        };
        let grants = front::Grants {
            listeners: vec![(listener, known)],
            limits: limits.clone(),
            accountd: dialer(Role::ImapdFront),
            keyholder: Dialer::pending(),
            sessions: BTreeMap::from([(0, Dialer::from_connector(near).unwrap())]),
            clock: Arc::new(SystemClock),
            stop,
        };
        tokio::task::spawn_local(async move {
            // The channel of new fronts stays open as long as the tree lives.
            let _fronts = fronts;
            front::run(grants).await.unwrap();
        });
        let mut tree = Self { world, life: None, to_accountd, address, stopper };
        tree.start_accountd();
        tree
    }

    fn start_accountd(&mut self) {
        let mut edges = Vec::new();
        for (role, dialer) in &self.to_accountd {
            let (near, far) = connector();
            dialer.renew(near).unwrap();
            edges.push((*role, far));
        }
        self.life = Some(accountd::start(&self.world, edges));
    }

    fn kill_accountd(&mut self) {
        self.life = None;
    }

    fn deliver(&self, content: &[u8]) {
        self.world.account.borrow_mut().deliver("Inbox", "", content);
        self.world.tell();
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        Client { stream: BufReader::new(stream) }
    }

    async fn logged_in(&self) -> Client {
        let mut client = self.client().await;
        client.line().await;
        let text = client.command("l LOGIN alice@example.org secret").await;
        assert!(text.starts_with("l OK [CAPABILITY IMAP4rev2 "), "{text}");
        client
    }
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next line; empty when the connection is closed.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        timeout(Duration::from_secs(10), read).await.expect("a line in time").unwrap();
        String::from_utf8(line).unwrap()
    }

    /// Sends a command; gives everything up to its tagged answer.
    async fn command(&mut self, text: &str) -> String {
        self.send(&format!("{text}\r\n")).await;
        self.tagged(text.split(' ').next().unwrap()).await
    }

    async fn tagged(&mut self, tag: &str) -> String {
        let mut all = String::new();
        loop {
            let line = self.line().await;
            let over = line.is_empty() || line.starts_with(&format!("{tag} "));
            all.push_str(&line);
            if over {
                return all;
            }
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(Duration::from_secs(30), test).await.expect("in time");
    });
}

#[test]
fn logging_in_and_reading() {
    run(async {
        let tree = Tree::start(&limits::Imap::default());
        let mut client = tree.client().await;
        let greeting = client.line().await;
        assert!(greeting.starts_with("* OK [CAPABILITY ") && greeting.contains("AUTH=PLAIN"));
        let text = client.command("a LOGIN alice@example.org wrong").await;
        assert!(text.starts_with("a NO [AUTHENTICATIONFAILED] "), "{text}");
        assert!(client.command("b SELECT INBOX").await.starts_with("b NO "));
        // What is sent behind the log-in is not lost on the way to the session.
        client.send("c LOGIN alice@example.org {6+}\r\nsecret\r\nd SELECT INBOX\r\n").await;
        assert!(client.tagged("c").await.starts_with("c OK [CAPABILITY "));
        let text = client.tagged("d").await;
        assert!(text.contains("* 1 EXISTS\r\n") && text.ends_with("[READ-WRITE] selected\r\n"));
        let text = client.command("e UID FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[TEXT])").await;
        assert!(
            text.contains("\"first\" ") && text.contains("BODY[TEXT] {7}\r\nhello\r\n)"),
            "{text}"
        );
        assert!(
            client
                .command("f STORE 1 +FLAGS (work \\Flagged)")
                .await
                .contains("FLAGS (\\Flagged work)")
        );
        assert!(
            client.command("g SEARCH KEYWORD work TEXT HELLO").await.starts_with("* SEARCH 1\r\n")
        );
        assert!(client.command("h CREATE there").await.starts_with("h OK"));
        let text = client.command("i MOVE 1 there").await;
        assert!(text.starts_with("* OK [COPYUID 9 1 1] moved\r\n* 1 EXPUNGE\r\ni OK"), "{text}");
        assert!(
            client.command("j LIST \"\" *").await.contains("* LIST (\\HasNoChildren) \"/\" there")
        );
        let text = client.command("k LOGOUT").await;
        assert!(text.starts_with("* BYE ") && text.ends_with("k OK done\r\n"));
        assert_eq!(client.line().await, "");
    });
}

#[test]
fn large_messages_go_both_ways() {
    run(async {
        let tree = Tree::start(&limits::Imap::default());
        let mut client = tree.logged_in().await;
        client.command("a SELECT INBOX").await;
        let mut mail = "Subject: big\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_owned();
        for _ in 0..20_000 {
            mail.push_str("QUJDREVGR0hJSktM\r\n");
        }
        client.send(&format!("b APPEND INBOX (\\Seen) {{{}}}\r\n", mail.len())).await;
        assert_eq!(client.line().await, "+ ready\r\n");
        client.send(&mail).await;
        client.send("\r\n").await;
        let text = client.tagged("b").await;
        assert!(
            text.contains("* 2 EXISTS\r\n") && text.contains("b OK [APPENDUID 7 2] "),
            "{text}"
        );
        client.send("c FETCH 2 BODY.PEEK[]\r\n").await;
        let head = client.line().await;
        assert_eq!(head, format!("* 2 FETCH (BODY[] {{{}}}\r\n", mail.len()));
        let mut octets = vec![0; mail.len()];
        client.stream.read_exact(&mut octets).await.unwrap();
        assert!(octets == mail.as_bytes());
        assert_eq!(client.tagged("c").await, ")\r\nc OK done\r\n");
        let text = client.command("d FETCH 2 (BINARY.SIZE[1] BINARY.PEEK[1]<239990.100>)").await;
        assert_eq!(
            text,
            "* 2 FETCH (BINARY.SIZE[1] 240000 BINARY[1]<239990> ~{10}\r\nCDEFGHIJKL)\r\nd OK done\r\n"
        );
    });
}

#[test]
fn accountd_dies_and_comes_back_under_idle() {
    run(async {
        let mut tree = Tree::start(&limits::Imap::default());
        let mut client = tree.logged_in().await;
        client.command("a SELECT INBOX").await;
        client.send("b IDLE\r\n").await;
        assert_eq!(client.line().await, "+ idling\r\n");
        tree.deliver(b"Subject: second\r\n\r\n");
        assert_eq!(client.line().await, "* 2 EXISTS\r\n");
        assert_eq!(client.line().await, "* 0 RECENT\r\n");
        tree.kill_accountd();
        tree.world.account.borrow_mut().deliver("Inbox", "", b"Subject: third\r\n\r\n");
        tree.start_accountd();
        // Nobody logs in anew: the ticket is redeemed again.
        assert_eq!(client.line().await, "* 3 EXISTS\r\n");
        assert_eq!(client.line().await, "* 0 RECENT\r\n");
        tree.deliver(b"Subject: fourth\r\n\r\n");
        assert_eq!(client.line().await, "* 4 EXISTS\r\n");
        assert_eq!(client.line().await, "* 0 RECENT\r\n");
        client.send("DONE\r\n").await;
        assert_eq!(client.line().await, "b OK idle is over\r\n");
    });
}

#[test]
fn commands_while_accountd_is_away() {
    run(async {
        let mut tree = Tree::start(&limits::Imap::default());
        let mut client = tree.logged_in().await;
        client.command("a SELECT INBOX").await;
        tree.kill_accountd();
        let text = client.command("b FETCH 1 FLAGS").await;
        assert_eq!(text, "b NO [UNAVAILABLE] try again later\r\n");
        // A stranger is told so too.
        let mut stranger = tree.client().await;
        assert!(stranger.line().await.starts_with("* BYE [UNAVAILABLE] "));
        tree.start_accountd();
        let text = client.command("c FETCH 1 FLAGS").await;
        assert_eq!(text, "* 1 FETCH (FLAGS ())\r\nc OK done\r\n");
        assert_eq!(tree.world.redeemed.get(), 2);
    });
}

#[test]
fn a_refused_ticket_ends_the_session() {
    run(async {
        let mut tree = Tree::start(&limits::Imap::default());
        let mut client = tree.logged_in().await;
        client.command("a SELECT INBOX").await;
        tree.kill_accountd();
        tree.world.refuse.set(true);
        tree.start_accountd();
        assert_eq!(client.line().await, "* BYE you have to log in again\r\n");
        assert_eq!(client.line().await, "");
    });
}

#[test]
fn draining_says_bye_between_two_commands() {
    run(async {
        let tree = Tree::start(&limits::Imap::default());
        let mut client = tree.logged_in().await;
        client.command("a SELECT INBOX").await;
        let mut stranger = tree.client().await;
        stranger.line().await;
        tree.stopper.drain(Duration::from_secs(5));
        assert_eq!(client.line().await, "* BYE shutting down\r\n");
        assert_eq!(stranger.line().await, "* BYE shutting down\r\n");
        assert_eq!(client.line().await, "");
    });
}

#[test]
fn a_silent_client_is_let_go() {
    run(async {
        let limits = limits::Imap {
            idle: Duration::from_millis(300),
            idle_before_login: Duration::from_millis(200),
            ..limits::Imap::default()
        };
        let tree = Tree::start(&limits);
        let mut stranger = tree.client().await;
        stranger.line().await;
        assert_eq!(stranger.line().await, "* BYE no log-in in time\r\n");
        let mut client = tree.logged_in().await;
        assert_eq!(client.line().await, "* BYE you were silent for too long\r\n");
        assert_eq!(client.line().await, "");
    });
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What a connection costs while its client is in IDLE: relay, session and this test's client.
#[test]
fn idle_sessions_are_cheap() {
    const COUNT: usize = 200;
    run(async {
        let tree = Tree::start(&limits::Imap::default());
        let mut clients = Vec::new();
        let mut before = 0;
        for number in 0..COUNT + 20 {
            // The first ones fill what is there once: buffers of the process, the allocator.
            if number == 20 {
                before = resident();
            }
            tree.world.redeemed.set(0);
            let mut client = tree.logged_in().await;
            client.command("a SELECT INBOX").await;
            client.command("b FETCH 1 (FLAGS ENVELOPE BODY.PEEK[])").await;
            client.send("c IDLE\r\n").await;
            client.line().await;
            clients.push(client.stream.into_inner());
        }
        let each = (resident() - before) / COUNT;
        assert!(each < 24, "{each} KiB for an idle connection, unoptimised");
    });
}
