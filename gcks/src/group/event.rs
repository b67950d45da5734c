//! What happened in a group that an operator may want to read.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::push::PushError;
use super::tek_schedule::TekLifetime;

/// Something that an operator may want to read.
#[derive(Debug)]
pub enum Event {
    /// A TEK was created.
    TekCreated { lifetime: TekLifetime },
    /// A KEK was created.
    KekCreated { spi: [u8; 16] },
    Registered {
        /// Name of the member.
        member: Arc<str>,
        peer: SocketAddr,
        /// Whether it had no keys before.
        new: bool,
    },
    /// The keys of a member ended and it did not come for new ones.
    Expired {
        /// Name of the member.
        member: Arc<str>,
    },
    /// A push is on its way.
    Pushed {
        /// What it is for.
        purpose: &'static str,
        /// Its number under its KEK.
        sequence_number: u32,
        /// To how many members.
        members: usize,
    },
    /// A push could not be made; it is tried again.
    PushFailed { error: PushError },
    /// Members did not acknowledge a push.
    Unacknowledged {
        members: Members,
        /// How many pushes in a row the one has missed that has missed the most.
        most_in_a_row: u64,
    },
    /// Unresponsive members are no longer pushed to.
    Dropped { members: Members },
    /// After a reboot: all keys have ended if the wall clock is right. They were kept.
    AgeUnknown,
    /// All sender identifiers were in use: the group was reinitialized with new keys.
    Reinitialized,
}

/// Members that something happened to at once, in one event however many they are. Written as the
/// names of the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub count: usize,
    /// Different names, since hosts of one prefix have the same; at most [`NAMED`].
    names: Vec<Arc<str>>,
    /// Whether some have other names still.
    more: bool,
}

/// Names in one line of the log.
const NAMED: usize = 5;

impl Members {
    pub(super) fn add(&mut self, name: Arc<str>) {
        self.count += 1;
        if self.names.contains(&name) {
            return;
        }
        match self.names.len() < NAMED {
            true => self.names.push(name),
            false => self.more = true,
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        f.write_str(if self.more { " and others" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_members_are_a_number_and_the_first_names() {
        let mut members = Members::default();
        for name in ["g1", "g2", "g2", "g3"] {
            members.add(Arc::from(name));
        }
        assert_eq!((members.count, members.to_string().as_str()), (4, "g1, g2, g3"));
        for number in 4..=9_500 {
            members.add(Arc::from(format!("g{number}")));
        }
        let shown = members.to_string();
        assert_eq!((members.count, shown.as_str()), (9_501, "g1, g2, g3, g4, g5 and others"));
    }
}
