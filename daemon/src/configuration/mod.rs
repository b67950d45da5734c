//! Configuration files: TOML in, typed values or one report of all that is wrong out.
//!
//! serde stops at the first error, so a file is walked by [`Table`]: each [`Setting`] asks for its
//! key, notes what is wrong with its line and goes on, and [`Table::finish`] reports the keys that
//! nobody asked for. [`options!`](crate::options) declares the options of a table once.

mod certificate;
mod document;
mod esp;
mod identity;
mod ike;
mod option;
mod report;
mod secret;
mod selector;
mod setting;
mod table;
mod value;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

pub use certificate::{CertificateTable, Certificates, NamedCertificate, read_certificate};
pub use document::{Document, DocumentError, example, manual, run_documents, write_documents};
pub use esp::weak_esp;
pub use ike::{Ike, phase1_policy, weak_parts};
pub use option::{
    Applies, Declaration, Description, Effective, Kind, Name, Outline, Section, Value, paragraphs,
};
pub use report::{Entry, Report, Severity};
pub use secret::{check_length, shared_keys, state_key};
pub use selector::Selector;
pub use setting::{
    Names, Setting, flattened, is_named, key_source, list, list_or, located, one_of, optional,
    optional_list, optional_one_of, optional_table, parsed, place, required, table, tables, usual,
    value,
};
pub use table::{Located, Place, Table};
pub(crate) use value::closest;
pub use value::{Problem, Read, choice, duration_text, name_of, quoted};

/// Longest configuration file in octets.
pub const LONGEST_FILE: usize = 4 * 1024 * 1024;

/// A configuration without errors, and what was worth a warning.
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    pub warnings: Vec<Entry>,
}

/// Reads and checks the file at `path`; `read` turns its top-level table into values. `too_long`
/// is what to do about a file of more than [`LONGEST_FILE`] octets.
///
/// # Errors
/// A report of everything that is wrong: the file cannot be read, its syntax, what `read` noted.
pub fn load<T>(
    path: &Path,
    too_long: &str,
    read: impl FnOnce(Table<'_>) -> Option<T>,
) -> Result<Loaded<T>, Report> {
    let name = path.display().to_string();
    match text_of(path) {
        Ok(text) => parse(&name, &text, read),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "name an existing file with --config",
                io::ErrorKind::PermissionDenied => "let the daemon's user read it",
                io::ErrorKind::FileTooLarge => too_long,
                _ => "name a configuration file with --config",
            };
            let report = Report::new(&name, "");
            report.error(None, format!("cannot be read: {error}"), remedy);
            Err(report)
        }
    }
}

/// Checks `text`, which messages call `name`.
///
/// # Errors
/// As [`load`].
pub fn parse<T>(
    name: &str,
    text: &str,
    read: impl FnOnce(Table<'_>) -> Option<T>,
) -> Result<Loaded<T>, Report> {
    let report = Report::new(name, text);
    match read_text(&report, text, 0, read).flatten() {
        Some(value) if !report.has_errors() => {
            Ok(Loaded { value, warnings: report.into_warnings() })
        }
        Some(_) => Err(report),
        None => {
            if !report.has_errors() {
                report.error(
                    None,
                    "the configuration is not complete",
                    "compare it with the example file",
                );
            }
            Err(report)
        }
    }
}

/// Reads a file that another one names at `origin`: what is wrong with it is noted with its own
/// name.
pub fn include<T>(
    report: &Report,
    origin: Place,
    path: &Path,
    read: impl FnOnce(Table<'_>) -> T,
) -> Option<T> {
    let name = path.display().to_string();
    match text_of(path) {
        Ok(text) => {
            let base = report.include(&name, &text);
            read_text(report, &text, base, read)
        }
        Err(error) => {
            let message = format!("{name} cannot be read: {error}");
            let remedy = match error.kind() {
                io::ErrorKind::FileTooLarge => "divide it into several files",
                _ => "correct the path, or let the daemon's user read it",
            };
            report.error(Some(origin), message, remedy);
            None
        }
    }
}

/// `None` if the text is not TOML: guesses about a file that does not parse would bury the cause.
fn read_text<T>(
    report: &Report,
    text: &str,
    base: usize,
    read: impl FnOnce(Table<'_>) -> T,
) -> Option<T> {
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().trim_end().replace('\n', ", ");
        report.error(
            error.span().map(|Place { start, end }| start + base..end + base),
            format!("not TOML: {message}"),
            "see https://toml.io for the syntax",
        );
    }
    errors.is_empty().then(|| read(Table::root_at(document.get_ref(), report, base)))
}

/// The text of a configuration file.
///
/// # Errors
/// It cannot be read, is longer than [`LONGEST_FILE`], or is not UTF-8.
pub fn text_of(path: &Path) -> io::Result<String> {
    let too_long = || {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {LONGEST_FILE} octets"),
        )
    };
    let mut octets = Vec::new();
    let limit = u64::try_from(LONGEST_FILE).map_err(|_| too_long())?.saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut octets)?;
    if octets.len() > LONGEST_FILE {
        return Err(too_long());
    }
    String::from_utf8(octets).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is not UTF-8 text ({})", error.utf8_error()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_one_clear_line() {
        let report = load(Path::new("/nonexistent/gcks.toml"), "", |_| Some(())).unwrap_err();
        let text = report.to_string();
        assert!(
            text.starts_with("/nonexistent/gcks.toml: error: cannot be read: No such file"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_is_not_text_is_one_clear_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("binary");
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        let text = load(&path, "", |_| Some(())).unwrap_err().to_string();
        assert!(text.contains("not UTF-8"), "{text}");
    }

    #[test]
    fn syntax_errors_come_all_at_once_with_their_places() {
        let text = "a = \nb = 1\nc = [1,\n[[group]\nname = \"x\n";
        let report = parse("f.toml", text, |_| Some(())).unwrap_err().to_string();
        assert!(report.contains("f.toml:1:"), "{report}");
        assert!(report.lines().count() >= 3, "{report}");
        assert!(report.contains("not TOML"), "{report}");
    }
}
