//! `throng-load`: opens connections to any server, up to millions, keeps them busy, and reports what it saw and what
//! it cost. See `throng-load --help`.

mod centrifugo;
mod cli;
mod clock;
mod engine;
mod fanout;
mod handshake;
mod load;
mod mode;
mod observe;
mod page;
mod plan;
mod poll;
mod preflight;
mod progress;
mod reason;
mod results;
mod run;
mod sizes;
mod source;
mod summary;
mod target;
mod timeline;
mod verdict;

use clap::Parser;
use load::Stop;
use results::Results;
use std::io::{self, Write};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match load::run(&cli) {
        Ok(results) => match publish(&results, cli.load.common()) {
            Ok(()) if results.clean => ExitCode::SUCCESS,
            Ok(()) => ExitCode::from(3),
            Err(error) => {
                eprintln!("throng-load: {error}");
                ExitCode::FAILURE
            }
        },
        Err(Stop::Usage(text)) => {
            eprintln!("throng-load: {text}");
            ExitCode::from(2)
        }
        Err(Stop::Missing(missing)) => {
            eprintln!("throng-load: this machine does not allow that yet:");
            for one in &missing {
                eprintln!("  - {}.\n    {}", one.what, one.fix);
            }
            eprintln!("To start all the same: --force");
            ExitCode::from(2)
        }
        Err(Stop::Broken(error)) => {
            eprintln!("throng-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the results everywhere they are wanted.
fn publish(results: &Results, common: &cli::Common) -> Result<(), String> {
    // A reader that has gone away (`| head`) is no failure of the run.
    let _ = io::stdout().write_all(summary::text(results).as_bytes());
    let in_file = |path: &std::path::Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = &common.json {
        let text = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
        in_file(path, text + "\n")?;
    }
    if let Some(path) = &common.report {
        in_file(path, page::html(results))?;
    }
    Ok(())
}
