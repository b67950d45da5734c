//! Gateways and tunnels: what is refused, with place and remedy.

use std::time::Duration;

use ike::config::Identity;
use ike::crypto::DhGroup;
use ike::wire::registry::Doi;

use super::*;

const GATEWAY: &str = "[[gateway]]\nname = \"cloud\"\n";

const TUNNEL: &str = "[[tunnel]]\nname = \"one\"\ngateway = \"cloud\"\nlocal-address = \
    \"198.51.100.1\"\npeer = \"203.0.113.1\"\nlocal-networks = [\"172.20.1.0/24\"]\n\
    remote-networks = [\"192.168.0.0/24\", \"192.168.1.0/24\"]\npre-shared-key-file = \"/a.psk\"\n";

fn tunnels(text: &str) -> Result<Vec<crate::config::tunnel::Tunnel>, String> {
    load_text(text).map(|loaded| loaded.value.tunnels)
}

/// The messages about a file, without places and the closing line.
fn defects(text: &str) -> Vec<String> {
    let report = tunnels(text).unwrap_err();
    let mut lines: Vec<String> = report.lines().map(str::to_owned).collect();
    lines.pop();
    lines.into_iter().filter_map(|line| Some(line.split_once("error: ")?.1.to_owned())).collect()
}

#[test]
fn a_machine_may_have_tunnels_alone() {
    let all = tunnels(&format!("{GATEWAY}{TUNNEL}")).unwrap();
    let [tunnel] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(tunnel.gateway.phase1.doi, Doi::IPSEC);
    assert_eq!(tunnel.gateway.phase1.lifetime, Duration::from_secs(28_800));
    assert_eq!(tunnel.pairs().count(), 2);
    assert_eq!(tunnel.policy.pfs, Some(DhGroup::Modp2048));
    assert_eq!(tunnel.policy.lifetime, Duration::from_secs(3600));
    assert_eq!(tunnel.replay_window, 1024);
    assert_eq!(tunnel.peer_identity, Identity::Address("203.0.113.1".parse().unwrap()));
}

#[test]
fn a_gateway_with_tunnels_cannot_be_removed() {
    assert_eq!(
        defects(TUNNEL),
        [
            "tunnel.gateway: there is no gateway \"cloud\"; add the [[gateway]], or remove the tunnel \
          first: a gateway stays as long as tunnels use it"
        ]
    );
}

/// The first tunnel is made from the command line. A file that was emptied by mistake is refused.
#[test]
fn a_gateway_alone_is_a_beginning() {
    let loaded = load_text(GATEWAY).unwrap();
    assert_eq!((loaded.value.gateways.len(), loaded.value.tunnels.len()), (1, 0));
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "there is no group and no tunnel: nothing is protected; add one with `gdoictl tunnel create`"
        ]
    );
    assert!(load_text("# nothing\n").is_err());
}

#[test]
fn what_changes_is_told_with_its_values() {
    let config = |text: &str| load_text(text).unwrap().value;
    let before = config(&format!("{GATEWAY}{TUNNEL}"));
    let told = |after: &str| -> Vec<String> {
        let changes = crate::config::change::changes(&before, &config(after));
        let line = |one: &crate::config::change::Change| {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let (before, after) = (text(&one.before), text(&one.after));
            let name = one.consequence.name();
            format!("{}: {} {before} {after} {name}", one.subject, one.option)
        };
        changes.iter().map(line).collect()
    };
    assert_eq!(
        told(&format!("{GATEWAY}{TUNNEL}lifetime = \"2h\"\npfs = \"off\"\n")),
        ["tunnel one: pfs 14 off tunnel-restarts", "tunnel one: lifetime 1h 2h tunnel-restarts"]
    );
    assert_eq!(
        told(&format!("{GATEWAY}lifetime = \"4h\"\n{TUNNEL}")),
        [
            "gateway cloud: lifetime 8h 4h tunnels-of-gateway",
            "tunnel one: the gateway's IKE policy - - tunnel-restarts"
        ]
    );
    assert_eq!(
        told(&format!("{GATEWAY}[[gateway]]\nname = \"spare\"\n{TUNNEL}")),
        ["gateway spare: name - spare gateway-added"]
    );
    assert_eq!(
        told(&format!("{GATEWAY}bandwidth-mbit = 20\n{TUNNEL}")),
        ["gateway cloud: bandwidth-mbit none 20 in-effect"]
    );
    assert_eq!(told(GATEWAY), ["tunnel one: name one - tunnel-removed"]);
}

