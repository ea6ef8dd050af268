//! `THRONG_*` environment variables: one for each setting, over the file and under the flags.

use super::elsewhere::{NOT_HERE, RULES_NOT_HERE};
use super::table::{RULES, SETTINGS, Setting, WITHOUT_NAMESPACE, variable};
use super::value::Given;
use super::{Loaded, Origin, Variables, namespace_path, nearest, slips, unknown};
use serde_json::Value as Json;
use throng::{RuleSet, TopicRules};

/// Names the file.
pub(super) const FILE: &str = "THRONG_CONFIG";

/// The namespaces, as a JSON array of objects.
const NAMESPACES: &str = "THRONG_CHANNEL_NAMESPACES";

/// What this project's own tests and benchmarks are told by, and hand on to the server that they start.
const OTHERS: [&str; 6] =
    ["THRONG_BIN", "THRONG_CHROMIUM", "THRONG_FLAGS", "THRONG_NODE_ENV", "THRONG_SEEDS", "THRONG_TEST_SEED"];

/// Takes the settings of the environment. What is wrong with it, variable by variable.
pub(super) fn apply(loaded: &mut Loaded, variables: &Variables) -> Vec<String> {
    let mut faults = Vec::new();
    let is_ours = |name: &str, value: &str| name != FILE && !OTHERS.contains(&name) && !is_of_kubernetes(name, value);
    let ours: Vec<_> = variables.iter().filter(|(name, value)| is_ours(name, value)).collect();
    // As a `[channel]` table in a file: the defaults are Centrifugo's then, and what is not allowed is not.
    if ours.iter().any(|(name, _)| name.starts_with("THRONG_CHANNEL_")) && loaded.settings.server.topics.is_open() {
        loaded.settings.server.topics = RuleSet::new();
    }
    for (name, value) in &ours {
        let outcome = if name == NAMESPACES { namespaces(loaded, value) } else { one(loaded, name, value) };
        faults.extend(outcome.err().into_iter().flatten().map(|what| format!("{name}: {what}")));
    }
    for setting in SETTINGS {
        let Some(alias) = setting.alias else { continue };
        let full = setting.variable("");
        if ours.iter().any(|(name, _)| name == alias) && ours.iter().any(|(name, _)| *name == full) {
            faults.push(format!("{alias}: {full} says the same: leave one of them out"));
        }
    }
    faults
}

/// What Kubernetes puts into each container beside a Service of the name `throng`, unless `enableServiceLinks` is off.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_port = |name: &str| {
        name.contains("_PORT_") && ["_PORT", "_PROTO", "_ADDR", "_TCP", "_UDP"].iter().any(|end| name.ends_with(end))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || is_port(name)
        || value.starts_with("tcp://")
        || value.starts_with("udp://")
}

/// Takes one variable.
fn one(loaded: &mut Loaded, name: &str, value: &str) -> Result<(), Vec<String>> {
    let is = |of: &dyn Fn() -> String, alias: Option<&str>| of() == name || alias == Some(name);
    let given = Given::Raw(value);
    if let Some(setting) = SETTINGS.iter().find(|setting| is(&|| setting.variable(""), setting.alias)) {
        set(setting, &mut loaded.settings, &given)?;
        loaded.set_by(setting.name.to_owned(), Origin::Variable(name.to_owned()));
        if setting.alias == Some(name) {
            switch_on(loaded, setting.switches_on, &Origin::Variable(name.to_owned()));
        }
        return Ok(());
    }
    if let Some(rule) = RULES.iter().find(|rule| is(&|| rule.variable(WITHOUT_NAMESPACE), rule.alias)) {
        set(rule, &mut loaded.settings.server.topics.without_namespace, &given)?;
        loaded.set_by(format!("{WITHOUT_NAMESPACE}{}", rule.name), Origin::Variable(name.to_owned()));
        return Ok(());
    }
    Err(vec![unknown_variable(name)])
}

fn set<T>(setting: &Setting<T>, into: &mut T, given: &Given<'_>) -> Result<(), Vec<String>> {
    setting.set(into, given).map_err(|wanted| vec![format!("`{}` must be {wanted}", setting.name)])
}

