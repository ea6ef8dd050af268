//! The `throng` command.

#![deny(unsafe_code)]

mod access;
mod config;
mod connect;
mod jwks;
mod log;
mod memory;
mod preflight;
mod reload;
mod serve;
mod tap;
mod token;
mod tune;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;

/// Returns memory to the system after a burst of connections, and does not fragment under churn.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A push server for a million and more live connections on one machine.
///
/// Without a command it serves with the defaults: `throng` is `throng serve`.
#[derive(Parser)]
#[command(name = "throng", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(Box<serve::Options>),
    Connect(Box<connect::Options>),
    /// Check or show a configuration, or print one with every setting explained.
    #[command(subcommand)]
    Config(config::command::Command),
    /// Print a token that the configured secret signs, to try things out.
    Token(token::Options),
    /// Say what this machine must allow for so many connections, and whether it does; change it.
    Tune(tune::Options),
    /// Watch frames of one connection, user or topic of a running server.
    Tap(tap::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Connect(options)) => return connect::run(*options),
        Some(Command::Serve(options)) => serve(*options),
        Some(Command::Config(command)) => command.run(),
        Some(Command::Token(options)) => token::run(&options),
        Some(Command::Tune(options)) => return tune::run(&options),
        Some(Command::Tap(options)) => tap::run(&options).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        None => serve(cli.serve),
    };
    done.unwrap_or_else(|error| {
        for line in error.to_string().lines() {
            eprintln!("throng: {line}");
        }
        ExitCode::FAILURE
    })
}

fn serve(options: serve::Options) -> Result<ExitCode, Box<dyn Error>> {
    // Whoever has it reload while it starts must not end it: that waits until somebody listens to it.
    let _held = throng::sys::block_signals(&[throng::sys::SIGHUP])?;
    let loaded = options.load()?;
    log::install(loaded.settings.log_level, loaded.settings.log_format);
    serve::run(options, &loaded)?;
    Ok(ExitCode::SUCCESS)
}
