//! Publishing and its audit, against a broadcast server on Node's `ws` that can be told to misbehave.

mod support;

use support::{Outcome, Server, load};

const SUBSCRIBE: &str = r#"{"subscribe":"{topic}"}"#;
const PUBLISH: &str = r#"{"publish":"{topic}","data":"{payload}"}"#;
const SUBSCRIBERS: u64 = 30;

#[track_caller]
fn run(server: &Server, mode: &str, more: &[&str]) -> Outcome {
    let fixed = ["-c", "30", "--rate", "200", "--duration", "1", "--settle", "0.3", "--drain", "1"];
    let templates = ["--subscribe-template", SUBSCRIBE, "--publish-template", PUBLISH];
    let more = if more.contains(&"--publish-template") {
        [more, &templates[..2]].concat()
    } else {
        [more, &templates].concat()
    };
    load(&[&[mode, server.url.as_str()], &fixed[..], &more].concat())
}

#[test]
fn everyone_gets_everything_once_and_in_order() {
    let Some(server) = Server::node("") else { return };
    for more in [&[][..], &["--topics", "7", "--topic", "room-{n}"]] {
        let outcome = run(&server, "fanout", more);
        outcome.assert_clean();
        assert!((190..=230).contains(&outcome.count("fanout.published")), "{}", outcome.summary);
        assert_eq!(outcome.count("fanout.subscribers"), SUBSCRIBERS);
        assert_eq!(outcome.count("fanout.delivered"), outcome.count("fanout.expected"), "{}", outcome.summary);
        assert_eq!(outcome.count("fanout.latency_us.count"), outcome.count("fanout.delivered"));
    }
}

#[test]
fn publishing_works_by_post_too() {
    let Some(server) = Server::node("") else { return };
    let url = format!("{}/publish/{{topic}}", server.http);
    let outcome = run(&server, "fanout", &["--publish-url", &url, "--topics", "3", "--publish-template", "{payload}"]);
    outcome.assert_clean();
    assert!(outcome.count("fanout.published") > 100, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.delivered"), outcome.count("fanout.expected"), "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.publish_answer_us.count"), outcome.count("fanout.published"));
}

#[test]
fn what_a_server_loses_doubles_and_swaps_is_counted_exactly() {
    let faults = [("--lose 10", "lost", 10), ("--double 7", "duplicated", 7), ("--gap 9", "gap_announced", 9)];
    for (flags, what, every) in faults {
        let Some(server) = Server::node(flags) else { return };
        let outcome = run(&server, "fanout", &[]);
        assert_eq!(outcome.status, 3, "{}", outcome.summary);
        let expected = outcome.count("fanout.published") / every * SUBSCRIBERS;
        assert_eq!(outcome.count(&format!("fanout.{what}")), expected, "{flags}: {}", outcome.summary);
        for other in
            ["lost", "duplicated", "reordered", "gap_announced", "misrouted"].iter().filter(|&&other| other != what)
        {
            assert_eq!(outcome.count(&format!("fanout.{other}")), 0, "{flags}: {}", outcome.summary);
        }
    }
    let Some(server) = Server::node("--swap 6") else { return };
    let outcome = run(&server, "fanout", &[]);
    let published = outcome.count("fanout.published");
    // One that was held back to the end never came.
    let held = u64::from(published.is_multiple_of(6));
    assert_eq!(outcome.count("fanout.reordered"), (published / 6 - held) * SUBSCRIBERS, "{}", outcome.summary);
    assert_eq!(outcome.count("fanout.lost"), held * SUBSCRIBERS, "{}", outcome.summary);
}

#[test]
fn what_still_comes_while_connections_are_closed_counts_for_nothing() {
    let Some(server) = Server::node("--late 1500") else { return };
    let often = ["-c", "300", "--rate", "1000", "--duration", "1", "--settle", "0.3", "--drain", "1"];
    let templates = ["--subscribe-template", SUBSCRIBE, "--publish-template", PUBLISH];
    let outcome = load(&[&["fanout", server.url.as_str()], &often[..], &templates].concat());
    assert_eq!(outcome.status, 3, "{}", outcome.summary);
    let count = |what: &str| outcome.count(&format!("fanout.{what}"));
    assert!(count("delivered") > 0 && count("lost") > 0, "{}", outcome.summary);
    assert_eq!(count("delivered") + count("lost"), count("expected"), "{}", outcome.summary);
}

#[test]
fn a_run_without_a_publisher_ends_early_and_says_why() {
    let Some(server) = Server::node("") else { return };
    for flag in ["--publish-ws", "--publish-url"] {
        let url = if flag == "--publish-ws" { "ws://127.0.0.1:9/" } else { "http://127.0.0.1:9/" };
        let outcome = run(&server, "fanout", &[flag, url]);
        assert_eq!(outcome.status, 3, "{}", outcome.summary);
        assert_eq!(outcome.value("ended_early"), true, "{}", outcome.summary);
        assert!(outcome.value("problems").to_string().contains("refused"), "{}", outcome.summary);
        // It may fail before all of them are open; whoever was is closed in order.
        assert_eq!(outcome.count("connections.farewells.answered"), outcome.count("connections.opened"));
    }
}

#[test]
fn slow_readers_have_an_account_of_their_own() {
    let Some(server) = Server::node("") else { return };
    for bytes in ["0", "2000"] {
        let outcome = run(&server, "slow", &["--slow-share", "0.2", "--slow-bytes", bytes]);
        outcome.assert_clean();
        assert_eq!((outcome.count("fanout.subscribers"), outcome.count("slow.subscribers")), (24, 6));
        for who in ["fanout", "slow"] {
            let [delivered, expected] = ["delivered", "expected"].map(|name| outcome.count(&format!("{who}.{name}")));
            assert_eq!(delivered, expected, "{}", outcome.summary);
        }
        let [prompt, slow] = ["fanout", "slow"].map(|who| outcome.number(&format!("{who}.latency_us.p50")));
        assert!(slow > 10.0 * prompt, "{}", outcome.summary);
    }
}

#[test]
fn what_cannot_work_is_said_before_anything_starts() {
    let refused = |arguments: &[&str], word: &str| {
        let outcome = load(arguments);
        assert_eq!(outcome.status, 2, "{}", outcome.errors);
        assert!(outcome.errors.contains(word), "{}", outcome.errors);
    };
    let url = "ws://127.0.0.1:9/{topic}";
    refused(&["fanout", url, "--publish-template", "hello"], "{payload}");
    refused(&["fanout", url, "--topics", "2"], "--publish-url");
    refused(&["fanout", url, "--topics", "2", "--topic", "same"], "{n}");
    refused(&["idle", "wss://127.0.0.1:9/"], "TLS");
    refused(&["idle", url, "-c", "100000", "--threads", "1"], "ulimit");
    refused(&["idle", url, "-c", "50000", "--source", "127.0.0.5"], "--per-source");
    refused(&["idle", url, "-c", "999000000"], "ulimit");
}
