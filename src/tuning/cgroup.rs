//! The limits of control groups: those that the process is in, and all above them (cgroups(7)).

use std::fs::read_to_string;
use std::path::Path;

/// Beyond, a limit is none: version 1 writes the largest multiple of a page.
const UNLIMITED: u64 = 1 << 62;

/// A limit, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) max: u64,
    pub(super) used: u64,
}

/// The least memory that a control group of this process may use, in bytes; none where there is no limit, or none that
/// can be seen.
pub fn memory_limit() -> Option<u64> {
    memory(Path::new("/")).map(|limit| limit.max)
}

pub(super) fn memory(root: &Path) -> Option<Limit> {
    tightest(root, "memory", ["memory.max", "memory.limit_in_bytes"], ["memory.current", "memory.usage_in_bytes"])
}

pub(super) fn processes(root: &Path) -> Option<Limit> {
    tightest(root, "pids", ["pids.max", "pids.max"], ["pids.current", "pids.current"])
}

/// The limit with the least room, of version 2 and of version 1, in each of which the files have names of their own.
fn tightest(root: &Path, controller: &str, max: [&str; 2], used: [&str; 2]) -> Option<Limit> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path, and 0::path for version 2
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (version, mounted) = match number {
            "0" => (0, "sys/fs/cgroup".to_owned()),
            _ if controllers.split(',').any(|name| name == controller) => (1, format!("sys/fs/cgroup/{controllers}")),
            _ => continue,
        };
        let mounted = root.join(mounted);
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let number = |name: &str| read_to_string(mounted.join(group).join(name)).ok()?.trim().parse().ok();
            if let Some(max) = number(max[version]).filter(|&max| max < UNLIMITED) {
                limits.push(Limit { max, used: number(used[version]).unwrap_or(0) });
            }
        }
    }
    limits.into_iter().min_by_key(|limit| limit.max.saturating_sub(limit.used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::machine::tests::Fake;

    #[test]
    fn a_group_far_above_may_be_the_one_that_limits() {
        let fake = Fake::new("cgroup-2")
            .file("proc/self/cgroup", "0::/system.slice/throng.service\n")
            .file("sys/fs/cgroup/system.slice/throng.service/memory.max", "max\n")
            .file("sys/fs/cgroup/system.slice/memory.max", "4000\n")
            .file("sys/fs/cgroup/system.slice/memory.current", "1000\n")
            .file("sys/fs/cgroup/memory.max", "6000\n");
        assert_eq!(memory(&fake.root), Some(Limit { max: 4000, used: 1000 }));
        assert_eq!(processes(&fake.root), None);
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let fake = Fake::new("cgroup-1")
            .file("proc/self/cgroup", "8:pids:/a\n4:memory:/b/c\n3:cpu,cpuacct:/\n0::/\nnonsense\n")
            .file("sys/fs/cgroup/memory/b/c/memory.limit_in_bytes", "9223372036854771712\n")
            .file("sys/fs/cgroup/memory/b/memory.limit_in_bytes", "5000\n")
            .file("sys/fs/cgroup/pids/a/pids.max", "77\n")
            .file("sys/fs/cgroup/pids/a/pids.current", "7\n");
        assert_eq!(memory(&fake.root), Some(Limit { max: 5000, used: 0 }));
        assert_eq!(processes(&fake.root), Some(Limit { max: 77, used: 7 }));
    }
}
