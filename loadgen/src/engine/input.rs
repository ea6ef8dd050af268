//! What comes on open connections, transport by transport: frames, events, and answers to polls. A load sees messages,
//! gaps and cursors. What is in the frames of Centrifugo's clients is [`session`]'s.

use super::gauge::Farewell;
use super::net::Net;
use super::table::Phase;
use super::{Cursor, Gone, Mode, session};
use crate::centrifugo::Format;
use crate::cli::Transport;
use crate::poll::{self, Element, Parsed, is_cursor, unbase64};
use crate::reason::{Failure, Loss};
use throng::error::Violation;
use throng::ws::{self, Event, Opcode, Role, Rules};

/// Servers may send what they like: this is the longest message that is taken, in bytes.
const RULES: Rules = Rules { role: Role::Client, message_bytes_max: 64 * 1024 * 1024, compression: false };

/// Handles what was read; false when the connection is gone.
pub(super) fn input<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, bytes: &mut [u8]) -> bool {
    let gone = match net.line.transport(slot) {
        Transport::Sse => events(net, mode, slot, bytes),
        Transport::Poll => answer(net, mode, slot, bytes),
        Transport::Ws if net.line.has_cursors(slot) => frames(net, mode, slot, bytes, Inside::Elements),
        Transport::Ws => frames(net, mode, slot, bytes, Inside::Messages),
        Transport::CentrifugoJson => frames(net, mode, slot, bytes, Inside::Replies(Format::Json)),
        Transport::CentrifugoProtobuf => frames(net, mode, slot, bytes, Inside::Replies(Format::Protobuf)),
    };
    if let Err((state, gone)) = gone {
        mode.gone(net, slot, state, gone);
        return false;
    }
    net.table[slot].phase != Phase::Free // the mode may have ended it
}

/// What a connection leaves behind that is gone.
type Left<M> = (<M as Mode>::State, Gone);

/// What a WebSocket's frames hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Messages,
    /// Messages with their cursors, and gaps.
    Elements,
    Replies(Format),
}

fn frames<M: Mode>(
    net: &mut Net<M::State>,
    mode: &mut M,
    slot: u32,
    bytes: &mut [u8],
    inside: Inside,
) -> Result<(), Left<M>> {
    let mut partial = net.table[slot].rare.as_mut().and_then(|rare| rare.partial.take());
    let mut at = 0;
    loop {
        match ws::decode(&mut partial, bytes, &mut at, RULES) {
            Ok(None) => break,
            Ok(Some(event)) => {
                handle(net, mode, slot, event, inside)?;
                if net.table[slot].phase == Phase::Free {
                    return Ok(());
                }
            }
            Err(violation) => return Err(violated(net, slot, violation)),
        }
    }
    if partial.is_some() {
        net.table[slot].rare.get_or_insert_default().partial = partial;
    } else {
        net.drop_rare(slot);
    }
    Ok(())
}

/// Handles one event of a WebSocket.
fn handle<M: Mode>(
    net: &mut Net<M::State>,
    mode: &mut M,
    slot: u32,
    event: Event<'_>,
    inside: Inside,
) -> Result<(), Left<M>> {
    let open = matches!(net.table[slot].phase, Phase::Open | Phase::Joining);
    match event {
        Event::Text(text) if inside == Inside::Replies(Format::Json) => {
            session::replies(net, mode, slot, Format::Json, text.as_bytes())?;
        }
        Event::Binary(bytes) if inside == Inside::Replies(Format::Protobuf) => {
            session::replies(net, mode, slot, Format::Protobuf, bytes)?;
        }
        Event::Text(_) | Event::Binary(_) if open && matches!(inside, Inside::Replies(_)) => {
            return Err(break_off(net, slot, Failure::BadReply, WRONG_TYPE));
        }
        Event::Text(text) if open && inside == Inside::Elements => {
            let Some(one) = Element::parse(text.as_bytes()) else { return Err(net.lose(slot, NO_ELEMENT)) };
            element(net, mode, slot, &one);
        }
        Event::Text(text) if open => {
            net.gauge.received.add(1);
            mode.message(net, slot, text.as_bytes());
        }
        Event::Binary(bytes) if open => {
            net.gauge.received.add(1);
            mode.message(net, slot, bytes);
        }
        Event::Ping(payload) if open => {
            net.note_ping(slot);
            net.send_frame(slot, Opcode::Pong, payload);
        }
        Event::Close(close) if open => {
            // Echoed with its code (section 5.5.1); then the server ends the stream, which we do not wait for.
            let code = close.code.map(u16::to_be_bytes);
            net.send_frame(slot, Opcode::Close, code.as_ref().map_or(&[], |code| &code[..]));
            let code = close.code.unwrap_or(1005);
            net.note_said(slot, &Loss::Closed(code).word(), close.reason);
            return Err(break_off(net, slot, Failure::Closed(code), Loss::Closed(code)));
        }
        Event::Close(_) if net.table[slot].phase == Phase::Closing => net.table[slot].phase = Phase::Closed,
        _ => {} // what comes while we are closing is of no interest
    }
    Ok(())
}

