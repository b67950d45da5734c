//! A member without a key server: one TEK by hand, told what to do on its standard input.
//!
//! For trying the kernel side alone, in a network namespace of a machine with ESP:
//!
//! ```text
//! datapath GROUP-PREFIX LOCAL GATEWAY [ALGORITHM]                 interfaces are called lan, wan and wan2
//!   receive SPI ...   inbound states for these SPIs, and no others
//!   send SPI          outbound state and policies that protect; "send none": policies that block
//!   show              counters
//!   vrf NAME TABLE       a VRF that lan and wan are in
//!   quiet, watch      stop and start repairing after changes by others
//! ```

use core::net::{IpAddr, Ipv4Addr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, bail};
use ipnet::IpNet;
use tokio::io::{AsyncBufReadExt, BufReader};
use xfrm::algorithm::{Aead, Encryption, Integrity, Protection};
use xfrm::desired::{MAIN_TABLE, PlaceholderRoute};
use xfrm::kernel::netlink::Netlink;
use xfrm::key::Key;
use xfrm::model::{
    Action, Direction, Install, Mode, Policy, PolicyId, Reqid, Sa, SaId, SaRole, Selector, Template,
};
use xfrm::nft::{DontFragment, GroupPreservation, Preservation, SegmentSize};
use xfrm::{Desired, Ownership, Reconciler};

const OUTBOUND: Reqid = Reqid(0x4744_0000);
const INBOUND: Reqid = Reqid(0x4744_0001);
const PLACEHOLDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

struct Member {
    group: IpNet,
    local: IpAddr,
    gateway: IpAddr,
    algorithm: String,
    receive: BTreeSet<u32>,
    send: Option<u32>,
    dont_fragment: DontFragment,
    defragment: bool,
    /// Device and table.
    vrf: Option<(String, u32)>,
}

impl Member {
    fn protection(&self) -> anyhow::Result<Protection> {
        let key = |length| Key::copy_from(&(1..=length).collect::<Vec<u8>>());
        let cbc = |length, integrity, integrity_length| Protection::Separate {
            encryption: Encryption::AesCbc,
            encryption_key: key(length),
            integrity,
            integrity_key: key(integrity_length),
        };
        let null = |integrity, integrity_length| Protection::Separate {
            encryption: Encryption::Null,
            encryption_key: key(0),
            integrity,
            integrity_key: key(integrity_length),
        };
        let combined = |aead, length, icv| Protection::Combined { aead, key: key(length), icv };
        Ok(match self.algorithm.as_str() {
            "cbc128-sha1" => cbc(16, Integrity::HmacSha1_96, 20),
            "cbc128-sha256" => cbc(16, Integrity::HmacSha2_256_128, 32),
            "cbc192-sha384" => cbc(24, Integrity::HmacSha2_384_192, 48),
            "cbc256-sha512" => cbc(32, Integrity::HmacSha2_512_256, 64),
            "null-sha256" => null(Integrity::HmacSha2_256_128, 32),
            "3des-sha1" => Protection::Separate {
                encryption: Encryption::TripleDesCbc,
                encryption_key: key(24),
                integrity: Integrity::HmacSha1_96,
                integrity_key: key(20),
            },
            "gcm128-8" => combined(Aead::AesGcm, 20, 8),
            "gcm192-12" => combined(Aead::AesGcm, 28, 12),
            "gcm256-16" => combined(Aead::AesGcm, 36, 16),
            "ccm128-8" => combined(Aead::AesCcm, 19, 8),
            "ccm192-12" => combined(Aead::AesCcm, 27, 12),
            "ccm256-16" => combined(Aead::AesCcm, 35, 16),
            other => bail!("no algorithm {other}"),
        })
    }

