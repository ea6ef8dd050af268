//! The command line's flags: those of [`table`](super::table), over everything else.

use super::environment::switch_on;
use super::settings::Settings;
use super::table::{Flag, RULES, SETTINGS, Setting, WITHOUT_NAMESPACE};
use super::value::Given;
use super::{Loaded, Origin};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::Path;
use throng::TopicRules;

/// What was given on the command line: which flag, and its values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, Vec<String>)>);

/// An argument for a setting. What it is given is tried out at once, so that the message is one of the command line's.
fn arg<T: Default + 'static>(setting: &'static Setting<T>, of: impl Fn(&mut Settings) -> &mut T) -> Option<Arg> {
    let flag = setting.flag?;
    let mut defaults = Settings::default();
    let value = (setting.value)(of(&mut defaults));
    let default = match setting.unset {
        Some((meaning, _)) => Some(meaning.to_owned()),
        None => value.show().filter(|_| !value.is_switch() && !value.is_list()),
    };
    let mut help = setting.doc.trim_end_matches('.').to_owned();
    if setting.alias.is_some() {
        help = format!("File with: {}", help.replacen(|c: char| c.is_ascii_uppercase(), &help[..1].to_lowercase(), 1));
    }
    match (setting.alias, default) {
        (Some(variable), _) => help += &format!(" [default: the environment's {variable}, if any]"),
        (None, Some(default)) => help += &format!(" [default: {}]", default.trim_matches('"')),
        (None, None) => {}
    }
    let arg = Arg::new(flag.name).long(flag.name).help(help);
    if flag.value.is_empty() {
        return Some(arg.action(ArgAction::SetTrue));
    }
    let action = if value.is_list() { ArgAction::Append } else { ArgAction::Set };
    let parse = move |text: &str| -> Result<String, String> {
        if !flag.is_file {
            setting.set(&mut T::default(), &Given::Raw(text)).map_err(|wanted| format!("it must be {wanted}"))?;
        }
        Ok(text.to_owned())
    };
    Some(arg.value_name(flag.value).action(action).value_parser(parse))
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let settings = SETTINGS.iter().filter_map(|setting| arg(setting, |all| all));
        let rules = RULES.iter().filter_map(|rule| arg(rule, |all| &mut all.server.topics.without_namespace));
        command.args(settings).args(rules)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let all = SETTINGS.iter().filter_map(|setting| setting.flag).chain(RULES.iter().filter_map(|rule| rule.flag));
        for flag in all {
            if flag.value.is_empty() {
                if matches.get_flag(flag.name) {
                    self.0.push((flag.name, vec!["true".to_owned()]));
                }
            } else if let Some(values) = matches.get_many::<String>(flag.name) {
                self.0.push((flag.name, values.cloned().collect()));
            }
        }
        Ok(())
    }
}

impl Flags {
    /// Takes the settings of the command line. What is wrong with them, flag by flag.
    pub(super) fn apply(&self, loaded: &mut Loaded) -> Vec<String> {
        let mut faults = Vec::new();
        let is = |flag: Option<Flag>, name: &str| flag.is_some_and(|flag| flag.name == name);
        for (name, values) in &self.0 {
            let origin = Origin::Flag(name);
            let done = if let Some(setting) = SETTINGS.iter().find(|setting| is(setting.flag, name)) {
                loaded.set_by(setting.name.to_owned(), origin.clone());
                switch_on(loaded, setting.switches_on, &origin);
                take(setting, &mut loaded.settings, values)
            } else if let Some(rule) = RULES.iter().find(|rule| is(rule.flag, name)) {
                loaded.set_by(format!("{WITHOUT_NAMESPACE}{}", rule.name), origin.clone());
                switch_on(loaded, rule.switches_on, &origin);
                take::<TopicRules>(rule, &mut loaded.settings.server.topics.without_namespace, values)
            } else {
                Ok(())
            };
            faults.extend(done.err().map(|what| format!("--{name}: {what}")));
        }
        faults
    }
}

fn take<T>(setting: &Setting<T>, into: &mut T, values: &[String]) -> Result<(), String> {
    let must = |wanted| format!("`{}` must be {wanted}", setting.name);
    let [value] = values else {
        let all = values.iter().map(|value| Given::Raw(value)).collect();
        return setting.set(into, &Given::List(all)).map_err(must);
    };
    if !setting.flag.is_some_and(|flag| flag.is_file) {
        return setting.set(into, &Given::Raw(value)).map_err(must);
    }
    let secret = std::fs::read(Path::new(value)).map_err(|error| format!("{value}: {error}"))?;
    setting.set(into, &Given::Bytes(&secret)).map_err(|wanted| format!("{value}: `{}` must be {wanted}", setting.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;
    use throng::Config;

    #[test]
    fn the_help_says_what_the_library_has_by_default() {
        let command = Flags::augment_args(Command::new("serve"));
        let defaults: Vec<_> = (command.get_arguments())
            .filter_map(|arg| {
                let help = arg.get_help()?.to_string();
                Some((arg.get_id().to_string(), help.split_once("[default: ")?.1.strip_suffix(']')?.to_owned()))
            })
            .collect();
        let default = |id: &str| defaults.iter().find(|(arg, _)| arg == id).map_or("", |(_, default)| default);
        let Config { ping_interval, message_bytes_max, topics_max, .. } = Config::default();
        assert_eq!(default("ping-interval"), format!("{}s", ping_interval.as_secs()));
        assert_eq!(default("max-message"), message_bytes_max.to_string());
        assert_eq!(default("max-topics"), topics_max.to_string());
        assert!(default("listen").starts_with("127.0.0.1:8080"));
        assert_eq!((default("slow"), default("log-level")), ("disconnect", "info"));
        assert_eq!((default("history-ttl"), default("history-size")), ("10m", "1000"));
        assert!(defaults.iter().all(|(_, default)| !default.is_empty()), "{defaults:?}");
    }
}
