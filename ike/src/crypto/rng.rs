//! The generator behind every cookie, nonce, message ID and private exponent.
//!
//! This crate draws nothing from the operating system: the caller hands in 32 octets of entropy
//! once, and the same seed gives the same run.

use chacha20::ChaCha20Rng;
use rand_core::{Infallible, Rng, SeedableRng, TryCryptoRng, TryRng};
use zeroize::Zeroizing;

/// ChaCha20 keystream from a seed. Its state is zeroed on drop.
pub struct SeededRng(ChaCha20Rng);

impl SeededRng {
    /// A generator whose whole output follows from `seed`, which must be 32 unpredictable octets in
    /// production.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(ChaCha20Rng::from_seed(*seed))
    }

    /// A generator of its own for a part of the machine, so that the parts cannot disturb each
    /// other's numbers.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.array())
    }

    /// Fills `octets`.
    pub fn fill(&mut self, octets: &mut [u8]) {
        self.0.fill_bytes(octets);
    }

    /// `N` random octets.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.fill(&mut octets);
        octets
    }

    /// `N` random octets that are not all zero: cookies and message IDs, where zero means "none
    /// yet".
    pub fn nonzero_array<const N: usize>(&mut self) -> [u8; N] {
        loop {
            let octets = self.array();
            if N == 0 || octets != [0; N] {
                return octets;
            }
        }
    }

    /// A message ID for a phase-2 exchange: random and not zero (RFC 2408 §3.1).
    pub fn message_id(&mut self) -> u32 {
        u32::from_be_bytes(self.nonzero_array())
    }
}

impl TryRng for SeededRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(octets)
    }
}

impl TryCryptoRng for SeededRng {}

impl core::fmt::Debug for SeededRng {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SeededRng")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439 appendix A.1, test vector 1: key and counter zero.
    #[test]
    fn the_zero_seed_gives_the_published_keystream() {
        let mut rng = SeededRng::from_seed([0; 32]);
        let published =
            crate::testing::hex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7");
        assert_eq!(rng.array::<32>().as_slice(), published);
    }

    #[test]
    fn a_fork_differs_from_its_parent_and_repeats_with_the_seed() {
        let (mut one, mut two) = (SeededRng::from_seed([7; 32]), SeededRng::from_seed([7; 32]));
        let (mut fork_one, mut fork_two) = (one.fork(), two.fork());
        let forked = fork_one.array::<16>();
        assert_eq!(forked, fork_two.array::<16>());
        assert_ne!(forked, one.array::<16>());
        assert_ne!(one.message_id(), 0);
    }
}
