//! Whether a new text of the configuration is the old one with the change that was asked for, and
//! with nothing else. Comments and order within a table do not count: the difference shows them.

use control::edit::{Edit, EditArgument, OptionValue};
use toml_edit::{DocumentMut, InlineTable, Item, Value};

const NAME: &str = "name";

/// Compares two texts of the configuration.
///
/// # Errors
/// What differs without having been asked for, or what was asked for and is not there.
pub(super) fn is_as_asked(
    argument: &EditArgument,
    before: &str,
    after: &str,
) -> Result<(), String> {
    let EditArgument { table: kind, name, edit } = argument;
    let (mut before, mut after) = (document(before)?, document(after)?);
    let (options, unset) = match edit {
        Edit::Create { options } => (options.as_slice(), [].as_slice()),
        Edit::Set { options, unset } => (options.as_slice(), unset.as_slice()),
        Edit::Delete => ([].as_slice(), [].as_slice()),
    };
    let kind = kind.to_string();
    // The name may be one of the options that change.
    let renamed = options.iter().find(|one| one.option == NAME).map(new_name);
    let new_name = renamed.as_deref().unwrap_or(name);
    let old = take(&mut before, &kind, name)?;
    let new = take(&mut after, &kind, new_name)?;
    if let Some(key) = first_difference(&before, &after, &[]) {
        return Err(format!("{key} outside {kind} {name}"));
    }
    let (old, new) = match (edit, old, new) {
        (Edit::Create { .. }, None, Some(new)) => {
            let mut old = InlineTable::new();
            old.insert(NAME, new_name.into());
            (old, new)
        }
        (Edit::Set { .. }, Some(old), Some(new)) => (old, new),
        (Edit::Delete, Some(_), None) => return Ok(()),
        (_, _, Some(_)) => return Err(format!("{kind} {new_name} stands in the file")),
        (_, _, None) => return Err(format!("{kind} {new_name} does not stand in the file")),
    };
    let named: Vec<&str> = options
        .iter()
        .map(|one| one.option.as_str())
        .chain(unset.iter().map(String::as_str))
        .collect();
    if let Some(key) = first_difference(&old, &new, &named) {
        return Err(format!("{key} of {kind} {name}"));
    }
    let is_other = |one: &&OptionValue| {
        !new.get(&one.option).is_some_and(|value| is_typed(value, one.value.trim()))
    };
    if let Some(other) = options.iter().find(is_other) {
        return Err(format!("{} of {kind} {name} has another value", other.option));
    }
    match unset.iter().find(|option| new.contains_key(option)) {
        Some(left) => Err(format!("{left} of {kind} {name} is still set")),
        None => Ok(()),
    }
}

fn document(text: &str) -> Result<InlineTable, String> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        format!("no TOML, {}", error.message().trim_end().replace('\n', ", "))
    })?;
    match Item::Table(document.into_table()).into_value() {
        Ok(Value::InlineTable(table)) => Ok(table),
        _ => Err(String::from("no table")),
    }
}

/// Takes the table of a kind and a name out of the others.
fn take(document: &mut InlineTable, kind: &str, name: &str) -> Result<Option<InlineTable>, String> {
    let Some(Value::Array(tables)) = document.get_mut(kind) else { return Ok(None) };
    let is_named = |table: &InlineTable| table.get(NAME).and_then(Value::as_str) == Some(name);
    let named: Vec<InlineTable> = tables
        .iter()
        .filter_map(Value::as_inline_table)
        .filter(|table| is_named(table))
        .cloned()
        .collect();
    if named.len() > 1 {
        return Err(format!("{kind} {name} stands in the file twice"));
    }
    tables.retain(|value| !value.as_inline_table().is_some_and(is_named));
    if tables.is_empty() {
        document.remove(kind);
    }
    Ok(named.into_iter().next())
}

/// The first key whose values differ, leaving out some.
fn first_difference(one: &InlineTable, other: &InlineTable, without: &[&str]) -> Option<String> {
    let keys = one.iter().chain(other.iter()).map(|(key, _)| key);
    let mut keys = keys.filter(|key| !without.contains(key));
    let differs = |key: &&str| match (one.get(key), other.get(key)) {
        (Some(one), Some(other)) => !is_same(one, other),
        _ => true,
    };
    keys.find(differs).map(str::to_owned)
}

fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::String(one), Value::String(other)) => one.value() == other.value(),
        (Value::Integer(one), Value::Integer(other)) => one.value() == other.value(),
        (Value::Float(one), Value::Float(other)) => {
            one.value().to_bits() == other.value().to_bits()
        }
        (Value::Boolean(one), Value::Boolean(other)) => one.value() == other.value(),
        (Value::Datetime(one), Value::Datetime(other)) => one.value() == other.value(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::InlineTable(one), Value::InlineTable(other)) => {
            first_difference(one, other, &[]).is_none()
        }
        _ => false,
    }
}

/// Whether a value is what was typed: in TOML, or without quotes and brackets.
fn is_typed(value: &Value, typed: &str) -> bool {
    if typed.starts_with(['"', '\'', '[', '{']) {
        return typed.parse().is_ok_and(|typed: Value| is_same(&typed, value));
    }
    match value {
        Value::Array(elements) => {
            let mut typed = typed.split(',').map(str::trim).filter(|element| !element.is_empty());
            elements.iter().all(|element| typed.next().is_some_and(|one| is_scalar(element, one)))
                && typed.next().is_none()
        }
        value => is_scalar(value, typed),
    }
}

fn is_scalar(value: &Value, typed: &str) -> bool {
    match value {
        Value::String(text) => text.value() == typed,
        Value::Integer(number) => typed.parse() == Ok(*number.value()),
        Value::Boolean(truth) => typed.parse() == Ok(*truth.value()),
        _ => false,
    }
}

