//! Polls, long polls, and publishing.

use super::element::{Content, Element};
use super::exchange::{Ask, Failed, exchange};
use super::options::{How, Plan};
use super::show::{Direction, Payload, Shown};
use super::text::escaped;
use super::{End, Stage, refusal, words};
use std::io::Read;
use std::time::Duration;
use throng::Cursor;

/// One poll.
pub(super) fn run(plan: &mut Plan, stage: &mut Stage) -> Result<End, Failed> {
    let asked = if let How::LongPoll(seconds) = plan.how { seconds } else { 0 };
    let mut answer = exchange(plan, Ask::Poll(asked), |_| {})?;
    if !matches!(answer.status, 200 | 204) {
        return Err(refusal::explain(answer));
    }
    let cursor = answer.field("Throng-Cursor").and_then(|text| text.parse::<Cursor>().ok());
    let body = answer.whole_body(plan.timeout)?;
    let said = cursor.map_or_else(String::new, |cursor| format!(", cursor {cursor}"));
    stage.show.note(&format!("{} in {}{said}", answer.status, words::duration(answer.took)));
    show(plan, stage, &body);
    stage.seen_cursor = cursor.or(stage.seen_cursor);
    match cursor {
        Some(cursor) if plan.how != How::Poll => plan.start_from(cursor),
        None if plan.how != How::Poll => {
            return Err(Failed::lasting("the answer has no Throng-Cursor to go on from: is this a topic of throng's?"));
        }
        _ => {}
    }
    Ok(End::Closed)
}

/// What a poll was answered with: a topic's elements, or else whatever it is.
pub(super) fn show(plan: &Plan, stage: &mut Stage, body: &[u8]) {
    let Some(elements) = Element::parse_all(body) else {
        if !body.is_empty() {
            stage.received += 1;
            let (what, notes) = ("body", Vec::new());
            let (direction, bytes) = (Direction::In, body.len());
            stage.show.message(&Shown { direction, what, bytes, notes, payload: Payload::of(body) });
        }
        return;
    };
    for element in elements {
        if stage.is_enough(plan) {
            return;
        }
        let content = element.content();
        let (what, payload, bytes) = match &content {
            Content::Gap { since, resumed } => {
                stage.gap(since, resumed);
                continue;
            }
            Content::Text(text) => ("text", Payload::Text(text), text.len()),
            Content::Bytes(bytes) => ("binary", Payload::Bytes(bytes), bytes.len()),
        };
        stage.received += 1;
        let notes = element.cursor().map(|cursor| format!("id {cursor}")).into_iter().collect();
        stage.show.message(&Shown { direction: Direction::In, what, bytes, notes, payload });
    }
}

/// Publishes one message.
pub(super) fn post(plan: &Plan, stage: &mut Stage, text: &str) -> Result<End, Failed> {
    let mut body = text.as_bytes().to_vec();
    if text == "-" {
        body.clear();
        std::io::stdin()
            .lock()
            .read_to_end(&mut body)
            .map_err(|error| Failed::lasting(format!("standard input: {error}")))?;
    }
    let mut answer = exchange(plan, Ask::Post(&body), |_| {})?;
    if !(200..300).contains(&answer.status) {
        return Err(refusal::explain(answer));
    }
    let (status, took) = (answer.status, words::duration(answer.took));
    let said = answer.body(plan.timeout.max(Duration::from_secs(1)), 64 * 1024).unwrap_or_default();
    match answer.field("Throng-Cursor").map(escaped) {
        Some(cursor) => stage.show.note(&format!("published in {took}, cursor {cursor}")),
        None => stage.show.note(&format!("{status} in {took}")),
    }
    let said = said.trim_ascii();
    if !said.is_empty() {
        let (direction, what, bytes) = (Direction::In, "answer", said.len());
        stage.show.message(&Shown { direction, what, bytes, notes: Vec::new(), payload: Payload::of(said) });
    }
    Ok(End::Closed)
}
