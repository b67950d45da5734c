//! The ISAKMP SA of a worked example: keys computed with another language from the formulas of RFC
//! 2409 §5.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::auth::{Exchanged, MainModeKeys, Negotiated};
use super::super::*;
use crate::config::{DhGroup, HashAlgorithm, Identity, Phase1Encryption, Phase1Transform};
use crate::crypto::Secret;
use crate::crypto::testing::hex;

/// PSK "lab-psk", cookies 01..08 and 11..18, nonces 20..2f and 40..4f, g^xy = 256 * aa, g^xi = 256
/// * bb, g^xr = 256 * cc, SHA-256, AES-128.
pub(crate) fn isakmp_sa() -> IsakmpSa {
    let cookies = Cookies {
        initiator: [1, 2, 3, 4, 5, 6, 7, 8],
        responder: [17, 18, 19, 20, 21, 22, 23, 24],
    };
    let transform = Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group: DhGroup::Modp2048,
    };
    let negotiated = Negotiated {
        cookies,
        transform,
        lifetime: Duration::from_secs(86_400),
        sai_b: vec![0; 48],
    };
    let (ni_b, nr_b): (Vec<u8>, Vec<u8>) = ((0x20..=0x2f).collect(), (0x40..=0x4f).collect());
    let exchanged = Exchanged { g_xi: &[0xbb; 256], g_xr: &[0xcc; 256], ni_b: &ni_b, nr_b: &nr_b };
    let psk = Secret::copy_from(b"lab-psk");
    let (keys, first) =
        MainModeKeys::derive(negotiated, &psk, &Secret::new(vec![0xaa; 256]), &exchanged).unwrap();
    let skeyid_a = hex("281f555ac6bc9478b882e3ac36bdcec1393c32dda65ea27df1e00b711215315e");
    assert_eq!(keys.keys().0.skeyid_a.expose(), skeyid_a);

    let server = Identity::Address(Ipv4Addr::new(192, 0, 2, 1).into());
    let message_6 = keys.seal(&first, Role::Responder, &server).unwrap();
    let (proof, last) =
        keys.open("message 6", &first, Role::Responder, &server, message_6.datagram()).unwrap();
    keys.establish(Role::Initiator, proof, &last)
}
