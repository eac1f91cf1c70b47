//! What each stage needs, and whether it is there. Looking takes a few milliseconds: files, no package databases.

use std::path::Path;
use std::process::Command;

use super::compiler::{self, Compiler, Source};
use super::tools::{self, Tool};
use super::{Stage, kernels, linker, python};
use crate::{paths, shell};

/// One thing that is missing.
pub(crate) struct Step {
    /// Its name.
    pub(crate) what: String,
    /// What it is for.
    pub(crate) why: &'static str,
    /// How it is installed.
    pub(crate) action: Action,
}

/// How a missing thing is installed.
pub(crate) enum Action {
    /// A system package.
    Package(String),
    /// Commands that write to the cache only.
    Commands(Vec<Command>),
    /// A command of rustup, which must be there.
    Rustup(Command),
    /// Kernels from Debian's archive, into the cache.
    Kernels,
    /// It cannot be fetched: whoever has it must put it there.
    ByHand,
}

/// Everything that is missing for `stage`, in the order in which to install it.
pub(crate) fn missing(stage: Stage) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    building(&mut steps)?;
    if stage >= Stage::Vm {
        documents(&mut steps, &paths::test_data());
        machines(&mut steps);
    }
    if stage >= Stage::Test {
        program(&mut steps, "c++", "g++", "builds the fuzzer");
        program(&mut steps, "openssl", "openssl", "makes keys and certificates for the tests");
        program(&mut steps, "jq", "jq", "is what the benchmark compares with");
        program(
            &mut steps,
            "docker-registry",
            "docker-registry",
            "is the registry that the tests fetch from",
        );
        tool(&mut steps, tools::FUZZ, "runs the fuzz targets");
    }
    if stage >= Stage::Ci {
        tool(&mut steps, tools::DENY, "checks licences and dependencies");
    }
    Ok(steps)
}

fn building(steps: &mut Vec<Step>) -> anyhow::Result<()> {
    program(steps, "cc", "gcc", "links the agent and builds its cryptography");
    program(steps, "make", "make", "builds the agent's cryptography");
    let compiler = Compiler::find();
    if compiler.is_none() {
        let why = "a compiler with its library's source, for the kernel programs";
        match compiler::source()? {
            Source::Packages(names) => names.iter().for_each(|name| steps.push(package(name, why))),
            Source::Rustup => steps.push(Step {
                what: format!("Rust {}, rust-src", compiler::channel()),
                why,
                action: Action::Rustup(compiler::install()),
            }),
        }
    }
    let llvm = compiler.map_or(0, |c| c.llvm);
    if linker::find(llvm).is_none() {
        let why = "bpf-linker is built with it";
        program(steps, "c++", "g++", why);
        for (name, file) in linker::packages(llvm) {
            if !file.exists() {
                steps.push(package(&name, why));
            }
        }
        steps.push(Step {
            what: format!("bpf-linker {}", linker::VERSION),
            why: "links the kernel programs",
            action: Action::Commands(vec![linker::build(llvm)]),
        });
    }
    Ok(())
}

/// Parts of the test data.
const DOCUMENTS: [&str; 2] = ["sbom", "attestation"];

fn documents(steps: &mut Vec<Step>, data: &Path) {
    if !DOCUMENTS.iter().all(|part| data.join(part).is_dir()) {
        steps.push(Step {
            what: "test data".into(),
            why: "SBOMs and attestations of other tools, as shared/data beside the checkout; it cannot be fetched",
            action: Action::ByHand,
        });
    }
}

fn machines(steps: &mut Vec<Step>) {
    program(steps, "qemu-system-x86_64", "qemu-system-x86", "runs the virtual machines");
    program(steps, "busybox", "busybox-static", "boots the virtual machines");
    program(steps, "xz", "xz-utils", "unpacks kernel modules");
    program(steps, "debootstrap", "debootstrap", "makes the image under test");
    program(steps, "mke2fs", "e2fsprogs", "makes the disks of the virtual machines");
    if !python::ready() {
        let why = "syft, signers and validators that are not ours, for tests and the image under test";
        if !python::can_make() {
            steps.push(package("python3-venv", why));
        }
        steps.push(Step { what: "Python environment".into(), why, action: Action::Commands(python::make()) });
    }
    if kernels::ALL.iter().any(|series| !series.ready()) {
        if !Path::new(super::debian::KEYRING).exists() {
            steps.push(package("debian-archive-keyring", "checks the kernels' signatures"));
        }
        steps.push(Step {
            what: format!("Linux {}", kernels::ALL.map(|s| s.name).join(", ")),
            why: "Debian's kernels, for the virtual machines",
            action: Action::Kernels,
        });
    }
}

fn program(steps: &mut Vec<Step>, name: &str, from: &str, why: &'static str) {
    if shell::find(name).is_none() && !steps.iter().any(|s| s.what == from) {
        steps.push(package(from, why));
    }
}

fn package(name: &str, why: &'static str) -> Step {
    Step { what: name.to_owned(), why, action: Action::Package(name.to_owned()) }
}

fn tool(steps: &mut Vec<Step>, tool: Tool, why: &'static str) {
    if tool.find().is_none() {
        steps.push(Step { what: tool.name.into(), why, action: Action::Commands(vec![tool.install()]) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_test_data_is_a_step_of_its_own() {
        let mut steps = Vec::new();
        documents(&mut steps, &paths::test_data());
        assert_eq!(steps.len(), 0, "{}: the tests need it, too", paths::test_data().display());
        documents(&mut steps, Path::new("/nonexistent"));
        let step = steps.first().expect("it is missing");
        assert!(matches!(step.action, Action::ByHand) && step.why.contains("shared/data"), "{}", step.why);
    }
}
