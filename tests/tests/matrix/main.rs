//! The compromise matrix of docs/threat-model.md as calls: each role is taken over in the real tree
//! by `impostor`, which holds exactly that role's descriptors inside exactly its walls, and tries
//! whatever its edges let it say.
//!
//! What the role's row says it gets has to work, else the refusals beside it prove nothing. Which
//! system calls it may make is tried elsewhere (`common/sandbox/tests/walls.rs`, `privsep`).

#![expect(clippy::unwrap_used, reason = "tests")]

mod hands;
mod stage;

use mox_tests::client::Imap;
use stage::{OTHER, OTHER_PASSWORD, PASSWORD, Said, Stage, USER, only, said};

/// What is on every face's door.
const DOOR: [&str; 4] = ["Door.config", "Door.gate", "Door.gate, again", "end"];

/// What is on somebody's door.
const DOORS: [&str; 15] = [
    "MxDoor.inbound",
    "SubmissionDoor.authenticator",
    "SubmissionDoor.resume",
    "FrontDoor.authenticator",
    "SessionDoor.tickets",
    "WebDoor.authenticator",
    "WebDoor.tickets",
    "QueueDoor.outbox",
    "QueueDoor.delivery",
    "AccountAdmin.accounts",
    "AccountAdmin.directoryRead",
    "QueueAdmin.status",
    "KeyControl.keys",
    "AdminDoor.login, a wrong password",
    "AdminDoor.login, the right password",
];

/// What keyholder has for somebody.
const KEYS: [&str; 6] = [
    "TlsDoor.certificates",
    "AccountdKeys.pepper",
    "AccountdKeys.keyAdmin",
    "AccountdKeys.dkim, a domain hosted",
    "AccountdKeys.dkim, a domain other",
    "HostKeys.dkim",
];

/// What no face has signed.
const SHAPES: [&str; 4] = [
    "sign a client's handshake",
    "sign a certificate request",
    "sign a DKIM header",
    "sign anything",
];

const FACES: [&str; 5] =
    ["smtpd-mx", "smtpd-submission", "imapd-front", "httpd-web", "httpd-admin"];

/// What comes of credentials, on every face that takes them.
const LOG_IN: &str = "log in as who types a password here";
/// On those that ask for client certificates: they say themselves which was shown.
const CLAIM: &str = "log in by claiming a registered key";
const NO_LOG_IN: [&str; 4] = [
    "log in as somebody else",
    "act as somebody else with one's own password",
    "log in by a key that nobody showed",
    "log in by a key that nobody registered",
];

/// All of `all` but those of `own`.
fn others<'a>(all: &[&'a str], own: &[&str]) -> Vec<&'a str> {
    all.iter().copied().filter(|what| !own.contains(what)).collect()
}

/// TLS as anybody but this process.
fn tls_as_others(process: &str) -> Vec<String> {
    others(&FACES, &[process]).iter().map(|other| format!("sign TLS as {other}")).collect()
}

/// A face: what it gets beside TLS as its own name, and what is refused beside all else.
fn face(said: &Said, process: &str, got: &[&str], refused: &[&str]) {
    let tls = tls_as_others(process);
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let got = [&DOOR[..], &["sign TLS as itself", "TlsDoor.certificates"], got].concat();
    let doors = others(&DOORS, &got);
    let keys = others(&KEYS, &got);
    let mut refused = [&doors[..], &keys, &tls, &SHAPES, refused].concat();
    if process != "httpd-web" {
        refused.push("folders of others");
    }
    only(said, process, &got, &refused);
}

/// Subjects in somebody's inbox.
fn subjects(tree: &mox_tests::tree::Tree, who: &str) -> String {
    let password = if who == USER { PASSWORD } else { OTHER_PASSWORD };
    let mut imap = Imap::log_in(tree.address(143), who, password).unwrap();
    assert!(imap.command("SELECT INBOX").unwrap().is_ok());
    imap.command("FETCH 1:* (BODY[HEADER.FIELDS (SUBJECT)])").unwrap().text()
}

