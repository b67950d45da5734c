//! New keys and SPIs from the operating system's randomness.

use std::collections::BTreeSet;

use daemon::entropy::{self, EntropyError};
use gdoi::group::{Spi, TekKeys};
use ike::crypto::{Secret, SeededRng};

use crate::config::TekTemplate;

/// SPIs up to here are reserved (RFC 4303 §2.1).
const LAST_RESERVED_SPI: Spi = 255;

/// Where randomness comes from.
pub trait Entropy {
    /// # Errors
    /// The system gives no randomness; nothing may be made of `octets` then.
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), EntropyError> {
        entropy::fill(octets)
    }
}

/// Where new keys and SPIs come from.
pub struct KeySource<'a> {
    /// For what is sent in the clear: cookies, padding, blinding of signatures.
    pub rng: &'a mut SeededRng,
    /// Randomness for the keys themselves.
    pub entropy: &'a mut dyn Entropy,
    /// SPIs that other groups use: a member of two groups must not have one twice.
    pub foreign_spis: BTreeSet<Spi>,
}

/// Keys for one TEK, as long as its algorithms need, salt included (RFC 6407 §5.6.1).
///
/// # Errors
/// The system gives no randomness.
pub fn tek_keys(
    template: &TekTemplate,
    entropy: &mut dyn Entropy,
) -> Result<TekKeys, EntropyError> {
    Ok(TekKeys {
        encryption: secret(template.encryption.octets, entropy)?,
        integrity: secret(template.integrity.map_or(0, |integrity| integrity.octets), entropy)?,
    })
}

/// An SPI that is not reserved and not `in_use`.
///
/// # Errors
/// The system gives no randomness.
pub fn spi(in_use: impl Fn(Spi) -> bool, entropy: &mut dyn Entropy) -> Result<Spi, EntropyError> {
    loop {
        let mut octets = [0; 4];
        entropy.fill(&mut octets)?;
        let spi = Spi::from_be_bytes(octets);
        if spi > LAST_RESERVED_SPI && !in_use(spi) {
            return Ok(spi);
        }
    }
}

/// A seed for a generator.
///
/// # Errors
/// The system gives no randomness.
pub fn seed(entropy: &mut dyn Entropy) -> Result<[u8; 32], EntropyError> {
    let mut seed = [0; 32];
    entropy.fill(&mut seed)?;
    Ok(seed)
}

/// A key of so many octets.
///
/// # Errors
/// The system gives no randomness.
pub fn secret(octets: usize, entropy: &mut dyn Entropy) -> Result<Secret, EntropyError> {
    let mut key = vec![0; octets];
    entropy.fill(&mut key)?;
    Ok(Secret::new(key))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use gdoi::group::{AddressPreservation, EncapsulationMode, SaDirection};
    use gdoi::wire::KeyLengths;

    use super::*;
    use crate::config::tek_algorithm::{ENCRYPTIONS, INTEGRITIES, Kind};

    /// Octets that count up: 0, 1, 2 and so on.
    #[derive(Debug, Default)]
    pub(crate) struct Counting(pub(crate) u8);

    impl Entropy for Counting {
        fn fill(&mut self, octets: &mut [u8]) -> Result<(), EntropyError> {
            for octet in octets {
                *octet = self.0;
                self.0 = self.0.wrapping_add(1);
            }
            Ok(())
        }
    }

    #[test]
    fn every_suite_gets_keys_that_the_wire_accepts() {
        for encryption in ENCRYPTIONS {
            let integrities: Vec<_> = match encryption.kind {
                Kind::Combined => vec![None],
                Kind::Plain | Kind::Legacy => INTEGRITIES.map(Some).to_vec(),
            };
            for integrity in integrities {
                let template = TekTemplate {
                    selectors: Vec::new(),
                    encryption,
                    integrity,
                    direction: SaDirection::SYMMETRIC,
                    mode: EncapsulationMode::TUNNEL,
                    address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
                    lifetime: Duration::from_secs(60),
                };
                let keys = tek_keys(&template, &mut Counting::default()).unwrap();
                let lengths = KeyLengths::of(&template.protection(template.lifetime)).unwrap();
                assert_eq!(keys.encryption.len(), lengths.encryption, "{}", encryption.name);
                assert_eq!(keys.integrity.len(), lengths.integrity, "{}", encryption.name);
            }
        }
    }

    #[test]
    fn keys_are_new_octets() {
        let template_keys = |entropy: &mut Counting| secret(4, entropy).unwrap();
        let mut entropy = Counting(7);
        assert_eq!(template_keys(&mut entropy), Secret::copy_from(&[7, 8, 9, 10]));
        assert_eq!(template_keys(&mut entropy), Secret::copy_from(&[11, 12, 13, 14]));
    }

    #[test]
    fn spis_are_neither_reserved_nor_taken() {
        struct Fixed(Vec<[u8; 4]>);
        impl Entropy for Fixed {
            fn fill(&mut self, octets: &mut [u8]) -> Result<(), EntropyError> {
                octets.copy_from_slice(&self.0.remove(0));
                Ok(())
            }
        }
        let mut entropy = Fixed(vec![[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 1, 1], [0, 0, 1, 0]]);
        assert_eq!(spi(|taken| taken == 257, &mut entropy).unwrap(), 256);
        assert!(entropy.0.is_empty());
    }
}
