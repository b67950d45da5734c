//! A public ECDSA key, and verification with it (FIPS 186-5 §6.4.2) that does not begin anew for every signature.
//!
//! A signature fits when u1 G + u2 Q has the abscissa r. Both scalars are cut into pieces of 16 bits, each with a base of
//! its own, 2^(16 i) G or 2^(16 i) Q: the sum over all of them takes 16 doublings instead of one for each bit of the order.

use ecdsa::signature::hazmat::PrehashVerifier as _;
use ecdsa::{EcdsaCurve, Signature, VerifyingKey};
use primeorder::elliptic_curve::FieldBytes;
use primeorder::elliptic_curve::array::typenum::U6;
use primeorder::elliptic_curve::ops::{Invert as _, Reduce as _};
use primeorder::elliptic_curve::point::AffineCoordinates as _;
use primeorder::wnaf::{WnafBase, WnafScalar};
use primeorder::{Double as _, PrimeCurveParams, PrimeFieldExt as _, ProjectivePoint, Scalar};

/// Octets of a piece of a scalar.
const PIECE: usize = 2;

/// Digits of a piece are odd and below 2^5: 16 points for each base. A wider window overflows the digits of the library, which
/// have eight bits.
type Window = U6;

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

/// Multiples of a curve's generator and of one public key: 48 kilobytes for 256 bits, 223 for 521.
#[derive(Clone)]
struct Multiples<C: PrimeCurveParams> {
    generator: Vec<WnafBase<ProjectivePoint<C>, Window>>,
    key: Vec<WnafBase<ProjectivePoint<C>, Window>>,
}

impl<C: PrimeCurveParams + EcdsaCurve> Multiples<C> {
    fn of(key: ProjectivePoint<C>) -> Self {
        Self { generator: bases(ProjectivePoint::GENERATOR), key: bases(key) }
    }

    /// Nothing here is secret, and the time it takes depends on everything. A digest longer than the order fits nothing.
    fn verify(&self, digest: &[u8], signature: &Signature<C>) -> bool {
        let mut padded = FieldBytes::<C>::default();
        let Some(start) = padded.len().checked_sub(digest.len()) else { return false };
        padded.iter_mut().skip(start).zip(digest).for_each(|(place, octet)| *place = *octet);
        let (r, s) = signature.split_scalars();
        let inverse = *s.invert_vartime();
        let (by_generator, by_key) = (pieces::<C>(Scalar::<C>::reduce(&padded) * inverse), pieces::<C>(*r * inverse));
        let pairs = self.generator.iter().zip(&by_generator).chain(self.key.iter().zip(&by_key));
        let sum = WnafBase::multiscalar_mul(pairs).to_affine();
        Scalar::<C>::reduce(&sum.x()) == *r
    }
}

/// The bases for the pieces of a scalar, the lowest one's first.
fn bases<C: PrimeCurveParams>(point: ProjectivePoint<C>) -> Vec<WnafBase<ProjectivePoint<C>, Window>> {
    let number = FieldBytes::<C>::default().len().div_ceil(PIECE);
    let next = |base: &ProjectivePoint<C>| Some((0..8 * PIECE).fold(*base, |point, _| point.double()));
    std::iter::successors(Some(point), next).take(number).map(|base| WnafBase::new(&base)).collect()
}

/// A scalar in pieces, the lowest one first.
fn pieces<C: PrimeCurveParams>(scalar: Scalar<C>) -> Vec<WnafScalar<Scalar<C>, Window>> {
    scalar.to_le_repr().chunks(PIECE).map(WnafScalar::from_le_bytes).collect()
}
