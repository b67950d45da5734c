//! A group whose members have certificates: no key for each, one rule for many, and who is refused.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use gdoi::event::RegistrationFailure;
use gdoi::member::Registration;
use ike::WallClock;
use ike::certificate::testing::{Authority, Contents, DAY, NOW, key};
use ike::certificate::{CertificateError, name_from_text};
use ike::config::{Credential, Identity};
use ike::crypto::{KeyKind, SigningKey};
use ike::error::PeerMisbehaved;
use support::*;

const RULES: &str = "\
    [[member]]\nname = \"branches\"\naddress = \"10.0.0.0/16\"\ncertificate = \"site\"\n\
    identity = { dn = \"CN=*,OU=Branches,O=Example\" }\ngroups = [\"one\"]\n\
    [[member]]\nname = \"hubs\"\naddress = \"10.0.0.0/16\"\ncertificate = \"site\"\n\
    identity = { fqdn = \"*.hubs.example\" }\ngroups = [\"one\", \"two\"]\n";

struct Lab {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Lab {
    fn new() -> Self {
        let (directory, authority) = (keys(), Authority::new(1));
        let lab = Self { directory, authority };
        let key = key(KeyKind::Ecdsa256, 10);
        let contents = Contents::new("CN=server,O=Example").address("10.0.9.1");
        lab.pem("site.crt", "CERTIFICATE", &lab.authority.certify(contents, &key));
        lab.pem("site.key", "PRIVATE KEY", key.to_pkcs8_der().unwrap().expose());
        lab.pem("ca.crt", "CERTIFICATE", &lab.authority.der());
        lab.pem("ca.crl", "X509 CRL", &lab.authority.revoke(&[13], NOW + DAY));
        lab
    }

    fn pem(&self, name: &str, label: &str, der: &[u8]) {
        let text = pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap();
        write(&self.directory.path().join(name), &text, 0o600);
    }

    fn text(&self, rules: &str) -> String {
        let path = |name: &str| Path::new(self.directory.path()).join(name).display().to_string();
        let site = format!(
            "[[certificate]]\nname = \"site\"\nchain-file = \"{}\"\nprivate-key-file = \"{}\"\n\
             authority-files = [\"{}\"]\nrevocation-list-files = [\"{}\"]\n{rules}",
            path("site.crt"),
            path("site.key"),
            path("ca.crt"),
            path("ca.crl")
        );
        configuration(self.directory.path(), &site, "10.9.9", CBC)
    }

    fn service(&self, rules: &str) -> KeyServer<OsEntropy> {
        let mut service = start(parse(&self.text(rules)));
        service.set_wall_clock(WallClock::new(at(0), NOW));
        service
    }

    /// A member at `host` with this certificate, or one of another authority.
    fn member(&self, host: u8, contents: Contents, own: SigningKey) -> (SocketAddr, Credential) {
        let local = address(host);
        (local, Credential::Certificate(Arc::new(self.authority.credential(contents, own))))
    }

    fn join(
        &self,
        service: &mut KeyServer<OsEntropy>,
        (local, credential): (SocketAddr, Credential),
        identity: Identity,
        group: u32,
    ) -> Outcome {
        let server: SocketAddr = SERVER.parse().unwrap();
        let mut config = registration(1, 1, group, local, server);
        (config.credential, config.identity, config.unix_seconds) = (credential, identity, NOW);
        let mut member = Registration::new(config, [host_of(local); 32], at(1));
        for now in 1..40 {
            member.handle_timeout(at(now));
            for _ in 0..5 {
                while let Some(sent) = member.poll_transmit() {
                    let _ = service.handle_datagram(local, server, &sent.payload, at(now));
                }
                while let Some(sent) = service.poll_transmit() {
                    let _ = member.handle_datagram(server, &sent.payload, at(now));
                }
                if let Some(outcome) = outcome(&mut member, at(now)) {
                    return outcome;
                }
            }
        }
        panic!("neither keys nor a failure")
    }
}

fn host_of(address: SocketAddr) -> u8 {
    match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    }
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 3, host], 848))
}

fn dn(text: &str) -> Identity {
    Identity::DistinguishedName(name_from_text(text).unwrap())
}

#[test]
fn one_rule_lets_all_in_whose_certificates_name_it() {
    let lab = Lab::new();
    let service = &mut lab.service(RULES);
    for (host, kind) in [(1, KeyKind::Ecdsa256), (2, KeyKind::Ecdsa384), (3, KeyKind::Rsa)] {
        let subject = format!("CN=m{host},OU=Branches,O=Example");
        let member = lab.member(host, Contents::new(&subject), key(kind, host));
        if kind != KeyKind::Ecdsa256 {
            // The server's own key decides the method.
            let outcome = lab.join(service, member, dn(&subject), 1);
            assert!(matches!(outcome.failure(), RegistrationFailure::NoProposalChosen { .. }));
            continue;
        }
        lab.join(service, member.clone(), dn(&subject), 1).group_sa();
        // Another group is not for branches.
        assert!(matches!(
            lab.join(service, member, dn(&subject), 2).failure(),
            RegistrationFailure::Refused { .. }
        ));
    }
    let hub = Contents::new("CN=h1").dns("h1.hubs.example");
    let hub = lab.member(9, hub, key(KeyKind::Ecdsa256, 9));
    lab.join(service, hub, Identity::Fqdn("h1.hubs.example".into()), 2).group_sa();
}

