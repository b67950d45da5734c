//! One gateway or tunnel changed in the text of the configuration; every other line, comment and
//! blank line stays as it is. Whether the new text makes sense is the business of
//! [`check`](super::check).

#[cfg(test)]
mod tests;

use control::edit::{Edit, EditArgument, EditedTable, OptionValue};
use daemon::configuration::{Kind, Outline, Section as _, Value as Described};
use thiserror::Error;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, RawString, Table, Value};

use super::tunnel::{GatewayTable, TunnelTable};

const NAME: &str = "name";

/// Why there is no such change. The text stays as it is.
#[derive(Debug, Error)]
pub enum EditError {
    #[error("the configuration is not TOML: {0}; correct the file first")]
    Syntax(String),
    #[error("{table} is written as a list in the file; write [[{table}]] tables")]
    NotTables { table: EditedTable },
    #[error("there is no {table} \"{name}\"; {known}")]
    Unknown { table: EditedTable, name: String, known: String },
    #[error("there is a {table} \"{name}\" already; change it with `gdoictl {table} set {name}`")]
    Exists { table: EditedTable, name: String },
    #[error(
        "gateway \"{name}\" is used by {}; delete what uses it first, or name another gateway there",
        users(tunnels)
    )]
    Used { name: String, tunnels: Vec<String> },
    #[error("{option}: {value} is not TOML: {error}; close every quote and bracket")]
    Value { option: String, value: String, error: String },
    #[error("{table} \"{name}\" does not set {option}; nothing to unset")]
    NotSet { table: EditedTable, name: String, option: String },
    #[error("{option}: named twice; name it once")]
    Twice { option: String },
}

/// A text with a change.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    /// The table as text of the file; `None` where it is gone.
    pub table: Option<String>,
}

/// Carries out a change in the text of a configuration.
///
/// # Errors
/// There is nothing to change, or the change cannot be written down.
pub fn edit(text: &str, argument: &EditArgument) -> Result<Edited, EditError> {
    let EditArgument { table: kind, name, edit } = argument;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        EditError::Syntax(error.message().trim_end().replace('\n', ", "))
    })?;
    let known = names(&document, *kind)?;
    let place = known.iter().position(|one| one == name);
    let unknown = || EditError::Unknown {
        table: *kind,
        name: name.clone(),
        known: match known.as_slice() {
            [] => format!("make one with `gdoictl {kind} create`"),
            known => format!("known are {}", known.join(", ")),
        },
    };
    let table = match edit {
        Edit::Create { options } => {
            if place.is_some() {
                return Err(EditError::Exists { table: *kind, name: name.clone() });
            }
            let mut table = Table::new();
            table.insert(NAME, Item::Value(name.as_str().into()));
            set(&mut table, *kind, options)?;
            let text = table_text(*kind, &table);
            append(&mut document, *kind, table);
            Some(text)
        }
        Edit::Set { options, unset } => {
            let place = place.ok_or_else(unknown)?;
            let tables = array(&mut document, *kind)?;
            let table = tables.and_then(|tables| tables.get_mut(place)).ok_or_else(unknown)?;
            for option in unset {
                if table.remove(option).is_none() {
                    let (name, option) = (name.clone(), option.clone());
                    return Err(EditError::NotSet { table: *kind, name, option });
                }
            }
            set(table, *kind, options)?;
            Some(table_text(*kind, table))
        }
        Edit::Delete => {
            let place = place.ok_or_else(unknown)?;
            if *kind == EditedTable::Gateway {
                let tunnels = users_of(&document, name)?;
                if !tunnels.is_empty() {
                    return Err(EditError::Used { name: name.clone(), tunnels });
                }
            }
            remove(&mut document, *kind, place)?;
            None
        }
    };
    Ok(Edited { text: document.to_string(), table })
}

fn key(kind: EditedTable) -> &'static str {
    match kind {
        EditedTable::Gateway => "gateway",
        EditedTable::Tunnel => "tunnel",
    }
}

fn outline(kind: EditedTable) -> Outline {
    match kind {
        EditedTable::Gateway => GatewayTable::outline(),
        EditedTable::Tunnel => TunnelTable::outline(),
    }
}

/// The tables of a kind, where there are any.
fn array(
    document: &mut DocumentMut,
    kind: EditedTable,
) -> Result<Option<&mut ArrayOfTables>, EditError> {
    match document.get_mut(key(kind)) {
        None => Ok(None),
        Some(Item::ArrayOfTables(tables)) => Ok(Some(tables)),
        Some(_) => Err(EditError::NotTables { table: kind }),
    }
}

fn tables(document: &DocumentMut, kind: EditedTable) -> Result<Vec<&Table>, EditError> {
    match document.get(key(kind)) {
        None => Ok(Vec::new()),
        Some(Item::ArrayOfTables(tables)) => Ok(tables.iter().collect()),
        Some(_) => Err(EditError::NotTables { table: kind }),
    }
}

/// The names of all tables of a kind, in the order of the file; one without a name has an empty
/// one, which nothing is called.
fn names(document: &DocumentMut, kind: EditedTable) -> Result<Vec<String>, EditError> {
    let tables = tables(document, kind)?;
    Ok(tables.into_iter().map(|table| text_of(table, NAME).to_owned()).collect())
}

fn users_of(document: &DocumentMut, gateway: &str) -> Result<Vec<String>, EditError> {
    let tunnels = tables(document, EditedTable::Tunnel)?.into_iter();
    let users = tunnels.filter(|tunnel| text_of(tunnel, "gateway") == gateway);
    Ok(users.map(|tunnel| text_of(tunnel, NAME).to_owned()).collect())
}

fn users(tunnels: &[String]) -> String {
    match tunnels {
        [one] => format!("tunnel {one}"),
        several => format!("tunnels {}", several.join(", ")),
    }
}

