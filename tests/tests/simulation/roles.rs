//! What each process of the tree is given.

use super::{
    remote,
    world::{Birth, Main, Visit, Who, World},
};
use anyhow::Context as _;
use daemon::{Figures, Workers};
use ipc::Role;
use serde_json::json;
use smtp::server;
use std::{
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::net::UnixListener;
use types::SessionId;

const RESOLVER: Who = Who::the(Role::Resolver);
const KEYHOLDER: Who = Who::the(Role::Keyholder);
const PARSER: Who = Who::the(Role::Parser);
const OTHER_PARSER: Who = Who { role: Role::Parser, instance: 1 };
const ACCOUNTD: Who = Who::the(Role::Accountd);
const OUTBOUND: Who = Who::the(Role::Outbound);
const QUEUE_RUNNER: Who = Who::the(Role::QueueRunner);
const MX: Who = Who::the(Role::SmtpdMx);
const SUBMISSION: Who = Who::the(Role::SmtpdSubmission);
const SESSION: Who = Who::the(Role::ImapdSession);
const OTHER_SESSION: Who = Who { role: Role::ImapdSession, instance: 1 };
const FRONT: Who = Who::the(Role::ImapdFront);

/// The processes, servers before their clients.
pub(super) const PROCESSES: [Who; 12] = [
    RESOLVER,
    KEYHOLDER,
    PARSER,
    OTHER_PARSER,
    ACCOUNTD,
    OUTBOUND,
    QUEUE_RUNNER,
    SESSION,
    OTHER_SESSION,
    MX,
    SUBMISSION,
    FRONT,
];

/// Who asks whom: the rows of the wiring table for these processes.
pub(super) const EDGES: [(Who, Who); 18] = [
    (ACCOUNTD, RESOLVER),
    (ACCOUNTD, KEYHOLDER),
    (ACCOUNTD, PARSER),
    (ACCOUNTD, OTHER_PARSER),
    (OUTBOUND, RESOLVER),
    (QUEUE_RUNNER, ACCOUNTD),
    (QUEUE_RUNNER, OUTBOUND),
    (QUEUE_RUNNER, KEYHOLDER),
    (MX, ACCOUNTD),
    (MX, KEYHOLDER),
    (SUBMISSION, ACCOUNTD),
    (SUBMISSION, KEYHOLDER),
    (SESSION, ACCOUNTD),
    (OTHER_SESSION, ACCOUNTD),
    (FRONT, ACCOUNTD),
    (FRONT, KEYHOLDER),
    (FRONT, SESSION),
    (FRONT, OTHER_SESSION),
];

/// Our name.
pub(super) const HOST: &str = "mx.example.org";

/// Our address.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 25));

/// Jobs after which a parser ends, as planned: few, so that it happens.
const PARSER_JOBS: u32 = 9;

fn figures() -> Figures {
    static ONE: OnceLock<Figures> = OnceLock::new();
    *ONE.get_or_init(Figures::detached)
}

fn slice<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("the slices of the simulation are fixed")
}

/// The code of a process, for one life.
pub(super) fn main(world: &Rc<World>, who: Who, birth: Birth) -> Main {
    match who.role {
        Role::Accountd => accountd(world, birth),
        Role::QueueRunner => queue_runner(world, birth),
        Role::Parser => parser(birth),
        Role::Keyholder => keyholder(world, birth),
        Role::Outbound => outbound(world, birth),
        Role::Resolver => resolver(birth),
        Role::SmtpdMx | Role::SmtpdSubmission => smtpd(world, who, birth),
        Role::ImapdSession => imap_session(world, who, birth),
        Role::ImapdFront => imap_front(world, birth),
        Role::HttpdWeb | Role::HttpdAdmin => {
            Box::pin(async move { anyhow::bail!("{who} is no process of the simulation") })
        }
    }
}

