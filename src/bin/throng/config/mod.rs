//! What the server is told, and by whom: defaults, a file over them, the environment over that, flags over all.

mod change;
pub(crate) mod command;
mod elsewhere;
mod environment;
mod file;
pub(crate) mod flags;
mod manual;
pub(crate) mod settings;
mod show;
pub(crate) mod table;
pub(crate) mod value;

pub(crate) use change::{Change, Snapshot};
pub(crate) use flags::Flags;
pub(crate) use settings::Settings;
pub(crate) use table::setting_of;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use table::{RULES, SETTINGS, Setting, WITHOUT_NAMESPACE};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This line of the file.
    File(usize),
    /// This environment variable.
    Variable(String),
    /// `--flag`.
    Flag(&'static str),
}

impl Origin {
    /// Whose word counts more.
    fn weight(&self) -> u8 {
        match self {
            Self::File(_) => 1,
            Self::Variable(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

/// By the setting's full name: `client.ping_interval`, `channel.namespaces.NAME.presence`; `client.allowed_origins[0]`
/// for one of a list in a file, `channel.namespaces.NAME` for where a namespace begins. What has none is a default.
pub(crate) type Origins = BTreeMap<String, Origin>;

/// The settings, and where they come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) origins: Origins,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
}

/// A setting that cannot be, or not beside the others.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Its full name.
    pub(crate) setting: String,
    pub(crate) what: String,
}

/// All that is wrong, a line each; and whether that is all: what is wrong by itself hides what cannot be together.
#[derive(Debug)]
pub(crate) struct Faults(pub(crate) Vec<String>, pub(crate) bool);

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Environment variables.
pub(crate) type Variables = Vec<(String, String)>;

/// Those of this process that are throng's.
pub(crate) fn variables() -> Variables {
    let all = std::env::vars_os().map(|(name, value)| (name.into_string(), value.to_string_lossy().into_owned()));
    all.filter_map(|(name, value)| Some((name.ok()?, value))).filter(|(name, _)| name.starts_with("THRONG_")).collect()
}

impl Loaded {
    /// The defaults, the file's settings over them, then the environment's, then the flags'.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, or cannot be together.
    pub(crate) fn new(file: Option<&Path>, variables: &Variables, flags: &Flags) -> Result<Self, Faults> {
        let mut loaded = Self::default();
        let mut faults = Vec::new();
        let named = variables.iter().find(|(name, _)| name == environment::FILE).map(|(_, file)| Path::new(file));
        if let Some(file) = file.or(named) {
            let name = file.display().to_string();
            match std::fs::read_to_string(file) {
                Ok(text) => faults.extend(file::apply(&mut loaded, &name, &text)),
                Err(error) => faults.push(format!("{name}: {error}")),
            }
            loaded.file = Some(file.to_owned());
        }
        faults.extend(environment::apply(&mut loaded, variables));
        faults.extend(flags.apply(&mut loaded));
        // What is wrong by itself says less when half of the rest is missing.
        let is_all = faults.is_empty();
        if is_all {
            loaded.choose_addresses();
            let mut conflicts = loaded.faults();
            conflicts.sort_by_key(|fault| loaded.line(&fault.setting));
            faults.extend(conflicts.iter().map(|fault| loaded.explain(fault)));
        }
        if faults.is_empty() { Ok(loaded) } else { Err(Faults(faults, is_all)) }
    }

    /// Where a setting comes from: the setting itself, or what it is a part of.
    fn origin(&self, setting: &str) -> Option<&Origin> {
        let ends = setting.char_indices().rev().filter(|(_, c)| ['.', '['].contains(c)).map(|(at, _)| at);
        [setting.len()].into_iter().chain(ends).find_map(|end| self.origins.get(&setting[..end]))
    }

    /// Its line in the file.
    fn line(&self, setting: &str) -> Option<usize> {
        if let Some(Origin::File(line)) = self.origin(setting) { Some(*line) } else { None }
    }

    /// The same as it is said.
    fn place(&self, setting: &str) -> Option<String> {
        let origin = self.origin(setting);
        let file = || self.file.as_ref().map(|file| file.display().to_string());
        match origin {
            Some(Origin::File(line)) => Some(format!("{}:{line}", file()?)),
            Some(Origin::Variable(name)) => Some(name.clone()),
            Some(Origin::Flag(name)) => Some(format!("--{name}")),
            None => file(),
        }
    }

    /// A line for a fault, with where it is.
    pub(crate) fn explain(&self, Fault { setting, what }: &Fault) -> String {
        let place = self.place(setting).map(|place| format!("{place}: ")).unwrap_or_default();
        if setting.is_empty() { format!("{place}{what}") } else { format!("{place}`{setting}`: {what}") }
    }

    /// Notes where a value comes from, in place of where the one before it came from.
    fn set_by(&mut self, setting: String, origin: Origin) {
        self.origins.retain(|name, _| name.strip_prefix(&setting).is_none_or(|rest| !rest.starts_with('[')));
        self.origins.insert(setting, origin);
    }
}

/// The full name of a namespace.
fn namespace_path(name: &str) -> String {
    format!("channel.namespaces.{name}")
}

/// What is said of a name that is none.
fn unknown<T>(table: &[Setting<T>], not_here: &[(&str, &str)], path: &str) -> String {
    let names = || table.iter().map(|setting| setting.name);
    let last = path.rsplit('.').next().unwrap_or(path);
    match not_here.iter().find(|(start, _)| path.starts_with(start)) {
        // A slip of the pen is likelier than a setting of Centrifugo's, where both could be.
        Some((_, instead)) if nearest(names(), path, 1).is_none() => {
            format!("throng has no `{path}` of Centrifugo's: {instead}")
        }
        _ => {
            let by_last = || names().find(|name| name.rsplit('.').next() == Some(last));
            if nearest(names(), path, 1).is_none() {
                if let Some(table) = nearest_table(table, path) {
                    return format!("unknown table `{path}`: did you mean `{table}`?");
                }
                if let Some(name) = of_flag(last) {
                    return format!("unknown setting `{path}`: it is `{name}`");
                }
            }
            match nearest(names(), path, slips(last)).or_else(by_last) {
                Some(name) => format!("unknown setting `{path}`: did you mean `{name}`?"),
                None => format!("unknown setting `{path}`: `throng config default` has them all"),
            }
        }
    }
}

/// The table of settings that looks like it, as a file has it.
fn nearest_table<T>(settings: &[Setting<T>], path: &str) -> Option<String> {
    let above = |name: &'static str| name.match_indices('.').map(move |(dot, _)| &name[..dot]);
    let mut tables: Vec<_> = settings.iter().flat_map(|setting| above(setting.name)).collect();
    if tables.contains(&"channel") {
        tables.extend(["channel.namespaces", "channel.without_namespace"]);
    }
    let by_end = || tables.iter().copied().find(|table| table.ends_with(&format!("_{path}")));
    let found = nearest(tables.iter().copied(), path, 2).filter(|table| distance(table, path) * 3 < path.len());
    found.or_else(by_end).map(|table| match table {
        "channel.namespaces" => format!("[[{table}]]"),
        table => format!("[{table}]"),
    })
}

/// The setting whose flag has this name, where the setting itself is called otherwise.
fn of_flag(name: &str) -> Option<String> {
    let flag = name.replace('_', "-");
    let settings = SETTINGS.iter().map(|setting| (setting.flag, setting.name, ""));
    let rules = RULES.iter().map(|rule| (rule.flag, rule.name, WITHOUT_NAMESPACE));
    let mut all = settings.chain(rules).filter(|(of, ..)| of.is_some_and(|of| of.name == flag));
    let (_, setting, prefix) = all.next()?;
    (!prefix.is_empty() || setting.rsplit('.').next() != Some(name)).then(|| format!("{prefix}{setting}"))
}

/// How many letters of a name may be wrong for it still to be that name.
fn slips(name: &str) -> usize {
    (name.len() / 3).clamp(1, 4)
}

/// The name that differs least, in at most so many letters.
fn nearest<N: AsRef<str> + Ord>(names: impl Iterator<Item = N>, name: &str, most: usize) -> Option<N> {
    let nearest = names.map(|known| (distance(known.as_ref(), name), known)).min();
    nearest.filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
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
