//! Diffie-Hellman: MODP groups 1, 2, 5, 14, 15, 16, 24 and ECP groups 19, 20
//! (RFC 2409 §6, RFC 3526, RFC 5114 §2.3, RFC 5903).
//!
//! Exponentiation with a private exponent takes time that depends on the group only. A peer's value
//! is a [`PublicValue`] first: it is checked before there is a private exponent that could meet it.

use std::sync::OnceLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd, Resize};
use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use zeroize::Zeroizing;

use super::{Secret, SeededRng, modp};
use crate::crypto::DhGroup;

/// What is wrong with a peer's public value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DhError {
    /// It is not exactly as long as the group demands.
    #[error("public value of {received} octets where {group} has {expected}")]
    Length {
        group: DhGroup,
        /// Octets the group demands.
        expected: usize,
        received: usize,
    },
    /// It is 0, 1, p-1 or beyond.
    #[error("public value outside 1 < y < p-1 of {group}")]
    Range { group: DhGroup },
    /// Its order does not divide q (RFC 5114 §4).
    #[error("public value outside the prime-order subgroup of {group}")]
    Subgroup { group: DhGroup },
    /// It is no point of the curve (RFC 5903 §7).
    #[error("public value is not a point on the curve of {group}")]
    NotOnCurve { group: DhGroup },
    /// It is a value of another group than the key pair.
    #[error("public value of {received} where {group} is used")]
    OtherGroup {
        /// The group of the key pair.
        group: DhGroup,
        /// The group of the value.
        received: DhGroup,
    },
}

impl DhGroup {
    /// Length of a public value in octets.
    pub fn public_length(self) -> usize {
        match self {
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Modp768 => 96,
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 | Self::Modp2048Subgroup256 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
        }
    }

    /// Whether checking a public value costs as much as an exponentiation: the group has a subgroup
    /// to stay in.
    pub fn check_exponentiates(self) -> bool {
        self == Self::Modp2048Subgroup256
    }

    /// Length of the shared secret in octets: of p, or of the x coordinate.
    pub fn shared_length(self) -> usize {
        match self {
            Self::Ecp256 | Self::Ecp384 => self.public_length() / 2,
            _ => self.public_length(),
        }
    }
}

/// A peer's public value that lies in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicValue {
    group: DhGroup,
    octets: Vec<u8>,
    point: Point,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Point {
    Modp(BoxedUint),
    Ecp256(p256::PublicKey),
    Ecp384(p384::PublicKey),
}

impl PublicValue {
    /// Reads a KE payload's body. Costs comparisons, or a few multiplications for a curve; for
    /// group 24 one exponentiation by the order of its subgroup (RFC 5114 §4).
    ///
    /// # Errors
    /// The value is not one of the group.
    pub fn read(group: DhGroup, octets: &[u8]) -> Result<Self, DhError> {
        let expected = group.public_length();
        if octets.len() != expected {
            return Err(DhError::Length { group, expected, received: octets.len() });
        }
        let point = match group {
            DhGroup::Ecp256 => Point::Ecp256(
                p256::PublicKey::from_sec1_bytes(&uncompressed(octets))
                    .map_err(|_| DhError::NotOnCurve { group })?,
            ),
            DhGroup::Ecp384 => Point::Ecp384(
                p384::PublicKey::from_sec1_bytes(&uncompressed(octets))
                    .map_err(|_| DhError::NotOnCurve { group })?,
            ),
            _ => Point::Modp(Modp::of(group).check(group, octets)?),
        };
        Ok(Self { group, octets: octets.to_vec(), point })
    }

    /// The octets as received: g^x of the formulas of RFC 2409.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
}

/// An ephemeral key pair. The private part is zeroed on drop.
pub struct KeyPair {
    group: DhGroup,
    private: Private,
    public: Vec<u8>,
}

enum Private {
    Modp(&'static Modp, Zeroizing<BoxedUint>),
    Ecp256(p256::SecretKey),
    Ecp384(p384::SecretKey),
}

impl KeyPair {
    /// A fresh pair. Costs one exponentiation or point multiplication.
    pub fn generate(group: DhGroup, rng: &mut SeededRng) -> Self {
        let private = match group {
            DhGroup::Ecp256 => Private::Ecp256(p256::SecretKey::generate_from_rng(rng)),
            DhGroup::Ecp384 => Private::Ecp384(p384::SecretKey::generate_from_rng(rng)),
            _ => {
                let modp = Modp::of(group);
                Private::Modp(modp, modp.random_exponent(rng))
            }
        };
        Self::from_private(group, private)
    }

