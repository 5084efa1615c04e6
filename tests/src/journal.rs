//! systemd's journal in small, for a moxd that finds it where systemd has it: streams with a header of
//! seven lines (systemd-journald.service(8) has them from `systemd-cat`), kept in a file, and a
//! `journalctl` that knows the options moxctl gives it.

use crate::tree::binary;
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

/// The folder of its `journalctl`, in the folder of the server.
pub(crate) const PROGRAMS: &str = "programs";

/// Lines of a stream's header; the first is the identifier.
const HEADER: usize = 7;

/// A moxd that has its journal in `folder` instead of the machine's: in a mount namespace of its own.
pub(crate) fn moxd(folder: &Path) -> Command {
    let socket = folder.join("journal");
    std::fs::create_dir(&socket).expect("the folder is ours");
    let listener = UnixListener::bind(socket.join("stdout")).expect("the folder is ours");
    let kept = folder.join("journal.lines");
    let file = Arc::new(Mutex::new(File::create(&kept).expect("the folder is ours")));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let file = Arc::clone(&file);
            std::thread::spawn(move || keep(stream, &file));
        }
    });
    let programs = folder.join(PROGRAMS);
    std::fs::create_dir(&programs).expect("the folder is ours");
    let reader = programs.join("journalctl");
    std::fs::write(&reader, READER.replace("KEPT", &kept.display().to_string()))
        .expect("the folder is ours");
    std::fs::set_permissions(&reader, PermissionsExt::from_mode(0o755)).expect("it is ours");

    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("JOURNAL_STREAM", "0:0");
    let place = "mount -t tmpfs -o mode=755 none /run && mkdir -p /run/systemd && \
                 ln -s \"$0\" /run/systemd/journal && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-ec", place]);
    command.arg(socket).arg(binary("moxd"));
    command
}

/// One stream to its end.
fn keep(stream: UnixStream, file: &Mutex<File>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let header: Vec<String> = lines.by_ref().take(HEADER).collect();
    let Some(identifier) = header.first() else { return };
    for line in lines {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // A test that misses lines says so.
        let _ = writeln!(file, "{identifier}\t{line}");
    }
}

/// Its reader; a cursor is a number of lines.
const READER: &str = r#"#!/bin/sh
after=0 follow= cursor= names=
for word; do
    case $word in
        --identifier=*) names="$names|${word#*=}" ;;
        --after-cursor=*) after=${word#*=} ;;
        --show-cursor) cursor=1 ;;
        --follow) follow="--follow --pid=$PPID" ;;
        --quiet | --no-pager | --output=cat | --all | --no-tail) ;;
        *) echo "journalctl: $word" >&2; exit 1 ;;
    esac
done
lines=$(wc -l <KEPT)
if [ -n "$follow" ]; then
    tail --lines=+$((after + 1)) --sleep-interval=0.05 $follow KEPT
else
    head --lines="$lines" KEPT
fi | grep --line-buffered -E "^(${names#|})	" | sed -u 's/^[^	]*	//'
[ -z "$cursor" ] || echo "-- cursor: $lines"
"#;
