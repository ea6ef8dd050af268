//! Every mode in small, against throng and against Node's `ws`: the accounts have to come out even.

mod support;

use std::thread;
use std::time::{Duration, Instant};
use support::{Running, Server, load};

/// The URL of a server, or the test is over (and has said so).
macro_rules! url_or_return {
    ($server:ident) => {
        match &$server {
            Some(server) => server.url.as_str(),
            None => return,
        }
    };
}

#[test]
fn idle_connections_answer_their_pings() {
    let server = Server::throng("--ping-interval 0.3 --pong-timeout 2");
    let url = url_or_return!(server);
    let outcome = load(&["idle", url, "-c", "500", "--hold", "1.5"]);
    outcome.assert_clean();
    assert_eq!(outcome.count("connections.open_at_end"), 500);
    assert_eq!(outcome.count("connections.farewells.answered"), 500);
    assert!(outcome.count("connections.pings") >= 1500, "{}", outcome.summary);
    // Nobody was left out.
    assert!(outcome.value("connections.connections_by_pings").get("0").is_none(), "{}", outcome.summary);
    assert_eq!(outcome.value("server_pids").as_array().map(Vec::len), Some(1), "the server is found by itself");
}

#[test]
fn idle_connections_may_end_by_reset_and_come_slowly() {
    let server = Server::throng("");
    let url = url_or_return!(server);
    let outcome = load(&["idle", url, "-c", "200", "--hold", "0.2", "--rate", "400", "--end", "reset"]);
    outcome.assert_clean();
    assert_eq!(outcome.count("connections.farewells.by_reset"), 200);
    let seconds = outcome.number("opening.seconds");
    assert!((0.45..1.5).contains(&seconds), "{seconds}");
}

#[test]
fn names_and_the_other_family_work_too() {
    let server = Server::throng("");
    let url = url_or_return!(server);
    let port = url.trim_end_matches('/').rsplit(':').next().unwrap();
    load(&["idle", &format!("ws://localhost:{port}/a?b=c"), "-c", "10", "--hold", "0.1"]).assert_clean();
    load(&["idle", url, "-c", "10", "--hold", "0.1", "--source", "127.9.9.8/30"]).assert_clean();
    let server = Server::throng_at("[::1]:0", "");
    let url = url_or_return!(server);
    load(&["idle", url, "-c", "10", "--hold", "0.1"]).assert_clean();
}

#[test]
fn more_connections_than_one_table_holds_take_more_threads() {
    let server = Server::throng("--max-connections 2000");
    let url = url_or_return!(server);
    let outcome = Running::start_with_descriptors(200, &["idle", url, "-c", "1500", "--hold", "0.5"]).wait();
    outcome.assert_clean();
    assert_eq!(outcome.count("connections.open_at_end"), 1500);
    assert!(outcome.number("threads") >= 10.0, "{}", outcome.summary);
}

#[test]
fn echoes_come_back_in_a_closed_loop() {
    let server = Server::throng("--echo");
    let url = url_or_return!(server);
    for more in [&[][..], &["--inflight", "5", "--size", "1..5000"], &["--binary", "--size", "10:0.9,60000:0.1"]] {
        let arguments = [&["echo", url, "-c", "20", "--duration", "0.5", "--warmup", "0.1"], more].concat();
        let outcome = load(&arguments);
        outcome.assert_clean();
        assert!(outcome.count("echo.answered") > 200, "{}", outcome.summary);
        assert_eq!(outcome.count("echo.answered"), outcome.count("echo.sent"), "{}", outcome.summary);
        assert_eq!(outcome.count("echo.latency_us.count"), outcome.count("echo.answered"));
    }
}

#[test]
fn echoes_leave_at_a_rate_in_an_open_loop() {
    let server = Server::throng("--echo");
    let url = url_or_return!(server);
    let outcome = load(&["echo", url, "-c", "20", "--rate", "2000", "--duration", "1", "--warmup", "0.2"]);
    outcome.assert_clean();
    let sent = outcome.count("echo.sent") + outcome.count("echo.unsent");
    assert!((1900..2200).contains(&sent), "{}", outcome.summary);
    assert_eq!(outcome.count("echo.late_us.count"), outcome.count("echo.sent"));
}

#[test]
fn connections_come_and_go() {
    let server = Server::throng("");
    let url = url_or_return!(server);
    for end in ["close", "reset"] {
        let outcome = load(&["churn", url, "-c", "100", "--rate", "200", "--duration", "1", "--end", end]);
        outcome.assert_clean();
        let replaced = outcome.count("churn.replaced");
        assert!((180..=230).contains(&replaced), "{}", outcome.summary);
        assert_eq!(outcome.count("connections.opened"), 100 + replaced);
        assert_eq!(outcome.count("connections.open_at_end"), 100);
    }
}

