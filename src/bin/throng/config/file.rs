//! The configuration file: TOML, read against the tables of [`table`](super::table).

use super::elsewhere::{NOT_HERE, RULES_NOT_HERE};
use super::settings::Settings;
use super::table::{RULES, SETTINGS, Setting, WITHOUT_NAMESPACE};
use super::value::Given;
use super::{Loaded, Origin, Origins, namespace_path, unknown};
use throng::{RuleSet, TopicRules};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file being read.
struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    origins: &'a mut Origins,
    /// Each with its line.
    faults: Vec<(usize, String)>,
}

/// Where names are looked up: under what they stand in the file, and what Centrifugo has there besides.
struct Names<T: 'static> {
    table: &'static [Setting<T>],
    not_here: &'static [(&'static str, &'static str)],
    /// What stands before a name in [`Origins`].
    prefix: String,
}

/// Takes the settings of a file. What is wrong with it, line by line.
pub(super) fn apply(loaded: &mut Loaded, name: &str, text: &str) -> Vec<String> {
    let mut reader = Reader { name, text, origins: &mut loaded.origins, faults: Vec::new() };
    if text.trim_start().starts_with('{') {
        reader.fault(0, "this is JSON, not TOML: write it as TOML, where the names are the same");
        return reader.said();
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.fault(error.span().map_or(0, |span| span.start), error.message());
    }
    if reader.faults.is_empty() {
        reader.document(&mut loaded.settings, document.get_ref());
    }
    reader.said()
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].matches('\n').count() + 1
    }

    fn fault(&mut self, at: usize, what: impl std::fmt::Display) {
        let line = self.line(at);
        self.faults.push((line, format!("{}:{line}: {what}", self.name)));
    }

    /// What is wrong, as it stands in the file: tables come sorted by their names.
    fn said(mut self) -> Vec<String> {
        self.faults.sort_by_key(|(line, _)| *line);
        self.faults.into_iter().map(|(_, fault)| fault).collect()
    }

    fn document(&mut self, settings: &mut Settings, document: &DeTable<'_>) {
        let names = Names { table: SETTINGS, not_here: NOT_HERE, prefix: String::new() };
        // The defaults of a file with rules are Centrifugo's: what is not allowed is not.
        if document.contains_key("channel") {
            settings.server.topics = RuleSet::new();
        }
        for (name, value) in document {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("channel", DeValue::Table(channel)) => self.channel(settings, &names, channel),
                (path, _) => self.value(settings, &names, path, name.span().start, value),
            }
        }
    }

    fn channel(&mut self, settings: &mut Settings, names: &Names<Settings>, channel: &DeTable<'_>) {
        for (name, value) in channel {
            let at = name.span().start;
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("without_namespace", DeValue::Table(table)) => {
                    let prefix = WITHOUT_NAMESPACE.to_owned();
                    self.rules(&mut settings.server.topics.without_namespace, prefix, table, &[]);
                }
                ("namespaces", DeValue::Array(namespaces)) => {
                    for namespace in namespaces.iter() {
                        self.namespace(settings, namespace);
                    }
                }
                ("without_namespace", _) => self.fault(at, "`channel.without_namespace` must be a table"),
                ("namespaces", _) => self.fault(at, "`channel.namespaces` must be tables: [[channel.namespaces]]"),
                (name, _) => self.value(settings, names, &format!("channel.{name}"), at, value),
            }
        }
    }

    fn namespace(&mut self, settings: &mut Settings, namespace: &Spanned<DeValue<'_>>) {
        let at = namespace.span().start;
        let DeValue::Table(table) = namespace.get_ref() else {
            return self.fault(at, "a namespace must be a table: [[channel.namespaces]]");
        };
        let Some(name) = table.get("name").and_then(|name| name.get_ref().as_str()) else {
            return self.fault(at, "a namespace needs a `name`, which is a string");
        };
        let path = namespace_path(name);
        let mut rules = TopicRules::default();
        self.rules(&mut rules, format!("{path}."), table, &["name"]);
        if settings.server.topics.has_namespace(name) {
            return self.fault(at, format_args!("the namespace {name:?} is here twice"));
        }
        self.origins.insert(path, Origin::File(self.line(at)));
        let topics = std::mem::take(&mut settings.server.topics);
        settings.server.topics = topics.namespace(name, rules);
    }

    fn rules(&mut self, rules: &mut TopicRules, prefix: String, table: &DeTable<'_>, besides: &[&str]) {
        let names = Names { table: RULES, not_here: RULES_NOT_HERE, prefix };
        for (name, value) in table.iter().filter(|(name, _)| !besides.contains(&name.get_ref().as_ref())) {
            self.value(rules, &names, name.get_ref(), name.span().start, value);
        }
    }

    /// Takes a setting, or all those of a table.
    fn value<T>(&mut self, into: &mut T, names: &Names<T>, path: &str, at: usize, value: &Spanned<DeValue<'_>>) {
        if let Some(setting) = names.table.iter().find(|setting| setting.name == path) {
            match setting.set(into, &given(value.get_ref())) {
                Ok(()) => self.note(format!("{}{path}", names.prefix), at, value.get_ref()),
                Err(wanted) => self.fault(at, format_args!("`{path}` must be {wanted}")),
            }
            return;
        }
        let is_above = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        match value.get_ref() {
            DeValue::Table(table) if names.table.iter().any(|setting| is_above(setting.name)) => {
                for (name, value) in table {
                    let path = format!("{path}.{}", name.get_ref());
                    self.value(into, names, &path, name.span().start, value);
                }
            }
            _ if names.table.iter().any(|setting| is_above(setting.name)) => {
                self.fault(at, format_args!("`{path}` must be a table"));
            }
            _ => self.fault(at, unknown(names.table, names.not_here, path)),
        }
    }

    /// Remembers where a value stands, and each of a list's.
    fn note(&mut self, path: String, at: usize, value: &DeValue<'_>) {
        if let DeValue::Array(all) = value {
            for (index, one) in all.iter().enumerate() {
                self.origins.insert(format!("{path}[{index}]"), Origin::File(self.line(one.span().start)));
            }
        }
        self.origins.insert(path, Origin::File(self.line(at)));
    }
}

