//! One nf_tables rule: expressions on registers, in the order of evaluation.
//!
//! The nft command line cannot write `ip daddr set meta mark` (its types refuse); the kernel takes
//! it over netlink.

mod limited;
mod quoted;

use core::net::IpAddr;

use ipnet::IpNet;

use crate::attribute::Attributes;
use crate::model::{Reqid, Selector};
pub(crate) use crate::nft::field::Field;
use crate::nft::field::name;
use crate::nft::{IP, IP6, digest};
use crate::ownership::Ownership;

/// ESP's protocol number (RFC 4303 §2).
pub(crate) const ESP: u8 = 50;

// Attribute kinds and values are those of linux/netfilter/nf_tables.h.
const REGISTER: u32 = 1;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_PROTOCOL: u32 = 1;
const META_PRIORITY: u32 = 2;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const META_SECPATH: u32 = 25;
const META_SDIFNAME: u32 = 34;
const RT_TCPMSS: u32 = 3;
const RT_IPSEC: u32 = 4;
const TO_NETWORK: u32 = 1;
const TCP_OPTION: u32 = 1;
const XFRM_IN: u8 = 0;
const XFRM_OUT: u8 = 1;
const XFRM_KEY_REQID: u32 = 5;
const CT_STATE: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const CHECKSUM_INET: u32 = 1;
const IPV4_CHECKSUM_OFFSET: u32 = 10;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const RETURN: i32 = -5;

/// TCP's protocol number, and the number of its option with the maximum segment size (RFC 9293
/// §3.2).
const TCP: u8 = 6;
const TCP_MAXSEG: u8 = 2;
/// ICMP's protocol number, and the types that quote a packet (RFC 792).
const ICMP: u8 = 1;
pub(crate) const QUOTING_TYPES: [u8; 5] = [3, 4, 5, 11, 12];
/// The priority of packets that XFRM will put into an SA of ours, until the inner addresses take
/// its place. No class of a queueing discipline has this number.
const DESTINED: u32 = 0x4744_4f49;
/// Types of Ethernet frames with a VLAN tag.
pub(crate) const VLAN_TYPES: [u16; 2] = [0x8100, 0x88a8];

/// A rule under construction.
#[derive(Clone)]
pub(crate) struct Rule {
    family: u8,
    comment: String,
    expressions: Vec<Vec<u8>>,
}

impl Rule {
    /// A rule for packets of `family` (`IP` or `IP6`), in a table of `table_family`.
    pub(crate) fn new(table_family: u8, family: u8, comment: &str) -> Self {
        let rule = Self { family, comment: comment.to_owned(), expressions: Vec::new() };
        if table_family == family {
            return rule;
        }
        let ether_type: u16 = if family == IP6 { 0x86dd } else { 0x0800 };
        rule.meta(META_PROTOCOL).equal(&ether_type.to_be_bytes())
    }

    /// By an interface of this name; a `*` at its end stands for anything.
    pub(crate) fn arrives_by(self, interface: &str) -> Self {
        self.meta(META_IIFNAME).equal(&name(interface))
    }

    /// The packet arrived by this interface of a VRF; once behind routing, where the VRF device is
    /// the one that it arrives by. The device itself is meant by what the router sent to itself,
    /// and by what came out of an SA.
    pub(crate) fn arrived_within_vrf_by(self, interface: &str) -> Self {
        self.meta(META_SDIFNAME).equal(&name(interface))
    }

    /// The IPv4 header is longer than 20 octets.
    pub(crate) fn has_options(self) -> Self {
        self.payload(NETWORK_HEADER, 0, 1).masked(&[0x0f], &[0]).compare(NOT_EQUAL, &[5])
    }

    /// The packet leaves by `interface`; a pattern matches as in [`arrives_by`](Self::arrives_by).
    pub(crate) fn leaves_by(self, interface: &str) -> Self {
        self.meta(META_OIFNAME).equal(&name(interface))
    }

    /// `meta ipsec exists` or `missing`: whether XFRM took the packet out of an SA.
    pub(crate) fn decapsulated(self, yes: bool) -> Self {
        self.meta(META_SECPATH).equal(&[u8::from(yes)])
    }

    /// `rt ipsec exists`: XFRM will put the packet into an SA, whoever's.
    pub(crate) fn leaves_in_some_sa(self) -> Self {
        self.load("rt", Attributes::new().be32(1, REGISTER).be32(2, RT_IPSEC)).equal(&[1])
    }

