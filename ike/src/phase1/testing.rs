//! ISAKMP SAs for tests: a worked example whose keys another language computed from the formulas of
//! RFC 2409 §5, and recordings of other implementations. The private exponents of the recordings
//! are unknown, so that the shared secret stands in for the arithmetic.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::auth::{Exchanged, MainModeKeys, Negotiated};
use super::message::{KeyExchangeMessage, SaMessage};
use super::{Cookies, ExchangeCipher, IsakmpSa, Role};
use crate::config::{Authentication, Credential, Identity, Phase1Transform};
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use crate::testing::{group_named, hash_named, hex, json, octets};
use crate::wire::registry::{Doi, ExchangeType};

/// PSK "lab-psk", cookies 01..08 and 11..18, nonces 20..2f and 40..4f, g^xy = 256 * aa, g^xi = 256
/// * bb, g^xr = 256 * cc, SHA-256, AES-128.
pub fn worked_isakmp_sa() -> IsakmpSa {
    let cookies = Cookies {
        initiator: [1, 2, 3, 4, 5, 6, 7, 8],
        responder: [17, 18, 19, 20, 21, 22, 23, 24],
    };
    let transform = Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group: DhGroup::Modp2048,
        authentication: Authentication::PreSharedKey,
    };
    let negotiated = Negotiated {
        exchange: ExchangeType::IDENTITY_PROTECTION,
        cookies,
        doi: Doi::GDOI,
        port: 848,
        transform,
        lifetime: Duration::from_secs(86_400),
        sai_b: vec![0; 48],
        peer_vendor_ids: Vec::new(),
        nat: None,
    };
    let (ni_b, nr_b): (Vec<u8>, Vec<u8>) = ((0x20..=0x2f).collect(), (0x40..=0x4f).collect());
    let exchanged = Exchanged { g_xi: &[0xbb; 256], g_xr: &[0xcc; 256], ni_b: &ni_b, nr_b: &nr_b };
    let psk = Credential::PreSharedKey(Arc::new(Secret::copy_from(b"lab-psk")));
    let (keys, first) =
        MainModeKeys::derive(negotiated, &psk, &Secret::new(vec![0xaa; 256]), &exchanged).unwrap();
    let skeyid_a = hex("281f555ac6bc9478b882e3ac36bdcec1393c32dda65ea27df1e00b711215315e");
    assert_eq!(keys.keys().0.skeyid_a.expose(), skeyid_a);

    let server = Identity::Address(Ipv4Addr::new(192, 0, 2, 1).into());
    let message_6 = keys.seal(&first, Role::Responder, &server, None).unwrap();
    let (proof, last) =
        keys.open("message 6", &first, Role::Responder, &server, message_6.datagram()).unwrap();
    keys.establish(Role::Initiator, proof, &last)
}

/// A recorded exchange, message by message.
pub struct Recording(pub(crate) Value);

impl Recording {
    pub fn load(name: &str) -> Self {
        Self(json(&format!("recordings/{name}.json")))
    }

    pub(super) fn field(&self, name: &str) -> Vec<u8> {
        octets(&self.0[name])
    }

    pub fn message(&self, number: usize) -> Vec<u8> {
        octets(&self.0["messages"][number - 1]["octets"])
    }

    pub fn plaintext(&self, number: usize) -> Vec<u8> {
        octets(&self.0["messages"][number - 1]["plaintext"])
    }

    pub(super) fn identity(&self, role: &str) -> Identity {
        Identity::Address(self.0[role].as_str().unwrap().parse::<Ipv4Addr>().unwrap().into())
    }

    pub(super) fn transform(&self) -> Phase1Transform {
        let encryption = match self.0["encryption"].as_str().unwrap() {
            "aes-128-cbc" => Phase1Encryption::Aes128Cbc,
            "3des-cbc" => Phase1Encryption::TripleDesCbc,
            other => panic!("encryption {other}"),
        };
        Phase1Transform {
            encryption,
            hash: hash_named(&self.0["hash"]),
            group: group_named(&self.0["group"]),
            authentication: Authentication::PreSharedKey,
        }
    }

    /// Keys of main mode from messages 1 to 4 and the recorded shared secret, and the cipher state
    /// behind them.
    pub(super) fn keys(&self, skeyid: Option<Secret>) -> (MainModeKeys, ExchangeCipher) {
        let offer = SaMessage::read("message 1", &self.message(1)).unwrap();
        let choice = SaMessage::read("message 2", &self.message(2)).unwrap();
        let (cookies, transform) = (choice.cookies, self.transform());
        assert_eq!(cookies.initiator, offer.cookies.initiator);
        let read = |name, number| {
            KeyExchangeMessage::read(name, cookies, transform.group, &self.message(number)).unwrap()
        };
        let (i, r) = (read("message 3", 3), read("message 4", 4));
        let exchanged =
            Exchanged { g_xi: &i.public, g_xr: &r.public, ni_b: &i.nonce, nr_b: &r.nonce };
        let negotiated = Negotiated {
            exchange: ExchangeType::IDENTITY_PROTECTION,
            cookies,
            doi: offer.sa.doi,
            port: 848,
            transform,
            lifetime: Duration::from_secs(600),
            sai_b: offer.sa_b,
            peer_vendor_ids: Vec::new(),
            nat: None,
        };
        let g_xy = Secret::new(self.field("g_xy"));
        match skeyid {
            Some(skeyid) => MainModeKeys::from_skeyid(negotiated, skeyid, &g_xy, &exchanged),
            None => MainModeKeys::derive(
                negotiated,
                &Credential::PreSharedKey(Arc::new(Secret::new(self.field("pre_shared_key")))),
                &g_xy,
                &exchanged,
            ),
        }
        .unwrap()
    }

    /// The ISAKMP SA of the initiator and that of the responder. A recording without its pre-shared
    /// key has SKEYID.
    pub fn established(&self) -> (IsakmpSa, IsakmpSa) {
        let skeyid = self.0.get("pre_shared_key").is_none().then(|| self.field("skeyid"));
        let (keys, first) = self.keys(skeyid.map(Secret::new));
        self.establish(&keys, &first)
    }

    /// Both sides' ISAKMP SA, each from the other side's recorded proof.
    pub(super) fn establish(
        &self,
        keys: &MainModeKeys,
        first: &ExchangeCipher,
    ) -> (IsakmpSa, IsakmpSa) {
        let (initiator, responder) = (self.identity("initiator"), self.identity("responder"));
        let (proof_i, behind_5) =
            keys.open("message 5", first, Role::Initiator, &initiator, &self.message(5)).unwrap();
        let (proof_r, behind_6) = keys
            .open("message 6", &behind_5, Role::Responder, &responder, &self.message(6))
            .unwrap();
        let of_responder = keys.establish(Role::Responder, proof_i, &behind_6);
        let of_initiator = keys.establish(Role::Initiator, proof_r, &behind_6);
        assert_eq!(of_responder.peer_identity(), &initiator);
        assert_eq!(of_initiator.peer_identity(), &responder);
        (of_initiator, of_responder)
    }
}

/// Recordings of main mode, a pull and pushes.
pub const GDOI: [&str; 2] = ["gdoi_psk_aes128_sha256_modp2048", "gdoi_psk_3des_sha1_modp1024"];
