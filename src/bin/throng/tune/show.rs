//! What was found, for people and as JSON.

use super::files;
use serde_json::{Value, json};
use std::fmt::Write;
use throng::tuning::{
    Aim, Check, KERNEL_BYTES_PER_SOCKET, Machine, Need, Place, Reading, Role, Verdict, bounds, grouped,
};

/// The table and what follows from it.
pub(super) fn table(aim: &Aim, machine: &Machine, checks: &[Check], all: bool) -> String {
    let mut text = format!("{}\n\n", headline(aim, machine));
    let mut left = Vec::new();
    let mut rows = vec![["setting", "now", "needed", "verdict", "why"].map(str::to_owned)];
    for check in checks {
        let is_quiet = matches!(check.verdict, Verdict::Left | Verdict::Idle(_)) || is_told(check);
        if is_quiet && !all {
            left.push(check.setting.name);
            continue;
        }
        let why = why(check);
        rows.push([check.setting.name.to_owned(), now(check), need(check), verdict(&check.verdict).to_owned(), why]);
    }
    lay_out(&mut text, &rows);
    legend(&mut text, aim, machine, &rows);
    if !left.is_empty() {
        let _ = writeln!(text, "\nNothing is needed of {} more (--all shows them).", left.len());
    }
    let _ = writeln!(text, "\n{}", holds(aim.role, machine));
    summary(&mut text, checks);
    start(&mut text, aim, machine);
    text
}

/// What the letters of the arithmetic are, where it is shown.
fn legend(text: &mut String, aim: &Aim, machine: &Machine, rows: &[[String; 5]]) {
    let shows = |what: &str| rows.iter().any(|row| row[4].contains(what));
    let mut said = Vec::new();
    if shows("ends here") {
        let ends = aim.role.ends();
        said.push(format!("ends here: how many of a connection's two ends are on this machine, {ends}"));
    }
    if shows(" W ") {
        let workers = aim.workers(machine).filter(|_| aim.role == Role::Server);
        said.push(format!(
            "W: workers{}",
            workers.map_or_else(String::new, |workers| format!(", {}", grouped(workers)))
        ));
    }
    if !said.is_empty() {
        let _ = writeln!(text, "\nN: connections, {}; {}.", grouped(aim.connections), said.join("; "));
    }
}

/// How the server is told: by default it holds what one descriptor table for each core does.
fn start(text: &mut String, aim: &Aim, machine: &Machine) {
    if let Some(workers) = aim.workers(machine).filter(|_| aim.role != Role::Load) {
        let it = if aim.role == Role::Both { "the server" } else { "it" };
        let _ = writeln!(
            text,
            "start {it} with: throng serve --max-connections {} ({workers} worker{} here)",
            aim.connections,
            if workers == 1 { "" } else { "s" }
        );
    }
}

/// A row about what was not given.
fn is_told(check: &Check) -> bool {
    check.setting.place == Place::Told && check.now == Reading::Unlimited
}

fn headline(aim: &Aim, machine: &Machine) -> String {
    let who = match aim.role {
        Role::Server => "a server",
        Role::Load => "a load generator",
        Role::Both => "a server and its load generator",
    };
    format!(
        "{} connections of {who}: Linux {}.{}, {} cores, {} of memory to be had",
        grouped(aim.connections),
        machine.kernel.0,
        machine.kernel.1,
        machine.cores,
        gib(machine.memory_left()),
    )
}

/// What the machine holds, and by what: `this machine: 1.9 M connections by memory, 2.4 M by fs.file-max`.
pub(crate) fn holds(role: Role, machine: &Machine) -> String {
    let bounds: Vec<String> = bounds(role, machine).iter().take(3).map(ToString::to_string).collect();
    let ends = if role == Role::Both { ", both ends of each" } else { "" };
    match bounds.split_first() {
        Some((first, rest)) => {
            let mut text = first.replacen(" by ", " connections by ", 1);
            rest.iter().for_each(|bound| text += &format!(", {bound}"));
            format!("this machine: {text}{ends}")
        }
        None => "this machine does not say what it holds".to_owned(),
    }
}