    fn from_private(group: DhGroup, private: Private) -> Self {
        let public = match &private {
            Private::Modp(modp, exponent) => modp.power_of_generator(exponent),
            Private::Ecp256(key) => coordinates(key.public_key().to_sec1_point(false).as_bytes()),
            Private::Ecp384(key) => coordinates(key.public_key().to_sec1_point(false).as_bytes()),
        };
        Self { group, private, public }
    }

    /// A pair from a private value given in octets, for published vectors.
    #[cfg(test)]
    pub(crate) fn with_private(group: DhGroup, octets: &[u8]) -> Self {
        let mut private = Self::generate(group, &mut SeededRng::from_seed([0; 32])).private;
        match &mut private {
            Private::Modp(_, exponent) => {
                **exponent =
                    BoxedUint::from_be_slice(octets, u32::try_from(octets.len() * 8).unwrap())
                        .unwrap();
            }
            Private::Ecp256(key) => *key = p256::SecretKey::from_slice(octets).unwrap(),
            Private::Ecp384(key) => *key = p384::SecretKey::from_slice(octets).unwrap(),
        }
        Self::from_private(group, private)
    }

    pub fn group(&self) -> DhGroup {
        self.group
    }

    /// Our public value, padded on the left to the group's length: the body of a KE payload.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret with `peer`, padded on the left to the group's length. Costs one
    /// exponentiation or point multiplication.
    ///
    /// # Errors
    /// The value is one of another group.
    pub fn agree(&self, peer: &PublicValue) -> Result<Secret, DhError> {
        match (&self.private, &peer.point) {
            _ if self.group != peer.group => {
                Err(DhError::OtherGroup { group: self.group, received: peer.group })
            }
            (Private::Modp(modp, exponent), Point::Modp(value)) => Ok(modp.power(value, exponent)),
            (Private::Ecp256(key), Point::Ecp256(point)) => {
                Ok(Secret::copy_from(key.diffie_hellman(point).raw_secret_bytes()))
            }
            (Private::Ecp384(key), Point::Ecp384(point)) => {
                Ok(Secret::copy_from(key.diffie_hellman(point).raw_secret_bytes()))
            }
            _ => Err(DhError::OtherGroup { group: self.group, received: peer.group }),
        }
    }
}

impl core::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("KeyPair").field("group", &self.group).finish_non_exhaustive()
    }
}

/// x | y of a SEC1 point, whose first octet says "uncompressed" (RFC 5903 §7 leaves that octet
/// out).
fn coordinates(sec1: &[u8]) -> Vec<u8> {
    sec1.get(1..).unwrap_or_default().to_vec()
}

/// The SEC1 form of x | y.
fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    let mut sec1 = Vec::with_capacity(coordinates.len().saturating_add(1));
    sec1.push(0x04);
    sec1.extend_from_slice(coordinates);
    sec1
}

/// A MODP group made ready for arithmetic. The Montgomery parameters cost as much as an
/// exponentiation, so each group has them once.
struct Modp {
    parameters: BoxedMontyParams,
    generator: BoxedUint,
    /// Order of the generator where p is not a safe prime.
    order: Option<BoxedUint>,
    p_minus_one: BoxedUint,
    /// Bits of a private exponent: twice the strength that RFC 3526 §8 credits the group with,
    /// rounded up to limbs.
    exponent_bits: u32,
}

static MODP_768: OnceLock<Modp> = OnceLock::new();
static MODP_1024: OnceLock<Modp> = OnceLock::new();
static MODP_1536: OnceLock<Modp> = OnceLock::new();
static MODP_2048: OnceLock<Modp> = OnceLock::new();
static MODP_3072: OnceLock<Modp> = OnceLock::new();
static MODP_4096: OnceLock<Modp> = OnceLock::new();
static MODP_2048_256: OnceLock<Modp> = OnceLock::new();

