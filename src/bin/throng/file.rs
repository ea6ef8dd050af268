//! The configuration file: TOML, read against the tables of [`settings`](crate::settings).

use crate::settings::{Entry, NOT_HERE, RULES, RULES_NOT_HERE, SETTINGS, Set, Settings};
use std::fmt::Write;
use std::time::Duration;
use throng::{RuleSet, TopicRules};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file being read.
struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    /// A line each.
    faults: String,
}

/// Takes the settings of a file, or says everything that is wrong with it, line by line.
pub(crate) fn apply(settings: &mut Settings, name: &str, text: &str) -> Result<(), String> {
    let mut reader = Reader { name, text, faults: String::new() };
    if text.trim_start().starts_with('{') {
        reader.fault(0, "this is JSON, not TOML: write it as TOML, where the names are the same");
        return Err(reader.faults.trim_end().to_owned());
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.fault(error.span().map_or(0, |span| span.start), error.message());
    }
    if reader.faults.is_empty() {
        reader.document(settings, document.get_ref());
    }
    if reader.faults.is_empty() { Ok(()) } else { Err(reader.faults.trim_end().to_owned()) }
}

impl Reader<'_> {
    fn fault(&mut self, at: usize, what: impl std::fmt::Display) {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        let _ = writeln!(self.faults, "{}:{line}: {what}", self.name);
    }

    fn document(&mut self, settings: &mut Settings, document: &DeTable<'_>) {
        // The defaults of a file with rules are Centrifugo's: what is not allowed is not.
        if document.contains_key("channel") {
            settings.server.topics = RuleSet::new();
        }
        for (name, value) in document {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("channel", DeValue::Table(channel)) => self.channel(settings, channel),
                (path, _) => self.value(settings, SETTINGS, NOT_HERE, path, name.span().start, value),
            }
        }
    }

    fn channel(&mut self, settings: &mut Settings, channel: &DeTable<'_>) {
        for (name, value) in channel {
            let at = name.span().start;
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("without_namespace", DeValue::Table(table)) => {
                    self.rules(&mut settings.server.topics.without_namespace, table, &[]);
                }
                ("namespaces", DeValue::Array(namespaces)) => {
                    for namespace in namespaces.iter() {
                        self.namespace(settings, namespace);
                    }
                }
                ("without_namespace", _) => self.fault(at, "`channel.without_namespace` must be a table"),
                ("namespaces", _) => self.fault(at, "`channel.namespaces` must be tables: [[channel.namespaces]]"),
                (name, _) => self.value(settings, SETTINGS, NOT_HERE, &format!("channel.{name}"), at, value),
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
        let mut rules = TopicRules::default();
        self.rules(&mut rules, table, &["name"]);
        if settings.server.topics.has_namespace(name) {
            return self.fault(at, format_args!("the namespace {name:?} is here twice"));
        }
        let topics = std::mem::take(&mut settings.server.topics);
        settings.server.topics = topics.namespace(name, rules);
    }

    fn rules(&mut self, rules: &mut TopicRules, table: &DeTable<'_>, besides: &[&str]) {
        for (name, value) in table.iter().filter(|(name, _)| !besides.contains(&name.get_ref().as_ref())) {
            self.value(rules, RULES, RULES_NOT_HERE, name.get_ref(), name.span().start, value);
        }
    }

    /// Takes a setting, or all those of a table.
    fn value<T>(
        &mut self,
        into: &mut T,
        entries: &[Entry<T>],
        not_here: &[(&str, &str)],
        path: &str,
        at: usize,
        value: &Spanned<DeValue<'_>>,
    ) {
        if let Some((_, set)) = entries.iter().find(|(name, _)| *name == path) {
            if let Err(wanted) = take(into, set, value.get_ref()) {
                self.fault(at, format_args!("`{path}` must be {wanted}"));
            }
            return;
        }
        let is_above = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        match value.get_ref() {
            DeValue::Table(table) if entries.iter().any(|(name, _)| is_above(name)) => {
                for (name, value) in table {
                    let path = format!("{path}.{}", name.get_ref());
                    self.value(into, entries, not_here, &path, name.span().start, value);
                }
            }
            _ if entries.iter().any(|(name, _)| is_above(name)) => {
                self.fault(at, format_args!("`{path}` must be a table"));
            }
            _ => match not_here.iter().find(|(start, _)| path.starts_with(start)) {
                // A slip of the pen is likelier than a setting of Centrifugo's, where both could be.
                Some((_, instead)) if nearest(entries, path, 1).is_none() => {
                    self.fault(at, format_args!("throng has no `{path}` of Centrifugo's: {instead}"));
                }
                _ => match nearest(entries, path, 4) {
                    Some(name) => self.fault(at, format_args!("unknown setting `{path}`: did you mean `{name}`?")),
                    None => self.fault(at, format_args!("unknown setting `{path}`: see docs/centrifugo.md for all")),
                },
            },
        }
    }
}

