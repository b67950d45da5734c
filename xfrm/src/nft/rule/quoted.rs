//! What a rule asks of an ICMP error: the packet that it quotes.

use ipnet::IpNet;

use super::{NOT_EQUAL, QUOTING_TYPES, Rule, TRANSPORT_HEADER};
use crate::model::Selector;

/// Where an ICMP error's quoted packet begins in it.
const QUOTED: u32 = 8;

impl Rule {
    /// As [`source_in`](Self::source_in), of the packet that an ICMP error quotes.
    pub(crate) fn quoted_source_in(self, set: &str) -> Self {
        self.payload(TRANSPORT_HEADER, QUOTED + 12, 4).lookup(set)
    }

    /// As [`destination_in`](Self::destination_in), of the packet that an ICMP error quotes.
    pub(crate) fn quoted_destination_in(self, set: &str) -> Self {
        self.payload(TRANSPORT_HEADER, QUOTED + 16, 4).lookup(set)
    }

    /// As [`pair_in`](Self::pair_in), of the packet that an ICMP error quotes.
    pub(crate) fn quoted_pair_in(self, set: &str) -> Self {
        self.payload(TRANSPORT_HEADER, QUOTED + 12, 8).lookup(set)
    }

    /// An ICMP message of a type that quotes no packet; the protocol is known.
    pub(crate) fn not_quoting(self) -> Self {
        let rule = self.payload(TRANSPORT_HEADER, 0, 1);
        QUOTING_TYPES.into_iter().fold(rule, |rule, kind| rule.compare(NOT_EQUAL, &[kind]))
    }

    /// An ICMP error that quotes a packet of this protocol.
    pub(crate) fn quoted_protocol(self, protocol: u8) -> Self {
        self.payload(TRANSPORT_HEADER, QUOTED + 9, 1).equal(&[protocol])
    }

    /// An ICMP error that quotes a packet between these IPv4 prefixes.
    pub(crate) fn quoted_between(self, source: &IpNet, destination: &IpNet) -> Self {
        let rule = self.inside(TRANSPORT_HEADER, QUOTED + 12, source);
        rule.inside(TRANSPORT_HEADER, QUOTED + 16, destination)
    }

    /// An ICMP error that quotes a packet of this selector. A quoted IPv4 header with options hides
    /// its ports.
    pub(crate) fn quoted_selected(self, selector: &Selector) -> Self {
        let mut rule = self.quoted_between(&selector.source, &selector.destination);
        if selector.protocol != 0 {
            rule = rule.quoted_protocol(selector.protocol);
        }
        for (offset, port) in [(20, selector.source_port), (22, selector.destination_port)] {
            if port != 0 {
                rule =
                    rule.payload(TRANSPORT_HEADER, QUOTED + offset, 2).equal(&port.to_be_bytes());
            }
        }
        rule
    }
}
