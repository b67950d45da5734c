//! One value of a configuration file, by type.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use gdoi::group::AddressRange;
use ipnet::IpNet;
use toml::de::DeValue;

use super::table::kind;

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, beginning with the value.
    pub message: String,
    pub remedy: String,
}

impl Problem {
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// A type that a value can be read as.
pub trait Read: Sized {
    /// A valid value as one writes it, for remedies.
    const EXAMPLE: &'static str;
    /// What people call such a value.
    const TYPE: &'static str;

    /// # Errors
    /// The value is of another kind or has no meaning here.
    fn read(value: &DeValue<'_>) -> Result<Self, Problem>;

    /// The value in the form of the file.
    fn toml(&self) -> String;

    /// The names that may be written, in that form; empty where others may.
    fn names() -> Vec<String> {
        Vec::new()
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Problem> {
    match value {
        DeValue::String(text) => Ok(text),
        other => {
            Err(Problem::new(format!("{} is not a text", kind(other)), "write it in double quotes"))
        }
    }
}

/// A text in the form of the file.
pub(super) fn text_toml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Reads one name of a list.
///
/// # Errors
/// Not a text, or not one of the names; the closest is proposed.
pub fn choice<T: Clone>(value: &DeValue<'_>, choices: &[(&'static str, T)]) -> Result<T, Problem> {
    let text = text(value)?;
    if let Some((_, found)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(found.clone());
    }
    let names = || choices.iter().map(|(name, _)| *name);
    let remedy = match closest(text, names()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!(
            "write one of {}",
            names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
        ),
    };
    Err(Problem::new(format!("\"{text}\" is not known"), remedy))
}

/// The names in the form of the file.
pub fn quoted<T>(names: &[(&'static str, T)]) -> Vec<String> {
    names.iter().map(|(name, _)| format!("\"{name}\"")).collect()
}

/// The name of a value, in the form of the file.
pub fn name_of<T: PartialEq>(value: &T, names: &[(&'static str, T)]) -> String {
    let name = names.iter().find(|(_, known)| known == value);
    name.map(|(name, _)| format!("\"{name}\"")).unwrap_or_default()
}

impl Read for String {
    const EXAMPLE: &'static str = "\"text\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = text(value)?;
        if text.is_empty() {
            return Err(Problem::new("the text is empty", "write something"));
        }
        Ok(text.to_owned())
    }

    fn toml(&self) -> String {
        text_toml(self)
    }
}

impl Read for PathBuf {
    const EXAMPLE: &'static str = "\"/path/to/file\"";
    const TYPE: &'static str = "path";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let path = Self::from(String::read(value)?);
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(Problem::new(
                format!("\"{}\" is not an absolute path", path.display()),
                "begin it with /",
            ))
        }
    }

    fn toml(&self) -> String {
        text_toml(&self.display().to_string())
    }
}

impl Read for bool {
    const EXAMPLE: &'static str = "false";
    const TYPE: &'static str = "boolean";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(Problem::new(
                format!("{} is not a truth value", kind(other)),
                "write true or false",
            )),
        }
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Read for $number {
            const EXAMPLE: &'static str = "1";
            const TYPE: &'static str = "number";

            fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
                match value {
                    DeValue::Integer(digits) => Self::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| {
                        let remedy = format!("write a number from {} to {}", Self::MIN, Self::MAX);
                        Problem::new(format!("{digits} does not fit"), remedy)
                    }),
                    other => Err(Problem::new(format!("{} is not a number", kind(other)), "write digits without quotes")),
                }
            }

            fn toml(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

impl Read for IpAddr {
    const EXAMPLE: &'static str = "\"192.0.2.1\"";
    const TYPE: &'static str = "address";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = text(value)?;
        text.parse().map_err(|_| {
            Problem::new(format!("\"{text}\" is not an address"), "write one such as \"192.0.2.1\"")
        })
    }

    fn toml(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Read for IpNet {
    const EXAMPLE: &'static str = "\"192.0.2.0/24\"";
    const TYPE: &'static str = "address or prefix";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = text(value)?;
        prefix(text).unwrap_or_else(|| {
            let message = format!("\"{text}\" is not an address or prefix");
            Err(Problem::new(message, "write one such as \"192.0.2.1\" or \"192.0.2.0/24\""))
        })
    }

    fn toml(&self) -> String {
        format!("\"{self}\"")
    }
}

/// A prefix without host bits; an address alone is a prefix of full length. `None` if the text is
/// neither.
fn prefix(text: &str) -> Option<Result<IpNet, Problem>> {
    let parsed = match text.parse::<IpNet>() {
        Ok(prefix) => Some(prefix),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let prefix = parsed?;
    if prefix.addr() == prefix.network() {
        return Some(Ok(prefix));
    }
    let remedy = format!("write \"{}\" or \"{}\"", prefix.trunc(), prefix.addr());
    Some(Err(Problem::new(format!("\"{text}\" has host bits"), remedy)))
}

impl Read for AddressRange {
    const EXAMPLE: &'static str = "\"192.0.2.0/24\"";
    const TYPE: &'static str = "address, prefix, range or \"any\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let text = text(value)?;
        if text == "any" {
            return Ok(Self::Any);
        }
        if let Some((first, last)) = text.split_once('-') {
            let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
            return match (parse(first), parse(last)) {
                (Some(first), Some(last)) if first.is_ipv4() == last.is_ipv4() && first <= last => {
                    Ok(Self::Range(first, last))
                }
                (Some(first), Some(last)) if first.is_ipv4() == last.is_ipv4() => {
                    Err(Problem::new(
                        format!("\"{text}\" runs backwards"),
                        format!("write \"{last}-{first}\""),
                    ))
                }
                _ => Err(Problem::new(
                    format!("\"{text}\" is not a range of addresses"),
                    "write one such as \"192.0.2.10-192.0.2.20\"",
                )),
            };
        }
        let prefix = prefix(text).unwrap_or_else(|| {
            Err(Problem::new(
                format!("\"{text}\" is not an address, prefix, range or \"any\""),
                "write one such as \"192.0.2.0/24\", \"192.0.2.10-192.0.2.20\" or \"any\"",
            ))
        })?;
        let whole = prefix.prefix_len() == prefix.max_prefix_len();
        Ok(if whole { Self::Address(prefix.addr()) } else { Self::Subnet(prefix) })
    }

    fn toml(&self) -> String {
        match self {
            Self::Any => "\"any\"".to_owned(),
            Self::Address(address) => format!("\"{address}\""),
            Self::Range(first, last) => format!("\"{first}-{last}\""),
            Self::Subnet(prefix) => format!("\"{prefix}\""),
        }
    }
}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

impl Read for Duration {
    const EXAMPLE: &'static str = "\"1h\"";
    const TYPE: &'static str = "duration";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let remedy = "write a whole number and a unit, such as \"30s\", \"10m\", \"8h\" or \"1d\"";
        let text = match value {
            DeValue::String(text) => text.as_ref(),
            other => {
                return Err(Problem::new(format!("{} is not a duration", kind(other)), remedy));
            }
        };
        let seconds = || {
            let unit = text.chars().next_back()?;
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            let digits = text.strip_suffix(unit)?;
            if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            digits.parse::<u64>().ok()?.checked_mul(*seconds)
        };
        let seconds = seconds()
            .ok_or_else(|| Problem::new(format!("\"{text}\" is not a duration"), remedy))?;
        Ok(Self::from_secs(seconds))
    }

    fn toml(&self) -> String {
        format!("\"{}\"", duration_text(*self))
    }
}

