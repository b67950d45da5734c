//! The steps of `cargo xtask test`: what each prints is passed on and its end kept, so that the
//! closing lines can say why a step failed even where only the end of a log is shown.

use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of a failed step that the closing lines repeat: its last ones, and as many that name a
/// failure.
const REPEATED: usize = 40;

/// What marks a line as one that names a failure, wherever in the output it stands.
const NAMES_A_FAILURE: &[&str] = &["FAILED", "panicked at", "error:", "error[", "FOUND something"];

/// What one step prints.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Stands before every line: empty for the step that runs alone.
    prefix: &'static str,
    last: VecDeque<String>,
    failures: Vec<String>,
}

impl Output {
    /// Prints a line and keeps it as long as it is one of the last.
    pub(crate) fn line(&mut self, line: &str) {
        println!("{}{line}", self.prefix);
        self.keep(line);
    }

    fn keep(&mut self, line: &str) {
        if self.last.len() == REPEATED
            && let Some(line) = self.last.pop_front()
            && self.failures.len() < REPEATED
            && NAMES_A_FAILURE.iter().any(|words| line.contains(words))
        {
            self.failures.push(line);
        }
        self.last.push_back(line.to_owned());
    }

    /// Runs a command, both its outputs joined line by line; true when it ended with status 0.
    ///
    /// # Errors
    /// When it cannot be started or its output cannot be read.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<bool> {
        let program = command.get_program().to_owned();
        let (reader, writer) = std::io::pipe().context("no pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        // The command holds the pipe's other end: the reader would wait for it as well.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        for line in BufReader::new(reader).split(b'\n') {
            self.line(String::from_utf8_lossy(&line?).trim_end_matches('\r'));
        }
        Ok(child.wait()?.success())
    }
}

/// A step that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    name: &'static str,
    ok: bool,
    took: Duration,
    output: Output,
}

impl Ended {
    pub(crate) fn ok(&self) -> bool {
        self.ok
    }
}

/// Runs a step and says how it went. `prefix` stands before its lines, for a step that runs beside
/// others.
pub(crate) fn perform(
    name: &'static str,
    prefix: &'static str,
    work: impl FnOnce(&mut Output) -> Result<bool>,
) -> Ended {
    let mut output = Output { prefix, ..Output::default() };
    println!("{prefix}== {name}");
    let started = Instant::now();
    let ok = work(&mut output).unwrap_or_else(|error| {
        output.line(&format!("xtask: {name}: {error:#}"));
        false
    });
    let took = started.elapsed();
    println!(
        "{prefix}== {name}: {} in {:.0} s",
        if ok { "passed" } else { "FAILED" },
        took.as_secs_f32()
    );
    Ended { name, ok, took, output }
}

/// The closing lines: how long each step took, the end of each failed one, their names, and the
/// count last.
pub(crate) fn report(ended: &[Ended]) -> (String, bool) {
    let mut text = String::from("\n");
    for step in ended.iter().filter(|step| !step.ok) {
        text.push_str(&format!("== {} failed; lines that say so, and its last ones:\n", step.name));
        for line in &step.output.failures {
            text.push_str(&format!("   {line}\n"));
        }
        if !step.output.failures.is_empty() {
            text.push_str("   ...\n");
        }
        for line in &step.output.last {
            text.push_str(&format!("   {line}\n"));
        }
    }
    for step in ended {
        text.push_str(&format!("{:>6.0} s  {}\n", step.took.as_secs_f32(), step.name));
    }
    let mut failed = 0;
    for step in ended.iter().filter(|step| !step.ok) {
        failed += 1;
        text.push_str(&format!("failed: {}\n", step.name));
    }
    text.push_str(&format!("{} passed, {failed} failed\n", ended.len() - failed));
    (text, failed == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(name: &'static str, ok: bool, lines: &[String]) -> Ended {
        let mut output = Output::default();
        for line in lines {
            output.keep(line);
        }
        Ended { name, ok, took: Duration::from_secs(3), output }
    }

    #[test]
    fn a_failing_step_and_an_error_both_count() {
        let ended = [
            perform("good", "", |_| Ok(true)),
            perform("bad", "", |_| Ok(false)),
            perform("broken", "", |_| anyhow::bail!("no tool")),
        ];
        let (text, ok) = report(&ended);
        assert!(!ok);
        assert!(text.contains("   xtask: broken: no tool\n"));
        assert!(text.ends_with("failed: bad\nfailed: broken\n1 passed, 2 failed\n"), "{text}");
        assert!(report(&ended[..1]).1);
    }

    #[test]
    fn the_end_of_a_failed_step_is_repeated_with_earlier_lines_that_name_a_failure() {
        let mut lines: Vec<String> = (0..100).map(|number| format!("line {number}.")).collect();
        lines[10] = "thread 'a' panicked at b.rs:1".to_owned();
        let (text, _) = report(&[quiet("tests", false, &lines)]);
        assert!(text.contains("panicked at b.rs:1"));
        assert!(!text.contains("line 59."));
        assert!(text.contains("line 60.") && text.contains("line 99."));
        let (text, ok) = report(&[quiet("tests", true, &lines)]);
        assert!(ok && !text.contains("line 99."));
    }

    #[test]
    fn both_outputs_of_a_command_are_kept() {
        let mut output = Output::default();
        assert!(output.run(Command::new("sh").args(["-c", "echo one; echo two >&2"])).unwrap());
        assert_eq!(output.last, ["one", "two"]);
        assert!(!output.run(Command::new("sh").args(["-c", "printf end; exit 3"])).unwrap());
        assert_eq!(output.last, ["one", "two", "end"]);
        assert!(output.run(&mut Command::new("/no/such/program")).is_err());
    }
}
