//! A member of a group, its TEKs, and a readable form of a desired state.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupId, SaDirection, TekKeys, TekPolicy, TekProtection, TekProtocol, TrafficSelector,
};
use ike::crypto::Secret;
use policies::{
    GroupInput, GroupOptions, GroupState, InstalledTek, LanInterface, WanInterface, Zones,
};
use xfrm::Desired;
use xfrm::algorithm::Protection;
use xfrm::model::{Action, Policy, Selector};

/// One side of a selector: `any`, an address, a prefix, or `first-last`.
pub fn range(text: &str) -> AddressRange {
    if text == "any" {
        AddressRange::Any
    } else if let Some((first, last)) = text.split_once('-') {
        AddressRange::Range(first.parse().unwrap(), last.parse().unwrap())
    } else if text.contains('/') {
        AddressRange::Subnet(text.parse().unwrap())
    } else {
        AddressRange::Address(text.parse().unwrap())
    }
}

pub fn selector(source: &str, destination: &str) -> TrafficSelector {
    TrafficSelector {
        protocol: 0,
        source: range(source),
        source_port: 0,
        destination: range(destination),
        destination_port: 0,
    }
}

/// AES-CBC-128 with HMAC-SHA2-256-128, symmetric.
pub fn tek(spi: u32, source: &str, destination: &str) -> TekPolicy {
    TekPolicy {
        spi,
        selector: selector(source, destination),
        protection: TekProtection {
            protocol: TekProtocol::ESP,
            transform: EspTransform::AES_CBC,
            key_length: Some(128),
            authentication: Some(AuthenticationAlgorithm::HMAC_SHA2_256),
            mode: EncapsulationMode::TUNNEL,
            address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
            direction: SaDirection::SYMMETRIC,
            lifetime: Duration::from_secs(3600),
            lifetime_kilobytes: None,
        },
    }
}

pub fn directed(mut tek: TekPolicy, direction: SaDirection) -> TekPolicy {
    tek.protection.direction = direction;
    tek
}

pub fn gcm(mut tek: TekPolicy) -> TekPolicy {
    tek.protection.transform = EspTransform::AES_GCM_16;
    tek.protection.authentication = None;
    tek
}

/// Keys of the given lengths, all octets alike.
pub fn keys(encryption: usize, integrity: usize) -> TekKeys {
    TekKeys {
        encryption: Secret::new(vec![0x11; encryption]),
        integrity: Secret::new(vec![0x22; integrity]),
    }
}

pub fn cbc_keys() -> TekKeys {
    keys(16, 32)
}

/// A generation with both flags.
pub fn keyed<'a>(teks: &'a [TekPolicy], keys: &'a TekKeys) -> GroupState<'a> {
    GroupState::Keyed(generation(teks, keys, true, true))
}

pub fn generation<'a>(
    teks: &'a [TekPolicy],
    keys: &'a TekKeys,
    receive: bool,
    send: bool,
) -> Vec<InstalledTek<'a>> {
    teks.iter()
        .map(|policy| InstalledTek {
            policy,
            keys,
            receive,
            send,
            iv_reuse_hazard: false,
            remaining_lifetime: None,
        })
        .collect()
}

/// The member g1: LAN 172.16.1.0/24, WAN 10.0.1.1/24, key server 10.0.9.1.
pub fn g1<'a>(state: GroupState<'a>) -> GroupInput<'a> {
    GroupInput {
        name: "branches",
        group: GroupId(1111),
        slot: 0,
        zones: Zones {
            lan: vec![LanInterface {
                name: "lan".to_owned(),
                addresses: vec!["172.16.1.1".parse().unwrap()],
                is_vrf: false,
            }],
            wan: vec![wan("wan", Some("10.0.1.254"))],
            local: Some("10.0.1.1".parse().unwrap()),
        },
        protected: vec!["172.16.0.0/12".parse().unwrap()],
        exclude: Vec::new(),
        fail_open: Vec::new(),
        servers: vec!["10.0.9.1:848".parse::<SocketAddr>().unwrap()],
        pushes: None,
        options: GroupOptions::at_slot(0),
        state,
    }
}

pub fn wan(name: &str, gateway: Option<&str>) -> WanInterface {
    let gateway = gateway.map(|text| text.parse::<IpAddr>().unwrap());
    let name = name.to_owned();
    WanInterface { name, up: true, gateway, mtu: 1500, vrf_table: None, carries: false }
}

