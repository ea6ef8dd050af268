//! Centrifugo's clients: a WebSocket is open for a load once its commands are answered; a load sees messages, gaps and
//! cursors as from all others.

use super::input::{break_off, tell_cursor};
use super::net::Net;
use super::table::Phase;
use super::{Cursor, Gone, Mode};
use crate::centrifugo::{self, Format, Publication, Reply, Subscribed, Word};
use crate::reason::{Failure, Loss};

/// What came is none of the protocol.
const NO_REPLY: Loss = Loss::Violation("reply");

type Left<M> = (<M as Mode>::State, Gone);

/// Handles a frame of replies.
pub(super) fn replies<M: Mode>(
    net: &mut Net<M::State>,
    mode: &mut M,
    slot: u32,
    format: Format,
    frame: &[u8],
) -> Result<(), Left<M>> {
    for reply in centrifugo::replies(format, frame) {
        let phase = net.table[slot].phase;
        if !matches!(phase, Phase::Joining | Phase::Open) {
            return Ok(());
        }
        let Ok(reply) = reply else { return Err(break_off(net, slot, Failure::BadReply, NO_REPLY)) };
        match (reply, phase) {
            (Reply::Ping, _) => {
                net.note_ping(slot);
                net.send_frame(slot, format.opcode(), format.pong());
            }
            (Reply::Connected, Phase::Joining) if net.line.channel(slot).is_empty() => open(net, mode, slot),
            (Reply::Subscribed(subscribed), Phase::Joining) => join(net, mode, slot, &subscribed),
            (Reply::Publication(publication), Phase::Open) => message(net, mode, slot, &publication),
            (Reply::Error(word), Phase::Joining) => return Err(refused(net, slot, &word)),
            (Reply::Unsubscribed(word), Phase::Open) => {
                return Err(lost(net, slot, Loss::Unsubscribed(word.code), &word));
            }
            (Reply::Disconnected(word), _) => {
                let code = u16::try_from(word.code).unwrap_or(0);
                net.note_said(slot, &Loss::Closed(code).word(), &word.reason);
                return Err(break_off(net, slot, Failure::Closed(code), Loss::Closed(code)));
            }
            // Answers to what nobody asked, and what concerns other channels.
            _ => {}
        }
    }
    Ok(())
}

fn refused<S: Default>(net: &mut Net<S>, slot: u32, word: &Word<'_>) -> (S, Gone) {
    let failure = Failure::Error(word.code);
    net.note_said(slot, &failure.word(), &word.reason);
    net.fail(slot, failure)
}

fn lost<S: Default>(net: &mut Net<S>, slot: u32, loss: Loss, word: &Word<'_>) -> (S, Gone) {
    net.note_said(slot, &loss.word(), &word.reason);
    net.lose(slot, loss)
}

fn open<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32) {
    net.opened(slot);
    mode.opened(net, slot);
}

/// The subscription has begun: where it was asked to, or, said aloud, elsewhere.
fn join<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, subscribed: &Subscribed<'_>) {
    let asked = net.table[slot].rare.as_mut().map(|rare| std::mem::take(&mut rare.cursor)).unwrap_or_default();
    net.drop_rare(slot);
    open(net, mode, slot);
    if !asked.is_empty() && !subscribed.recovered && net.table[slot].phase == Phase::Open {
        mode.gap(net, slot);
    }
    let mut cursor = std::mem::take(&mut net.cursor);
    centrifugo::cursor(&mut cursor, &subscribed.epoch, subscribed.offset);
    tell_cursor(net, mode, slot, &cursor);
    net.cursor = cursor;
    for publication in &subscribed.publications {
        if net.table[slot].phase != Phase::Open {
            return;
        }
        message(net, mode, slot, publication);
    }
}

fn message<M: Mode>(net: &mut Net<M::State>, mode: &mut M, slot: u32, publication: &Publication<'_>) {
    net.gauge.received.add(1);
    mode.message(net, slot, &publication.data);
    if publication.offset > 0 && net.table[slot].phase == Phase::Open {
        mode.cursor(net, slot, Cursor::Offset(publication.offset));
    }
}
