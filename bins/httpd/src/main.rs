//! httpd: the web. Role `web` answers users and strangers, role `admin` administrators and their
//! monitoring, each behind listeners of its own.
//!
//! Trust:   faces the network; written on the assumption that it will be taken over.
//! Runs as: `_mox-httpd-web` or `_mox-httpd-admin`; no file, no connect(2), no bind(2).
//! Holds:   its listeners, TLS as its own names; `web` the names mail programs are told, as accountd
//!          says; `admin` other processes' figures, read only.
//! Never:   sees a private key, a password hash, or mail of anybody who is not logged in.
//! If it dies: restarted; clients ask again.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use daemon::Socket;
use httpd::{Grants, Side};
use ipc::Role;
use sandbox::profiles::{HTTPD_ADMIN, HTTPD_WEB};
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    daemon::start_prepared(
        &[Role::HttpdWeb, Role::HttpdAdmin],
        |role| if role == Role::HttpdAdmin { &HTTPD_ADMIN } else { &HTTPD_WEB },
        |_, _| net::draw_first_random().context("random numbers"),
        |mut inherited, ()| async move {
            let mut listeners = Vec::new();
            for listener in std::mem::take(&mut inherited.listeners) {
                let service = listener.service().to_owned();
                if let Socket::Tcp(socket) = listener.socket {
                    listeners.push((service, socket));
                }
            }
            let admin = inherited.role == Role::HttpdAdmin;
            let grants = Grants {
                side: if admin { Side::Admin } else { Side::Web },
                slice: inherited.slice().context("slice")?,
                listeners,
                keyholder: inherited.dialer(Role::Keyholder),
                accountd: inherited.dialer(Role::Accountd),
                peer_figures: inherited.peer_figures,
                figures: inherited.figures,
                clock: Arc::new(types::SystemClock),
                stop: inherited.stop,
            };
            httpd::run(grants).await.context("httpd")
        },
    )
}