impl Modp {
    fn of(group: DhGroup) -> &'static Self {
        let place = match group {
            DhGroup::Modp768 => &MODP_768,
            DhGroup::Modp1024 => &MODP_1024,
            DhGroup::Modp1536 => &MODP_1536,
            DhGroup::Modp3072 => &MODP_3072,
            DhGroup::Modp4096 => &MODP_4096,
            DhGroup::Modp2048Subgroup256 => &MODP_2048_256,
            DhGroup::Modp2048 | DhGroup::Ecp256 | DhGroup::Ecp384 => &MODP_2048,
        };
        place.get_or_init(|| Self::new(group))
    }

    fn new(group: DhGroup) -> Self {
        let (prime, exponent_bits) = match group {
            DhGroup::Modp768 => (modp::MODP_768, 256),
            DhGroup::Modp1024 => (modp::MODP_1024, 256),
            DhGroup::Modp1536 => (modp::MODP_1536, 256),
            DhGroup::Modp3072 => (modp::MODP_3072, 448),
            DhGroup::Modp4096 => (modp::MODP_4096, 512),
            DhGroup::Modp2048Subgroup256 => (modp::MODP_2048_256_PRIME, 256),
            DhGroup::Modp2048 | DhGroup::Ecp256 | DhGroup::Ecp384 => (modp::MODP_2048, 320),
        };
        let bits = u32::try_from(prime.len().saturating_mul(4)).unwrap_or(u32::MAX);
        let prime = odd(prime, bits);
        let (generator, order) = match group {
            DhGroup::Modp2048Subgroup256 => (
                constant(modp::MODP_2048_256_GENERATOR, bits),
                Some(constant(modp::MODP_2048_256_ORDER, exponent_bits)),
            ),
            _ => (BoxedUint::from(2_u8).resize(bits), None),
        };
        let p_minus_one = prime.as_ref().wrapping_sub(BoxedUint::one_with_precision(bits));
        Self {
            parameters: BoxedMontyParams::new_vartime(prime),
            generator,
            order,
            p_minus_one,
            exponent_bits,
        }
    }

    /// An exponent x with 1 < x < 2^bits, or 1 < x < q where the group has an order.
    fn random_exponent(&self, rng: &mut SeededRng) -> Zeroizing<BoxedUint> {
        let mut octets =
            Zeroizing::new(vec![0; usize::try_from(self.exponent_bits / 8).unwrap_or(usize::MAX)]);
        loop {
            rng.fill(&mut octets);
            let exponent =
                Zeroizing::new(BoxedUint::from_be_slice_truncated(&octets, self.exponent_bits));
            // Rejection tells nothing about the number that is kept.
            let below_order = self.order.as_ref().is_none_or(|order| *exponent < *order);
            if below_order && *exponent > BoxedUint::one_with_precision(self.exponent_bits) {
                return exponent;
            }
        }
    }

    fn power_of_generator(&self, exponent: &BoxedUint) -> Vec<u8> {
        let base = BoxedMontyForm::new(self.generator.clone(), &self.parameters);
        base.pow(exponent).retrieve().to_be_bytes().into_vec()
    }

    /// The number in `octets`, which are as many as p has, if it is a public value of the group.
    fn check(&self, group: DhGroup, octets: &[u8]) -> Result<BoxedUint, DhError> {
        let bits = self.p_minus_one.bits_precision();
        let value = BoxedUint::from_be_slice_truncated(octets, bits);
        let one = BoxedUint::one_with_precision(bits);
        if value <= one || value >= self.p_minus_one {
            return Err(DhError::Range { group });
        }
        if let Some(order) = &self.order {
            let base = BoxedMontyForm::new(value.clone(), &self.parameters);
            if base.pow(order).retrieve() != one {
                return Err(DhError::Subgroup { group });
            }
        }
        Ok(value)
    }

    fn power(&self, value: &BoxedUint, exponent: &BoxedUint) -> Secret {
        let base = BoxedMontyForm::new(value.clone(), &self.parameters);
        let power = Zeroizing::new(base.pow(exponent));
        let shared = Zeroizing::new(power.retrieve());
        Secret::new(shared.to_be_bytes().into_vec())
    }
}

#[expect(clippy::expect_used, reason = "a constant of this crate, every one of which a test loads")]
fn constant(hexadecimal: &str, bits: u32) -> BoxedUint {
    BoxedUint::from_be_hex(hexadecimal, bits)
        .into_option()
        .expect("a hexadecimal constant of the group's length")
}

#[expect(clippy::expect_used, reason = "a constant of this crate, every one of which a test loads")]
fn odd(hexadecimal: &str, bits: u32) -> Odd<BoxedUint> {
    constant(hexadecimal, bits).into_odd().into_option().expect("a prime above 2")
}
