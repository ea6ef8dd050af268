//! What `throng serve` says of its machine as it starts: what that holds and what limits it, and what to do where more was
//! asked for. Some small files are read; one that is missing limits nothing.

use crate::tune::{holds, remedy};
use log::Level;
use std::path::Path;
use throng::tuning::{Aim, Check, Machine, Role, Verdict, Weight, bounds, check, grouped};

/// The machine as this process finds it.
pub(crate) fn machine(shared_descriptors: bool) -> Machine {
    let mut machine = Machine::read(Path::new("/"));
    machine.private_tables &= !shared_descriptors;
    machine
}

/// Lines for the log. `asked` is how many connections the operator wants, if that was said.
pub(crate) fn lines(machine: &Machine, asked: Option<usize>) -> Vec<(Level, String)> {
    let mut lines = vec![(Level::Info, holds(Role::Server, machine))];
    let Some(asked) = asked.and_then(|asked| u64::try_from(asked).ok()) else { return lines };
    let Ok(aim) = Aim::new(asked, Role::Server) else { return lines };
    let checks = check(&aim, machine);
    let falls_short = |weight: Weight| {
        let is_short = move |row: &&Check| row.verdict == Verdict::Short && row.setting.weight == weight;
        // Who may go beyond it is not limited by it.
        checks.iter().filter(is_short).filter(|row| row.setting.name != "fs.file-max" || !machine.exceeds_file_max)
    };
    let number = grouped(asked);
    for row in falls_short(Weight::Wall) {
        let (name, now, need) = (row.setting.name, &row.now, &row.need);
        lines.push((
            Level::Warn,
            format!("{number} connections do not fit this machine: {name} is {now}, {need} needed: {}", remedy(row)),
        ));
    }
    // What the bounds see beyond single settings.
    if lines.len() == 1
        && let Some(bound) = bounds(Role::Server, machine).first().filter(|bound| bound.connections < asked)
    {
        lines.push((
            Level::Warn,
            format!(
                "{number} connections do not fit this machine: {bound}; `throng tune --connections {asked}` explains"
            ),
        ));
    }
    let under_load: Vec<_> = falls_short(Weight::Load).map(|row| row.setting.name).collect();
    if !under_load.is_empty() {
        let names = under_load.join(", ");
        lines.push((
            Level::Info,
            format!("under load {number} connections need more: {names}; `throng tune --connections {asked}` explains"),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(machine: &Machine, asked: usize) -> Vec<String> {
        let lines = lines(machine, Some(asked)).into_iter();
        lines.filter(|(level, _)| *level == Level::Warn).map(|(_, line)| line).collect()
    }

    #[test]
    fn what_the_machine_holds_is_always_said_and_is_no_warning() {
        let lines = lines(&Machine::stock().with("fs.file-max", &[1_056_000]), None);
        let (level, line) = &lines[0];
        assert_eq!((lines.len(), *level), (1, Level::Info));
        assert!(line.starts_with("this machine: "), "{line}");
        assert!(line.contains(" connections by ") && line.contains("1.05 M by fs.file-max"), "{line}");
    }

    #[test]
    fn more_than_fits_is_warned_of_with_what_to_do() {
        let machine =
            Machine::stock().with("fs.file-max", &[400_000]).with("net.netfilter.nf_conntrack_max", &[9_000_000]);
        assert_eq!(warnings(&machine, 100_000), Vec::<String>::new());
        let said = warnings(&machine, 1_000_000);
        assert_eq!(
            said,
            ["1,000,000 connections do not fit this machine: fs.file-max is 400,000, 1,003,000 needed: \
              sysctl -w fs.file-max=1100000"]
        );
        let mut root = machine;
        root.exceeds_file_max = true;
        assert_eq!(warnings(&root, 1_000_000), Vec::<String>::new(), "it binds root nowhere");
        let small = Machine::stock().with("net.netfilter.nf_conntrack_max", &[9_000_000]).with_memory(1 << 30);
        let said = warnings(&small, 1_000_000);
        assert!(said.len() == 1 && said[0].contains("memory is ") && said[0].contains("24 % of them"), "{said:?}");
    }

    #[test]
    fn a_machine_that_shows_nothing_is_no_reason_to_warn() {
        let nothing = Machine::read(Path::new("/nowhere/at/all"));
        let lines = lines(&nothing, Some(1_000_000));
        assert!(lines.iter().all(|(level, _)| *level == Level::Info), "{lines:?}");
    }
}
