//! Log lines on standard error, one write each: text, or a JSON object a line.
//!
//! ```text
//! 2026-11-21T09:30:00.123Z INFO refused peer=192.0.2.1:4711 status=403 reason=origin_forbidden
//! {"time":"2026-11-21T09:30:00.123Z","level":"info","message":"refused","peer":"192.0.2.1:4711","status":403}
//! ```
//!
//! Whatever clients and back ends can have an influence on may stand in there, so control characters and those that nobody
//! sees are escaped everywhere, and secrets are left out ([`redact`]).

mod redact;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use redact::redact;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

static IS_JSON: AtomicBool = AtomicBool::new(false);

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let time = rfc3339(now.as_millis() as u64);
            let line = if IS_JSON.load(Ordering::Relaxed) { json(&time, record) } else { text(&time, record) };
            // Nobody is left to be told that the log cannot be written.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends the program's log lines to standard error from here on, and what panics say as such lines.
pub(crate) fn install(level: LevelFilter, format: Format) {
    if log::set_logger(&Stderr).is_ok() {
        configure(level, format);
        std::panic::set_hook(Box::new(panicked));
    }
}

/// Other lines from here on.
pub(crate) fn configure(level: LevelFilter, format: Format) {
    IS_JSON.store(format == Format::Json, Ordering::Relaxed);
    log::set_max_level(level);
}

fn panicked(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("");
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let why = info.payload_as_str().unwrap_or("");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        log::error!(thread, at = at.as_str(), why, backtrace:% = backtrace; "a thread panicked");
    } else {
        log::error!(thread, at = at.as_str(), why; "a thread panicked");
    }
}

/// What nobody sees, or what changes how the rest of a line is seen: control characters, line separators, directions.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

/// Calls `pair` with each key and its value: as it is written where it is a number or a truth value.
fn pairs(record: &Record<'_>, pair: &mut dyn FnMut(&str, Result<String, String>)) {
    struct Pairs<'a>(&'a mut dyn FnMut(&str, Result<String, String>));

    impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            let is_plain = value.to_u64().is_some() || value.to_i64().is_some() || value.to_bool().is_some();
            let text = value.to_string();
            let text = if is_plain { Ok(text) } else { Err(redact::value(key.as_str(), &text)) };
            (self.0)(key.as_str(), text);
            Ok(())
        }
    }

    let _ = record.key_values().visit(&mut Pairs(pair));
}

/// A line of text: time, level, what happened, and `key=value` for each particular.
fn text(time: &str, record: &Record<'_>) -> String {
    let mut line = format!("{time} {} ", record.level());
    escape(&mut line, &redact(&record.args().to_string()), false);
    pairs(record, &mut |key, value| {
        let _ = write!(line, " {key}=");
        match value {
            Ok(plain) => line.push_str(&plain),
            Err(text) if !text.is_empty() && !text.contains([' ', '"', '=', '\\']) && !text.contains(is_hidden) => {
                line.push_str(&text);
            }
            Err(text) => {
                line.push('"');
                escape(&mut line, &text, true);
                line.push('"');
            }
        }
    });
    line.push('\n');
    line
}

/// Appends a text in one line, as Rust writes what cannot be seen.
fn escape(line: &mut String, text: &str, is_quoted: bool) {
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '"' | '\\' if is_quoted => line.extend(['\\', c]),
            c if is_hidden(c) => drop(write!(line, "\\u{{{:x}}}", u32::from(c))),
            c => line.push(c),
        }
    }
}

/// The same as an object of JSON (RFC 8259) in a line.
fn json(time: &str, record: &Record<'_>) -> String {
    let mut line =
        format!("{{\"time\":\"{time}\",\"level\":\"{}\",\"message\":", record.level().as_str().to_lowercase());
    string(&mut line, &redact(&record.args().to_string()));
    pairs(record, &mut |key, value| {
        line.push(',');
        string(&mut line, key);
        line.push(':');
        match value {
            Ok(plain) => line.push_str(&plain),
            Err(text) => string(&mut line, &text),
        }
    });
    line.push_str("}\n");
    line
}

fn string(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            // All of them are in the basic plane.
            c if is_hidden(c) => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}

/// A time in UTC (RFC 3339) from milliseconds since 1970, by the civil calendar's arithmetic: years start in
/// March, so that the leap day is the last.
fn rfc3339(millis: u64) -> String {
    let (days, second) = (millis / 86_400_000, millis / 1000 % 86_400);
    let days = days + 719_468; // from the first of March of year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, millis % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of each format.
    fn lines(message: &str, pairs: &[(&str, &str)]) -> (String, serde_json::Value) {
        let record = |args: std::fmt::Arguments<'_>, write: fn(&str, &Record<'_>) -> String| -> String {
            write("T", &Record::builder().args(args).key_values(&pairs).build())
        };
        let line = record(format_args!("{message}"), json);
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        (record(format_args!("{message}"), text), serde_json::from_str(&line).unwrap())
    }

    #[test]
    fn a_line_has_its_particulars_in_both_formats() {
        let pairs: [(&str, Value<'_>); 4] = [
            ("peer", Value::from("192.0.2.1:4711")),
            ("status", Value::from(403_u16)),
            ("reason", Value::from("two words")),
            ("empty", Value::from("")),
        ];
        let record = |args, write: fn(&str, &Record<'_>) -> String| {
            write("T", &Record::builder().args(args).key_values(&pairs).build())
        };
        assert_eq!(
            record(format_args!("refused"), text),
            "T INFO refused peer=192.0.2.1:4711 status=403 reason=\"two words\" empty=\"\"\n"
        );
        assert_eq!(
            record(format_args!("refused"), json),
            "{\"time\":\"T\",\"level\":\"info\",\"message\":\"refused\",\"peer\":\"192.0.2.1:4711\",\"status\":403,\"reason\":\"two words\",\"empty\":\"\"}\n"
        );
    }

    #[test]
    fn nothing_that_is_said_makes_another_line_or_another_field() {
        for evil in [
            "\n2026-01-01T00:00:00.000Z INFO forged",
            "\r\u{1B}[2J\u{9B}31m\0\u{7F}\u{85}",
            "\u{2028}\u{2029}\u{202E}\u{200B}\u{FEFF}\u{2066}",
            "\",\"level\":\"error",
            "x y=z \\",
            "\\n",
        ] {
            let (text, json) = lines(evil, &[("said", evil)]);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end_matches('\n').contains(is_hidden), "{text:?}");
            assert_eq!((json["message"].as_str(), json["said"].as_str()), (Some(evil), Some(evil)), "as it was");
            assert_eq!(json.as_object().unwrap().len(), 4, "{json}");
            let value = text.split_once(" said=").unwrap().1;
            assert!(value.starts_with('"') && value.ends_with("\"\n"), "{text:?}");
        }
    }

    #[test]
    fn secrets_are_in_no_line() {
        let (text, json) = lines(
            "GET /topics/t?token=hush1 with Bearer hush2.x",
            &[("token", "hush3"), ("url", "https://a:hush4@b.example/keys?k=hush5")],
        );
        assert!(!format!("{text}{json}").contains("hush"), "{text}{json}");
        assert!(text.contains("/topics/t?") && text.contains("b.example/keys?"), "and the rest is: {text}");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1000), expected);
        }
    }
}
