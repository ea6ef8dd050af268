//! `throng config show`: what holds, and who said so.

use super::settings::Settings;
use super::table::{RULES, SETTINGS, Setting, WITHOUT_NAMESPACE};
use super::{Loaded, Origin, namespace_path};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;
use throng::TopicRules;

/// A setting as it is shown.
#[derive(Clone)]
pub(super) struct Shown {
    /// Its full name.
    pub(super) name: String,
    /// As a file has it; `Err`: what holds where nothing is set, in words.
    value: Result<String, &'static str>,
    is_secret: bool,
    /// What differs where the value does. Not to be shown.
    pub(super) compared: Option<String>,
    /// Whether a reload takes it.
    pub(super) is_live: bool,
}

impl Shown {
    /// For a line that says what has changed.
    pub(super) fn said(&self) -> &str {
        match &self.value {
            Ok(_) if self.is_secret => "(hidden)",
            Ok(value) => value,
            Err(meaning) => meaning,
        }
    }
}

fn shown<T>(setting: &Setting<T>, prefix: &str, of: &mut T) -> Shown {
    let value = (setting.value)(of);
    let unset = setting.unset.map_or("none", |(meaning, _)| meaning);
    Shown {
        name: format!("{prefix}{}", setting.name),
        value: value.show().ok_or(unset),
        is_secret: value.is_secret(),
        compared: value.compared(),
        is_live: setting.is_live,
    }
}

fn rules<'a>(prefix: &'a str, rules: &TopicRules) -> impl Iterator<Item = Shown> + use<'a> {
    let mut rules = rules.clone();
    RULES.iter().map(move |rule| shown(rule, prefix, &mut rules))
}

/// What comes before the namespaces.
fn all(settings: &Settings) -> Vec<Shown> {
    let mut settings = settings.clone();
    let mut all: Vec<_> = SETTINGS.iter().map(|setting| shown(setting, "", &mut settings)).collect();
    all.extend(rules(WITHOUT_NAMESPACE, &settings.server.topics.without_namespace));
    all
}

/// Everything, with the rules of all namespaces.
pub(super) fn everything(settings: &Settings) -> Vec<Shown> {
    let namespaces = settings
        .server
        .topics
        .namespaces()
        .flat_map(|(name, namespace)| rules(&format!("{}.", namespace_path(name)), namespace).collect::<Vec<_>>());
    all(settings).into_iter().chain(namespaces).collect()
}

impl Loaded {
    fn whence(&self, name: &str) -> String {
        match self.origins.get(name) {
            None => "default".to_owned(),
            Some(Origin::File(line)) => {
                format!("{}:{line}", self.file.as_ref().map_or_else(String::new, |file| file.display().to_string()))
            }
            Some(Origin::Variable(name)) => name.clone(),
            Some(Origin::Flag(name)) => format!("--{name}"),
        }
    }

    fn write(&self, text: &mut String, shown: &Shown, name: &str) {
        let origin = self.whence(&shown.name);
        let _ = match &shown.value {
            Ok(_) if shown.is_secret => writeln!(text, "# {name} is set, and not shown  # {origin}"),
            Ok(value) => writeln!(text, "{name} = {value}  # {origin}"),
            Err(meaning) => writeln!(text, "# {name}: {meaning}  # {origin}"),
        };
    }
}

/// A line each: a file that could be used, but for the secrets.
pub(super) fn text(loaded: &Loaded) -> String {
    let mut text = String::new();
    let topics = &loaded.settings.server.topics;
    let is_open = topics.is_open();
    for shown in all(&loaded.settings) {
        // In a file these would close what is open.
        let name = if is_open && shown.name.starts_with("channel.") {
            format!("# {}", shown.name)
        } else {
            shown.name.clone()
        };
        loaded.write(&mut text, &shown, &name);
    }
    for (name, namespace) in topics.namespaces() {
        let path = namespace_path(name);
        let _ = writeln!(text, "\n[[channel.namespaces]]\nname = {name:?}  # {}", loaded.whence(&path));
        let prefix = format!("{path}.");
        for shown in rules(&prefix, namespace) {
            loaded.write(&mut text, &shown, &shown.name[prefix.len()..]);
        }
    }
    text
}

/// An object by the settings' full names.
pub(super) fn json(loaded: &Loaded) -> String {
    let mut object = Map::new();
    for Shown { name, value, is_secret, .. } in everything(&loaded.settings) {
        let origin = loaded.whence(&name);
        let shown = match value {
            Ok(_) if is_secret => json!({ "secret": true, "origin": origin }),
            // What TOML writes for these values is JSON.
            Ok(value) => match serde_json::from_str::<Json>(&value) {
                Ok(value) => json!({ "value": value, "origin": origin }),
                Err(_) => json!({ "value": value, "origin": origin }),
            },
            Err(meaning) => json!({ "value": null, "meaning": meaning, "origin": origin }),
        };
        object.insert(name, shown);
    }
    serde_json::to_string_pretty(&Json::Object(object)).map(|text| text + "\n").unwrap_or_default()
}
