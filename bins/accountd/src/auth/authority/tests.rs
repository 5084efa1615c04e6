//! The log-in machine against a real credential store, with a pepper and threads that count.

use super::*;
use crate::{
    auth::{
        pepper::testing::Counting,
        records::Records,
        scram::{Bindings, Hash},
        verifier::MAX_NAMES,
    },
    peer::Tls,
};
use aws_lc_rs::pbkdf2;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use config::directory::{Host, edit::Edit};
use daemon::Workers;
use std::task::Poll;
use storage::Open;
use types::{ManualClock, SessionId};

const TEXT: &str = r#"
[domain."example.org"]
localpart_separators = ["+"]
[domain."caught.example"]
[account.ann]
id = "aaaaaaaaaaaaaaab"
[account.ann.address."ann@example.org"]
[account.ann.address."anna@example.org"]
[account.ann.address."@caught.example"]
[account.bob]
id = "aaaaaaaaaaaaaaac"
[account.bob.address."bob@example.org"]
[account.cas]
id = "aaaaaaaaaaaaaaad"
login_disabled = "on leave"
[account.cas.address."cas@example.org"]
"#;
const PASSWORD: &str = "correct horse";
const EDGE: EdgeId = EdgeId { role: 8, instance: 0 };

struct Bench {
    authority: Rc<Authority>,
    pepper: Rc<Counting>,
    clock: ManualClock,
    #[expect(dead_code, reason = "removes the folder at the end")]
    folder: tempfile::TempDir,
}

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("directory")).unwrap();
    std::fs::write(folder.path().join("directory/domains.toml"), TEXT).unwrap();
    for id in ["aaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaac", "aaaaaaaaaaaaaaad"] {
        std::fs::create_dir_all(folder.path().join("accounts").join(id)).unwrap();
    }
    let pepper = Rc::new(Counting::default());
    let clock = ManualClock::at(UnixNanos::from_seconds(1_700_000_000));
    let boot = clock.clone();
    let boot_start = boot.monotonic();
    let authority = Rc::new(Authority {
        directories: Rc::new(Directories::open(folder.path(), Host::default()).unwrap()),
        vault: Vault::start(
            Records::open(folder.path(), Open::default()).unwrap(),
            Workers::Threads,
        )
        .unwrap(),
        hashing: Hashing::start(Workers::Threads).unwrap(),
        pepper: Rc::clone(&pepper) as Rc<dyn Pepper>,
        failed: RefCell::new(FailedLogins::new(&config::limits::Gate::default())),
        look_ups: LookUps::default(),
        lives: Lives::default(),
        ticket_keys: TicketKeys::open(folder.path(), clock.now()).unwrap(),
        clock: Arc::new(clock.clone()),
        boot_clock: Rc::new(move || boot.monotonic() - boot_start),
        clear_text: vec!["local/submission".into()],
        admin_changes: Arc::default(),
    });
    authority.prepare().await.unwrap();
    let bench = Bench { authority, pepper, clock, folder };
    set_password(&bench, ann(), &["ann@example.org"], PASSWORD).await;
    bench
}

/// Sets a password, to be proved with these names at once.
async fn set_password(bench: &Bench, account: AccountId, names: &[&str], password: &str) {
    let names: Vec<Address> = names.iter().map(|name| name.parse().unwrap()).collect();
    let set = bench.authority.set_password(account, &names, Secret::new(password.into()));
    set.await.unwrap();
}

fn ann() -> AccountId {
    "aaaaaaaaaaaaaaab".parse().unwrap()
}

fn peer() -> Peer {
    let tls = Tls {
        version: 0x0304,
        cipher_suite: 0x1301,
        bindings: Bindings { exporter: vec![5; 32], end_point: vec![6; 32] },
        client_key: Some([9; 32]),
        server_name: String::new(),
    };
    Peer {
        ip: "192.0.2.1".parse().unwrap(),
        session: SessionId::from_bytes([1; 8]),
        tls: Some(tls),
        local_ip: "192.0.2.9".parse().ok(),
        listener: "public/imaps".into(),
        agent: "Bird 1.0".into(),
    }
}

/// How an exchange ended, in words.
fn ended(step: Step) -> Result<Proved, Failure> {
    match step {
        Step::Success { proved, .. } => Ok(proved),
        Step::Failure(failure) => Err(failure),
        Step::Challenge(..) => panic!("asks again"),
    }
}

