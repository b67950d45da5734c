//! XFRM policies on the wire of netlink: our type to `XFRM_MSG_NEWPOLICY` and back.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_xfrm::constants::{
    IPPROTO_ESP, XFRM_INF, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_FWD, XFRM_POLICY_IN,
    XFRM_POLICY_OUT, XFRMA_IF_ID, XFRMA_MARK, XFRMA_TMPL,
};
use netlink_packet_xfrm::{Selector as KernelSelector, UserPolicyId, UserPolicyInfo, UserTemplate};

use crate::attribute::{Attributes, find};
use crate::error::Error;
use crate::kernel::netlink::sa::{address, mode_number, mode_of, only_a_hard_time_limit};
use crate::model::{Action, Direction, Policy, PolicyId, Reqid, Selector, Template};

/// Length of `struct xfrm_userpolicy_info`.
const POLICY_INFO: usize = 168;
/// Length of `struct xfrm_user_tmpl`.
const TEMPLATE: usize = 64;

/// The body of `XFRM_MSG_NEWPOLICY` and `XFRM_MSG_UPDPOLICY`.
pub(crate) fn encode(
    policy: &Policy,
    index: u32,
    interfaces: &BTreeMap<String, u32>,
) -> Result<Attributes, Error> {
    let mut info = UserPolicyInfo {
        selector: encode_selector(&policy.id.selector, interfaces)?,
        priority: policy.priority,
        index,
        direction: direction_number(policy.id.direction),
        ..UserPolicyInfo::default()
    };
    info.action =
        if policy.action == Action::Block { XFRM_POLICY_BLOCK } else { XFRM_POLICY_ALLOW };
    let mut header = [0; POLICY_INFO];
    info.emit(&mut header);
    let body = Attributes::after(&header);
    let Action::Protect(wanted) = &policy.action else { return Ok(body) };
    let mut template = UserTemplate::default();
    template.source(&wanted.source);
    template.destination(&wanted.destination);
    template.protocol(IPPROTO_ESP);
    template.mode(mode_number(wanted.mode));
    template.reqid(wanted.reqid.0);
    template.optional(wanted.optional);
    let mut value = [0; TEMPLATE];
    template.emit(&mut value);
    Ok(body.octets(XFRMA_TMPL, &value))
}

/// The body of `XFRM_MSG_DELPOLICY` by index: it cannot hit a policy of somebody else.
pub(crate) fn encode_id(index: u32, direction: Direction) -> Vec<u8> {
    let user =
        UserPolicyId { index, direction: direction_number(direction), ..UserPolicyId::default() };
    let mut body = vec![0; user.buffer_len()];
    user.emit(&mut body);
    body
}

fn encode_selector(
    selector: &Selector,
    interfaces: &BTreeMap<String, u32>,
) -> Result<KernelSelector, Error> {
    let mut kernel = KernelSelector::default();
    kernel.source_prefix(&selector.source.network(), selector.source.prefix_len());
    kernel.destination_prefix(&selector.destination.network(), selector.destination.prefix_len());
    kernel.proto = selector.protocol;
    let mask = |port: u16| if port == 0 && !selector.portless { 0 } else { u16::MAX };
    (kernel.sport, kernel.sport_mask) = (selector.source_port, mask(selector.source_port));
    (kernel.dport, kernel.dport_mask) =
        (selector.destination_port, mask(selector.destination_port));
    if let Some(name) = &selector.interface {
        let index = interfaces.get(name).ok_or_else(|| Error::NoInterface(name.clone()))?;
        kernel.ifindex = i32::try_from(*index).map_err(|_| Error::NoInterface(name.clone()))?;
    }
    Ok(kernel)
}

/// Reads the body of `XFRM_MSG_NEWPOLICY`: index and policy. `None`: not a policy as we make them
/// (per-socket policies, other families).
pub(crate) fn decode(body: &[u8], names: &BTreeMap<u32, String>) -> Option<(u32, Policy)> {
    let info = UserPolicyInfo::parse(body.get(..POLICY_INFO)?).ok()?;
    let direction = match info.direction {
        XFRM_POLICY_IN => Direction::In,
        XFRM_POLICY_OUT => Direction::Out,
        XFRM_POLICY_FWD => Direction::Forward,
        _ => return None,
    };
    let rest = body.get(POLICY_INFO..)?;
    let template = find(rest, XFRMA_TMPL);
    // What others have changed is of another priority: a plan replaces the policy if it is ours.
    let plain = info.flags == 0
        && info.share == 0
        && !is_qualified(body)
        && only_a_hard_time_limit(&info.lifetime_cfg)
        && matches!(info.lifetime_cfg.hard_add_expires_seconds, 0 | XFRM_INF);
    let priority = if plain { info.priority } else { u32::MAX };
    let action = match (info.action, template) {
        (XFRM_POLICY_BLOCK, _) => Action::Block,
        (_, None) => Action::Allow,
        // Templates that we would never make count as none: a plan replaces the policy if it is
        // ours.
        (_, Some(value)) => decode_template(value).map_or(Action::Allow, Action::Protect),
    };
    let id = PolicyId { direction, selector: decode_selector(&info.selector, names)? };
    Some((info.index, Policy { id, priority, action }))
}

