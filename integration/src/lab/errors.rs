//! ERROR lines that daemons of a lab logged: something was broken then, whatever else was seen.

use super::{Lab, MEMBER_NODES};
use crate::lab::topology::SERVERS;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// Where the daemons of a lab log, and which of their ERROR lines are expected. It outlives the
/// lab.
#[derive(Debug, Clone)]
pub struct Errors {
    logs: Vec<PathBuf>,
    expected: &'static [&'static str],
}

impl Lab {
    /// Where to look for ERROR lines.
    pub fn errors(&self) -> Errors {
        let nodes = MEMBER_NODES.iter().chain(&SERVERS);
        let logs = nodes
            .map(|node| self.file(&format!("{}.log", node.0)))
            .filter(|log| log.exists())
            .collect();
        Errors { logs, expected: self.plan.expected_errors }
    }
}

impl Errors {
    /// How many lines were logged, and those of them that are unexpected errors.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn find(&self) -> Result<(usize, Vec<String>)> {
        let (mut count, mut found) = (0, Vec::new());
        for log in &self.logs {
            let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
            count += text.lines().count();
            let name =
                log.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            found.extend(unexpected(&text, self.expected).map(|line| format!("{name}: {line}")));
        }
        Ok((count, found))
    }
}

/// A line is a time, a level and what happened. A panic has no level.
fn unexpected<'t>(text: &'t str, expected: &[&str]) -> impl Iterator<Item = &'t str> {
    text.lines().filter(move |line| {
        let is_error =
            line.split_whitespace().nth(1) == Some("ERROR") || line.contains("panicked at");
        is_error && !expected.iter().any(|part| line.contains(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.000000Z  INFO group{name=a}: registered; no ERROR so far
2026-01-01T00:00:01.000000Z ERROR the state cannot be written; file=/x
thread 'main' (7) panicked at agent/src/main.rs:1:1:
2026-01-01T00:00:02.000000Z ERROR group{name=a}: keys left out
";

    #[test]
    fn errors_and_panics_count_and_expected_ones_do_not() {
        let lines: Vec<&str> = unexpected(LOG, &["keys left out"]).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("cannot be written") && lines[1].contains("panicked"));
        assert_eq!(unexpected(LOG, &[]).count(), 3);
    }
}
