//! The guide, which the binary has with it: what `--explain` says.

use throng::tuning::SETTINGS;

pub(super) const GUIDE: &str = include_str!("../../../../tuning/README.md");

/// The guide's section on `what`: a setting's name, its last part, or a word of a heading.
pub(super) fn explain(what: &str) -> Result<String, String> {
    let wanted = what.trim().to_lowercase();
    let sections = sections();
    let named = |heading: &str| heading.split('`').skip(1).step_by(2).map(str::to_lowercase).collect::<Vec<_>>();
    let by_name = |(heading, _): &&(&str, &str)| {
        named(heading).iter().any(|name| *name == wanted || name.rsplit(['.', '/']).next() == Some(&wanted))
    };
    let by_word = |(heading, _): &&(&str, &str)| {
        let plain = heading.to_lowercase();
        plain.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == wanted) || plain == wanted
    };
    let found = sections.iter().find(by_name).or_else(|| sections.iter().find(by_word));
    match found.filter(|_| !wanted.is_empty()) {
        Some((heading, body)) => Ok(format!("{heading}\n\n{}\n", body.trim())),
        None => {
            Err(format!("the guide has no section on {what:?}{}\nIt has: {}", nearest(&wanted), headings(&sections)))
        }
    }
}

/// Headings of the third level, with what stands below them.
fn sections() -> Vec<(&'static str, &'static str)> {
    GUIDE
        .split("\n### ")
        .skip(1)
        .map(|section| {
            let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
            (heading, body.split("\n## ").next().unwrap_or(body))
        })
        .collect()
}

fn headings(sections: &[(&str, &str)]) -> String {
    sections.iter().map(|(heading, _)| heading.replace('`', "")).collect::<Vec<_>>().join("; ")
}

/// A setting whose name looks like it.
fn nearest(wanted: &str) -> String {
    let near = SETTINGS.iter().map(|setting| setting.name).find(|name| {
        let last = name.rsplit('.').next().unwrap_or(name).to_lowercase();
        wanted.len() > 3 && (last.contains(wanted) || wanted.contains(&last) || within_one(&last, wanted))
    });
    near.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Whether one letter more, less or other makes one of the other.
fn within_one(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let rest = |of: &[u8]| of.get(1..).unwrap_or_default().to_vec();
    rest(a) == rest(b) || rest(a) == b || a == rest(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_of_the_table_is_explained() {
        for setting in &SETTINGS {
            let text = explain(setting.name).unwrap_or_else(|error| panic!("{}: {error}", setting.name));
            assert!(text.len() > 200, "{}: {text}", setting.name);
        }
    }

    #[test]
    fn a_part_of_the_name_will_do_and_so_will_a_word_of_the_heading() {
        assert_eq!(explain("tcp_mem"), explain("net.ipv4.tcp_mem"));
        assert!(explain("tcp_mem").unwrap().contains("pages"));
        for topic in ["IRQ", "swap", "containers", "cloud"] {
            assert!(explain(topic).is_ok(), "{topic}");
        }
        assert!(explain("tcp_men").unwrap_err().contains("did you mean net.ipv4.tcp_mem?"));
        assert!(explain("nonsense").unwrap_err().contains("It has: "));
        assert!(explain("").is_err());
    }

    /// What the guide says must be there is there, or in a row that says since or until when.
    #[test]
    fn every_sysctl_that_the_guide_names_exists_or_is_in_the_table() {
        let roots = ["fs", "kernel", "net", "vm"];
        let names = GUIDE.split('`').skip(1).step_by(2).filter_map(|code| code.split(['=', ' ', '\n']).next());
        let names: Vec<&str> = names
            .filter(|name| name.split_once('.').is_some_and(|(root, _)| roots.contains(&root)))
            .filter(|name| !name.contains(['*', '/']))
            .collect();
        assert!(names.len() > 30, "{names:?}");
        for name in names {
            let is_there = std::path::Path::new("/proc/sys").join(name.replace('.', "/")).exists();
            assert!(is_there || SETTINGS.iter().any(|row| row.name == name), "{name}");
        }
    }
}