    /// `ipsec out reqid`: the first SA of the packet's bundle.
    pub(crate) fn goes_into(self, reqid: Reqid) -> Self {
        self.reqid(XFRM_OUT, 0).equal(&reqid.0.to_ne_bytes())
    }

    /// `ipsec out reqid & MASK == OURS`: XFRM will put the packet into an SA of ours.
    pub(crate) fn goes_into_ours(self, ownership: &Ownership) -> Self {
        self.reqid(XFRM_OUT, 0).of_owner(ownership)
    }

    /// `ipsec in spnum N reqid & MASK == OURS`: the SA that the packet came out of, counted from
    /// the outermost, is ours.
    pub(crate) fn came_out_of_ours(self, number: u32, ownership: &Ownership) -> Self {
        self.reqid(XFRM_IN, number).of_owner(ownership)
    }

    /// The register holds the reqid in host order.
    fn reqid(self, direction: u8, number: u32) -> Self {
        let data = Attributes::new().be32(1, REGISTER).be32(2, XFRM_KEY_REQID);
        // The direction is one octet.
        self.load("xfrm", data.octets(3, &[direction]).be32(4, number))
    }

    fn of_owner(self, ownership: &Ownership) -> Self {
        let (value, mask) = ownership.reqid_mask();
        self.masked(&mask.to_ne_bytes(), &[0; 4]).equal(&value.to_ne_bytes())
    }

    pub(crate) fn protocol(self, protocol: u8) -> Self {
        self.meta(META_L4PROTO).equal(&[protocol])
    }

    /// Source and destination inside of these prefixes.
    pub(crate) fn between(self, source: &IpNet, destination: &IpNet) -> Self {
        let (from, to) = if self.family == IP6 { (8, 24) } else { (12, 16) };
        self.inside(NETWORK_HEADER, from, source).inside(NETWORK_HEADER, to, destination)
    }

    /// The source address is in the set, in nft: `saddr @set`.
    pub(crate) fn source_in(self, set: &str) -> Self {
        let (offset, length) = self.source();
        self.payload(NETWORK_HEADER, offset, length).lookup(set)
    }

    /// The destination address is in the set, in nft: `daddr @set`.
    pub(crate) fn destination_in(self, set: &str) -> Self {
        let (offset, length) = self.source();
        self.payload(NETWORK_HEADER, offset + length, length).lookup(set)
    }

    /// `saddr . daddr @set`: the two addresses lie side by side.
    pub(crate) fn pair_in(self, set: &str) -> Self {
        let (offset, length) = self.source();
        self.payload(NETWORK_HEADER, offset, 2 * length).lookup(set)
    }

    /// Offset and length of the source address.
    fn source(&self) -> (u32, u32) {
        if self.family == IP6 { (8, 16) } else { (12, 4) }
    }

    fn lookup(self, set: &str) -> Self {
        self.push("lookup", Attributes::new().text(1, set).be32(2, REGISTER))
    }

    /// Everything that a selector says but its interface.
    pub(crate) fn selected(self, selector: &Selector) -> Self {
        let mut rule = self.between(&selector.source, &selector.destination);
        if selector.protocol != 0 {
            rule = rule.protocol(selector.protocol);
        }
        for (offset, port) in [(0, selector.source_port), (2, selector.destination_port)] {
            if port != 0 {
                rule = rule.payload(TRANSPORT_HEADER, offset, 2).equal(&port.to_be_bytes());
            }
        }
        rule
    }

    /// What a selector says about addresses and protocol, for later fragments, which carry no
    /// ports.
    pub(crate) fn selected_without_ports(self, selector: &Selector) -> Self {
        self.selected(&Selector { source_port: 0, destination_port: 0, ..selector.clone() })
    }

    pub(crate) fn icmp(self) -> Self {
        self.protocol(ICMP)
    }

    /// A frame with a VLAN tag of this Ethernet type that names a VLAN.
    pub(crate) fn in_vlan(self, kind: u16) -> Self {
        let rule = self.payload(LINK_HEADER, 12, 2).equal(&kind.to_be_bytes());
        rule.payload(LINK_HEADER, 14, 2).masked(&[0x0f, 0xff], &[0, 0]).compare(NOT_EQUAL, &[0, 0])
    }

    /// Remembers that XFRM was to put the packet into an SA of ours.
    pub(crate) fn mark_destined(self) -> Self {
        self.immediate(&DESTINED.to_ne_bytes()).set_meta(META_PRIORITY)
    }

    /// XFRM was to put the packet into an SA of ours.
    pub(crate) fn destined(self) -> Self {
        self.meta(META_PRIORITY).equal(&DESTINED.to_ne_bytes())
    }

