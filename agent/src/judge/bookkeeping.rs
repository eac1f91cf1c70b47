//! Where package managers keep their records, and what of it they run.
//!
//! No digest of it can be in their databases, so it is excused by its place, and whoever makes a package manager write there gets a place
//! to hide. So only what cannot run is excused anywhere in it, and of what can run only maintainer scripts, by their names, and only for
//! the package manager and what descends from it: [`updates`](super::updates).

use crate::glob;

/// Databases, caches and logs.
const PLACES: [&[u8]; 11] = [
    b"/var/lib/dpkg/",
    b"/var/cache/debconf/",
    b"/var/cache/apt/",
    b"/var/lib/rpm/",
    b"/usr/lib/sysimage/rpm/",
    b"/var/tmp/rpm-tmp.",
    b"/lib/apk/",
    b"/usr/lib/apk/",
    b"/var/log/dpkg.log",
    b"/var/log/alternatives.log",
    b"/var/log/apt/",
];

/// Where dpkg, debconf, rpm and apk put the scripts that they run.
const SCRIPTS: [&str; 10] = [
    "/var/lib/dpkg/info/*.preinst",
    "/var/lib/dpkg/info/*.postinst",
    "/var/lib/dpkg/info/*.prerm",
    "/var/lib/dpkg/info/*.postrm",
    "/var/lib/dpkg/info/*.config",
    "/var/lib/dpkg/tmp.ci/*",
    "/var/cache/debconf/tmp.ci/*",
    "/var/tmp/rpm-tmp.*",
    "/lib/apk/exec/*",
    "/usr/lib/apk/exec/*",
];

/// The file lies where package managers keep their records.
pub(super) fn is_place(path: &[u8]) -> bool {
    PLACES.iter().any(|place| path.starts_with(place))
}

/// The file has the name of a maintainer script.
pub(super) fn is_script(path: &[u8]) -> bool {
    // While it is written it has another name.
    let path = path.strip_suffix(b".dpkg-new").unwrap_or(path);
    std::str::from_utf8(path).is_ok_and(|path| SCRIPTS.iter().any(|script| glob::matches(script, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_of_packages_may_run() {
        for (path, place, script) in [
            ("/var/lib/dpkg/status", true, false),
            ("/var/lib/dpkg/x", true, false),
            ("/var/lib/dpkg/info/x", true, false),
            ("/var/lib/dpkg/info/x.list", true, false),
            ("/var/lib/dpkg/info/x.postinst", true, true),
            ("/var/lib/dpkg/info/x:amd64.prerm", true, true),
            ("/var/lib/dpkg/info/d/x.postinst", true, false),
            ("/var/lib/dpkg/info/x.postinst.so", true, false),
            ("/var/lib/dpkg/tmp.ci/preinst", true, true),
            ("/var/lib/dpkg/tmp.ci/preinst.dpkg-new", true, true),
            ("/var/cache/debconf/tmp.ci/x.config.a1b2", true, true),
            ("/var/cache/apt/pkgcache.bin", true, false),
            ("/var/cache/apt/x.postinst", true, false),
            ("/var/tmp/rpm-tmp.abc", true, true),
            ("/usr/lib/apk/exec/x.post-install", true, true),
            ("/usr/lib/apk/x", true, false),
            ("/usr/bin/x.postinst", false, false),
            ("/var/lib/dpkg", false, false),
        ] {
            assert_eq!((is_place(path.as_bytes()), is_script(path.as_bytes())), (place, script), "{path}");
        }
    }
}
