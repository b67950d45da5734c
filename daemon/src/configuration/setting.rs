//! The declaration of one option: how it is read, checked, explained and shown.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use super::option::{Applies, Declaration, Description, Effective, Kind, Name, Value};
use super::table::{Located, Place, Table, kind};
use super::value::{Problem, Read, choice, name_of, quoted};
use crate::secrets::SecretSource;

mod section;

pub use section::{flattened, optional_table, table, tables, usual};

/// The names that may be written, and what they mean.
pub type Names<T> = &'static [(&'static str, T)];

type Choose<T> = fn(&DeValue<'_>, &[(&'static str, T)]) -> Result<T, Problem>;

/// How a value is read.
enum Parse<T: 'static> {
    Function(fn(&DeValue<'_>) -> Result<T, Problem>),
    Word(Choose<T>),
}

type Reader<T, V> = Box<dyn Fn(&Setting<T, V>, &mut Table<'_>) -> V>;

/// The declaration of one option: `T` is one value, `V` the field that it is read into.
pub struct Setting<T: 'static, V> {
    key: &'static str,
    /// The second key of a [`key_source`].
    second: &'static str,
    names: Names<T>,
    parse: Parse<T>,
    show: fn(&T, &[(&'static str, T)]) -> String,
    read: Reader<T, V>,
    /// The value of the field in the form of the file.
    values: fn(&Self, &V) -> Option<String>,
    describe: fn(&Self, Vec<String>) -> Vec<Description>,
    range: Option<RangeInclusive<T>>,
    is_within: fn(&RangeInclusive<T>, &T) -> bool,
    value: Value,
    /// The value that a report proposes.
    proposal: &'static str,
    /// What the example file shows after the table.
    also: &'static str,
    /// Values of the table that the example file sets.
    showing: &'static [(&'static str, &'static str)],
    /// Whether the example file shows no others.
    is_excerpt: bool,
    /// Whether the example file shows the table as a comment.
    only_shown: bool,
    /// Whether a list may have no element.
    may_be_empty: bool,
    /// Message and remedy when a table is missing.
    missing: Option<(&'static str, &'static str)>,
}

impl<T: 'static, V> Setting<T, V> {
    fn new(
        key: &'static str,
        values: fn(&Self, &V) -> Option<String>,
        read: impl Fn(&Self, &mut Table<'_>) -> V + 'static,
    ) -> Self {
        Self {
            key,
            second: "",
            names: &[],
            parse: Parse::Function(|value| {
                Err(Problem::new(format!("{} is not expected", kind(value)), "remove it"))
            }),
            show: |_, _| String::new(),
            read: Box::new(read),
            values,
            describe: Self::describe_value,
            range: None,
            is_within: |_, _| true,
            value: Value {
                type_name: "",
                list: false,
                names: Vec::new(),
                range: None,
                required: false,
                default: None,
                example: None,
                set_in_example: false,
                applies: Applies::OnReload,
            },
            proposal: "",
            also: "",
            showing: &[],
            is_excerpt: false,
            only_shown: false,
            may_be_empty: false,
            missing: None,
        }
    }

    fn typed(mut self) -> Self
    where
        T: Read,
    {
        self.parse = Parse::Function(T::read);
        self.show = |value, _| value.toml();
        self.proposal = T::EXAMPLE;
        self.value.type_name = T::TYPE;
        self.value.names = T::names();
        self
    }

    fn with_names(mut self, names: Names<T>) -> Self
    where
        T: Clone + PartialEq,
    {
        self.names = names;
        self.parse = Parse::Word(choice);
        self.show = name_of;
        self.value.names = quoted(names);
        self.proposal = names.first().map_or("", |(word, _)| word);
        self
    }

    /// Reads values by a function of their own; `type_name` and `proposal` are for people.
    pub fn parsed_by(
        mut self,
        type_name: &'static str,
        proposal: &'static str,
        parse: fn(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Self {
        self.parse = Parse::Function(parse);
        (self.proposal, self.value.type_name) = (proposal, type_name);
        self
    }

    /// Refuses other values than these.
    pub fn within(mut self, range: RangeInclusive<T>) -> Self
    where
        T: PartialOrd,
    {
        let show = |value| (self.show)(value, self.names);
        let texts = (show(range.start()), show(range.end()));
        self.value.range = Some(texts);
        self.range = Some(range);
        self.is_within = |range, value| range.contains(value);
        self
    }

    /// The default that the caller applies where the option is missing.
    pub fn usual(mut self, value: &T) -> Self {
        self.value.default = Some((self.show)(value, self.names));
        self
    }

    /// Accepts a list without elements.
    pub fn may_be_empty(mut self) -> Self {
        self.may_be_empty = true;
        self
    }

    /// What the example file shows as a comment.
    pub fn example(mut self, text: &str) -> Self {
        self.value.example = Some(text.to_owned());
        self
    }

    /// What the example file sets.
    pub fn set(mut self, text: &str) -> Self {
        self.value.set_in_example = true;
        self.example(text)
    }

    /// When a change takes effect.
    pub fn applies(mut self, applies: Applies) -> Self {
        self.value.applies = applies;
        self
    }

    /// More of the same kind for the example file.
    pub fn also(mut self, text: &'static str) -> Self {
        self.also = text;
        self
    }

    /// Values of the table that the example file sets.
    pub fn showing(mut self, values: &'static [(&'static str, &'static str)]) -> Self {
        self.showing = values;
        self
    }

    /// Values of the table that the example file sets; others are explained elsewhere.
    pub fn excerpt(mut self, values: &'static [(&'static str, &'static str)]) -> Self {
        self.is_excerpt = true;
        self.showing(values)
    }

    /// Shows the table in the example file as a comment: it would do what few want.
    pub fn only_shown(mut self) -> Self {
        self.only_shown = true;
        self
    }

    /// What is reported when the table is missing.
    pub fn or_report(mut self, message: &'static str, remedy: &'static str) -> Self {
        self.missing = Some((message, remedy));
        self
    }

    pub fn read(&self, table: &mut Table<'_>) -> V {
        (self.read)(self, table)
    }

    fn describe_value(&self, text: Vec<String>) -> Vec<Description> {
        let kind = Kind::Value(self.value.clone());
        vec![Description { key: self.key, text, kind, also: "", only_shown: false }]
    }

    /// One value of the file; `None` when it is wrong, which is then noted.
    fn one(&self, table: &Table<'_>, value: &Spanned<DeValue<'_>>) -> Option<Located<T>> {
        let parsed = match self.parse {
            Parse::Function(parse) => parse(value.get_ref()),
            Parse::Word(parse) => parse(value.get_ref(), self.names),
        };
        let read = match parsed {
            Ok(read) => read,
            Err(problem) => {
                table.problem(self.key, table.place_in_report(value), problem);
                return None;
            }
        };
        if let (Some(range), Some((first, last))) = (&self.range, &self.value.range)
            && !(self.is_within)(range, &read)
        {
            let shown = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                _ => (self.show)(&read, self.names),
            };
            let problem = Problem::new(
                format!("{shown} is out of range"),
                format!("write {first} to {last}"),
            );
            table.problem(self.key, table.place_in_report(value), problem);
            return None;
        }
        Some(Located { value: read, place: table.place_in_report(value) })
    }

    fn maybe(&self, table: &mut Table<'_>) -> Option<Located<T>> {
        match table.ask(self.key) {
            Some(value) => self.one(table, value),
            None => {
                if self.value.required {
                    table.missing(self.key, self.proposal);
                }
                None
            }
        }
    }

    /// `None` when the key is missing; elements that are wrong are left out.
    fn many(&self, table: &mut Table<'_>) -> Option<Vec<Located<T>>> {
        let Some(value) = table.ask(self.key) else {
            if self.value.required {
                table.missing(self.key, &format!("[{}]", self.proposal));
            }
            return None;
        };
        let remedy = format!("write [{}]", self.proposal);
        match value.get_ref() {
            DeValue::Array(elements) if elements.is_empty() && !self.may_be_empty => {
                table.problem(
                    self.key,
                    table.place_in_report(value),
                    Problem::new("the list is empty", remedy),
                );
                Some(Vec::new())
            }
            DeValue::Array(elements) => {
                Some(elements.iter().filter_map(|element| self.one(table, element)).collect())
            }
            other => {
                let message = format!("{} is not a list", kind(other));
                table.problem(
                    self.key,
                    table.place_in_report(value),
                    Problem::new(message, remedy),
                );
                Some(Vec::new())
            }
        }
    }

    fn show_list<'v>(&self, values: impl Iterator<Item = &'v T>) -> String {
        let values: Vec<String> = values.map(|value| (self.show)(value, self.names)).collect();
        format!("[{}]", values.join(", "))
    }
}

impl<T: 'static, V> Declaration<V> for Setting<T, V> {
    fn read(&self, table: &mut Table<'_>) -> V {
        (self.read)(self, table)
    }

    fn describe(&self, text: Vec<String>) -> Vec<Description> {
        (self.describe)(self, text)
    }

    fn effective(&self, value: &V) -> Option<Effective> {
        if self.value.type_name.is_empty() && self.value.names.is_empty() {
            return None;
        }
        let text = (self.values)(self, value).or_else(|| self.value.default.clone());
        let is_default = text == self.value.default;
        Some(Effective { key: self.key, value: text, is_default })
    }

    fn name(&self) -> Name {
        // A secret is the same one, whether a file or a credential has it.
        let is_source = !self.second.is_empty();
        let bare = self.key.strip_suffix("-file").filter(|_| is_source);
        Name::new(bare.unwrap_or(self.key))
    }
}

/// A value with a default.
pub fn value<T: Read + Clone>(key: &'static str, default: T) -> Setting<T, T> {
    let usual = default.clone();
    scalar(key, default).typed().usual(&usual)
}

/// One of some names, with a default.
pub fn one_of<T: Clone + PartialEq>(
    key: &'static str,
    default: T,
    names: Names<T>,
) -> Setting<T, T> {
    let usual = default.clone();
    scalar(key, default).with_names(names).usual(&usual)
}

/// A value that is read and shown by functions of its own; `type_name` is for people.
pub fn parsed<T: Clone>(
    key: &'static str,
    default: T,
    type_name: &'static str,
    parse: fn(&DeValue<'_>) -> Result<T, Problem>,
    show: fn(&T, &[(&'static str, T)]) -> String,
) -> Setting<T, T> {
    let usual = default.clone();
    let mut setting = scalar(key, default).parsed_by(type_name, "", parse);
    setting.show = show;
    setting.usual(&usual)
}

/// A value with a default, and where it stands.
pub fn located<T: Read + Clone>(key: &'static str, default: T) -> Setting<T, Located<T>> {
    let usual = default.clone();
    let values = |this: &Setting<T, Located<T>>, value: &Located<T>| {
        Some((this.show)(&value.value, this.names))
    };
    let setting = Setting::new(key, values, move |this, table| {
        this.maybe(table).unwrap_or_else(|| Located { value: default.clone(), place: 0..0 })
    });
    setting.typed().usual(&usual)
}

/// A value that must be there. A wrong one is noted and counts as missing.
pub fn required<T: Read>(key: &'static str) -> Setting<T, Option<Located<T>>> {
    let mut setting = optional(key);
    setting.value.required = true;
    setting
}

/// A value that may be missing.
pub fn optional<T: Read>(key: &'static str) -> Setting<T, Option<Located<T>>> {
    maybe(key).typed()
}

/// One of some names, which may be missing.
pub fn optional_one_of<T: Clone + PartialEq>(
    key: &'static str,
    names: Names<T>,
) -> Setting<T, Option<Located<T>>> {
    maybe(key).with_names(names)
}

/// A list that must be there and have an element.
pub fn list<T: Read>(key: &'static str) -> Setting<T, Vec<Located<T>>> {
    let mut setting = elements(key, Vec::new);
    setting.value.required = true;
    setting
}

/// A list that may be missing; one that is there must have an element.
pub fn optional_list<T: Read>(key: &'static str) -> Setting<T, Vec<Located<T>>> {
    elements(key, Vec::new)
}

/// A list with a default; one that is there must have an element.
pub fn list_or<T: Read + Clone, const N: usize>(
    key: &'static str,
    default: [T; N],
) -> Setting<T, Vec<Located<T>>> {
    let usual = default.clone();
    let mut setting = elements(key, move || {
        default.iter().map(|value| Located { value: value.clone(), place: 0..0 }).collect()
    });
    setting.value.default = Some(setting.show_list(usual.iter()));
    setting
}

/// A key from a file or from a credential of the service manager, under these two keys. Naming both
/// is an error.
pub fn key_source(
    file: &'static str,
    credential: &'static str,
) -> Setting<SecretSource, Option<Located<SecretSource>>> {
    let values = |_: &Setting<_, _>, _: &Option<Located<SecretSource>>| None;
    let mut setting =
        Setting::new(file, values, move |_, table| super::secret::source(table, file, credential));
    setting.second = credential;
    setting.value.type_name = "path";
    setting.describe = |this, text| {
        let mut descriptions = this.describe_value(text);
        let mut value = this.value.clone();
        (value.type_name, value.required, value.set_in_example) = ("text", false, false);
        value.example = Some(format!("\"{}\"", this.second.trim_end_matches("-credential")));
        let text = "Or a credential of the systemd unit; not beside the file.".to_owned();
        let kind = Kind::Value(value);
        descriptions.push(Description {
            key: this.second,
            text: vec![text],
            kind,
            also: "",
            only_shown: false,
        });
        descriptions
    };
    setting
}

/// Whether one of the keys is there, right or wrong. Not an option by itself.
pub fn is_named(keys: &'static [&'static str]) -> Setting<(), bool> {
    hidden(move |table| keys.iter().any(|key| table.has(key)))
}

/// Where the table begins. Not an option by itself.
pub fn place() -> Setting<(), Option<Place>> {
    hidden(|table| table.place())
}

fn scalar<T: Clone>(key: &'static str, default: T) -> Setting<T, T> {
    let values = |this: &Setting<T, T>, value: &T| Some((this.show)(value, this.names));
    Setting::new(key, values, move |this, table| {
        this.maybe(table).map_or_else(|| default.clone(), |located| located.value)
    })
}

fn maybe<T>(key: &'static str) -> Setting<T, Option<Located<T>>> {
    let values = |this: &Setting<T, _>, value: &Option<Located<T>>| {
        value.as_ref().map(|value| (this.show)(&value.value, this.names))
    };
    Setting::new(key, values, Setting::maybe)
}

fn elements<T: Read>(
    key: &'static str,
    default: impl Fn() -> Vec<Located<T>> + 'static,
) -> Setting<T, Vec<Located<T>>> {
    let values = |this: &Setting<T, _>, values: &Vec<Located<T>>| {
        Some(this.show_list(values.iter().map(|located| &located.value)))
    };
    let mut setting =
        Setting::new(key, values, move |this, table| this.many(table).unwrap_or_else(&default));
    setting.value.list = true;
    setting.typed()
}

fn hidden<V>(read: impl Fn(&Table<'_>) -> V + 'static) -> Setting<(), V> {
    let mut setting = Setting::new("", |_, _| None, move |_, table| read(table));
    setting.describe = |_, _| Vec::new();
    setting
}
