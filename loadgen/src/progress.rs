//! What is seen while it works: a line that stays up to date on a terminal, else a plain line now and then.

use crate::clock::Nanos;
use crate::engine::Account;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// How often a plain line is written.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Lines are written instead of the bar.
    plain: bool,
    stage: &'static str,
    connections: u64,
    opening: bool,
    /// How long the stage takes, when that is known, and when it began.
    length: Option<Duration>,
    began: Nanos,
    restarted: bool,
    last: (Nanos, Account),
    said_at: Option<Nanos>,
    rates: String,
}

impl Progress {
    pub(crate) fn new(quiet: bool, connections: u64) -> Self {
        let terminal = stderr().is_terminal();
        let target =
            if quiet || !terminal { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let bar = ProgressBar::with_draw_target(None, target);
        Self {
            bar,
            plain: !quiet && !terminal,
            stage: "starting",
            connections,
            opening: false,
            length: None,
            began: Nanos(0),
            restarted: true,
            last: (Nanos(0), Account::default()),
            said_at: None,
            rates: String::new(),
        }
    }

    /// A stage begins: it ends with so many connections, or after so long, or at some time.
    pub(crate) fn stage(&mut self, name: &'static str, connections: Option<u64>, length: Option<Duration>) {
        (self.stage, self.opening, self.length, self.restarted) = (name, connections.is_some(), length, true);
        self.said_at = None;
        let total = connections.or(length.map(|length| length.as_millis() as u64));
        self.bar.set_length(total.unwrap_or(0).max(1));
        let shape = if total.is_some() { "{prefix:>10} {bar:30.cyan/blue} {msg}" } else { "{prefix:>10} {msg}" };
        self.bar
            .set_style(ProgressStyle::with_template(shape).expect("the template is constant").progress_chars("━╸─"));
        self.bar.set_prefix(name);
    }

    /// Shows where things stand.
    pub(crate) fn show(&mut self, now: Nanos, account: &Account) {
        if std::mem::take(&mut self.restarted) {
            self.began = now;
        }
        self.measure(now, account);
        let left = if self.opening {
            self.bar.set_position(account.opened + account.failed);
            let rate = account.opened as f64 / now.since(self.began).as_secs_f64().max(0.001);
            let to_do = self.connections.saturating_sub(account.opened + account.failed) as f64;
            (rate > 0.0).then(|| Duration::from_secs_f64((to_do / rate).min(1e6)))
        } else {
            self.bar.set_position(now.since(self.began).as_millis() as u64);
            self.length.map(|length| length.saturating_sub(now.since(self.began)))
        };
        let eta = left.map_or_else(String::new, |left| format!(", {:.0} s left", left.as_secs_f64()));
        let mut text = format!("{} open", grouped(account.open()));
        for (count, word) in [(account.failed, "failed"), (account.lost, "lost")] {
            if count > 0 {
                text += &format!(", {} {word}", grouped(count));
            }
        }
        text += &self.rates;
        text += &eta;
        if self.plain && self.said_at.is_none_or(|at| now.since(at) >= PLAIN_INTERVAL) {
            self.said_at = Some(now);
            eprintln!("{:>7.1} s  {}: {text}", now.seconds(), self.stage);
        }
        self.bar.set_message(text);
    }

    /// Rates over at least half a second.
    fn measure(&mut self, now: Nanos, account: &Account) {
        let (then, before) = self.last;
        let seconds = now.since(then).as_secs_f64();
        if seconds < 0.5 {
            return;
        }
        self.last = (now, *account);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        let rates = [
            (rate(account.opened, before.opened), "handshakes"),
            (rate(account.sent, before.sent), "sent"),
            (rate(account.received, before.received), "received"),
            (rate(account.pings, before.pings), "pings"),
            (rate(account.closed, before.closed), "closed"),
        ];
        self.rates = rates
            .iter()
            .filter(|(rate, _)| *rate > 0)
            .map(|(rate, word)| format!(", {} {word}/s", grouped(*rate)))
            .collect();
    }

    /// Says something that is to stay.
    pub(crate) fn say(&self, text: &str) {
        if self.plain {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let grouped: Vec<String> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
    }
}
