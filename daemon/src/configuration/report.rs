//! What is wrong with a configuration: all of it, with the place and the remedy.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How much an entry matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    /// The daemon starts; somebody should know.
    Warning,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub severity: Severity,
    /// The file that another one names, if it stands there.
    pub included: Option<Arc<str>>,
    /// Line and column from 1; `None` for the file as a whole.
    pub position: Option<(usize, usize)>,
    pub message: String,
    pub remedy: String,
}

/// Collects everything that is wrong with one file and those that it names. `Display` prints it,
/// sorted by place.
///
/// Places of all files are numbers of one kind: those of each file begin where those of the file
/// before end.
#[derive(Debug)]
pub struct Report {
    file: String,
    // Every reader of a part of the file notes into the one report.
    entries: RefCell<Vec<Entry>>,
    texts: RefCell<Vec<Text>>,
}

/// The text of a file.
#[derive(Debug)]
struct Text {
    /// Where its places begin.
    base: usize,
    /// The file, if another one names it.
    included: Option<Arc<str>>,
    text: String,
    lines: OnceCell<Lines>,
}

/// Where each line begins, so that a position costs a search and not a walk from the beginning.
#[derive(Debug)]
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        Self { starts: std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect() }
    }

    /// Number of the line from 1, and where it begins.
    fn find(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        (line, self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default())
    }
}

impl Report {
    /// An empty report about `text`, which was read from `file`.
    pub fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            entries: RefCell::default(),
            texts: RefCell::new(vec![Text::new(0, None, text)]),
        }
    }

    /// Takes `text`, which was read from `file`, into account as well. Returns where its places
    /// begin.
    pub(super) fn include(&self, file: &str, text: &str) -> usize {
        let mut texts = self.texts.borrow_mut();
        let base = texts.last().map_or(0, |last| last.base + last.text.len() + 1);
        texts.push(Text::new(base, Some(file.into()), text));
        base
    }

    /// Notes an error; `place` is a range of octets of the text.
    pub fn error(
        &self,
        place: Option<Range<usize>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.note(Severity::Error, place, message.into(), remedy.into());
    }

    pub fn warning(
        &self,
        place: Option<Range<usize>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.note(Severity::Warning, place, message.into(), remedy.into());
    }

    /// Whether anything forbids the start.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many entries of `severity` there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.entries.borrow().iter().filter(|entry| entry.severity == severity).count()
    }

    /// All entries, sorted by place.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.entries.borrow().clone();
        entries.sort_by_key(|entry| {
            (entry.included.clone(), entry.position.unwrap_or((usize::MAX, 0)))
        });
        entries
    }

    /// Line and column (in characters, from 1) of a place.
    pub fn position(&self, place: usize) -> (usize, usize) {
        self.with_text(place, |text| text.position(place - text.base)).unwrap_or((1, 1))
    }

    /// Line (from 1) of a place in its file.
    pub fn line(&self, place: usize) -> usize {
        self.position(place).0
    }

    /// The line of a place, for the middle of a sentence: "line 7", with the file if another one
    /// names it.
    pub fn line_text(&self, place: usize) -> String {
        let line = |text: &Text| {
            let (line, _) = text.position(place - text.base);
            match &text.included {
                Some(file) => format!("line {line} of {file}"),
                None => format!("line {line}"),
            }
        };
        self.with_text(place, line).unwrap_or_default()
    }

    fn with_text<T>(&self, place: usize, look: impl FnOnce(&Text) -> T) -> Option<T> {
        let texts = self.texts.borrow();
        let after = texts.partition_point(|text| text.base <= place);
        texts.get(after.saturating_sub(1)).map(look)
    }

    pub(super) fn into_warnings(self) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.severity == Severity::Warning).collect()
    }

    fn note(
        &self,
        severity: Severity,
        place: Option<Range<usize>>,
        message: String,
        remedy: String,
    ) {
        let position = place.as_ref().map(|place| self.position(place.start));
        let included = place
            .and_then(|place| self.with_text(place.start, |text| text.included.clone()))
            .flatten();
        self.entries.borrow_mut().push(Entry { severity, included, position, message, remedy });
    }
}

impl Text {
    fn new(base: usize, included: Option<Arc<str>>, text: &str) -> Self {
        Self { base, included, text: text.to_owned(), lines: OnceCell::new() }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let offset = if self.text.is_char_boundary(offset) { offset } else { self.text.len() };
        let (line, start) = self.lines.get_or_init(|| Lines::new(&self.text)).find(offset);
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { severity, included, position, message, remedy } in self.entries() {
            f.write_str(included.as_deref().unwrap_or(&self.file))?;
            if let Some((line, column)) = position {
                write!(f, ":{line}:{column}")?;
            }
            let severity = match severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, ": {severity}: {message}; {remedy}")?;
        }
        match self.count(Severity::Error) {
            0 => Ok(()),
            1 => writeln!(f, "{}: 1 error; nothing was started", self.file),
            errors => writeln!(f, "{}: {errors} errors; nothing was started", self.file),
        }
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.included {
            write!(f, "{file}, ")?;
        }
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_places_sort() {
        let report = Report::new("f", "ä = 1\nsecond\n");
        report.error(Some(6..7), "second", "remedy");
        report.warning(None, "whole", "remedy");
        report.error(Some(5..6), "first", "remedy");
        assert_eq!(
            report.to_string(),
            "f:1:5: error: first; remedy\nf:1:6: error: second; remedy\nf: warning: whole; remedy\n\
             f: 2 errors; nothing was started\n"
        );
        assert_eq!(report.position(7), (2, 1));
        assert_eq!(report.position(999), (3, 1));
    }
}
