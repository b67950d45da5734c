//! `docs/events.md`: every event that the daemons log, read out of their sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;

/// Where the table stands, in the workspace.
pub(crate) const DOCUMENT: &str = "docs/events.md";

/// Sources, and whose log has their events.
const SOURCES: [(&str, &str); 3] =
    [("agent/src", "gdoi-agent"), ("gcks/src", "gcks"), ("daemon/src", "both")];

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// One call of a log macro.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    event: String,
    program: &'static str,
    level: &'static str,
    fields: Vec<String>,
    text: String,
}

/// The document as the sources have it.
///
/// # Errors
/// A source cannot be read, or logs something without a name.
pub(crate) fn document() -> Result<String> {
    let mut lines = Vec::new();
    for (folder, program) in SOURCES {
        for path in sources(&command::workspace().join(folder))? {
            let source = fs::read_to_string(&path)?;
            let found = lines_of(&source, program);
            lines.extend(found.with_context(|| path.display().to_string())?);
        }
    }
    lines.sort();
    lines.dedup();
    Ok(rendered(&lines))
}

fn rendered(lines: &[Line]) -> String {
    let mut text = String::from(
        "# Events\n\n\
         Every line of the log of both daemons has a name that stays the same, `event`, and typed \
         fields; the\ntext may change. This table is made from the sources by `cargo xtask man`.\n\n\
         A search: `journalctl -u gdoi-agent -g 'event=\"teks-expired\"'`. `error` is broken, `warn` is \
         worth an\nalert, `info` is a change that an \
         operator would notice, `debug` a deviation. SPIs of TEKs are \
         written\n`0x0000abcd`, those of KEKs as 32 hexadecimal digits.\n\n\
         | event | program | level | text | fields |\n|---|---|---|---|---|\n",
    );
    for line in lines {
        let Line { event, program, level, fields, text: message } = line;
        let fields = fields.join(", ");
        text.push_str(&format!("| `{event}` | {program} | {level} | {message} | {fields} |\n"));
    }
    text
}

/// Sources below a folder, tests aside.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "tests" {
            all.extend(sources(&path)?);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// The calls of log macros in a source, up to its tests.
fn lines_of(source: &str, program: &'static str) -> Result<Vec<Line>> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut lines = Vec::new();
    for level in LEVELS {
        let call = format!("{level}!(");
        for (at, _) in code.match_indices(&call) {
            // `report.error!` is no macro, and `my_error!` another one.
            let before = code.get(..at).and_then(|code| code.chars().next_back());
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let inside = code.get(at + call.len()..).unwrap_or_default();
            lines.push(line(&arguments(inside), program, level)?);
        }
    }
    Ok(lines)
}

fn line(arguments: &[String], program: &'static str, level: &'static str) -> Result<Line> {
    let (mut event, mut fields, mut text) = (None, Vec::new(), String::new());
    for argument in arguments {
        if let Some(literal) = argument.strip_prefix('"') {
            text = unbroken(literal.trim_end_matches('"'));
        } else if let Some(named) = argument.strip_prefix("event = ") {
            let literal = named.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            event = literal.map(str::to_owned);
        } else {
            let name = argument.split(" = ").next().unwrap_or_default();
            fields.push(name.trim_start_matches(['%', '?']).to_owned());
        }
    }
    let Some(event) = event.filter(|event| is_name(event)) else {
        bail!("a line at level {level} has no `event = \"..\"`: {}", arguments.join(", "));
    };
    Ok(Line { event, program, level, fields, text })
}

fn is_name(event: &str) -> bool {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !event.is_empty() && event.chars().all(in_name)
}

/// A literal without the breaks of its line in the source.
fn unbroken(literal: &str) -> String {
    let parts: Vec<&str> = literal.split("\\\n").collect();
    let (first, rest) = parts.split_first().unwrap_or((&"", &[]));
    rest.iter().fold((*first).to_owned(), |text, part| text + part.trim_start())
}

/// The arguments of a macro call, up to its closing parenthesis.
fn arguments(code: &str) -> Vec<String> {
    let (mut depth, mut in_text, mut escaped) = (0_u32, false, false);
    let (mut all, mut one) = (Vec::new(), String::new());
    for c in code.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                all.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    all.push(one);
    all.iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What one daemon called an event that the other has under another name.
    const RENAMED: [&str; 5] =
        ["ready", "reloaded", "state-not-written", "sealed-state-not-written", "goodbye-not-sent"];

    #[test]
    fn the_table_is_what_the_sources_log() {
        let present = fs::read_to_string(command::workspace().join(DOCUMENT)).unwrap_or_default();
        let expected = document().unwrap();
        let missing: Vec<&str> =
            expected.lines().filter(|line| !present.lines().any(|one| one == *line)).collect();
        let extra: Vec<&str> =
            present.lines().filter(|line| !expected.lines().any(|one| one == *line)).collect();
        assert!(
            present == expected,
            "{DOCUMENT} is out of date: run `cargo xtask man`; missing {missing:#?}, extra {extra:#?}"
        );
    }

    #[test]
    fn both_daemons_have_one_name_for_one_event() {
        let all = document().unwrap();
        for renamed in RENAMED {
            assert!(!all.contains(&format!("| `{renamed}` |")), "{renamed}");
        }
        // What stands in both with two levels or texts is told by each in its own way.
        let mut programs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in all.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split(" | ").collect();
            programs.entry(cells[0]).or_default().push(cells[1]);
        }
        for shared in ["started", "stopped", "configuration-reloaded", "configuration-changed"] {
            let programs = &programs[format!("| `{shared}`").as_str()];
            assert!(programs.contains(&"gcks") && programs.contains(&"gdoi-agent"), "{shared}");
        }
    }

    #[test]
    fn a_call_is_read_whole() {
        let source = "fn f() {\n    tracing::warn!(\n        event = \"a-b\",\n        spi = \
            format_args!(\"{:08x}\", x), %error,\n        count,\n        \"text, and \\\n         more (of it)\"\n    );\n}\n\
            #[cfg(test)]\nmod tests { info!(\"x\") }";
        let lines = lines_of(source, "gcks").unwrap();
        let fields = ["spi", "error", "count"].map(str::to_owned).to_vec();
        let (event, text) = ("a-b".to_owned(), "text, and more (of it)".to_owned());
        assert_eq!(lines, [Line { event, program: "gcks", level: "warn", fields, text }]);
    }

    #[test]
    fn a_line_without_a_name_is_refused() {
        assert!(lines_of("info!(\"no name\");", "gcks").is_err());
        assert!(lines_of("info!(event = name, \"a variable\");", "gcks").is_err());
        assert!(lines_of("my_info!(\"another macro\");", "gcks").unwrap().is_empty());
    }
}
