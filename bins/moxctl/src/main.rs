//! moxctl: the administrator's command line: status, accounts, queue, walls, logs.
//!
//! Trust:   the administrator's; runs with its caller's rights and nothing more.
//! Runs as: whoever calls it.
//! Holds:   nothing. Asks each vault and the supervisor on their own control sockets, where the
//!          kernel tells them its uid.
//! Never:   touches a file of the server (it reads `mox.toml` for `config test`).
//! If it dies: nothing else notices.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

mod accounts;
mod cli;
mod configuration;
mod failure;
mod logs;
mod messages;
mod queue;
mod reach;
mod show;
mod supervisor;

use clap::Parser as _;
use cli::{Args, Command};
use failure::Failure;
use show::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output { json: args.json };
    match run(args, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("moxctl: {failure}");
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
        Command::Reload => supervisor::order(&sockets, daemon::orders::Order::Reload),
        Command::Stop => supervisor::order(&sockets, daemon::orders::Order::Stop),
        Command::Upgrade => supervisor::order(&sockets, daemon::orders::Order::Upgrade),
        Command::Restart { role } => {
            supervisor::order(&sockets, daemon::orders::Order::Restart(role))
        }
        Command::Loglevel { level, role } => {
            supervisor::order(&sockets, daemon::orders::Order::LogLevel(role, level.into()))
        }
        Command::Config { what } => configuration::run(&sockets, what),
        Command::Account { what } => accounts::account(&sockets, what, output),
        Command::Clientkey { what } => accounts::client_key(&sockets, what, output),
        Command::Address { what } => accounts::address(&sockets, what, output),
        Command::Domain { what } => accounts::domain(&sockets, what, output),
        Command::Queue { what } => queue::run(&sockets, what, output),
        Command::Message { what } => messages::run(&sockets, what),
        Command::Log { what } => logs::run(&sockets, what),
        Command::Completion { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "moxctl", &mut std::io::stdout());
            Ok(())
        }
    }
}