async fn plain(bench: &Bench, user: &str, password: &str) -> Result<Proved, Failure> {
    let message = format!("\0{user}\0{password}");
    let step = bench.authority.start("PLAIN", peer(), EDGE, Some(message.as_bytes())).await;
    ended(step)
}

/// A client's side of SCRAM: the server's first message, and how it ended.
async fn scram(
    bench: &Bench,
    mechanism: &str,
    user: &str,
    password: &str,
) -> (String, Result<Proved, Failure>) {
    let hash = if mechanism.contains("256") { Hash::Sha256 } else { Hash::Sha1 };
    let (gs2, binding) = if mechanism.ends_with("PLUS") {
        ("p=tls-exporter,,", vec![5; 32])
    } else {
        ("n,,", Vec::new())
    };
    let bare = format!("n={user},r=clientnonce");
    let first = format!("{gs2}{bare}");
    let step = bench.authority.start(mechanism, peer(), EDGE, Some(first.as_bytes())).await;
    let (server_first, exchange) = match step {
        Step::Challenge(data, exchange) => (String::from_utf8(data).unwrap(), exchange),
        other @ (Step::Success { .. } | Step::Failure(_)) => return (String::new(), ended(other)),
    };
    let mut fields = server_first.split(',');
    let nonce = fields.next().unwrap();
    let salt = BASE64_STANDARD.decode(fields.next().unwrap().strip_prefix("s=").unwrap()).unwrap();
    let rounds = fields.next().unwrap().strip_prefix("i=").unwrap().parse().unwrap();
    let algorithm = match hash {
        Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
    };
    let mut salted = vec![0; hash.octets()];
    pbkdf2::derive(algorithm, rounds, &salt, password.as_bytes(), &mut salted);
    let client_key = hash.hmac(&salted, b"Client Key");
    let bound = BASE64_STANDARD.encode([gs2.as_bytes(), &binding].concat());
    let without_proof = format!("c={bound},{nonce}");
    let auth = format!("{bare},{server_first},{without_proof}");
    let signature = hash.hmac(&hash.digest(&client_key), auth.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(k, s)| k ^ s).collect();
    let last = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
    let step = bench.authority.respond(exchange, last.as_bytes()).await;
    if let Step::Success { additional, .. } = &step {
        let server = hash.hmac(&hash.hmac(&salted, b"Server Key"), auth.as_bytes());
        let expected = format!("v={}", BASE64_STANDARD.encode(server));
        assert_eq!(additional.as_deref(), Some(expected.as_bytes()));
    }
    (server_first, ended(step))
}

#[tokio::test]
async fn every_mechanism_lets_in_who_knows_the_password() {
    let bench = bench().await;
    for user in ["ann@example.org", "Ann+list@EXAMPLE.org"] {
        let proved = plain(&bench, user, PASSWORD).await.unwrap();
        assert_eq!(proved.basis.account, ann());
        for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"]
        {
            let (_, result) = scram(&bench, mechanism, user, PASSWORD).await;
            assert_eq!(result.unwrap().basis.account, ann(), "{mechanism}");
        }
    }
    assert_eq!(
        plain(&bench, "ann@example.org", "wrong").await.unwrap_err(),
        Failure::BadCredentials
    );
    let (_, result) = scram(&bench, "SCRAM-SHA-256", "ann@example.org", "wrong").await;
    assert_eq!(result.unwrap_err(), Failure::BadCredentials);
}

#[tokio::test]
async fn a_caught_name_takes_no_others_place() {
    let bench = bench().await;
    let shown = async |name: &str| {
        let seals = bench.pepper.seals.get();
        plain(&bench, name, PASSWORD).await.unwrap();
        bench.pepper.seals.get() > seals
    };
    // One name has its keys since the password was set.
    for n in 1..MAX_NAMES {
        assert!(shown(&format!("c{n}@caught.example")).await, "{n}");
    }
    assert!(!shown("one-more@caught.example").await);
    let (_, result) = scram(&bench, "SCRAM-SHA-1", "ann@example.org", PASSWORD).await;
    result.unwrap();
    assert!(shown("anna@example.org").await);
}

/// LOGIN, a name and a password in their own messages: what it was asked, and how it ended.
async fn login(bench: &Bench, user: &str, password: &str) -> (Vec<u8>, Result<Proved, Failure>) {
    let step = bench.authority.start("LOGIN", peer(), EDGE, Some(user.as_bytes())).await;
    let Step::Challenge(prompt, exchange) = step else { panic!("no question") };
    let step = bench.authority.respond(exchange, password.as_bytes()).await;
    (prompt, ended(step))
}