/// Sets a value. What it must be, if it is not.
fn take<T>(into: &mut T, set: &Set<T>, value: &DeValue<'_>) -> Result<(), String> {
    match (set, value) {
        (Set::Switch(set), DeValue::Boolean(on)) => set(into, *on),
        (Set::Switch(_), _) => return Err("true or false".to_owned()),
        (Set::Number(set), DeValue::Integer(number)) => {
            let number = u64::from_str_radix(number.as_str(), number.radix());
            set(into, number.map_err(|_| "a number that is not negative".to_owned())?)
                .map_err(|why| format!("smaller: {why}"))?;
        }
        (Set::Number(_), _) => return Err("a number".to_owned()),
        (Set::Duration(set), DeValue::String(text)) => {
            set(into, duration(text).ok_or("a duration, such as \"25s\", \"1h30m\" or \"500ms\"")?);
        }
        (Set::Duration(_), _) => return Err("a duration in a string, such as \"25s\"".to_owned()),
        (Set::Text(set), DeValue::String(text)) => set(into, text)?,
        (Set::Word(word), DeValue::String(text)) => *word(into) = text.clone().into_owned(),
        (Set::Secret(secret), DeValue::String(text)) => *secret(into) = text.as_bytes().to_vec(),
        (Set::Text(_) | Set::Word(_) | Set::Secret(_), _) => return Err("a string".to_owned()),
        (Set::Texts(set), DeValue::Array(texts)) => {
            for text in texts.iter() {
                set(into, text.get_ref().as_str().ok_or("a list of strings")?)?;
            }
        }
        (Set::Texts(_), _) => return Err("a list of strings".to_owned()),
    }
    Ok(())
}

/// A duration as Go writes them: numbers, perhaps with a fraction, and their units.
fn duration(mut text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = 0.0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        text = rest;
    }
    Duration::try_from_secs_f64(sum).ok()
}

/// The name that differs least, in at most so many letters.
fn nearest<T>(entries: &[Entry<T>], path: &str, most: usize) -> Option<&'static str> {
    let by_last = |name: &str| name.rsplit('.').next() == path.rsplit('.').next();
    (entries.iter().map(|(name, _)| (distance(name, path), *name)).min().filter(|(distance, _)| *distance <= most))
        .map(|(_, name)| name)
        .or_else(|| entries.iter().map(|(name, _)| *name).find(|name| most > 1 && by_last(name)))
}

/// How many letters have to be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        apply(&mut settings, "f", text).map(|()| settings)
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, seconds) in [
            ("25s", 25.0),
            ("1h30m", 5400.0),
            ("500ms", 0.5),
            ("1.5h", 5400.0),
            ("0", 0.0),
            ("0s", 0.0),
            ("1m0.5s", 60.5),
        ] {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "25", "s", "1d", "-1s", "1 s", "1s1", "1..5s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
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
        assert_eq!(settings.config().listen, ["127.0.0.1:9000".parse().unwrap()]);
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
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            ("x = 1", "f:1: unknown setting `x`: see docs/centrifugo.md for all"),
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
            ("[client]\nping_interval = \"25\"", "must be a duration, such as \"25s\", \"1h30m\" or \"500ms\""),
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
            ("[client.token]\nrsa_public_key = \"x\"", "HS256"),
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
    }
}
