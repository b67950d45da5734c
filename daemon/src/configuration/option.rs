//! What people are told about options: data from which the example file, the manual page and show
//! commands are made.

use std::fmt::{self, Display, Formatter};

use super::table::Table;

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    OnReload,
    /// On reload, which makes the group register again or ends ISAKMP SAs.
    NewRegistration,
    /// With the next TEK.
    NextTek,
    /// With the next KEK.
    NextKek,
    /// After a restart of the daemon.
    Restart,
}

impl Applies {
    /// As the manual page says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::OnReload => "takes effect on reload",
            Self::NewRegistration => "takes effect on reload, with a new registration",
            Self::NextTek => "takes effect with the next TEK",
            Self::NextKek => "takes effect with the next KEK",
            Self::Restart => "takes effect after a restart",
        }
    }
}

/// What people are told about one option.
#[derive(Clone, Debug)]
pub struct Description {
    pub key: &'static str,
    /// The explanation, a paragraph for each element.
    pub text: Vec<String>,
    /// What may be written.
    pub kind: Kind,
    /// What the example file shows after a table.
    pub also: &'static str,
    /// Whether the example file shows the table as a comment only: few want it, and it does
    /// something.
    pub only_shown: bool,
}

/// What may be written for an option.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A value or a list of values.
    Value(Value),
    Table(Outline),
    Tables(Outline),
}

/// A value that may be written, in the form of the file.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its type, for example `duration`.
    pub type_name: &'static str,
    /// Whether it is a list.
    pub list: bool,
    /// The names that may be written, in quotes; empty where others may.
    pub names: Vec<String>,
    /// First and last allowed value.
    pub range: Option<(String, String)>,
    /// Whether it must be there.
    pub required: bool,
    /// What holds when it is missing.
    pub default: Option<String>,
    /// What the example file shows instead of the default.
    pub example: Option<String>,
    /// Whether the example file sets it, or shows it as a comment.
    pub set_in_example: bool,
    /// When a change takes effect.
    pub applies: Applies,
}

/// All options of a table.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// The explanation of the table.
    pub text: Vec<String>,
    /// Its options in the order of the example file.
    pub options: Vec<Description>,
}

impl Outline {
    /// The same with all tables in force that the example file shows only.
    pub fn in_force(mut self) -> Self {
        for option in &mut self.options {
            option.only_shown = false;
            if let Kind::Table(inner) | Kind::Tables(inner) = &mut option.kind {
                *inner = std::mem::take(inner).in_force();
            }
        }
        self
    }

    /// Every option that may be written, with the tables that it is in, and when a change of it
    /// takes effect.
    pub fn paths(&self) -> Vec<(String, Applies)> {
        let mut all = Vec::new();
        for option in &self.options {
            match &option.kind {
                Kind::Value(value) => all.push((option.key.to_owned(), value.applies)),
                Kind::Table(inner) | Kind::Tables(inner) => {
                    let paths = inner.paths().into_iter();
                    all.extend(paths.map(|(path, when)| (format!("{}.{path}", option.key), when)));
                }
            }
        }
        all
    }
}

/// An option with its value, as `show configuration` would list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub key: &'static str,
    /// The value in the form of the file; `None` for one that is not set and has no default.
    pub value: Option<String>,
    /// Whether it equals the default.
    pub is_default: bool,
}

/// Name of an option with the table that it is in, as `rekey.lifetime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    table: &'static str,
    key: &'static str,
}

impl Name {
    /// An option outside of tables, or a table as a whole.
    pub const fn new(key: &'static str) -> Self {
        Self { table: "", key }
    }

    /// The key without the table that it is in.
    pub fn key(self) -> &'static str {
        self.key
    }

    /// The same option inside of a table.
    pub fn inside(self, table: Self) -> Self {
        Self { table: table.key, ..self }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let dot = if self.table.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.table, self.key)
    }
}

