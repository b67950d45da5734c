//! The narrative: numbered statements a person can follow, each one checked, with its evidence.

use anyhow::Result;
use std::io::Write;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the statement holds.
    pub holds: bool,
    /// What was seen, in one line or several.
    pub evidence: String,
}

impl Finding {
    /// A finding with its evidence.
    pub fn new(holds: bool, evidence: impl Into<String>) -> Self {
        Self { holds, evidence: evidence.into() }
    }
}

/// One statement that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    name: &'static str,
    holds: bool,
}

/// Prints the statements and remembers which of them held.
#[derive(Debug, Default)]
pub struct Narrative {
    chapter: String,
    statements: Vec<Statement>,
    failures: Vec<String>,
    /// While something is broken on purpose a failing statement is what is hoped for.
    rehearsing: bool,
    number: usize,
}

impl Narrative {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a chapter.
    pub fn chapter(&mut self, title: &str) {
        self.chapter = title.to_owned();
        print(&format!("\n== {title}"));
    }

    /// Says what is being done.
    pub fn say(&self, text: &str) {
        print(&format!("   {text}"));
    }

    /// Shows something: a table, a capture, a kernel's list.
    pub fn show(&self, title: &str, text: &str) {
        print(&format!("   {title}:"));
        for line in text.lines() {
            print(&format!("   | {line}"));
        }
    }

    /// Makes a statement and checks it; an error while checking makes it fail. `name` is what the sabotage calls it.
    pub fn state(&mut self, name: &'static str, text: &str, check: impl FnOnce() -> Result<Finding>) -> bool {
        let finding = check().unwrap_or_else(|error| Finding::new(false, format!("{error:#}")));
        self.number += 1;
        let verdict = match (finding.holds, self.rehearsing) {
            (true, _) => "ok",
            (false, true) => "fails",
            (false, false) => "FAILED",
        };
        print(&format!("{:>4} {verdict:<6} {text}", self.number));
        for line in finding.evidence.lines() {
            print(&format!("            {line}"));
        }
        self.statements.push(Statement { name, holds: finding.holds });
        if !finding.holds && !self.rehearsing {
            self.failures.push(format!("{} ({}) in: {}", self.number, text, self.chapter));
        }
        finding.holds
    }

    /// Makes statements while something is broken on purpose, then states that the one named failed.
    pub fn sabotage(&mut self, what: &str, name: &'static str, statements: impl FnOnce(&mut Self)) -> bool {
        let first = self.statements.len();
        self.rehearsing = true;
        statements(self);
        self.rehearsing = false;
        let made: Vec<Statement> = self.statements.drain(first..).collect();
        let named: Vec<&Statement> = made.iter().filter(|statement| statement.name == name).collect();
        let fails = named.iter().any(|statement| !statement.holds);
        self.state("sabotage", &format!("{what}: the statement '{name}' fails"), || {
            let evidence = if named.is_empty() { "the statement was not even made" } else { "" };
            Ok(Finding::new(fails, evidence))
        })
    }

    /// The closing lines; true when every statement held and there was one.
    pub fn conclude(&self) -> bool {
        print("");
        for failure in &self.failures {
            print(&format!("FAILED: statement {failure}"));
        }
        let (all, failed) = (self.statements.len(), self.failures.len());
        print(&format!("lab: {} statements hold, {failed} failed", all - failed.min(all)));
        failed == 0 && all > 0
    }
}

/// A reader who closed the pipe is no reason to leave namespaces behind.
fn print(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_false_statement_spoils_the_whole() {
        let mut narrative = Narrative::new();
        assert!(!narrative.conclude());
        assert!(narrative.state("a", "holds", || Ok(Finding::new(true, "seen"))));
        assert!(narrative.conclude());
        assert!(!narrative.state("b", "cannot be checked", || anyhow::bail!("no tool")));
        assert!(!narrative.conclude());
    }

    #[test]
    fn a_sabotage_holds_only_if_the_named_statement_fails() {
        let mut narrative = Narrative::new();
        assert!(narrative.sabotage("broken", "a", |narrative| {
            narrative.state("a", "fails now", || Ok(Finding::new(false, "")));
        }));
        assert!(narrative.conclude());
        assert!(!narrative.sabotage("broken", "a", |narrative| {
            narrative.state("a", "still holds", || Ok(Finding::new(true, "")));
            narrative.state("b", "another fails", || Ok(Finding::new(false, "")));
        }));
        assert!(!narrative.sabotage("broken", "c", |_| {}));
        assert!(!narrative.conclude());
    }
}
