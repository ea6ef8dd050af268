//! The kinds of values that settings have: how each is read, from a file or from a text, and how it is shown.

use crate::log::Format;
use log::LevelFilter;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use throng::{ForwardedHeader, Network, SlowReaders};

/// What somebody wrote for a setting.
#[derive(Clone, Debug)]
pub(crate) enum Given<'a> {
    Switch(bool),
    Number(i128),
    Text(&'a str),
    List(Vec<Given<'a>>),
    /// Something that no setting is: a fraction, a date, a table.
    Other,
    /// A text from the command line or the environment, which is whatever the setting is.
    Raw(&'a str),
    /// What a file holds that the command line names.
    Bytes(&'a [u8]),
}

/// A setting's value.
pub(crate) trait Value {
    /// Takes what was given, or says what it must be: "`name` must be ...".
    fn set(&mut self, given: &Given<'_>) -> Result<(), String>;

    /// As a file has it; `None`: nothing is set.
    fn show(&self) -> Option<String>;

    /// What differs where the value does. Not to be shown.
    fn compared(&self) -> Option<String> {
        self.show()
    }

    /// Sets nothing, where that can be.
    fn unset(&mut self) {}

    /// It is not to be shown.
    fn is_secret(&self) -> bool {
        false
    }

    /// It may be given several times on the command line.
    fn is_list(&self) -> bool {
        false
    }

    /// It is on or off: on the command line its name is enough.
    fn is_switch(&self) -> bool {
        false
    }
}

impl Value for bool {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        *self = match given {
            Given::Switch(on) => *on,
            Given::Raw("true" | "1") => true,
            Given::Raw("false" | "0") => false,
            Given::Text("true" | "false") => return Err("true or false, without quotes".to_owned()),
            _ => return Err("true or false".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn is_switch(&self) -> bool {
        true
    }
}

fn number<N: TryFrom<u64>>(given: &Given<'_>) -> Result<N, String> {
    let number = match given {
        Given::Number(number) => *number,
        Given::Raw(text) => text.parse().map_err(|_| "a number".to_owned())?,
        Given::Text(text) if text.parse::<i128>().is_ok() => return Err("a number, without quotes".to_owned()),
        _ => return Err("a number".to_owned()),
    };
    let number = if number < 0 { return Err("a number that is not negative".to_owned()) } else { number };
    let fits = u64::try_from(number).ok().and_then(|number| N::try_from(number).ok());
    fits.ok_or_else(|| format!("smaller: {number} is too large"))
}

/// Bytes, with a binary unit: `64K`, `64KB`, `64KiB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let text = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
    let unit =
        UNITS.iter().find_map(|&(name, shift)| Some((text.strip_suffix([name, name.to_ascii_lowercase()])?, shift)));
    let (digits, shift) = unit?;
    digits.trim_end().replace([',', '_'], "").parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Numbers, and those that may not be set.
macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
                number(given).map(|number| *self = number)
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }

        impl Value for Option<$type> {
            fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
                number(given).map(|number| *self = Some(number))
            }

            fn show(&self) -> Option<String> {
                self.map(|number| number.to_string())
            }

            fn unset(&mut self) {
                *self = None;
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, usize);

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

/// As [`duration`] reads them, in the largest units that come out even.
fn show_duration(duration: Duration) -> String {
    let (seconds, rest) = (duration.as_secs(), duration.subsec_nanos());
    if rest > 0 {
        let millis = duration.as_millis();
        let is_even = u128::from(rest) == millis % 1000 * 1_000_000;
        return if is_even { format!("{millis}ms") } else { format!("{}ns", duration.as_nanos()) };
    }
    match seconds {
        0 => "0s".to_owned(),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn duration_given(given: &Given<'_>) -> Result<Duration, String> {
    let is_wanted = "a duration, such as \"25s\", \"1h30m\" or \"500ms\"";
    match given {
        Given::Text(text) => duration(text).ok_or_else(|| {
            let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_bare { format!("a duration with its unit: did you mean \"{text}s\"?") } else { is_wanted.to_owned() }
        }),
        // On the command line and in the environment a number alone is seconds.
        Given::Raw(text) => match text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            Some(seconds) => Ok(seconds),
            None => duration(text).ok_or_else(|| "a duration, such as 25s, 1h30m or 500ms, or seconds".to_owned()),
        },
        _ => Err("a duration in a string, such as \"25s\"".to_owned()),
    }
}

impl Value for Duration {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        duration_given(given).map(|duration| *self = duration)
    }

    fn show(&self) -> Option<String> {
        Some(format!("{:?}", show_duration(*self)))
    }
}

impl Value for Option<Duration> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        duration_given(given).map(|duration| *self = Some(duration).filter(|duration| !duration.is_zero()))
    }

    fn show(&self) -> Option<String> {
        self.and_then(|duration| duration.show())
    }
}

fn text<'a>(given: &'a Given<'a>) -> Result<&'a str, String> {
    match given {
        Given::Text(text) | Given::Raw(text) => Ok(text),
        _ => Err("a string".to_owned()),
    }
}

/// As TOML's basic strings have it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Value for String {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        text(given)?.clone_into(self);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

/// A key, or what tokens are signed with: taken as it is, and never shown. Empty is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(hidden)" })
    }
}

impl std::ops::Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Value for Secret {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        let secret = match given {
            Given::Text(secret) => {
                self.0 = secret.as_bytes().to_vec();
                return Ok(());
            }
            Given::Raw(secret) => secret.as_bytes(),
            Given::Bytes(secret) => secret,
            _ => return Err("a string".to_owned()),
        };
        // Editors and shells end files with a line end, which is none of the secret's.
        let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.trim_ascii().is_empty() {
            return Err("a secret: the secret is empty; leave it out if none is wanted".to_owned());
        }
        self.0 = secret.to_vec();
        Ok(())
    }

    fn show(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| quoted("(hidden)"))
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn compared(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }
}

