//! `throng connect`: a client for the terminal, for WebSockets, event streams, polls and publishing.
//!
//! | question | answered by |
//! |---|---|
//! | what was asked for? | [`options`] |
//! | how is a server reached, and what does it answer? | [`dial`], [`exchange`]; [`refusal`] explains why not |
//! | what is on the wire? | [`codec`] for WebSockets, over `throng::ws`; `throng::client`; [`element`] for topics |
//! | what becomes of a connection? | [`websocket`], [`events`], [`poll`], each until it ends; [`run`] comes back |
//! | who reads and writes? | threads of their own: [`link`] for the socket, [`terminal`] for lines and signals |
//! | what is shown? | [`show`], with [`text`] so that no peer plays with the terminal, and [`words`] |

mod backoff;
mod codec;
mod commands;
mod dial;
mod element;
mod events;
mod exchange;
mod link;
mod options;
mod poll;
mod refusal;
mod show;
mod terminal;
mod text;
mod websocket;
mod words;

pub(crate) use options::Options;

use backoff::Backoff;
use exchange::Failed;
use link::{Backlog, Happening, Inbox, Link};
use options::{How, Plan};
use show::Show;
use std::io;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};
use terminal::{Interrupts, Source};
use throng::Cursor;
use throng::sys::random_u64;

/// A connection that held for so long was worth its while: the next loss is a first one.
const HELD: Duration = Duration::from_secs(10);

const REFUSED: u8 = 1;
const WRONG: u8 = 2;
const LOST: u8 = 3;

/// How a connection that was open came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it should: by this side, or by the server with 1000 or no code; or there was nothing more to ask.
    Closed,
    /// The server ended an event stream, which comes back by itself.
    StreamEnded,
    /// With another code.
    Lost(u16),
    /// Messages were missed, and it is known where to go on.
    Gap,
    /// The server broke the protocol.
    Violated,
    /// What was to be sent is wrong.
    BadInput,
}

impl End {
    fn status(self) -> u8 {
        match self {
            Self::Closed | Self::StreamEnded => 0,
            Self::BadInput => WRONG,
            Self::Lost(_) | Self::Gap | Self::Violated => LOST,
        }
    }

    fn comes_back(self) -> bool {
        match self {
            Self::StreamEnded | Self::Gap => true,
            Self::Lost(code) => words::worth_another_try(code),
            Self::Closed | Self::Violated | Self::BadInput => false,
        }
    }
}

/// What all connections of a run have: the screen, what happens, and what was seen so far.
struct Stage {
    show: Show,
    inbox: Receiver<Happening>,
    sender: Inbox,
    backlog: Arc<Backlog>,
    interrupts: Arc<Interrupts>,
    source: Source,
    /// Links so far.
    links: u64,
    opened: Option<Instant>,
    input_ended: bool,
    /// Messages so far.
    received: u64,
    seen_cursor: Option<Cursor>,
    /// Of event streams, whose ids may be anything.
    last_id: String,
    /// When an event stream's server said to come back.
    retry: Option<Duration>,
}

impl Stage {
    fn set(plan: &Plan) -> io::Result<Self> {
        let source = match plan.how {
            How::WebSocket if plan.execute.is_empty() => Source::of_stdin(),
            _ => Source::Nothing,
        };
        let (sender, inbox) = link::inbox();
        let backlog = Arc::new(Backlog::default());
        let (screen, interrupts) = terminal::open(source, &sender, &backlog)?;
        Ok(Self {
            show: Show::new(screen, plan.look),
            inbox,
            sender,
            backlog,
            interrupts,
            source,
            links: 0,
            opened: None,
            input_ended: false,
            received: 0,
            seen_cursor: None,
            last_id: String::new(),
            retry: None,
        })
    }

    fn link(&mut self, stream: TcpStream) -> io::Result<Link> {
        self.links += 1;
        Link::start(self.links, stream, self.sender.clone(), &self.backlog)
    }

    /// From here on an interruption asks for a close.
    fn open(&mut self) {
        if self.links <= 1 {
            self.show.start_clock();
        }
        self.opened = Some(Instant::now());
        self.interrupts.set_open(true);
    }

