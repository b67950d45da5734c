//! Declarations of whole tables: `[key]`, `[[key]]`, and options that several tables have.

use toml::de::DeTable;

use super::super::option::{Description, Kind, Outline, Section, Value};
use super::super::report::Report;
use super::super::table::Table;
use super::Setting;

/// The table `[key]`; when it is missing all of its defaults hold.
pub fn table<S: Section>(key: &'static str) -> Setting<S, S> {
    nested(key, describe_table, move |_, table| match table.table(key) {
        Some(inner) => finished(inner),
        None => S::read(&mut Table::root(&DeTable::new(), &Report::new("", ""))),
    })
}

/// The table `[key]`, which may be missing.
pub fn optional_table<S: Section>(key: &'static str) -> Setting<S, Option<S>> {
    nested(key, describe_table, move |_, table| table.table(key).map(finished))
}

/// The tables `[[key]]` in the order of the file.
pub fn tables<S: Section>(key: &'static str) -> Setting<S, Vec<S>> {
    nested(key, describe_tables, move |this, table| {
        let is_missing = !table.has(key);
        let tables = table.tables(key).into_iter().map(finished).collect();
        if let Some((message, remedy)) = this.missing.filter(|_| is_missing) {
            table.error(message, remedy);
        }
        tables
    })
}

/// Options that several tables have.
pub fn flattened<S: Section>() -> Setting<S, S> {
    let mut setting = Setting::new("", |_, _| None, |_, table| S::read(table));
    setting.describe = |_, _| S::outline().options;
    setting
}

/// The values that hold where nothing is set.
pub fn usual<S: Section>() -> S {
    let mut text = String::new();
    for option in S::outline().options {
        if let Kind::Value(Value { default: Some(default), .. }) = option.kind {
            text.push_str(&format!("{} = {default}\n", option.key));
        }
    }
    let (document, _) = DeTable::parse_recoverable(&text);
    S::read(&mut Table::root(document.get_ref(), &Report::new("", "")))
}

fn nested<S: Section, V>(
    key: &'static str,
    describe: fn(&Setting<S, V>, Vec<String>) -> Vec<Description>,
    read: impl Fn(&Setting<S, V>, &mut Table<'_>) -> V + 'static,
) -> Setting<S, V> {
    let mut setting = Setting::new(key, |_, _| None, read);
    setting.describe = describe;
    setting
}

/// The text of a field stands before that of the table's type.
fn outline<S: Section, V>(this: &Setting<S, V>, mut text: Vec<String>) -> Outline {
    let mut outline = S::outline();
    text.append(&mut outline.text);
    for (key, shown) in this.showing {
        for option in outline.options.iter_mut().filter(|option| option.key == *key) {
            if let Kind::Value(value) = &mut option.kind {
                (value.example, value.set_in_example) = (Some((*shown).to_owned()), true);
            }
        }
    }
    if this.is_excerpt {
        text.truncate(1);
        outline.options.retain(|option| this.showing.iter().any(|(key, _)| *key == option.key));
    }
    Outline { text, ..outline }
}

fn describe_table<S: Section, V>(this: &Setting<S, V>, text: Vec<String>) -> Vec<Description> {
    let kind = Kind::Table(outline(this, text));
    vec![described(this, kind)]
}

fn describe_tables<S: Section, V>(this: &Setting<S, V>, text: Vec<String>) -> Vec<Description> {
    let kind = Kind::Tables(outline(this, text));
    vec![described(this, kind)]
}

fn described<S, V>(this: &Setting<S, V>, kind: Kind) -> Description {
    let Setting { key, also, only_shown, .. } = this;
    Description { key, text: Vec::new(), kind, also, only_shown: *only_shown }
}

fn finished<S: Section>(mut table: Table<'_>) -> S {
    let section = S::read(&mut table);
    table.finish();
    section
}
