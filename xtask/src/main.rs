//! The project's own commands: `cargo xtask lab`, `cargo xtask test`, `cargo xtask bench`.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod accelerator;
mod bench;
mod command;
mod dependencies;
mod events;
mod kernel;
mod lab;
mod machine;
mod man;
mod package;
mod packages;
mod rooms;
mod steps;
mod test;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, lab, test and bench commands of the project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Plays the lab: real daemons, real kernel, real packets. Exit status 0 only if every
    /// statement holds.
    Lab(lab::Lab),
    /// Runs every test there is: format, lints, unit tests, fuzz corpus, systemd units, lab and
    /// sabotage.
    Test(test::Test),
    /// Measures the datapath or the key server.
    Bench(bench::Bench),
    /// Makes the example files and manual pages of the configuration files from the declarations of
    /// their options.
    Man(man::Man),
    /// Makes Debian packages of the daemons and of gdoictl, in target/package.
    Package(package::Package),
    /// Checks that the arrows between the crates point the way the architecture says.
    Dependencies,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Lab(lab) => lab::run(&lab),
        Task::Test(test) => test::run(&test),
        Task::Bench(bench) => bench::run(&bench),
        Task::Man(man) => man::run(&man),
        Task::Package(package) => package::run(&package),
        Task::Dependencies => dependencies::check().and_then(|crates| {
            println!("{crates}\n{}", rooms::check()?);
            Ok(true)
        }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
