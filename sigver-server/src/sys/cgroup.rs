//! Limits of this process's control groups. Only Linux has them.

use std::fs;

/// The control groups of this process and the limits of all groups, as the system shows them.
const GROUPS: &str = "/proc/self/cgroup";
const MOUNT: &str = "/sys/fs/cgroup";

/// Returns the lowest limit of this process's group and the groups around it, in version 1 or 2. `files` are the names of the limit in
/// version 2, and `controller` and `v1_file` the names in version 1.
pub(crate) fn limit(files: &[&str], controller: &str, v1_file: &str) -> Option<u64> {
    let groups = fs::read_to_string(GROUPS).ok()?;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    lowest(&groups, files, controller, v1_file, number)
}

/// Like [`limit`], for the groups in a file like `/proc/self/cgroup`; `number` reads one limit. A group without a limit has the value `max`,
/// or a number that no machine reaches.
fn lowest(
    groups: &str,
    files: &[&str],
    controller: &str,
    v1_file: &str,
    number: impl Fn(&str) -> Option<u64>,
) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        // The number of the hierarchy, its controllers, the path of the group.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            for group in ancestors(path) {
                limits.extend(
                    files
                        .iter()
                        .filter_map(|file| number(&format!("{MOUNT}{group}/{file}"))),
                );
            }
        } else if controllers.split(',').any(|one| one == controller) {
            for group in ancestors(path) {
                limits.extend(number(&format!("{MOUNT}/{controller}{group}/{v1_file}")));
            }
        }
    }
    limits.into_iter().min()
}

/// Returns a group and the groups around it. In a container, the outermost may be the only one that the process sees.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    let ends = path.rmatch_indices('/').map(|(end, _)| end);
    std::iter::once(path.len()).chain(ends).map(move |end| &path[..end])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn memory(groups: &str, limits: &[(&str, &str)]) -> Option<u64> {
        let limits: BTreeMap<_, _> = limits.iter().copied().collect();
        let number = |path: &str| limits.get(path)?.parse().ok();
        lowest(
            groups,
            &["memory.max", "memory.high"],
            "memory",
            "memory.limit_in_bytes",
            number,
        )
    }

    #[test]
    fn lowest_limit_of_a_group_and_those_around_it_applies() {
        let groups = "0::/system.slice/sigver-server.service\n";
        let limits = [
            ("/sys/fs/cgroup/system.slice/sigver-server.service/memory.max", "max"),
            ("/sys/fs/cgroup/system.slice/sigver-server.service/memory.high", "900"),
            ("/sys/fs/cgroup/system.slice/memory.max", "800"),
            ("/sys/fs/cgroup/other.slice/memory.max", "1"),
        ];
        assert_eq!(memory(groups, &limits), Some(800));
        assert_eq!(memory(groups, &limits[..2]), Some(900));
        assert_eq!(memory(groups, &limits[..1]), None);
        assert_eq!(memory("", &limits), None);
    }

    #[test]
    fn container_sees_its_limit_at_the_root() {
        let limits = [("/sys/fs/cgroup/memory.max", "700")];
        for path in ["/", "/docker/0123", "/../../x"] {
            assert_eq!(memory(&format!("0::{path}"), &limits), Some(700), "{path}");
        }
        let limits = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "600")];
        assert_eq!(memory("4:memory:/docker/0123", &limits), Some(600));
    }

    #[test]
    fn version_1_names_its_controllers() {
        let groups = "5:cpu,cpuacct:/a\n4:hugetlb,memory:/a:b/c\n0::/a\n";
        let limits = [
            (
                "/sys/fs/cgroup/memory/a:b/c/memory.limit_in_bytes",
                "9223372036854771712",
            ),
            ("/sys/fs/cgroup/memory/a:b/memory.limit_in_bytes", "500"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1"),
        ];
        assert_eq!(memory(groups, &limits), Some(500));
        assert_eq!(memory("5:cpu:/a:b", &limits), None);
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let of = |path| ancestors(path).collect::<Vec<_>>();
        assert_eq!(of("/a/b"), ["/a/b", "/a", ""]);
        assert_eq!(of("/"), [""]);
    }
}