fn accountd(world: &Rc<World>, birth: Birth) -> Main {
    let fatal = "accountd: nobody knows what is on the disk";
    let clock = Arc::clone(&world.clock);
    // What is left of its last life.
    let _ = std::fs::remove_file(world.control());
    let control = UnixListener::bind(world.control()).expect("a folder of our own takes a socket");
    let grants = accountd::Grants {
        slice: slice(json!({
            "hostname": HOST,
            "imap_sessions": 2,
            "postmaster": { "account": "alice", "mailbox": "Inbox" },
            "clear_text_logins": ["public/submission", "public/imap"],
        })),
        folder: world.own_folder(Role::Accountd),
        disk: Arc::new(world.disk(Role::Accountd)),
        clock: Arc::clone(&world.clock) as Arc<dyn types::Clock>,
        boot_clock: Rc::new(move || clock.since_boot()),
        parsers: [PARSER, OTHER_PARSER].map(|p| world.dialer(ACCOUNTD, p)).into(),
        resolver: world.dialer(ACCOUNTD, RESOLVER),
        keyholder: world.dialer(ACCOUNTD, KEYHOLDER),
        clients: birth.acceptors,
        control: Some((control, Rc::new(|_| true))),
        fatal: Arc::new(move |what| panic!("{fatal}: {what}")),
        announce: Rc::new(|| {}),
        workers: Workers::InPlace,
    };
    Box::pin(accountd::run(grants, async move {
        birth.stop.draining().await;
    }))
}

fn queue_runner(world: &Rc<World>, birth: Birth) -> Main {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let grants = queue_runner::Grants {
        hostname: HOST.parse().expect("a constant"),
        queue: config::Queue {
            retry: [1, 2, 4, 8, 15, 30].map(minutes).into(),
            delay_notice_after: 4,
            concurrent: 20,
            concurrent_per_domain: 2,
        },
        folder: world.own_folder(Role::QueueRunner),
        disk: Arc::new(world.disk(Role::QueueRunner)),
        clock: Rc::new(*world.clock),
        accountd: world.dialer(QUEUE_RUNNER, ACCOUNTD),
        outbound: world.dialer(QUEUE_RUNNER, OUTBOUND),
        keyholder: world.dialer(QUEUE_RUNNER, KEYHOLDER),
        figures: figures(),
        control: None,
        fatal: Arc::new(|error| panic!("queue-runner: nobody knows what is on the disk: {error}")),
        workers: Workers::InPlace,
    };
    Box::pin(async move {
        tokio::select! {
            biased;
            _ = birth.stop.draining() => Ok(()),
            ended = queue_runner::run(grants) => ended,
        }
    })
}

fn parser(birth: Birth) -> Main {
    let bounds = parser::Bounds {
        jobs: PARSER_JOBS,
        // The CPU time is that of all runs together here.
        cpu_of_life: Duration::MAX,
        ..parser::Bounds::default()
    };
    let grants = parser::Grants { clients: birth.acceptors, figures: figures(), stop: birth.stop };
    Box::pin(async move {
        parser::run(grants, bounds, parser::Watchdog::asleep()).await;
        Ok(())
    })
}

fn keyholder(world: &Rc<World>, birth: Birth) -> Main {
    let grants = keyholder::Grants {
        slice: slice(json!({ "hostname": HOST })),
        folder: world.own_folder(Role::Keyholder),
        files: keyholder::GivenFiles::default(),
        control: None,
        clients: birth.acceptors,
        clock: Arc::clone(&world.clock) as Arc<dyn types::Clock>,
        figures: figures(),
        workers: Workers::InPlace,
    };
    Box::pin(async move {
        tokio::select! {
            biased;
            _ = birth.stop.draining() => Ok(()),
            ended = keyholder::run(grants) => ended.context("keyholder"),
        }
    })
}

