//! How the servers of a cluster find each other and prove who they are.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::path::Path;

use gcks::server::cluster::ClusterEvent;
use gcks::server::event::Event;
use gdoi::group::GroupId;
use ike::WallClock;
use ike::certificate::testing::{Authority, Contents, DAY, NOW, key};
use ike::crypto::KeyKind;
use support::cluster::{Cluster, server};
use support::{CBC, address, at, registration, seconds, write};

const ONE: GroupId = GroupId(1);

/// The certificate of a server, and the authority that it believes.
struct Own<'a> {
    number: u8,
    issuer: &'a Authority,
    believed: &'a Authority,
    contents: Contents,
}

/// Puts a certificate into the place of a server's pre-shared keys.
fn certify(cluster: &mut Cluster, directory: &Path, own: Own<'_>) {
    let Own { number, issuer, believed, contents } = own;
    let pem = |name: &str, label: &str, der: &[u8]| {
        let text = pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap();
        let path = directory.join(format!("{number}-{name}"));
        write(&path, &text, 0o600);
        path.display().to_string()
    };
    let key = key(KeyKind::Ecdsa256, number);
    let chain = pem("site.crt", "CERTIFICATE", &issuer.certify(contents, &key));
    let private_key = pem("site.key", "PRIVATE KEY", key.to_pkcs8_der().unwrap().expose());
    let authority = pem("ca.crt", "CERTIFICATE", &believed.der());
    let list = pem("ca.crl", "X509 CRL", &believed.revoke(&[], NOW + DAY));
    let table = format!(
        "[[certificate]]\nname = \"site\"\nchain-file = \"{chain}\"\nprivate-key-file = \"{private_key}\"\n\
         authority-files = [\"{authority}\"]\nrevocation-list-files = [\"{list}\"]\n[[cluster-server]]"
    );
    let machine = cluster.machines.get_mut(&number).unwrap();
    let mut text = machine.text().replacen("[[cluster-server]]", &table, 1);
    while let Some(begin) = text
        .find("pre-shared-key-file = ")
        .filter(|begin| text[*begin..].lines().next().unwrap().contains("/ks"))
    {
        let end = begin + text[begin..].find('\n').unwrap();
        text.replace_range(begin..end, "certificate = \"site\"");
    }
    machine.configure(text);
    machine.wall_clock = WallClock::new(at(0), NOW);
}

fn contents(number: u8) -> Contents {
    Contents::new(&format!("CN=ks{number},O=Example")).address(&format!("10.0.9.{number}"))
}

fn is_told(cluster: &mut Cluster, number: u8) -> bool {
    let group = cluster.server(number).groups().find(|group| group.id() == ONE).unwrap();
    group.generation().version > 0
}

fn refusals(cluster: &Cluster, number: u8) -> usize {
    let is_meant = |event: &&Event| {
        matches!(event, Event::Cluster { event: ClusterEvent::Phase1Failed(_), .. })
    };
    cluster.machines[&number].events.iter().filter(is_meant).count()
}

#[test]
fn servers_prove_their_identities_with_certificates() {
    let (directory, authority) = (support::keys(), Authority::new(1));
    let mut cluster = Cluster::new(2, CBC, "");
    for number in 1..=3 {
        let (issuer, contents) = (&authority, contents(number));
        let own = Own { number, issuer, believed: issuer, contents };
        certify(&mut cluster, directory.path(), own);
        cluster.start(number);
    }
    cluster.run(seconds(10));
    assert!(is_told(&mut cluster, 2) && is_told(&mut cluster, 3));
    // Members have pre-shared keys as before.
    let config = registration(1, 1, 1, address(1), server(2));
    let now = cluster.now;
    cluster.machines.get_mut(&2).unwrap().register(config, now).group_sa();
}

#[test]
fn a_server_of_another_authority_or_with_another_name_hears_nothing() {
    let (directory, authority, other) = (support::keys(), Authority::new(1), Authority::new(2));
    let cases = [(&other, contents(2)), (&authority, contents(2).address("10.0.9.3"))];
    for (place, (issuer, sub_server)) in cases.into_iter().enumerate() {
        let mut cluster = Cluster::new(1, CBC, "");
        for (number, issuer, contents) in [(1, &authority, contents(1)), (2, issuer, sub_server)] {
            let own = Own { number, issuer, believed: &authority, contents };
            certify(&mut cluster, directory.path(), own);
        }
        if place == 1 {
            // It proves a name that the root does not expect at that address.
            let machine = cluster.machines.get_mut(&1).unwrap();
            let text = machine.text().replacen(
                "address = \"10.0.9.2\"",
                "address = \"10.0.9.2\"\nidentity = { fqdn = \"ks2.example\" }",
                1,
            );
            machine.configure(text);
        }
        (1..=2).for_each(|number| cluster.start(number));
        cluster.run(seconds(60));
        assert!(!is_told(&mut cluster, 2), "{place}");
        assert!(refusals(&cluster, 1) + refusals(&cluster, 2) > 0, "{place}");
    }
}

#[test]
fn a_root_is_found_at_another_of_its_addresses() {
    let mut cluster = Cluster::new(1, CBC, "");
    let machine = cluster.machines.get_mut(&2).unwrap();
    let text = machine.text().replacen(
        "address = \"10.0.9.1\"",
        "address = \"10.0.9.8\"\nfurther-addresses = [\"10.0.9.9\", \"10.0.9.1\"]",
        1,
    );
    machine.configure(text);
    (1..=2).for_each(|number| cluster.start(number));
    cluster.run(seconds(90));
    assert!(is_told(&mut cluster, 2));
    let (_, link) = cluster.server(2).cluster().links().next().unwrap();
    assert_eq!(link.remote(), server(1));
}
