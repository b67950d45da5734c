//! The bandwidth of gateways: a policer for each direction, shared by all tunnels of a gateway.
//!
//! ```text
//! ip  bandwidth_received  prerouting -301   ESP from a peer:  what is over the rate is dropped, undecrypted
//!     bandwidth_sent      output     -301   ESP to a peer:    what is over the rate is dropped, behind XFRM
//! ```
//!
//! No queueing discipline takes part: whatever a user has at an interface stays there.

use ipnet::IpNet;

use super::{Content, OUTPUT, PREROUTING, RAW, chain};
use crate::nft::header_preservation::over_bandwidth;
use crate::nft::pairs::layers;
use crate::nft::rule::Rule;
use crate::nft::table::{Chain, Elements, Set};
use crate::nft::{Bandwidth, IP};

/// Before connection tracking and before the ESP of groups gets another destination.
const BEFORE_RAW: i32 = RAW - 1;

const SENT: &str = "bandwidth_sent";
const RECEIVED: &str = "bandwidth_received";

impl Content<'_> {
    /// The sets and chains of both directions.
    pub(super) fn bandwidth(&self) -> (Vec<Set>, Vec<Chain>) {
        let (mut sets, mut chains) = (Vec::new(), Vec::new());
        if self.preservation.bandwidth.is_empty() {
            return (sets, chains);
        }
        for (name, hook, received) in [(RECEIVED, PREROUTING, true), (SENT, OUTPUT, false)] {
            let mut rules = Vec::new();
            for (number, (gateway, bandwidth)) in (0_usize..).zip(&self.preservation.bandwidth) {
                let policer = format!("{name}_{number}");
                for pairs in layers(ends(bandwidth, received).iter(), IP) {
                    let rule = || Rule::new(IP, IP, "");
                    rules.push(rule().esp_between(&policer).jumps(&policer));
                    rules.push(rule().udp_esp_between(&policer, received).jumps(&policer));
                    let elements = Elements::Pairs(IP, pairs);
                    sets.push(Set { name: policer.clone(), elements });
                }
                let over = Rule::new(IP, IP, &over_bandwidth(gateway, received));
                let over = over.over(bandwidth.octets_per_second).counted().dropped();
                chains.push(Chain { name: policer, hook: None, rules: vec![over] });
            }
            chains.push(chain(name, "filter", hook, BEFORE_RAW, rules));
        }
        (sets, chains)
    }
}

/// Source and destination of what the policer sees: hosts, none of which lies within another, so
/// that one set holds them.
fn ends(bandwidth: &Bandwidth, received: bool) -> Vec<(IpNet, IpNet)> {
    let ends = bandwidth.ends.iter().filter(|(local, _)| local.is_ipv4());
    let ends = ends.map(|(local, peer)| (IpNet::from(*local), IpNet::from(*peer)));
    ends.map(|(local, peer)| if received { (peer, local) } else { (local, peer) }).collect()
}