    fn desired(&self) -> anyhow::Result<Desired> {
        let mut desired = Desired::default();
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let local = self.local;
        let placeholder = PLACEHOLDER;
        let counter_mode = self.algorithm.starts_with("gcm") || self.algorithm.starts_with("ccm");
        for spi in &self.receive {
            let id = SaId { destination: local, spi: *spi };
            let sa = Sa {
                id,
                source: unspecified,
                role: SaRole::Inbound,
                reqid: INBOUND,
                protection: self.protection()?,
                no_path_mtu_discovery: false,
                sequence_may_wrap: false,
                install: Install::Freely,
                hard_lifetime: None,
                unicast: None,
            };
            desired.sas.insert(id, sa);
        }
        if let Some(spi) = self.send {
            let id = SaId { destination: placeholder, spi };
            let sa = Sa {
                id,
                source: local,
                role: SaRole::Outbound,
                reqid: OUTBOUND,
                protection: self.protection()?,
                no_path_mtu_discovery: self.dont_fragment == DontFragment::Clear,
                sequence_may_wrap: !counter_mode,
                install: if counter_mode { Install::Once } else { Install::Freely },
                hard_lifetime: None,
                unicast: None,
            };
            desired.sas.insert(id, sa);
        }
        let mut add =
            |direction, source, destination, interface: Option<&str>, priority, action| {
                let selector = Selector {
                    interface: interface.map(str::to_owned),
                    ..Selector::between(source, destination)
                };
                let id = PolicyId { direction, selector };
                desired.policies.insert(id.clone(), Policy { id, priority, action });
            };
        let any = self.group;
        let template = |source, destination, reqid| {
            Action::Protect(Template {
                mode: Mode::Tunnel,
                source,
                destination,
                reqid,
                optional: false,
            })
        };
        let (out, demand) = match self.send {
            Some(_) => {
                (template(local, placeholder, OUTBOUND), template(unspecified, local, INBOUND))
            }
            None => (Action::Block, Action::Block),
        };
        add(Direction::Out, any, any, None, 1000, out);
        add(Direction::In, any, any, None, 1000, demand);
        add(Direction::Forward, any, any, None, 1000, demand);
        add(Direction::Out, any, any, Some("lan"), 900, Action::Allow);
        let vrf = self.vrf.as_ref().map(|(name, _)| name.clone());
        if let Some(vrf) = &vrf {
            add(Direction::Out, any, any, Some(vrf), 900, Action::Allow);
        }
        desired.exempt.insert(String::from("lan"));
        desired.exempt.extend(vrf.clone());
        let group = GroupPreservation {
            local: self.local,
            outbound_reqids: BTreeSet::from([OUTBOUND]),
            inbound_spis: self.receive.clone(),
            fragments: BTreeSet::from([(any, any)]),
            dont_fragment: self.dont_fragment,
            segment_size: SegmentSize::Unchanged,
        };
        desired.preservation = Some(Preservation {
            lan: BTreeSet::from([String::from("lan")]),
            vrf: vrf.iter().cloned().collect(),
            wan: BTreeSet::from([String::from("wan"), String::from("wan2")]),
            protected: BTreeSet::from([BTreeSet::from([any])]),
            guard: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            tunnel_ends: BTreeSet::new(),
            guard_everything: false,
            exclude: BTreeSet::new(),
            exclude_arriving: BTreeSet::new(),
            groups: BTreeMap::from([(PLACEHOLDER, group)]),
            defragment: self.defragment,
            bandwidth: BTreeMap::new(),
        });
        desired.routes.insert(PlaceholderRoute {
            placeholder,
            interface: String::from("wan"),
            gateway: Some(self.gateway),
            mtu: 1500,
            table: self.vrf.as_ref().map_or(MAIN_TABLE, |(_, table)| *table),
        });
        Ok(desired)
    }
}

fn spi(text: &str) -> anyhow::Result<u32> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16)
        .with_context(|| format!("{text} is no SPI"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [group, local, gateway, rest @ ..] = arguments.as_slice() else {
        bail!("three arguments are needed")
    };
    let mut member = Member {
        group: group.parse()?,
        local: local.parse()?,
        gateway: gateway.parse()?,
        algorithm: rest.first().cloned().unwrap_or_else(|| String::from("cbc128-sha256")),
        receive: BTreeSet::new(),
        send: None,
        dont_fragment: DontFragment::Clear,
        defragment: false,
        vrf: None,
    };
    let (lan, wan) = (String::from("lan"), String::from("wan"));
    for problem in xfrm::prerequisites::check_prerequisites(&[lan.clone(), wan], &[lan]).await {
        println!("{local}: environment: {problem}");
    }
    let netlink = Netlink::open()?;
    let mut events = netlink.events(&Ownership::default())?;
    let mut reconciler = Reconciler::new(netlink, Ownership::default());
    reconciler.purge().await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut watching = true;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            event = events.next() => {
                let event = event?;
                if watching {
                    let begin = Instant::now();
                    let outcome = reconciler.repair(xfrm::Parts::ALL).await;
                    match outcome {
                        Ok(report) if report.done.is_empty() && report.suppressed.is_empty() => {}
                        Ok(report) => {
                            let took = begin.elapsed();
                            println!("{local}: {event}: repaired by {} operations in {} ms", report.done.len(), took.as_millis());
                            for op in report.done { println!("{local}:    {op}"); }
                            for id in report.suppressed { println!("{local}:    suppressed: {id}"); }
                        }
                        Err(error) => println!("{local}: {event}: {error}"),
                    }
                }
                continue;
            }
        };
        let Some(line) = line else { break };
        let words: Vec<&str> = line.split_whitespace().collect();
        let begin = Instant::now();
        match words.as_slice() {
            ["receive", spis @ ..] => {
                member.receive = spis.iter().copied().map(spi).collect::<Result<_, _>>()?
            }
            ["send", "none"] => member.send = None,
            ["send", one] => member.send = Some(spi(one)?),
            ["df", "set"] => member.dont_fragment = DontFragment::Set,
            ["df", "copy"] => member.dont_fragment = DontFragment::Copy,
            ["df", "clear"] => member.dont_fragment = DontFragment::Clear,
            ["vrf", name, table] => member.vrf = Some(((*name).to_owned(), table.parse()?)),
            ["defragment"] => member.defragment = true,
            ["quiet"] => watching = false,
            ["watch"] => watching = true,
            ["show"] => {
                let statistics = reconciler.statistics().await?;
                statistics
                    .sas
                    .iter()
                    .for_each(|(id, c)| println!("{local}: {id}: {} packets", c.packets));
                statistics
                    .rules
                    .iter()
                    .for_each(|(rule, c)| println!("{local}: {rule}: {} packets", c.packets));
            }
            ["exit"] => break,
            other => bail!("\"{}\" is no command", other.join(" ")),
        }
        if !matches!(words.first(), Some(&("quiet" | "watch" | "show"))) {
            match reconciler.apply(member.desired()?).await {
                Ok(report) => {
                    let took = begin.elapsed().as_millis();
                    println!("{local}: {} operations in {took} ms", report.done.len());
                }
                Err(error) => println!("{local}: {error}"),
            }
        }
        println!("{local}: {line}: DONE");
    }
    Ok(())
}
