//! Interfaces that are not where the configuration takes them for: said at the start, by `--check`,
//! and in `gdoictl show member` for as long as it is so. Interfaces decide what is inside, so names
//! that an upgrade has swapped turn a member inside out.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use xfrm::interface::Interface;

use super::check::Interfaces;
use super::{Group, LocalAddress, on_side};

/// Something that is on a side where it does not belong, or on none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misplaced {
    /// The address that the group speaks from is on a LAN.
    LocalAddress {
        group: String,
        /// The interface that has it.
        interface: String,
    },
    /// A LAN has a default route, and no WAN has one.
    DefaultRoute { interface: String },
    /// A key server is in a LAN's own network, and no WAN has a default route.
    KeyServer { server: IpAddr, interface: String },
    /// An interface that is up lies inside the protected prefixes and is on neither side.
    Unnamed {
        interface: String,
        address: IpNet,
        /// The prefix that holds it.
        protected: IpNet,
    },
    /// A routing rule is about what arrives by a LAN.
    Rule { interface: String },
    /// A route of the group wraps packets before the group's policies and guards see them.
    Wrapped { destination: IpAddr, interface: String },
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SWAPPED: &str = "check whether the names in lan and wan are swapped";
        match self {
            Self::LocalAddress { group, interface } => {
                write!(f, "group {group}: local-address is on {interface}, a LAN: {SWAPPED}")
            }
            Self::DefaultRoute { interface } => {
                write!(
                    f,
                    "the default route leaves by {interface}, a LAN, and by no WAN: {SWAPPED}"
                )
            }
            Self::KeyServer { server, interface } => write!(
                f,
                "key server {server} is in the network of {interface}, a LAN, and no WAN has a \
                 default route: {SWAPPED}"
            ),
            Self::Unnamed { interface, address, protected } => write!(
                f,
                "interface {interface} ({address}) lies inside the protected prefix {protected} \
                 and is neither lan nor wan: its traffic with that prefix is dropped; name it in \
                 lan or exclude it"
            ),
            Self::Rule { interface } => write!(
                f,
                "a routing rule is about what arrives by {interface} (`ip rule`, iif), a LAN: the \
                 group's ESP is the router's own and leaves as other rules say; write the rule by \
                 source or destination prefix (from, to)"
            ),
            Self::Wrapped { destination, interface } => write!(
                f,
                "the route to {destination} by {interface} wraps packets of hosts in another header \
                 (`ip route`, encap) before policies and guards see them: they leave in clear; give \
                 the protected prefixes a route without encap, and set \
                 net.netfilter.nf_hooks_lwtunnel = 1, which lets the guards drop them"
            ),
        }
    }
}

/// All of it, in order.
pub fn misplaced(groups: &[Group], interfaces: &Interfaces) -> BTreeSet<Misplaced> {
    let mut found = BTreeSet::new();
    let has_gateway = |names: &[String]| {
        interfaces
            .iter()
            .any(|(name, interface)| interface.gateway.is_some() && on_side(names, name))
    };
    for group in groups {
        let outward = has_gateway(&group.wan);
        for (name, interface) in interfaces {
            if on_side(&group.lan, name) {
                found.extend(on_lan(group, name, interface, outward));
                let rule = interface.has_rule.then(|| Misplaced::Rule { interface: name.clone() });
                found.extend(rule);
            }
        }
        if let Some(interface) = holder(&group.local, interfaces)
            && on_side(&group.lan, interface)
        {
            let (group, interface) = (group.name.clone(), interface.to_owned());
            found.insert(Misplaced::LocalAddress { group, interface });
        }
    }
    for (name, interface) in interfaces {
        found.extend(interface.wraps.iter().map(|destination| Misplaced::Wrapped {
            destination: *destination,
            interface: name.clone(),
        }));
    }
    let sides = |name: &str| {
        groups.iter().any(|group| {
            on_side(&group.wan, name) || group.lan_interfaces(interfaces).contains(&name)
        })
    };
    let unnamed = interfaces.iter().filter(|(name, interface)| {
        let speaks = groups.iter().any(|group| holder(&group.local, interfaces) == Some(name));
        // A loopback or dummy interface with the address that a group speaks from belongs there.
        interface.up && *name != "lo" && !sides(name) && !speaks
    });
    found.extend(unnamed.filter_map(|(name, interface)| inside(groups, name, interface)));
    found
}

/// The interface that has the address which the group speaks from.
fn holder<'i>(local: &'i LocalAddress, interfaces: &'i Interfaces) -> Option<&'i str> {
    match local {
        LocalAddress::Interface(name) => Some(name),
        LocalAddress::Address(address) => {
            let has = |interface: &Interface| {
                interface.addresses.iter().any(|net| net.addr() == *address)
            };
            let (name, _) = interfaces.iter().find(|(_, interface)| has(interface))?;
            Some(name)
        }
    }
}

fn on_lan(group: &Group, name: &str, interface: &Interface, outward: bool) -> Vec<Misplaced> {
    if outward {
        return Vec::new();
    }
    let default =
        interface.gateway.is_some().then(|| Misplaced::DefaultRoute { interface: name.to_owned() });
    let servers = group.servers.iter().map(|server| server.address.ip());
    let near = servers
        .filter(|server| interface.addresses.iter().any(|net| net.contains(server)))
        .map(|server| Misplaced::KeyServer { server, interface: name.to_owned() });
    default.into_iter().chain(near).collect()
}

