//! What a cgroup path says: container id, runtime, pod. Pure; reads nothing.
//!
//! The names are those that the runtimes give (runc's and crun's cgroup drivers, containerd's CRI plugin, CRI-O's
//! and Podman's cgroup managers, the kubelet's `pkg/kubelet/cm`):
//!
//! | runtime | systemd driver | cgroupfs driver |
//! | --- | --- | --- |
//! | containerd (CRI) | `cri-containerd-<id>.scope` | `kubepods/…/pod<uid>/<id>`, `<slice>:cri-containerd:<id>` |
//! | containerd (ctr, nerdctl) | `nerdctl-<id>.scope` | `/<namespace>/<id>` |
//! | CRI-O | `crio-<id>.scope` | `crio-<id>` |
//! | Docker | `docker-<id>.scope` | `/docker/<id>`, `/<id>` (old) |
//! | Podman | `libpod-<id>.scope` | `/libpod_parent/libpod-<id>` |
//!
//! The outermost container counts: whoever may make cgroups inside of it chooses the names there, and no name makes it
//! another container or the host. `crio-conmon-…` and `libpod-conmon-…`, beside a container, hold its monitor, a program of
//! the host. A name is taken for a container's only when its id has the runtime's form (64 hexadecimal digits; in pods
//! also Fargate's), so a service that happens to be called `docker-proxy.scope` is not one. Whether a name is believed is
//! another question: [`belief`](super::belief).

/// Container runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// The path has a container's id but does not say whose.
    Other,
}

impl Runtime {
    /// The name in a workload's id (`docker://<id>`), as Kubernetes spells it in `containerID`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Other => "container",
        }
    }
}

/// A container, by its cgroup path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// Whose it is.
    pub runtime: Runtime,
    /// Container id, whole.
    pub id: &'a str,
    /// Pod UID as the path spells it; see [`pod_uid`].
    pub pod: Option<&'a str>,
    /// Length of the path up to and including the container's own cgroup.
    pub end: usize,
}

/// Longest cgroup path that is looked at. The kernel's own limit is `PATH_MAX`.
pub(super) const MAX_PATH: usize = 4096;

/// A cgroup path that is longer than what is looked at, so that it is not known what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cgroup path of more than {MAX_PATH} bytes")]
pub struct TooLong;

/// The outermost container of a cgroup path, or `None` when the path names none.
///
/// # Errors
/// The path is too long.
pub fn container(path: &str) -> Result<Option<Container<'_>>, TooLong> {
    if path.len() > MAX_PATH {
        return Err(TooLong);
    }
    let mut pod = None;
    let mut kubepods = false;
    let mut parent = "";
    let mut depth = 0;
    let mut at = 0;
    for segment in path.split('/') {
        let end = at + segment.len();
        at = end + 1;
        if segment.is_empty() || segment == ".." || segment == "." {
            continue;
        }
        depth += 1;
        kubepods |= segment == "kubepods" || segment == "kubepods.slice";
        pod = pod_of(segment, kubepods).or(pod);
        if let Some((runtime, id)) = of_segment(segment, parent, pod.is_some(), depth) {
            return Ok(Some(Container { runtime, id, pod, end }));
        }
        parent = segment;
    }
    Ok(None)
}

/// A pod UID in its usual spelling (the systemd driver writes `_` for `-`).
pub fn pod_uid(spelling: &str) -> String {
    spelling.replace('_', "-")
}

fn of_segment<'a>(segment: &'a str, parent: &str, in_pod: bool, depth: usize) -> Option<(Runtime, &'a str)> {
    // `<slice>:cri-containerd:<id>`: a slice's name given to a runtime that uses the cgroupfs driver.
    if let Some((slice, id)) = segment.rsplit_once(':') {
        let prefix = slice.rsplit(':').next().unwrap_or_default();
        return is_id(id).then(|| (of_prefix(prefix).unwrap_or(Runtime::Other), id));
    }
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    if let Some((prefix, id)) = name.rsplit_once('-')
        && is_id(id)
    {
        return of_prefix(prefix).map(|runtime| (runtime, id));
    }
    if name.len() != segment.len() {
        return None;
    }
    let task = in_pod && is_ecs_id(name);
    if !is_id(name) && !task {
        return None;
    }
    let runtime = match parent {
        "docker" => Runtime::Docker,
        "libpod_parent" => Runtime::Podman,
        // The cgroupfs driver under a pod: containerd's CRI plugin or Docker's shim; the path does not say which.
        _ if in_pod => Runtime::Other,
        // containerd without CRI: `/<namespace>/<id>`.
        _ if depth == 2 && !parent.contains('.') => Runtime::Containerd,
        _ => Runtime::Other,
    };
    Some((runtime, name))
}