/// A duration of whole seconds as one writes it: the largest unit that gives a whole number.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = UNITS.iter().find(|(_, unit)| seconds != 0 && seconds.is_multiple_of(*unit));
    let (name, unit) = unit.copied().unwrap_or(('s', 1));
    format!("{}{name}", seconds / unit)
}

/// The known word that `word` was probably meant to be.
pub(crate) fn closest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    // Two letters in the wrong order count as two wrong ones.
    let tolerance = if word.len() < 4 { 1 } else { 2 };
    known
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance, by which the nearest known name is suggested.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().take(64).enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = vec![before];
        for (other, above) in right.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(letter != *other);
            before = replaced.min(above + 1).min(before + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Read>(text: &str) -> Result<T, String> {
        let value = DeValue::parse(text).unwrap();
        T::read(value.get_ref())
            .map_err(|problem| format!("{}; {}", problem.message, problem.remedy))
    }

    #[test]
    fn durations() {
        for (text, seconds) in
            [("30s", 30), ("10m", 600), ("8h", 28_800), ("1d", 86_400), ("0s", 0)]
        {
            let duration = read::<Duration>(&format!("\"{text}\"")).unwrap();
            assert_eq!(duration, Duration::from_secs(seconds));
            assert_eq!(duration_text(duration), if seconds == 0 { "0s" } else { text });
        }
        for text in [
            "\"\"",
            "\"s\"",
            "\"1\"",
            "\"1.5h\"",
            "\"-1s\"",
            "\"+1s\"",
            "\"1 s\"",
            "\"1é\"",
            "\"99999999999999999d\"",
            "60",
        ] {
            assert!(read::<Duration>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_prefixes_and_ranges() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(read::<AddressRange>("\"any\""), Ok(AddressRange::Any));
        assert_eq!(
            read::<AddressRange>("\"10.0.0.1\""),
            Ok(AddressRange::Address(address("10.0.0.1")))
        );
        assert_eq!(
            read::<AddressRange>("\"10.0.0.1/32\""),
            Ok(AddressRange::Address(address("10.0.0.1")))
        );
        assert_eq!(
            read::<AddressRange>("\"2001:db8::/32\""),
            Ok(AddressRange::Subnet("2001:db8::/32".parse().unwrap()))
        );
        assert_eq!(
            read::<AddressRange>("\"10.0.0.1 - 10.0.0.9\""),
            Ok(AddressRange::Range(address("10.0.0.1"), address("10.0.0.9")))
        );
        assert_eq!(
            read::<AddressRange>("\"10.0.0.9-10.0.0.1\"").unwrap_err(),
            "\"10.0.0.9-10.0.0.1\" runs backwards; write \"10.0.0.1-10.0.0.9\""
        );
        assert!(read::<AddressRange>("\"10.0.0.1-2001:db8::1\"").is_err());
        assert_eq!(
            read::<AddressRange>("\"10.0.0.1/24\"").unwrap_err(),
            "\"10.0.0.1/24\" has host bits; write \"10.0.0.0/24\" or \"10.0.0.1\""
        );
        assert_eq!(read::<IpNet>("\"10.0.0.1\""), Ok("10.0.0.1/32".parse().unwrap()));
        assert!(read::<IpNet>("\"10.0.0.0/33\"").is_err());
    }

    #[test]
    fn numbers_in_all_bases() {
        assert_eq!(read::<u16>("0x350"), Ok(848));
        assert_eq!(read::<u32>("4294967295"), Ok(u32::MAX));
        assert_eq!(
            read::<u8>("256").unwrap_err(),
            "256 does not fit; write a number from 0 to 255"
        );
        assert_eq!(read::<u8>("-1").unwrap_err(), "-1 does not fit; write a number from 0 to 255");
        assert_eq!(
            read::<u16>("\"848\"").unwrap_err(),
            "a text is not a number; write digits without quotes"
        );
    }

    #[test]
    fn paths_are_absolute() {
        assert!(read::<PathBuf>("\"/etc/x\"").is_ok());
        assert_eq!(
            read::<PathBuf>("\"x\"").unwrap_err(),
            "\"x\" is not an absolute path; begin it with /"
        );
        assert!(read::<String>("\"\"").is_err());
    }

    #[test]
    fn words_are_proposed() {
        let choices = [("clear", 1), ("copy", 2), ("set", 3)];
        fn value(text: &str) -> DeValue<'_> {
            DeValue::parse(text).unwrap().into_inner()
        }
        assert_eq!(choice(&value("\"copy\""), &choices), Ok(2));
        assert_eq!(
            choice(&value("\"cpoy\""), &choices).unwrap_err().remedy,
            "did you mean \"copy\"?"
        );
        assert_eq!(
            choice(&value("\"banana\""), &choices).unwrap_err().remedy,
            "write one of \"clear\", \"copy\", \"set\""
        );
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("adress", "address"), 1);
        assert_eq!(
            closest("pre_shared_key_file", ["pre-shared-key-file", "groups"].into_iter()),
            Some("pre-shared-key-file")
        );
        assert_eq!(closest("x", ["id"].into_iter()), None);
    }
}