#[test]
fn transport_mode_is_between_the_ends_alone() {
    let networks = "local-networks = [\"172.20.1.0/24\"]\n\
                    remote-networks = [\"192.168.0.0/24\", \"192.168.1.0/24\"]\n";
    assert!(TUNNEL.contains(networks));
    let transport = "mode = \"transport\"\nprotocol = 17\nremote-port = 1701\n";
    let hosts = format!("{GATEWAY}{}{transport}", TUNNEL.replace(networks, ""));
    let all = tunnels(&hosts).unwrap();
    let texts: Vec<String> = all[0].selectors().map(|one| one.to_string()).collect();
    assert_eq!(texts, ["198.51.100.1/32 protocol 17 to 203.0.113.1/32 protocol 17 port 1701"]);
    assert_eq!(all[0].policy.mode, ike::quick::Mode::Transport);
    assert_eq!(
        defects(&format!("{GATEWAY}{TUNNEL}{transport}")),
        [
            "tunnel.local-networks: transport mode has no networks; remove them: the ends are the \
             traffic",
            "tunnel.remote-networks: transport mode has no networks; remove them: the ends are the \
             traffic",
        ]
    );
    assert_eq!(
        defects(&format!("{GATEWAY}{}", TUNNEL.replace(networks, "local-port = 53\n"))),
        [
            "tunnel one has no local-networks; write local-networks = [\"..\"], or mode = \
             \"transport\"",
            "tunnel one has no remote-networks; write remote-networks = [\"..\"], or mode = \
             \"transport\"",
            "tunnel.local-port: a protocol with ports has to be named; write protocol = 6 (TCP), 17 \
             (UDP) or another that has ports",
        ]
    );
}

#[test]
fn networks_that_overlap_are_refused() {
    let change = |from: &str, to: &str| defects(&format!("{GATEWAY}{}", TUNNEL.replace(from, to)));
    assert_eq!(
        change("192.168.1.0/24", "192.168.0.128/25"),
        [
            "tunnel.remote-networks: 192.168.0.128/25 overlaps with 192.168.0.0/24; keep the wider one"
        ]
    );
    assert_eq!(
        change("192.168.1.0/24", "172.20.0.0/16"),
        [
            "tunnel.remote-networks: 172.20.0.0/16 overlaps with the local network 172.20.1.0/24; the \
          networks of both sites must differ"
        ]
    );
    let other = TUNNEL.replace("\"one\"", "\"two\"").replace("203.0.113.1", "203.0.113.2");
    let other =
        other.replace("192.168.0.0/24", "192.168.0.0/16").replace(", \"192.168.1.0/24\"", "");
    assert_eq!(
        defects(&format!("{GATEWAY}{TUNNEL}{other}")),
        ["tunnel.remote-networks: 192.168.0.0/16 overlaps with 192.168.0.0/24 of tunnel one; a \
          packet can take one tunnel only: narrow one of them"]
    );
    // Two tunnels of different sites to one network.
    let apart = other.replace("172.20.1.0/24", "172.21.1.0/24");
    assert_eq!(tunnels(&format!("{GATEWAY}{TUNNEL}{apart}")).unwrap().len(), 2);
}

#[test]
fn what_a_group_protects_is_not_a_tunnels() {
    let inside = TUNNEL.replace("192.168.0.0/24", "172.16.9.0/24");
    assert_eq!(
        defects(&format!("{GROUP}{GATEWAY}{inside}")),
        ["tunnel.remote-networks: 172.16.9.0/24 and a local network of the tunnel lie in what \
          group branches protects; take them out of the group's protected prefixes"]
    );
}

#[test]
fn ends_are_told_apart() {
    let twice = TUNNEL.replace("\"one\"", "\"two\"").replace("192.168.", "10.7.");
    assert_eq!(
        defects(&format!("{GATEWAY}{TUNNEL}{twice}")),
        ["tunnel.peer: tunnel one goes from 198.51.100.1 to 203.0.113.1 as well; write the \
          networks of both into one tunnel; or tell the peers apart by peer-identity, with \
          certificates or aggressive-mode = true"]
    );
    let own = TUNNEL.replace("203.0.113.1", "198.51.100.1");
    assert_eq!(
        defects(&format!("{GATEWAY}{own}")),
        ["tunnel.peer: 198.51.100.1 is this end as well; write the address of the other end"]
    );
}

