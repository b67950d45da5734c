//! What rules compare and write: fields of IP headers, names of interfaces.

use core::net::IpAddr;

/// A field of an IP header: offset and length in octets.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) u32, pub(crate) u32);

impl Field {
    pub(crate) const FRAGMENT: Self = Self(6, 2);
    pub(crate) const SOURCE: Self = Self(12, 4);
    pub(crate) const DESTINATION: Self = Self(16, 4);

    /// Where a header of the address's family holds its source.
    pub(crate) const fn source(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::SOURCE,
            IpAddr::V6(_) => Self(8, 16),
        }
    }

    /// Where a header of the address's family holds its destination.
    pub(crate) const fn destination(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::DESTINATION,
            IpAddr::V6(_) => Self(24, 16),
        }
    }
}

/// An interface name as the kernel compares it: 16 octets, padded; the beginning alone of a
/// pattern.
pub(crate) fn name(interface: &str) -> Vec<u8> {
    if let Some(beginning) = interface.strip_suffix('*') {
        return beginning.as_bytes().iter().take(15).copied().collect();
    }
    let mut padded = vec![0; 16];
    // The kernel's names have at most 15 octets; a longer one matches nothing.
    padded.iter_mut().zip(interface.as_bytes()).for_each(|(to, from)| *to = *from);
    padded
}
