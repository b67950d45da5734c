//! The table of `SECURITY.md`: which packets may pass in clear in which state. The lab reads it and
//! checks what it says, so that the two cannot drift apart.

use anyhow::{Context, Result, bail};

/// The document with the table.
pub const DOCUMENT: &str = include_str!("../../../SECURITY.md");
/// How the table's heading begins.
const HEADING: &str = "| state |";

/// A column: the traffic that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Group traffic that leaves.
    Out,
    /// Group traffic that arrives.
    In,
    /// To and from the router's own protected addresses.
    Own,
    /// What an exclude rule covers.
    Excluded,
    /// What a fail-open rule covers.
    FailOpen,
    Unrelated,
}

/// The columns with their headings, in the table's order.
pub const COLUMNS: [(Column, &str); 6] = [
    (Column::Out, "group traffic out"),
    (Column::In, "group traffic in"),
    (Column::Own, "to and from the router's own protected addresses"),
    (Column::Excluded, "excluded"),
    (Column::FailOpen, "fail-open"),
    (Column::Unrelated, "unrelated"),
];

/// What a cell promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// It passes as it is.
    Clear,
    /// It passes as the group's ESP and in no other form.
    Protected,
    /// Nothing of it passes.
    Blocked,
    /// It does not arrive, and nothing of it is in clear.
    Lost,
    /// It passes as ESP or is lost.
    ProtectedOrLost,
    /// What the ended TEK's selectors cover is blocked, the rest protected.
    BySelector,
}

impl std::fmt::Display for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear => "clear",
            Self::Protected => "protected",
            Self::Blocked => "blocked",
            Self::Lost => "lost",
            Self::ProtectedOrLost => "protected, or lost",
            Self::BySelector => "its selectors blocked, the others protected",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The state, in the table's words.
    pub state: String,
    /// What each column promises, in their order, with the table's words.
    pub cells: [(Promise, String); 6],
}

/// Reads the table of states out of SECURITY.md.
///
/// # Errors
/// Names the row or the cell that is not understood.
pub fn read(document: &str) -> Result<Vec<Row>> {
    let mut lines = document.lines().skip_while(|line| !line.starts_with(HEADING));
    let heading = fields(lines.next().context("there is no table of states")?);
    let expected: Vec<&str> =
        std::iter::once("state").chain(COLUMNS.iter().map(|column| column.1)).collect();
    if heading != expected {
        let (heading, expected) = (heading.join(" | "), expected.join(" | "));
        bail!("the table's columns are {heading}, not {expected}");
    }
    let mut rows: Vec<Row> = Vec::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let row = row(line, &rows).with_context(|| format!("in the row: {line}"))?;
        rows.push(row);
    }
    Ok(rows)
}

fn fields(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn row(line: &str, above: &[Row]) -> Result<Row> {
    let fields = fields(line);
    let (state, texts) = fields.split_first().context("an empty row")?;
    let mut promises: Vec<Promise> = Vec::new();
    for (column, text) in texts.iter().enumerate() {
        let text = text.trim_matches('*');
        // "before" is the row of the valid key.
        let before = || {
            above.iter().find(|row| row.state == "key valid").and_then(|row| row.cells.get(column))
        };
        let promise = match text {
            "the same" => promises.last().copied(),
            "as group traffic" => promises.first().copied(),
            text if text.starts_with("as before") => before().map(|cell| cell.0),
            text => promise(text),
        };
        promises.push(promise.with_context(|| format!("the cell says \"{text}\""))?);
    }
    let cells: Vec<(Promise, String)> =
        promises.into_iter().zip(texts.iter().map(|text| text.replace('*', ""))).collect();
    let cells =
        cells.try_into().map_err(|cells: Vec<_>| anyhow::anyhow!("{} cells", cells.len()))?;
    Ok(Row { state: (*state).to_owned(), cells })
}

fn promise(text: &str) -> Option<Promise> {
    let head = text.split([',', ':']).next().unwrap_or_default();
    match head {
        "its selectors blocked" => Some(Promise::BySelector),
        "encrypted" if text.contains("but lost") => Some(Promise::Lost),
        "lost" => Some(Promise::Lost),
        "protected" if text.contains("or lost") => Some(Promise::ProtectedOrLost),
        "protected" => Some(Promise::Protected),
        "clear" => Some(Promise::Clear),
        head if head.starts_with("blocked") => Some(Promise::Blocked),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_document_is_understood() {
        let rows = read(DOCUMENT).unwrap();
        assert!(rows.len() >= 14, "{} rows", rows.len());
        let promises = |state: &str| {
            let row = rows.iter().find(|row| row.state.starts_with(state)).unwrap();
            row.cells.each_ref().map(|cell| cell.0)
        };
        use Promise::{Blocked, Clear, Lost, Protected};
        assert_eq!(
            promises("daemon running, no key yet"),
            [Blocked, Blocked, Blocked, Clear, Clear, Clear]
        );
        let valid = [Protected, Protected, Protected, Clear, Protected, Clear];
        assert_eq!(promises("key valid"), valid);
        assert_eq!(promises("daemon killed"), valid);
        assert_eq!(promises("nf_tables flushed"), [Lost, Lost, Lost, Clear, Lost, Clear]);
        assert_eq!(promises("both flushed, daemon not running"), [Clear; 6]);
    }

    #[test]
    fn a_row_or_a_word_that_the_lab_does_not_know_is_an_error() {
        let row = DOCUMENT.lines().find(|line| line.starts_with("| key valid")).unwrap();
        for (from, to) in [("| clear |", "| perhaps |"), ("| clear |", "| clear | clear |")] {
            let document = DOCUMENT.replace(row, &row.replacen(from, to, 1));
            assert!(read(&document).is_err(), "{to}");
        }
        assert!(read(&DOCUMENT.replacen("| unrelated |", "| others |", 1)).is_err());
        assert!(read("no table").is_err());
    }
}
