//! The one container of secret octets in this crate.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret octets: zeroed on drop, shown as a length only, never cloned in silence, never
/// serialised.
///
/// Comparison takes constant time for equal lengths.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `octets`; the caller's allocation becomes the secret's and is wiped with it.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Copies `octets`. The caller stays responsible for wiping the original.
    pub fn copy_from(octets: &[u8]) -> Self {
        // One exact allocation: growing would leave unwiped copies behind.
        let mut copy = Vec::with_capacity(octets.len());
        copy.extend_from_slice(octets);
        Self::new(copy)
    }

    /// A second copy, made on purpose and visible at the call.
    pub fn duplicate(&self) -> Self {
        Self::copy_from(self.expose())
    }

    /// The octets themselves. Every caller is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the secret is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.len())
    }
}
