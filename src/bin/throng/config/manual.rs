//! `throng.toml`: every setting, explained and commented out.

use super::settings::Settings;
use super::table::{RULES, SETTINGS, Setting, WITHOUT_NAMESPACE};
use std::fmt::Write;
use throng::TopicRules;

const LINE: usize = 100;

const HEAD: &str = "\
# The configuration of throng: every setting, with its default.
#
#   throng serve --config throng.toml     run with it; SIGHUP reads it again
#   throng config check throng.toml       say what is wrong with it
#   throng config show --config FILE      print what would hold, and where each value comes from
#
# Each line is its setting's whole name, so that any of them can be uncommented by itself; the tables of TOML do as well
# ([client], and ping_interval below it). What an environment variable says counts more than this file, and what a flag says
# counts most. The names are those of Centrifugo 6 where it has the same setting; what stands under `throng` is throng's own.
#
# Durations are numbers with units (ns, us, ms, s, m, h): \"500ms\", \"25s\", \"1h30m\"; for a flag or in the environment a number
# alone is seconds. Sizes are bytes, or \"64K\", \"1M\", \"8G\" (of 1,024). Memory is said where a setting costs any, or bounds it.
#
# In front of each stand its default, its environment variable, and its flag if it has one. Those with `Restart` are taken at
# a start alone; all others as soon as the file is read again, for new and old connections alike.
";

const CHANNELS: &str = "\
# Channels. As soon as anything stands under `channel`, in here or in the environment, nothing is allowed that is not said, as
# with Centrifugo. Without it clients may do everything but publish, whoever reaches the server may POST, and channels
# keep 1,000 messages, 1 MiB and 10 minutes at most: meant for loopback.
";

const NAMESPACES: &str = "\
# A table like this for each namespace, with the same rules as in channel.without_namespace: what holds for the channels whose
# names start with NAME and the boundary. THRONG_CHANNEL_NAMESPACES has all of them as JSON: [{\"name\": \"rooms\"}].
#
# [[channel.namespaces]]
# name = \"rooms\"
# history_size = 100
# history_ttl = \"5m\"
# force_recovery = true
# allow_subscribe_for_client = true
# allow_publish_for_subscriber = true
";

/// The file.
pub(super) fn manual() -> String {
    let mut text = HEAD.to_owned();
    let mut table = "";
    let mut settings = Settings::default();
    for setting in SETTINGS {
        let top = setting.name.split('.').next().unwrap_or_default();
        if top != table {
            table = top;
            let _ = writeln!(text, "\n# {} {top} {0}", "-".repeat(8));
            if top == "channel" {
                let _ = write!(text, "\n{CHANNELS}");
            }
        }
        explain(&mut text, setting, "", &mut settings);
        if setting.name == "channel.user_separator" {
            let mut rules = TopicRules::default();
            RULES.iter().for_each(|rule| explain(&mut text, rule, WITHOUT_NAMESPACE, &mut rules));
            let _ = write!(text, "\n{NAMESPACES}");
        }
    }
    text
}

fn explain<T>(text: &mut String, setting: &Setting<T>, prefix: &str, defaults: &mut T) {
    let value = (setting.value)(defaults);
    let (default, example) = match (setting.unset, value.show()) {
        (Some((meaning, example)), _) => (meaning.to_owned(), example.to_owned()),
        (None, Some(value)) => (value.clone(), value),
        (None, None) => ("none".to_owned(), "\"\"".to_owned()),
    };
    text.push('\n');
    wrap(text, setting.doc);
    let mut line = format!("Default: {default}. {}", setting.variable(prefix));
    if let Some(alias) = setting.alias {
        let _ = write!(line, " or {alias}");
    }
    if let Some(flag) = setting.flag {
        let _ = write!(line, ", --{}", flag.name);
        if flag.is_file {
            let _ = write!(line, " {}", flag.value);
        }
    }
    if !setting.is_live {
        line += ". Restart";
    }
    wrap(text, &line);
    let _ = writeln!(text, "# {prefix}{} = {example}", setting.name);
}