#[test]
fn smtpd_delivers_and_sends_as_who_logs_in_and_nothing_else() {
    let stage = Stage::set();
    let tree = stage.taken_over("smtpd");
    let said = said(&tree, &["smtpd-mx", "smtpd-submission"]);
    face(
        &said,
        "smtpd-mx",
        &["MxDoor.inbound", "deliver to a local recipient"],
        &["deliver to somebody elsewhere", "deliver to a path"],
    );
    let got = [
        &["SubmissionDoor.authenticator", "SubmissionDoor.resume"][..],
        &["send as who logged in", "resume by its own ticket"],
        &[LOG_IN, CLAIM],
    ];
    let refused = [
        &["send with somebody else's reverse-path", "send with somebody else's From"][..],
        &["send with somebody else's From on top", "resume by another's"],
        &NO_LOG_IN,
    ];
    face(&said, "smtpd-submission", &got.concat(), &refused.concat());
    assert!(subjects(&tree, USER).contains("by-the-mx"));
    let arrived = || subjects(&tree, OTHER).contains("by-submission");
    assert!(mox_tests::tree::wait_until(std::time::Duration::from_secs(30), arrived));
}

#[test]
fn imapd_turns_a_ticket_into_its_account_in_its_place_and_nowhere_else() {
    let stage = Stage::set();
    let tree = stage.taken_over("imapd");
    let sessions: Vec<String> = tree
        .processes()
        .iter()
        .filter(|process| process.role == ipc::Role::ImapdSession)
        .map(|process| daemon::process_name(process.role, process.instance))
        .collect();
    assert!(sessions.len() >= 2, "one instance cannot be told from another");
    let mut all: Vec<&str> = sessions.iter().map(String::as_str).collect();
    all.push("imapd-front");
    let said = said(&tree, &all);
    let got = ["FrontDoor.authenticator", LOG_IN, CLAIM];
    face(&said, "imapd-front", &got, &NO_LOG_IN);

    // The one ticket that was not changed names the instance it is for.
    let redeemed: Vec<(&String, &String)> = said
        .iter()
        .flat_map(|(process, said)| {
            said.iter().map(move |(what, outcome)| (process, what, outcome))
        })
        .filter(|(_, what, outcome)| what.starts_with("redeem ") && *outcome == "Got")
        .map(|(process, what, _)| (process, what))
        .collect();
    let [(process, what)] = redeemed[..] else { panic!("{redeemed:?}") };
    let place: u16 = what.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert_eq!(*process, daemon::process_name(ipc::Role::ImapdSession, place));

    let changed = [1, 5, 11, 12, 13, 14, 20];
    let ticket = format!("a ticket for {place}");
    for session in &sessions {
        let mut got = [&DOOR[..], &["SessionDoor.tickets", "who hands over"]].concat();
        let mut refused = others(&DOORS, &got);
        refused.push("folders of others");
        let whole = [format!("renew {ticket}"), format!("redeem {ticket}")];
        if session == process {
            got.extend(whole.iter().map(String::as_str));
            got.extend(ACCOUNT);
            refused.extend(NO_ACCOUNT);
        } else {
            refused.extend(whole.iter().map(String::as_str));
        }
        let said_of_tickets = said[session]
            .keys()
            .filter(|what| what.contains("a ticket changed") || what.ends_with("no ticket"));
        let said_of_tickets: Vec<&str> = said_of_tickets.map(String::as_str).collect();
        assert_eq!(said_of_tickets.len(), 2 * (changed.len() + 2), "{said_of_tickets:?}");
        refused.extend(said_of_tickets);
        only(&said, session, &got, &refused);
    }
}

/// Within an account.
const ACCOUNT: [&str; 2] = ["read the account", "open its own Inbox"];
const NO_ACCOUNT: [&str; 7] = [
    "open a path upwards",
    "open a path from the root",
    "open a name with a NUL",
    "open somebody else's",
    "create, narrowed to reading",
    "create, narrowed and widened",
    "administer by an account",
];