/// Each of a list: in the environment they stand between spaces or commas.
fn list<T>(given: &Given<'_>, mut take: impl FnMut(&Given<'_>) -> Result<T, String>) -> Result<Vec<T>, String> {
    match given {
        Given::List(all) => all.iter().map(take).collect(),
        Given::Raw(text) => {
            let all = text.split([',', ' ', '\t', '\n']).filter(|one| !one.is_empty());
            all.map(|one| take(&Given::Raw(one))).collect()
        }
        _ => Err("a list of strings".to_owned()),
    }
}

fn show_list(all: impl Iterator<Item = String>) -> String {
    format!("[{}]", all.map(|one| quoted(&one)).collect::<Vec<_>>().join(", "))
}

impl Value for Vec<String> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        *self = list(given, |one| text(one).map(ToOwned::to_owned).map_err(|_| "a list of strings".to_owned()))?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(show_list(self.iter().cloned()))
    }

    fn is_list(&self) -> bool {
        true
    }
}

/// Where to listen: an address, or the path of a Unix-domain socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Address(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            // Where it is must not depend on where the server was started.
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("unix: and a whole path, such as unix:/run/throng/throng.sock".to_owned()),
            None => text.parse().map(Self::Address).map_err(|_| {
                "an address and a port, such as 127.0.0.1:8080 or [::]:80, or unix:/run/throng/throng.sock".to_owned()
            }),
        }
    }
}

/// A list of what is written as strings, of one kind.
macro_rules! lists {
    ($($type:ty),*) => {$(
        impl Value for Vec<$type> {
            fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
                *self = list(given, |one| {
                    let text = text(one).map_err(|_| "a list of strings".to_owned())?;
                    text.parse::<$type>().map_err(|error| error.to_string())
                })?;
                Ok(())
            }

            fn show(&self) -> Option<String> {
                (!self.is_empty()).then(|| show_list(self.iter().map(ToString::to_string)))
            }

            fn is_list(&self) -> bool {
                true
            }
        }
    )*};
}

lists!(Listen, Network);

impl Value for Option<ForwardedHeader> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        *self = Some(text(given)?.parse().map_err(|_| "X-Forwarded-For or Forwarded".to_owned())?);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.map(|header| quoted(header.name()))
    }

    fn unset(&mut self) {
        *self = None;
    }
}

/// A file's permissions, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl Value for Mode {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        let wanted = || "a file's permissions in octal, in a string, such as \"0660\"".to_owned();
        let text = text(given).map_err(|_| wanted())?;
        let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o777 && !text.starts_with('+'));
        *self = Self(mode.ok_or_else(wanted)?);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&format!("{:04o}", self.0)))
    }
}

impl Value for Option<IpAddr> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        let text = text(given)?;
        let address = if text.is_empty() { Ok(Ipv4Addr::UNSPECIFIED.into()) } else { text.parse() };
        *self = Some(address.map_err(|_| "an IP address, such as 127.0.0.1 or ::".to_owned())?);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.map(|address| quoted(&address.to_string()))
    }
}

impl Value for Option<SocketAddr> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        let address = text(given)?.parse();
        *self = Some(address.map_err(|_| "an address and a port, such as 127.0.0.1:8081".to_owned())?);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.map(|address| quoted(&address.to_string()))
    }

    fn unset(&mut self) {
        *self = None;
    }
}

impl Value for Option<bool> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        let mut on = false;
        on.set(given)?;
        *self = Some(on);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.map(|on| on.to_string())
    }

    fn unset(&mut self) {
        *self = None;
    }
}

impl Value for LevelFilter {
    fn set(&mut self, given: &Given<'_>) -> Result<(), String> {
        let level = text(given)?;
        let level = if level == "none" { "off" } else { level };
        *self = level.parse().map_err(|_| "off, error, warn, info, debug or trace".to_owned())?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.as_str().to_lowercase()))
    }
}

