//! `reload`: what a changed configuration does, or would do.

use control::{ConfigurationChange, ConfigurationChanges};

use crate::format::clean;

pub(super) fn text(reload: &ConfigurationChanges) -> String {
    let note = match reload.dry_run && !reload.changes.is_empty() {
        true => "nothing was done; without --dry-run it is\n",
        false => "",
    };
    changes(reload) + note
}

/// The warnings and the differences.
pub(super) fn changes(reload: &ConfigurationChanges) -> String {
    let mut lines: Vec<String> =
        reload.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    if reload.changes.is_empty() {
        lines.push(String::from("nothing has changed"));
    }
    for change in &reload.changes {
        lines.push(head(change));
        lines.extend(change.consequences.iter().map(|one| format!("    {}", one.text)));
    }
    lines.iter().map(|line| clean(line) + "\n").collect()
}

fn head(change: &ConfigurationChange) -> String {
    let ConfigurationChange { subject, option, before, after, .. } = change;
    match (before, after) {
        (None, None) => format!("{subject}: {option}"),
        (Some(before), None) => format!("{subject}: {option} {before} removed"),
        (None, Some(after)) => format!("{subject}: {option} {after} added"),
        (Some(before), Some(after)) => format!("{subject}: {option} from {before} to {after}"),
    }
}
