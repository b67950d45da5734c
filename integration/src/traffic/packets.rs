//! Packets one by one: a few datagrams of every kind, and packets forged with a raw socket.

use super::datagrams::datagram;
use super::tcp::pattern;
use super::{FORGED_MARKER, Forge, Matrix};
use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

pub(super) fn send_matrix(matrix: &Matrix) -> Result<()> {
    let (mut sent, mut refused) = (0u64, 0u64);
    let raw = matrix.forged.then(raw_socket).transpose()?;
    for kind in &matrix.datagrams {
        let own = if raw.is_none() { Some(UdpSocket::bind(kind.source)?) } else { None };
        for number in 0..matrix.count {
            let text = datagram(number, kind.size);
            let result = match (&raw, &own) {
                (Some(raw), _) => {
                    let payload = udp(kind.source, kind.destination, &text)?;
                    send_raw(
                        raw,
                        kind.source,
                        kind.destination,
                        crate::observe::packet::UDP,
                        &payload,
                    )
                }
                (None, Some(own)) => {
                    own.send_to(&text, kind.destination).map(drop).map_err(Into::into)
                }
                (None, None) => bail!("no socket"),
            };
            // A blocked path answers with an error: that is a finding.
            match result {
                Ok(()) => sent += 1,
                Err(_) => refused += 1,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    println!("sent={sent} refused={refused}");
    Ok(())
}

pub(super) fn send_forged(forge: &Forge) -> Result<()> {
    let socket = raw_socket()?;
    for number in 0..forge.count {
        let (protocol, payload) = match forge.spi {
            Some(spi) => (crate::observe::packet::ESP, forged_esp(spi, number)),
            None => (crate::observe::packet::UDP, forged_udp(forge, number)?),
        };
        send_raw(&socket, forge.source, forge.destination, protocol, &payload)?;
    }
    println!("sent={}", forge.count);
    Ok(())
}

/// IPPROTO_RAW: the header is ours to write.
fn raw_socket() -> Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).context("raw socket")
}

fn send_raw(
    socket: &Socket,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    protocol: u8,
    payload: &[u8],
) -> Result<()> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&u16::try_from(20 + payload.len())?.to_be_bytes());
    packet.extend_from_slice(&[0x1a, 0xb0, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&source.ip().octets());
    packet.extend_from_slice(&destination.ip().octets());
    packet.extend_from_slice(payload);
    socket.send_to(&packet, &SockAddr::from(SocketAddrV4::new(*destination.ip(), 0)))?;
    Ok(())
}

fn forged_udp(forge: &Forge, number: u32) -> Result<Vec<u8>> {
    let text = match &forge.payload {
        Some(digits) => octets_of(digits).context("the payload is not hexadecimal")?,
        None => [FORGED_MARKER, number.to_string().as_bytes()].concat(),
    };
    udp(forge.source, forge.destination, &text)
}

/// A UDP datagram without a checksum (RFC 768 allows that).
fn udp(source: SocketAddrV4, destination: SocketAddrV4, text: &[u8]) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    for word in [source.port(), destination.port(), u16::try_from(8 + text.len())?, 0] {
        octets.extend_from_slice(&word.to_be_bytes());
    }
    octets.extend_from_slice(text);
    Ok(octets)
}

fn octets_of(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// ESP that nobody with the key has made: header, IV and as many blocks as a ping has, all of them
/// noise.
fn forged_esp(spi: u32, number: u32) -> Vec<u8> {
    let mut octets = spi.to_be_bytes().to_vec();
    octets.extend_from_slice(&(0x00f0_0000 + number).to_be_bytes());
    octets.extend((0..128u64).map(|offset| pattern(offset + u64::from(number))));
    octets
}
