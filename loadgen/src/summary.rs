//! The results for people: a few lines that say what matters.

use crate::progress::grouped;
use crate::results::{
    Account, ChurnResults, EchoResults, FanoutResults, Memory, Quantiles, Results, StormResults, TransportConnections,
};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The whole text.
pub(crate) fn text(results: &Results) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:>12}  {text}");
    };
    opening(results, &mut line);
    measured(results, &mut line);
    results.echo.iter().for_each(|echo| echo_lines(echo, &mut line));
    results.fanout.iter().for_each(|fanout| fanout_lines("fanout", fanout, &mut line));
    results.slow.iter().for_each(|fanout| fanout_lines("slow ones", fanout, &mut line));
    results.churn.iter().for_each(|churn| churn_lines(churn, &mut line));
    results.storm.iter().for_each(|storm| storm_lines(storm, &mut line));
    let connections = &results.connections;
    line(
        "held",
        format!(
            "{} open at the end{}",
            grouped(connections.open_at_end),
            counts(connections.lost, "lost", &connections.losses)
        ),
    );
    // Who left in order to come back belongs to the account of deliveries.
    let returning = connections.farewells.get("returning").copied().unwrap_or(0);
    line(
        "closed",
        format!(
            "{} in {:.2} s: {}",
            grouped(connections.closed - returning),
            results.closing.seconds,
            list(&connections.farewells)
        ),
    );
    line("verdict", results.verdict.text.clone());
    if results.ended_early {
        line("note", "ended early".to_owned());
    }
    match results.problems.as_slice() {
        [] => line("result", "clean: everything is accounted for".to_owned()),
        problems => problems.iter().for_each(|problem| line("problem", problem.clone())),
    }
    out
}

fn opening(results: &Results, line: &mut impl FnMut(&str, String)) {
    let connections = &results.connections;
    line("load", format!("{} {} over {} ({} threads)", results.mode, results.url, results.transport, results.threads));
    line(
        "opened",
        format!(
            "{} of {} in {:.2} s, {}/s{}",
            grouped(results.opening.opened),
            grouped(results.opening.attempted),
            results.opening.seconds,
            grouped(results.opening.handshakes_per_second as u64),
            counts(connections.failed, "failed", &connections.failures),
        ),
    );
    for (name, connections) in &connections.by_transport {
        line("of them", by_transport(name, connections));
    }
    if !connections.said.is_empty() {
        let said: Vec<String> = connections.said.iter().map(|(word, text)| format!("{word}: {text}")).collect();
        line("said", said.join("; "));
    }
    line("handshake", latency(&results.opening.latency_us));
    let mut cpu = format!("generator {:.1} us a handshake", results.opening.generator_cpu_us);
    if let Some(server) = results.opening.server_cpu_us {
        let _ = write!(cpu, ", server {server:.1} us");
    }
    line("", cpu);
    if results.tells_memory() {
        memory(&results.memory, line);
    }
}

/// How the connections of one transport of a mix fared.
fn by_transport(name: &str, connections: &TransportConnections) -> String {
    format!(
        "{name}: {} opened{}{}; {}",
        grouped(connections.opened),
        counts(connections.failed, "failed", &connections.failures),
        counts(connections.lost, "lost", &connections.losses),
        latency(&connections.handshake_us),
    )
}

fn measured(results: &Results, line: &mut impl FnMut(&str, String)) {
    let measured = &results.measured;
    let mut cores = format!("{:.1} s: generator {:.2} cores", measured.seconds, measured.generator_cores);
    if let Some(server) = measured.server_cores {
        let _ = write!(cores, ", server {server:.2}");
    }
    let _ = write!(cores, ", idle {:.2} of {}", measured.idle_cores, results.machine.cores);
    if let Some(each) = measured.server_cpu_us_each {
        let _ = write!(cores, "; server {each:.2} us a {}", measured.unit);
    }
    line("measured", cores);
    if measured.pings > 0 {
        line(
            "pings",
            format!(
                "{} answered, {}",
                grouped(results.connections.pings),
                by_pings(&results.connections.connections_by_pings)
            ),
        );
    }
}

fn memory(memory: &Memory, line: &mut impl FnMut(&str, String)) {
    let mut text = format!("generator {:.0} B", memory.generator_user);
    if let Some(server) = memory.server_user {
        let _ = write!(text, ", server {server:.0} B of user space a connection");
    } else {
        text += " of user space a connection";
    }
    match memory.kernel_server_socket {
        Some(server) => {
            let _ = write!(
                text,
                "; kernel {server:.0} B a server socket, {:.0} B one of ours",
                memory.kernel_generator_socket
            );
        }
        None => {
            let _ = write!(text, "; kernel {:.0} B a socket", memory.kernel_generator_socket);
        }
    }
    line("memory", text);
}