fn summary(text: &mut String, checks: &[Check]) {
    let names = |wanted: fn(&Verdict) -> bool| -> Vec<&str> {
        checks.iter().filter(|check| wanted(&check.verdict)).map(|check| check.setting.name).collect()
    };
    let unknown = names(|verdict| matches!(verdict, Verdict::Unknown(_)));
    if !unknown.is_empty() {
        let _ = writeln!(text, "Not to be told here: {}.", unknown.join(", "));
    }
    match names(|verdict| *verdict == Verdict::Short)[..] {
        [] => text.push_str("Nothing falls short.\n"),
        [one] => {
            let _ = writeln!(text, "{one} falls short.");
        }
        ref several => {
            let _ = writeln!(text, "{} fall short: {}.", several.len(), several.join(", "));
        }
    }
    for check in checks.iter().filter(|check| check.verdict == Verdict::Short) {
        if let Some(how) = by_hand(check) {
            let _ = writeln!(text, "  {}: {how}", check.setting.name);
        }
    }
}

/// What to do about a setting that falls short.
pub(crate) fn remedy(check: &Check) -> String {
    let by_writing = || Some(format!("sysctl -w {}", assignment(check.setting.name, &files::value(check)?)));
    by_hand(check).or_else(by_writing).unwrap_or_else(|| check.setting.arithmetic.to_owned())
}

/// As a shell takes it.
pub(super) fn assignment(name: &str, value: &str) -> String {
    if value.contains(' ') { format!("{name}='{value}'") } else { format!("{name}={value}") }
}

/// How to mend what `--apply` cannot.
pub(super) fn by_hand(check: &Check) -> Option<String> {
    let text = match (check.setting.place, check.setting.name) {
        (Place::Memory, _) => format!("fewer connections, or more memory; {} would fit", fitting(check)),
        (Place::Limit(_), _) => {
            let need = need_number(check);
            format!(
                "a process cannot raise it: LimitNOFILE={need} in the unit, `ulimit -Hn {need}` as root, docker run --ulimit nofile={need}"
            )
        }
        (Place::Group(_), "memory.max") => {
            format!("MemoryMax={} in the unit, or docker run --memory", need_number(check))
        }
        (Place::Group(_), _) => format!("TasksMax={} in the unit, or docker run --pids-limit", need_number(check)),
        (Place::Told, _) => {
            format!("give this machine {} addresses, and name them: throng-load --source", need_number(check))
        }
        _ => return None,
    };
    Some(text)
}

fn need_number(check: &Check) -> u64 {
    if let Need::AtLeast(number) = check.need { number } else { 0 }
}

/// Connections that the memory there is would do for.
fn fitting(check: &Check) -> String {
    let (Reading::Numbers(now), Need::AtLeast(need)) = (&check.now, &check.need) else { return "fewer".to_owned() };
    let now = now.first().copied().unwrap_or(0);
    format!("{} % of them", u128::from(now) * 100 / u128::from((*need).max(1)))
}

/// What still falls short after the changes.
pub(super) fn remaining(checks: &[Check]) -> String {
    let mut text = String::from("\nNow: ");
    summary(&mut text, checks);
    text
}

fn is_bytes(check: &Check) -> bool {
    matches!(check.setting.name, "memory" | "memory.max")
}

fn now(check: &Check) -> String {
    match &check.now {
        Reading::Numbers(numbers) if is_bytes(check) => gib(numbers.first().copied().unwrap_or(0)),
        now => now.to_string(),
    }
}

fn need(check: &Check) -> String {
    match &check.need {
        Need::AtLeast(bytes) if is_bytes(check) => gib(*bytes),
        need => need.to_string(),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Fits => "ok",
        Verdict::Short => "TOO LITTLE",
        Verdict::Advised => "advice",
        Verdict::Left => "leave it",
        Verdict::Idle(_) => "unused",
        Verdict::Unknown(_) => "unknown",
    }
}

