//! Tunnels through address translation, and what they want in the kernel for it.

use super::*;
use xfrm::model::Encapsulation;

fn translated() -> Net {
    let one = config(1, 2, Start::Now);
    let two = Tunnel { peer: address(77), ..mirrored(&one, Start::Answer) };
    let mut net = Net::new(one, two);
    net.queue.clear();
    net.translation = Some((address(77), 1000));
    net
}

fn ports(net: &Net, end: usize, role: SaRole) -> Vec<(u16, u16)> {
    let sas = net.kernels[end].sas.values().filter(|sa| sa.role == role);
    let encapsulation = sas.map(|sa| sa.unicast.and_then(|unicast| unicast.encapsulation).unwrap());
    encapsulation
        .map(|Encapsulation { source_port, destination_port }| (source_port, destination_port))
        .collect()
}

#[test]
fn esp_goes_in_udp_by_the_ports_of_the_translation() {
    let mut net = translated();
    net.run(Duration::from_secs(20));
    assert_eq!(net.states(), [State::Active, State::Active]);
    assert_eq!(ports(&net, 0, SaRole::Outbound), [(4500, 4500); 2]);
    assert_eq!(ports(&net, 0, SaRole::Inbound), [(4500, 4500); 2]);
    assert_eq!(ports(&net, 1, SaRole::Outbound), [(4500, 5500); 2]);
    assert_eq!(ports(&net, 1, SaRole::Inbound), [(5500, 4500); 2]);
    assert!(net.outbound(1).iter().all(|id| id.destination == address(77)));
    let spis = |end: usize, role: SaRole| {
        let sas = net.kernels[end].sas.values().filter(move |sa| sa.role == role);
        sas.map(|sa| sa.id.spi).collect::<std::collections::BTreeSet<_>>()
    };
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(spis(from, SaRole::Outbound), spis(to, SaRole::Inbound));
    }
}

/// Nothing is negotiated for it: the SAs stay and get other ports.
#[test]
fn another_port_is_followed() {
    let mut net = translated();
    net.run(Duration::from_secs(20));
    let before = net.outbound(1);
    net.translation = Some((address(77), 2000));
    net.run(Duration::from_secs(60));
    assert_eq!(net.outbound(1), before);
    assert_eq!(ports(&net, 1, SaRole::Outbound), [(4500, 6500); 2]);
    assert_eq!(ports(&net, 1, SaRole::Inbound), [(6500, 4500); 2]);
    assert_eq!(net.states(), [State::Active, State::Active]);
}

/// SAs to another address would begin their sequence numbers once more: others take their place.
#[test]
fn another_address_leads_to_new_sas() {
    let mut net = translated();
    net.run(Duration::from_secs(20));
    let before = net.outbound(1);
    net.translation = Some((address(88), 2000));
    net.run(Duration::from_secs(90));
    let after = net.outbound(1);
    assert!(after.iter().all(|id| id.destination == address(88)), "{after:?}");
    assert!(before.iter().all(|old| after.iter().all(|new| new.spi != old.spi)));
    assert_eq!(net.states(), [State::Active, State::Active]);
}

/// Half a day through a translation.
#[test]
fn rekeys_go_by_the_translation_as_well() {
    let mut net = translated();
    net.run(Duration::from_secs(20));
    net.run_and(Duration::from_secs(43_200), |net| {
        for end in 0..2 {
            let sas = net.kernels[end].sas.values();
            assert!(sas.clone().count() >= 4, "at {:?}", net.now);
            let encapsulation = |sa: &xfrm::model::Sa| sa.unicast?.encapsulation;
            assert!(sas.clone().all(|sa| encapsulation(sa).is_some()));
        }
    });
    assert_eq!(net.states(), [State::Active, State::Active]);
}

#[test]
fn without_translation_esp_is_bare() {
    let mut net = pair([Start::Now, Start::Answer]);
    net.run(Duration::from_secs(20));
    let encapsulation = |sa: &xfrm::model::Sa| sa.unicast.and_then(|one| one.encapsulation);
    let all = net.kernels.iter().flat_map(|kernel| kernel.sas.values());
    assert!(all.clone().count() == 8 && all.clone().all(|sa| encapsulation(sa).is_none()));
}
