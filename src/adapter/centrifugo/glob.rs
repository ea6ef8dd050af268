//! Patterns of channels' names, as the server API's `channels` takes them.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `*`, `**` | any bytes, also none |
//! | `?` | one byte |
//! | `[abc]`, `[a-z]`, `[!a]` | one byte of those, or of all others |
//! | `{a,b}` | either; not one inside of another |
//! | `\*` | the byte itself |

use crate::limits::API_PATTERN_MAX;

/// What a name is compared to: one of the alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Alternatives);

type Alternatives = Vec<Vec<Part>>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Any,
    Many,
    /// Ranges, both ends included, and whether one of them or none is meant.
    Class(Vec<(u8, u8)>, bool),
}

impl Part {
    /// Whether one byte is meant by it.
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::Any => true,
            Self::Many => false,
            Self::Class(ranges, wanted) => ranges.iter().any(|&(from, to)| (from..=to).contains(&byte)) == *wanted,
        }
    }
}

impl Glob {
    /// Reads a pattern; what is wrong with it, if it is none.
    pub(crate) fn new(pattern: &str) -> Result<Self, &'static str> {
        let (bytes_max, alternatives_max) = API_PATTERN_MAX;
        if pattern.len() > bytes_max {
            return Err("a pattern has at most 255 bytes");
        }
        let mut done: Alternatives = vec![Vec::new()];
        // Inside of braces: what stood before them, and the alternatives that are complete.
        let mut braces: Option<(Alternatives, Alternatives)> = None;
        let mut rest = pattern.as_bytes();
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            let part = match byte {
                b'*' => Part::Many,
                b'?' => Part::Any,
                b'\\' => {
                    let (&escaped, behind) = rest.split_first().ok_or("a pattern cannot end in `\\`")?;
                    rest = behind;
                    Part::Byte(escaped)
                }
                b'[' => class(&mut rest)?,
                b'{' if braces.is_some() => return Err("braces cannot stand inside of braces"),
                b'{' => {
                    braces = Some((done.clone(), Vec::new()));
                    continue;
                }
                b',' | b'}' if braces.is_some() => {
                    let (before, mut complete) = braces.take().ok_or("a brace was not opened")?;
                    complete.append(&mut done);
                    if complete.len() > alternatives_max {
                        return Err("a pattern has at most 16 alternatives");
                    }
                    if byte == b',' {
                        done.clone_from(&before);
                        braces = Some((before, complete));
                    } else {
                        done = complete;
                    }
                    continue;
                }
                byte => Part::Byte(byte),
            };
            for alternative in &mut done {
                if part != Part::Many || alternative.last() != Some(&Part::Many) {
                    alternative.push(part.clone());
                }
            }
        }
        if braces.is_some() { Err("a brace was not closed") } else { Ok(Self(done)) }
    }

    /// Whether the whole of a name is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|parts| whole(parts, name.as_bytes()))
    }
}

/// What is behind `[`, up to `]`.
fn class(rest: &mut &[u8]) -> Result<Part, &'static str> {
    let wanted = rest.first() != Some(&b'!');
    let mut from = usize::from(!wanted);
    let end = rest.iter().position(|&byte| byte == b']').filter(|&end| end > from);
    let end = end.ok_or("a bracket was not closed, or is empty")?;
    let mut ranges = Vec::new();
    while from < end {
        match rest[from..end] {
            [first, b'-', last, ..] => {
                ranges.push((first, last));
                from += 3;
            }
            [byte, ..] => {
                ranges.push((byte, byte));
                from += 1;
            }
            [] => break,
        }
    }
    *rest = &rest[end + 1..];
    Ok(Part::Class(ranges, wanted))
}

/// Two fingers: where a byte does not fit, the last `*` takes one more. Each byte of the name is looked at as often as
/// there are parts, at most.
fn whole(parts: &[Part], name: &[u8]) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match parts.get(part) {
            Some(Part::Many) => {
                star = Some((part, at));
                part += 1;
            }
            Some(one) if one.takes(name[at]) => (part, at) = (part + 1, at + 1),
            _ => match star {
                Some((back, taken)) => {
                    (part, at) = (back + 1, taken + 1);
                    star = Some((back, taken + 1));
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|part| *part == Part::Many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_whole_names() {
        for (pattern, yes, no) in [
            ("*", &["", "a", "a:b/c"][..], &[][..]),
            ("a", &["a"], &["", "aa", "b"]),
            ("a*", &["a", "ab", "abc"], &["", "ba"]),
            ("*:news", &["x:news", ":news"], &["news", "x:news2"]),
            ("a**b?c*", &["abxc", "a--b-c--", "abbxc"], &["abc", "ab"]),
            ("user[0-9_]", &["user1", "user_"], &["usera", "user", "user11"]),
            ("[!a-c]x", &["dx"], &["ax", "cx", "x"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("{a,b*}:x", &["a:x", "b:x", "bb:x"], &["c:x", "a:y"]),
            ("{a,b}{c,d}", &["ac", "ad", "bc", "bd"], &["ab", "a"]),
            ("{,x}a", &["a", "xa"], &["ya"]),
            ("\\*\\{,}", &["*{,}"], &["a"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            yes.iter().for_each(|name| assert!(glob.matches(name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!glob.matches(name), "{pattern} {name}"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["{a", "{a,{b}}", "[", "[]", "[!]", "a\\", &"x".repeat(256), &"{a,b}".repeat(5)] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
        assert!(Glob::new(&"{a,b}".repeat(4)).is_ok(), "16 alternatives");
    }

    #[test]
    fn stars_cost_no_more_than_parts_times_bytes() {
        let glob = Glob::new(&"*a".repeat(120)).unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(254))));
    }
}
