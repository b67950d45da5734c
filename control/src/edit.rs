//! Changes of a gateway or a tunnel in the configuration file.
//!
//! The daemon may not write its configuration. It answers with the new text of the file, checked,
//! and with what would follow; the client writes the file with the rights of the user, and asks for
//! a reload.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::protocol::{ConfigurationChange, ConfigurationChanges};

/// Which change the text of the configuration is wanted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditArgument {
    /// Which kind of table.
    pub table: EditedTable,
    /// Name of the gateway or tunnel.
    pub name: String,
    /// What becomes of it.
    pub edit: Edit,
}

/// The kinds of tables that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EditedTable {
    /// A `[[gateway]]` table.
    Gateway,
    /// A `[[tunnel]]` table.
    Tunnel,
}

/// A change of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// Adds a table of this name.
    Create {
        /// Its options beside the name.
        options: Vec<OptionValue>,
    },
    /// Options of a table that is there.
    Set {
        /// Options that get a value.
        options: Vec<OptionValue>,
        /// Options that are removed, so that their defaults hold.
        unset: Vec<String>,
    },
    /// Removes the table of this name.
    Delete,
}

/// An option with a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionValue {
    /// Name of the option as in the file.
    pub option: String,
    /// The value as it was typed: without quotes, elements of a list separated by commas; or in
    /// TOML, where it begins with `"`, `[` or `{`.
    pub value: String,
}

/// A configuration with a change, free of errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditedConfiguration {
    /// The configuration file, symbolic links resolved.
    pub file: PathBuf,
    /// Its text so far.
    pub before: String,
    /// Its text with the change.
    pub after: String,
    /// The table with the change, as text of the file; `None` where it is removed.
    pub table: Option<String>,
    /// What the configuration's check warns about, one line each.
    pub warnings: Vec<String>,
    /// What a reload would change, in the order in which it is carried out.
    pub changes: Vec<ConfigurationChange>,
}

impl EditedConfiguration {
    /// What a reload would do.
    pub fn dry_run(&self) -> ConfigurationChanges {
        ConfigurationChanges {
            dry_run: true,
            warnings: self.warnings.clone(),
            changes: self.changes.clone(),
        }
    }
}

impl fmt::Display for EditedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Tunnel => "tunnel",
        })
    }
}

impl fmt::Display for EditArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.edit {
            Edit::Create { .. } => "create",
            Edit::Set { .. } => "set",
            Edit::Delete => "delete",
        };
        write!(f, "{} {verb}", self.table)
    }
}
