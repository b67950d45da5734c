//! What a rule says about rates, and about the packets that they are of.

use super::{ESP, NOT_EQUAL, Rule, TRANSPORT_HEADER};
use crate::attribute::Attributes;

const UDP: u8 = 17;
/// UDP port of ESP behind address translation (RFC 3948 §2).
const ENCAPSULATION_PORT: u16 = 4500;
// Values of linux/netfilter/nf_tables.h.
const LIMIT_OCTETS: u32 = 1;
const LIMIT_OVER: u32 = 1;
const SECOND: u64 = 1;

impl Rule {
    /// ESP between the two addresses of a pair in the set.
    pub(crate) fn esp_between(self, set: &str) -> Self {
        self.protocol(ESP).pair_in(set)
    }

    /// The same in UDP, without what is IKE's: its four octets in the place of an SPI are zero
    /// (RFC 3948 §2.2). Our port is 4500; the peer's may have been translated.
    pub(crate) fn udp_esp_between(self, set: &str, received: bool) -> Self {
        let own_port = if received { 2 } else { 0 };
        self.protocol(UDP)
            .pair_in(set)
            .payload(TRANSPORT_HEADER, own_port, 2)
            .equal(&ENCAPSULATION_PORT.to_be_bytes())
            .payload(TRANSPORT_HEADER, 8, 4)
            .compare(NOT_EQUAL, &[0; 4])
    }

    /// `limit rate over N bytes/second`: more octets than that. The kernel's bucket holds a second.
    pub(crate) fn over(self, octets_per_second: u64) -> Self {
        let data = Attributes::new()
            .octets(1, &octets_per_second.to_be_bytes())
            .octets(2, &SECOND.to_be_bytes())
            .be32(3, 0)
            .be32(4, LIMIT_OCTETS)
            .be32(5, LIMIT_OVER);
        self.push("limit", data)
    }
}