/// What comes with a flag, or with a variable that is short.
pub(super) fn switch_on(loaded: &mut Loaded, name: Option<&'static str>, origin: &Origin) {
    let Some(name) = name else { return };
    let on = &Given::Switch(true);
    let rule = |rule: &&Setting<TopicRules>| name.strip_prefix(WITHOUT_NAMESPACE) == Some(rule.name);
    let done = match (SETTINGS.iter().find(|setting| setting.name == name), RULES.iter().find(rule)) {
        (Some(setting), _) => setting.set(&mut loaded.settings, on),
        (None, Some(rule)) => rule.set(&mut loaded.settings.server.topics.without_namespace, on),
        (None, None) => Err(format!("no setting is called {name}")),
    };
    debug_assert_eq!(done, Ok(()));
    loaded.set_by(name.to_owned(), origin.clone());
}

/// What is said of a variable that is none.
fn unknown_variable(name: &str) -> String {
    let names = SETTINGS.iter().map(|setting| setting.variable(""));
    let aliases = SETTINGS.iter().filter_map(|setting| setting.alias.map(ToOwned::to_owned));
    let rules = RULES.iter().map(|rule| rule.variable(WITHOUT_NAMESPACE));
    let all = names.chain(aliases).chain(rules).chain([FILE.to_owned(), NAMESPACES.to_owned()]);
    let is_start = |start: &str| name.starts_with(&variable(start));
    let most = slips(name.strip_prefix("THRONG_").unwrap_or(name));
    if let Some(known) = nearest(all, name, most) {
        return format!("there is no such setting: did you mean {known}?");
    }
    match NOT_HERE.iter().find(|(start, _)| is_start(start)) {
        Some((_, instead)) => format!("throng has no such setting of Centrifugo's: {instead}"),
        None => "there is no such setting: `throng config default` has them all, with their variables".to_owned(),
    }
}

/// `[{"name": "rooms", "presence": true}]`, in place of all namespaces of the file.
fn namespaces(loaded: &mut Loaded, text: &str) -> Result<(), Vec<String>> {
    let wanted = || {
        vec!["namespaces are a JSON array of objects, such as [{\"name\": \"rooms\", \"presence\": true}]".to_owned()]
    };
    let all: Vec<serde_json::Map<String, Json>> = serde_json::from_str(text).map_err(|_| wanted())?;
    let mut faults = Vec::new();
    let before = std::mem::replace(&mut loaded.settings.server.topics, RuleSet::new());
    let mut topics = before.without_namespaces();
    loaded.origins.retain(|name, _| !name.starts_with(&namespace_path("")));
    for namespace in &all {
        let Some(name) = namespace.get("name").and_then(Json::as_str) else {
            faults.push("a namespace needs a `name`, which is a string".to_owned());
            continue;
        };
        let mut rules = TopicRules::default();
        for (rule, value) in namespace.iter().filter(|(rule, _)| *rule != "name") {
            match RULES.iter().find(|known| known.name == rule) {
                None => faults.push(unknown(RULES, RULES_NOT_HERE, rule)),
                Some(known) => match known.set(&mut rules, &given(value)) {
                    Ok(()) => loaded
                        .set_by(format!("{}.{rule}", namespace_path(name)), Origin::Variable(NAMESPACES.to_owned())),
                    Err(wanted) => faults.push(format!("`{rule}` of the namespace {name:?} must be {wanted}")),
                },
            }
        }
        if topics.has_namespace(name) {
            faults.push(format!("the namespace {name:?} is here twice"));
        }
        loaded.set_by(namespace_path(name), Origin::Variable(NAMESPACES.to_owned()));
        topics = topics.namespace(name, rules);
    }
    loaded.settings.server.topics = topics;
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn given(value: &Json) -> Given<'_> {
    match value {
        Json::Bool(on) => Given::Switch(*on),
        Json::Number(number) => number.as_i128().map_or(Given::Other, Given::Number),
        Json::String(text) => Given::Text(text),
        Json::Array(all) => Given::List(all.iter().map(given).collect()),
        _ => Given::Other,
    }
}
