//! The narrative: numbered statements a person can follow, each one checked, with its evidence.

use anyhow::Result;
use std::fmt;
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

/// A statement that did not hold, as the closing lines repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    number: usize,
    text: String,
    chapter: String,
    evidence: String,
}

/// Writes the statements and remembers which of them held.
pub struct Narrative {
    output: Box<dyn Write>,
    chapter: String,
    statements: Vec<Statement>,
    failures: Vec<Failure>,
    /// While something is broken on purpose a failing statement is what is hoped for.
    rehearsing: bool,
    number: usize,
}

impl fmt::Debug for Narrative {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Narrative")
            .field("number", &self.number)
            .field("failures", &self.failures)
            .finish()
    }
}

impl Narrative {
    /// An empty one that is written to `output`.
    pub fn new(output: impl Write + 'static) -> Self {
        Self {
            output: Box::new(output),
            chapter: String::new(),
            statements: Vec::new(),
            failures: Vec::new(),
            rehearsing: false,
            number: 0,
        }
    }

    pub fn chapter(&mut self, title: &str) {
        self.chapter = title.to_owned();
        self.line(&format!("\n== {title}"));
    }

    /// Says what is being done.
    pub fn say(&mut self, text: &str) {
        self.line(&format!("   {text}"));
    }

    /// Shows something: a table, a capture, a kernel's list.
    pub fn show(&mut self, title: &str, text: &str) {
        self.line(&format!("   {title}:"));
        for line in text.lines() {
            self.line(&format!("   | {line}"));
        }
    }

    /// Makes a statement and checks it; an error while checking makes it fail. `name` is what the
    /// sabotage calls it.
    pub fn state(
        &mut self,
        name: &'static str,
        text: &str,
        check: impl FnOnce() -> Result<Finding>,
    ) -> bool {
        let finding = check().unwrap_or_else(|error| Finding::new(false, format!("{error:#}")));
        self.number += 1;
        let verdict = match (finding.holds, self.rehearsing) {
            (true, _) => "ok",
            (false, true) => "fails",
            (false, false) => "FAILED",
        };
        self.line(&format!("{:>4} {verdict:<6} {text}", self.number));
        self.evidence(&finding.evidence);
        self.statements.push(Statement { name, holds: finding.holds });
        if !finding.holds && !self.rehearsing {
            self.failures.push(Failure {
                number: self.number,
                text: text.to_owned(),
                chapter: self.chapter.clone(),
                evidence: finding.evidence,
            });
        }
        finding.holds
    }

    /// Makes statements while something is broken on purpose, then states that the one named
    /// failed.
    pub fn sabotage(
        &mut self,
        what: &str,
        name: &'static str,
        statements: impl FnOnce(&mut Self),
    ) -> bool {
        let first = self.statements.len();
        self.rehearsing = true;
        statements(self);
        self.rehearsing = false;
        let made: Vec<Statement> = self.statements.drain(first..).collect();
        let named: Vec<&Statement> =
            made.iter().filter(|statement| statement.name == name).collect();
        let fails = named.iter().any(|statement| !statement.holds);
        self.state("sabotage", &format!("{what}: the statement '{name}' fails"), || {
            let evidence = if named.is_empty() { "the statement was not even made" } else { "" };
            Ok(Finding::new(fails, evidence))
        })
    }

    /// The closing lines, failed statements with their evidence; true when every statement held and
    /// there was one.
    pub fn conclude(&mut self) -> bool {
        self.line("");
        for failure in self.failures.clone() {
            self.line(&format!(
                "FAILED: statement {} ({}) in: {}",
                failure.number, failure.text, failure.chapter
            ));
            self.evidence(&failure.evidence);
        }
        let (all, failed) = (self.statements.len(), self.failures.len());
        self.line(&format!("lab: {} statements hold, {failed} failed", all - failed.min(all)));
        failed == 0 && all > 0
    }

    fn evidence(&mut self, evidence: &str) {
        for line in evidence.lines() {
            self.line(&format!("            {line}"));
        }
    }

    fn line(&mut self, line: &str) {
        // A reader who closed the pipe is no reason to leave namespaces behind.
        let _ = writeln!(self.output, "{line}");
        let _ = self.output.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// What a narrative wrote: cargo captures only what goes through its macros, so tests write
    /// here instead.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_false_statement_spoils_the_whole() {
        let mut narrative = Narrative::new(std::io::sink());
        assert!(!narrative.conclude());
        assert!(narrative.state("a", "holds", || Ok(Finding::new(true, "seen"))));
        assert!(narrative.conclude());
        assert!(!narrative.state("b", "cannot be checked", || anyhow::bail!("no tool")));
        assert!(!narrative.conclude());
    }

    #[test]
    fn the_closing_lines_repeat_what_failed_with_its_evidence() {
        let written = Written::default();
        let mut narrative = Narrative::new(written.clone());
        narrative.chapter("Traffic");
        narrative.state("a", "ha reaches hb", || Ok(Finding::new(false, "3 requests\n0 answers")));
        narrative.state("b", "nothing leaks", || Ok(Finding::new(true, "")));
        let before = written.text().len();
        assert!(!narrative.conclude());
        assert_eq!(
            written.text()[before..],
            *"\nFAILED: statement 1 (ha reaches hb) in: Traffic\n            3 requests\n            0 answers\n\
              lab: 1 statements hold, 1 failed\n"
        );
    }

    #[test]
    fn a_sabotage_holds_only_if_the_named_statement_fails() {
        let written = Written::default();
        let mut narrative = Narrative::new(written.clone());
        assert!(narrative.sabotage("broken", "a", |narrative| {
            narrative.state("a", "fails now", || Ok(Finding::new(false, "")));
        }));
        assert!(narrative.conclude());
        assert!(!written.text().contains("FAILED"), "what fails on purpose is no failure");
        assert!(!narrative.sabotage("broken", "a", |narrative| {
            narrative.state("a", "still holds", || Ok(Finding::new(true, "")));
            narrative.state("b", "another fails", || Ok(Finding::new(false, "")));
        }));
        assert!(!narrative.sabotage("broken", "c", |_| {}));
        assert!(!narrative.conclude());
    }
}
