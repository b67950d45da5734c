//! Two configurations compared: what differs, and what follows from each difference.
//!
//! A change is a value. The log prints it when it is made, `gdoictl reload --dry-run` before.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use daemon::configuration::Name;

/// One option that has another value, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose option it is.
    pub subject: Subject,
    /// Name of the option, as in the file.
    pub option: Name,
    /// Its value so far; `None` for one that was not set, or that is a secret.
    pub before: Option<String>,
    pub after: Option<String>,
    /// What follows, in order. Never empty.
    pub consequences: Vec<Consequence>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The key server as a whole.
    Server,
    /// A member, by the name so far.
    Member(Arc<str>),
    Group(Arc<str>),
}

/// An option with its values, without consequences yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the option.
    pub option: Name,
    /// Its value so far.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// What follows from a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing is sent or deleted; the new value counts from now on.
    AtOnce,
    /// The TEK that is made next has the new value.
    NextTek,
    /// The KEK that is made next has it.
    NextKek,
    /// All TEKs are replaced when members come for the next ones: not all can be told by a push.
    NextTeks,
    /// Nothing, until the daemon is restarted.
    Restart,
    /// The signing key's file holds a key of another kind, which stays.
    SigningKeyStays,
    /// So many ISAKMP SAs end.
    IsakmpSasEnd(usize),
    /// The member may register for these groups.
    MayRegister(Vec<Arc<str>>),
    /// The member is evicted from a group, whose others get keys that it cannot reach.
    Evicted { group: Arc<str>, how: Departure },
    /// The group comes; its keys are made when a member registers.
    GroupMade,
    /// All keys of the group are deleted at its members, which register again.
    KeysDeleted {
        /// How many members are told.
        told: usize,
    },
    /// All keys of the group are deleted at its members.
    GroupEnds {
        /// How many members are told.
        told: usize,
        /// How many are forgotten.
        forgotten: usize,
    },
    /// The KEK is deleted at the members, which register again. TEKs stay.
    KekDeleted {
        /// How many members are told.
        told: usize,
    },
    /// Members are forgotten, and get a KEK when they register.
    MembersForgotten(usize),
    /// TEKs are deleted at the members.
    TeksDeleted {
        count: usize,
        /// How many members are told.
        told: usize,
    },
    /// New TEKs are made and pushed.
    TeksPushed {
        count: usize,
        /// How many members are told.
        told: usize,
    },
    /// New TEKs are made when the first member registers.
    TeksMade(usize),
}

/// How a member is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It has no keys.
    NoKeys,
    /// The others are led to a new KEK by the key hierarchy, and get new TEKs.
    ByHierarchy {
        /// How many others are told.
        told: usize,
    },
    /// All keys are deleted; the others register again.
    AllKeysDeleted {
        /// How many members are told, those that go included.
        told: usize,
    },
    /// Its TEKs are replaced: by a push, or when the others register.
    TeksReplaced {
        /// How many others are told.
        told: usize,
    },
    /// Nobody can be told: the keys that it has end by themselves.
    KeysExpire,
}

impl Change {
    /// A difference with what follows from it.
    pub fn new(subject: Subject, difference: Difference, consequences: Vec<Consequence>) -> Self {
        let Difference { option, before, after } = difference;
        Self { subject, option, before, after, consequences }
    }
}

impl Difference {
    /// An option whose values are told.
    pub fn of(option: Name, before: impl Display, after: impl Display) -> Self {
        Self { option, before: Some(before.to_string()), after: Some(after.to_string()) }
    }

    /// An option whose values are not told: a secret, or a whole table.
    pub fn untold(option: Name) -> Self {
        Self { option, before: None, after: None }
    }
}

