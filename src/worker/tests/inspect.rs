//! What the control plane asks: in slices, beside everything else.

use super::*;
use crate::config::Proxies;
use crate::error::End;
use crate::limits::{CALLS_PER_TURN, INSPECT_PER_TURN};
use crate::worker::{Filter, Found, Inspection, Order, Quest};
use std::sync::mpsc::{Receiver, channel};

fn ask(stage: &Stage, quest: Quest) -> Receiver<(u16, Found)> {
    let (answer, answers) = channel();
    let inspection = Box::new(Inspection::new(Arc::new(quest), answer));
    stage.worker.port().post(Envelope::Inspect(inspection));
    answers
}

fn crowd(stage: &mut Stage, count: usize) -> Vec<Shared_> {
    (0..count)
        .map(|_| {
            let client = stage.client();
            stage.turn();
            client.borrow_mut().output.clear();
            client
        })
        .collect()
}

/// Turns until the answer is there, in each of which a client says something and hears it at once.
fn turns_until(stage: &mut Stage, answers: &Receiver<(u16, Found)>, talker: &Shared_) -> (usize, Found) {
    stage.event(MAIL_TOKEN, |_| {});
    for turns in 1..100 {
        talker.borrow_mut().output.clear();
        stage.say(talker, HELLO);
        stage.turn();
        assert!(!talker.borrow().output.is_empty(), "whoever says something is answered in that turn");
        if let Ok((worker, found)) = answers.try_recv() {
            assert_eq!(worker, 0);
            return (turns, found);
        }
        assert_eq!(stage.worker.timeout(), Some(Duration::ZERO), "there is more to be looked at");
    }
    panic!("no answer");
}

#[test]
fn a_table_is_walked_in_slices_and_nobody_waits_for_it() {
    let mut stage = Stage::new();
    let clients = crowd(&mut stage, 12);
    let quest = Quest::Connections { filter: Filter::default(), order: Order::Age, limit: 4 };
    let answers = ask(&stage, quest);
    let (turns, found) = turns_until(&mut stage, &answers, &clients[0]);
    assert!(turns >= 12 / INSPECT_PER_TURN + 4 / INSPECT_PER_TURN, "{turns}");
    let Found::Connections { mut rows, matched } = found else { panic!("{found:?}") };
    rows.sort_by_key(|row| row.id.serial);
    assert_eq!((matched, rows.iter().map(|row| row.id.serial).collect::<Vec<_>>()), (12, vec![1, 2, 3, 4]));
    stage.turn();
    assert_ne!(stage.worker.timeout(), Some(Duration::ZERO), "and then the loop sleeps");
}

#[test]
fn whoever_goes_during_a_walk_is_not_listed_and_nobody_waits_for_who_gave_up() {
    let mut stage = Stage::new();
    let clients = crowd(&mut stage, 6);
    let answers = ask(&stage, Quest::Connections { filter: Filter::default(), order: Order::Age, limit: 6 });
    stage.event(MAIL_TOKEN, |_| {});
    (0..3).for_each(|_| stage.turn());
    clients[0].borrow_mut().error = Some(ErrorKind::ConnectionReset);
    let token = clients[0].borrow().token.expect("registered");
    stage.event(token, |event| event.error = true);
    let mut found = None;
    for _ in 0..20 {
        stage.turn();
        found = found.or_else(|| answers.try_recv().ok());
    }
    let Some((_, Found::Connections { rows, .. })) = found else { panic!("{found:?}") };
    assert!(rows.iter().all(|row| row.id.serial != 1) && rows.len() == 5, "{rows:?}");

    drop(ask(&stage, Quest::Connections { filter: Filter::default(), order: Order::Lag, limit: 6 }));
    stage.event(MAIL_TOKEN, |_| {});
    (0..20).for_each(|_| stage.turn());
    assert_ne!(stage.worker.timeout(), Some(Duration::ZERO));
}

#[test]
fn many_are_disconnected_a_few_a_turn_and_remembered() {
    let mut stage = Stage::new();
    let clients = crowd(&mut stage, 9);
    let filter = Filter { address: Some([127, 0, 0, 1].into()), ..Filter::default() };
    let answers = ask(&stage, Quest::Dismiss { filter, code: Some(4000), reason: None });
    stage.event(MAIL_TOKEN, |_| {});
    let closed = |clients: &[Shared_]| clients.iter().filter(|client| !client.borrow().output.is_empty()).count();
    let mut before = 0;
    let found = loop {
        stage.turn();
        let now = closed(&clients);
        assert!(now - before <= CALLS_PER_TURN.max(INSPECT_PER_TURN), "{before} {now}");
        before = now;
        if let Ok((_, found)) = answers.try_recv() {
            break found;
        }
    };
    assert!(matches!(found, Found::Dismissed(9)), "{found:?}");
    for client in &clients {
        client.borrow_mut().error = Some(ErrorKind::UnexpectedEof);
        let token = client.borrow().token.expect("registered");
        stage.event(token, |event| event.read_closed = true);
    }
    (0..20).for_each(|_| stage.turn());
    let ends = stage.worker.recent.iter().filter(|gone| gone.why == crate::worker::Why::Ended(End::Operator));
    assert_eq!(ends.filter(|gone| gone.code == 4000 && gone.serial.is_some()).count(), 9);
    stage.assert_empty();
}

/// One has said nothing yet, not even whom its proxy brings; the other one is about to end already.
#[test]
fn whoever_is_disconnected_is_counted_and_nobody_else_is() {
    let proxies = Proxies { trusted: vec!["127.0.0.1".parse().expect("a network")], protocol: true, header: None };
    let mut stage = Stage::by(Echo, &Config { proxies, ..Config::default() });
    let silent = stage.client_with(b"PROXY TCP4 ");
    stage.turn();
    let by_all = || Filter { address: Some([127, 0, 0, 1].into()), ..Filter::default() };
    for expected in [1, 0] {
        silent.borrow_mut().room = Some(0); // so that it lingers
        let answers = ask(&stage, Quest::Dismiss { filter: by_all(), code: None, reason: None });
        stage.event(MAIL_TOKEN, |_| {});
        (0..5).for_each(|_| stage.turn());
        let found = answers.try_recv().expect("an answer");
        assert!(matches!(found, (0, Found::Dismissed(count)) if count == expected), "{found:?}, not {expected}");
    }
    silent.borrow_mut().room = None;
    let token = silent.borrow().token.expect("registered");
    stage.event(token, |event| event.writable = true);
    stage.turn();
    let said = String::from_utf8_lossy(&silent.borrow().output).into_owned();
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
}