/// Values that are one of a few words.
macro_rules! words {
    ($type:ty: $($word:literal => $value:expr),* $(,)?) => {
        impl $crate::config::value::Value for $type {
            fn set(&mut self, given: &$crate::config::value::Given<'_>) -> Result<(), String> {
                *self = match $crate::config::value::text(given)? {
                    $($word => $value,)*
                    _ => return Err([$($word),*].join(" or ")),
                };
                Ok(())
            }

            fn show(&self) -> Option<String> {
                [$(($word, $value)),*].into_iter().find(|(_, value)| value == self).map(|(word, _)| format!("{word:?}"))
            }
        }
    };
}

words!(Format: "text" => Format::Text, "json" => Format::Json);
words!(SlowReaders: "disconnect" => SlowReaders::Disconnect, "skip" => SlowReaders::Skip);

#[cfg(test)]
mod tests {
    use super::*;

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
    fn durations_are_read_as_they_are_shown() {
        for nanos in
            [0, 1, 1_000_000, 25_000_000_000, 90_000_000_000, 5_400_000_000_000, 86_400_000_000_000, 1_500_000_000]
        {
            let time = Duration::from_nanos(nanos);
            assert_eq!(duration(&show_duration(time)), Some(time), "{}", show_duration(time));
        }
        assert_eq!(show_duration(Duration::from_secs(5400)), "90m");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn a_text_from_outside_of_a_file_is_whatever_the_setting_is() {
        let set = |value: &mut dyn Value, text: &str| value.set(&Given::Raw(text)).map(|()| value.show());
        assert_eq!(set(&mut false, "true"), Ok(Some("true".to_owned())));
        assert!(set(&mut false, "yes").is_err());
        assert_eq!(set(&mut 0_u32, "17"), Ok(Some("17".to_owned())));
        assert!(set(&mut 0_u32, "-1").is_err() && set(&mut 0_u32, "1e9").is_err() && set(&mut 0_u16, "65536").is_err());
        for text in ["0.5", "500ms", "0.5s"] {
            assert_eq!(set(&mut Duration::default(), text), Ok(Some("\"500ms\"".to_owned())));
        }
        for bad in ["", "soon", "-1", "NaN", "inf", "1e300"] {
            assert!(set(&mut Duration::default(), bad).is_err(), "{bad}");
        }
        let mut origins = Vec::<String>::new();
        assert_eq!(
            set(&mut origins, "https://a.example, https://b.example https://c.example"),
            Ok(Some(r#"["https://a.example", "https://b.example", "https://c.example"]"#.to_owned()))
        );
        assert_eq!(set(&mut String::new(), "a \"b\"\\\n"), Ok(Some(r#""a \"b\"\\\u000A""#.to_owned())));
    }

    #[test]
    fn where_to_listen_is_an_address_or_a_path() {
        let mut all = Vec::<Listen>::new();
        all.set(&Given::Raw("127.0.0.1:80,unix:/run/a b/s [::]:8080")).unwrap_err();
        all.set(&Given::List(vec![Given::Text("[::]:80"), Given::Text("unix:/run/a b/s")])).unwrap();
        assert_eq!(all.show().as_deref(), Some(r#"["[::]:80", "unix:/run/a b/s"]"#));
        for bad in ["unix:", "unix:s", "/run/s", "localhost:80", "127.0.0.1"] {
            assert!(all.set(&Given::Raw(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        let mut mode = Mode(0);
        for (text, shown) in [("0660", "\"0660\""), ("600", "\"0600\""), ("0", "\"0000\"")] {
            mode.set(&Given::Text(text)).unwrap();
            assert_eq!(mode.show().as_deref(), Some(shown));
        }
        for bad in ["", "0o660", "rw", "1000", "+660", "680"] {
            assert!(mode.set(&Given::Text(bad)).is_err(), "{bad}");
        }
        assert!(mode.set(&Given::Number(660)).is_err(), "it would be decimal");
    }

    #[test]
    fn secrets_are_taken_without_the_line_end_and_not_shown() {
        let mut secret = Secret::default();
        assert_eq!(secret.show(), None);
        for (text, taken) in
            [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" s3cret ", " s3cret "), ("a\n\n", "a\n")]
        {
            secret.set(&Given::Raw(text)).unwrap();
            assert_eq!(&*secret, taken.as_bytes());
        }
        assert!(secret.set(&Given::Raw(" \n")).is_err());
        secret.set(&Given::Text("s3cret")).unwrap();
        assert!(!format!("{secret:?}{:?}", secret.show()).contains("s3cret"));
        secret.set(&Given::Text("")).unwrap();
        assert_eq!(secret.show(), None);
    }
}
