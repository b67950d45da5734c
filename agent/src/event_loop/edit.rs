//! `gdoictl gateway` and `gdoictl tunnel`: the configuration with a change, checked and compared.
//! Nothing is written and nothing is taken over here.

use std::fs;

use ::control::edit::{EditArgument, EditedConfiguration};
use ::control::{ErrorCode, Refusal, Response};
use daemon::configuration::{Report, Severity, text_of};
use xfrm::Kernel;

use super::EventLoop;
use super::reload::ReloadError;
use crate::config::change::changes;
use crate::config::check::{Machine, parse};
use crate::config::edit::{Edited, edit};
use crate::control;
use crate::member::blocks;
use crate::membership::local_interface;

/// Lines of a report that are told.
const DEFECTS: usize = 3;

impl<K: Kernel> EventLoop<K> {
    pub(super) async fn edit_for(&self, argument: &EditArgument) -> Response {
        match self.edited(argument).await {
            Ok(edited) => Response::Edited(Box::new(edited)),
            Err(message) => {
                let message = format!("{argument} {}: {message}", argument.name);
                Response::Refused(Refusal::new(ErrorCode::NotPossible, message))
            }
        }
    }

    async fn edited(&self, argument: &EditArgument) -> Result<EditedConfiguration, String> {
        let path = &self.source.path;
        let unreadable = |error| format!("{} cannot be read: {error}", path.display());
        let file = fs::canonicalize(path).map_err(unreadable)?;
        let before = text_of(&file).map_err(unreadable)?;
        let Edited { text, table } = edit(&before, argument).map_err(|error| error.to_string())?;
        let interfaces = local_interface::read(&self.config.groups)
            .await
            .map_err(|error| ReloadError::from(error).to_string())?;
        let name = file.display().to_string();
        let loaded = parse(&name, &text, &Machine::this(Some(&interfaces)))
            .map_err(|report| defects(&report, same_lines(&before, &text)))?;
        blocks(&loaded.value, &interfaces).map_err(|error| ReloadError::from(error).to_string())?;
        Ok(EditedConfiguration {
            changes: control::listed(&changes(&self.config, &loaded.value)),
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
            file,
            before,
            after: text,
            table,
        })
    }
}

/// How many lines both texts begin with.
fn same_lines(before: &str, after: &str) -> usize {
    before.lines().zip(after.lines()).take_while(|(one, other)| one == other).count()
}

/// The first errors. A line is named where it is one of the file, and not one of the change.
fn defects(report: &Report, same: usize) -> String {
    let errors = report.entries().into_iter().filter(|entry| entry.severity == Severity::Error);
    let errors: Vec<String> = errors
        .map(|entry| match entry.position {
            Some((line, _)) if line <= same && entry.included.is_none() => {
                format!("line {line}: {}; {}", entry.message, entry.remedy)
            }
            _ => format!("{}; {}", entry.message, entry.remedy),
        })
        .collect();
    let more = errors.len().saturating_sub(DEFECTS);
    let told: Vec<&str> = errors.iter().take(DEFECTS).map(String::as_str).collect();
    let told = told.join(" | ");
    if more == 0 { told } else { format!("{told} | and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_named_where_it_is_one_of_the_file() {
        let before = "a = 1\nb = 2\n";
        let after = "a = 1\nb = 3\nc = 4\nd = 5\n";
        let report = Report::new("f", after);
        report.error(Some(4..5), "a: 1 is odd", "write 2");
        report.error(Some(10..11), "b: 3 is odd", "write 4");
        report.warning(Some(0..1), "a is short", "write it out");
        let told = defects(&report, same_lines(before, after));
        assert_eq!(told, "line 1: a: 1 is odd; write 2 | b: 3 is odd; write 4");
        report.error(None, "c", "d");
        report.error(None, "e", "f");
        assert!(defects(&report, 0).ends_with(" | c; d | and 1 more"));
    }
}