/// `desired` in a form close to what `ip xfrm` and `nft` print.
pub fn render(desired: &Desired) -> String {
    let mut text = String::new();
    for sa in desired.sas.values() {
        let _ = writeln!(text, "state src {} dst {}", sa.source, sa.id.destination);
        let _ = write!(
            text,
            "\tproto esp spi {:#010x} reqid {:#x} mode tunnel replay-window 0",
            sa.id.spi, sa.reqid.0
        );
        for (set, flag) in [
            (sa.no_path_mtu_discovery, " flag nopmtudisc"),
            (sa.sequence_may_wrap, " extra-flag oseq-may-wrap"),
            (sa.install == xfrm::model::Install::Once, " (install once)"),
            (sa.install == xfrm::model::Install::Never, " (never installed)"),
        ] {
            text.push_str(if set { flag } else { "" });
        }
        let _ = writeln!(text, " ({:?})\n\t{}", sa.role, protection(&sa.protection));
    }
    let mut policies: Vec<&Policy> = desired.policies.values().collect();
    policies
        .sort_by_key(|policy| (policy.id.direction, policy.priority, policy.id.selector.clone()));
    for policy in policies {
        let _ = write!(text, "policy {}", words(&policy.id.selector));
        let direction = match policy.id.direction {
            xfrm::model::Direction::In => "in",
            xfrm::model::Direction::Out => "out",
            xfrm::model::Direction::Forward => "fwd",
        };
        let _ = write!(text, " dir {direction} priority {}", policy.priority);
        let _ = match policy.action {
            Action::Allow => writeln!(text),
            Action::Block => writeln!(text, " action block"),
            Action::Protect(template) => writeln!(
                text,
                "\n\ttmpl src {} dst {} proto esp reqid {:#x} mode tunnel{}",
                template.source,
                template.destination,
                template.reqid.0,
                if template.optional { " level use" } else { "" }
            ),
        };
    }
    for interface in &desired.exempt {
        let _ = writeln!(text, "interface {interface} disable_policy 1");
    }
    for route in desired.routes.iter() {
        let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "route {}{via} dev {} mtu lock {}",
            route.placeholder, route.interface, route.mtu
        );
    }
    let Some(preservation) = &desired.preservation else {
        text.push_str("no table\n");
        return text;
    };
    let _ = writeln!(text, "table gdoi");
    let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
    let _ =
        writeln!(text, "\tlan {}\n\twan {}", names(&preservation.lan), names(&preservation.wan));
    for selector in &preservation.exclude_arriving {
        let _ = writeln!(text, "\texclude arriving {}", words(selector));
    }
    for selector in &preservation.exclude {
        let _ = writeln!(text, "\texclude {}", words(selector));
    }
    for prefixes in &preservation.protected {
        let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "\tguard among {}", prefixes.join(" "));
    }
    if preservation.guard_everything {
        text.push_str("\tguard everything of the lan\n");
    }
    for (source, destination) in &preservation.guard {
        let _ = writeln!(text, "\tguard {source} -> {destination}");
    }
    for (placeholder, group) in &preservation.groups {
        let reqids: Vec<String> =
            group.outbound_reqids.iter().map(|reqid| format!("{:#x}", reqid.0)).collect();
        let spis: Vec<String> =
            group.inbound_spis.iter().map(|spi| format!("{spi:#010x}")).collect();
        let _ = writeln!(
            text,
            "\tpreserve {} -> {placeholder} df {:?}",
            group.local, group.dont_fragment
        );
        let _ = writeln!(
            text,
            "\t\tstash reqid {}\n\t\trestore spi {}",
            reqids.join(" "),
            spis.join(" ")
        );
        for (source, destination) in &group.fragments {
            let _ = writeln!(text, "\t\tfragments {source} -> {destination}");
        }
    }
    if preservation.defragment {
        text.push_str("\tdefragment\n");
    }
    text
}

fn words(selector: &Selector) -> String {
    let mut text = format!("src {} dst {}", selector.source, selector.destination);
    for (name, value) in [
        ("proto", u16::from(selector.protocol)),
        ("sport", selector.source_port),
        ("dport", selector.destination_port),
    ] {
        if value != 0 {
            let _ = write!(text, " {name} {value}");
        }
    }
    if let Some(interface) = &selector.interface {
        let _ = write!(text, " dev {interface}");
    }
    text
}

fn protection(protection: &Protection) -> String {
    match protection {
        Protection::Separate { encryption, encryption_key, integrity, integrity_key } => format!(
            "enc {encryption:?} {} octets auth-trunc {integrity:?} {} octets",
            encryption_key.len(),
            integrity_key.len()
        ),
        Protection::Combined { aead, key, icv } => {
            format!("aead {aead:?} {} octets icv {} bits", key.len(), u16::from(*icv) * 8)
        }
    }
}

/// Compares `text` with the file `name`, or writes the file when UPDATE_GOLDEN is set.
#[allow(clippy::disallowed_methods, reason = "tests read and update their data")]
pub fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run once with UPDATE_GOLDEN=1 and review", path.display())
    });
    assert_eq!(text, expected, "{name} differs; review, then run with UPDATE_GOLDEN=1");
}
