//! A public ECDSA key, and verification with it (FIPS 186-5 §6.4.2) that does not begin anew for
//! every signature.
//!
//! A signature fits when u1 G + u2 Q has the abscissa r. Both scalars are written in digits of six
//! bits, and every multiple of G and Q that a digit can stand for is known beforehand: what is left
//! to do is one addition for each digit.

use ecdsa::signature::hazmat::PrehashVerifier as _;
use ecdsa::{EcdsaCurve, Signature, VerifyingKey};
use primeorder::elliptic_curve::CurveGroup as _;
use primeorder::elliptic_curve::FieldBytes;
use primeorder::elliptic_curve::ops::{Invert as _, Reduce as _};
use primeorder::elliptic_curve::point::AffineCoordinates as _;
use primeorder::{
    AffinePoint, Double as _, PrimeCurveParams, PrimeField as _, PrimeFieldExt as _,
    ProjectivePoint, Scalar,
};

/// Bits of a digit.
const WIDTH: usize = 6;

/// Digits lie between -31 and 32, so that half of the multiples do: the others are their negatives.
const LARGEST: u16 = 1 << (WIDTH - 1);

/// A public key, and what is remembered of it for verification.
#[derive(Clone)]
pub(super) struct EcdsaKey<C: PrimeCurveParams + EcdsaCurve> {
    key: VerifyingKey<C>,
    multiples: Option<Multiples<C>>,
}

impl<C: PrimeCurveParams + EcdsaCurve> EcdsaKey<C> {
    pub(super) fn of(key: impl Into<VerifyingKey<C>>) -> Box<Self> {
        Box::new(Self { key: key.into(), multiples: None })
    }

    /// Takes as long as some verifications, once.
    pub(super) fn prepare(&mut self) {
        self.multiples.get_or_insert_with(|| Multiples::of((*self.key.as_affine()).into()));
    }

    pub(super) fn verify(&self, digest: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::<C>::from_slice(signature) else { return false };
        match &self.multiples {
            Some(multiples) => multiples.verify(digest, &signature),
            None => self.key.verify_prehash(digest, &signature).is_ok(),
        }
    }
}

impl<C: PrimeCurveParams + EcdsaCurve> PartialEq for EcdsaKey<C> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<C: PrimeCurveParams + EcdsaCurve> Eq for EcdsaKey<C> {}

/// Multiples of a curve's generator and of one public key: 200 kilobytes for 256 bits, 850 for 521.
#[derive(Clone)]
struct Multiples<C: PrimeCurveParams> {
    generator: Vec<AffinePoint<C>>,
    key: Vec<AffinePoint<C>>,
}

impl<C: PrimeCurveParams + EcdsaCurve> Multiples<C> {
    fn of(key: ProjectivePoint<C>) -> Self {
        Self { generator: multiples(ProjectivePoint::GENERATOR), key: multiples(key) }
    }

    /// Nothing here is secret, and the time it takes depends on everything. A digest longer than
    /// the order fits nothing.
    fn verify(&self, digest: &[u8], signature: &Signature<C>) -> bool {
        let mut padded = FieldBytes::<C>::default();
        let Some(start) = padded.len().checked_sub(digest.len()) else { return false };
        padded.iter_mut().skip(start).zip(digest).for_each(|(place, octet)| *place = *octet);
        let (r, s) = signature.split_scalars();
        let inverse = *s.invert_vartime();
        let mut sum = ProjectivePoint::IDENTITY;
        add(&mut sum, &self.generator, Scalar::<C>::reduce(&padded) * inverse);
        add(&mut sum, &self.key, *r * inverse);
        Scalar::<C>::reduce(&sum.to_affine().x()) == *r
    }
}

/// For each digit, the lowest first: the point that it counts, once, twice and so on up to the
/// largest digit.
fn multiples<C: PrimeCurveParams>(point: ProjectivePoint<C>) -> Vec<AffinePoint<C>> {
    let mut base = point;
    let mut all = Vec::new();
    // A bit more than the order has, for the last carry.
    for _ in 0..(Scalar::<C>::NUM_BITS as usize + 1).div_ceil(WIDTH) {
        let mut multiple = base;
        for _ in 1..LARGEST {
            all.push(multiple);
            multiple += &base;
        }
        all.push(multiple);
        base = multiple.double();
    }
    let mut affine = vec![AffinePoint::IDENTITY; all.len()];
    ProjectivePoint::batch_normalize(&all, &mut affine);
    affine
}

/// Adds the multiple that `scalar` stands for.
fn add<C: PrimeCurveParams>(
    sum: &mut ProjectivePoint<C>,
    multiples: &[AffinePoint<C>],
    scalar: Scalar<C>,
) {
    let octets = scalar.to_le_repr();
    let octet = |place: usize| octets.get(place).copied().unwrap_or_default();
    let mut carry = 0;
    for (position, row) in multiples.chunks(LARGEST.into()).enumerate() {
        let (place, shift) = (position * WIDTH / 8, position * WIDTH % 8);
        let bits = u16::from_le_bytes([octet(place), octet(place + 1)]) >> shift;
        let digit = bits % (2 * LARGEST) + carry;
        carry = u16::from(digit > LARGEST);
        let size = if carry == 0 { digit } else { 2 * LARGEST - digit };
        // Nothing is known of nothing, and nothing is added.
        let Some(point) = row.get(usize::from(size).wrapping_sub(1)) else { continue };
        match carry {
            0 => *sum += point,
            _ => *sum -= point,
        }
    }
}
