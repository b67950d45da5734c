//! `cargo xtask test`: every test there is, and one plain line of count at the end.

use crate::steps::{self, Ended, Output};
use crate::{command, dependencies, packages};
use anyhow::Result;
use clap::Args;
use std::process::Command;

#[derive(Args)]
pub struct Test {
    /// Leaves the lab out (it takes the longest).
    #[arg(long)]
    pub without_lab: bool,
    /// Runs only the steps whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

/// Runs the steps; true when all passed.
///
/// # Errors
/// Never for a failing step; only when the tools themselves cannot be run at all.
pub fn run(test: &Test) -> Result<bool> {
    let mut steps = Steps { only: test.only.clone(), ended: Vec::new() };
    steps.step("packages", |_| {
        packages::ensure(packages::SCENARIOS)?;
        packages::ensure(packages::TESTS)?;
        Ok(true)
    });
    steps.step("format", |output| output.run(&mut command::cargo(&["fmt", "--all", "--check"])));
    steps.step("dependencies", |output| {
        output.line(&dependencies::check()?);
        Ok(true)
    });
    steps.step("clippy", |output| {
        let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        output.run(&mut command::cargo(&arguments))
    });
    steps.step("cargo test", |output| output.run(&mut command::cargo(&["test", "--workspace", "--no-fail-fast"])));
    if command::is_root() {
        steps.step("kernel entries", |output| {
            let arguments = ["test", "--workspace", "--test", "kernel", "--", "--ignored"];
            output.run(&mut command::cargo(&arguments))
        });
    } else {
        println!("== kernel entries: left out, they need root to make network namespaces");
    }
    steps.step("documentation", |output| {
        let mut doc = command::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        output.run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.step("fuzz targets", replay_fuzz_corpus);
    if !test.without_lab {
        steps.step("lab", |output| output.run(lab()?.args(["--timeout", "40"])));
        steps.step("lab sabotage", |output| output.run(lab()?.args(["--sabotage", "--timeout", "20"])));
    }
    let (text, ok) = steps::report(&steps.ended);
    print!("{text}");
    Ok(ok)
}

/// This program's own `lab`, as a process, so that its output can be kept.
fn lab() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("lab").current_dir(command::workspace());
    Ok(command)
}

/// Builds every fuzz target, replays its corpus and goes on for a moment.
fn replay_fuzz_corpus(output: &mut Output) -> Result<bool> {
    output.run(Command::new(command::workspace().join("fuzz/run")).arg("2"))
}

struct Steps {
    only: Option<String>,
    ended: Vec<Ended>,
}

impl Steps {
    fn step(&mut self, name: &'static str, work: impl FnOnce(&mut Output) -> Result<bool>) {
        if self.only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            self.ended.push(steps::perform(name, "", work));
        }
    }
}
