//! Traffic generators and sinks, run on nodes as subcommands of the lab binary. Only ever between
//! nodes of the lab.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// First octets of every datagram: what a search in a capture looks for.
pub const MARKER: &[u8] = b"lab flow ";
/// First octets of what the core forges.
pub const FORGED_MARKER: &[u8] = b"lab forged ";
/// Sequence number of the datagram that ends a flow.
const LAST: u64 = u64::MAX;
/// A flow's end is said more than once, since datagrams get lost.
const ENDS: u32 = 5;
/// The end may overtake what a kernel still has in its hands: the rest is waited for.
const REST: Duration = Duration::from_secs(5);

/// The generators and sinks.
#[derive(Debug, Subcommand)]
pub enum Traffic {
    /// Counts a flow of numbered datagrams until its end or a silence.
    Sink(Sink),
    /// Sends numbered datagrams.
    Flow(Flow),
    /// Takes one TCP connection and checks every octet.
    TcpSink(Sink),
    /// Sends octets over TCP.
    TcpFlow(TcpFlow),
    /// Sends a few datagrams of several kinds.
    Volley(Volley),
    /// Sends packets with a source address that is not the sender's.
    Forge(Forge),
}

/// Where to listen.
#[derive(Debug, Args)]
pub struct Sink {
    /// Port.
    #[arg(long)]
    port: u16,
    /// Ends after this silence.
    #[arg(long, default_value_t = 5)]
    silence_seconds: u64,
}

/// A flow of datagrams.
#[derive(Debug, Args)]
pub struct Flow {
    /// Receiver.
    #[arg(long)]
    to: SocketAddrV4,
    /// Own port.
    #[arg(long, default_value_t = 0)]
    from_port: u16,
    /// Number of datagrams; 0 for as many as fit into the seconds.
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Time limit.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Ends as soon as this file is there.
    #[arg(long)]
    until: Option<PathBuf>,
    /// UDP payload in octets.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Pause between datagrams.
    #[arg(long, default_value_t = 0)]
    pause_milliseconds: u64,
    /// Datagrams a second; 0 for no limit but the pause.
    #[arg(long, default_value_t = 0)]
    per_second: u64,
}

/// A TCP transfer.
#[derive(Debug, Args)]
pub struct TcpFlow {
    /// Receiver.
    #[arg(long)]
    to: SocketAddrV4,
    /// Octets; 0 for as many as fit into the seconds.
    #[arg(long, default_value_t = 0)]
    octets: u64,
    /// Time limit.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Pause after every 65,536 octets.
    #[arg(long, default_value_t = 0)]
    pause_milliseconds: u64,
}

/// A few datagrams of several kinds.
#[derive(Debug, Args)]
pub struct Volley {
    /// `SOURCE:PORT>DESTINATION:PORT/SIZE`, the size being the UDP payload's in octets.
    #[arg(required = true)]
    shots: Vec<Shot>,
    /// How many of each.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// The source addresses are not the sender's.
    #[arg(long)]
    forged: bool,
}

/// One kind of datagram of a volley.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shot {
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
    /// UDP payload in octets.
    pub size: usize,
}

impl std::fmt::Display for Shot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}>{}/{}", self.source, self.destination, self.size)
    }
}

impl std::str::FromStr for Shot {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (source, rest) =
            text.split_once('>').context("no '>' between source and destination")?;
        let (destination, size) = rest.split_once('/').context("no '/' before the size")?;
        Ok(Self { source: source.parse()?, destination: destination.parse()?, size: size.parse()? })
    }
}

/// A forged packet.
#[derive(Debug, Args)]
pub struct Forge {
    /// Source as it will stand in the packet.
    #[arg(long)]
    source: SocketAddrV4,
    /// Destination.
    #[arg(long)]
    destination: SocketAddrV4,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// ESP with this SPI instead of UDP.
    #[arg(long)]
    spi: Option<u32>,
    /// UDP payload in hexadecimal digits, instead of a marked one.
    #[arg(long)]
    payload: Option<String>,
}

/// Runs one generator or sink; prints one line of `name=value`.
///
/// # Errors
/// When a socket refuses what must work.
pub fn run(traffic: &Traffic) -> Result<()> {
    match traffic {
        Traffic::Sink(sink) => count_datagrams(sink),
        Traffic::Flow(flow) => send_datagrams(flow),
        Traffic::TcpSink(sink) => count_octets(sink),
        Traffic::TcpFlow(flow) => send_octets(flow),
        Traffic::Volley(volley) => send_volley(volley),
        Traffic::Forge(forge) => send_forged(forge),
    }
}

/// One number of a line of `name=value`.
pub fn value(line: &str, name: &str) -> Option<u64> {
    word(line, name)?.parse().ok()
}

