//! Main mode with certificates, both sides: who is believed, and what each fault is called.

use super::*;
use crate::certificate::testing::{Authority, Contents, DAY, NOW as WALL, key};
use crate::certificate::{CertificateCredential, CertificateError, Trust};
use crate::crypto::KeyKind;
use crate::error::PeerMisbehaved;
use crate::time::WallClock;

const MEMBER: &str = "m1.example.org";
const SERVER: &str = "ks.example.org";

fn member() -> Contents {
    Contents::new("CN=member,O=Example").dns(MEMBER)
}

fn server() -> Contents {
    Contents::new("CN=server,O=Example").dns(SERVER)
}

fn fqdn(name: &str) -> Identity {
    Identity::Fqdn(name.to_owned())
}

/// Everything that one of two sides brings along.
struct Sides {
    method: Authentication,
    hash: HashAlgorithm,
    member: CertificateCredential,
    server: CertificateCredential,
    /// As it states it, and as the server wants it.
    identity: Identity,
    wanted: Option<Identity>,
    server_time: u64,
    member_time: u64,
}

impl Sides {
    fn new(kind: KeyKind) -> Self {
        let authority = Authority::new(1);
        let member = authority.credential(member(), key(kind, 9));
        Self {
            method: member.authentication(),
            hash: HashAlgorithm::Sha2_256,
            member,
            server: authority.credential(server(), key(kind, 10)),
            identity: fqdn(MEMBER),
            wanted: None,
            server_time: WALL,
            member_time: WALL,
        }
    }

    /// Runs main mode: what the server says to message 5, and the member to message 6.
    fn run(self) -> (Result<Identity, Error>, Option<Result<Identity, Error>>) {
        let transform = Phase1Transform {
            authentication: self.method,
            hash: self.hash,
            ..policy().transforms[0]
        };
        let policy = Phase1Policy { transforms: vec![transform], ..policy() };
        let peer = PeerCredential {
            addresses: "0.0.0.0/0".parse().unwrap(),
            identity: self.wanted,
            credential: Credential::Certificate(Arc::new(self.server)),
        };
        let config = EndpointConfig {
            identity: Some(fqdn(SERVER)),
            peers: vec![peer],
            phase1: vec![policy.clone()],
            aggressive: false,
            mobility: PeerMobility::Fixed,
            nat: NatTraversal::Off,
            vendor_ids: Vec::new(),
            limits: Limits::default(),
        };
        let mut endpoint = Endpoint::<Never>::new(config, [1; 32]);
        endpoint.set_wall_clock(WallClock::new(NOW, self.server_time));
        let mut rng = SeededRng::from_seed([2; 32]);
        let config = InitiatorConfig {
            identity: self.identity,
            expected_identity: fqdn(SERVER),
            credential: Credential::Certificate(Arc::new(self.member)),
            initial_contact: true,
            policy,
            vendor_ids: Vec::new(),
            mode: Phase1Mode::Main,
            nat: None,
            unix_seconds: self.member_time,
        };
        let (initiator, message) = Initiator::start(config, &mut rng).unwrap();
        let mut pair = Pair { endpoint, initiator, rng };
        pair.say(address(1), &message).unwrap();
        for _ in 0..2 {
            let answer = pair.answer().unwrap();
            let message = pair.next(&answer);
            if let Err(error) = pair.say(address(1), &message) {
                return (Err(error), None);
            }
        }
        let message_6 = pair.answer().unwrap();
        let of_member = pair.initiator.handle(&message_6, &mut pair.rng);
        let of_member = of_member.map(|step| match step {
            InitiatorStep::Established(sa) => sa.peer_identity().clone(),
            _ => panic!("too many messages"),
        });
        match pair.endpoint.poll_event() {
            Some(EndpointEvent::Established { identity, .. }) => (Ok(identity), Some(of_member)),
            other => panic!("{other:?}"),
        }
    }
}

fn refused(error: CertificateError) -> Error {
    PeerMisbehaved::Certificate(error).into()
}

