//! What keeps a group from registering or sending, as long as it does: shown as a problem, and gone
//! with its cause.

use std::fmt;

use super::Membership;
use super::failover::PassedOver;
use super::local_interface::Missing;

/// Something that is missing now. The group's traffic is blocked, or goes on with the keys it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandingProblem {
    /// There is no address to register from and to end ESP at.
    NoLocalAddress(Missing),
    /// None of its WAN interfaces is up.
    NoUplink { wan: Vec<String> },
    /// No key server served it in a whole round.
    NoServer {
        /// How often each of them has been tried.
        rounds: u32,
        /// Who was passed over last, and why.
        last: Option<PassedOver>,
    },
}

impl fmt::Display for StandingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLocalAddress(missing) => {
                write!(f, "{missing}: registration waits for it, or correct local-address")
            }
            Self::NoUplink { wan } => {
                write!(f, "no WAN interface is up ({}): connect or create one", wan.join(", "))
            }
            Self::NoServer { rounds, last } => {
                write!(f, "no key server has given keys in {rounds} round(s) of attempts")?;
                match last {
                    Some(last) => write!(f, "; the last one: {}", last.detail),
                    None => Ok(()),
                }
            }
        }
    }
}

impl StandingProblem {
    /// Whether it tells already that this interface does not exist.
    pub fn names(&self, interface: &str) -> bool {
        match self {
            Self::NoLocalAddress(Missing::Interface(name)) => name == interface,
            Self::NoUplink { wan } => wan.iter().any(|name| name == interface),
            Self::NoLocalAddress(_) | Self::NoServer { .. } => false,
        }
    }
}

impl Membership {
    /// What is missing now.
    pub fn standing(&self) -> Vec<StandingProblem> {
        let local = self.local().err().filter(|missing| **missing != Missing::Unknown);
        let local = local.cloned().map(StandingProblem::NoLocalAddress);
        let wan = self.config().wan_interfaces(self.interfaces());
        let up = |name: &&str| self.interfaces().get(*name).is_some_and(|interface| interface.up);
        let uplink = (!wan.iter().any(up))
            .then(|| StandingProblem::NoUplink { wan: self.config().wan.clone() });
        let rounds = self.failover().rounds();
        let server = (rounds > 0).then(|| StandingProblem::NoServer {
            rounds,
            last: self.failover().history().last().cloned(),
        });
        local.into_iter().chain(uplink).chain(server).collect()
    }

    /// Whether nothing of the group can leave, whatever keys there are.
    pub fn cannot_send(&self) -> bool {
        let path = |problem: &StandingProblem| match problem {
            StandingProblem::NoLocalAddress(_) | StandingProblem::NoUplink { .. } => true,
            StandingProblem::NoServer { .. } => false,
        };
        self.sending().is_blocked || self.standing().iter().any(path)
    }
}
