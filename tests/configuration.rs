//! `throng config`, and what the file, the environment and the command line make together.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};
use support::Throng;

/// A file of the asking test's own: tests run side by side, and two of them have one called "secrets".
fn file(name: &str, text: &str) -> PathBuf {
    let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("configuration-{test}-{name}.toml"));
    std::fs::write(&file, text).unwrap();
    file
}

/// Runs the program to its end, without variables of whoever runs the tests.
fn throng(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("THRONG_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `throng config show` prints.
fn shown(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = throng(&[&["config", "show"], arguments].concat(), variables);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_source_counts_more_than_the_one_before_and_is_named() {
    let file = file(
        "sources",
        "[client]\nping_interval = \"11s\"\npong_timeout = \"5s\"\n[throng]\nmax_topics = 1\nworkers = 3\n",
    );
    let name = file.to_str().unwrap();
    let variables = [("THRONG_MAX_TOPICS", "2"), ("THRONG_CLIENT_PONG_TIMEOUT", "6s"), ("THRONG_WORKERS", "4")];
    let shown = shown(&["--config", name, "--workers", "5", "--ping-interval", "0.5"], &variables);
    for line in [
        format!("client.ping_interval = \"11s\"  # {name}:2"),
        "client.pong_timeout = \"6s\"  # THRONG_CLIENT_PONG_TIMEOUT".to_owned(),
        "throng.max_topics = 2  # THRONG_MAX_TOPICS".to_owned(),
        "throng.workers = 5  # --workers".to_owned(),
        "throng.ping_interval = \"500ms\"  # --ping-interval".to_owned(),
        "throng.pong_timeout = \"20s\"  # default".to_owned(),
        "# throng.accept_rate: any number  # default".to_owned(),
    ] {
        assert!(shown.lines().any(|one| one == line), "{line} in {shown}");
    }
}

#[test]
fn the_environment_can_name_the_file_and_has_namespaces() {
    let file = file("named", "[channel]\nmax_length = 99\n[[channel.namespaces]]\nname = \"old\"\n");
    let namespaces = r#"[{"name": "rooms", "presence": true, "history_size": 5, "history_ttl": "1m"}]"#;
    let shown = shown(&[], &[("THRONG_CONFIG", file.to_str().unwrap()), ("THRONG_CHANNEL_NAMESPACES", namespaces)]);
    for line in [
        "name = \"rooms\"  # THRONG_CHANNEL_NAMESPACES",
        "history_ttl = \"1m\"  # THRONG_CHANNEL_NAMESPACES",
        "join_leave = false  # default",
    ] {
        assert!(shown.lines().any(|one| one == line), "{line} in {shown}");
    }
    assert!(shown.contains("channel.max_length = 99  # ") && !shown.contains("\"old\""), "{shown}");
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let text = "[client]\nallowed_origins = [\"https://a.example\"]\n[channel.without_namespace]\npresence = true\n\
                [[channel.namespaces]]\nname = \"rooms\"\nhistory_size = 5\nhistory_ttl = \"90s\"\n";
    let first = shown(&["--config", file("first", text).to_str().unwrap(), "--history-bytes", "77"], &[]);
    let second = shown(&["--config", file("second", &first).to_str().unwrap()], &[]);
    let settings =
        |text: &str| text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(settings(&first), settings(&second));
    assert!(first.contains("channel.without_namespace.history_bytes = 77  # --history-bytes"), "{first}");
}

#[test]
fn secrets_are_never_shown() {
    let text = "[client.token]\nhmac_secret_key = \"hush-1\"\nhmac_previous_secret_key = \"hush-2\"\n[http_api]\nkey = \"hush-3\"\n";
    let file = file("secrets", text);
    for arguments in [&["--config", file.to_str().unwrap()][..], &["--json", "--config", file.to_str().unwrap()]] {
        let shown = shown(arguments, &[("THRONG_SUBSCRIPTION_TOKEN_SECRET", "hush-4")]);
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("THRONG_SUBSCRIPTION_TOKEN_SECRET") && shown.contains("secrets.toml:2"), "{shown}");
    }
    let shown = shown(&["--json"], &[("THRONG_SUBSCRIPTION_TOKEN_SECRET", "hush-4")]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["client.subscription_token.enabled"]["value"], true, "the short variable switches it on");
    assert_eq!(shown["client.subscription_token.hmac_secret_key"]["secret"], true);
    assert_eq!(shown["client.token.hmac_secret_key"]["value"], serde_json::Value::Null);
}

#[test]
fn a_check_says_every_fault_with_its_line() {
    let good = file("good", "[client]\nping_interval = \"11s\"\n");
    let output = throng(&["config", "check", good.to_str().unwrap()], &[]);
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));

    let output = throng(&["config", "check", "--config", good.to_str().unwrap()], &[]);
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()), "as for serve");
    let output = throng(&["config", "show", good.to_str().unwrap()], &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("client.ping_interval = \"11s\""), "as for check");
    let worse = file("worse", "[client]\nqueue_max_size = 5\nnonsense = 1\n");
    let said_of_worse = said(&throng(&["config", "check", worse.to_str().unwrap()], &[]));
    assert!(said_of_worse.contains(":3: ") && said_of_worse.contains("mend these first"), "{said_of_worse}");

    let late = file("late", "[client]\nping_interval = \"8s\"\n");
    let output = throng(&["config", "check", late.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(1), "as long as client.pong_timeout");
    assert!(said(&output).contains("`client.pong_timeout`") && said(&output).contains("client.ping_interval"));

    let text = "[client]\nallowed_origins = [\n  \"https://a.example\",\n  \"app.example\",\n]\nqueue_max_size = 5\n\
                connection_limit = 10\n[throng]\nmax_connections_per_address = 11\nhead_timeout = \"1ms\"\n\
                [client.subscribe_to_user_personal_channel]\nenabled = true\npersonal_channel_namespace = \"own\"\n\
                [[channel.namespaces]]\nname = \"news\"\nforce_recovery = true\n[[channel.namespaces]]\nname = \"x\"\n";
    let bad = file("bad", text);
    let name = bad.to_str().unwrap();
    for arguments in [&["config", "check", name][..], &["serve", "--config", name]] {
        let output = throng(arguments, &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        let faults = [
            ("4: `client.allowed_origins[1]`", "SCHEME://HOST"),
            ("6: `client.queue_max_size`", "at least"),
            ("9: `throng.max_connections_per_address`", "all together have 10"),
            ("10: `throng.head_timeout`", "from 0.1 s"),
            ("13: `client.subscribe_to_user_personal_channel.personal_channel_namespace`", "\"own\""),
            ("16: `channel.namespaces.news.force_recovery`", "history_ttl"),
            ("17: `channel.namespaces.x`", "two or more"),
        ];
        for ((place, what), line) in faults.iter().zip(said.lines()) {
            assert!(line.contains(&format!("{name}:{place}")) && line.contains(what), "{place} {what} in {said}");
        }
        assert_eq!(said.lines().count(), faults.len(), "{said}");
    }
}

#[test]
fn conflicts_name_the_flag_and_the_variable_that_they_come_from() {
    let output = throng(&["config", "show", "--max-message", "999999999999"], &[("THRONG_HEAD_TIMEOUT", "0")]);
    let said = said(&output);
    assert!(said.contains("--max-message: `websocket.message_size_limit`: the largest message cannot be"), "{said}");
    assert!(said.contains("THRONG_HEAD_TIMEOUT: `throng.head_timeout`"), "{said}");
}

#[test]
fn unknown_variables_are_errors_with_a_suggestion() {
    for (name, value, says) in [
        ("THRONG_MAX_TOPIC", "5", "did you mean THRONG_MAX_TOPICS?"),
        ("THRONG_CLIENT_PING_INTERVALL", "5s", "did you mean THRONG_CLIENT_PING_INTERVAL?"),
        ("THRONG_ALOWED", "5", "there is no such setting: `throng config default`"),
        ("THRONG_MAX_MEMORY", "8 gigs", "8589934592"),
        ("THRONG_ENGINE_TYPE", "redis", "topics live in the memory of one process"),
        ("THRONG_NONSENSE_OF_SOME_KIND", "5", "throng config default"),
        ("THRONG_WORKERS", "many", "`throng.workers` must be a number"),
        ("THRONG_API_KEY", "", "the secret is empty"),
        ("THRONG_CHANNEL_NAMESPACES", "rooms", "JSON array"),
        ("THRONG_CHANNEL_NAMESPACES", r#"[{"name": "rooms", "presense": true}]"#, "did you mean `presence`?"),
    ] {
        let output = throng(&["config", "show"], &[(name, value)]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{name}={value}");
        assert!(said.contains(&format!("{name}: ")) && said.contains(says), "{name}={value}: {said}");
    }
    let both = [("THRONG_API_KEY", "one"), ("THRONG_HTTP_API_KEY", "two")];
    assert!(said(&throng(&["config", "show"], &both)).contains("leave one of them out"));
}

/// Kubernetes makes these for each Service of a namespace, and nobody would think of them.
#[test]
fn variables_of_a_kubernetes_service_are_left_alone() {
    shown(
        &[],
        &[
            ("THRONG_SERVICE_HOST", "10.0.0.1"),
            ("THRONG_SERVICE_PORT", "8080"),
            ("THRONG_SERVICE_PORT_HTTP", "8080"),
            ("THRONG_PORT", "tcp://10.0.0.1:8080"),
            ("THRONG_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("THRONG_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("THRONG_PORT_8080_TCP_PROTO", "tcp"),
        ],
    );
}

/// What a variable says about channels closes what it does not say, as a `[channel]` table does.
#[test]
fn variables_about_channels_close_what_they_do_not_open() {
    let shown = shown(&[], &[("THRONG_CHANNEL_WITHOUT_NAMESPACE_PRESENCE", "true")]);
    assert!(shown.contains("\nchannel.without_namespace.presence = true  # THRONG_CHANNEL"), "{shown}");
    assert!(shown.contains("\nchannel.without_namespace.allow_subscribe_for_client = false  # default"), "{shown}");
}

#[test]
fn secrets_that_can_be_guessed_are_warned_of_and_no_error() {
    let text = |secret: &str, key: &str| {
        format!("[client.token]\nhmac_secret_key = \"{secret}\"\n[http_api]\nkey = \"{key}\"\n")
    };
    let (long, short) = (text(&"s".repeat(32), &"k".repeat(16)), text(&"s".repeat(31), &"k".repeat(15)));
    for (text, expected) in [(long, 0), (short, 2)] {
        let file = file("secrets", &text);
        let output = throng(&["config", "check", file.to_str().unwrap()], &[]);
        let out = String::from_utf8(output.stdout).unwrap();
        let warnings: Vec<_> = out.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!((output.status.code(), warnings.len()), (Some(0), expected), "{out}");
        for (warning, place) in
            warnings.iter().zip([":2: `client.token.hmac_secret_key`: 31", ":4: `http_api.key`: 15"])
        {
            assert!(warning.contains(place) && !out.contains("sss"), "{out}");
        }
        let server = Throng::start(&format!("--config {}", file.display()));
        assert_eq!(
            server.log().iter().filter(|line| line.contains("WARN") && line.contains("can be guessed")).count(),
            expected
        );
    }
}