/// The declaration of one field, which is read into `V`. [`options!`](crate::options) makes a
/// function of every field that returns it, so that nobody has to write its name a second time.
pub trait Declaration<V> {
    fn read(&self, table: &mut Table<'_>) -> V;
    /// What people are told about it.
    fn describe(&self, text: Vec<String>) -> Vec<Description>;
    /// The value that holds; `None` for a table and for what is no option by itself.
    fn effective(&self, value: &V) -> Option<Effective>;
    fn name(&self) -> Name;

    /// The value in a sentence: without the quotes of the file, `none` where nothing is set.
    fn text(&self, value: &V) -> String {
        let text = self.effective(value).and_then(|effective| effective.value);
        let text = text.unwrap_or_else(|| String::from("none"));
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        bare.map(str::to_owned).unwrap_or(text)
    }
}

/// A struct that [`options!`](crate::options) made of a table.
pub trait Section: Sized {
    /// Asks the table for all of its options; [`Table::finish`] is the caller's.
    fn read(table: &mut Table<'_>) -> Self;
    /// What people are told about it.
    fn outline() -> Outline;
    /// The values that hold, defaults included; tables inside are not listed.
    fn effective(&self) -> Vec<Effective>;
}

/// Declares all options of a table: a struct with a field for each, its reader and its [`Outline`],
/// and for each field a function of its name that returns the [`Declaration`].
///
/// The documentation of a field is the text for people; the expression behind it is a
/// [`Setting`](super::Setting) and says everything else.
///
/// ```
/// use std::time::Duration;
/// use daemon::configuration::{self, Section as _, value};
/// use daemon::options;
///
/// options! {
///     /// How often, and how long.
///     pub struct Limits {
///         /// How long an exchange may take.
///         pub wait: Duration = value("wait", Duration::from_secs(30))
///             .within(Duration::from_secs(5)..=Duration::from_secs(300));
///     }
/// }
///
/// let text = "wait = \"1s\"\nwiat = 1\n";
/// let report = configuration::parse("f", text, |mut root| {
///     let limits = Limits::read(&mut root);
///     root.finish();
///     Some(limits)
/// });
/// assert_eq!(
///     report.err().map(|report| report.to_string()).unwrap_or_default(),
///     "f:1:8: error: wait: 1s is out of range; write \"5s\" to \"5m\"\n\
///      f:2:1: error: unknown key \"wiat\"; did you mean \"wait\"?\n\
///      f: 2 errors; nothing was started\n",
/// );
/// ```
#[macro_export]
macro_rules! options {
    ($(
        $(#[doc = $about:literal])*
        $visible:vis struct $name:ident {$(
            $(#[doc = $text:literal])*
            $field_visible:vis $field:ident: $type:ty = $setting:expr;
        )*}
    )*) => {$(
        $(#[doc = $about])*
        #[derive(Debug)]
        $visible struct $name {$(
            $(#[doc = $text])*
            $field_visible $field: $type,
        )*}

        impl $name {$(
            $(#[doc = $text])*
            $field_visible fn $field() -> impl $crate::configuration::Declaration<$type> {
                let declared: $crate::configuration::Setting<_, $type> = $setting;
                declared
            }
        )*}

        impl $crate::configuration::Section for $name {
            fn read(table: &mut $crate::configuration::Table<'_>) -> Self {
                use $crate::configuration::Declaration as _;
                Self {$( $field: Self::$field().read(table), )*}
            }

            fn outline() -> $crate::configuration::Outline {
                use $crate::configuration::Declaration as _;
                let mut options = Vec::new();
                $(
                    let text = $crate::configuration::paragraphs(&[$($text),*]);
                    options.extend(Self::$field().describe(text));
                )*
                let text = $crate::configuration::paragraphs(&[$($about),*]);
                $crate::configuration::Outline { text, options }
            }

            fn effective(&self) -> Vec<$crate::configuration::Effective> {
                use $crate::configuration::Declaration as _;
                let mut values = Vec::new();
                $( values.extend(Self::$field().effective(&self.$field)); )*
                values
            }
        }
    )*};
}

/// Joins the lines of documentation to paragraphs.
pub fn paragraphs(lines: &[&str]) -> Vec<String> {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines
        .split(|line| line.is_empty())
        .map(|paragraph| paragraph.join(" "))
        .filter(|paragraph| !paragraph.is_empty())
        .collect()
}