fn outbound(world: &Rc<World>, birth: Birth) -> Main {
    let resolver = world.dialer(OUTBOUND, RESOLVER);
    let connect = remote::connect(world);
    Box::pin(async move {
        let tls = net::ClientTls::new(rustls::RootCertStore::empty()).context("TLS")?;
        let grants = outbound::Grants { connect, tls, resolver, clients: birth.acceptors };
        tokio::select! {
            biased;
            _ = birth.stop.draining() => {}
            () = outbound::run(grants) => {}
        }
        Ok(())
    })
}

fn resolver(birth: Birth) -> Main {
    Box::pin(async move {
        let zones = |_, _| Some(remote::zones());
        tokio::select! {
            biased;
            _ = birth.stop.draining() => {}
            () = ipc::serve_clients(birth.acceptors, ipc::Limits::default(), zones) => {}
        }
        Ok(())
    })
}

fn smtpd(world: &Rc<World>, who: Who, birth: Birth) -> Main {
    let (role, listener) = if who.role == Role::SmtpdMx {
        (server::Role::Mx, "public/smtp")
    } else {
        (server::Role::Submission, "public/submission")
    };
    let ids = Rc::clone(world);
    let Birth { mut visits, stop, .. } = birth;
    let grants = smtpd::Grants {
        role,
        slice: slice(json!({
            "hostname": HOST,
            "listeners": [{ "name": listener, "hostname": HOST }],
        })),
        listeners: Vec::new(),
        accountd: world.dialer(who, ACCOUNTD),
        keyholder: world.dialer(who, KEYHOLDER),
        clock: Arc::clone(&world.clock) as Arc<dyn types::Clock>,
        new_id: Rc::new(move || Some(SessionId::from_bytes(ids.below(u64::MAX).to_be_bytes()))),
        figures: figures(),
        stop: stop.clone(),
    };
    Box::pin(async move {
        let face = smtpd::Face::new(&grants)?;
        let service = face.service(listener).context("the listener is in the slice")?;
        loop {
            let Visit { stream, peer } = tokio::select! {
                biased;
                _ = stop.draining() => return Ok(()),
                Some(visit) = visits.recv() => visit,
            };
            let session = face.serve(&service, stream, peer, LOCAL).context("ids never end")?;
            tokio::task::spawn_local(session);
        }
    })
}

fn imap_session(world: &Rc<World>, who: Who, birth: Birth) -> Main {
    let grants = imapd::session::Grants {
        // As the pure machines of the transcripts have it.
        limits: config::limits::Imap { append: 1_000_000, ..Default::default() },
        accountd: world.dialer(who, ACCOUNTD),
        fronts: birth.acceptors,
        stop: birth.stop,
    };
    Box::pin(async move {
        imapd::session::run(grants).await;
        Ok(())
    })
}

fn imap_front(world: &Rc<World>, birth: Birth) -> Main {
    let listener: Rc<config::slice::ImapListener> =
        Rc::new(slice(json!({ "name": "public/imap", "hostname": HOST })));
    let Birth { mut visits, stop, .. } = birth;
    let session = |who: Who| (who.instance, world.dialer(FRONT, who));
    let grants = imapd::front::Grants {
        listeners: Vec::new(),
        // As the pure machines of the transcripts have it.
        limits: config::limits::Imap { failed_logins: 5, ..Default::default() },
        accountd: world.dialer(FRONT, ACCOUNTD),
        keyholder: world.dialer(FRONT, KEYHOLDER),
        sessions: [SESSION, OTHER_SESSION].map(session).into(),
        clock: Arc::clone(&world.clock) as Arc<dyn types::Clock>,
        stop: stop.clone(),
    };
    Box::pin(async move {
        let face = imapd::front::Face::new(&grants).await?;
        loop {
            let Visit { stream, peer } = tokio::select! {
                biased;
                _ = stop.draining() => return Ok(()),
                Some(visit) = visits.recv() => visit,
            };
            let connection = face.serve(&listener, stream, peer, Some(LOCAL));
            tokio::task::spawn_local(connection.context("TLS options")?);
        }
    })
}
