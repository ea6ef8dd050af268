//! The `throng` command.

#![deny(unsafe_code)]

mod file;
mod log;
mod memory;
mod serve;
mod settings;

use clap::{Parser, Subcommand};
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
    Serve(serve::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = match cli.command {
        Some(Command::Serve(options)) => options,
        None => cli.serve,
    };
    let failed = |error: &dyn std::fmt::Display| {
        eprintln!("throng: {error}");
        ExitCode::FAILURE
    };
    let settings = match options.settings() {
        Ok(settings) => settings,
        Err(error) => return failed(&error),
    };
    log::install(settings.log_level);
    match serve::run(&options, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}
