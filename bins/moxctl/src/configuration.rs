//! `moxctl config`: checking mox.toml, editing domains.toml.

use crate::{
    cli::Config,
    failure::Failure,
    messages::done,
    reach::{SHORT, Sockets},
    show::Output,
};
use config::{Problem, Static};
use ipc::{Role, schema::control_capnp::account_admin, within};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) fn run(sockets: &Sockets, what: Config, output: Output) -> Result<(), Failure> {
    match what {
        Config::Test { file } => test(&file, output),
        Config::Edit => edit(sockets, output),
    }
}

fn test(file: &Path, output: Output) -> Result<(), Failure> {
    let shown = file.display();
    let text = fs::read_to_string(file).map_err(|e| Failure::Failed(format!("{shown}: {e}")))?;
    match Static::parse(&text, &shown.to_string()) {
        Ok(_) if output.json => {
            let file = Value::from(shown.to_string());
            output.table(&["file", "sound"], &[vec![file, Value::Bool(true)]]);
            Ok(())
        }
        Ok(_) => {
            output.line(&format!("{shown}: sound"));
            Ok(())
        }
        Err(problems) if output.json => {
            let columns = ["file", "line", "column", "message", "hint"];
            let row = |problem: &Problem| {
                vec![
                    Value::from(problem.file.as_str()),
                    Value::from(problem.line),
                    Value::from(problem.column),
                    Value::from(problem.message.as_str()),
                    Value::from(problem.hint.clone()),
                ]
            };
            output.table(&columns, &problems.iter().map(row).collect::<Vec<_>>());
            Err(Failure::Failed(format!("{shown}: {} faults", problems.len())))
        }
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(Failure::Failed(lines.join("\n")))
        }
    }
}

/// Reads domains.toml from accountd, has it edited, and gives it back; what is wrong can be mended
/// in the same text.
fn edit(sockets: &Sockets, output: Output) -> Result<(), Failure> {
    let accountd = Role::Accountd.name();
    let (text, revision) = sockets.ask(accountd, async |admin: account_admin::Client| {
        let answer = within(SHORT, admin.directory_read_request().send().promise).await?;
        let answer = answer.get()?;
        Ok((answer.get_text()?.to_vec(), answer.get_revision()))
    })?;
    let draft = Draft::of(&text)?;
    loop {
        let new = draft.edited()?;
        if new == text {
            output.line("unchanged");
            return Ok(());
        }
        let written = sockets.ask(accountd, async |admin: account_admin::Client| {
            let mut request = admin.directory_write_request();
            request.get().set_text(&new);
            request.get().set_revision(revision);
            let answer = within(SHORT, request.send().promise).await?;
            done(answer.get()?.get_problem()?)
        });
        let Err(failure) = written else { return Ok(()) };
        eprintln!("{failure}");
        eprint!("Edit again? [Y/n] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer)?;
        if read == 0 || answer.trim().eq_ignore_ascii_case("n") {
            return Err(Failure::Failed("nothing was changed".into()));
        }
    }
}

/// The text in a file of the caller's own, removed at the end.
struct Draft(PathBuf);

impl Draft {
    fn of(text: &[u8]) -> Result<Self, Failure> {
        let folder = std::env::temp_dir();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| Failure::Failed(e.to_string()))?;
        let name = format!("moxctl-{:016x}.toml", u64::from_le_bytes(random));
        let path = folder.join(name);
        // create_new: never through a link somebody else put there.
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let draft = Self(path);
        file.write_all(text)?;
        Ok(draft)
    }

    fn edited(&self) -> Result<Vec<u8>, Failure> {
        let editor = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR"));
        let editor = editor.unwrap_or_else(|_| "editor".into());
        // The variable may hold arguments, by custom separated by blanks.
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or("editor");
        let status = Command::new(program).args(words).arg(&self.0).status().map_err(|error| {
            let advice = "EDITOR or VISUAL names the one to use; nothing was changed";
            Failure::Failed(format!("the editor {program:?} cannot be run: {error}; {advice}"))
        })?;
        if !status.success() {
            let text = format!("the editor {program:?}: {status}; nothing was changed");
            return Err(Failure::Failed(text));
        }
        Ok(fs::read(&self.0)?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Left behind it would only be one's own file in one's own temporary folder.
        let _ = fs::remove_file(&self.0);
    }
}