    pub(crate) fn comes_from(self, address: IpAddr) -> Self {
        self.field_is(Field::source(address), address)
    }

    pub(crate) fn goes_to(self, address: IpAddr) -> Self {
        self.field_is(Field::destination(address), address)
    }

    fn field_is(self, field: Field, address: IpAddr) -> Self {
        self.payload(NETWORK_HEADER, field.0, field.1).equal(&octets(address))
    }

    /// A later fragment, which has no transport header.
    pub(crate) fn later_fragment(self) -> Self {
        self.payload(NETWORK_HEADER, 6, 2)
            .masked(&[0x1f, 0xff], &[0, 0])
            .compare(NOT_EQUAL, &[0, 0])
    }

    /// The SPI of an ESP packet is in the set, in nft: `esp spi @set`.
    pub(crate) fn spi_in(self, set: &str) -> Self {
        self.payload(TRANSPORT_HEADER, 0, 4).lookup(set)
    }

    /// Nothing was stashed for this packet.
    pub(crate) fn mark_empty(self) -> Self {
        self.meta(META_MARK).equal(&[0; 4])
    }

    /// The mark says that the packet is being routed once more.
    pub(crate) fn mark_asked(self) -> Self {
        self.immediate(&DESTINED.to_ne_bytes()).set_meta(META_MARK)
    }

    pub(crate) fn marked_asked(self) -> Self {
        self.meta(META_MARK).equal(&DESTINED.to_ne_bytes())
    }

    pub(crate) fn empty_mark(self) -> Self {
        self.immediate(&[0; 4]).set_meta(META_MARK)
    }

    /// No class, and nothing remembered.
    pub(crate) fn empty_priority(self) -> Self {
        self.immediate(&[0; 4]).set_meta(META_PRIORITY)
    }

    /// `ct state new`: its presence turns connection tracking and with it defragmentation on.
    pub(crate) fn tracked_as_new(self) -> Self {
        let rule = self.load("ct", Attributes::new().be32(1, REGISTER).be32(2, CT_STATE));
        rule.masked(&8u32.to_ne_bytes(), &[0; 4]).compare(NOT_EQUAL, &[0; 4])
    }

    /// A TCP segment that opens a connection: SYN without RST.
    pub(crate) fn opens_connection(self) -> Self {
        self.protocol(TCP).payload(TRANSPORT_HEADER, 13, 1).masked(&[0x06], &[0]).equal(&[0x02])
    }

    /// `tcp option maxseg size set rt mtu`: what fits into the packet's route and SA. The kernel
    /// never raises it.
    pub(crate) fn clamp_to_path(self) -> Self {
        let swap = Attributes::new()
            .be32(1, REGISTER)
            .be32(2, REGISTER)
            .be32(3, TO_NETWORK)
            .be32(4, 2)
            .be32(5, 2);
        let size = Attributes::new().be32(1, REGISTER).be32(2, RT_TCPMSS);
        self.load("rt", size).push("byteorder", swap).store_segment_size()
    }

    /// `tcp option maxseg size set N`.
    pub(crate) fn clamp_to(self, octets: u16) -> Self {
        self.immediate(&octets.to_be_bytes()).store_segment_size()
    }

    fn store_segment_size(self) -> Self {
        let data = Attributes::new().octets(2, &[TCP_MAXSEG]).be32(3, 2).be32(4, 2);
        self.push("exthdr", data.be32(6, TCP_OPTION).be32(7, REGISTER))
    }

    /// Mark and priority take the inner addresses.
    pub(crate) fn stash(self) -> Self {
        let rule = self.payload(NETWORK_HEADER, 16, 4).set_meta(META_MARK);
        rule.payload(NETWORK_HEADER, 12, 4).set_meta(META_PRIORITY)
    }

    /// The outer addresses become what was stashed; mark and priority are empty afterwards.
    pub(crate) fn restore_stashed(self) -> Self {
        let rule =
            self.meta(META_MARK).store(Field::DESTINATION).meta(META_PRIORITY).store(Field::SOURCE);
        rule.immediate(&[0; 4]).set_meta(META_MARK).immediate(&[0; 4]).set_meta(META_PRIORITY)
    }

    /// The outer header's DF bit.
    pub(crate) fn set_dont_fragment(self) -> Self {
        let rule = self.payload(NETWORK_HEADER, 6, 2).masked(&[0xbf, 0xff], &[0x40, 0]);
        rule.store(Field::FRAGMENT)
    }

