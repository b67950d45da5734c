//! GROUPKEY-PUSH messages (RFC 6407 §4) as the lab sees them: in captures, in the kernel's SPIs, at
//! the control sockets.

use crate::lab::Lab;
use crate::lab::nodes::Node;
use crate::lab::topology::R;
use crate::observe::capture::Captured;
use crate::observe::leak::from_member;
use crate::observe::packet::{UDP, word};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// ISAKMP exchange type of GROUPKEY-PUSH (RFC 6407 §4).
const PUSH: u8 = 33;
const UDP_HEADER: usize = 8;
/// Where the exchange type stands in the ISAKMP header (RFC 2408 §3.1).
const EXCHANGE_TYPE: usize = 18;

/// The group's name in every configuration of the lab.
pub const GROUP: &str = "branches";

/// The ISAKMP message of a push that is whole in one packet.
pub fn push_of(captured: &Captured) -> Option<&[u8]> {
    let packet = &captured.packet;
    if packet.protocol != UDP || packet.is_fragment() || word(&packet.payload, 0) != Some(848) {
        return None;
    }
    let message = packet.payload.get(UDP_HEADER..)?;
    (message.get(EXCHANGE_TYPE) == Some(&PUSH)).then_some(message)
}

/// Different pushes that a server sent to an address, in their order.
pub fn pushes_to(crossed: &[Captured], destination: Ipv4Addr) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let sent = crossed
        .iter()
        .filter(|captured| !from_member(captured) && captured.packet.destination == destination);
    for message in sent.filter_map(push_of) {
        if !found.iter().any(|known| known == message) {
            found.push(message.to_vec());
        }
    }
    found
}

/// SPIs that a member sent ESP with.
pub fn spis(crossed: &[Captured], source: Ipv4Addr) -> BTreeSet<u32> {
    let sent =
        crossed.iter().filter(|captured| from_member(captured) && captured.packet.source == source);
    sent.filter_map(|captured| captured.packet.spi()).collect()
}

/// Puts a message on the core's link to a member, as if a server had sent it.
///
/// # Errors
/// When it cannot be sent.
pub fn forge(lab: &Lab, server: &str, member: &str, message: &[u8]) -> Result<()> {
    let digits: String = message.iter().map(|octet| format!("{octet:02x}")).collect();
    lab.traffic(
        R,
        &format!("forge --source {server}:848 --destination {member}:848 --payload {digits}"),
    )
    .map(drop)
}

/// The SPI that a member sends with.
///
/// # Errors
/// When it has no outbound state, or iproute2 refuses.
pub fn sending_spi(lab: &Lab, member: Node) -> Result<u32> {
    // The kernel lists its newest state first, and that is the one it sends with.
    let state = lab.outbound(member)?.into_iter().next();
    state.map(|state| state.spi).with_context(|| format!("{} sends with no key", member.0))
}

/// SPIs that a member can receive with.
///
/// # Errors
/// When iproute2 refuses.
pub fn receiving_spis(lab: &Lab, member: Node) -> Result<BTreeSet<u32>> {
    let states = lab.states(member)?;
    Ok(states
        .into_iter()
        .filter(|state| state.source == "0.0.0.0")
        .map(|state| state.spi)
        .collect())
}

/// SPIs as they are shown.
pub fn spis_text<'s>(spis: impl IntoIterator<Item = &'s u32>) -> String {
    let spis: Vec<String> = spis.into_iter().map(|spi| format!("{spi:#010x}")).collect();
    match spis.is_empty() {
        true => String::from("no SPI"),
        false => spis.join(", "),
    }
}

/// Has the first server push new keys and waits until the members named send with one and the same
/// new SPI.
///
/// # Errors
/// When the server refuses or the members do not come to it in time; their logs are in the message.
pub fn rekey(lab: &Lab, server: Node, members: &[Node], limit: Duration) -> Result<u32> {
    let first = *members.first().context("no member")?;
    let before = sending_spi(lab, first)?;
    lab.gdoictl(server, &["rekey", GROUP])?;
    wait_new_spi(lab, members, before, limit)
}

/// Waits until the members named send with one SPI that is not `before`.
///
/// # Errors
/// When they do not in time; their logs are in the message.
pub fn wait_new_spi(lab: &Lab, members: &[Node], before: u32, limit: Duration) -> Result<u32> {
    let started = Instant::now();
    loop {
        // Between a delete and the pull that follows there is none.
        let sending =
            members.iter().map(|member| Ok(lab.outbound(*member)?.first().map(|state| state.spi)));
        let spis = sending.collect::<Result<BTreeSet<Option<u32>>>>()?;
        if let (1, Some(Some(spi))) = (spis.len(), spis.first())
            && *spi != before
        {
            return Ok(*spi);
        }
        if started.elapsed() > limit {
            let logs: Vec<String> = members
                .iter()
                .map(|member| format!("{}: {}", member.0, lab.log_tail(*member, 6)))
                .collect();
            let sending: Vec<u32> = spis.iter().copied().flatten().collect();
            bail!(
                "no common new SPI after {} s (before {before:#010x}, now {})\n{}",
                limit.as_secs(),
                spis_text(&sending),
                logs.join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A member's view of the group, from its control socket.
///
/// # Errors
/// When the daemon does not answer.
pub fn member_group(lab: &Lab, member: Node) -> Result<Value> {
    let groups = lab.show(member, &["member"], "groups")?;
    groups.get(0).cloned().context("the member has no group")
}

/// The server's view of the group's rekeys.
///
/// # Errors
/// When the daemon does not answer or does not push.
pub fn server_rekey(lab: &Lab, server: Node) -> Result<Value> {
    let groups = lab.show(server, &["server"], "groups")?;
    groups.get(0).and_then(|group| group.get("rekey")).cloned().context("the server does not push")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::packet::Packet;

    fn captured(ports: [u16; 2], exchange: u8) -> Captured {
        let mut payload: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        payload.extend([0; 4]);
        payload.extend([0; EXCHANGE_TYPE]);
        payload.extend([exchange, 0, 0]);
        let packet = Packet {
            source: Ipv4Addr::new(10, 0, 11, 1),
            destination: Ipv4Addr::new(10, 0, 2, 1),
            protocol: UDP,
            identification: 0,
            dscp: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            payload,
        };
        Captured { time: 0, interface: 1, outgoing: false, mac: [2, 0, 0, 0, 0x11, 1], packet }
    }

    #[test]
    fn pushes_are_told_by_port_and_exchange_type_and_counted_once() {
        let crossed =
            [captured([848, 848], PUSH), captured([848, 848], PUSH), captured([848, 848], 32)];
        assert_eq!(pushes_to(&crossed, Ipv4Addr::new(10, 0, 2, 1)).len(), 1);
        assert!(push_of(&captured([5000, 848], PUSH)).is_none());
    }
}