/// A value as settings take it.
fn given<'a>(value: &'a DeValue<'_>) -> Given<'a> {
    match value {
        DeValue::Boolean(on) => Given::Switch(*on),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).map_or(Given::Other, Given::Number)
        }
        DeValue::String(text) => Given::Text(text),
        DeValue::Array(all) => Given::List(all.iter().map(|one| given(one.get_ref())).collect()),
        _ => Given::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn read(text: &str) -> Result<Settings, String> {
        let mut loaded = Loaded::default();
        let faults = apply(&mut loaded, "f", text);
        if faults.is_empty() { Ok(loaded.settings) } else { Err(faults.join("\n")) }
    }

    #[test]
    fn a_file_of_centrifugos_is_taken() {
        let settings = read(
            r#"
            [http_server]
            port = 9000
            [client]
            allowed_origins = ["https://app.example.com"]
            ping_interval = "10s"
            [client.token]
            hmac_secret_key = "secret"
            [client.subscribe_to_user_personal_channel]
            enabled = true
            [channel.without_namespace]
            allow_subscribe_for_client = true
            [[channel.namespaces]]
            name = "chat"
            presence = true
            history_size = 100
            history_ttl = "5m"
            [http_api]
            key = "k"
            "#,
        )
        .unwrap();
        assert_eq!(settings.config().listen, [SocketAddr::from(([127, 0, 0, 1], 9000))]);
        assert_eq!((&*settings.tokens.secret, &*settings.api_key), (&b"secret"[..], &b"k"[..]));
        assert_eq!(settings.client_ping_interval, Duration::from_secs(10));
        let chat = TopicRules {
            presence: true,
            history_size: 100,
            history_ttl: Duration::from_secs(300),
            ..TopicRules::default()
        };
        let mut expected = RuleSet::new().namespace("chat", chat);
        expected.without_namespace.allow_subscribe.client = true;
        assert_eq!(settings.server.topics, expected);
        assert!(settings.has_personal_channel);
    }

    #[test]
    fn sizes_may_have_units() {
        let settings = read("[throng]\nmax_memory = \"8G\"\n[websocket]\nmessage_size_limit = \"128KiB\"").unwrap();
        assert_eq!((settings.memory_max, settings.server.message_bytes_max), (Some(8 << 30), 128 << 10));
    }

    #[test]
    fn what_is_nearly_right_is_said_with_what_is_right() {
        for (text, said) in [
            (
                "[throng]\nmax_connections = 5",
                "unknown setting `throng.max_connections`: it is `client.connection_limit`",
            ),
            ("[throng]\nhistory_size = 5", "it is `channel.without_namespace.history_size`"),
            (
                "[[channel.namespace]]\nname = \"news\"",
                "f:1: unknown table `channel.namespace`: did you mean `[[channel.namespaces]]`?",
            ),
            ("[channel.without_namespaces]\npresence = true", "did you mean `[channel.without_namespace]`?"),
            ("[clients]\nping_interval = \"25s\"", "f:1: unknown table `clients`: did you mean `[client]`?"),
            ("[server]\nport = 1", "f:1: unknown table `server`: did you mean `[http_server]`?"),
            ("[admin]\nport = 1", "the admin port is `throng.admin = \"127.0.0.1:8081\"`"),
            ("[http_server]\nport = \"18080\"", "f:2: `http_server.port` must be a number, without quotes"),
            ("[http_api]\ninsecure = \"true\"", "must be true or false, without quotes"),
            (
                "[throng]\nmax_memory = \"8 gigs\"",
                "must be bytes, such as 8589934592, or a string such as \"8G\" or \"64K\"",
            ),
        ] {
            let faults = read(text).unwrap_err();
            assert!(faults.contains(said), "{text}: {faults}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            ("x = 1", "f:1: unknown setting `x`: `throng config default` has them all"),
            (
                "\n[client]\nping_intervall = \"1s\"",
                "f:3: unknown setting `client.ping_intervall`: did you mean `client.ping_interval`?",
            ),
            (
                "presence = true\n[client]\nworkers = 1",
                "f:3: unknown setting `client.workers`: did you mean `throng.workers`?",
            ),
            (
                "[client]\nping_interval = 25",
                "f:2: `client.ping_interval` must be a duration in a string, such as \"25s\"",
            ),
            ("[client]\nping_interval = \"25\"", "must be a duration with its unit: did you mean \"25s\"?"),
            ("[client]\nping_interval = \"soon\"", "must be a duration, such as \"25s\", \"1h30m\" or \"500ms\""),
            (
                "[channel.without_namespace]\npresense = true",
                "f:2: unknown setting `presense`: did you mean `presence`?",
            ),
            (
                "[channel.without_namespace]\ndelta_publish = true",
                "throng has no `delta_publish` of Centrifugo's: there are no deltas",
            ),
            (
                "[[channel.namespaces]]\nname = \"a\"\n[[channel.namespaces]]\nname = \"a\"",
                "f:3: the namespace \"a\" is here twice",
            ),
            ("[[channel.namespaces]]\npresence = true", "f:1: a namespace needs a `name`"),
            (
                "[engine]\ntype = \"redis\"",
                "f:1: throng has no `engine` of Centrifugo's: topics live in the memory of one process",
            ),
            (
                "[http_server.tls]\nenabled = true",
                "f:1: throng has no `http_server.tls` of Centrifugo's: throng speaks no TLS yet",
            ),
            ("[client.token]\naudience_regex = \"x\"", "client.token.audience"),
            ("[http_server]\nport = 70000", "f:2: `http_server.port` must be smaller: 70000 is too large"),
            ("[http_server]\nport = -1", "f:2: `http_server.port` must be a number that is not negative"),
            ("client = 1", "f:1: `client` must be a table"),
            ("[channel]\nnamespaces = 1", "f:2: `channel.namespaces` must be tables"),
            ("[client\n", "f:1: "),
            ("[throng]\nlisten = [\"x\"]", "f:2: `throng.listen` must be an address and a port"),
            ("[http_api]\ninsecure = 1", "f:2: `http_api.insecure` must be true or false"),
        ] {
            let faults = read(text).unwrap_err();
            assert!(faults.contains(said), "{text}: {faults}");
        }
        let two = read("x = 1\ny = 2").unwrap_err();
        assert_eq!(two.lines().count(), 2, "everything at once: {two}");
        let upside_down = read("z = 1\ny = 1\n[client]\nx = 2").unwrap_err();
        let lines: Vec<_> = upside_down.lines().map(|line| &line[..4]).collect();
        assert_eq!(lines, ["f:1:", "f:2:", "f:4:"], "in their order");
    }
}
