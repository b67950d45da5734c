//! Key material of ESP SAs (RFC 2409 §5.5).
//!
//! ```text
//! K1 = prf(SKEYID_d, [g(qm)^xy |] protocol | SPI | Ni_b | Nr_b)
//! Kn = prf(SKEYID_d, Kn-1 | [g(qm)^xy |] protocol | SPI | Ni_b | Nr_b)
//! ```
//!
//! The encryption key is taken first, then the integrity key (RFC 4301 §4.5.2).

use zeroize::Zeroizing;

use super::algorithm::EspAlgorithms;
use crate::crypto::{Secret, prf};
use crate::phase1::IsakmpSa;
use crate::wire::registry::ProtocolId;

/// SPI and keys of one direction.
#[derive(Debug, PartialEq, Eq)]
pub struct EspKeys {
    /// SPI, chosen by who receives on the SA.
    pub spi: u32,
    /// Key of the encryption, with the salt of a combined mode behind it.
    pub encryption: Secret,
    /// Key of the integrity algorithm; empty with a combined mode.
    pub integrity: Secret,
}

/// What both directions are derived from.
pub(super) struct Ingredients<'a> {
    pub(super) sa: &'a IsakmpSa,
    pub(super) algorithms: EspAlgorithms,
    pub(super) g_xy: Option<&'a Secret>,
    pub(super) ni_b: &'a [u8],
    pub(super) nr_b: &'a [u8],
}

impl Ingredients<'_> {
    /// The keys of the SA with this SPI.
    pub(super) fn derive(&self, spi: u32) -> EspKeys {
        let encryption = self.algorithms.encryption.key_material();
        let integrity = self.algorithms.integrity.map_or(0, |integrity| integrity.key_material());
        let material = self.expand(spi, encryption.saturating_add(integrity));
        let (encryption, integrity) =
            material.split_at_checked(encryption).unwrap_or((&material, &[]));
        EspKeys {
            spi,
            encryption: Secret::copy_from(encryption),
            integrity: Secret::copy_from(integrity),
        }
    }

    fn expand(&self, spi: u32, length: usize) -> Zeroizing<Vec<u8>> {
        let hash = self.sa.transform().hash;
        // Room for the last whole block too, so that nothing is copied to a larger place and left
        // unwiped.
        let capacity = length.saturating_add(hash.output_length());
        let mut material = Zeroizing::new(Vec::with_capacity(capacity));
        let g_xy = self.g_xy.map_or(&[][..], Secret::expose);
        let (protocol, spi) = ([ProtocolId::IPSEC_ESP.0], spi.to_be_bytes());
        let mut block = Secret::new(Vec::new());
        while material.len() < length {
            let parts = [block.expose(), g_xy, &protocol, &spi, self.ni_b, self.nr_b];
            block = prf(hash, self.sa.skeyid_d().expose(), &parts);
            material.extend_from_slice(block.expose());
        }
        material.truncate(length);
        material
    }
}