impl Consequence {
    /// A stable name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AtOnce => "in-effect",
            Self::NextTek => "next-tek",
            Self::NextKek => "next-kek",
            Self::NextTeks => "next-teks",
            Self::Restart => "restart-required",
            Self::SigningKeyStays => "signing-key-stays",
            Self::IsakmpSasEnd(_) => "isakmp-sas-end",
            Self::MayRegister(_) => "may-register",
            Self::Evicted { .. } => "member-evicted",
            Self::GroupMade => "group-made",
            Self::KeysDeleted { .. } => "keys-deleted",
            Self::GroupEnds { .. } => "group-ends",
            Self::KekDeleted { .. } => "kek-deleted",
            Self::MembersForgotten(_) => "members-forgotten",
            Self::TeksDeleted { .. } => "teks-deleted",
            Self::TeksPushed { .. } => "teks-pushed",
            Self::TeksMade(_) => "teks-made",
        }
    }
}

/// A number of things as text.
fn number(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Who hears of something.
fn told(count: usize) -> String {
    match count {
        0 => String::from("nobody has to be told"),
        1 => String::from("1 member is told"),
        _ => format!("{count} members are told"),
    }
}

impl Display for Consequence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let again = |count: &usize| match count {
            0 => "",
            1 => " and registers again",
            _ => " and register again",
        };
        match self {
            Self::AtOnce => f.write_str("in effect at once"),
            Self::NextTek => f.write_str("in effect with the next TEK"),
            Self::NextKek => f.write_str("in effect with the next KEK"),
            Self::NextTeks => f.write_str(
                "in effect when members come for the next TEKs, because not all of them get pushes",
            ),
            Self::Restart => f.write_str("in effect after a restart; the value before stays"),
            Self::SigningKeyStays => f.write_str(
                "no effect: the signing key's file holds a key of another kind; remove it to have a new one made",
            ),
            Self::IsakmpSasEnd(count) => write!(f, "{} end", number(*count, "ISAKMP SA")),
            Self::MayRegister(groups) => write!(f, "may register for {}", groups.join(", ")),
            Self::Evicted { group, how } => write!(f, "evicted from group {group}: {how}"),
            Self::GroupMade => f.write_str("keys are made when the first member registers"),
            Self::KeysDeleted { told: count } => {
                write!(f, "all keys are deleted: {}{}", told(*count), again(count))
            }
            Self::GroupEnds { told: count, forgotten } => {
                write!(f, "all keys are deleted: {}", told(*count))?;
                match forgotten.saturating_sub(*count) {
                    0 => Ok(()),
                    left => write!(
                        f,
                        "; the keys of {} end by themselves, because the group has no pushes",
                        number(left, "member")
                    ),
                }
            }
            Self::KekDeleted { told: count } => {
                write!(f, "the KEK is deleted: {}{}", told(*count), again(count))
            }
            Self::MembersForgotten(count) => {
                write!(f, "{} forgotten: each gets a KEK when it registers", number(*count, "member"))
            }
            Self::TeksDeleted { count, told: members } => {
                write!(f, "{} deleted at once: {}", number(*count, "TEK"), told(*members))
            }
            Self::TeksPushed { count, told: members } => {
                write!(f, "{} made and pushed: {}", number(*count, "TEK"), told(*members))
            }
            Self::TeksMade(count) => {
                write!(f, "{} made when the next member registers", number(*count, "TEK"))
            }
        }
    }
}

impl Display for Departure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys => f.write_str("it has no keys"),
            Self::ByHierarchy { told: count } => {
                write!(f, "new keys under a KEK that it cannot reach: {}", told(*count))
            }
            Self::AllKeysDeleted { told: count } => {
                write!(f, "all keys are deleted, the others register again: {}", told(*count))
            }
            Self::TeksReplaced { told: count } => {
                write!(f, "the others get new TEKs: {}", told(*count))
            }
            Self::KeysExpire => f.write_str("forgotten; the keys that it has end by themselves"),
        }
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Member(name) => write!(f, "member {name}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.option)?;
        match (&self.before, &self.after) {
            (None, None) => {}
            (Some(before), None) => write!(f, " {before} removed")?,
            (None, Some(after)) => write!(f, " {after} added")?,
            (Some(before), Some(after)) => write!(f, " from {before} to {after}")?,
        }
        let consequences: Vec<String> =
            self.consequences.iter().map(Consequence::to_string).collect();
        write!(f, ": {}", consequences.join("; "))
    }
}
