//! IPv4 packets as captured: the fields the lab's statements are about, tcpdump's way of printing
//! them, reassembly.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// IP protocol number of ESP (RFC 4303 §2).
pub const ESP: u8 = 50;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    /// Identification, common to the fragments of one packet.
    pub identification: u16,
    /// Differentiated services code point (RFC 2474 §3).
    pub dscp: u8,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// Octets of the original payload before this fragment's.
    pub fragment_offset: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Reads an IPv4 packet; `None` when it is none or its header is cut short.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let first = *octets.first()?;
        if first >> 4 != 4 {
            return None;
        }
        let header = usize::from(first & 0x0f) * 4;
        // A total length of 0 is a segment the network card would still have to cut (segmentation
        // offload).
        let total = match usize::from(word(octets, 2)?) {
            0 => octets.len(),
            total => total,
        };
        let fragment = word(octets, 6)?;
        Some(Self {
            source: address(octets, 12)?,
            destination: address(octets, 16)?,
            protocol: *octets.get(9)?,
            identification: word(octets, 4)?,
            dscp: *octets.get(1)? >> 2,
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: (fragment & 0x1fff) * 8,
            // A capture of headers ends before the packet does.
            payload: octets.get(header..total.min(octets.len()))?.to_vec(),
        })
    }

    /// SPI of an ESP packet that is whole or the first fragment.
    pub fn spi(&self) -> Option<u32> {
        (self.protocol == ESP && self.fragment_offset == 0)
            .then(|| long(&self.payload, 0))
            .flatten()
    }

    /// Sequence number of an ESP packet that is whole or the first fragment.
    pub fn sequence(&self) -> Option<u32> {
        (self.protocol == ESP && self.fragment_offset == 0)
            .then(|| long(&self.payload, 4))
            .flatten()
    }

    /// The maximum segment size that a TCP SYN announces (RFC 9293 §3.2).
    pub fn announced_segment(&self) -> Option<u16> {
        let is_syn = self.protocol == TCP && !self.is_fragment() && self.octet(13) & 0x02 != 0;
        let header = usize::from(self.octet(12) >> 4) * 4;
        let mut options = is_syn.then(|| self.payload.get(20..header)).flatten()?;
        loop {
            match options {
                [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
                [1, rest @ ..] => options = rest,
                [0, ..] | [] | [_] => return None,
                [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
            }
        }
    }

    /// Whether this is a part of a packet.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// Whether the payload contains these octets.
    pub fn contains(&self, needle: &[u8]) -> bool {
        !needle.is_empty() && self.payload.windows(needle.len()).any(|window| window == needle)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.payload.len();
        let (source, destination) = (self.source, self.destination);
        if self.fragment_offset != 0 {
            return write!(
                formatter,
                "IP {source} > {destination}: ip-proto-{}, length {length}",
                self.protocol
            );
        }
        match self.protocol {
            ESP => {
                let (spi, sequence) = (self.spi().unwrap_or(0), self.sequence().unwrap_or(0));
                write!(
                    formatter,
                    "IP {source} > {destination}: ESP(spi={spi:#010x},seq={sequence:#x}), length {length}"
                )
            }
            ICMP => write!(
                formatter,
                "IP {source} > {destination}: ICMP type {}, length {length}",
                self.octet(0)
            ),
            UDP | TCP => {
                let (from, to) =
                    (word(&self.payload, 0).unwrap_or(0), word(&self.payload, 2).unwrap_or(0));
                let name = if self.protocol == UDP { "UDP" } else { "TCP" };
                write!(
                    formatter,
                    "IP {source}.{from} > {destination}.{to}: {name}, length {length}"
                )
            }
            other => {
                write!(formatter, "IP {source} > {destination}: ip-proto-{other}, length {length}")
            }
        }
    }
}

impl Packet {
    fn octet(&self, offset: usize) -> u8 {
        self.payload.get(offset).copied().unwrap_or(0)
    }
}

/// Puts fragments together; whole packets pass, incomplete ones are left out.
pub fn reassemble<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> Vec<Packet> {
    let mut whole = Vec::new();
    let mut parts: BTreeMap<(Ipv4Addr, Ipv4Addr, u8, u16), Vec<&Packet>> = BTreeMap::new();
    for packet in packets {
        if !packet.is_fragment() {
            whole.push(packet.clone());
            continue;
        }
        let key = (packet.source, packet.destination, packet.protocol, packet.identification);
        let list = parts.entry(key).or_default();
        list.push(packet);
        if let Some(packet) = join(list) {
            whole.push(packet);
            parts.remove(&key);
        }
    }
    whole
}

fn join(parts: &[&Packet]) -> Option<Packet> {
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|part| part.fragment_offset);
    let mut payload = Vec::new();
    for part in &sorted {
        // The same fragment is captured on more than one link.
        if usize::from(part.fragment_offset) < payload.len() {
            continue;
        }
        if usize::from(part.fragment_offset) != payload.len() {
            return None;
        }
        payload.extend_from_slice(&part.payload);
        if !part.more_fragments {
            let first = sorted.first()?;
            return Some(Packet {
                more_fragments: false,
                fragment_offset: 0,
                payload,
                ..(*first).clone()
            });
        }
    }
    None
}

