//! A machine with the image under test as its root and the programs under test on a disk of their own, `/muster`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::guest;
use super::image::Image;
use super::qemu::{EXIT, Machine, Outcome};
use crate::setup::kernels::Series;
use crate::{paths, shell};

/// The initramfs's last words: the image becomes the root, and `/muster/init` its first process.
const HAND_OVER: &str = "mount -t ext4 /dev/vda /root\nmount -t ext4 -o ro /dev/vdb /root/muster\n\
                         for each in proc sys dev tmp run; do mount --move /$each /root/$each; done\n\
                         exec switch_root /root /bin/sh /muster/init\n";

/// What is run in the machine.
pub(super) struct Job<'a> {
    /// Name for messages and files.
    pub(super) name: &'a str,
    /// Shell line; its output are the results, its status the machine's.
    pub(super) line: String,
    /// Files for `/muster` beside the programs under test.
    pub(super) files: &'a [PathBuf],
    /// See [`Machine::count_instructions`].
    pub(super) count_instructions: bool,
    /// See [`Machine::cpus`].
    pub(super) cpus: u32,
}

impl Job<'_> {
    /// Boots the kernel and runs the job.
    pub(super) fn run(
        &self,
        series: &Series,
        image: &Image,
        line: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Outcome> {
        let machine = Machine {
            name: format!("{}-{}", self.name, series.name),
            kernel: series.image(),
            initramfs: guest::initramfs(series, HAND_OVER)?.finish(),
            disks: vec![image.root(), self.inputs(series, image)?],
            directory: super::directory(),
            limit: Duration::from_secs(1500),
            count_instructions: self.count_instructions,
            cpus: self.cpus,
            memory: 2048,
        };
        machine.run(line)
    }

    fn inputs(&self, series: &Series, image: &Image) -> anyhow::Result<PathBuf> {
        let directory = super::directory().join(format!("{}-{}-inputs", self.name, series.name));
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(directory.join("attestations"))?;
        let copy = |from: &Path, to: &Path| {
            fs::copy(from, directory.join(to))
                .with_context(|| format!("copying {}", from.display()))
                .map(drop)
        };
        let programs = ["muster", "suite", "tool"].map(paths::release);
        let image_files = ["key.pub", "image-digest"].map(|name| image.directory.join(name));
        for file in programs.iter().chain(&image_files).chain(self.files) {
            copy(file, Path::new(file.file_name().context("a file has a name")?))?;
        }
        for entry in fs::read_dir(image.directory.join("attestations"))? {
            let name = Path::new("attestations").join(entry?.file_name());
            copy(&image.directory.join(&name), &name)?;
        }
        fs::write(
            directory.join("init"),
            format!(
                "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8\n\
                 {} >/dev/ttyS1 2>/dev/console </dev/null\n\
                 echo \"{EXIT}$?\" >/dev/ttyS1\nsleep 1\necho o >/proc/sysrq-trigger\nsleep 60\n",
                self.line
            ),
        )?;
        let disk = super::directory().join(format!("{}-{}.ext4", self.name, series.name));
        if disk.exists() {
            fs::remove_file(&disk)?;
        }
        let mke2fs =
            shell::find("mke2fs").context("mke2fs is missing; `cargo xtask setup --for vm` installs it")?;
        let mut make = shell::command(mke2fs, ["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"]);
        let output = make.arg(&directory).arg(&disk).arg("512M");
        shell::output(output)?;
        Ok(disk)
    }
}