#[test]
fn weak_algorithms_need_legacy_in_the_tunnel_that_uses_them() {
    let google = GATEWAY.replace("\n", "\nprofile = \"google\"\n").replacen(
        "[[gateway]]\nprofile = \"google\"",
        "[[gateway]]",
        1,
    );
    assert_eq!(
        defects(&format!("{google}{TUNNEL}")),
        ["tunnel one allows MODP 1024 (group 2), which is weak; choose strong ones in gateway \
          cloud and in the tunnel, or set legacy = true in the tunnel and know why"]
    );
    let legacy = format!("{TUNNEL}legacy = true\n");
    let loaded = load_text(&format!("{google}{legacy}")).unwrap();
    assert!(loaded.warnings.iter().any(|warning| warning.to_string().contains("group 2")));
    let tunnel = &loaded.value.tunnels[0];
    assert_eq!(tunnel.policy.pfs, Some(DhGroup::Modp1024));
    assert_eq!(tunnel.gateway.phase1.lifetime, Duration::from_secs(36_600));
    // What is written counts, whatever the profile says.
    let own = format!("{legacy}pfs = \"off\"\nlifetime = \"15m\"\n");
    let tunnel = tunnels(&format!("{google}{own}")).unwrap().remove(0);
    assert_eq!((tunnel.policy.pfs, tunnel.policy.lifetime.as_secs()), (None, 900));
}

#[test]
fn every_profile_fills_in_what_its_gateway_takes() {
    for profile in ["aws", "google", "oracle", "azure-policy", "alibaba", "naver"] {
        let gateway = format!("{GATEWAY}profile = \"{profile}\"\n");
        let tunnel = tunnels(&format!("{gateway}{TUNNEL}legacy = true\n")).unwrap().remove(0);
        assert_eq!(tunnel.gateway.profile.map(|profile| profile.name()), Some(profile));
        assert!(!tunnel.gateway.phase1.transforms.is_empty());
        assert!(tunnel.policy.algorithms.iter().all(|algorithms| algorithms.is_complete()));
    }
}

/// A file with a certificate that needs no files.
fn certified(text: &str) -> Result<Config, Vec<String>> {
    let contents = ike::certificate::testing::Contents::new("CN=m1,O=Example").dns("m1.example");
    let own = ike::certificate::testing::key(ike::crypto::KeyKind::Ecdsa256, 9);
    let own = Arc::new(ike::certificate::testing::Authority::new(1).credential(contents, own));
    let certificate = |_: &CertificateTable, _: &Report| Some(Credential::Certificate(own.clone()));
    let machine = Machine {
        secret: &secret,
        state_key: &state_key,
        certificate: &certificate,
        ..Machine::unseen()
    };
    let site =
        "[[certificate]]\nname = \"site\"\nchain-file = \"/c\"\nauthority-files = [\"/a\"]\n";
    let loaded = parse("f", &format!("{site}{text}"), &machine);
    loaded.map(|loaded| loaded.value).map_err(|report| {
        let entries = report.entries().into_iter();
        entries.map(|entry| format!("{}; {}", entry.message, entry.remedy)).collect()
    })
}

#[test]
fn a_certificate_takes_the_place_of_the_key() {
    let tunnel = TUNNEL.replace("pre-shared-key-file = \"/a.psk\"", "certificate = \"site\"");
    let config = certified(&format!("{GATEWAY}{tunnel}")).unwrap();
    assert!(matches!(config.tunnels[0].credential, Credential::Certificate(_)));
    assert_eq!(config.tunnels[0].identity, None);
    assert_eq!(config.certificates.len(), 1);
    let pattern = format!("{tunnel}peer-identity = {{ dn = \"CN=gw*,O=Example\" }}\n");
    assert!(certified(&format!("{GATEWAY}{pattern}")).is_ok());
    let group = GROUP.replace("pre-shared-key-file = \"/k.psk\"", "certificate = \"site\"");
    assert_ne!(group, GROUP);
    let config = certified(&group).unwrap();
    assert!(matches!(config.groups[0].servers[0].credential, Credential::Certificate(_)));
}

#[test]
fn a_certificate_that_does_not_fit_is_named() {
    let named = TUNNEL.replace("pre-shared-key-file = \"/a.psk\"", "certificate = \"site\"");
    let told = |tunnel: &str| certified(&format!("{GATEWAY}{tunnel}")).unwrap_err().remove(0);
    assert_eq!(
        told(&named.replace("\"site\"", "\"sight\"")),
        "tunnel.certificate: there is no certificate \"sight\"; known are site"
    );
    assert_eq!(
        told(&format!("{TUNNEL}certificate = \"site\"\n")),
        "tunnel.certificate: a pre-shared key is named as well; keep one of them"
    );
    assert_eq!(
        told(&format!("{named}identity = {{ fqdn = \"m2.example\" }}\n")),
        "tunnel.identity: the certificate of CN=m1,O=Example does not name fqdn m2.example; remove \
         the identity, or issue a certificate with it"
    );
    assert_eq!(
        told(&format!("{TUNNEL}peer-identity = {{ fqdn = \"*.example\" }}\n")),
        "tunnel.identity: fqdn *.example means several, and the key is one; name a certificate, or \
         one identity"
    );
}

