//! Traffic generators and sinks, run on nodes as subcommands of the lab binary. Only ever between
//! nodes of the lab.

mod datagrams;
pub mod load;
pub mod matrix;
mod packets;
mod tcp;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use std::net::SocketAddrV4;
use std::path::PathBuf;

/// First octets of every datagram: what a search in a capture looks for.
pub const MARKER: &[u8] = b"lab flow ";
/// First octets of what the core forges.
pub const FORGED_MARKER: &[u8] = b"lab forged ";
/// The generators and sinks.
#[derive(Debug, Subcommand)]
pub enum Traffic {
    /// Counts a flow of numbered datagrams until its end or a silence.
    Sink(Sink),
    /// Send numbered datagrams
    Flow(Flow),
    /// Takes one TCP connection and checks every octet.
    TcpSink(Sink),
    /// Sends octets over TCP.
    TcpFlow(TcpFlow),
    /// Sends a few datagrams of several kinds.
    Matrix(Matrix),
    /// Sends packets with a source address that is not the sender's.
    Forge(Forge),
}

#[derive(Debug, Args)]
pub struct Sink {
    /// Port to listen on
    #[arg(long)]
    port: u16,
    /// Ends after this silence.
    #[arg(long, default_value_t = 5)]
    silence_seconds: u64,
}

/// A flow of datagrams.
#[derive(Debug, Args)]
pub struct Flow {
    /// Address and port of the receiver
    #[arg(long)]
    to: SocketAddrV4,
    /// Source port; 0 for any
    #[arg(long, default_value_t = 0)]
    from_port: u16,
    /// Number of datagrams; 0 for as many as fit into the seconds.
    #[arg(long, default_value_t = 0)]
    count: u64,
    /// Seconds after which the program gives up
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Ends as soon as this file is there.
    #[arg(long)]
    until: Option<PathBuf>,
    /// UDP payload in octets.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Milliseconds between two datagrams
    #[arg(long, default_value_t = 0)]
    pause_milliseconds: u64,
    /// Datagrams a second; 0 for no limit but the pause.
    #[arg(long, default_value_t = 0)]
    per_second: u64,
}

#[derive(Debug, Args)]
pub struct TcpFlow {
    /// Address and port of the receiver
    #[arg(long)]
    to: SocketAddrV4,
    /// Octets; 0 for as many as fit into the seconds.
    #[arg(long, default_value_t = 0)]
    octets: u64,
    /// Seconds after which the program gives up
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Pause after every 65,536 octets.
    #[arg(long, default_value_t = 0)]
    pause_milliseconds: u64,
}

/// A few datagrams of several kinds.
#[derive(Debug, Args)]
pub struct Matrix {
    /// `SOURCE:PORT>DESTINATION:PORT/SIZE`, the size being the UDP payload's in octets.
    #[arg(required = true)]
    datagrams: Vec<Datagram>,
    /// How many of each.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// The source addresses are not the sender's.
    #[arg(long)]
    forged: bool,
}

/// One kind of datagram of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
    /// UDP payload in octets.
    pub size: usize,
}

impl std::fmt::Display for Datagram {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}>{}/{}", self.source, self.destination, self.size)
    }
}

impl std::str::FromStr for Datagram {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (source, rest) =
            text.split_once('>').context("no '>' between source and destination")?;
        let (destination, size) = rest.split_once('/').context("no '/' before the size")?;
        Ok(Self { source: source.parse()?, destination: destination.parse()?, size: size.parse()? })
    }
}

#[derive(Debug, Args)]
pub struct Forge {
    /// Source as it will stand in the packet.
    #[arg(long)]
    source: SocketAddrV4,
    /// Destination address and port of the forged packet
    #[arg(long)]
    destination: SocketAddrV4,
    /// How many packets to send
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
        Traffic::Sink(sink) => datagrams::count(sink),
        Traffic::Flow(flow) => datagrams::send(flow),
        Traffic::TcpSink(sink) => tcp::receive(sink),
        Traffic::TcpFlow(flow) => tcp::send(flow),
        Traffic::Matrix(matrix) => packets::send_matrix(matrix),
        Traffic::Forge(forge) => packets::send_forged(forge),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_datagrams_are_read_as_they_are_written() {
        let text = "172.16.1.1:6000>172.16.2.10:5000/200";
        assert_eq!(text.parse::<Datagram>().unwrap().to_string(), text);
        assert!("172.16.1.1:6000>172.16.2.10:5000".parse::<Datagram>().is_err());
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        assert_eq!(value("received=5 last=9", "last"), Some(9));
        assert_eq!(value("received=5 last=9", "received"), Some(5));
        assert_eq!(value("received=5", "ed"), None);
    }
}
