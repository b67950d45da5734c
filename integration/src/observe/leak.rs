//! What a leak is: a packet of the group that a member lets into the core in another form than its
//! ESP.

use crate::lab::topology::{MEMBER_MAC, is_protected};
use crate::observe::capture::Captured;
use crate::observe::packet::{ESP, Packet, UDP, word};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// SPIs of a tunnel that a member has with somebody else, in the two directions: ESP as well, and
/// none of the group's.
pub const TUNNEL_SPIS: [u16; 2] = [0x111, 0x112];

/// Whether a member sent this into the core.
pub fn from_member(captured: &Captured) -> bool {
    !captured.outgoing && captured.mac.starts_with(&MEMBER_MAC)
}

/// Whether a member let something of the group into the core that is not ESP between the group's
/// own addresses: a clear packet, one whose source was translated, or ESP with another source or
/// destination. ESP to a placeholder is no leak: it is what flushed tables leave of a packet,
/// encrypted and lost.
pub fn is_leak(captured: &Captured) -> bool {
    let packet = &captured.packet;
    if !from_member(captured) {
        return false;
    }
    if packet.protocol == ESP {
        let preserved = is_protected(packet.source) && is_protected(packet.destination);
        let lost = matches!(packet.destination.octets(), [192, 0, 2, _]);
        let spi = [word(&packet.payload, 0), word(&packet.payload, 2)];
        let of_tunnel = TUNNEL_SPIS.iter().any(|own| spi == [Some(0), Some(*own)]);
        return !preserved && !lost && !of_tunnel;
    }
    is_protected(packet.destination)
}

/// Every leak; what belongs to the UDP service that members never encrypt is none, its later
/// fragments included.
pub fn leaks(crossed: &[Captured], excluded_port: Option<u16>) -> Vec<&Captured> {
    let mut excused: BTreeSet<(Ipv4Addr, Ipv4Addr, u16)> = BTreeSet::new();
    let datagram = |packet: &Packet| (packet.source, packet.destination, packet.identification);
    let mut found = Vec::new();
    for captured in crossed {
        let packet = &captured.packet;
        let ports = [word(&packet.payload, 0), word(&packet.payload, 2)];
        let excluded = excluded_port.is_some() && packet.protocol == UDP;
        if excluded && packet.fragment_offset == 0 && ports.contains(&excluded_port) {
            excused.insert(datagram(packet));
        } else if is_leak(captured)
            && !(packet.protocol == UDP && excused.contains(&datagram(packet)))
        {
            found.push(captured);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(mac: [u8; 6], source: [u8; 4], destination: [u8; 4], protocol: u8) -> Captured {
        let packet = Packet {
            source: Ipv4Addr::from(source),
            destination: Ipv4Addr::from(destination),
            protocol,
            identification: 0,
            dscp: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            payload: Vec::new(),
        };
        Captured { time: 0, interface: 1, outgoing: false, mac, packet }
    }

    #[test]
    fn leaks_are_what_members_send_and_must_not() {
        let member = [0x02, 0x67, 0x31, 0, 1, 1];
        let (a, b, wan, server) =
            ([172, 16, 1, 10], [172, 16, 2, 10], [10, 0, 1, 1], [10, 0, 11, 1]);
        assert!(is_leak(&captured(member, a, b, 17)));
        assert!(is_leak(&captured(member, wan, b, 17)), "masqueraded");
        assert!(is_leak(&captured(member, wan, b, ESP)), "source not put back");
        assert!(!is_leak(&captured(member, wan, [192, 0, 2, 1], ESP)), "lost, but encrypted");
        let mut tunnel = captured(member, wan, [10, 0, 5, 1], ESP);
        tunnel.packet.payload = vec![0, 0, 1, 0x11, 0, 0, 0, 1];
        assert!(!is_leak(&tunnel), "somebody else's tunnel");
        tunnel.packet.payload[3] = 0x13;
        assert!(is_leak(&tunnel));
        assert!(!is_leak(&captured(member, a, b, ESP)));
        assert!(!is_leak(&captured(member, wan, server, 17)));
        assert!(!is_leak(&captured([2, 0, 0, 0, 0, 1], a, b, 17)), "forged by the core");
        assert!(!is_leak(&Captured { outgoing: true, ..captured(member, a, b, 17) }));
    }

    #[test]
    fn an_excluded_service_is_no_leak_and_excuses_nothing_else() {
        let member = [0x02, 0x67, 0x31, 0, 1, 1];
        let datagram = |port: u16, identification: u16, offset: u16| {
            let mut captured = captured(member, [172, 16, 1, 10], [172, 16, 2, 10], UDP);
            captured.packet.identification = identification;
            captured.packet.fragment_offset = offset;
            captured.packet.payload =
                [&7000u16.to_be_bytes()[..], &port.to_be_bytes()[..]].concat();
            captured
        };
        let crossed = [
            datagram(5003, 1, 0),
            datagram(0, 1, 1480),
            datagram(0, 2, 1480),
            datagram(5004, 3, 0),
        ];
        assert_eq!(leaks(&crossed, Some(5003)).len(), 2);
        assert_eq!(leaks(&crossed, None).len(), 4);
    }
}