fn echo_lines(echo: &EchoResults, line: &mut impl FnMut(&str, String)) {
    let mut text = format!("{}/s, {} loop", grouped(echo.answered_per_second as u64), echo.r#loop);
    if let Some(rate) = echo.rate_wanted {
        let _ = write!(text, " at {}/s", grouped(rate as u64));
    }
    let _ = write!(text, ": {} sent, {} answered", grouped(echo.sent), grouped(echo.answered));
    for (count, word) in [
        (echo.missing, "missing"),
        (echo.wrong, "wrong"),
        (echo.unasked, "unasked"),
        (echo.unsent, "never sent in time"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {} {word}", grouped(count));
        }
    }
    line("echo", text);
    line("latency", latency(&echo.latency_us));
    if let Some(late) = &echo.late_us {
        line("sent late", latency(late));
    }
}

fn fanout_lines(name: &str, fanout: &FanoutResults, line: &mut impl FnMut(&str, String)) {
    let account = &fanout.account;
    line(
        name,
        format!(
            "{} published by {} to {} topics, {} subscribers: {} of {} deliveries, {}/s",
            grouped(fanout.published),
            grouped(u64::from(fanout.publishers)),
            grouped(u64::from(fanout.topics)),
            grouped(account.subscribers),
            grouped(account.delivered),
            grouped(account.expected),
            grouped(account.delivered_per_second as u64),
        ),
    );
    let mut seen = faults(account);
    if fanout.publish_errors > 0 {
        seen.push(format!("{} publishes refused", grouped(fanout.publish_errors)));
    }
    line("account", verdict(&seen));
    if account.reconnecting_subscribers > 0 {
        line("reconnects", reconnects(account));
    }
    if account.gaps > 0 || account.reconnecting_subscribers > 0 {
        line("gaps", format!("{} announced", grouped(account.gaps)));
    }
    if account.latency_us.count > 0 {
        line("delivery", latency(&account.latency_us));
    }
    for (name, account) in &fanout.by_transport {
        transport_lines(name, account, line);
    }
    if let Some(late) = &fanout.publish_late_us {
        line("publ. late", latency(late));
    }
    if let Some(answer) = &fanout.publish_answer_us {
        line("publ. POST", latency(answer));
    }
}

/// The account of one transport of a mix.
fn transport_lines(name: &str, account: &Account, line: &mut impl FnMut(&str, String)) {
    let mut text = format!(
        "{name}: {} subscribers, {} of {} deliveries, {}",
        grouped(account.subscribers),
        grouped(account.delivered),
        grouped(account.expected),
        verdict(&faults(account)),
    );
    if account.reconnecting_subscribers > 0 {
        let _ = write!(text, "; {}", reconnects(account));
    }
    if account.gaps > 0 {
        let _ = write!(text, "; {} gaps announced", grouped(account.gaps));
    }
    line("of them", text);
    if account.latency_us.count > 0 {
        line("", latency(&account.latency_us));
    }
}

/// What is not as it should be.
fn faults(account: &Account) -> Vec<String> {
    let kinds = [
        (account.lost, "lost"),
        (account.lost_at_end, "of them behind the last that came"),
        (account.gap_announced, "missing behind an announced gap"),
        (account.missed_by_lost_connections, "missed by lost connections"),
        (account.duplicated, "duplicated"),
        (account.reordered, "reordered"),
        (account.misrouted, "misrouted"),
        (account.foreign, "not ours"),
    ];
    kinds.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{} {word}", grouped(*count))).collect()
}

fn verdict(faults: &[String]) -> String {
    if faults.is_empty() { "none lost, duplicated or reordered".to_owned() } else { faults.join(", ") }
}

fn reconnects(account: &Account) -> String {
    let (who, times) = (grouped(account.reconnecting_subscribers), grouped(account.reconnects));
    format!("{who} subscribers came back {times} times with their cursors")
}

fn churn_lines(churn: &ChurnResults, line: &mut impl FnMut(&str, String)) {
    line(
        "churn",
        format!(
            "{} replaced, {:.1}/s of {:.1}/s wanted{}",
            grouped(churn.replaced),
            churn.replaced_per_second,
            churn.rate_wanted,
            if churn.behind > 0 { format!(", {} behind", grouped(churn.behind)) } else { String::new() }
        ),
    );
}

fn storm_lines(storm: &StormResults, line: &mut impl FnMut(&str, String)) {
    for (index, round) in storm.rounds.iter().enumerate() {
        line(
            "storm",
            format!(
                "round {}: {} dropped, {} came back in {} attempts; half after {:.2} s, 99 % after {:.2} s, the last after {:.2} s",
                index + 1,
                grouped(round.dropped),
                grouped(round.came_back),
                grouped(round.attempts),
                round.half_seconds,
                round.p99_seconds,
                round.last_seconds
            ),
        );
    }
}

/// Percentiles in a unit that fits.
fn latency(q: &Quantiles) -> String {
    if q.count == 0 {
        return "nothing measured".to_owned();
    }
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        time(q.p50),
        time(q.p90),
        time(q.p99),
        time(q.p99_9),
        time(q.max)
    )
}

/// A time given in microseconds, in a unit that fits.
pub(crate) fn time(us: f64) -> String {
    match us {
        ..1e3 => format!("{us:.0} us"),
        1e3..1e6 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

fn counts(total: u64, word: &str, classes: &BTreeMap<String, u64>) -> String {
    if total == 0 { format!(", 0 {word}") } else { format!(", {} {word} ({})", grouped(total), list(classes)) }
}

fn list(classes: &BTreeMap<String, u64>) -> String {
    let items: Vec<String> = classes.iter().map(|(word, &count)| format!("{word} {}", grouped(count))).collect();
    items.join(", ")
}

fn by_pings(connections: &BTreeMap<u8, u64>) -> String {
    match (connections.keys().next(), connections.keys().next_back()) {
        (Some(least), Some(most)) if least == most => format!("{least} on every connection"),
        (Some(least), Some(most)) => format!("{least} to {most} on each connection"),
        _ => "on no connection".to_owned(),
    }
}
