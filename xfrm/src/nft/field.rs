//! What rules compare and write: fields of the IPv4 header, names of interfaces.

/// A field of the IPv4 header: offset and length in octets.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) u32, pub(crate) u32);

impl Field {
    pub(crate) const FRAGMENT: Self = Self(6, 2);
    pub(crate) const SOURCE: Self = Self(12, 4);
    pub(crate) const DESTINATION: Self = Self(16, 4);
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
