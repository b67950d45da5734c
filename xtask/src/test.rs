//! `cargo xtask test`: every test there is, and one plain line of count at the end.

use crate::steps::{self, Ended, Output};
use crate::{command, dependencies, packages, rooms};
use anyhow::{Result, bail};
use clap::Args;
use std::process::Command;
use std::thread;

#[derive(Args)]
pub(crate) struct Test {
    /// Leaves the lab out (it takes the longest).
    #[arg(long)]
    pub without_lab: bool,
    /// Runs only the steps whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

/// Runs the steps; true when all passed.
///
/// The lab mostly waits for its packets, so the steps that only compile and compute run beside it.
///
/// # Errors
/// Never for a failing step; only when the tools themselves cannot be run at all.
pub(crate) fn run(test: &Test) -> Result<bool> {
    println!(
        "xtask: {} on two cores; the first build adds 3",
        if test.without_lab {
            "everything but the lab takes 4 to 5 minutes"
        } else {
            "everything takes 20 to 22 minutes, and 4 to 5 with --without-lab,"
        }
    );
    let mut first = Lane::new(test, "");
    first.step("packages", |_| {
        packages::ensure(&[packages::LAB, packages::TEST])?;
        Ok(true)
    });
    // This also builds what the lab plays: a build of its own would have other features and compile
    // everything again.
    let built = first.step("build", |output| {
        output.run(&mut command::cargo(&["test", "--workspace", "--no-run"]))
    });
    let mut ended = first.ended;
    let lanes = thread::scope(|scope| {
        let lab = scope.spawn(|| {
            let mut lane = Lane::new(test, "lab | ");
            if !test.without_lab {
                lane.step("lab", |output| output.run(&mut lab(built)?));
            }
            lane.ended
        });
        let others = everything_else(test);
        let crashed = |_| vec![steps::perform("lab", "", |_| bail!("its thread panicked"))];
        [others, lab.join().unwrap_or_else(crashed)]
    });
    ended.extend(lanes.into_iter().flatten());
    let (text, ok) = steps::report(&ended);
    print!("{text}");
    Ok(ok)
}

fn everything_else(test: &Test) -> Vec<Ended> {
    let mut lane = Lane::new(test, "");
    lane.step("format", |output| output.run(&mut command::cargo(&["fmt", "--all", "--check"])));
    lane.step("dependencies", |output| {
        output.line(&dependencies::check()?);
        output.line(&rooms::check()?);
        Ok(true)
    });
    lane.step("cargo test", |output| {
        output.run(&mut command::cargo(&["test", "--workspace", "--no-fail-fast"]))
    });
    if command::is_root() {
        lane.step("kernel entries", |output| {
            let tests = ["kernel", "forwarding", "clear", "clear_ipv6"];
            let tests = tests.map(|name| ["--test", name]).concat();
            let arguments = [&["test", "--workspace"], &tests[..], &["--", "--ignored"]].concat();
            output.run(&mut command::cargo(&arguments))
        });
    } else {
        println!("== kernel entries: left out, they need root to make network namespaces");
    }
    lane.step("clippy", |output| {
        let arguments =
            ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        output.run(&mut command::cargo(&arguments))
    });
    lane.step("documentation", |output| {
        let mut doc = command::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        output.run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    lane.step("fuzz targets", |output| {
        // Hunting wants speed, replaying what was found wants to be built soon.
        let mut run = Command::new(command::workspace().join("fuzz/run"));
        run.arg("2")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        output.run(&mut run)
    });
    lane.ended
}

/// This program's own `lab`, as a process, so that its output can be kept.
fn lab(built: bool) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["lab", "--sabotage", "--timeout", "60"]).current_dir(command::workspace());
    if built {
        command.arg("--no-build");
    }
    Ok(command)
}

/// Steps one after the other.
struct Lane<'a> {
    test: &'a Test,
    prefix: &'static str,
    ended: Vec<Ended>,
}

impl<'a> Lane<'a> {
    fn new(test: &'a Test, prefix: &'static str) -> Self {
        Self { test, prefix, ended: Vec::new() }
    }

    /// Whether it was asked for and passed.
    fn step(&mut self, name: &'static str, work: impl FnOnce(&mut Output) -> Result<bool>) -> bool {
        if self.test.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return false;
        }
        let step = steps::perform(name, self.prefix, work);
        let ok = step.ok();
        self.ended.push(step);
        ok
    }
}