#[test]
fn both_sides_prove_their_identities() {
    for kind in [KeyKind::Rsa, KeyKind::Ecdsa256, KeyKind::Ecdsa384] {
        for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha2_256, HashAlgorithm::Sha2_512] {
            let outcome = Sides { hash, ..Sides::new(kind) }.run();
            assert_eq!(outcome, (Ok(fqdn(MEMBER)), Some(Ok(fqdn(SERVER)))), "{kind:?} {hash:?}");
        }
    }
}

#[test]
fn the_subject_is_an_identity_too() {
    let sides = Sides::new(KeyKind::Ecdsa256);
    let identity = sides.member.identity("192.0.2.9".parse().unwrap());
    assert!(matches!(identity, Identity::DistinguishedName(_)));
    for wanted in [None, Some(identity.clone())] {
        let sides = Sides { identity: identity.clone(), wanted, ..Sides::new(KeyKind::Ecdsa256) };
        assert_eq!(sides.run().0, Ok(identity.clone()));
    }
}

#[test]
fn a_peer_cannot_use_a_name_that_its_certificate_does_not_have() {
    let sides = Sides { identity: fqdn("m2.example.org"), ..Sides::new(KeyKind::Ecdsa256) };
    let (subject, identity) = ("CN=member,O=Example".to_owned(), fqdn("m2.example.org"));
    assert_eq!(sides.run().0, Err(refused(CertificateError::Identity { subject, identity })));
    // It has the name, and the server wants another.
    let wanted = Some(fqdn("m2.example.org"));
    let (expected, proved) = (fqdn("m2.example.org"), fqdn(MEMBER));
    assert_eq!(
        Sides { wanted, ..Sides::new(KeyKind::Ecdsa256) }.run().0,
        Err(PeerMisbehaved::WrongIdentity { expected, proved }.into())
    );
}

#[test]
fn each_side_believes_its_own_authorities_at_its_own_time() {
    let late = WALL + 2 * DAY;
    let expired = CertificateError::Expired { time: late, not_after: WALL + DAY };
    let outcome = Sides { server_time: late, ..Sides::new(KeyKind::Ecdsa256) }.run();
    assert_eq!(outcome, (Err(refused(expired.clone())), None));
    let outcome = Sides { member_time: late, ..Sides::new(KeyKind::Ecdsa256) }.run();
    assert_eq!(outcome, (Ok(fqdn(MEMBER)), Some(Err(refused(expired)))));
    // Nobody has told the time yet.
    let unset = Sides { server_time: 0, ..Sides::new(KeyKind::Ecdsa256) }.run();
    assert_eq!(unset.0.unwrap_err().reason(), "certificate");

    let stranger = Authority::with(3, Contents::authority("CN=Stranger"));
    let own = stranger.credential(member(), key(KeyKind::Ecdsa256, 9));
    let outcome = Sides { member: own, ..Sides::new(KeyKind::Ecdsa256) }.run();
    let unknown = CertificateError::UnknownIssuer("CN=Stranger".into());
    assert_eq!(outcome, (Err(refused(unknown)), None));
}

#[test]
fn a_revoked_member_does_not_get_in() {
    let authority = Authority::new(1);
    let lists = vec![authority.revoke(&[7], WALL + DAY)];
    let trust = Trust::new(vec![authority.der()], lists, true).unwrap();
    let own = key(KeyKind::Ecdsa256, 10);
    let chain = vec![authority.certify(Contents { serial: 8, ..server() }, &own)];
    let server = CertificateCredential::new(chain, own, trust).unwrap();
    let outcome = Sides { server, ..Sides::new(KeyKind::Ecdsa256) }.run();
    assert_eq!(outcome, (Err(refused(CertificateError::Revoked)), None));
}

/// Somebody shows another's certificate, which is no secret.
#[test]
fn a_certificate_without_its_key_proves_nothing() {
    let authority = Authority::new(1);
    let stolen = authority.certify(member(), &key(KeyKind::Ecdsa256, 9));
    let thief = authority.credential(Contents::new("CN=thief"), key(KeyKind::Ecdsa256, 11));
    let outcome =
        Sides { member: thief.showing(vec![stolen]), ..Sides::new(KeyKind::Ecdsa256) }.run();
    let wrong = PeerMisbehaved::WrongSignature { message: "message 5" };
    assert_eq!(outcome, (Err(wrong.into()), None));
    // A good certificate with a key for another method.
    let other = Authority::new(1).certify(member(), &key(KeyKind::Ecdsa384, 9));
    let thief = authority.credential(Contents::new("CN=thief"), key(KeyKind::Ecdsa256, 11));
    let outcome =
        Sides { member: thief.showing(vec![other]), ..Sides::new(KeyKind::Ecdsa256) }.run();
    assert_eq!(outcome, (Err(refused(CertificateError::Method)), None));
    let thief = authority.credential(Contents::new("CN=thief"), key(KeyKind::Ecdsa256, 11));
    let none = Sides { member: thief.showing(Vec::new()), ..Sides::new(KeyKind::Ecdsa256) };
    assert_eq!(none.run(), (Err(refused(CertificateError::Missing)), None));
}

