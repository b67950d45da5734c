//! Chains of our own, and one clear error for each fault.

use x509_cert::ext::pkix::KeyUsages;

use super::testing::{Authority, Contents, DAY, NOW, key};
use super::*;
use crate::crypto::SeededRng;

fn host() -> Contents {
    Contents::new("CN=member,O=Example").dns("m1.example.org")
}

/// What becomes of a certificate with this content.
fn outcome(contents: Contents) -> Result<PeerCertificate, CertificateError> {
    let authority = Authority::new(1);
    let certificate = authority.certify(contents, &key(KeyKind::Ecdsa256, 9));
    authority.trust().verify(&[certificate], NOW)
}

#[test]
fn a_certificate_proves_its_names_and_no_others() {
    let contents = host().mail("Ops@Example.org").address("192.0.2.1").address("2001:db8::1");
    let peer = outcome(contents).unwrap();
    assert_eq!(peer.subject(), "CN=member,O=Example");
    let authority = Authority::new(1);
    let elsewhere = "192.0.2.9".parse().unwrap();
    let subject = authority.credential(host(), key(KeyKind::Ecdsa256, 9)).identity(elsewhere);
    let address = |text: &str| Identity::Address(text.parse().unwrap());
    let (fqdn, user) =
        (|name: &str| Identity::Fqdn(name.into()), |name: &str| Identity::UserFqdn(name.into()));
    for identity in [
        subject,
        fqdn("m1.example.org"),
        fqdn("M1.EXAMPLE.ORG"),
        user("Ops@example.ORG"),
        address("192.0.2.1"),
        address("2001:db8::1"),
    ] {
        assert!(peer.proves(&identity), "{identity:?}");
    }
    let other = authority.credential(Contents::new("CN=other"), key(KeyKind::Ecdsa256, 9));
    for identity in [
        other.identity(elsewhere),
        fqdn("m2.example.org"),
        fqdn("member"),
        fqdn("m1.example.org."),
        user("m1.example.org"),
        user("ops@example.org"),
        address("192.0.2.2"),
        Identity::KeyId(b"m1.example.org".to_vec()),
        Identity::DistinguishedName(vec![0x30, 0]),
    ] {
        assert!(!peer.proves(&identity), "{identity:?}");
    }
    // Without a subject the empty name proves nothing.
    let nameless = outcome(Contents { subject: String::new(), ..host() }).unwrap();
    assert!(!nameless.proves(&Identity::DistinguishedName(vec![0x30, 0])));
    assert!(nameless.proves(&fqdn("m1.example.org")));
}

#[test]
fn each_fault_has_its_error() {
    let is = |contents: Contents, expected: CertificateError| {
        assert_eq!(outcome(contents).err(), Some(expected));
    };
    let expired = (NOW - 2 * DAY, NOW - DAY);
    is(
        Contents { valid: expired, ..host() },
        CertificateError::Expired { time: NOW, not_after: NOW - DAY },
    );
    is(
        Contents { valid: (NOW + DAY, NOW + 2 * DAY), ..host() },
        CertificateError::NotYetValid { time: NOW, not_before: NOW + DAY },
    );
    is(
        Contents { usage: Some(KeyUsages::KeyEncipherment.into()), ..host() },
        CertificateError::KeyUsage,
    );
    is(Contents { authority: true, ..host() }, CertificateError::Authority);
    let code_signing = vec!["1.3.6.1.5.5.7.3.3"];
    is(
        Contents { extended_usage: code_signing.clone(), ..host() },
        CertificateError::ExtendedKeyUsage,
    );
    for fitting in ["1.3.6.1.5.5.7.3.17", "1.3.6.1.5.5.7.3.1", "2.5.29.37.0"] {
        let extended_usage = [code_signing.clone(), vec![fitting]].concat();
        assert!(outcome(Contents { extended_usage, ..host() }).is_ok(), "{fitting}");
    }
    for usage in [None, Some(KeyUsages::NonRepudiation.into())] {
        assert!(outcome(Contents { usage, ..host() }).is_ok());
    }
}

#[test]
fn only_what_an_authority_of_ours_has_signed_counts() {
    let (ours, other) = (Authority::new(1), Authority::new(2));
    let host_key = key(KeyKind::Ecdsa256, 9);
    // The same name and another key.
    let forged = other.certify(host(), &host_key);
    assert_eq!(ours.trust().verify(&[forged], NOW).err(), Some(CertificateError::Signature));
    let stranger = Authority::with(3, Contents::authority("CN=Stranger"));
    let foreign = stranger.certify(host(), &host_key);
    let unknown = CertificateError::UnknownIssuer("CN=Stranger".into());
    assert_eq!(
        ours.trust().verify(std::slice::from_ref(&foreign), NOW).err(),
        Some(unknown.clone())
    );
    // What the peer sends beside it is no authority.
    assert_eq!(ours.trust().verify(&[foreign, stranger.der()], NOW).err(), Some(unknown));
    let own = Authority::with(4, host()).der();
    assert_eq!(ours.trust().verify(&[own], NOW).err(), Some(CertificateError::SelfSigned));
    let mut flipped = ours.certify(host(), &host_key);
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(ours.trust().verify(&[flipped], NOW).err(), Some(CertificateError::Signature));
}

