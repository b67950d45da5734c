//! The cookie pair (RFC 2408 §2.5.3).

use core::fmt;

use crate::wire::Header;
use crate::wire::header::Cookie;

/// The cookie pair: the name of an ISAKMP SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookies {
    /// CKY-I, which whoever began the exchange chose.
    pub initiator: Cookie,
    /// CKY-R, zero until message 2 has named it.
    pub responder: Cookie,
}

impl Cookies {
    /// CKY-I | CKY-R: the SPI of an ISAKMP SA in notifications and deletes (RFC 2408 §3.14, §3.15).
    pub fn spi(&self) -> [u8; 16] {
        let mut spi = [0; 16];
        for (place, octet) in spi.iter_mut().zip(self.initiator.iter().chain(&self.responder)) {
            *place = *octet;
        }
        spi
    }

    /// The pair in a header.
    pub fn of(header: &Header) -> Self {
        Self { initiator: header.initiator_cookie, responder: header.responder_cookie }
    }
}

impl fmt::Display for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.initiator.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(":")?;
        self.responder.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