pub fn word(octets: &[u8], offset: usize) -> Option<u16> {
    let bytes = octets.get(offset..offset + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

pub fn long(octets: &[u8], offset: usize) -> Option<u32> {
    let bytes = octets.get(offset..offset + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn address(octets: &[u8], offset: usize) -> Option<Ipv4Addr> {
    long(octets, offset).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: u16, more: bool, payload: &[u8]) -> Packet {
        Packet {
            source: Ipv4Addr::new(172, 16, 1, 10),
            destination: Ipv4Addr::new(172, 16, 2, 10),
            protocol: ESP,
            identification: 7,
            dscp: 0,
            dont_fragment: false,
            more_fragments: more,
            fragment_offset: offset,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn reads_a_header_and_prints_it_as_tcpdump_does() {
        let mut octets =
            vec![0x45, 0, 0, 30, 0, 7, 0x40, 0, 64, 50, 0, 0, 172, 16, 1, 10, 172, 16, 2, 10];
        octets.extend_from_slice(&[0, 0, 0x13, 0, 0, 0, 0, 5, 1, 2]);
        octets.extend_from_slice(&[0; 6]); // padding of the Ethernet frame
        let packet = Packet::read(&octets).unwrap();
        assert_eq!(packet.payload.len(), 10);
        assert!(packet.dont_fragment);
        assert_eq!(
            packet.to_string(),
            "IP 172.16.1.10 > 172.16.2.10: ESP(spi=0x00001300,seq=0x5), length 10"
        );
        assert_eq!(Packet::read(&octets[..19]), None);
    }

    #[test]
    fn a_syn_tells_its_segment_size_and_others_tell_nothing() {
        let syn = |flags: u8, options: &[u8]| {
            let mut octets =
                vec![0x45, 0xb8, 0, 48, 0, 7, 0, 0, 64, 6, 0, 0, 172, 16, 1, 10, 172, 16, 2, 10];
            octets.extend_from_slice(&[
                0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x70, flags, 0, 0, 0, 0, 0, 0,
            ]);
            octets.extend_from_slice(options);
            Packet::read(&octets).unwrap()
        };
        assert_eq!(syn(2, &[3, 3, 7, 1, 2, 4, 5, 180]).announced_segment(), Some(1460));
        assert_eq!(syn(2, &[3, 3, 7, 1, 1, 2, 4, 5]).announced_segment(), None, "cut short");
        assert_eq!(syn(2, &[1, 1, 1, 1, 2, 4, 5, 180]).dscp, 46);
        assert_eq!(syn(0x12, &[1, 1, 1, 1, 2, 4, 5, 180]).announced_segment(), Some(1460));
        assert_eq!(syn(0x10, &[1, 1, 1, 1, 2, 4, 5, 180]).announced_segment(), None);
        assert_eq!(syn(2, &[0; 8]).announced_segment(), None);
        assert_eq!(syn(2, &[3, 0, 3, 0, 3, 0, 3, 0]).announced_segment(), None);
    }

    #[test]
    fn fragments_join_in_any_order_and_only_when_all_are_there() {
        let parts =
            [fragment(16, false, &[3; 5]), fragment(0, true, &[1; 8]), fragment(8, true, &[2; 8])];
        let whole = reassemble(&parts);
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].payload.len(), 21);
        assert_eq!(whole[0].payload[8], 2);
        assert!(reassemble(&parts[..2]).is_empty());
    }
}