fn new_name(option: &OptionValue) -> String {
    let typed = option.value.trim();
    let quoted = typed.parse().ok().filter(|_| typed.starts_with(['"', '\'']));
    quoted.as_ref().and_then(Value::as_str).unwrap_or(typed).to_owned()
}

#[cfg(test)]
mod tests {
    use control::edit::EditedTable;

    use super::*;

    const FILE: &str = "\
dscp = 3\n\n[[gateway]]\nname = \"g\"\n\n[[tunnel]]\nname = \"one\"\npeer = \"10.0.0.1\"\n\
lifetime = \"1h\"\n\n# The second.\n[[tunnel]]\nname = \"two\"\npeer = \"10.0.0.2\"\n\
pfs = [14, 19]\nidentity = { fqdn = \"a\" }\n";

    fn options(pairs: &[(&str, &str)]) -> Vec<OptionValue> {
        let owned = |(option, value): &(&str, &str)| OptionValue {
            option: (*option).to_owned(),
            value: (*value).to_owned(),
        };
        pairs.iter().map(owned).collect()
    }

    fn excess(name: &str, edit: Edit, after: &str) -> String {
        let argument = EditArgument { table: EditedTable::Tunnel, name: name.to_owned(), edit };
        is_as_asked(&argument, FILE, after).err().unwrap_or_default()
    }

    #[test]
    fn a_table_changes_as_asked_and_in_no_other_way() {
        let set = |pairs: &[(&str, &str)], unset: &[&str]| Edit::Set {
            options: options(pairs),
            unset: unset.iter().map(|one| (*one).to_owned()).collect(),
        };
        let two_hours = || set(&[("lifetime", "2h")], &[]);
        let after = FILE.replace("1h", "2h");
        assert_eq!(excess("one", two_hours(), &after), "");
        // Comments do not count.
        assert_eq!(excess("one", two_hours(), &after.replace("# The second.\n", "")), "");
        for (from, to, told) in [
            ("dscp = 3", "dscp = 4", "dscp outside tunnel one"),
            ("dscp = 3", "dscp = 3\ninclude = [\"/tmp/*\"]", "include outside tunnel one"),
            ("dscp = 3\n", "", "dscp outside tunnel one"),
            ("\"g\"", "\"h\"", "gateway outside tunnel one"),
            ("10.0.0.2", "10.0.0.3", "tunnel outside tunnel one"),
            ("[14, 19]", "[14]", "tunnel outside tunnel one"),
            ("fqdn = \"a\"", "fqdn = \"b\"", "tunnel outside tunnel one"),
            ("\"10.0.0.1\"", "\"10.0.0.9\"", "peer of tunnel one"),
            ("\"2h\"", "\"2h\"\nstart = \"now\"", "start of tunnel one"),
            ("\"2h\"", "\"3h\"", "lifetime of tunnel one has another value"),
            ("\"one\"", "\"two\"", "tunnel outside tunnel one"),
            ("\"2h\"", "\"2h\"\n[[tunnel]]\nname = \"one\"", "tunnel one stands in the file twice"),
        ] {
            assert!(after.contains(from), "{from}");
            assert_eq!(excess("one", two_hours(), &after.replace(from, to)), told);
        }
        let unset = || set(&[], &["lifetime"]);
        assert_eq!(excess("one", unset(), &FILE.replace("lifetime = \"1h\"\n", "")), "");
        assert_eq!(excess("one", unset(), FILE), "lifetime of tunnel one is still set");
        let renamed = FILE.replace("\"one\"", "\"three\"");
        assert_eq!(excess("one", set(&[("name", "three")], &[]), &renamed), "");
        assert_eq!(excess("one", set(&[("name", "\"three\"")], &[]), &renamed), "");
        let lists = FILE.replace("[14, 19]", "[19, 20]").replace("\"a\" }", "\"c,d\" }");
        let typed = set(&[("pfs", "19, 20"), ("identity", "{ fqdn = \"c,d\" }")], &[]);
        assert_eq!(excess("two", typed, &lists), "");
        let typed = set(&[("pfs", "19"), ("identity", "{ fqdn = \"c,d\" }")], &[]);
        assert_eq!(excess("two", typed, &lists), "pfs of tunnel two has another value");
    }

    #[test]
    fn a_table_comes_and_goes_alone() {
        let create = || Edit::Create { options: options(&[("peer", "10.0.0.3"), ("pfs", "14")]) };
        let after =
            format!("{FILE}\n[[tunnel]]\nname = \"new\"\npeer = \"10.0.0.3\"\npfs = [14]\n");
        assert_eq!(excess("new", create(), &after), "");
        assert_eq!(excess("new", create(), FILE), "tunnel new does not stand in the file");
        let more = format!("{after}start = \"now\"\n");
        assert_eq!(excess("new", create(), &more), "start of tunnel new");
        assert_eq!(
            excess("new", create(), &after.replace("1h", "9h")),
            "tunnel outside tunnel new"
        );
        let (first, _) = FILE.split_once("\n# The second.").unwrap_or_default();
        assert_eq!(excess("two", Edit::Delete, first), "");
        assert_eq!(excess("two", Edit::Delete, FILE), "tunnel two stands in the file");
        assert_eq!(excess("two", Edit::Delete, ""), "dscp outside tunnel two");
        assert!(excess("two", Edit::Delete, "root:x:0:0").starts_with("no TOML"));
        // The last one of a kind takes the key with it.
        let argument =
            EditArgument { table: EditedTable::Gateway, name: "g".to_owned(), edit: Edit::Delete };
        let after = FILE.replace("[[gateway]]\nname = \"g\"\n\n", "");
        assert_eq!(is_as_asked(&argument, FILE, &after), Ok(()));
    }
}
