//! What is shown of a connection: a line for each frame or event, and notes of what becomes of it.

use super::options::{Look, TimeStyle, When};
use super::terminal::Screen;
use super::text::{cut, dump_into, escape_into, escaped, pretty_json, size};
use std::env;
use std::fmt::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What stands in front of the further lines of a payload.
const INDENT: &str = "    ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Not shown: it was typed, or there is none.
    Hidden,
}

impl<'a> Payload<'a> {
    /// Text where it is text.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Bytes(bytes), Self::Text)
    }
}

/// A line, and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Shown<'a> {
    pub(super) direction: Direction,
    /// The opcode in words, or what else it is; escaped.
    pub(super) what: &'a str,
    /// The payload's size.
    pub(super) bytes: usize,
    /// What else there is to say; escaped.
    pub(super) notes: Vec<String>,
    pub(super) payload: Payload<'a>,
}

/// Lays lines out and puts them on the screen.
pub(super) struct Show {
    screen: Screen,
    look: Look,
    colored: bool,
    opened: Instant,
}

impl Show {
    pub(super) fn new(screen: Screen, look: Look) -> Self {
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colored = match look.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                screen.is_terminal && !is_dumb && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { screen, look, colored, opened: Instant::now() }
    }

    pub(super) fn look(&self) -> &Look {
        &self.look
    }

    /// Relative times count from now.
    pub(super) fn start_clock(&mut self) {
        self.opened = Instant::now();
    }

    /// Whoever read the output has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.screen.is_gone()
    }

    /// Whether lines are edited on the screen.
    pub(super) fn is_edited(&self) -> bool {
        self.screen.is_edited()
    }

    /// A message, an event: with `--raw` its payload alone.
    pub(super) fn message(&mut self, shown: &Shown<'_>) {
        if shown.direction == Direction::Out && (self.look.raw || self.look.quiet) {
            return;
        }
        if !self.look.raw {
            let line = self.line(shown);
            return self.screen.print(line);
        }
        match shown.payload {
            Payload::Text(text) if self.screen.is_terminal => self.screen.print(escaped(text) + "\n"),
            Payload::Bytes(bytes) if self.screen.is_terminal => {
                let mut dump = String::new();
                dump_into(&mut dump, bytes, "");
                self.screen.print(dump.trim_start().to_owned() + "\n");
            }
            Payload::Text(text) => self.screen.write(format!("{text}\n").as_bytes()),
            Payload::Bytes(bytes) => self.screen.write(bytes),
            Payload::Hidden => {}
        }
    }

    /// Any other frame.
    pub(super) fn frame(&mut self, shown: &Shown<'_>) {
        if !self.look.raw && !self.look.quiet {
            let line = self.line(shown);
            self.screen.print(line);
        }
    }

    /// What becomes of the connection; escaped.
    pub(super) fn note(&mut self, text: &str) {
        if !self.look.quiet && !self.look.raw {
            let text = self.color("2", &format!("- {}", text.replace('\n', "\n  ")));
            self.screen.note(text + "\n");
        }
    }

    /// What is wrong, and said in any case; escaped.
    pub(super) fn error(&mut self, text: &str) {
        let text = self.color("31", &format!("throng: {}", text.replace('\n', "\n  ")));
        self.screen.note(text + "\n");
    }

    /// Waits until all of it is shown.
    pub(super) fn finish(&mut self) {
        self.screen.finish();
    }

    fn line(&self, shown: &Shown<'_>) -> String {
        let (arrow, color) = match shown.direction {
            Direction::In => ("←", "32"),
            Direction::Out => ("→", "34"),
        };
        let mut about = String::new();
        let time = self.time();
        let _ = write!(about, "{time}{}{} {}", if time.is_empty() { "" } else { " " }, shown.what, size(shown.bytes));
        for note in &shown.notes {
            about.push_str(", ");
            about.push_str(note);
        }
        let mut line = format!("{} {}", self.color(color, arrow), self.color("2", &about));
        self.payload(&mut line, shown.payload);
        line.push('\n');
        line
    }

    fn payload(&self, line: &mut String, payload: Payload<'_>) {
        let left_out = match payload {
            Payload::Hidden | Payload::Text("") | Payload::Bytes([]) => return,
            Payload::Text(text) => {
                let (shown, left_out) = cut(text, self.look.bytes_max);
                let pretty = if self.look.pretty && left_out == 0 { pretty_json(text, INDENT) } else { None };
                match pretty {
                    Some(pretty) if pretty.contains('\n') => {
                        let _ = write!(line, "\n{INDENT}{pretty}");
                    }
                    _ => {
                        line.push_str("  ");
                        escape_into(line, shown);
                    }
                }
                left_out
            }
            Payload::Bytes(bytes) => {
                let shown = &bytes[..bytes.len().min(self.look.bytes_max)];
                dump_into(line, shown, INDENT);
                bytes.len() - shown.len()
            }
        };
        if left_out > 0 {
            let rest = format!("... and {} more (--max-show)", size(left_out));
            let _ = write!(line, "\n{INDENT}{}", self.color("2", &rest));
        }
    }

    fn time(&self) -> String {
        match self.look.time {
            TimeStyle::None => String::new(),
            TimeStyle::Relative => format!("{:.3}", self.opened.elapsed().as_secs_f64()),
            TimeStyle::Clock => {
                let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() % 86_400_000;
                let (second, milli) = (millis / 1000, millis % 1000);
                format!("{:02}:{:02}:{:02}.{milli:03}Z", second / 3600, second / 60 % 60, second % 60)
            }
        }
    }

    fn color(&self, code: &str, text: &str) -> String {
        if self.colored { format!("\x1B[{code}m{text}\x1B[0m") } else { text.to_owned() }
    }
}