    pub(crate) fn set_destination(self, address: IpAddr) -> Self {
        self.immediate(&octets(address)).store(Field::destination(address))
    }

    /// Connection tracking, and so address translation, leaves the packet alone.
    pub(crate) fn untracked(self) -> Self {
        self.push("notrack", Attributes::new())
    }

    pub(crate) fn counted(self) -> Self {
        self.push("counter", Attributes::new())
    }

    pub(crate) fn dropped(self) -> Self {
        self.verdict(DROP, None)
    }

    pub(crate) fn accepted(self) -> Self {
        self.verdict(ACCEPT, None)
    }

    pub(crate) fn returned(self) -> Self {
        self.verdict(RETURN, None)
    }

    pub(crate) fn jumps(self, chain: &str) -> Self {
        self.verdict(JUMP, Some(chain))
    }

    /// The attribute `NFTA_RULE_EXPRESSIONS`' value.
    pub(crate) fn expressions(&self) -> Attributes {
        self.expressions.iter().fold(Attributes::new(), |list, one| list.octets(1 | 0x8000, one))
    }

    /// What tells this rule from others.
    pub(crate) fn digest(&self) -> u64 {
        digest([self.comment.as_bytes(), self.expressions().as_octets()])
    }

    /// The attribute `NFTA_RULE_USERDATA`'s value: the comment that nft shows, and the digest in a
    /// field that it skips.
    pub(crate) fn user_data(&self) -> Vec<u8> {
        let mut data = super::comment(&self.comment);
        data.extend([super::USER_DIGEST, 8]);
        data.extend(self.digest().to_be_bytes());
        data
    }

    fn inside(self, header: u32, offset: u32, net: &IpNet) -> Self {
        if net.prefix_len() == 0 {
            return self;
        }
        let (address, mask) = (octets(net.network()), octets(net.netmask()));
        let length = u32::try_from(address.len()).unwrap_or_default();
        let rule = self.payload(header, offset, length);
        let rule = if net.prefix_len() == net.max_prefix_len() {
            rule
        } else {
            rule.masked(&mask, &vec![0; mask.len()])
        };
        rule.equal(&address)
    }

    fn meta(self, key: u32) -> Self {
        self.load("meta", Attributes::new().be32(1, REGISTER).be32(2, key))
    }

    fn set_meta(self, key: u32) -> Self {
        self.push("meta", Attributes::new().be32(2, key).be32(3, REGISTER))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.load(
            "payload",
            Attributes::new().be32(1, REGISTER).be32(2, base).be32(3, offset).be32(4, length),
        )
    }

    /// Writes the register into the IP header and corrects the checksum that IPv4 has.
    fn store(self, field: Field) -> Self {
        let data = Attributes::new()
            .be32(2, NETWORK_HEADER)
            .be32(3, field.0)
            .be32(4, field.1)
            .be32(5, REGISTER);
        let data = match self.family {
            IP6 => data,
            _ => data.be32(6, CHECKSUM_INET).be32(7, IPV4_CHECKSUM_OFFSET).be32(8, 0),
        };
        self.push("payload", data)
    }

    fn immediate(self, value: &[u8]) -> Self {
        self.push(
            "immediate",
            Attributes::new().be32(1, REGISTER).nested(2, Attributes::new().octets(1, value)),
        )
    }

    fn masked(self, mask: &[u8], xor: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or_default();
        let data = Attributes::new().be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
        let data = data.nested(4, Attributes::new().octets(1, mask));
        self.push("bitwise", data.nested(5, Attributes::new().octets(1, xor)))
    }

    fn equal(self, value: &[u8]) -> Self {
        self.compare(EQUAL, value)
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        let data = Attributes::new().be32(1, REGISTER).be32(2, operator);
        self.push("cmp", data.nested(3, Attributes::new().octets(1, value)))
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let verdict = Attributes::new().octets(1, &code.to_be_bytes());
        let verdict = chain.into_iter().fold(verdict, |verdict, chain| verdict.text(2, chain));
        self.push(
            "immediate",
            Attributes::new().be32(1, 0).nested(2, Attributes::new().nested(2, verdict)),
        )
    }

    fn load(self, expression: &str, data: Attributes) -> Self {
        self.push(expression, data)
    }

    fn push(mut self, expression: &str, data: Attributes) -> Self {
        let one = Attributes::new().text(1, expression).nested(2, data);
        self.expressions.push(one.as_octets().to_vec());
        self
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Family of a prefix.
pub(crate) fn family(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => IP,
        IpNet::V6(_) => IP6,
    }
}
