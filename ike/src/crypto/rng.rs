//! The generator behind every cookie, nonce, message ID and private exponent.
//!
//! This crate draws nothing from the operating system: the caller hands in 32 octets of entropy
//! once, and the same seed gives the same run.

use chacha20::ChaCha20Rng;
use rand_core::{Infallible, Rng, SeedableRng, TryCryptoRng, TryRng};
use zeroize::Zeroizing;

/// ChaCha20 keystream with fast key erasure: each draw replaces the key by octets of its own
/// keystream, so that whoever reads the memory of a process learns no number drawn before, and with
/// it no Diffie-Hellman exponent of an exchange recorded earlier. The key is zeroed on drop.
pub struct SeededRng(Zeroizing<[u8; 32]>);

impl SeededRng {
    /// A generator whose whole output follows from `seed`, which must be 32 unpredictable octets in
    /// production.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// A generator of its own for a part of the machine, so that the parts cannot disturb each
    /// other's numbers.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.array())
    }

    pub fn fill(&mut self, octets: &mut [u8]) {
        self.draw(|stream| stream.fill_bytes(octets));
    }

    /// The first 32 octets of the keystream are the next key, the octets behind them the numbers
    /// of this draw.
    fn draw<T>(&mut self, numbers: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        let mut stream = ChaCha20Rng::from_seed(*self.0);
        stream.fill_bytes(self.0.as_mut_slice());
        numbers(&mut stream)
    }

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
        Ok(self.draw(ChaCha20Rng::next_u32))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.draw(ChaCha20Rng::next_u64))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        self.fill(octets);
        Ok(())
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
    use crate::testing::hex;

    /// RFC 8439 appendix A.1, test vectors 1 and 2: blocks 0 and 1 under the zero key. The first
    /// half of block 0 is the next key.
    const BLOCKS: &str = "
        76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7
        da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586
        9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
        29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";

    #[test]
    fn the_zero_seed_gives_the_published_keystream_behind_the_next_key() {
        let mut rng = SeededRng::from_seed([0; 32]);
        assert_eq!(rng.array::<96>().as_slice(), &hex(BLOCKS)[32..]);
    }

    /// Whatever is drawn, and however it is drawn, the state that is left cannot give it again.
    #[test]
    fn a_state_tells_nothing_that_was_drawn_before() {
        let draws: [fn(&mut SeededRng) -> Vec<u8>; 3] = [
            |rng| rng.array::<32>().to_vec(),
            |rng| rng.try_next_u32().unwrap().to_le_bytes().to_vec(),
            |rng| rng.try_next_u64().unwrap().to_le_bytes().to_vec(),
        ];
        for draw in draws {
            let mut rng = SeededRng::from_seed([0; 32]);
            let drawn = draw(&mut rng);
            assert_eq!(drawn, hex(BLOCKS)[32..32 + drawn.len()]);
            let mut left = ChaCha20Rng::from_seed(*rng.0);
            assert_eq!(*rng.0, hex(BLOCKS)[..32], "the key is another one now");
            let mut all_that_follows = vec![0; 4096];
            left.fill_bytes(&mut all_that_follows);
            assert!(!all_that_follows.windows(drawn.len()).any(|octets| octets == drawn));
            assert_ne!(draw(&mut rng), drawn);
        }
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
