//! The real binary as a child process, and a peer made of a bare `TcpStream`.
//!
//! Nothing here uses the library: what these tests know of HTTP and WebSocket is written a second time,
//! from the RFCs, so that a misreading in `src` cannot vouch for itself. Every wait is bounded.

#![allow(dead_code, reason = "each test crate uses its own part")]

mod client;
mod process;
mod siege;

pub(crate) use client::*;
#[allow(unused_imports, reason = "a test of the library needs no process")]
pub(crate) use process::*;
#[allow(unused_imports, reason = "a test of the library is no siege")]
pub(crate) use siege::*;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that ought to happen at once may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Waits until `check` holds; panics when that takes longer than `within`.
#[track_caller]
pub(crate) fn eventually(what: &str, within: Duration, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !check() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs `check` until `span` is over; it panics by itself when something does not hold.
pub(crate) fn throughout(span: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        check();
        thread::sleep(Duration::from_millis(20));
    }
}

/// What was said, without the times of publications, which have to be now.
#[track_caller]
pub(crate) fn untimed(said: &str) -> String {
    const MEMBER: &str = ",\"time\":";
    let (mut rest, mut out) = (said, String::new());
    while let Some((before, after)) = rest.split_once(MEMBER) {
        let (digits, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).expect("more follows"));
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
        assert!(digits.parse::<u128>().is_ok_and(|time| now.abs_diff(time) < 60_000), "{said}");
        out.push_str(before);
        rest = after;
    }
    out + rest
}

pub(crate) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