    /// What happens next, at most so late; `None`: nothing did.
    fn next(&self, within: Option<Duration>) -> Option<Happening> {
        match within {
            None => self.inbox.recv().ok(),
            Some(time) => self.inbox.recv_timeout(time).ok(),
        }
    }

    /// As many messages have come as were wanted.
    fn is_enough(&self, plan: &Plan) -> bool {
        plan.count.is_some_and(|count| self.received >= count)
    }

    /// There is no reason to go on.
    fn is_over(&self, plan: &Plan) -> bool {
        self.is_enough(plan) || self.interrupts.asked() || self.show.is_gone()
    }

    fn gap(&mut self, since: &str, resumed: &str) {
        self.show.error(&format!(
            "a gap: what was published behind {} and up to {} is no longer kept",
            text::escaped(since),
            text::escaped(resumed)
        ));
    }
}

/// Runs the command, and gives its exit status.
pub(crate) fn run(options: Options) -> ExitCode {
    let failed = |error: &dyn std::fmt::Display, status| {
        eprintln!("throng: {error}");
        ExitCode::from(status)
    };
    let mut plan = match options.plan() {
        Ok(plan) => plan,
        Err(error) => return failed(&error, WRONG),
    };
    let mut stage = match Stage::set(&plan) {
        Ok(stage) => stage,
        Err(error) => return failed(&error, REFUSED),
    };
    for warning in &plan.warnings {
        stage.show.error(&format!("warning: {warning}"));
    }
    let status = connect(&mut plan, &mut stage);
    stage.show.finish();
    // The threads that read the terminal and wait for signals end with the process.
    ExitCode::from(status)
}

/// Connection after connection, if that is wanted, else one.
fn connect(plan: &mut Plan, stage: &mut Stage) -> u8 {
    let mut backoff = Backoff::new(random_u64().unwrap_or_default());
    let mut was_open = false;
    loop {
        stage.opened = None;
        let ended = match plan.how.clone() {
            How::WebSocket => websocket::run(plan, stage),
            How::Events => events::run(plan, stage),
            How::Poll | How::LongPoll(_) => poll::run(plan, stage),
            How::Post(text) => poll::post(plan, stage, &text),
        };
        was_open |= ended.is_ok();
        if stage.opened.is_some_and(|opened| opened.elapsed() >= HELD) {
            backoff.reset();
        }
        let (status, comes_back, after) = match &ended {
            Ok(End::Closed) if matches!(plan.how, How::LongPoll(_)) && !stage.is_over(plan) => {
                backoff.reset();
                continue;
            }
            Ok(end) => (end.status(), end.comes_back(), stage.retry),
            Err(Failed { why, may_pass, after }) => {
                stage.show.error(why);
                // What was open before is lost, if it cannot be had again.
                (if was_open { LOST } else { REFUSED }, *may_pass, *after)
            }
        };
        if !plan.reconnect || !comes_back || stage.is_over(plan) {
            if let (true, false, Ok(End::Lost(code))) = (plan.reconnect, comes_back, &ended) {
                stage.show.note(&format!("not coming back after {code}"));
            }
            return status;
        }
        let wait = backoff.next(after);
        stage.show.note(&format!("coming back in {}", words::duration(wait)));
        stage.resume(plan);
        thread::sleep(wait);
    }
}

impl Stage {
    /// Makes the next connection go on where this one ended, and says where it cannot.
    fn resume(&mut self, plan: &mut Plan) {
        match self.seen_cursor {
            Some(cursor) if plan.has_cursors() => plan.start_from(cursor),
            // From the gap's end on.
            Some(cursor) if plan.how == How::WebSocket && plan.since.is_some() => plan.start_from(cursor),
            _ if plan.how == How::WebSocket && plan.url.path.starts_with("/topics/") => {
                plan.since = None;
                self.show.note("what is published meanwhile will be missed: with ?frames=json it would not");
            }
            _ => {}
        }
    }
}
