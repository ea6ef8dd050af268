//! `throng tune`: what this machine must allow for so many connections, and whether it does.

mod apply;
mod files;
mod guide;
mod show;

pub(crate) use show::{holds, remedy};

use crate::config::value::size;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use throng::tuning::{Aim, Check, Machine, Role, Verdict, check};

const MORE: &str = "\
Examples:
  throng tune -c 1000000                          what a server of a million connections lacks here
  throng tune -c 1000000 --apply                  change that until the machine starts again; asks
  throng tune -c 1000000 --write FILE             for good: FILE in /etc/sysctl.d, sysctl --system
  throng tune -c 100000 --role load --sources 4   a load generator with four addresses
  throng tune --explain tcp_mem                   what it does, and what goes wrong

Only what falls short is changed or written, never a setting that allows more. tuning/README.md is the guide.

Exit status: 0 when nothing falls short, 1 when something does or could not be changed, 2 for a wrong command line.";

#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Options {
    /// Connections at a time: 1000000, 1M, 100k
    #[arg(short, long, value_name = "N", value_parser = count, required_unless_present_any = ["explain", "guide"])]
    connections: Option<u64>,
    /// What runs on this machine: the server, a load generator against another machine, or both over loopback
    #[arg(long, value_name = "ROLE", value_parser = ["server", "load", "both"], default_value = "server")]
    role: String,
    /// Reckon with this much memory to be had, such as 16G, instead of what there is: for another machine
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Source addresses of a load generator
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sources: Option<u64>,
    /// Show all settings that have something to say, those to leave alone too
    #[arg(long)]
    all: bool,
    /// As JSON
    #[arg(long, conflicts_with_all = ["apply", "write"])]
    json: bool,
    /// Change what falls short, as far as that is possible, until the next start of the machine
    #[arg(long, conflicts_with = "memory")]
    apply: bool,
    /// Do not ask before that
    #[arg(long, requires = "apply")]
    yes: bool,
    /// Write what falls short to a file for sysctl.d(5); - is standard output
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Say what the guide says of a setting, or of any other of its headings
    #[arg(long, value_name = "SETTING")]
    #[arg(conflicts_with_all = ["connections", "role", "memory", "sources", "all", "json", "apply", "yes", "write", "guide"])]
    explain: Option<String>,
    /// The guide's table, or a file that stands in tuning/: table, sysctl, load, limits, systemd
    #[arg(long, value_name = "PART", hide = true, exclusive = true, value_parser = files::PARTS)]
    guide: Option<String>,
    /// Where /proc and /sys lie
    #[arg(long, value_name = "DIR", hide = true, default_value = "/")]
    root: PathBuf,
}

/// A number, perhaps in thousands or millions.
fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1_000), ("M", 1_000_000)]).ok_or_else(|| "a number such as 1000000, 1M or 100k".to_owned())
}

/// Bytes, perhaps in binary units.
fn bytes(text: &str) -> Result<u64, String> {
    match size(text).or_else(|| scaled(text, &[])) {
        Some(0) | None => Err("a number of bytes such as 17179869184, 16384M or 16G".to_owned()),
        Some(bytes) => Ok(bytes),
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit = units.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)));
    let (digits, unit) = unit.unwrap_or((text, 1));
    digits.replace([',', '_'], "").parse::<u64>().ok()?.checked_mul(unit)
}

/// Does what was asked for.
pub(crate) fn run(options: &Options) -> ExitCode {
    let outcome = match (&options.explain, &options.guide, options.connections) {
        (Some(what), ..) => guide::explain(what).and_then(|text| print(&text)).map(|()| true),
        (_, Some(part), _) => print(&files::part(part)).map(|()| true),
        (.., Some(connections)) => tune(options, connections),
        (.., None) => Err("say how many connections: --connections N".to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("throng tune: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing falls short, in the end.
fn tune(options: &Options, connections: u64) -> Result<bool, String> {
    let role = match options.role.as_str() {
        "load" => Role::Load,
        "both" => Role::Both,
        _ => Role::Server,
    };
    let mut aim = Aim::new(connections, role)?;
    match (options.sources, role) {
        (None, _) => {}
        (sources, Role::Load) => aim.sources = sources,
        _ => return Err("--sources is for --role load: over loopback there are as many as it takes".to_owned()),
    }
    let read = || {
        let machine = Machine::read(&options.root);
        if let Some(bytes) = options.memory { machine.with_memory(bytes) } else { machine }
    };
    let machine = read();
    let checks = check(&aim, &machine);
    if options.json {
        print(&show::json(&aim, &machine, &checks))?;
        return Ok(none_is_short(&checks));
    }
    if let Some(file) = &options.write {
        write(file, &files::sysctl(&aim, &checks))?;
    }
    if options.write.as_deref() != Some(Path::new("-")) {
        print(&show::table(&aim, &machine, &checks, options.all))?;
    }
    if !options.apply {
        return Ok(none_is_short(&checks));
    }
    let changed = apply::apply(&checks, &options.root, options.yes)?;
    let after = check(&aim, &read());
    print(&show::remaining(&after))?;
    Ok(changed && none_is_short(&after))
}

fn none_is_short(checks: &[Check]) -> bool {
    shortages(checks).is_empty()
}

/// What falls short.
fn shortages(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| check.verdict == Verdict::Short).map(|check| check.setting.name).collect()
}

/// Whoever reads may stop reading at any time.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    if file == Path::new("-") {
        return print(text);
    }
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    eprintln!("written: {}; `sysctl --system` reads it, and the machine when it starts", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_have_units() {
        assert_eq!(
            [count("1000000"), count("1M"), count("1,000,000"), count("100k")].map(Result::unwrap),
            [1_000_000, 1_000_000, 1_000_000, 100_000]
        );
        assert_eq!(
            [bytes("16G"), bytes("16GiB"), bytes("512M"), bytes("7")].map(Result::unwrap),
            [16 << 30, 16 << 30, 512 << 20, 7]
        );
        for nonsense in ["", "M", "-1", "1.5M", "many", "99999999999999999999", "99999999999999999M"] {
            assert!(count(nonsense).is_err(), "{nonsense}");
            assert!(bytes(nonsense).is_err(), "{nonsense}");
        }
        assert!(bytes("0").is_err());
    }
}
