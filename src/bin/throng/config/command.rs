//! `throng config`.

use super::{Flags, Loaded, manual, show, variables};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to do with a configuration.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Say everything that is wrong with a file, line by line, with the environment's THRONG_* variables over it as for `serve`.
    /// Exit status: 0 if nothing is, 1 otherwise
    Check {
        /// The file to check
        #[arg(value_name = "FILE", required_unless_present = "config")]
        file: Option<PathBuf>,
        /// The same, as for `serve`
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
    },
    /// Print the settings that would hold, with where each comes from: default, file and line, environment variable, flag. Takes
    /// what `serve` takes. What is printed can be used as a file, but for secrets, which are not shown
    Show {
        /// File with the settings
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The same, as for `serve`
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
        /// Print JSON: an object with each setting's `value` and `origin`
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Print a file with every setting explained, its default, its environment variable and its flag, all commented out
    Default,
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        match self {
            Self::Check { file, config } => {
                let file = file.or(config).unwrap_or_default();
                let loaded = Loaded::new(Some(&file), &variables(), &Flags::default()).map_err(|mut faults| {
                    if !faults.1 {
                        faults.0.push(
                            "mend these first, then check again: what cannot be together was not looked at".into(),
                        );
                    }
                    faults
                })?;
                for warning in loaded.warnings() {
                    println!("warning: {}", loaded.explain(&warning));
                }
                println!("{}: nothing is wrong", file.display());
            }
            Self::Show { file, config, json, flags } => {
                let loaded = Loaded::new(file.or(config).as_deref(), &variables(), &flags)?;
                print!("{}", if json { show::json(&loaded) } else { show::text(&loaded) });
            }
            Self::Default => print!("{}", manual::manual()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