#[test]
fn authorities_between_are_taken_from_the_chain() {
    let root = Authority::new(1);
    let between =
        root.intermediate(5, Contents { serial: 50, ..Contents::authority("CN=Between") });
    let host_key = key(KeyKind::Ecdsa256, 9);
    let leaf = between.certify(host(), &host_key);
    let chain = [leaf.clone(), between.der()];
    assert!(root.trust().verify(&chain, NOW).is_ok());
    assert!(root.trust().verify(&chain[..1], NOW).is_err());
    // One that may not issue others.
    let no_authority = root.intermediate(5, Contents::new("CN=Between"));
    let chain = [leaf.clone(), no_authority.der()];
    assert_eq!(root.trust().verify(&chain, NOW).err(), Some(CertificateError::NoAuthorityInChain));
    // A revoked one takes what it issued along.
    let lists = vec![root.revoke(&[50], NOW + DAY), between.revoke(&[], NOW + DAY)];
    let trust = Trust::new(vec![root.der()], lists, true).unwrap();
    assert_eq!(trust.verify(&[leaf, between.der()], NOW).err(), Some(CertificateError::Revoked));
}

#[test]
fn revocation_strict_and_not() {
    let authority = Authority::new(1);
    let chain = [authority.certify(Contents { serial: 7, ..host() }, &key(KeyKind::Ecdsa256, 9))];
    let verify = |lists: Vec<Vec<u8>>, strict: bool| {
        Trust::new(vec![authority.der()], lists, strict).unwrap().verify(&chain, NOW).err()
    };
    let (with, without) = (authority.revoke(&[6, 7], NOW + DAY), authority.revoke(&[6], NOW + DAY));
    let old = authority.revoke(&[6], NOW - 1);
    let old_with = authority.revoke(&[7], NOW - 1);
    let foreign = Authority::with(3, Contents::authority("CN=Stranger")).revoke(&[7], NOW + DAY);
    for (lists, lenient, strict) in [
        (vec![], None, Some(CertificateError::RevocationUnknown)),
        (vec![without], None, None),
        (vec![with], Some(CertificateError::Revoked), Some(CertificateError::Revoked)),
        (vec![foreign], None, Some(CertificateError::RevocationUnknown)),
        (vec![old], None, Some(CertificateError::ListExpired { time: NOW, next_update: NOW - 1 })),
    ] {
        assert_eq!((verify(lists.clone(), false), verify(lists, true)), (lenient, strict));
    }
    assert_eq!(verify(vec![old_with], false), Some(CertificateError::Revoked), "old, and true");
    // A list with the authority's name and somebody else's signature.
    let forged = Authority::new(2).revoke(&[7], NOW + DAY);
    assert!(verify(vec![forged], false).is_some());
}

#[test]
fn octets_that_are_no_certificate() {
    let authority = Authority::new(1);
    let good = authority.certify(host(), &key(KeyKind::Ecdsa256, 9));
    let trust = authority.trust();
    assert_eq!(trust.verify(&[], NOW).err(), Some(CertificateError::Missing));
    assert_eq!(trust.verify(&[Vec::new()], NOW).err(), Some(CertificateError::Malformed));
    let long = vec![0x30; LONGEST + 1];
    let too_long = CertificateError::TooLong { have: LONGEST + 1, maximum: LONGEST };
    assert_eq!(trust.verify(&[long], NOW).err(), Some(too_long));
    let many = vec![good.clone(); MOST + 1];
    let too_many = CertificateError::TooMany { have: MOST + 1, maximum: MOST };
    assert_eq!(trust.verify(&many, NOW).err(), Some(too_many));
    for length in 0..good.len() {
        assert!(trust.verify(&[good[..length].to_vec()], NOW).is_err(), "{length}");
    }
    let mut rng = SeededRng::from_seed([6; 32]);
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= rng.array::<1>()[0].max(1);
        assert!(trust.verify(&[changed], NOW).is_err(), "octet {place}");
    }
    let none = |authorities, lists| Trust::new(authorities, lists, false).err();
    assert_eq!(none(vec![], vec![]), Some(CertificateError::NoAuthority));
    assert_eq!(none(vec![vec![1]], vec![]), Some(CertificateError::MalformedAuthority));
    assert_eq!(none(vec![authority.der()], vec![vec![1]]), Some(CertificateError::MalformedList));
}

#[test]
fn the_key_decides_the_method_and_must_be_the_certificates() {
    let authority = Authority::new(1);
    for (kind, method) in [
        (KeyKind::Rsa, Authentication::RsaSignature),
        (KeyKind::Ecdsa256, Authentication::Ecdsa256),
        (KeyKind::Ecdsa384, Authentication::Ecdsa384),
    ] {
        assert_eq!(authority.credential(host(), key(kind, 9)).authentication(), method);
    }
    let chain = vec![authority.certify(host(), &key(KeyKind::Ecdsa256, 9))];
    let other = key(KeyKind::Ecdsa256, 10);
    assert_eq!(
        CertificateCredential::new(chain, other, authority.trust()).err(),
        Some(CertificateError::ForeignKey)
    );
    let shown = format!("{:?}", authority.credential(host(), key(KeyKind::Ecdsa256, 9)));
    assert!(shown.contains("SigningKey(Ecdsa256)"), "no more of it: {shown}");
}
