//! A TCP transfer whose every octet is checked.

use super::{Sink, TcpFlow, value};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A pattern whose octets differ at every place a segment could be shifted to.
pub(super) fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8)).to_le_bytes()[0]
}

pub(super) fn send(flow: &TcpFlow) -> Result<()> {
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

pub(super) fn receive(sink: &Sink) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_repeats_where_the_sender_says() {
        assert!((0..1000).all(|offset| pattern(offset) == pattern(offset + 65_536)));
        assert_ne!(
            (0..256).map(pattern).collect::<Vec<_>>(),
            (1..257).map(pattern).collect::<Vec<_>>()
        );
    }
}
