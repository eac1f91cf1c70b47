//! The directories.

use std::os::unix::fs::symlink;

use super::*;
use crate::config::FileRule;

#[test]
fn a_host_brings_its_own_attestation() {
    let mut drop = Drop::new();
    let own = tempfile::tempdir().unwrap();
    drop.config.host.directory = own.path().join("attested-sbom");
    let images = drop.images();
    assert_eq!(images.refused().as_slice(), [], "many hosts have no such directory");
    let watch = images.watch().unwrap();

    let (verity, os_release, key) = (Sha256([1; 32]), Sha256([2; 32]), Sha256([3; 32]));
    let host =
        Digests { verity: vec![verity], os_release: Some(os_release), key: Some(key), ..Digests::default() };
    assert!(matches!(images.get(&host).state, ImageState::NoSbom));
    fs::create_dir(&drop.config.host.directory).unwrap();
    let file = drop.config.host.directory.join("host.json");
    fs::write(&file, envelope(&drop.key, &[os_release], &sbom(&["/usr/bin/a"]))).unwrap();
    wait_until(|| images.get(&host).binding() == Some(Binding::OsRelease));
    assert_eq!(documents(&images.get(&host)), [file.to_str().unwrap()]);

    // With one in the drop directory it is as weak as the weaker one.
    drop.put("key.json", envelope(&drop.key, &[key], &sbom(&["/usr/bin/b"])));
    wait_until(|| images.get(&host).documents().len() == 2);
    assert_eq!(images.get(&host).binding(), Some(Binding::Key));
    fs::remove_file(drop.path("key.json")).unwrap();
    drop.put("verity.json", envelope(&drop.key, &[verity, os_release], &sbom(&["/usr/bin/b"])));
    wait_until(|| images.get(&host).documents().iter().any(|d| d.binding == Binding::VerityRoot));
    fs::remove_file(&file).unwrap();
    wait_until(|| images.get(&host).binding() == Some(Binding::VerityRoot));

    // The same rules hold there.
    fs::write(&file, envelope(&drop.key, &[os_release], &sbom(&["/usr/bin/a"]))).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    wait_until(|| images.refused().first().is_some_and(|r| r.file.ends_with("/host.json")));
    std::mem::drop(watch);
}

/// As Kubernetes mounts a ConfigMap: links, in directories that everybody may write by their mode.
#[test]
fn a_config_map_is_read_when_that_is_allowed() {
    let mut drop = Drop::new();
    let _keys = drop.with_key_elsewhere();
    let version = |name: &str, path: &str| {
        fs::create_dir(drop.path(name)).unwrap();
        drop.put(&format!("{name}/a.json"), envelope(&drop.key, &[A], &sbom(&[path])));
        symlink(name, drop.path("..data_tmp")).unwrap();
        fs::rename(drop.path("..data_tmp"), drop.path("..data")).unwrap();
    };
    version("..1", "/bin/one");
    symlink("..data/a.json", drop.path("a.json")).unwrap();
    assert!(drop.images().refused()[0].reason.contains("attestation.allow = [\"symlinks\"]"));

    let config = drop.with(|a| a.allow = vec![FileRule::Symlinks]);
    let images = Images::new(&config, Metrics::new()).unwrap();
    images.load_now();
    let watch = images.watch().unwrap();
    assert!(images.get(&named(A)).index().unwrap().by_path(b"/bin/one").is_some());
    version("..2", "/bin/two");
    wait_until(|| images.get(&named(A)).index().is_some_and(|index| index.by_path(b"/bin/two").is_some()));
    assert_eq!(documents(&images.get(&named(A))), ["a.json"]);
    std::mem::drop(watch);

    fs::set_permissions(drop.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let both = drop.with(|a| a.allow = vec![FileRule::Symlinks, FileRule::Writable]);
    for (config, verified) in [(config, false), (both, true)] {
        let images = Images::new(&config, Metrics::new()).unwrap();
        images.load_now();
        assert_eq!(is_verified(&images.get(&named(A)).state), verified, "{:?}", images.refused());
    }
}
