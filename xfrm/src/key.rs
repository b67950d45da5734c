//! The one container of key octets in this crate.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A key for the kernel: zeroed on drop, shown as a length only, never cloned in silence, never
/// serialised.
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// Copies `octets`. The caller stays responsible for wiping the original.
    pub fn copy_from(octets: &[u8]) -> Self {
        // One exact allocation: growing would leave unwiped copies behind.
        let mut copy = Vec::with_capacity(octets.len());
        copy.extend_from_slice(octets);
        Self(Zeroizing::new(copy))
    }

    /// A second copy, made on purpose and visible at the call.
    pub fn duplicate(&self) -> Self {
        Self::copy_from(&self.0)
    }

    /// The octets themselves. Every caller is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length of the key in octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the key is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Key {
    /// In constant time for equal lengths; the length itself is no secret.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} octets)", self.len())
    }
}