#[test]
fn everyone_comes_back_after_a_storm() {
    let server = Server::throng("");
    let url = url_or_return!(server);
    for more in [&["--end", "reset"][..], &["--backoff", "0.3"]] {
        let arguments = [&["storm", url, "-c", "300", "--rounds", "2", "--rest", "0.2"], more].concat();
        let outcome = load(&arguments);
        outcome.assert_clean();
        let rounds = outcome.value("storm.rounds").as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            assert_eq!((&round["dropped"], &round["came_back"]), (&300.into(), &300.into()), "{}", outcome.summary);
        }
        assert_eq!(outcome.count("connections.opened"), 900);
        assert_eq!(outcome.count("connections.open_at_end"), 300);
    }
}

#[test]
fn a_storm_outlasts_a_server_that_has_no_room() {
    let server = Server::throng("--max-connections 50");
    let url = url_or_return!(server);
    let outcome = load(&["storm", url, "-c", "80", "--rest", "0.1", "--round-timeout", "1", "--end", "reset"]);
    assert!(outcome.count("connections.failures.http_503") >= 30, "{}", outcome.summary);
    let round = &outcome.value("storm.rounds")[0];
    assert_eq!((round["dropped"].as_u64(), round["came_back"].as_u64()), (Some(50), Some(50)), "{}", outcome.summary);
}

#[test]
fn all_sorts_live_side_by_side() {
    let server = Server::throng("--echo --ping-interval 0.5");
    let url = url_or_return!(server);
    let outcome = load(&["mixed", url, "-c", "200", "--rate", "500", "--churn", "100", "--duration", "1.5"]);
    outcome.assert_clean();
    assert!(outcome.count("echo.answered") > 600, "{}", outcome.summary);
    assert!(outcome.count("churn.replaced") > 120, "{}", outcome.summary);
    assert!(outcome.count("connections.pings") > 0, "{}", outcome.summary);
    assert_eq!(outcome.count("connections.open_at_end"), 200);
}

#[test]
fn an_interrupted_run_still_reports() {
    let server = Server::throng("");
    let url = url_or_return!(server);
    let began = Instant::now();
    let running = Running::start(&["idle", url, "-c", "100", "--hold", "50"]);
    thread::sleep(Duration::from_secs(3)); // it is up by then, on a busy machine too
    running.interrupt();
    let outcome = running.wait();
    outcome.assert_clean();
    assert_eq!(outcome.value("ended_early"), true);
    assert_eq!(outcome.count("connections.farewells.answered"), 100);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_run_interrupted_while_opening_accounts_for_what_it_tried() {
    let server = Server::throng("");
    let url = url_or_return!(server);
    let running = Running::start(&["idle", url, "-c", "5000", "--open-rate", "200", "--hold", "50"]);
    thread::sleep(Duration::from_secs(3)); // it is up by then, on a busy machine too
    running.interrupt();
    let outcome = running.wait();
    outcome.assert_clean();
    let opened = outcome.count("connections.opened");
    assert!((50..1000).contains(&opened), "{}", outcome.summary);
}

#[test]
fn node_holds_idle_connections() {
    let server = Server::node("");
    let url = url_or_return!(server);
    let outcome = load(&["idle", url, "-c", "200", "--hold", "0.5"]);
    outcome.assert_clean();
    assert_eq!(outcome.count("connections.farewells.answered"), 200);
}

#[test]
fn node_echoes() {
    let server = Server::node("");
    let url = url_or_return!(server);
    for more in [&["--size", "1..70000", "--inflight", "3"][..], &["--rate", "1000"]] {
        let arguments = [&["echo", url, "-c", "10", "--duration", "0.7", "--warmup", "0.2"], more].concat();
        let outcome = load(&arguments);
        outcome.assert_clean();
        assert_eq!(outcome.count("echo.answered"), outcome.count("echo.sent"));
        assert!(outcome.count("echo.answered") > 50, "{}", outcome.summary);
    }
}

#[test]
fn a_page_is_written() {
    let server = Server::throng("--echo");
    let url = url_or_return!(server);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{}.html", std::process::id()));
    let path_text = path.to_str().unwrap();
    load(&["echo", url, "-c", "10", "--duration", "0.5", "--report", path_text]).assert_clean();
    let page = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() >= 3);
    for outside in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page needs {outside}");
    }
}
