//! A TOML table that is asked for its keys one by one.

use std::collections::BTreeSet;
use std::ops::{Deref, Range};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use super::value::{Problem, closest};

/// A range of octets of the file.
pub type Place = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Located<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), place: self.place }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// One table of the file. Ask for every key it may have, then call [`Table::finish`].
#[derive(Debug)]
pub struct Table<'d> {
    entries: &'d DeTable<'d>,
    report: &'d Report,
    /// The path for messages, `group.server`; empty for the top level.
    path: String,
    place: Option<Place>,
    /// Where the places of its file begin in the report.
    base: usize,
    asked: BTreeSet<&'static str>,
}

impl<'d> Table<'d> {
    pub(super) fn root(entries: &'d DeTable<'d>, report: &'d Report) -> Self {
        Self::root_at(entries, report, 0)
    }

    /// The top level of a file whose places begin at `base`.
    pub(super) fn root_at(entries: &'d DeTable<'d>, report: &'d Report, base: usize) -> Self {
        Self { entries, report, path: String::new(), place: None, base, asked: BTreeSet::new() }
    }

    /// Where something of the file stands.
    pub(super) fn place_in_report<T>(&self, value: &Spanned<T>) -> Place {
        let Place { start, end } = value.span();
        start + self.base..end + self.base
    }

    /// Where the table begins; `None` at the top level.
    pub fn place(&self) -> Option<Place> {
        self.place.clone()
    }

    /// The report that defects are noted in.
    pub fn report(&self) -> &'d Report {
        self.report
    }

    /// Notes an error about the table as a whole.
    pub fn error(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.report.error(self.place(), message, remedy);
    }

    /// Whether the key is there, right or wrong. Does not count as asking for it.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Where a key's value stands, if the key is there.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.entries.get(key).map(|value| self.place_in_report(value))
    }

    /// A table `[key]` or `key = {}` that may be missing.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Table<'d>> {
        let value = self.ask(key)?;
        if let DeValue::Table(entries) = value.get_ref() {
            return Some(self.child(key, entries, self.place_in_report(value)));
        }
        let message = format!("{}: {} is not a table", self.key_path(key), kind(value.get_ref()));
        let place = self.place_in_report(value);
        self.report.error(Some(place), message, format!("write [{}]", self.key_path(key)));
        None
    }

    /// The tables `[[key]]` in the order of the file.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table<'d>> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let remedy = format!("write [[{}]]", self.key_path(key));
        let DeValue::Array(elements) = value.get_ref() else {
            let message = format!(
                "{}: {} is not a list of tables",
                self.key_path(key),
                kind(value.get_ref())
            );
            self.report.error(Some(self.place_in_report(value)), message, remedy);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in elements {
            if let DeValue::Table(entries) = element.get_ref() {
                tables.push(self.child(key, entries, self.place_in_report(element)));
            } else {
                let message =
                    format!("{}: {} is not a table", self.key_path(key), kind(element.get_ref()));
                let place = Some(self.place_in_report(element));
                self.report.error(place, message, remedy.clone());
            }
        }
        tables
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if self.asked.contains(name) {
                continue;
            }
            let table =
                if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
            let remedy = match closest(name, self.asked.iter().copied()) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None if self.asked.is_empty() => String::from("remove it"),
                None => {
                    let known: Vec<&str> = self.asked.iter().copied().collect();
                    format!("known keys are {}", known.join(", "))
                }
            };
            let place = Some(self.place_in_report(key));
            self.report.error(place, format!("unknown key \"{name}\"{table}"), remedy);
        }
    }

    /// The path of a key for messages: `group.server.port`.
    pub fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn ask(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.insert(key);
        self.entries.get(key)
    }

    /// Notes what is wrong with the value of a key.
    pub(super) fn problem(&self, key: &str, place: Place, problem: Problem) {
        let Problem { message, remedy } = problem;
        self.report.error(Some(place), format!("{}: {message}", self.key_path(key)), remedy);
    }

    pub(super) fn missing(&self, key: &str, example: &str) {
        self.error(format!("{} is missing", self.key_path(key)), format!("add {key} = {example}"));
    }

    fn child(&self, key: &str, entries: &'d DeTable<'d>, place: Place) -> Table<'d> {
        Table {
            entries,
            report: self.report,
            path: self.key_path(key),
            place: Some(place),
            base: self.base,
            asked: BTreeSet::new(),
        }
    }
}

pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::super::parse;
    use super::super::setting::{list, optional, required, value};
    use super::*;

    fn report(text: &str, read: impl FnOnce(Table<'_>)) -> String {
        parse("f", text, |table| {
            read(table);
            Some(())
        })
        .map_or_else(|report| report.to_string(), |_| String::new())
    }

    #[test]
    fn every_defect_is_told_at_once() {
        let text = "\
[[group]]
name = 7
servers = [\"10.0.0.1\", \"here\", 5]
wiat = \"1s\"

[[group]]
name = \"a\"
wait = \"1y\"
";
        let report = report(text, |mut root| {
            for mut group in root.tables("group") {
                required::<String>("name").read(&mut group);
                list::<IpAddr>("servers").read(&mut group);
                optional::<Duration>("wait").read(&mut group);
                group.finish();
            }
            root.finish();
        });
        assert_eq!(
            report,
            "\
f:2:8: error: group.name: a number is not a text; write it in double quotes
f:3:24: error: group.servers: \"here\" is not an address; write one such as \"192.0.2.1\"
f:3:32: error: group.servers: a number is not a text; write it in double quotes
f:4:1: error: unknown key \"wiat\" in group; did you mean \"wait\"?
f:6:1: error: group.servers is missing; add servers = [\"192.0.2.1\"]
f:8:8: error: group.wait: \"1y\" is not a duration; write a whole number and a unit, such as \"30s\", \"10m\", \"8h\" or \"1d\"
f: 6 errors; nothing was started
"
        );
    }

    #[test]
    fn tables_and_lists_of_the_wrong_kind() {
        let report =
            report("group = 1\nserver = [1]\nike = \"x\"\nlist = 2\nempty = []\n", |mut root| {
                assert!(root.tables("group").is_empty());
                assert!(root.tables("server").is_empty());
                assert!(root.table("ike").is_none());
                assert!(list::<u16>("list").read(&mut root).is_empty());
                assert!(list::<u16>("empty").read(&mut root).is_empty());
                root.finish();
            });
        assert_eq!(
            report,
            "\
f:1:9: error: group: a number is not a list of tables; write [[group]]
f:2:11: error: server: a number is not a table; write [[server]]
f:3:7: error: ike: a text is not a table; write [ike]
f:4:8: error: list: a number is not a list; write [1]
f:5:9: error: empty: the list is empty; write [1]
f: 5 errors; nothing was started
"
        );
    }

    #[test]
    fn bounds_are_told() {
        let report = report("a = 9\nb = \"90s\"\n", |mut root| {
            assert_eq!(value::<u8>("a", 2).within(1..=4).read(&mut root), 2);
            value("b", Duration::from_secs(5))
                .within(Duration::from_secs(1)..=Duration::from_secs(60))
                .read(&mut root);
            root.finish();
        });
        assert_eq!(
            report,
            "\
f:1:5: error: a: 9 is out of range; write 1 to 4
f:2:5: error: b: 90s is out of range; write \"1s\" to \"1m\"
f: 2 errors; nothing was started
"
        );
    }
}
