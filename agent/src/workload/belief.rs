//! Whether a cgroup's name is believed.
//!
//! A container is what a runtime says it is, never what a cgroup is called: any user with a delegated subtree can name a
//! cgroup like a container, and so leave the host's SBOM or choose another image's. Until runtimes are asked, a name counts
//! only if root gave it: its directory and all above it belong to user 0 (whoever makes a cgroup owns its directory:
//! `cgroup_kn_set_ugid()` in the kernel's `kernel/cgroup/cgroup.c`), and none of them is where systemd lets a user make
//! cgroups. What is not believed is the host's.

/// Who named a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// Root.
    Believed,
    /// Somebody else may have; why, in words.
    Refused(String),
    /// The agent cannot see the directory.
    NotSeen,
}

/// Of the cgroup at `path`. `root`: the user whose names count. `owner`: the user that a directory on the way belongs to; `None` if it cannot be seen.
pub(super) fn of(path: &str, root: u32, owner: impl Fn(&str) -> Option<u32>) -> Belief {
    if let Some(place) = path.split('/').find(|segment| is_of_a_user(segment)) {
        return Belief::Refused(format!("it lies in {place}, where a user may make cgroups"));
    }
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    for ancestor in ends.map(|end| &path[..end]).filter(|ancestor| !ancestor.ends_with('/')) {
        match owner(ancestor) {
            Some(user) if user == root => {}
            Some(user) => return Belief::Refused(format!("{ancestor} belongs to user {user}")),
            None => return Belief::NotSeen,
        }
    }
    Belief::Believed
}

/// `user@UID.service` and `user-UID.slice` (systemd.special(7)) of anybody but root.
fn is_of_a_user(segment: &str) -> bool {
    let inner = |start: &str, end: &str| segment.strip_prefix(start)?.strip_suffix(end);
    inner("user@", ".service").or_else(|| inner("user-", ".slice")).is_some_and(|user| user != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything belongs to root, but for what is below `/given`, and `/hidden` cannot be seen.
    fn owner(path: &str) -> Option<u32> {
        match path {
            _ if path.starts_with("/given") => Some(1000),
            _ if path.starts_with("/hidden") => None,
            _ => Some(0),
        }
    }

    #[test]
    fn only_what_root_named_is_believed() {
        let refused = |why: &str| Belief::Refused(why.to_owned());
        let slice = "it lies in user-1000.slice, where a user may make cgroups";
        for (path, expected) in [
            ("/", Belief::Believed),
            ("/docker/x", Belief::Believed),
            ("//docker//x/", Belief::Believed),
            ("/given", refused("/given belongs to user 1000")),
            ("/given/docker-x.scope", refused("/given belongs to user 1000")),
            ("/hidden/docker-x.scope", Belief::NotSeen),
            ("/user.slice/user-1000.slice/session-3.scope/x", refused(slice)),
            ("/user.slice/user-1000.slice/user@1000.service/docker-x.scope", refused(slice)),
            (
                "/x/user@1000.service/y",
                refused("it lies in user@1000.service, where a user may make cgroups"),
            ),
            ("/user.slice/user-0.slice/user@0.service/docker-x.scope", Belief::Believed),
            ("/system.slice/user-runtime.service", Belief::Believed),
        ] {
            assert_eq!(of(path, 0, owner), expected, "{path}");
        }
        let root_below = |path: &str| Some(u32::from(path == "/a/b"));
        assert_eq!(
            of("/a/b/c/d", 0, root_below),
            refused("/a/b belongs to user 1"),
            "one on the way is enough"
        );
    }
}