/// Whether a policy is for packets with a mark, or of an XFRM interface. None of ours is, and
/// nobody can make one of ours so: the kernel takes these for part of a policy's identity.
pub(crate) fn is_qualified(body: &[u8]) -> bool {
    let rest = body.get(POLICY_INFO..).unwrap_or_default();
    [XFRMA_IF_ID, XFRMA_MARK]
        .into_iter()
        .filter_map(|kind| find(rest, kind))
        .any(|value| value.iter().any(|octet| *octet != 0))
}

/// Index of a policy in the body of a message, even if it is not as we make them.
pub(crate) fn index(body: &[u8]) -> Option<u32> {
    Some(UserPolicyInfo::parse(body.get(..POLICY_INFO)?).ok()?.index)
}

fn decode_template(value: &[u8]) -> Option<Template> {
    if value.len() != TEMPLATE {
        return None;
    }
    let template = UserTemplate::parse(value).ok()?;
    let any = [template.aalgos, template.ealgos, template.calgos] == [u32::MAX; 3];
    let mode = mode_of(template.mode)?;
    if template.id.proto != IPPROTO_ESP || template.id.spi != 0 || template.share != 0 || !any {
        return None;
    }
    Some(Template {
        mode,
        source: address(&template.saddr, template.family)?,
        destination: address(&template.id.daddr, template.family)?,
        reqid: Reqid(template.reqid),
        optional: template.optional != 0,
    })
}

fn decode_selector(kernel: &KernelSelector, names: &BTreeMap<u32, String>) -> Option<Selector> {
    let net = |address: Option<IpAddr>, length| IpNet::new(address?, length).ok();
    let interface = match u32::try_from(kernel.ifindex).ok()? {
        0 => None,
        index => Some(names.get(&index).cloned().unwrap_or_else(|| format!("/{index}"))),
    };
    Some(Selector {
        source: net(address(&kernel.saddr, kernel.family), kernel.prefixlen_s)?,
        destination: net(address(&kernel.daddr, kernel.family), kernel.prefixlen_d)?,
        protocol: kernel.proto,
        source_port: kernel.sport & kernel.sport_mask,
        destination_port: kernel.dport & kernel.dport_mask,
        portless: [kernel.sport, kernel.dport] == [0; 2]
            && [kernel.sport_mask, kernel.dport_mask] == [u16::MAX; 2],
        interface,
    })
}

fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::In => XFRM_POLICY_IN,
        Direction::Out => XFRM_POLICY_OUT,
        Direction::Forward => XFRM_POLICY_FWD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    fn policies() -> Vec<Policy> {
        let template = |mode, optional| {
            let (source, destination) = ("10.0.1.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
            let reqid = Reqid(0x4744_0000);
            Action::Protect(Template { mode, source, destination, reqid, optional })
        };
        let mut policies = Vec::new();
        for direction in [Direction::In, Direction::Out, Direction::Forward] {
            for action in [
                Action::Allow,
                Action::Block,
                template(Mode::Tunnel, false),
                template(Mode::Tunnel, true),
                template(Mode::Transport, false),
            ] {
                for (interface, destination_port, portless) in
                    [(None, 0, false), (Some("lan"), 848, false), (None, 0, true)]
                {
                    let selector = Selector {
                        source: "172.16.0.0/12".parse().unwrap(),
                        destination: "10.0.0.0/8".parse().unwrap(),
                        protocol: if destination_port == 0 { 0 } else { 17 },
                        source_port: 0,
                        destination_port,
                        portless,
                        interface: interface.map(str::to_owned),
                    };
                    let id = PolicyId { direction, selector };
                    policies.push(Policy { id, priority: 1000, action });
                }
            }
        }
        policies
    }

    #[test]
    fn every_policy_reads_back() {
        let interfaces = BTreeMap::from([(String::from("lan"), 7)]);
        let names = BTreeMap::from([(7, String::from("lan"))]);
        for policy in policies() {
            let body = encode(&policy, 0x4744_0008, &interfaces).unwrap();
            assert_eq!(decode(body.as_octets(), &names), Some((0x4744_0008, policy.clone())));
            // The interface is gone: no name that an interface can have.
            let (_, gone) = decode(body.as_octets(), &BTreeMap::new()).unwrap();
            assert_eq!(
                gone.id.selector.interface,
                policy.id.selector.interface.map(|_| String::from("/7"))
            );
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let with_interface =
            policies().into_iter().find(|policy| policy.id.selector.interface.is_some()).unwrap();
        let error = encode(&with_interface, 0, &BTreeMap::new()).err();
        assert_eq!(error, Some(Error::NoInterface(String::from("lan"))));
    }

    #[test]
    fn short_bodies_are_no_policy() {
        let interfaces = BTreeMap::from([(String::from("lan"), 7)]);
        for policy in policies() {
            let body = encode(&policy, 8, &interfaces).unwrap();
            for length in 0..POLICY_INFO {
                assert_eq!(decode(&body.as_octets()[..length], &BTreeMap::new()), None);
                assert_eq!(index(&body.as_octets()[..length]), None);
            }
        }
    }
}