#[test]
fn httpd_gets_the_account_of_who_logs_in_and_the_administration_by_its_password() {
    let stage = Stage::set();
    let tree = stage.taken_over("httpd");
    let said = said(&tree, &["httpd-web", "httpd-admin"]);
    let got = [&["WebDoor.authenticator", "WebDoor.tickets", LOG_IN][..], &ACCOUNT].concat();
    face(&said, "httpd-web", &got, &[&[CLAIM][..], &NO_LOG_IN, &NO_ACCOUNT].concat());
    face(
        &said,
        "httpd-admin",
        &["AdminDoor.login, the right password", "administer accounts"],
        &["read mail as an administrator"],
    );
}

#[test]
fn queue_runner_reads_the_queue_and_delivers_and_signs_for_nobody() {
    let stage = Stage::set();
    let tree = stage.taken_over("queue-runner");
    let said = said(&tree, &["queue-runner"]);
    let got = [
        &DOOR[..],
        &["QueueDoor.outbox", "QueueDoor.delivery", "HostKeys.dkim"],
        &["take the outbox", "deliver into a mailbox", "ask for the host's selectors"],
        &["send to another server", "ask DNS"],
    ]
    .concat();
    let doors = others(&DOORS, &got);
    let keys = others(&KEYS, &got);
    let tls = tls_as_others("queue-runner");
    let refused = [
        &doors[..],
        &keys,
        &["read stored mail by no submission", "read stored mail by a content id"],
        &["deliver elsewhere by accountd", "deliver with a prefix that ends the header"],
        &["sign as a hosted domain", "folders of others"],
        &tls.iter().map(String::as_str).collect::<Vec<_>>(),
    ]
    .concat();
    only(&said, "queue-runner", &got, &refused);
    assert!(subjects(&tree, USER).contains("by-the-queue"));
}

#[test]
fn accountd_has_signatures_and_no_key() {
    let stage = Stage::set();
    let tree = stage.taken_over("accountd");
    let mut said = said(&tree, &["accountd"]);
    let of_keys: Vec<String> =
        said["accountd"].keys().filter(|what| what.starts_with("said of a key")).cloned().collect();
    assert!(of_keys.len() >= 2, "a hosted domain has keys: {said:#?}");
    said.get_mut("accountd").unwrap().retain(|what, _| !of_keys.contains(what));
    let got = [
        &["AccountdKeys.pepper", "AccountdKeys.keyAdmin", "AccountdKeys.dkim, a domain hosted"][..],
        &["sign as a hosted domain", "have a message read", "ask DNS", "its own folder", "end"],
    ]
    .concat();
    let keys = others(&KEYS, &got);
    let tls = tls_as_others("accountd");
    let refused = [
        &keys[..],
        &["sign as another domain", "sign a certificate"],
        &tls.iter().map(String::as_str).collect::<Vec<_>>(),
        &["the folder keys", "the folder queue", "the folder log", "the folder run/control"],
        &["the folder /etc", "a file in /etc", "folders of others"],
    ]
    .concat();
    only(&said, "accountd", &got, &refused);
    // What was said of keys is not them: no line of a private key's file is in it.
    let lines = stage.secrets.iter().flat_map(|file| file.split(|&octet| octet == b'\n'));
    for line in lines.filter(|line| line.len() > 20 && !line.starts_with(b"-----")) {
        let line = String::from_utf8_lossy(line);
        assert!(!of_keys.iter().any(|said| said.contains(&*line)), "{line} is a secret");
    }
}

#[test]
fn keyholder_has_nobody_to_tell() {
    let stage = Stage::set();
    let tree = stage.taken_over("keyholder");
    let said = said(&tree, &["keyholder"]);
    only(
        &said,
        "keyholder",
        &["its own folder", "end"],
        &[
            "ask anybody",
            "listen to the network",
            "the folder accountd",
            "the folder queue",
            "the folder log",
            "the folder run/control",
            "the folder /etc",
            "a file in /etc",
            "folders of others",
        ],
    );
}
