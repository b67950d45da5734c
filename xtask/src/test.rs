//! `cargo xtask test`: every test there is, and one plain line of count at the end.

use crate::{command, dependencies, lab, packages};
use anyhow::Result;
use clap::Args;
use std::process::Command;
use std::time::Instant;

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
    let mut steps = Steps { only: test.only.clone(), passed: Vec::new(), failed: Vec::new() };
    steps.step("packages", || {
        packages::ensure(packages::SCENARIOS)?;
        packages::ensure(packages::TESTS)?;
        Ok(true)
    });
    steps.step("format", || command::succeeds(&mut command::cargo(&["fmt", "--all", "--check"])));
    steps.step("dependencies", || dependencies::check().map(|line| print_line(&line)));
    steps.step("clippy", || {
        let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        command::succeeds(&mut command::cargo(&arguments))
    });
    steps.step("cargo test", || command::succeeds(&mut command::cargo(&["test", "--workspace", "--no-fail-fast"])));
    if command::is_root() {
        steps.step("kernel entries", || {
            let arguments = ["test", "--workspace", "--test", "kernel", "--", "--ignored"];
            command::succeeds(&mut command::cargo(&arguments))
        });
    } else {
        println!("== kernel entries: left out, they need root to make network namespaces");
    }
    steps.step("documentation", || {
        let mut doc = command::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        command::succeeds(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.step("fuzz targets", replay_fuzz_corpus);
    if !test.without_lab {
        steps.step("lab", || lab::run(&lab::Lab { timeout: 40, ..lab::Lab::default() }));
        steps.step("lab sabotage", || lab::run(&lab::Lab { sabotage: true, timeout: 20, ..lab::Lab::default() }));
    }
    Ok(steps.report())
}

fn print_line(line: &str) -> bool {
    println!("{line}");
    true
}

/// Builds every fuzz target, replays its corpus and goes on for a moment.
fn replay_fuzz_corpus() -> Result<bool> {
    command::succeeds(Command::new(command::workspace().join("fuzz/run")).arg("2"))
}

struct Steps {
    only: Option<String>,
    passed: Vec<String>,
    failed: Vec<String>,
}

impl Steps {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<bool>) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        println!("== {name}");
        let started = Instant::now();
        let ok = work().unwrap_or_else(|error| {
            eprintln!("xtask: {name}: {error:#}");
            false
        });
        println!("== {name}: {} in {:.0} s", if ok { "passed" } else { "FAILED" }, started.elapsed().as_secs_f32());
        if ok { &mut self.passed } else { &mut self.failed }.push(name.to_owned());
    }

    fn report(&self) -> bool {
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed.len(), self.failed.len());
        self.failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_and_an_error_both_count() {
        let mut steps = Steps { only: None, passed: Vec::new(), failed: Vec::new() };
        steps.step("good", || Ok(true));
        steps.step("bad", || Ok(false));
        steps.step("broken", || anyhow::bail!("no tool"));
        assert_eq!(steps.passed, ["good"]);
        assert_eq!(steps.failed, ["bad", "broken"]);
        assert!(!steps.report());
    }
}