#[test]
fn who_is_not_meant_gets_no_keys() {
    let lab = Lab::new();
    let service = &mut lab.service(RULES);
    let own = || key(KeyKind::Ecdsa256, 4);
    // Believed, and named by no rule.
    let stranger = lab.member(4, Contents::new("CN=m4,O=Example"), own());
    let outcome = lab.join(service, stranger, dn("CN=m4,O=Example"), 1);
    assert!(matches!(outcome.failure(), RegistrationFailure::Refused { .. }));
    // Someone else's name.
    let subject = "CN=m4,OU=Branches,O=Example";
    let liar = lab.member(4, Contents::new("CN=m4,O=Example"), own());
    let silent = |outcome: Outcome| {
        let failure = outcome.failure();
        assert_eq!(failure, RegistrationFailure::CertificateNotAccepted);
    };
    silent(lab.join(service, liar, dn(subject), 1));
    // Revoked, expired, of another authority.
    let revoked = lab.member(5, Contents { serial: 13, ..Contents::new(subject) }, own());
    silent(lab.join(service, revoked, dn(subject), 1));
    let expired = Contents { valid: (NOW - 2 * DAY, NOW - DAY), ..Contents::new(subject) };
    silent(lab.join(service, lab.member(6, expired, own()), dn(subject), 1));
    let other = Authority::with(7, Contents::authority("CN=Elsewhere"));
    let foreign = other.credential(Contents::new(subject), own());
    let foreign = (address(7), Credential::Certificate(Arc::new(foreign)));
    // It does not believe the server in its turn, but is not even asked.
    silent(lab.join(service, foreign, dn(subject), 1));
}

#[test]
fn a_server_whose_certificate_ended_is_named() {
    let lab = Lab::new();
    let ended = Contents { valid: (NOW - 2 * DAY, NOW - DAY), ..Contents::new("CN=server") };
    let server_key = key(KeyKind::Ecdsa256, 10);
    let ended = lab.authority.certify(ended.address("10.0.9.1"), &server_key);
    lab.pem("site.crt", "CERTIFICATE", &ended);
    let service = &mut lab.service(RULES);
    assert!(
        service.problems(at(0))[0]
            .starts_with("certificate site: the certificate of CN=server ended at")
    );
    let subject = "CN=m1,OU=Branches,O=Example";
    let member = lab.member(1, Contents::new(subject), key(KeyKind::Ecdsa256, 1));
    let failure = lab.join(service, member, dn(subject), 1).failure();
    let expired = CertificateError::Expired { time: NOW, not_after: NOW - DAY };
    assert_eq!(failure, RegistrationFailure::Untrusted(PeerMisbehaved::Certificate(expired)));
    assert_eq!(
        failure.to_string(),
        "the key server is not to be believed: certificate: the certificate ended at \
         2025-12-31T00:00:00Z and it is 2026-01-01T00:00:00Z; renew the certificate, or set the clock"
    );
}

#[test]
fn a_newer_revocation_list_counts_from_the_reload_on() {
    let lab = Lab::new();
    let service = &mut lab.service(RULES);
    let subject = "CN=m1,OU=Branches,O=Example";
    let contents = Contents { serial: 77, ..Contents::new(subject) };
    let member = lab.member(1, contents, key(KeyKind::Ecdsa256, 1));
    lab.join(service, member.clone(), dn(subject), 1).group_sa();
    lab.pem("ca.crl", "X509 CRL", &lab.authority.revoke(&[13, 77], NOW + DAY));
    let config = parse(&lab.text(RULES));
    let keys = signing_keys(&config);
    let changes: Vec<String> =
        service.reload(config, &keys, at(2)).iter().map(ToString::to_string).collect();
    assert!(changes.iter().any(|change| change.contains("certificate")), "{changes:?}");
    let failure = lab.join(service, member, dn(subject), 1).failure();
    assert_eq!(failure, RegistrationFailure::CertificateNotAccepted);
}

#[test]
fn what_contradicts_itself_is_told() {
    let lab = Lab::new();
    let report = |rules: &str| {
        let text = lab.text(rules);
        gcks::config::parse("f", &text).map(drop).unwrap_err().to_string()
    };
    let both = RULES.replacen("groups", "pre-shared-key-file = \"/none\"\ngroups", 1);
    assert!(
        report(&both).contains("member.certificate: a pre-shared key is named as well; keep one")
    );
    let unknown = RULES.replacen("\"site\"", "\"sight\"", 1);
    assert!(report(&unknown).contains("there is no certificate \"sight\"; known are site"));
    let none = RULES.replacen("certificate = \"site\"\n", "", 1);
    assert!(report(&none).contains("member: no pre-shared key and no certificate; add"));
    let key = lab.directory.path().join("k1").display().to_string();
    let key = format!("pre-shared-key-file = \"{key}\"");
    let pattern = RULES.replace("certificate = \"site\"", &key);
    assert!(report(&pattern).contains("fqdn *.hubs.example means several, and the key is one"));
    assert!(report(&pattern).contains("proves no distinguished name"));
    assert!(report(&pattern).contains("unless all have the same certificate"));
    let wrong = RULES.replacen("CN=*,OU", "CN=*;OU", 1).replacen(
        "CN=*;OU=Branches,O=Example",
        "nonsense",
        1,
    );
    assert!(report(&wrong).contains("\"nonsense\" is no distinguished name; write it as"));
    let ours = format!("[[member]]{}", RULES.split_once("[[member]]").unwrap().1);
    let text = lab.text(&ours).replacen(
        "control-socket",
        "identity = { fqdn = \"ks.example\" }\ncontrol-socket",
        1,
    );
    let told = gcks::config::parse("f", &text).map(drop).unwrap_err().to_string();
    assert!(
        told.contains(
            "identity: certificate site of CN=server,O=Example does not name fqdn ks.example"
        ),
        "{told}"
    );
}