/// The certificate itself is not signed over, the identity and the key exchange are.
#[test]
fn a_replaced_credential_ends_what_it_began() {
    let sides = || Sides::new(KeyKind::Ecdsa256);
    assert_eq!(sides().server, sides().server);
    let renewed = Authority::new(1).credential(
        Contents { valid: (WALL, WALL + 2 * DAY), ..server() },
        key(KeyKind::Ecdsa256, 10),
    );
    assert_ne!(sides().server, renewed);
    let credential = |one| Credential::Certificate(Arc::new(one));
    assert_ne!(credential(sides().server), credential(renewed));
}

/// One socket for peers with keys and for peers with certificates.
#[test]
fn a_peer_is_offered_what_its_credential_is_for() {
    let certified = Sides::new(KeyKind::Ecdsa256);
    let of = |authentication| Phase1Transform { authentication, ..policy().transforms[0] };
    let transforms = vec![of(certified.method), of(Authentication::PreSharedKey)];
    let both = Phase1Policy { transforms, ..policy() };
    let (mut pair, message_1) = Pair::with(Arithmetic::InPlace, vec![both.clone()], both.clone());
    pair.say(address(1), &message_1).unwrap();
    let message_2 = pair.answer().unwrap();
    let message_3 = pair.next(&message_2);
    pair.say(address(1), &message_3).unwrap();
    let message_4 = pair.answer().unwrap();
    assert_eq!(pair.establish(&message_4).transform(), of(Authentication::PreSharedKey));

    let only = Phase1Policy { transforms: vec![of(certified.method)], ..policy() };
    let (mut pair, message_1) = Pair::with(Arithmetic::InPlace, vec![both], only);
    assert_eq!(pair.say(address(1), &message_1).unwrap_err().reason(), "no-proposal-chosen");
}

#[test]
fn refused_proofs_are_few() {
    let sides = Sides::new(KeyKind::Ecdsa256);
    let transform = Phase1Transform { authentication: sides.method, ..policy().transforms[0] };
    let policy = Phase1Policy { transforms: vec![transform], ..policy() };
    let (mut pair, _) = Pair::new(Arithmetic::InPlace);
    let mut config = pair.endpoint.config.clone();
    config.phase1 = vec![policy.clone()];
    config.identity = Some(fqdn(SERVER));
    config.peers[0].credential = Credential::Certificate(Arc::new(sides.server));
    pair.endpoint.reconfigure(config);
    pair.endpoint.set_wall_clock(WallClock::new(NOW, WALL));
    let config = InitiatorConfig {
        identity: fqdn("m2.example.org"),
        expected_identity: fqdn(SERVER),
        credential: Credential::Certificate(Arc::new(sides.member)),
        initial_contact: false,
        policy,
        vendor_ids: Vec::new(),
        mode: Phase1Mode::Main,
        nat: None,
        unix_seconds: WALL,
    };
    let (initiator, message_1) = Initiator::start(config, &mut pair.rng).unwrap();
    pair.initiator = initiator;
    pair.say(address(1), &message_1).unwrap();
    let message_2 = pair.answer().unwrap();
    let message_3 = pair.next(&message_2);
    pair.say(address(1), &message_3).unwrap();
    let message_4 = pair.answer().unwrap();
    let message_5 = pair.next(&message_4);
    for _ in 0..3 {
        assert_eq!(pair.say(address(1), &message_5).unwrap_err().reason(), "certificate");
    }
    assert_eq!(pair.say(address(1), &message_5), Err(NotAccepted::Ended.into()));
}
