//! Changing to another build of ourselves without refusing a connection: exec in place, with the
//! listening sockets and the old binaries handed on through descriptor 0.
//!
//! The old tree has drained before that; connections made meanwhile wait in the backlogs. If the
//! new tree does not come to serve, the new supervisor drains it and execs the old binary, which
//! was held open, and that runs the old role binaries, held open too.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use sandbox::channel::{Expect, MAX_DESCRIPTORS, recv_with_fds, send_with_fds, seqpacket_pair};

use crate::{binaries::Binaries, ports::Ports};

/// Says that descriptor 0 holds what follows, and which way we go.
const VARIABLE: &str = "MOX_HANDED_ON";
const FORTH: &str = "upgrade";
const BACK: &str = "fallback";

/// The longest message: 16 names.
const MAX_NAMES: usize = 4096;

/// What a supervisor before us left.
#[derive(Debug)]
pub(crate) struct Handed {
    /// Listening sockets by name.
    pub(crate) ports: BTreeMap<String, OwnedFd>,
    /// Its role binaries by name.
    pub(crate) binaries: BTreeMap<String, OwnedFd>,
    /// Its own binary.
    pub(crate) moxd: OwnedFd,
    /// We are the old build, called back.
    pub(crate) back: bool,
}

/// Takes over what was handed on, if anything was.
pub(crate) fn receive() -> anyhow::Result<Option<Handed>> {
    let Some(way) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let socket = sandbox::process::take_supervision_socket().context("take descriptor 0")?;
    let (mut ports, mut binaries, mut moxd) = (BTreeMap::new(), BTreeMap::new(), None);
    let expect = Expect::AtMost(MAX_DESCRIPTORS);
    while let Some(received) = recv_with_fds(&socket, MAX_NAMES, expect).context("hand-over")? {
        let names = String::from_utf8(received.bytes).context("hand-over")?;
        let names: Vec<&str> = names.split('\n').collect();
        if names.len() != received.descriptors.len() {
            bail!("the hand-over names {} descriptors", names.len());
        }
        for (name, descriptor) in names.into_iter().zip(received.descriptors) {
            match name.split_once(' ') {
                Some(("port", name)) => drop(ports.insert(name.to_owned(), descriptor)),
                Some(("binary", name)) => drop(binaries.insert(name.to_owned(), descriptor)),
                Some(("moxd", _)) => moxd = Some(descriptor),
                // A newer build may hand on more than we know.
                Some(_) | None => {}
            }
        }
    }
    let moxd = moxd.context("the hand-over lacks the old binary")?;
    Ok(Some(Handed { ports, binaries, moxd, back: way == BACK }))
}

/// Which way to go.
pub(crate) enum Way<'a> {
    /// To the build that is installed at this path.
    Forth(&'a Path),
    /// To the old build: its binary and its roles'.
    Back(&'a OwnedFd),
}

/// Becomes the other build. Returns only if that failed, and then everything is as before.
pub(crate) fn exec(way: &Way<'_>, ports: &Ports, binaries: &Binaries, moxd: &OwnedFd) -> io::Error {
    let (path, value) = match way {
        Way::Forth(path) => (path.to_path_buf(), FORTH),
        Way::Back(old) => (PathBuf::from(format!("/proc/self/fd/{}", old.as_raw_fd())), BACK),
    };
    match put_into_descriptor_0(ports, binaries, moxd) {
        Ok(kept) => {
            let mut arguments = std::env::args_os();
            let mut command = Command::new(path);
            if let Some(name) = arguments.next() {
                command.arg0(name);
            }
            // The sockets of systemd are among those handed on.
            command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
            let error = command.args(arguments).env(VARIABLE, value).exec();
            drop(kept);
            error
        }
        Err(error) => error,
    }
}

/// The end that was written to must live until exec, or the kernel drops what is on its way.
fn put_into_descriptor_0(
    ports: &Ports,
    binaries: &Binaries,
    moxd: &OwnedFd,
) -> io::Result<OwnedFd> {
    let (from, to) = seqpacket_pair()?;
    let ports = ports.all().map(|(name, socket)| (format!("port {name}"), socket));
    let binaries = binaries.all().map(|(name, file)| (format!("binary {name}"), file));
    let ours = [("moxd ".to_owned(), moxd)];
    let all: Vec<_> = ports.chain(binaries).chain(ours).collect();
    // Nobody reads until exec: what does not fit is an error, not a wait.
    sandbox::channel::set_nonblocking(&from, true)?;
    for part in all.chunks(MAX_DESCRIPTORS) {
        let names: Vec<&str> = part.iter().map(|(name, _)| name.as_str()).collect();
        let descriptors: Vec<BorrowedFd<'_>> = part.iter().map(|(_, fd)| fd.as_fd()).collect();
        send_with_fds(&from, names.join("\n").as_bytes(), &descriptors)?;
    }
    rustix::stdio::dup2_stdin(&to)?;
    Ok(from)
}
