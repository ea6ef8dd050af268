//! The table: every setting that anybody recommends for many connections, what of it is needed, and why.

mod left;
mod needed;

use super::setting::{Kernels, Setting};

/// Every row: what sockets need, then what threads and memory need, then what is better left alone.
pub static SETTINGS: [Setting; needed::ROWS + left::ROWS] = {
    let mut rows = [needed::TABLE[0]; needed::ROWS + left::ROWS];
    let mut index = 0;
    while index < rows.len() {
        rows[index] = if index < needed::ROWS { needed::TABLE[index] } else { left::TABLE[index - needed::ROWS] };
        index += 1;
    }
    rows
};

/// The row of that name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// On every kernel that is still in use.
const EVERY: Kernels = Kernels { since: None, until: None, with: None };

const fn since(major: u32, minor: u32) -> Kernels {
    Kernels { since: Some((major, minor)), ..EVERY }
}

const fn until(major: u32, minor: u32) -> Kernels {
    Kernels { until: Some((major, minor)), ..EVERY }
}

const fn with(what: &'static str) -> Kernels {
    Kernels { with: Some(what), ..EVERY }
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Place, Proof, Reading, Role};
    use super::*;
    use std::collections::HashSet;
    use std::path::Path;

    #[test]
    fn every_sysctl_is_there_or_its_row_says_since_or_until_when() {
        let machine = Machine::read(Path::new("/"));
        for setting in SETTINGS.iter().filter(|setting| setting.place == Place::Sysctl) {
            let kernels = setting.kernels;
            let is_expected = kernels.since.is_none_or(|since| machine.kernel >= since)
                && kernels.until.is_none_or(|until| machine.kernel < until);
            match machine.now(setting.name) {
                Reading::Absent => assert!(
                    !is_expected || kernels.with.is_some(),
                    "{} is not there, and its row does not say why",
                    setting.name
                ),
                Reading::Odd(what) => panic!("{}: {what}", setting.name),
                _ => assert!(is_expected, "{} is there, and should not be: {kernels}", setting.name),
            }
        }
    }

    #[test]
    fn names_are_not_used_twice_and_rows_are_whole() {
        let mut names = HashSet::new();
        for setting in &SETTINGS {
            assert!(names.insert(setting.name), "{}", setting.name);
            for text in [setting.unit, setting.arithmetic, setting.without] {
                assert!(!text.is_empty() && !text.contains(['|', '\n']), "{}: {text:?}", setting.name);
            }
            if let Some(path) = setting.path() {
                assert!(path.starts_with("/proc/") || path.starts_with("/sys/"), "{path}");
            }
        }
        assert!(setting("fs.file-max").is_some() && setting("fs.file-mix").is_none());
    }

    #[test]
    fn some_rows_are_for_each_role_and_most_that_are_needed_were_tried() {
        for role in [Role::Server, Role::Load, Role::Both] {
            assert!(SETTINGS.iter().any(|setting| setting.role == role), "{role}");
        }
        let tried = needed::TABLE.iter().filter(|setting| matches!(setting.proof, Proof::Tried(_))).count();
        assert!(tried * 2 > needed::ROWS, "{tried} of {}", needed::ROWS);
    }
}