fn of_prefix(prefix: &str) -> Option<Runtime> {
    match prefix {
        "cri-containerd" | "containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" => Some(Runtime::Podman),
        _ => None,
    }
}

/// The pod UID in `pod<uid>` (below `kubepods`), `kubepods-pod<uid>.slice` or `kubepods-<class>-pod<uid>.slice`, the
/// last two also before `:cri-containerd:`.
fn pod_of(segment: &str, kubepods: bool) -> Option<&str> {
    let head = segment.split(':').next().unwrap_or_default();
    let (name, slice) = match head.strip_suffix(".slice") {
        Some(name) => (name, true),
        None => (head, false),
    };
    let uid = if slice || head.len() != segment.len() {
        let rest = name
            .strip_prefix("kubepods-")
            .or_else(|| name.rsplit_once("-kubepods-").map(|(_, rest)| rest))?;
        let rest =
            rest.strip_prefix("besteffort-").or_else(|| rest.strip_prefix("burstable-")).unwrap_or(rest);
        rest.strip_prefix("pod")?
    } else {
        name.strip_prefix("pod").filter(|_| kubepods)?
    };
    is_pod_uid(uid).then_some(uid)
}

/// A UUID with `-` or `_`, or the 32 hexadecimal digits of a static pod.
fn is_pod_uid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits == 32
        && (text.len() == 32 || text.len() == 36)
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-' || b == b'_')
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `<32 hexadecimal digits>-<decimal>`: AWS Fargate.
fn is_ecs_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && task.bytes().all(|b| b.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// One line of `/proc/<pid>/cgroup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Hierarchy number; 0 for cgroup v2.
    pub hierarchy: u32,
    /// Controllers (v1) or `name=…`; empty for cgroup v2.
    pub controllers: &'a str,
    /// Path from the root of the hierarchy, as seen from the agent's cgroup namespace (may begin with `/..`).
    pub path: &'a str,
}

/// A text that is not of the form of `/proc/<pid>/cgroup`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CgroupTextError {
    /// Too many lines.
    #[error("expected at most {MAX_LINES} lines in a /proc/<pid>/cgroup, found more")]
    TooManyLines,
    /// A line that does not read `number:controllers:/path`.
    #[error("line {0}: expected `number:controllers:/path`")]
    Malformed(usize),
}

/// Most lines of a `/proc/<pid>/cgroup`: one per hierarchy, and the kernel has 16 controllers at most (`CGROUP_SUBSYS_COUNT`), plus
/// named ones.
pub(super) const MAX_LINES: usize = 64;

