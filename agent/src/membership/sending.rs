//! Whether a group with valid keys can send. Registered is not enough: what no SA may be used for
//! is blocked.

use std::fmt;
use std::net::IpAddr;

use gdoi::group::{AddressRange, SaDirection, Spi};
use ike::BootTime;
use ipnet::IpNet;
use policies::Mode;

use super::restore::is_counter_mode;
use super::{Event, Membership};
use crate::config;

/// Traffic of a group that is blocked although its keys are valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SendingProblem {
    /// A TEK of a counter mode, and the configuration does not allow to send with it.
    CounterModeNotAllowed {
        /// SPI of the TEK.
        spi: Spi,
    },
    /// The outbound SA was lost; sending on the TEK again would repeat IVs.
    SaLost {
        /// SPI of the TEK.
        spi: Spi,
    },
    /// Protected prefixes that no TEK which may be sent on covers.
    NotCovered { prefixes: Vec<IpNet> },
}

impl fmt::Display for SendingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CounterModeNotAllowed { spi } => write!(
                f,
                "SPI {spi:#010x} is a counter-mode TEK and counter-mode-send is not set: its traffic is blocked; set \
                 counter-mode-send = true, or have the key server use a CBC mode"
            ),
            Self::SaLost { spi } => write!(
                f,
                "SPI {spi:#010x}: the outbound counter-mode SA was lost and must not be reinstalled: its traffic is \
                 blocked; have the key server send a new TEK"
            ),
            Self::NotCovered { prefixes } => {
                f.write_str("no TEK covers ")?;
                for (position, prefix) in prefixes.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}{prefix}")?;
                }
                f.write_str(
                    ": its traffic is blocked; add it to the key server's policy, or remove it from `protected`",
                )
            }
        }
    }
}

/// What blocks traffic of a group, and whether nothing of it can be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    pub problems: Vec<SendingProblem>,
    /// Whether they leave nothing.
    pub is_blocked: bool,
}

impl Membership {
    /// What blocks its traffic although its keys are valid.
    pub fn sending(&self) -> &Sending {
        &self.sending
    }

    /// Looks again at what can be sent.
    pub(crate) fn update_sending(&mut self, now: BootTime) {
        let sending = self.judge_sending(now);
        let new =
            sending.problems.iter().filter(|problem| !self.sending.problems.contains(problem));
        let new: Vec<SendingProblem> = new.cloned().collect();
        let recovered = sending.problems.is_empty() && !self.sending.problems.is_empty();
        self.events.extend(new.into_iter().map(Event::SendingBlocked));
        if recovered && !self.generations.is_empty(now) {
            self.events.push_back(Event::SendingRecovered);
        }
        self.sending = sending;
    }

    fn judge_sending(&self, now: BootTime) -> Sending {
        // Clear text is what is meant to leave, or there is no key and that is said elsewhere.
        if self.config.mode == Mode::ReceiveOnly || self.generations.is_empty(now) {
            return Sending::default();
        }
        let passive = self.config.mode == Mode::Passive;
        let sa_teks = self.generations.active(now);
        let meant = sa_teks.iter().filter(|sa_tek| {
            let direction = sa_tek.policy.protection.direction;
            sa_tek.send && (passive || direction != SaDirection::RECEIVER_ONLY)
        });
        let (mut problems, mut usable) = (Vec::new(), Vec::new());
        for sa_tek in meant {
            let spi = sa_tek.policy.spi;
            let counter_mode = is_counter_mode(sa_tek.policy.protection.transform);
            if counter_mode && !self.config.counter_mode_send {
                problems.push(SendingProblem::CounterModeNotAllowed { spi });
            } else if self.suppressed.contains(&spi) {
                problems.push(SendingProblem::SaLost { spi });
            } else {
                usable.push(sa_tek.policy);
            }
        }
        problems.sort_unstable();
        problems.dedup();
        let none_usable = usable.is_empty() && !problems.is_empty();
        let prefixes = protected(&self.config).filter(|prefix| {
            !sa_teks.iter().any(|sa_tek| {
                let selector = &sa_tek.policy.selector;
                overlaps(selector.source, prefix) || overlaps(selector.destination, prefix)
            })
        });
        let prefixes: Vec<IpNet> = prefixes.collect();
        let none_covered =
            !prefixes.is_empty() && prefixes.len() == protected(&self.config).count();
        if !prefixes.is_empty() {
            problems.push(SendingProblem::NotCovered { prefixes });
        }
        Sending { problems, is_blocked: none_usable || none_covered }
    }
}

/// IPv6 is blocked whatever the key server says.
fn protected(config: &config::Group) -> impl Iterator<Item = IpNet> {
    config.protected.iter().copied().filter(|prefix| prefix.addr().is_ipv4())
}

fn overlaps(range: AddressRange, prefix: &IpNet) -> bool {
    let within = |first: IpAddr, last: IpAddr| {
        first.is_ipv4() == prefix.addr().is_ipv4()
            && first <= prefix.broadcast()
            && prefix.network() <= last
    };
    match range {
        AddressRange::Any => true,
        AddressRange::Address(address) => within(address, address),
        AddressRange::Subnet(subnet) => within(subnet.network(), subnet.broadcast()),
        AddressRange::Range(first, last) => within(first, last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_overlaps_what_it_shares_an_address_with() {
        let prefix: IpNet = "172.16.0.0/12".parse().unwrap();
        let range = |first: &str, last: &str| {
            AddressRange::Range(first.parse().unwrap(), last.parse().unwrap())
        };
        assert!(overlaps(AddressRange::Any, &prefix));
        assert!(overlaps(AddressRange::Address("172.31.255.255".parse().unwrap()), &prefix));
        assert!(!overlaps(AddressRange::Address("172.32.0.0".parse().unwrap()), &prefix));
        assert!(overlaps(AddressRange::Subnet("172.16.9.0/24".parse().unwrap()), &prefix));
        assert!(overlaps(AddressRange::Subnet("0.0.0.0/0".parse().unwrap()), &prefix));
        assert!(!overlaps(AddressRange::Subnet("10.0.0.0/8".parse().unwrap()), &prefix));
        assert!(overlaps(range("172.0.0.0", "172.16.0.0"), &prefix));
        assert!(!overlaps(range("172.0.0.0", "172.15.255.255"), &prefix));
    }
}
