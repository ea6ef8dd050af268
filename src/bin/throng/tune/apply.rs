//! Changing what falls short, and saying how to change it back.

use super::show::{assignment, by_hand};
use std::fs;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::path::Path;
use throng::tuning::{Check, Verdict};

/// A change that can be made by writing a file below /proc/sys.
struct Change {
    name: &'static str,
    path: String,
    value: String,
}

/// Changes what falls short; whether all of that could be changed. An error is a wrong way to ask for it.
pub(super) fn apply(checks: &[Check], root: &Path, yes: bool) -> Result<bool, String> {
    let short = || checks.iter().filter(|check| check.verdict == Verdict::Short);
    let changes: Vec<Change> = short()
        .filter_map(|check| {
            Some(Change { name: check.setting.name, path: check.setting.path()?, value: check.value()? })
        })
        .collect();
    let mut all = changes.len() == short().count();
    if changes.is_empty() {
        println!("\nThere is nothing to change{}.", if all { "" } else { " by writing a setting" });
        return Ok(all);
    }
    println!("\nTo be changed, until the next start of the machine:");
    for change in &changes {
        println!("  sysctl -w {}", assignment(change.name, &change.value));
    }
    if !yes && !agreed()? {
        println!("Nothing was changed.");
        return Ok(false);
    }
    let mut undo = Vec::new();
    for change in &changes {
        let file = root.join(change.path.trim_start_matches('/'));
        let before = fs::read_to_string(&file).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        // Files there are made by the kernel; one that is missing is not to be made.
        match fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&file)
            .and_then(|mut file| file.write_all(change.value.as_bytes()))
        {
            Ok(()) => undo.extend(before.map(|before| assignment(change.name, &before))),
            Err(error) => {
                all = false;
                println!("not changed: {}: {}", change.name, why(&error));
            }
        }
    }
    for check in short() {
        if let Some(how) = by_hand(check) {
            println!("not changed: {}: {how}", check.setting.name);
        }
    }
    if !undo.is_empty() {
        println!("\nChanged. To undo it:");
        undo.iter().for_each(|line| println!("  sysctl -w {line}"));
    }
    Ok(all)
}

fn agreed() -> Result<bool, String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err("nobody is there to be asked: --apply --yes changes without asking".to_owned());
    }
    print!("Change them? [y/N] ");
    let _ = io::stdout().flush();
    let mut line = String::new();
    input.lock().read_line(&mut line).map_err(|error| format!("standard input: {error}"))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!("{error}: it takes root"),
        ErrorKind::ReadOnlyFilesystem => {
            format!(
                "{error}: a container; change it on its host, or as its runtime has it (docker run --sysctl, a pod's securityContext.sysctls)"
            )
        }
        ErrorKind::InvalidInput => format!("{error}: the kernel does not take that value"),
        _ => error.to_string(),
    }
}
