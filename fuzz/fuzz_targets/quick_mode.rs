//! Quick Mode from a peer that has the keys: everything behind HASH is the attacker's. The first
//! octet of the input says which message it is, the second the type of the first payload, the rest
//! are the payloads.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use ike::crypto::{DhGroup, SeededRng};
use ike::phase1::{ExchangeCipher, IsakmpSa};
use ike::quick::initiator::{ExpectChoice, Request};
use ike::quick::responder::Requested;
use ike::quick::{
    Child, ChildPolicy, EspAlgorithms, EspEncryption, EspIntegrity, Mode, QUICK_MODE, Selectors,
    TrafficSelector,
};
use ike::testing::worked_isakmp_sa;
use ike::wire::chain::walk;
use ike::wire::registry::PayloadKind;
use libfuzzer_sys::fuzz_target;

const MESSAGE_ID: u32 = 7;

/// An exchange that waits for message 2.
struct Waiting {
    sa: IsakmpSa,
    state: ExpectChoice,
    /// The cipher after message 1 (RFC 2409 Appendix B).
    cipher: ExchangeCipher,
    nonce: Vec<u8>,
}

fn policy(pfs: bool) -> ChildPolicy {
    ChildPolicy {
        algorithms: vec![
            EspAlgorithms::combined(EspEncryption::Aes128Gcm),
            EspAlgorithms::separate(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha1),
        ],
        pfs: pfs.then_some(DhGroup::Ecp256),
        mode: Mode::Tunnel,
        lifetime: Duration::from_secs(3600),
        kilobytes: Some(1 << 20),
        extended_sequence_numbers: true,
    }
}

fn selectors() -> Selectors {
    Selectors {
        local: TrafficSelector::net("10.1.0.0/16".parse().expect("a network")),
        remote: TrafficSelector::net("10.2.0.0/16".parse().expect("a network")),
    }
}

static WAITING: LazyLock<[Waiting; 2]> = LazyLock::new(|| {
    [false, true].map(|pfs| {
        let sa = worked_isakmp_sa();
        let request = Request { policy: policy(pfs), selectors: selectors(), spi: 0x1000 };
        let mut rng = SeededRng::from_seed([1; 32]);
        let started = ExpectChoice::start(&sa, request, MESSAGE_ID, &mut rng);
        let (state, message) = started.expect("an offer");
        let opened = sa.open(&sa.exchange(QUICK_MODE, MESSAGE_ID), &message).expect("a message");
        let chain = opened.chain().expect("payloads");
        let nonce = chain.payloads.iter().find(|payload| payload.kind == PayloadKind::NONCE);
        let nonce = nonce.expect("a nonce").body().to_vec();
        Waiting { state, cipher: opened.next(), nonce, sa }
    })
});

fn check(child: &Child) {
    assert!(child.algorithms.is_complete());
    let integrity = child.algorithms.integrity.map_or(0, EspIntegrity::key_material);
    for keys in [&child.inbound, &child.outbound] {
        assert!(keys.spi >= 256);
        assert_eq!(keys.encryption.len(), child.algorithms.encryption.key_material());
        assert_eq!(keys.integrity.len(), integrity);
    }
    assert!(child.lifetime <= Duration::from_secs(3600) && !child.lifetime.is_zero());
}

fuzz_target!(|input: &[u8]| {
    let [which, first, payloads @ ..] = input else { return };
    let Some(waiting) = WAITING.get(usize::from(which >> 1 & 1)) else { return };
    let (sa, first) = (&waiting.sa, PayloadKind(*first));
    // What is no chain of payloads is another target's.
    if walk(first, payloads, 0).is_err() {
        return;
    }
    if which & 1 == 0 {
        let exchange = sa.exchange(QUICK_MODE, MESSAGE_ID);
        let Ok(sealed) = sa.seal_authenticated(&exchange, &[], first, payloads) else { return };
        let Ok(Ok(requested)) = Requested::read(sa, sealed.datagram()) else { return };
        let Selectors { local, remote } = selectors();
        let meant = requested.selectors_or(local, remote);
        let mut rng = SeededRng::from_seed([2; 32]);
        let policy = policy(which >> 1 & 1 == 1);
        if let Ok(answer) = requested.answer(sa, &policy, meant, 0x2000, &mut rng) {
            check(&answer.child);
        }
    } else {
        let nonces = [waiting.nonce.as_slice()];
        let sealed = sa.seal_authenticated(&waiting.cipher, &nonces, first, payloads);
        let Ok(sealed) = sealed else { return };
        if let Ok(Ok(established)) = waiting.state.handle(sa, sealed.datagram()) {
            check(&established.child);
        }
    }
});
