//! Netlink attributes (length, kind, value, padded to four octets) and messages, written and read
//! without panics.

use zeroize::Zeroizing;

/// `NLA_F_NESTED`: the value holds attributes itself.
const NESTED: u16 = 0x8000;
/// What is left of the kind without the flags for nesting and byte order.
const KIND: u16 = 0x3fff;
const HEADER: usize = 4;

/// Writes attributes one after another. The buffer is wiped when dropped; growing leaves copies
/// behind, so buffers for keys are made large enough at once.
#[derive(Default)]
pub(crate) struct Attributes(Zeroizing<Vec<u8>>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A buffer that begins with a fixed header.
    pub(crate) fn after(header: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(1024);
        buffer.extend_from_slice(header);
        Self(Zeroizing::new(buffer))
    }

    pub(crate) fn octets(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// In network byte order, as nf_tables wants it.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.octets(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut terminated = Vec::with_capacity(value.len() + 1);
        terminated.extend_from_slice(value.as_bytes());
        terminated.push(0);
        self.octets(kind, &terminated)
    }

    pub(crate) fn nested(self, kind: u16, value: Attributes) -> Self {
        self.octets(kind | NESTED, &value.0)
    }

    pub(crate) fn as_octets(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        // Nothing that this crate writes comes near 64 KiB; a longer value would be cut by the
        // kernel's check.
        let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        let padded = self.0.len().next_multiple_of(HEADER);
        self.0.resize(padded, 0);
    }
}

/// Reads attributes: kind without flags, and value. Stops at the first that does not fit.
pub(crate) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(array(octets, 0)?));
        let kind = u16::from_ne_bytes(array(octets, 2)?) & KIND;
        let value = octets.get(HEADER..length)?;
        octets = octets.get(length.next_multiple_of(HEADER)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of this kind.
pub(crate) fn find(octets: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(octets).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text without its final NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// A number in network byte order.
pub(crate) fn be32(value: &[u8]) -> Option<u32> {
    array(value, 0).map(u32::from_be_bytes)
}

/// `N` octets at `offset`.
pub(crate) fn array<const N: usize>(octets: &[u8], offset: usize) -> Option<[u8; N]> {
    octets.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads() {
        let written = Attributes::new()
            .text(1, "gdoi")
            .be32(2, 7)
            .nested(4, Attributes::new().octets(1, b"x"));
        assert_eq!(&written.as_octets()[..12], b"\x09\0\x01\0gdoi\0\0\0\0");
        let read: Vec<_> = attributes(written.as_octets()).collect();
        assert_eq!(
            read,
            [(1, &b"gdoi\0"[..]), (2, &[0, 0, 0, 7][..]), (4, &b"\x05\0\x01\0x\0\0\0"[..])]
        );
        assert_eq!(text(read[0].1), "gdoi");
    }

    #[test]
    fn stops_at_what_does_not_fit() {
        for cut in [&b""[..], b"\x04", b"\x03\0\x01\0", b"\x09\0\x01\0gdoi", b"\0\0\0\0"] {
            assert_eq!(attributes(cut).count(), 0, "{cut:?}");
        }
        // The last attribute's padding may be missing.
        assert_eq!(attributes(b"\x05\0\x01\0x").collect::<Vec<_>>(), [(1, &b"x"[..])]);
    }
}