fn why(check: &Check) -> String {
    match &check.verdict {
        Verdict::Short | Verdict::Advised => format!("{}. Else: {}", check.setting.arithmetic, check.setting.without),
        Verdict::Idle(why) | Verdict::Unknown(why) => why.clone(),
        Verdict::Fits | Verdict::Left => check.setting.arithmetic.to_owned(),
    }
}

/// Columns as wide as they must be; the last one, which is long, goes on below itself.
fn lay_out(text: &mut String, rows: &[[String; 5]]) {
    const LINE: usize = 118;
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let indent: usize = widths.iter().map(|width| width + 2).sum();
    // A narrow rest is of no use: then it has a line of its own.
    let (indent, own_line) = if indent + 40 > LINE { (4, true) } else { (indent, false) };
    for row in rows {
        let cells: Vec<String> = (0..4).map(|column| format!("{:<1$}", row[column], widths[column])).collect();
        let mut line = cells.join("  ");
        let mut words = row[4].split(' ').peekable();
        if own_line && words.peek().is_some() {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(indent - 1);
        } else {
            line += " ";
        }
        for word in words {
            if line.chars().count() + 1 + word.chars().count() > LINE && line.trim().len() > 1 {
                let _ = writeln!(text, "{}", line.trim_end());
                line = " ".repeat(indent - 1);
            }
            line += " ";
            line += word;
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Everything, for programs.
pub(super) fn json(aim: &Aim, machine: &Machine, checks: &[Check]) -> String {
    let reading = |now: &Reading| match now {
        Reading::Numbers(numbers) if numbers.len() == 1 => json!(numbers[0]),
        Reading::Numbers(numbers) => json!(numbers),
        Reading::Word(word) => json!(word),
        Reading::Unlimited => json!("unlimited"),
        Reading::Absent | Reading::Odd(_) => Value::Null,
    };
    let need = |need: &Need| match need {
        Need::AtLeast(number) => json!({"at_least": number}),
        Need::Each(numbers) => json!({"each_at_least": numbers}),
        Need::Wide(ports) => json!({"wide": ports}),
        Need::OneOf(numbers) => json!({"one_of": numbers}),
        Need::Not(word) => json!({"not": word}),
        Need::Nothing => Value::Null,
    };
    let settings: Vec<Value> = (checks.iter())
        .map(|check| {
            let word = match check.verdict {
                Verdict::Short => "short",
                Verdict::Left => "left",
                ref other => verdict(other),
            };
            // What is fine, or no limit, is not to be set: it would often be lowered.
            let is_due = matches!(check.verdict, Verdict::Short | Verdict::Advised);
            let value = check.value().filter(|_| is_due);
            json!({
                "name": check.setting.name, "path": check.setting.path(), "unit": check.setting.unit,
                "role": check.setting.role.to_string(), "now": reading(&check.now), "needed": need(&check.need),
                "verdict": word, "value": value, "why": why(check),
            })
        })
        .collect();
    let holds: Vec<Value> = (bounds(aim.role, machine).iter())
        .map(|bound| json!({"connections": bound.connections, "by": bound.setting}))
        .collect();
    let value = json!({
        "connections": aim.connections, "role": aim.role.to_string(), "short": super::shortages(checks),
        "machine": {
            "kernel": format!("{}.{}", machine.kernel.0, machine.kernel.1), "cores": machine.cores,
            "memory_total_bytes": machine.memory_total, "memory_available_bytes": machine.memory_left(),
            "files_open": machine.files_open, "private_tables": machine.private_tables,
            "kernel_bytes_per_socket": KERNEL_BYTES_PER_SOCKET,
        },
        "holds": holds, "settings": settings,
    });
    format!("{value:#}\n")
}
