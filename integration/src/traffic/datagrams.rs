//! Numbered datagrams: a sender, and a sink that counts losses, duplicates and gaps.

use super::{Flow, MARKER, Sink};
use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

/// Sequence number of the datagram that ends a flow.
const LAST: u64 = u64::MAX;
/// A flow's end is said more than once, since datagrams get lost.
const ENDS: u32 = 5;
/// The end may overtake what a kernel still has in its hands: the rest is waited for.
const REST: Duration = Duration::from_secs(5);

pub(super) fn datagram(sequence: u64, size: usize) -> Vec<u8> {
    let mut octets = MARKER.to_vec();
    octets.extend_from_slice(&sequence.to_be_bytes());
    octets.resize(size.max(octets.len()), b'.');
    octets
}

fn sequence_of(octets: &[u8]) -> Option<u64> {
    let (number, _) = octets.strip_prefix(MARKER)?.split_first_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}

pub(super) fn send(flow: &Flow) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, flow.from_port))?;
    let started = Instant::now();
    let limit = Duration::from_secs(flow.seconds);
    let (mut sent, mut refused, mut sequence) = (0u64, 0u64, 0u64);
    let mut octets = datagram(0, flow.size);
    let ended = || flow.until.as_ref().is_some_and(|file| file.exists());
    while (flow.count == 0 || sequence < flow.count) && started.elapsed() < limit && !ended() {
        let due = u128::from(flow.per_second) * started.elapsed().as_micros() / 1_000_000;
        if flow.per_second > 0 && u128::from(sequence) >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        if let Some(place) = octets.get_mut(MARKER.len()..MARKER.len() + 8) {
            place.copy_from_slice(&sequence.to_be_bytes());
        }
        // A blocked path answers with an error: that is a finding, not the end of the flow.
        match socket.send_to(&octets, flow.to) {
            Ok(_) => sent += 1,
            Err(_) => refused += 1,
        }
        sequence += 1;
        if flow.pause_milliseconds > 0 {
            std::thread::sleep(Duration::from_millis(flow.pause_milliseconds));
        }
    }
    let milliseconds = started.elapsed().as_millis();
    for _ in 0..ENDS {
        std::thread::sleep(Duration::from_millis(50));
        let mut end = datagram(LAST, 0);
        end.extend_from_slice(&sent.to_be_bytes());
        let _ = socket.send_to(&end, flow.to);
    }
    println!("sent={sent} refused={refused} milliseconds={milliseconds}");
    Ok(())
}

pub(super) fn count(sink: &Sink) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // The sink must not be what loses packets, and a request without force ends at the system's
    // limit.
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20))?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, sink.port)))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(sink.silence_seconds)))?;
    println!("listening");
    let (mut seen, mut duplicates, mut octets) = (BTreeSet::new(), 0u64, 0u64);
    let (mut first, mut latest, mut gap) = (None, Instant::now(), Duration::ZERO);
    let mut missing = Missing::default();
    let mut buffer = vec![0; 65_536];
    let mut all = None;
    while all.is_none_or(|all| (seen.len() as u64) < all)
        && let Ok(length) = socket.recv(&mut buffer)
    {
        let Some(sequence) = buffer.get(..length).and_then(sequence_of) else { continue };
        if sequence == LAST {
            all = buffer
                .get(..length)
                .and_then(|octets| octets.last_chunk())
                .map(|all| u64::from_be_bytes(*all));
            socket.set_read_timeout(Some(REST))?;
            continue;
        }
        let now = Instant::now();
        if first.is_some() {
            gap = gap.max(now - latest);
        }
        first.get_or_insert(now);
        latest = now;
        octets += length as u64;
        let expected = seen.last().map_or(0, |last| last + 1);
        if sequence > expected {
            missing.note(expected..sequence);
        }
        if !seen.insert(sequence) {
            duplicates += 1;
        }
    }
    let milliseconds = first.map_or(0, |first| (latest - first).as_millis());
    println!(
        "received={} duplicates={duplicates} octets={octets} last={} gap={} milliseconds={milliseconds} missing={missing}",
        seen.len(),
        seen.last().copied().unwrap_or(0),
        gap.as_millis()
    );
    Ok(())
}

/// Holes in the numbers as they were found, with the time of day: what a log beside them can be
/// held against.
#[derive(Default)]
struct Missing(Vec<String>);

impl Missing {
    /// More holes than a person would look at.
    const LIMIT: usize = 8;

    fn note(&mut self, hole: std::ops::Range<u64>) {
        if self.0.len() < Self::LIMIT {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let second = now.as_secs();
            let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
            let time =
                format!("{hour:02}:{minute:02}:{:02}.{:03}", second % 60, now.subsec_millis());
            self.0.push(format!("{}-{}@{time}", hole.start, hole.end - 1));
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_carry_their_number() {
        assert_eq!(sequence_of(&datagram(77, 200)), Some(77));
        assert_eq!(datagram(77, 200).len(), 200);
        assert_eq!(sequence_of(b"something else"), None);
    }
}