fn text_of<'t>(table: &'t Table, key: &str) -> &'t str {
    table.get(key).and_then(Item::as_str).unwrap_or_default()
}

/// Gives options their values. A comment behind a value stays.
fn set(table: &mut Table, kind: EditedTable, options: &[OptionValue]) -> Result<(), EditError> {
    let outline = outline(kind);
    for (number, OptionValue { option, value: typed }) in options.iter().enumerate() {
        if options.iter().take(number).any(|other| other.option == *option) {
            return Err(EditError::Twice { option: option.clone() });
        }
        let described = outline.options.iter().find(|one| one.key == option);
        let described = described.and_then(|one| match &one.kind {
            Kind::Value(value) => Some(value),
            Kind::Table(_) | Kind::Tables(_) => None,
        });
        let mut new = value(option, typed, described)?;
        match table.get_mut(option) {
            Some(item) => {
                if let Some(old) = item.as_value() {
                    *new.decor_mut() = old.decor().clone();
                }
                *item = Item::Value(new);
            }
            None => drop(table.insert(option, Item::Value(new))),
        }
    }
    Ok(())
}

/// What was typed, as the option's type wants it. Whether it is right is said by the check.
fn value(option: &str, typed: &str, described: Option<&Described>) -> Result<Value, EditError> {
    let typed = typed.trim();
    if typed.starts_with(['"', '\'', '[', '{']) {
        let mut value: Value = typed.parse().map_err(|error: toml_edit::TomlError| {
            let error = error.message().trim_end().replace('\n', ", ");
            EditError::Value { option: option.to_owned(), value: typed.to_owned(), error }
        })?;
        value.decor_mut().clear();
        return Ok(value);
    }
    let type_name = described.map_or("", |described| described.type_name);
    if described.is_some_and(|described| described.list) {
        let elements = typed.split(',').map(str::trim).filter(|element| !element.is_empty());
        return Ok(elements.map(|one| scalar(one, type_name)).collect::<Array>().into());
    }
    Ok(scalar(typed, type_name))
}

fn scalar(typed: &str, type_name: &str) -> Value {
    if type_name.contains("number")
        && let Ok(number) = typed.parse::<i64>()
    {
        return number.into();
    }
    match (type_name, typed.parse::<bool>()) {
        ("boolean", Ok(truth)) => truth.into(),
        _ => typed.into(),
    }
}

fn table_text(kind: EditedTable, table: &Table) -> String {
    format!("[[{}]]\n{table}", key(kind))
}

/// Puts a table behind the others of its kind. What stands at the end of the file stays in front
/// of a table that comes there.
fn append(document: &mut DocumentMut, kind: EditedTable, mut table: Table) {
    let last = table_position(document.as_table());
    let own = document.get(key(kind)).map(last_position_of);
    if own.is_none_or(|own| own == last) {
        let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
        if !trailing.trim().is_empty() {
            table.decor_mut().set_prefix(format!("{}\n\n", trailing.trim_end()));
            document.set_trailing("");
        }
        // Of no position it would go behind the table that was declared last, not written last.
        table.set_position(Some(last.saturating_add(1)));
    }
    let tables = document.entry(key(kind)).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    if let Item::ArrayOfTables(tables) = tables {
        tables.push(table);
    }
}

/// Removes a table with the comment right above it. Comments further up, behind which there is a
/// blank line, are about more than this table: they stay.
fn remove(document: &mut DocumentMut, kind: EditedTable, place: usize) -> Result<(), EditError> {
    let Some(tables) = array(document, kind)? else { return Ok(()) };
    let Some(table) = tables.get(place) else { return Ok(()) };
    let position = table_position(table);
    let above = raw(table.decor().prefix()).to_owned();
    tables.remove(place);
    if tables.is_empty() {
        document.remove(key(kind));
    }
    let Some((kept, _)) = above.rsplit_once("\n\n").filter(|(kept, _)| !kept.trim().is_empty())
    else {
        return Ok(());
    };
    let mut next = None;
    each(document.as_table(), &mut |table| {
        let after = table.position().filter(|after| *after > position);
        next = next.into_iter().chain(after).min();
    });
    let Some(next) = next else {
        let trailing = document.trailing().as_str().unwrap_or_default();
        let trailing = format!("{kept}\n{trailing}");
        document.set_trailing(trailing);
        return Ok(());
    };
    each_mut(document.as_table_mut(), &mut |table| {
        if table.position() == Some(next) {
            let own = raw(table.decor().prefix()).to_owned();
            table.decor_mut().set_prefix(format!("{kept}\n{own}"));
        }
    });
    Ok(())
}

fn raw(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// The position of the last table that belongs to this one.
fn table_position(table: &Table) -> isize {
    let mut last = -1;
    each(table, &mut |table| last = table.position().unwrap_or_default().max(last));
    last
}

fn last_position_of(item: &Item) -> isize {
    match item {
        Item::Table(table) => table_position(table),
        Item::ArrayOfTables(tables) => tables.iter().map(table_position).max().unwrap_or_default(),
        Item::None | Item::Value(_) => 0,
    }
}

/// Visits a table and all tables within it.
fn each(table: &Table, visit: &mut impl FnMut(&Table)) {
    visit(table);
    for (_, item) in table {
        match item {
            Item::Table(table) => each(table, visit),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| each(table, visit)),
            Item::None | Item::Value(_) => {}
        }
    }
}

fn each_mut(table: &mut Table, visit: &mut impl FnMut(&mut Table)) {
    visit(table);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(table) => each_mut(table, visit),
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().for_each(|table| each_mut(table, visit));
            }
            Item::None | Item::Value(_) => {}
        }
    }
}