fn inside(groups: &[Group], name: &str, interface: &Interface) -> Option<Misplaced> {
    interface.addresses.iter().find_map(|address| {
        let mut prefixes = groups.iter().flat_map(|group| &group.protected);
        let protected = *prefixes.find(|prefix| prefix.contains(&address.addr()))?;
        Some(Misplaced::Unnamed { interface: name.to_owned(), address: *address, protected })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::{Machine, parse};
    use ike::crypto::Secret;

    fn group(local: &str, lan: &[&str], wan: &[&str]) -> Group {
        let text = format!(
            "[[group]]\nname = \"branches\"\nid = 1111\nlocal-address = \"{local}\"\nlan = {lan:?}\n\
             wan = {wan:?}\nprotected = [\"172.16.0.0/12\"]\npre-shared-key-file = \"/key\"\n\
             [[group.server]]\naddress = \"10.0.9.1\"\n"
        );
        let secret = |_: &_| Ok(Secret::new(vec![7; 32]));
        let machine = Machine { secret: &secret, state_key: &secret, ..Machine::unseen() };
        parse("f", &text, &machine).unwrap().value.groups.remove(0)
    }

    fn interface(addresses: &[&str], gateway: Option<&str>) -> Interface {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        let gateway = gateway.map(|text| text.parse().unwrap());
        Interface { index: 1, up: true, addresses, mtu: 1500, gateway, ..Interface::default() }
    }

    fn machine(all: &[(&str, Interface)]) -> Interfaces {
        all.iter().map(|(name, interface)| ((*name).to_owned(), interface.clone())).collect()
    }

    fn said(groups: &[Group], interfaces: &Interfaces) -> Vec<String> {
        misplaced(groups, interfaces).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ordinary_branch_is_in_order() {
        let interfaces = machine(&[
            ("lo", interface(&["127.0.0.1/8", "172.31.0.1/32"], None)),
            ("lan", interface(&["172.16.1.1/24"], None)),
            ("wan", interface(&["10.0.1.1/24"], Some("10.0.1.254"))),
            ("other", interface(&["192.168.7.1/24"], None)),
        ]);
        assert_eq!(said(&[group("10.0.1.1", &["lan"], &["wan"])], &interfaces), [""; 0]);
    }

    #[test]
    fn swapped_names_are_noticed_three_ways() {
        let interfaces = machine(&[
            ("lan", interface(&["172.16.1.1/24"], None)),
            ("wan", interface(&["10.0.9.7/24"], Some("10.0.9.254"))),
        ]);
        let said = said(&[group("10.0.9.7", &["wan"], &["lan"])], &interfaces);
        let expected = [
            "group branches: local-address is on wan, a LAN",
            "the default route leaves by wan, a LAN, and by no WAN",
            "key server 10.0.9.1 is in the network of wan, a LAN",
        ];
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected) && said.ends_with("are swapped"), "{said}");
        }
    }

    #[test]
    fn an_interface_inside_that_nobody_names_is_noticed_while_it_is_up() {
        let docker = interface(&["172.17.0.1/16"], None);
        let mut interfaces = machine(&[
            ("lan", interface(&["172.16.1.1/24"], None)),
            ("wan", interface(&["10.0.1.1/24"], Some("10.0.1.254"))),
            ("docker0", docker.clone()),
        ]);
        let groups = [group("10.0.1.1", &["lan"], &["wan"])];
        assert_eq!(
            said(&groups, &interfaces),
            ["interface docker0 (172.17.0.1/16) lies inside the protected prefix 172.16.0.0/12 \
              and is neither lan nor wan: its traffic with that prefix is dropped; name it in lan \
              or exclude it"]
        );
        let named = [group("10.0.1.1", &["lan", "docker*"], &["wan"])];
        assert_eq!(said(&named, &interfaces), [""; 0]);
        interfaces.insert("docker0".to_owned(), Interface { up: false, ..docker });
        assert_eq!(said(&groups, &interfaces), [""; 0]);
    }

    #[test]
    fn a_routing_rule_by_input_interface_is_noticed_at_a_lan() {
        let ruled = |net| Interface { has_rule: true, ..interface(&[net], None) };
        let mut interfaces = machine(&[
            ("lan", ruled("172.16.1.1/24")),
            ("wan", interface(&["10.0.1.1/24"], Some("10.0.1.254"))),
        ]);
        let groups = [group("10.0.1.1", &["lan"], &["wan"])];
        let found = said(&groups, &interfaces);
        let expected = "a routing rule is about what arrives by lan (`ip rule`, iif)";
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        interfaces.insert("lan".to_owned(), interface(&["172.16.1.1/24"], None));
        interfaces.insert("other".to_owned(), ruled("192.168.7.1/24"));
        assert_eq!(said(&groups, &interfaces), [""; 0]);
    }

    #[test]
    fn a_route_that_wraps_packets_early_is_noticed() {
        let mut wan = interface(&["10.0.1.1/24"], Some("10.0.1.254"));
        wan.wraps.insert("172.16.0.1".parse().unwrap());
        let interfaces = machine(&[("lan", interface(&["172.16.1.1/24"], None)), ("wan", wan)]);
        let said = said(&[group("10.0.1.1", &["lan"], &["wan"])], &interfaces);
        let expected = "the route to 172.16.0.1 by wan wraps packets of hosts in another header";
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }

    /// A loopback address of the group is where it belongs.
    #[test]
    fn the_interface_that_has_the_local_address_is_in_order() {
        let interfaces = machine(&[
            ("dummy0", interface(&["172.31.0.1/32"], None)),
            ("wan", interface(&["10.0.1.1/24"], Some("10.0.1.254"))),
        ]);
        assert_eq!(said(&[group("172.31.0.1", &["lan"], &["wan"])], &interfaces), [""; 0]);
    }
}
