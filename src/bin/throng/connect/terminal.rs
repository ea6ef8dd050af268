//! Where it is shown, and where lines come from: a terminal with a line that is edited while frames are printed above it, or
//! plain streams.
//!
//! ```text
//!   editor's thread   rustyline, always in `readline`: lines, Ctrl-C, Ctrl-D ─┐
//!   or pipe's thread  lines, held back while much waits to be sent           ─┼─▶ Inbox ─▶ main thread ─▶ Screen
//!   signals' thread   SIGINT, SIGTERM, SIGHUP                                 ─┘            (printer of the editor, or stdout)
//! ```
//!
//! The editor's thread never stops to read: what the main thread prints goes through it, so a main thread that prints and an
//! editor that has stopped would wait for each other.

use super::link::{Backlog, Happening, Inbox};
use rustyline::{Config, DefaultEditor, ExternalPrinter, error::ReadlineError};
use std::io::{self, BufRead, IsTerminal, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use throng::sys::{self, TerminalSettings};

const PROMPT: &str = "> ";

/// The exit status after a second interruption: what a shell gives for SIGINT.
const INTERRUPTED: i32 = 130;

/// A message to the editor that leaves the screen as it is: a line up, and down again by the end that every message gets.
const NOTHING: &str = "\x1B[F\n";

/// Switches off what the editor has switched on: bracketed paste. Then the prompt goes, whatever is typed behind it.
const LEAVE: &[u8] = b"\x1B[?2004l\r\x1B[J";

/// What an interruption does: the first one asks for a close, any other ends the program at once, as the first does when
/// nothing is open.
#[derive(Debug)]
pub(super) struct Interrupts {
    open: AtomicBool,
    asked: AtomicBool,
    inbox: Inbox,
    /// The terminal's, where the editor changes them.
    settings: Option<TerminalSettings>,
}

impl Interrupts {
    /// Whether there is something that can be closed.
    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn raise(&self) {
        if self.asked.swap(true, Ordering::SeqCst) || !self.open.load(Ordering::SeqCst) {
            self.give_up();
        }
        // Whoever waits is woken; where the inbox is full nobody waits, and the flag is seen.
        let _ = self.inbox.try_send(Happening::Interrupted);
    }

    fn give_up(&self) -> ! {
        if let Some(settings) = &self.settings {
            leave(settings);
        }
        process::exit(INTERRUPTED);
    }
}

fn leave(settings: &TerminalSettings) {
    let _ = io::stdout().lock().write_all(LEAVE).and_then(|()| io::stdout().flush());
    let _ = settings.restore();
}

/// Where lines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing is read.
    Nothing,
    /// A terminal, edited where it can be.
    Terminal,
    /// A pipe or a file.
    Pipe,
}

impl Source {
    pub(super) fn of_stdin() -> Self {
        if io::stdin().is_terminal() { Self::Terminal } else { Self::Pipe }
    }
}

/// What is shown, and how it gets there.
pub(super) struct Screen {
    printer: Option<Box<dyn ExternalPrinter + Send>>,
    settings: Option<TerminalSettings>,
    /// Whether stdout is a terminal.
    pub(super) is_terminal: bool,
    /// Nobody reads any more.
    gone: bool,
}

impl Screen {
    /// Messages, on stdout: whole lines.
    pub(super) fn print(&mut self, lines: String) {
        if let Some(printer) = &mut self.printer {
            self.gone |= printer.print(lines).is_err();
        } else {
            self.write(lines.as_bytes());
        }
    }

    /// Payloads as they are, on stdout.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        self.gone |= stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err();
    }

    /// What is said about the connection: on stderr where stdout is somebody's input.
    pub(super) fn note(&mut self, lines: String) {
        if self.printer.is_some() || self.is_terminal {
            self.print(lines);
        } else {
            // Nobody is left to be told that it cannot be said.
            let _ = io::stderr().lock().write_all(lines.as_bytes());
        }
    }

    /// Whether lines are edited below what is printed.
    pub(super) fn is_edited(&self) -> bool {
        self.printer.is_some()
    }

    /// Whoever read the output has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Waits until all of it is shown, and leaves the terminal as it was.
    pub(super) fn finish(&mut self) {
        let Some(mut printer) = self.printer.take() else { return };
        // Between us and the editor there is room for one message: once the second of two more is taken, all before them is
        // on the screen.
        for _ in 0..3 {
            let _ = printer.print(NOTHING.to_owned());
        }
        if let Some(settings) = &self.settings {
            leave(settings);
        }
    }
}

