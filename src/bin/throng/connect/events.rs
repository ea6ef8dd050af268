//! An event stream (HTML, section 9.2), read.

use super::element::{Content, Element, unbase64};
use super::exchange::{Answer, Ask, Failed, exchange};
use super::link::Happening;
use super::options::Plan;
use super::show::{Direction, Payload, Shown};
use super::text::{escaped, escaped_bytes};
use super::{End, Stage, poll, refusal, words};
use std::time::Duration;
use throng::client::{Block, BodyReader, EventStream};

/// Longest time to come back that a server may ask for.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Opens a stream, and reads until it ends.
pub(super) fn run(plan: &mut Plan, stage: &mut Stage) -> Result<End, Failed> {
    let last_id = stage.last_id.clone();
    let mut answer = exchange(plan, Ask::Events(&last_id), |url| {
        stage.show.note(&format!("redirected to {}", escaped(&url.path)));
    })?;
    if answer.status != 200 {
        return Err(refusal::explain(answer));
    }
    if !answer.has_type("text/event-stream") {
        return other(plan, stage, &mut answer);
    }
    let opened = format!(
        "listening to {}://{}{}, answered in {}",
        answer.url.scheme.name(),
        escaped(&answer.url.authority),
        escaped(&answer.url.path),
        words::duration(answer.took)
    );
    stage.interrupts.set_open(true); // before it is said: whoever reads that may interrupt at once
    stage.show.note(&opened);
    let mut body =
        BodyReader::new(answer.status, answer.fields()).map_err(|fault| Failed::lasting(fault.to_string()))?;
    let Answer { rest, stream, .. } = answer;
    let link = stage.link(stream).map_err(|error| Failed::passing(error.to_string()))?;
    stage.open();
    let mut events = EventStream::default();
    let mut happening = Happening::Bytes(link.number, rest);
    let end = loop {
        match happening {
            Happening::Bytes(number, bytes) if number == link.number => {
                let bytes = match body.push(&bytes) {
                    Ok(bytes) => bytes,
                    Err(fault) => {
                        stage.show.error(&format!("the server broke the protocol: {fault}"));
                        break End::Violated;
                    }
                };
                events.push(&bytes, |block| {
                    if !stage.is_enough(plan) {
                        event(stage, &block);
                    }
                });
                if body.is_done() {
                    break ended(stage, true);
                }
                if events.held() > plan.message_bytes_max {
                    stage.show.error("the event is larger than --max-message allows");
                    break End::Violated;
                }
            }
            Happening::Ended(number, error) if number == link.number => {
                if let Some(error) = &error {
                    stage.show.error(&format!("connection lost: {error}"));
                }
                break ended(stage, error.is_none() && body.ends_with_connection());
            }
            _ => {}
        }
        if stage.is_over(plan) {
            break End::Closed;
        }
        let Some(next) = stage.next(None) else { break End::Closed };
        happening = next;
    };
    stage.interrupts.set_open(false);
    Ok(end)
}

/// The stream is over: as it should be, or cut off.
fn ended(stage: &mut Stage, properly: bool) -> End {
    stage.show.note(if properly { "the server ended the stream" } else { "the stream was cut off" });
    if properly { End::StreamEnded } else { End::Lost(1006) }
}

/// What is no event stream is shown once.
fn other(plan: &Plan, stage: &mut Stage, answer: &mut Answer) -> Result<End, Failed> {
    let named = answer.field("Content-Type").map_or_else(|| "no type".to_owned(), escaped);
    let body = answer.whole_body(plan.timeout)?;
    stage.show.note(&format!("this is no event stream, but {named}: shown once, as --poll does"));
    poll::show(plan, stage, &body);
    Ok(End::Closed)
}

fn event(stage: &mut Stage, block: &Block<'_>) {
    if let Some(id) = block.id {
        stage.last_id = String::from_utf8_lossy(id).into_owned();
    }
    if let Some(millis) = block.retry_ms {
        stage.retry = Some(Duration::from_millis(millis).min(RETRY_MAX));
    }
    let mut notes: Vec<String> = block.id.map(|id| format!("id {}", escaped_bytes(id))).into_iter().collect();
    let Some(data) = block.data else {
        // Where the stream starts from, or when to come back: no event.
        notes.extend(block.retry_ms.map(|millis| format!("retry after {millis} ms")));
        return stage.show.note(&notes.join(", "));
    };
    let text = String::from_utf8_lossy(data);
    if block.event == b"gap"
        && let Some(Content::Gap { since, resumed }) = Element::parse(&text).map(|element| element.content())
    {
        return stage.gap(&since, &resumed);
    }
    stage.received += 1;
    let content = if block.event == b"base64" { unbase64(&text) } else { Content::Text(String::new()) };
    let (payload, bytes) = match &content {
        Content::Bytes(bytes) => (Payload::Bytes(bytes), bytes.len()),
        _ => (Payload::Text(&text), data.len()),
    };
    let what = match block.event {
        b"" | b"base64" => "event".to_owned(),
        name => format!("event `{}`", escaped_bytes(name)),
    };
    stage.show.message(&Shown { direction: Direction::In, what: &what, bytes, notes, payload });
}
