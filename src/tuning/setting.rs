//! What a row of the table says.

use super::{Aim, Machine};
use std::fmt;

/// Which ends of the connections are on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server's.
    Server,
    /// Those of a load generator, against a server elsewhere.
    Load,
    /// Server and load generator side by side, over loopback.
    Both,
}

impl Role {
    /// Sockets of one connection that are here.
    pub fn ends(self) -> u64 {
        if self == Self::Both { 2 } else { 1 }
    }

    pub(super) fn has_server(self) -> bool {
        self != Self::Load
    }

    pub(super) fn has_load(self) -> bool {
        self != Self::Server
    }

    /// Whether a setting for `self` matters where `other` is what runs.
    pub(super) fn concerns(self, other: Self) -> bool {
        self == other || self == Self::Both || other == Self::Both
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Server => "server",
            Self::Load => "load",
            Self::Both => "both",
        })
    }
}

/// Where a setting is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below /proc/sys, by its name (sysctl(8)).
    Sysctl,
    /// In this file.
    File(&'static str),
    /// The hard limit in /proc/self/limits (getrlimit(2)), by the name that stands there. The server raises its soft limit
    /// to the hard one itself.
    Limit(&'static str),
    /// In this file of the control groups that the process is in, which is the tightest of those above it.
    Group(&'static str),
    /// `MemAvailable` in /proc/meminfo.
    Memory,
    /// It is told, not read.
    Told,
}

/// What N connections need of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// This much, or more.
    AtLeast(u64),
    /// Each of three numbers at least so large (tcp_mem).
    Each([u64; 3]),
    /// A range (first and last) at least so wide.
    Wide(u64),
    /// One of these.
    OneOf(&'static [u64]),
    /// Anything but this word.
    Not(&'static str),
    /// Nothing: it does no harm as it is.
    Nothing,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::AtLeast(number) => grouped(*number),
            Self::Each(numbers) => numbers.map(grouped).join(" "),
            Self::Wide(ports) => format!("{} wide", grouped(*ports)),
            Self::OneOf(numbers) => numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            Self::Not(word) => format!("not {word}"),
            Self::Nothing => "-".to_owned(),
        };
        f.pad(&text)
    }
}

/// What it means that a setting falls short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// So many connections cannot be opened.
    Wall,
    /// They can, and it goes wrong under load.
    Load,
    /// It would be better otherwise.
    Advice,
}

/// Which kernels have a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernels {
    /// The first that has it, as far as that is of interest: all that anybody runs, if it is `None`.
    pub since: Option<(u32, u32)>,
    /// The first that no longer has it.
    pub until: Option<(u32, u32)>,
    /// What must be loaded or built in for it to be there.
    pub with: Option<&'static str>,
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.map(|(major, minor)| format!("since {major}.{minor}"));
        let until = self.until.map(|(major, minor)| format!("gone in {major}.{minor}"));
        let with = self.with.map(|what| format!("with {what}"));
        f.pad(&[since, until, with].into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// How it is known that a limit bites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// This experiment of `tuning/proof` shows it.
    Tried(&'static str),
    /// It is what the kernel's documentation or source says.
    Read,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As sysctl(8) or getrlimit(2) have it, or in plain words.
    pub name: &'static str,
    /// Where it is read.
    pub place: Place,
    /// What its numbers count.
    pub unit: &'static str,
    /// Whom it limits.
    pub role: Role,
    /// What it means to fall short.
    pub weight: Weight,
    /// The arithmetic.
    pub need: fn(&Aim, &Machine) -> Need,
    /// The arithmetic in words, for N connections.
    pub arithmetic: &'static str,
    /// What goes wrong without it, with the message that one sees.
    pub without: &'static str,
    /// Which kernels have it.
    pub kernels: Kernels,
    /// How that is known.
    pub proof: Proof,
}

impl Setting {
    /// The file below the root where it is read, if it has one of its own.
    pub fn path(&self) -> Option<String> {
        match self.place {
            Place::Sysctl => Some(format!("/proc/sys/{}", self.name.replace('.', "/"))),
            Place::File(path) => Some(path.to_owned()),
            Place::Limit(_) => Some("/proc/self/limits".to_owned()),
            Place::Memory => Some("/proc/meminfo".to_owned()),
            Place::Group(_) | Place::Told => None,
        }
    }
}

/// A number with commas: 1,000,000.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_threes() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn whoever_runs_both_is_concerned_by_all() {
        assert!(Role::Server.concerns(Role::Both) && Role::Both.concerns(Role::Load));
        assert!(!Role::Server.concerns(Role::Load) && !Role::Load.concerns(Role::Server));
    }
}
