//! moxctl: the administrator's command line: status, accounts, queue, walls, logs.
//!
//! Trust:   the administrator's; runs with its caller's rights and nothing more.
//! Runs as: whoever calls it.
//! Holds:   nothing. Asks each vault and the supervisor on their own control sockets, where the
//!          kernel tells them its uid.
//! Never:   touches a file of the server (it reads `mox.toml` for `config test`).
//! If it dies: nothing else notices.

#![forbid(unsafe_code)]

mod accounts;
mod cli;
mod configuration;
mod failure;
mod log_source;
mod logs;
mod messages;
mod queue;
mod reach;
mod show;
mod supervisor;

use clap::Parser as _;
use cli::{Args, Command};
use daemon::orders::Order;
use failure::Failure;
use show::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are no errors, and go where clap puts them.
        Err(error) if error.use_stderr() && std::env::args().any(|word| word == "--json") => {
            Output { json: true }.failed(error.render().to_string().trim_end());
            return ExitCode::from(Failure::Usage(String::new()).exit_code());
        }
        Err(error) => error.exit(),
    };
    let output = Output { json: args.json };
    match run(args, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failed(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: Args, output: Output) -> Result<(), Failure> {
    let sockets = reach::Sockets::new(args.control);
    match args.command {
        Command::Status => supervisor::status(&sockets, output),
        Command::Processes { what } => supervisor::processes(&sockets, what.as_ref(), output),
        Command::Confine { what } => supervisor::confine(&sockets, &what, output),
        Command::Reload => supervisor::order(&sockets, Order::Reload, output),
        Command::Stop => supervisor::order(&sockets, Order::Stop, output),
        Command::Upgrade => supervisor::order(&sockets, Order::Upgrade, output),
        Command::Restart { role } => supervisor::order(&sockets, Order::Restart(role), output),
        Command::Loglevel { level, role } => {
            supervisor::order(&sockets, Order::LogLevel(role, level.into()), output)
        }
        Command::Config { what } => configuration::run(&sockets, what, output),
        Command::Account { what } => accounts::account(&sockets, what, output),
        Command::Clientkey { what } => accounts::client_key(&sockets, what, output),
        Command::Address { what } => accounts::address(&sockets, what, output),
        Command::Domain { what } => accounts::domain(&sockets, what, output),
        Command::Queue { what } => queue::run(&sockets, what, output),
        Command::Message { what } => messages::run(&sockets, what),
        Command::Log { what } => logs::run(&sockets, what, output),
        Command::Completion { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            // Into memory: the generator panics when its reader has seen enough.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "moxctl", &mut script);
            show::say_all(&script);
            Ok(())
        }
    }
}