const NAME: &str = "peer-identity = { fqdn = \"branch.example\" }\n";

/// Without an address something else has to say who the peer is, and with a pre-shared key that is
/// aggressive mode alone.
#[test]
fn a_peer_that_may_be_anywhere_begins_and_has_an_identity() {
    let anywhere = TUNNEL.replace("203.0.113.1", "0.0.0.0");
    assert_eq!(
        defects(&format!("{GATEWAY}{anywhere}")),
        [
            "tunnel one: a peer that may be anywhere cannot be asked; write start = \"answer\"",
            "tunnel one: a peer that may be anywhere has no identity; write the peer-identity that it \
             proves",
            "tunnel one: main mode finds a pre-shared key by the address of the peer, which may be any; \
             use a certificate, or aggressive-mode = true and know why",
        ]
    );
    let lines = "start = \"answer\"\naggressive-mode = true\n";
    let loaded = load_text(&format!("{GATEWAY}{anywhere}{lines}{NAME}")).unwrap();
    assert!(loaded.value.tunnels[0].peer.is_unspecified());
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let hash = "anybody who asks gets a hash to try keys against";
    assert!(warnings.iter().any(|warning| warning.contains(hash)), "{warnings:?}");
}

#[test]
fn aggressive_mode_offers_one_group() {
    let gateway = format!("{GATEWAY}dh-group = [14, 19]\n");
    assert_eq!(
        defects(&format!("{gateway}{TUNNEL}aggressive-mode = true\n")),
        ["tunnel one: aggressive mode offers one Diffie-Hellman group, and gateway cloud has 2; \
             write one dh-group into the gateway"]
    );
}

/// Behind one translation, each by its identity.
#[test]
fn peers_at_one_address_are_told_apart_by_their_identities() {
    let lines = "start = \"answer\"\naggressive-mode = true\n";
    let one = format!("{TUNNEL}{lines}{NAME}");
    let two = one
        .replace("\"one\"", "\"two\"")
        .replace("192.168.0.0", "192.168.8.0")
        .replace("192.168.1.0", "192.168.9.0");
    let other = two.replace("branch.example", "other.example");
    let all = tunnels(&format!("{GATEWAY}{one}{other}")).unwrap();
    assert!(all.iter().all(|tunnel| tunnel.shares_address));
    assert_eq!(
        defects(&format!("{GATEWAY}{one}{two}")),
        ["tunnel.peer: tunnel one goes from 198.51.100.1 to 203.0.113.1 as well, with the same \
             peer-identity; give each peer its own, or write one tunnel"]
    );
}

/// Each with every other one, not only with the one before it.
#[test]
fn all_tunnels_with_the_same_ends_are_compared() {
    let lines = "start = \"answer\"\naggressive-mode = true\n";
    let numbered = |number: u8, name: &str| {
        let tunnel = TUNNEL
            .replace("\"one\"", &format!("\"t{number}\""))
            .replace("192.168.0.0", &format!("192.168.{}.0", 10 * number))
            .replace("192.168.1.0", &format!("192.168.{}.0", 10 * number + 1));
        format!("{tunnel}{lines}peer-identity = {{ fqdn = \"{name}\" }}\n")
    };
    let all = [numbered(1, "a.example"), numbered(2, "b.example"), numbered(3, "a.example")];
    assert_eq!(
        defects(&format!("{GATEWAY}{}", all.concat())),
        ["tunnel.peer: tunnel t1 goes from 198.51.100.1 to 203.0.113.1 as well, with the same \
             peer-identity; give each peer its own, or write one tunnel"]
    );
}

#[test]
fn transport_mode_does_not_travel_in_udp() {
    let networks = "local-networks = [\"172.20.1.0/24\"]\n\
                    remote-networks = [\"192.168.0.0/24\", \"192.168.1.0/24\"]\n";
    let lines = "mode = \"transport\"\nnat-traversal = \"always\"\n";
    assert_eq!(
        defects(&format!("{GATEWAY}{}{lines}", TUNNEL.replace(networks, ""))),
        ["tunnel one: transport mode does not travel in UDP; write mode = \"tunnel\", or \
             nat-traversal = \"detect\""]
    );
}