/// Starts to read, and gives what is shown. Signals are taken from here on; they are blocked in the threads that follow.
pub(super) fn open(source: Source, inbox: &Inbox, backlog: &Arc<Backlog>) -> io::Result<(Screen, Arc<Interrupts>)> {
    let is_terminal = io::stdout().is_terminal();
    // Forgotten: the mask is for the whole process, for as long as it lives.
    std::mem::forget(sys::block_signals(&[sys::SIGINT, sys::SIGTERM, sys::SIGHUP])?);
    let edited = if source == Source::Terminal && is_terminal { editor() } else { None };
    let settings = if edited.is_some() { TerminalSettings::of_stdin().ok() } else { None };
    let interrupts = Arc::new(Interrupts {
        open: AtomicBool::new(false),
        asked: AtomicBool::new(false),
        inbox: inbox.clone(),
        settings: settings.clone(),
    });
    let told = Arc::clone(&interrupts);
    thread::spawn(move || watch_signals(&told));
    let (told, inbox) = (Arc::clone(&interrupts), inbox.clone());
    let printer = match (edited, source) {
        (Some((editor, printer)), _) => {
            thread::spawn(move || edit(editor, &inbox, &told));
            Some(printer)
        }
        (None, Source::Nothing) => None,
        (None, Source::Terminal | Source::Pipe) => {
            let backlog = Arc::clone(backlog);
            thread::spawn(move || read_lines(&inbox, &backlog));
            None
        }
    };
    Ok((Screen { printer, settings, is_terminal, gone: false }, interrupts))
}

type Edited = (DefaultEditor, Box<dyn ExternalPrinter + Send>);

/// `None`: this terminal can only take lines as it gives them.
fn editor() -> Option<Edited> {
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = DefaultEditor::with_config(config).ok()?;
    let printer = editor.create_external_printer().ok()?;
    Some((editor, Box::new(printer)))
}

fn edit(mut editor: DefaultEditor, inbox: &Inbox, interrupts: &Interrupts) {
    loop {
        match editor.readline(PROMPT) {
            // An empty one is a key pressed to see whether it is still there.
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                // Nobody takes it when all is over.
                let _ = inbox.send(Happening::Line(line));
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => interrupts.raise(),
            Err(ReadlineError::Signal(_)) => {}
            // The terminal is gone.
            Err(_) => interrupts.give_up(),
        }
    }
}

/// Lines of a pipe, until there are no more.
fn read_lines(inbox: &Inbox, backlog: &Backlog) {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        backlog.wait();
        let happening = match stdin.read_until(b'\n', &mut line) {
            Ok(0) => Happening::InputEnded,
            Ok(_) => {
                let end = line.strip_suffix(b"\n").unwrap_or(&line);
                let end = end.strip_suffix(b"\r").unwrap_or(end);
                match String::from_utf8(end.to_vec()) {
                    Ok(line) => Happening::Line(line),
                    Err(_) => Happening::InputBroken("a line of the input is not UTF-8: /file sends bytes".to_owned()),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Happening::InputBroken(format!("the input cannot be read: {error}")),
        };
        let is_last = !matches!(happening, Happening::Line(_));
        if inbox.send(happening).is_err() || is_last {
            return;
        }
    }
}

fn watch_signals(interrupts: &Interrupts) {
    loop {
        match sys::wait_signal(&[sys::SIGINT, sys::SIGTERM, sys::SIGHUP]) {
            Ok(sys::SIGHUP) => interrupts.give_up(),
            Ok(_) => interrupts.raise(),
            Err(_) => {} // interrupted itself
        }
    }
}