/// Lines of `/proc/<pid>/cgroup` (`proc_cgroup_show`). A cgroup that was removed has ` (deleted)` after its path;
/// it is left out.
pub fn lines(text: &str) -> Result<Vec<Line<'_>>, CgroupTextError> {
    let mut out = Vec::with_capacity(16);
    for (number, line) in text.lines().enumerate() {
        if number >= MAX_LINES {
            return Err(CgroupTextError::TooManyLines);
        }
        let mut parts = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (parts.next(), parts.next(), parts.next());
        let (Some(Ok(hierarchy)), Some(controllers), Some(path)) =
            (hierarchy.map(str::parse::<u32>), controllers, path)
        else {
            return Err(CgroupTextError::Malformed(number + 1));
        };
        if !path.starts_with('/') {
            return Err(CgroupTextError::Malformed(number + 1));
        }
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        out.push(Line { hierarchy, controllers, path });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "05c48c82caff3be3d7f1e896981dd410e81487538936914f32b624d168de9db0";
    const B: &str = "99b40d83503dd15f7f68348b43d8a310641357635358debfb6a8dcb8b571cba5";

    #[test]
    fn paths() {
        use Runtime::{Containerd, CriO, Docker, Other, Podman};
        // (path with A and B for ids, runtime, id, pod)
        let found: &[(&str, Runtime, &str, Option<&str>)] = &[
            // Kubernetes, systemd driver, cgroup v2.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podc704ef4c297ab11032b83ce52cbfc87b.slice/cri-containerd-A.scope",
                Containerd,
                A,
                Some("c704ef4c297ab11032b83ce52cbfc87b"),
            ),
            (
                "/kubepods.slice/kubepods-pod87a18a64_b74a_454a_b10b_a4a36059d0a3.slice/crio-A.scope/container",
                CriO,
                A,
                Some("87a18a64-b74a-454a-b10b-a4a36059d0a3"),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0086d247_7fe3_4d93_a3fb_976a918797d7.slice/docker-A.scope",
                Docker,
                A,
                Some("0086d247-7fe3-4d93-a3fb-976a918797d7"),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0086d247_7fe3_4d93_a3fb_976a918797d7.slice/A",
                Other,
                A,
                Some("0086d247-7fe3-4d93-a3fb-976a918797d7"),
            ),
            // Kubernetes, cgroupfs driver.
            (
                "/kubepods/besteffort/pod74c13223-5a00-11e9-b385-42010a80018d/A",
                Other,
                A,
                Some("74c13223-5a00-11e9-b385-42010a80018d"),
            ),
            (
                "/kubepods/pod74c13223-5a00-11e9-b385-42010a80018d/crio-A",
                CriO,
                A,
                Some("74c13223-5a00-11e9-b385-42010a80018d"),
            ),
            // A systemd slice name in the hands of the cgroupfs driver.
            (
                "/system.slice/containerd.service/kubepods-burstable-pod00b50989_1d00_4d7c_904f_84bcbc28d719.slice:cri-containerd:A",
                Containerd,
                A,
                Some("00b50989-1d00-4d7c-904f-84bcbc28d719"),
            ),
            // Seen from a pod's cgroup namespace.
            (
                "/../../podc704ef4c-297a-b110-32b8-3ce52cbfc87b/../kubepods/burstable/pod74c13223-5a00-11e9-b385-42010a80018d/A",
                Other,
                A,
                Some("74c13223-5a00-11e9-b385-42010a80018d"),
            ),
            ("/../cri-containerd-A.scope", Containerd, A, None),
            // Without Kubernetes.
            ("/docker/A", Docker, A, None),
            ("/system.slice/docker-A.scope", Docker, A, None),
            // What these say is not believed, but it is what they say.
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-A.scope", Docker, A, None),
            ("/A", Other, A, None),
            ("/default/A", Containerd, A, None),
            ("/system.slice/nerdctl-A.scope", Containerd, A, None),
            ("/machine.slice/libpod-A.scope/container", Podman, A, None),
            ("/libpod_parent/libpod-A", Podman, A, None),
            ("/machine.slice/machine-libpod_pod_B.slice/libpod-A.scope", Podman, A, None),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-A.scope/container",
                Podman,
                A,
                None,
            ),
            // What runs inside: its own services and cgroups are the container's.
            ("/docker/A/system.slice/nginx.service", Docker, A, None),
            ("/machine.slice/libpod-A.scope/container/init.scope", Podman, A, None),
            // Nested: the outermost, whatever the names inside say.
            ("/docker/A/docker/B", Docker, A, None),
            ("/libpod_parent/libpod-A/system.slice/docker-B.scope", Podman, A, None),
            ("/docker/A/libpod-conmon-x", Docker, A, None),
            ("/docker/A/libpod-conmon-B.scope", Docker, A, None),
            ("/machine.slice/libpod-A.scope/crio-conmon-A.scope", Podman, A, None),
            ("/docker/A/user.slice/user-1000.slice/user@1000.service/docker-B.scope", Docker, A, None),
            (
                "/docker/A/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod74c13223_5a00_11e9_b385_42010a80018d.slice/cri-containerd-B.scope",
                Docker,
                A,
                None,
            ),
        ];
        for (path, runtime, id, pod) in found {
            let path = path.replace('A', A).replace('B', B);
            let got = container(&path).expect("short").unwrap_or_else(|| panic!("no container in {path}"));
            assert_eq!((got.runtime, got.id), (*runtime, *id), "{path}");
            assert_eq!(got.pod.map(pod_uid).as_deref(), *pod, "{path}");
            assert!(path[..got.end].contains(A), "{path}: {}", &path[..got.end]);
        }
    }

    #[test]
    fn own_cgroup_ends_at_the_container() {
        let path = format!("/docker/{A}/system.slice/nginx.service");
        let end = container(&path).expect("short").map(|c| c.end);
        assert_eq!(end.map(|end| path[..end].to_owned()), Some(format!("/docker/{A}")));
    }

    #[test]
    fn no_container() {
        let none = [
            "/",
            "",
            "/init.scope",
            "/user.slice/user-1000.slice/session-3.scope",
            "/system.slice/docker.service",
            "/system.slice/containerd.service",
            "/system.slice/docker-proxy.scope",
            "/system.slice/crio-conmon-A.scope",
            "/kubepods.slice/kubepods-pod87a18a64_b74a_454a_b10b_a4a36059d0a3.slice/crio-conmon-A.scope",
            "/machine.slice/libpod-conmon-A.scope",
            "/kubepods.slice/kubepods-pod87a18a64_b74a_454a_b10b_a4a36059d0a3.slice",
            "/system.slice/var-lib-docker-containers-A-mounts-shm.mount",
            "/docker/tooshort",
            "/process_api/bb187e63dfff3e62b1fc6ad5b8d72045",
            "/docker/05C48C82CAFF3BE3D7F1E896981DD410E81487538936914F32B624D168DE9DB0",
        ];
        for path in none {
            let path = path.replace("-A", &format!("-{A}"));
            assert_eq!(container(&path), Ok(None), "{path}");
        }
        let long = format!("/{}/docker/{A}", "x".repeat(MAX_PATH));
        assert_eq!(container(&long), Err(TooLong), "neither a container nor the host");
    }

    #[test]
    fn no_name_inside_a_container_leaves_it() {
        let outer = [
            "/docker/A",
            "/system.slice/docker-A.scope",
            "/kubepods/pod74c13223-5a00-11e9-b385-42010a80018d/A",
        ];
        let inner = [
            "libpod-conmon-B.scope",
            "crio-conmon-B",
            "docker-B.scope",
            "B",
            "docker",
            "kubepods",
            "..",
            "user@0.service",
            "podc704ef4c297ab11032b83ce52cbfc87b",
            "0123456789abcdef0123456789abcdef-25",
            "x:cri-containerd:B",
        ];
        for outer in outer.map(|path| path.replace('A', A)) {
            let alone = container(&outer);
            for (first, second) in inner.iter().flat_map(|one| inner.iter().map(move |other| (one, other))) {
                let path = format!("{outer}/{first}/{second}").replace('B', B);
                assert_eq!(container(&path), alone, "{path}");
            }
        }
    }

    #[test]
    fn fargate() {
        let path =
            "/kubepods/pod74c13223-5a00-11e9-b385-42010a80018d/0123456789abcdef0123456789abcdef-2531612879";
        assert_eq!(
            container(path).map(|c| c.map(|c| c.id)),
            Ok(Some("0123456789abcdef0123456789abcdef-2531612879"))
        );
    }

    #[test]
    fn texts() {
        let text = "9:name=systemd:/\n3:cpu,cpuacct:/docker/x:y\n0::/a (deleted)\n";
        assert_eq!(
            lines(text),
            Ok(vec![
                Line { hierarchy: 9, controllers: "name=systemd", path: "/" },
                Line { hierarchy: 3, controllers: "cpu,cpuacct", path: "/docker/x:y" },
                Line { hierarchy: 0, controllers: "", path: "/a" },
            ])
        );
        assert_eq!(lines("0::relative\n"), Err(CgroupTextError::Malformed(1)));
        assert_eq!(lines("0::/\nx:cpu:/\n"), Err(CgroupTextError::Malformed(2)));
        assert_eq!(lines("0:/\n"), Err(CgroupTextError::Malformed(1)));
        assert_eq!(lines(&"1:cpu:/\n".repeat(65)), Err(CgroupTextError::TooManyLines));
    }
}