/// A comment, a line for each so many letters.
fn wrap(text: &mut String, comment: &str) {
    let mut line = String::from("#");
    for word in comment.split(' ') {
        if line.len() + 1 + word.len() > LINE {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, file};
    use super::*;
    use std::collections::BTreeMap;

    const COMMITTED: &str = include_str!("../../../../throng.toml");

    /// The lines that are settings, without what comments them out.
    fn settings(text: &str) -> Vec<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# "));
        lines.filter(|line| line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '))).collect()
    }

    fn read(text: &str) -> Result<Loaded, Vec<String>> {
        let mut loaded = Loaded::default();
        let faults = file::apply(&mut loaded, "f", text);
        if faults.is_empty() { Ok(loaded) } else { Err(faults) }
    }

    #[test]
    fn the_committed_file_is_what_the_table_makes() {
        assert!(COMMITTED == manual(), "it is not: throng config default > throng.toml");
    }

    #[test]
    fn as_it_stands_it_sets_nothing() {
        let loaded = read(COMMITTED).unwrap();
        assert!(loaded.origins.is_empty());
        assert!(loaded.settings.server.topics.is_open());
    }

    #[test]
    fn each_line_can_be_uncommented_by_itself_and_all_at_once() {
        let (rules, namespaces) = COMMITTED.split_once("# [[channel.namespaces]]").unwrap();
        let (namespace, rest) = namespaces.split_once("\n\n").unwrap();
        let lines: Vec<_> = settings(rules).into_iter().chain(settings(rest)).collect();
        assert_eq!(lines.len(), SETTINGS.len() + RULES.len());
        for line in &lines {
            let loaded = read(line).unwrap_or_else(|faults| panic!("{line}: {faults:?}"));
            let name = line.split_once(" = ").unwrap().0;
            assert!(loaded.origins.contains_key(name), "{line}");
        }
        let all = format!("{}\n[[channel.namespaces]]\n{}", lines.join("\n"), settings(namespace).join("\n"));
        let loaded = read(&all).unwrap();
        assert!(loaded.settings.server.topics.has_namespace("rooms"));
        // The same in tables.
        let mut tables = BTreeMap::<_, String>::new();
        for line in &lines {
            let (table, line) = line
                .split_once(" = ")
                .unwrap()
                .0
                .rsplit_once('.')
                .map(|(table, _)| line.split_at(table.len()))
                .unwrap();
            let _ = writeln!(tables.entry(table).or_default(), "{}", &line[1..]);
        }
        let text: String = tables.iter().map(|(table, lines)| format!("[{table}]\n{lines}")).collect();
        let (by_tables, by_names) = (read(&text).unwrap(), read(&lines.join("\n")).unwrap());
        assert!(by_tables.origins.keys().eq(by_names.origins.keys()));
    }

    /// Where a default is shown as a value, uncommenting the line changes nothing.
    #[test]
    fn the_defaults_that_are_shown_are_those_that_hold() {
        for setting in
            SETTINGS.iter().filter(|setting| setting.unset.is_none() && !setting.name.starts_with("channel."))
        {
            let line =
                settings(COMMITTED).into_iter().find(|line| line.split(" = ").next() == Some(setting.name)).unwrap();
            let (mut read, mut defaults) = (read(line).unwrap().settings, Settings::default());
            assert_eq!((setting.value)(&mut read).show(), (setting.value)(&mut defaults).show(), "{line}");
        }
    }

    #[test]
    fn every_setting_is_explained() {
        for (name, doc) in SETTINGS.iter().map(|s| (s.name, s.doc)).chain(RULES.iter().map(|r| (r.name, r.doc))) {
            assert!(doc.ends_with('.') && doc.contains(' '), "{name}: {doc}");
        }
    }
}