/// The server broke the protocol.
fn violated<S: Default>(net: &mut Net<S>, slot: u32, violation: Violation) -> (S, Gone) {
    match net.table[slot].phase {
        Phase::Open | Phase::Joining => {
            net.send_frame(slot, Opcode::Close, &violation.code().to_be_bytes());
            break_off(net, slot, Failure::BadReply, Loss::violation(violation))
        }
        _ => net.part(slot, Farewell::Unanswered),
    }
}

/// A JSON frame, or a poll's body, is not what it should be.
const NO_ELEMENT: Loss = Loss::Violation("element");
/// An answer to a poll is none, or says no cursor.
const NO_ANSWER: Loss = Loss::Violation("answer");
/// Text where there should be bytes, or the other way round.
const WRONG_TYPE: Loss = Loss::Violation("frame_type");
/// An event is longer than any message may be.
const TOO_LONG: Loss = Loss::Violation("too_long");

/// One message that says where it stands, or a gap.
fn element<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, element: &Element<'_>) {
    let cursor = match &element.gap {
        Some(gap) => {
            mode.gap(net, slot);
            gap.resumed
        }
        None => {
            net.gauge.received.add(1);
            mode.message(net, slot, &element.payload());
            element.id
        }
    };
    tell_cursor(net, mode, slot, cursor.unwrap_or_default().as_bytes());
}

/// What a server says as a cursor goes into requests: only what is harmless there.
pub(super) fn tell_cursor<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, cursor: &[u8]) {
    if is_cursor(cursor) && net.table[slot].phase == Phase::Open {
        mode.cursor(net, slot, Cursor::At(cursor));
    }
}

fn events<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, bytes: &[u8]) -> Result<(), Left<M>> {
    let begun = net.table[slot].rare.as_mut().and_then(|rare| rare.stream.take());
    let mut stream = begun.or_else(|| net.spare_stream.take()).unwrap_or_default();
    stream.push(bytes, |block| {
        if net.table[slot].phase != Phase::Open {
            return;
        }
        match (block.event, block.data) {
            (_, None) => {}
            (b"gap", _) => mode.gap(net, slot),
            (event, Some(data)) => {
                net.gauge.received.add(1);
                if event == b"base64" {
                    mode.message(net, slot, &unbase64(data));
                } else {
                    mode.message(net, slot, data);
                }
            }
        }
        tell_cursor(net, mode, slot, block.id.unwrap_or_default());
    });
    if net.table[slot].phase != Phase::Open {
        return Ok(());
    }
    if stream.held() > RULES.message_bytes_max {
        return Err(net.lose(slot, TOO_LONG));
    }
    // Between two events a connection has no stream of its own: one serves all.
    if stream.is_idle() {
        net.spare_stream = Some(stream);
        net.drop_rare(slot);
    } else {
        net.table[slot].rare.get_or_insert_default().stream = Some(stream);
    }
    Ok(())
}

/// An answer to a poll; the first one opens the connection, since it says where the topic stands.
fn answer<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, bytes: &[u8]) -> Result<(), Left<M>> {
    let (mut held, needed) = match &mut net.table[slot].rare {
        Some(rare) => (std::mem::take(&mut rare.head), std::mem::take(&mut rare.needed)),
        None => (Vec::new(), 0),
    };
    let whole = if held.is_empty() {
        bytes
    } else {
        held.extend_from_slice(bytes);
        &held
    };
    let parsed = if whole.len() < needed { Parsed::Partial(needed) } else { poll::parse(whole) };
    let answer = match parsed {
        Parsed::Whole(answer) => answer,
        Parsed::Partial(needed) => {
            if held.is_empty() {
                held.extend_from_slice(bytes);
            }
            let rare = net.table[slot].rare.get_or_insert_default();
            (rare.head, rare.needed) = (held, needed);
            return Ok(());
        }
        Parsed::Broken => return Err(break_off(net, slot, Failure::NotHttp, NO_ANSWER)),
    };
    let is_first = net.table[slot].phase == Phase::Waiting;
    if answer.status != 200 && (is_first || answer.status != 204) {
        return Err(break_off(net, slot, Failure::Status(answer.status), Loss::Status(answer.status)));
    }
    let Some(cursor) = answer.cursor else { return Err(break_off(net, slot, Failure::BadStream, NO_ANSWER)) };
    let Some(elements) = Element::parse_all(answer.body) else {
        return Err(break_off(net, slot, Failure::BadStream, NO_ELEMENT));
    };
    if is_first {
        net.opened(slot);
        mode.opened(net, slot);
    }
    for one in &elements {
        if net.table[slot].phase != Phase::Open {
            return Ok(());
        }
        element(net, mode, slot, one);
    }
    tell_cursor(net, mode, slot, cursor);
    if net.table[slot].phase == Phase::Open {
        net.drop_rare(slot);
        net.poll_on(slot, cursor);
    }
    Ok(())
}

/// Ends a connection that was to open, or was open.
pub(super) fn break_off<S: Default>(net: &mut Net<S>, slot: u32, failure: Failure, loss: Loss) -> (S, Gone) {
    match net.table[slot].phase {
        Phase::Waiting | Phase::Joining => net.fail(slot, failure),
        _ => net.lose(slot, loss),
    }
}
