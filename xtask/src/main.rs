//! `cargo xtask`: everything a person types that is not `cargo build`.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod ebpf;
mod ebpf_source;
mod fuzz;
mod paths;
mod run;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Tasks of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
enum Task {
    /// Install what building, running and testing take; the other tasks call it for themselves.
    Setup(setup::Args),
    /// Build the kernel programs.
    BuildEbpf(ebpf::Args),
    /// Attest this host, watch it, and show what misbehaviour gives.
    Run(run::Args),
    /// Test everything: unit tests, fuzz targets, the demonstration, the scenarios in virtual machines.
    Test(test::Args),
    /// Run the fuzz targets.
    Fuzz(fuzz::Args),
    /// Run the scenario suite, or one program, on stock kernels in virtual machines.
    Vm(vm::Args),
    /// Measure costs, speeds and sizes.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Setup(args) => args.run(),
        Task::BuildEbpf(args) => args.build().map(|object| {
            println!("{}", object.display());
            ExitCode::SUCCESS
        }),
        Task::Run(args) => args.run(),
        Task::Test(args) => args.run(),
        Task::Fuzz(args) => args.run(),
        Task::Vm(args) => args.run(),
        Task::Bench(args) => args.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cargo xtask: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Task::command().debug_assert();
    }
}