/// What a failed attempt costs.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    opens: u32,
    macs: u32,
    hashes: u64,
}

/// What a password costs to check where it is shown, and where it is proved.
const SHOWN: Cost = Cost { opens: 1, macs: 1, hashes: 1 };
const PROVED: Cost = Cost { opens: 1, macs: 1, hashes: 0 };

async fn cost(bench: &Bench, attempt: impl Future<Output = Result<Proved, Failure>>) -> Cost {
    let (pepper, hashing) = (&bench.pepper, &bench.authority.hashing);
    let before = (pepper.opens.get(), pepper.macs.get(), hashing.hashes());
    // A failure is one of few, and what SMTP and IMAP say is made of it alone.
    assert_eq!(attempt.await.unwrap_err(), Failure::BadCredentials);
    Cost {
        opens: pepper.opens.get() - before.0,
        macs: pepper.macs.get() - before.1,
        hashes: hashing.hashes() - before.2,
    }
}

#[tokio::test]
async fn nobody_cannot_be_told_from_somebody() {
    const SCRAMS: [&str; 4] =
        ["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
    let bench = bench().await;
    let cas = "aaaaaaaaaaaaaaad".parse().unwrap();
    set_password(&bench, cas, &["cas@example.org"], PASSWORD).await;
    // Known, known without keys for that name, without a password, disabled; unknown localpart,
    // unknown domain, no address at all.
    for user in [
        "ann@example.org",
        "anna@example.org",
        "bob@example.org",
        "cas@example.org",
        "x@example.org",
        "x@other.example",
        "not an address",
    ] {
        bench.authority.failed.borrow_mut().clear();
        assert_eq!(cost(&bench, plain(&bench, user, "wrong")).await, SHOWN, "{user}");
        assert_eq!(cost(&bench, plain(&bench, user, "a\tb")).await, SHOWN, "{user}");
        let attempt = async {
            let (prompt, outcome) = login(&bench, user, "wrong").await;
            assert_eq!(prompt, b"Password:");
            outcome
        };
        assert_eq!(cost(&bench, attempt).await, SHOWN, "{user}");
        let mut salts = Vec::new();
        // Twice: the salt is the same each time.
        for mechanism in [SCRAMS, SCRAMS].concat() {
            bench.authority.failed.borrow_mut().clear();
            let attempt = async {
                let (first, outcome) = scram(&bench, mechanism, user, "wrong").await;
                let fields: Vec<&str> = first.split(',').collect();
                let [nonce, salt, "i=65536"] = fields[..] else { panic!("{first}") };
                let lengths = (nonce.len(), salt.len());
                let expected = ("r=clientnonce".len() + 24, "s=".len() + 24);
                assert_eq!(lengths, expected, "{user}: {first}");
                salts.push(salt.to_owned());
                outcome
            };
            assert_eq!(cost(&bench, attempt).await, PROVED, "{user} {mechanism}");
        }
        salts.dedup();
        assert_eq!(salts.len(), 1, "{user}");
    }
}

/// The salt that a name is shown.
async fn salt(bench: &Bench, name: &str) -> String {
    bench.authority.failed.borrow_mut().clear();
    let (first, _) = scram(bench, "SCRAM-SHA-1", name, "w").await;
    first.split(',').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_salt_tells_nothing_but_the_name() {
    let bench = bench().await;
    let names =
        ["ann@example.org", "anna@example.org", "bob@example.org", "x@example.org", "y@x.y"];
    let salts = async || {
        let mut salts = Vec::new();
        for name in names {
            salts.push(salt(&bench, name).await);
        }
        salts
    };
    let before = salts().await;
    let different: std::collections::BTreeSet<&String> = before.iter().collect();
    assert_eq!(different.len(), names.len(), "each name has its own, also those of one account");
    // Neither a changed password nor a first one, nor a name that becomes somebody's, shows.
    set_password(&bench, ann(), &names[..2], "another one").await;
    set_password(&bench, "aaaaaaaaaaaaaaac".parse().unwrap(), &names[2..3], PASSWORD).await;
    let becomes = Edit::AddressAdd { account: "bob", address: names[3] };
    bench.authority.directories.change(&becomes).unwrap();
    assert_eq!(salts().await, before);
    for name in &names[..2] {
        let (_, result) = scram(&bench, "SCRAM-SHA-256", name, "another one").await;
        assert_eq!(result.unwrap().basis.account, ann(), "{name}");
    }
}

#[tokio::test]
async fn a_name_that_came_later_gets_its_keys_from_a_password_that_is_shown() {
    let bench = bench().await;
    let proved = plain(&bench, "ann@example.org", PASSWORD).await.unwrap();
    let session = bench.authority.admit(proved).await.unwrap();
    let later = "anna@example.org";
    let by_scram = async || scram(&bench, "SCRAM-SHA-256", later, PASSWORD).await.1;
    let seals = bench.pepper.seals.get();
    assert_eq!(by_scram().await.unwrap_err(), Failure::BadCredentials);
    assert_eq!(plain(&bench, later, "wrong").await.unwrap_err(), Failure::BadCredentials);
    assert_eq!(by_scram().await.unwrap_err(), Failure::BadCredentials);
    assert_eq!(bench.pepper.seals.get(), seals, "a wrong password teaches nothing");
    plain(&bench, later, PASSWORD).await.unwrap();
    assert_eq!(by_scram().await.unwrap().basis.account, ann());
    assert_eq!(bench.pepper.seals.get(), seals + 1);
    plain(&bench, later, PASSWORD).await.unwrap();
    assert_eq!(bench.pepper.seals.get(), seals + 1, "once is enough");
    // It is the same password still: nobody's session ends, and the other name goes on.
    assert!(session.live.check().is_ok());
    let (_, result) = scram(&bench, "SCRAM-SHA-1", "ann@example.org", PASSWORD).await;
    result.unwrap();
}

#[tokio::test]
async fn a_key_tells_nothing_of_names_that_are_not_its_own() {
    let bench = bench().await;
    let nothing = Cost { opens: 0, macs: 0, hashes: 0 };
    for is_known in [false, true] {
        if is_known {
            let label = "laptop".to_owned();
            let add = bench.authority.key_add(ann(), [9; 32], label, "ann@example.org".into());
            assert!(add.await.unwrap());
        }
        for name in ["bob@example.org", "cas@example.org", "x@example.org", "x@other.example", "x"]
        {
            let message = Some(name.as_bytes());
            let attempt =
                async { ended(bench.authority.start("EXTERNAL", peer(), EDGE, message).await) };
            assert_eq!(cost(&bench, attempt).await, nothing, "{name}");
        }
        bench.authority.failed.borrow_mut().clear();
    }
}

#[tokio::test]
async fn failures_are_limited_and_faults_of_ours_are_not_counted() {
    let bench = bench().await;
    bench.pepper.away.set(true);
    for _ in 0..20 {
        assert_eq!(
            plain(&bench, "ann@example.org", PASSWORD).await.unwrap_err(),
            Failure::Temporary
        );
    }
    bench.pepper.away.set(false);
    for _ in 0..10 {
        assert_eq!(
            plain(&bench, "ann@example.org", "no").await.unwrap_err(),
            Failure::BadCredentials
        );
    }
    assert_eq!(
        plain(&bench, "ann@example.org", PASSWORD).await.unwrap_err(),
        Failure::TooManyFailures
    );
    bench.clock.advance(Duration::from_secs(61));
    plain(&bench, "ann@example.org", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn clear_text_only_where_it_is_allowed() {
    let bench = bench().await;
    let clear = |listener: &str| Peer { tls: None, listener: listener.into(), ..peer() };
    let message = format!("\0ann@example.org\0{PASSWORD}");
    let start = async |peer| {
        ended(bench.authority.start("PLAIN", peer, EDGE, Some(message.as_bytes())).await)
    };
    assert_eq!(start(clear("public/submission")).await.unwrap_err(), Failure::TlsRequired);
    assert!(start(clear("local/submission")).await.is_ok());
    assert!(start(clear("local/submission/127.0.0.1:1587")).await.is_ok());
    assert!(bench.authority.mechanisms(&clear("public/submission")).is_empty());
}

#[tokio::test]
async fn client_keys_log_in_as_their_account_alone() {
    let bench = bench().await;
    let external = async |login: &str| {
        ended(bench.authority.start("EXTERNAL", peer(), EDGE, Some(login.as_bytes())).await)
    };
    assert_eq!(external("").await.unwrap_err(), Failure::BadCredentials);
    let add = bench.authority.key_add(ann(), [9; 32], "laptop".into(), "ann@example.org".into());
    assert!(add.await.unwrap());
    assert_eq!(external("").await.unwrap().basis.account, ann());
    assert_eq!(external("ann+x@example.org").await.unwrap().login.to_string(), "ann+x@example.org");
    assert_eq!(external("bob@example.org").await.unwrap_err(), Failure::BadCredentials);
}

/// Polls `change` until it has committed, as `is_done` sees it, and no more: whoever asked is gone.
async fn go_away<T>(change: impl Future<Output = T>, mut is_done: impl AsyncFnMut() -> bool) {
    let mut change = std::pin::pin!(change);
    loop {
        assert!(futures::poll!(change.as_mut()).is_pending(), "it was heard before it was seen");
        if is_done().await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_ends_sessions_though_nobody_waits_for_it() {
    let bench = bench().await;
    let authority = &bench.authority;
    let add = authority.key_add(ann(), [9; 32], "laptop".into(), "ann@example.org".into());
    assert!(add.await.unwrap());
    let by_key = ended(authority.start("EXTERNAL", peer(), EDGE, Some(b"")).await).unwrap();
    let by_key = authority.admit(by_key).await.unwrap();
    let proved = plain(&bench, "ann@example.org", PASSWORD).await.unwrap();
    let session = authority.admit(proved).await.unwrap();

    let generation = async || {
        let asked = authority.vault.run(|records| records.generations(ann()));
        asked.await.unwrap().password
    };
    let before = generation().await;
    let change = authority.set_password(ann(), &[], Secret::new("another one".into()));
    go_away(change, async || generation().await != before).await;
    assert!(session.live.check().is_err());
    assert!(by_key.live.check().is_ok());

    let is_gone =
        async || authority.vault.run(|records| records.key(&[9; 32])).await.unwrap().is_none();
    go_away(authority.key_remove([9; 32]), is_gone).await;
    assert!(by_key.live.check().is_err());
}

#[tokio::test]
async fn what_a_session_rests_on_ends_it() {
    let bench = bench().await;
    let authority = &bench.authority;
    let log_in = async || {
        let proved = plain(&bench, "ann@example.org", PASSWORD).await.unwrap();
        authority.admit(proved).await.unwrap()
    };
    let add = authority.key_add(ann(), [9; 32], "laptop".into(), "ann@example.org".into());
    assert!(add.await.unwrap());
    let by_key = ended(authority.start("EXTERNAL", peer(), EDGE, Some(b"")).await).unwrap();
    let by_key = authority.admit(by_key).await.unwrap();
    let session = log_in().await;
    let edge = EdgeId { role: 7, instance: 2 };
    let id = SessionId::from_bytes([1; 8]);
    let ticket = authority.ticket(&session.live.basis, &session.login, id, Scope::Account, edge);
    let key_ticket = authority.ticket(&by_key.live.basis, &by_key.login, id, Scope::Account, edge);
    assert!(authority.redeem(&ticket, Scope::Account, edge).await.unwrap().is_some());
    assert!(authority.redeem(&ticket, Scope::Submit, edge).await.unwrap().is_none());
    assert!(authority.redeem(&ticket, Scope::Account, EDGE).await.unwrap().is_none());
    let renewed = authority.renew(&ticket, edge).await.unwrap().unwrap();

    // A changed password ends what rests on the old one, and nothing else.
    let stale = plain(&bench, "ann@example.org", PASSWORD).await.unwrap();
    set_password(&bench, ann(), &["ann@example.org"], "another one").await;
    assert!(session.live.check().is_err());
    assert!(by_key.live.check().is_ok());
    for sealed in [&ticket, &renewed] {
        assert!(authority.redeem(sealed, Scope::Account, edge).await.unwrap().is_none());
        assert!(authority.renew(sealed, edge).await.unwrap().is_none());
    }
    assert_eq!(authority.admit(stale).await.unwrap_err(), Failure::BadCredentials);

    // A removed key.
    assert!(authority.redeem(&key_ticket, Scope::Account, edge).await.unwrap().is_some());
    assert_eq!(authority.key_remove([9; 32]).await.unwrap(), Some(ann()));
    assert!(by_key.live.check().is_err());
    assert!(authority.redeem(&key_ticket, Scope::Account, edge).await.unwrap().is_none());

    // A disabled account: told only after a right proof.
    let proved = plain(&bench, "ann@example.org", "another one").await.unwrap();
    let session = authority.admit(proved).await.unwrap();
    let told = session.live.revoked();
    let disable = Edit::LoginDisabled { name: "ann", message: "on leave" };
    authority.directories.change(&disable).unwrap();
    authority.revoke_account(ann(), "the account was disabled").await.unwrap();
    assert_eq!(told.await, "the account was disabled");
    let (right, wrong) = ("another one", PASSWORD);
    assert_eq!(
        plain(&bench, "ann@example.org", right).await.unwrap_err(),
        Failure::AccountDisabled("on leave".into())
    );
    assert_eq!(plain(&bench, "ann@example.org", wrong).await.unwrap_err(), Failure::BadCredentials);
}

#[tokio::test]
async fn the_administrator() {
    let bench = bench().await;
    let authority = &bench.authority;
    let peer = peer();
    assert_eq!(authority.admin_login(&peer, "x").await, Err(Failure::BadCredentials));
    authority.set_admin_password(Secret::new("sesame sesame".into())).await.unwrap();
    assert_eq!(authority.admin_login(&peer, "sesame sesame").await.map(drop), Ok(()));
    for _ in 0..10 {
        assert_eq!(authority.admin_login(&peer, "x").await, Err(Failure::BadCredentials));
    }
    assert_eq!(authority.admin_login(&peer, "sesame sesame").await, Err(Failure::TooManyFailures));
}

#[tokio::test]
async fn who_came_in_while_the_administrators_password_was_changed_is_out() {
    let bench = bench().await;
    let (authority, peer) = (&bench.authority, peer());
    authority.set_admin_password(Secret::new("sesame sesame".into())).await.unwrap();
    // The store stands still, so that both wait there: first who comes in, then the change, whose asker
    // goes away before it is done.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let standing = authority.vault.run(move |_| {
        let _released = released.recv();
        Ok(())
    });
    let mut standing = std::pin::pin!(standing);
    assert!(futures::poll!(standing.as_mut()).is_pending());
    let mut login = std::pin::pin!(authority.admin_login(&peer, "sesame sesame"));
    assert!(futures::poll!(login.as_mut()).is_pending());
    let mut change = Box::pin(authority.set_admin_password(Secret::new("open open open".into())));
    let before = bench.pepper.seals.get();
    std::future::poll_fn(|context| {
        assert!(change.as_mut().poll(context).is_pending());
        // In the same poll it was given to the store.
        if bench.pepper.seals.get() > before { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    drop(change);
    release.send(()).unwrap();
    standing.await.unwrap();
    let proof = login.await.unwrap();
    authority.vault.run(|_| Ok(())).await.unwrap();
    assert!(authority.check_admin(proof).is_err(), "let in by what was the password");
    assert!(authority.admin_login(&peer, "sesame sesame").await.is_err());
    let proof = authority.admin_login(&peer, "open open open").await.unwrap();
    assert!(authority.check_admin(proof).is_ok());
}

#[tokio::test]
async fn history_tells_what_happened() {
    let bench = bench().await;
    plain(&bench, "ann@example.org", PASSWORD).await.unwrap();
    plain(&bench, "ann@example.org", "wrong").await.unwrap_err();
    plain(&bench, "who@example.org", "wrong").await.unwrap_err();
    let login = "ann@example.org";
    assert!(bench.authority.key_add(ann(), [9; 32], "laptop".into(), login.into()).await.unwrap());
    ended(bench.authority.start("EXTERNAL", peer(), EDGE, Some(b"")).await).unwrap();
    let of =
        async |account| bench.authority.vault.run(move |r| r.attempts(account, 10)).await.unwrap();
    // History is written when the thread is idle: a look may come before that.
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        (known, unknown) = (of(Some(ann())).await, of(None).await);
        if known.len() == 3 && unknown.len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let all: Vec<_> = known.iter().chain(&unknown).collect();
    for attempt in &all {
        let ours = (attempt.local_ip.as_str(), attempt.listener.as_str(), attempt.agent.as_str());
        assert_eq!(ours, ("192.0.2.9", "public/imaps", "Bird 1.0"));
    }
    let mut told: Vec<_> = all
        .iter()
        .map(|a| (a.login.as_str(), a.mechanism.as_str(), a.result.as_str(), &a.client_key[..]))
        .collect();
    told.sort_unstable();
    // The connection showed a key each time; it is noted where it counted.
    let expected: [(_, _, _, &[u8]); 4] = [
        ("", "external", "ok", &[9; 32]),
        ("ann@example.org", "plain", "badcreds", &[]),
        ("ann@example.org", "plain", "ok", &[]),
        ("who@example.org", "plain", "badcreds", &[]),
    ];
    assert_eq!(told, expected);
}