/// One value of a line of `name=value`.
pub fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn datagram(sequence: u64, size: usize) -> Vec<u8> {
    let mut octets = MARKER.to_vec();
    octets.extend_from_slice(&sequence.to_be_bytes());
    octets.resize(size.max(octets.len()), b'.');
    octets
}

fn sequence_of(octets: &[u8]) -> Option<u64> {
    let (number, _) = octets.strip_prefix(MARKER)?.split_first_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}

fn send_datagrams(flow: &Flow) -> Result<()> {
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

fn count_datagrams(sink: &Sink) -> Result<()> {
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

/// A pattern whose octets differ at every place a segment could be shifted to.
fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8)).to_le_bytes()[0]
}

fn send_octets(flow: &TcpFlow) -> Result<()> {
    let limit = Duration::from_secs(flow.seconds);
    let mut stream =
        TcpStream::connect_timeout(&flow.to.into(), limit).context("cannot connect")?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_read_timeout(Some(limit))?;
    let started = Instant::now();
    let mut sent = 0u64;
    let chunk = 65_536u64;
    let all: Vec<u8> = (0..chunk * 2).map(pattern).collect();
    while (flow.octets == 0 || sent < flow.octets) && started.elapsed() < limit {
        let length = if flow.octets == 0 { chunk } else { chunk.min(flow.octets - sent) };
        // The pattern repeats every 65,536 octets.
        let from = usize::try_from(sent % chunk)?;
        let piece = all.get(from..from + usize::try_from(length)?).context("pattern")?;
        stream.write_all(piece)?;
        sent += length;
        if flow.pause_milliseconds > 0 {
            std::thread::sleep(Duration::from_millis(flow.pause_milliseconds));
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let milliseconds = started.elapsed().as_millis();
    let received = value(&answer, "octets").unwrap_or(0);
    println!("sent={sent} received={received} milliseconds={milliseconds} {answer}");
    if received != sent || value(&answer, "wrong") != Some(0) {
        bail!("sent {sent} octets, the other side says: {answer}");
    }
    Ok(())
}

fn count_octets(sink: &Sink) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, sink.port))?;
    println!("listening");
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(sink.silence_seconds.max(1))))?;
    let (mut octets, mut wrong) = (0u64, 0u64);
    let mut buffer = vec![0; 1 << 18];
    let expected: Vec<u8> = (0..65_536 * 5).map(pattern).collect();
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        let from = usize::try_from(octets % 65_536)?;
        let (got, want) = (buffer.get(..length), expected.get(from..from + length));
        if got != want {
            wrong += 1;
        }
        octets += length as u64;
    }
    write!(stream, "octets={octets} wrong={wrong}")?;
    println!("octets={octets} wrong={wrong}");
    Ok(())
}

fn send_volley(volley: &Volley) -> Result<()> {
    let (mut sent, mut refused) = (0u64, 0u64);
    let raw = volley.forged.then(raw_socket).transpose()?;
    for shot in &volley.shots {
        let own = if raw.is_none() { Some(UdpSocket::bind(shot.source)?) } else { None };
        for number in 0..volley.count {
            let text = datagram(number, shot.size);
            let result = match (&raw, &own) {
                (Some(raw), _) => {
                    let payload = udp(shot.source, shot.destination, &text)?;
                    send_raw(raw, shot.source, shot.destination, crate::packet::UDP, &payload)
                }
                (None, Some(own)) => {
                    own.send_to(&text, shot.destination).map(drop).map_err(Into::into)
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

fn send_forged(forge: &Forge) -> Result<()> {
    let socket = raw_socket()?;
    for number in 0..forge.count {
        let (protocol, payload) = match forge.spi {
            Some(spi) => (crate::packet::ESP, forged_esp(spi, number)),
            None => (crate::packet::UDP, forged_udp(forge, number)?),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_carry_their_number() {
        assert_eq!(sequence_of(&datagram(77, 200)), Some(77));
        assert_eq!(datagram(77, 200).len(), 200);
        assert_eq!(sequence_of(b"something else"), None);
    }

    #[test]
    fn the_pattern_repeats_where_the_sender_says() {
        assert!((0..1000).all(|offset| pattern(offset) == pattern(offset + 65_536)));
        assert_ne!(
            (0..256).map(pattern).collect::<Vec<_>>(),
            (1..257).map(pattern).collect::<Vec<_>>()
        );
    }

    #[test]
    fn shots_are_read_as_they_are_written() {
        let text = "172.16.1.1:6000>172.16.2.10:5000/200";
        assert_eq!(text.parse::<Shot>().unwrap().to_string(), text);
        assert!("172.16.1.1:6000>172.16.2.10:5000".parse::<Shot>().is_err());
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        assert_eq!(value("received=5 last=9", "last"), Some(9));
        assert_eq!(value("received=5 last=9", "received"), Some(5));
        assert_eq!(value("received=5", "ed"), None);
    }
}
