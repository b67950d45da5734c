//! Main mode against recordings of other implementations, against itself, and against tampering.

mod offers;
mod recordings;
mod tampering;
mod two_party;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{
    Authentication, Credential, Identity, Phase1Mode, Phase1Policy, Phase1Transform,
};
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret, SeededRng};
use crate::error::Error;
use crate::wire::registry::{Doi, ExchangeType};

/// Quick Mode under the IPsec DOI, GROUPKEY-PULL under the GDOI.
const PHASE2: ExchangeType = ExchangeType(32);

const FAST: Phase1Transform = Phase1Transform {
    encryption: Phase1Encryption::Aes256Cbc,
    hash: HashAlgorithm::Sha2_256,
    group: DhGroup::Ecp256,
    authentication: Authentication::PreSharedKey,
};

fn policy(transforms: &[Phase1Transform]) -> Phase1Policy {
    Phase1Policy {
        doi: Doi::GDOI,
        port: 848,
        transforms: transforms.to_vec(),
        lifetime: Duration::from_secs(3600),
    }
}

fn member() -> Identity {
    Identity::Address([10, 0, 1, 1].into())
}

fn server() -> Identity {
    Identity::Fqdn("ks1.example".to_owned())
}

fn credential() -> Credential {
    Credential::PreSharedKey(Arc::new(Secret::copy_from(b"a key of two")))
}

fn initiator_config(transforms: &[Phase1Transform]) -> InitiatorConfig {
    InitiatorConfig {
        identity: member(),
        expected_identity: server(),
        credential: credential(),
        initial_contact: false,
        policy: policy(transforms),
        vendor_ids: Vec::new(),
        mode: Phase1Mode::Main,
        nat: None,
        unix_seconds: 0,
    }
}

/// Everything two honest parties say and keep on the way through main mode.
struct Run {
    expect_sa: Initiator,
    expect_ke: Initiator,
    expect_auth: Initiator,
    responder_expect_ke: responder::ExpectKe,
    responder_expect_auth: responder::ExpectAuth,
    messages: [Vec<u8>; 6],
    initiator_sa: IsakmpSa,
    responder_sa: IsakmpSa,
}

fn next(step: InitiatorStep) -> (Initiator, Vec<u8>) {
    match step {
        InitiatorStep::Continue { next, message } => (next, message),
        _ => panic!("established too early"),
    }
}

fn run(config: InitiatorConfig, policy: &Phase1Policy, rng: &mut SeededRng) -> Result<Run, Error> {
    let psk = credential();
    // HDR, SA -->
    let (expect_sa, message_1) = Initiator::start(config, rng)?;
    // <-- HDR, SA
    let (responder_expect_ke, message_2) =
        responder::answer_offer(std::slice::from_ref(policy), &message_1, rng)?;
    // HDR, KE, Ni -->
    let (expect_ke, message_3) = next(expect_sa.handle(&message_2, rng)?);
    // <-- HDR, KE, Nr
    let received = responder_expect_ke.read(&message_3)?;
    let (responder_expect_auth, message_4) = responder_expect_ke.compute(
        &received,
        &responder_expect_ke.check(&received)?,
        &psk,
        rng,
    )?;
    // HDR*, IDii, HASH_I -->
    let (expect_auth, message_5) = next(expect_ke.handle(&message_4, rng)?);
    // <-- HDR*, IDir, HASH_R
    let (responder_sa, message_6) =
        responder_expect_auth.handle(&message_5, &server(), &member())?;
    let InitiatorStep::Established(initiator_sa) = expect_auth.handle(&message_6, rng)? else {
        panic!("not established")
    };
    Ok(Run {
        expect_sa,
        expect_ke,
        expect_auth,
        responder_expect_ke,
        responder_expect_auth,
        messages: [message_1, message_2, message_3, message_4, message_5, message_6],
        initiator_sa,
        responder_sa,
    })
}

fn fast_run() -> Run {
    run(initiator_config(&[FAST]), &policy(&[FAST]), &mut SeededRng::from_seed([1; 32])).unwrap()
}
