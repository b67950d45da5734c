//! Captures: one tcpdump on all links of a node, and a reader of the file it writes.

use crate::lab::nodes::{Node, Process};
use crate::observe::packet::Packet;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// "Linux cooked capture" version 2: the only link type that tells the interface and the direction.
const LINK_TYPE_SLL2: u32 = 276;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const SLL2_HEADER: usize = 20;
/// libpcap's own time limit for a block of packets, and a little.
const BLOCK: Duration = Duration::from_millis(1200);
/// `sll2_pkttype` of a packet the node itself sends.
const OUTGOING: u8 = 4;

/// One captured IPv4 packet and how it crossed the node's edge.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Microseconds since the epoch.
    pub time: u64,
    /// Index of the node's interface.
    pub interface: u32,
    /// Whether the node sent it (otherwise it came in).
    pub outgoing: bool,
    /// Link-layer address of the sender.
    pub mac: [u8; 6],
    pub packet: Packet,
}

impl Captured {
    /// `12:34:56.789012 IP a > b: ...`, as tcpdump prints it.
    pub fn line(&self) -> String {
        let second = self.time / 1_000_000;
        let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
        format!(
            "{hour:02}:{minute:02}:{:02}.{:06} {}",
            second % 60,
            self.time % 1_000_000,
            self.packet
        )
    }
}

/// A running capture on all links of a node.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    log: PathBuf,
    depth: Depth,
}

/// How much of a packet is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All of it, in the file at once.
    Whole,
    /// The headers and a little more of what comes in, in blocks: millions of packets must fit into
    /// the machine's memory, and many a second must not cost a wakeup each.
    Headers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Packets in the file.
    pub captured: u64,
    /// Packets the kernel had to drop because tcpdump was too slow: then the capture proves
    /// nothing.
    pub dropped: u64,
}

impl Capture {
    /// Starts and returns when packets are being recorded.
    ///
    /// # Errors
    /// When tcpdump does not start listening.
    pub fn start(node: Node, directory: &Path, depth: Depth) -> Result<Self> {
        let file = directory.join(format!("{}.pcap", node.0));
        let log = directory.join(format!("{}.tcpdump.log", node.0));
        let path = file.to_string_lossy().into_owned();
        let mut arguments = vec![
            "-i",
            "any",
            "-y",
            "LINUX_SLL2",
            "-n",
            "-Z",
            "root",
            "-B",
            "98304",
            // Every place in the buffer is as large as the snapshot: at tcpdump's default a burst
            // would not fit.
            "-s",
            if depth == Depth::Whole { "4096" } else { "128" },
            "-w",
            &path,
        ];
        arguments.extend(match depth {
            Depth::Whole => ["-U", "--immediate-mode"],
            Depth::Headers => ["-Q", "in"],
        });
        arguments.push("ip");
        let mut command = node.command("tcpdump", &arguments);
        let process =
            Process::start(command.stdout(Stdio::null()).stderr(fs::File::create(&log)?))?;
        let capture = Self { process, file, log, depth };
        let started = Instant::now();
        while !fs::read_to_string(&capture.log)?.contains("listening on") {
            if started.elapsed() > Duration::from_secs(60) {
                bail!("tcpdump on {}: {}", node.0, fs::read_to_string(&capture.log)?.trim());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(capture)
    }

    /// The file it writes.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A moment to come back to with [`Capture::since`].
    ///
    /// # Errors
    /// When the file is not what tcpdump writes.
    pub fn mark(&self) -> Result<Mark> {
        self.recorded(Mark::START).map(|(_, mark)| mark)
    }

    /// What was recorded after a mark.
    ///
    /// # Errors
    /// As [`Capture::mark`].
    pub fn since(&self, mark: Mark) -> Result<Vec<Captured>> {
        self.recorded(mark).map(|(packets, _)| packets)
    }

    fn recorded(&self, mark: Mark) -> Result<(Vec<Captured>, Mark)> {
        self.read_from(mark).with_context(|| format!("cannot read {}", self.file.display()))
    }

    /// Only what stands behind the mark is read: the file of a long scenario is large.
    fn read_from(&self, Mark(offset): Mark) -> Result<(Vec<Captured>, Mark)> {
        if self.depth == Depth::Headers {
            std::thread::sleep(BLOCK);
            // Writes to the file what it has.
            self.process.signal(nix::sys::signal::Signal::SIGUSR2)?;
            std::thread::sleep(BLOCK / 4);
        }
        let mut file = fs::File::open(&self.file)?;
        let mut octets = vec![0; FILE_HEADER];
        if file.read_exact(&mut octets).is_err() {
            return Ok((Vec::new(), Mark::START));
        }
        file.seek(SeekFrom::Start(u64::try_from(offset)?))?;
        file.read_to_end(&mut octets)?;
        let (packets, Mark(end)) = read(&octets, Mark::START)?;
        Ok((packets, Mark(offset + (end - FILE_HEADER))))
    }

    /// Ends the capture, and returns what tcpdump counted.
    ///
    /// # Errors
    /// When tcpdump does not say what it counted.
    pub fn stop(mut self) -> Result<Tally> {
        self.process.signal(nix::sys::signal::Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(60))?;
        let log = fs::read_to_string(&self.log)?;
        let number = |what: &str| {
            log.lines()
                .find(|line| line.contains(what))
                .and_then(|line| line.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .with_context(|| format!("tcpdump did not say how many {what}: {}", log.trim()))
        };
        Ok(Tally { captured: number("packets captured")?, dropped: number("dropped by kernel")? })
    }
}

/// A place between two records of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Mark {
    /// Before the first record.
    pub const START: Self = Self(FILE_HEADER);
}

/// Reads the records behind a mark and returns them with the mark behind the last whole one.
///
/// # Errors
/// When it is not a little-endian microsecond file of cooked packets.
pub fn read(octets: &[u8], from: Mark) -> Result<(Vec<Captured>, Mark)> {
    let mut packets = Vec::new();
    if octets.len() < FILE_HEADER {
        return Ok((packets, Mark::START));
    }
    if little(octets, 0) != Some(0xa1b2_c3d4)
        || little(octets, 20).map(|link| link & 0xffff) != Some(LINK_TYPE_SLL2)
    {
        bail!("not a capture of cooked packets");
    }
    let Mark(mut offset) = from;
    while let (Some(seconds), Some(micros), Some(length)) =
        (little(octets, offset), little(octets, offset + 4), little(octets, offset + 8))
    {
        let start = offset + RECORD_HEADER;
        let Some(frame) = octets.get(start..start + length as usize) else { break };
        offset = start + length as usize;
        if let Some(captured) = frame_of(frame, u64::from(seconds) * 1_000_000 + u64::from(micros))
        {
            packets.push(captured);
        }
    }
    Ok((packets, Mark(offset)))
}

fn frame_of(frame: &[u8], time: u64) -> Option<Captured> {
    let interface = crate::observe::packet::long(frame, 4)?;
    let outgoing = *frame.get(10)? == OUTGOING;
    let mac = frame.get(12..18)?.try_into().ok()?;
    let packet = Packet::read(frame.get(SLL2_HEADER..)?)?;
    Some(Captured { time, interface, outgoing, mac, packet })
}

fn little(octets: &[u8], offset: usize) -> Option<u32> {
    let bytes = octets.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(frames: &[&[u8]]) -> Vec<u8> {
        let mut octets = Vec::new();
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, LINK_TYPE_SLL2] {
            octets.extend_from_slice(&u32::to_le_bytes(word));
        }
        for frame in frames {
            for word in [3_723, 5, frame.len() as u32, frame.len() as u32] {
                octets.extend_from_slice(&u32::to_le_bytes(word));
            }
            octets.extend_from_slice(frame);
        }
        octets
    }

    fn frame() -> Vec<u8> {
        let mut frame =
            vec![8, 0, 0, 0, 0, 0, 0, 9, 0, 1, OUTGOING, 6, 2, 0x67, 0x31, 0, 1, 1, 0, 0];
        frame.extend_from_slice(&[
            0x45, 0, 0, 24, 0, 1, 0, 0, 64, 1, 0, 0, 172, 16, 1, 10, 172, 16, 2, 10, 8, 0, 0, 0,
        ]);
        frame
    }

    #[test]
    fn reads_interface_direction_sender_and_packet() {
        let (packets, end) = read(&file(&[&frame(), &frame()]), Mark::START).unwrap();
        assert_eq!(packets.len(), 2);
        assert!(read(&file(&[&frame(), &frame()]), end).unwrap().0.is_empty());
        let first = &packets[0];
        assert_eq!(
            (first.interface, first.outgoing, first.mac),
            (9, true, [2, 0x67, 0x31, 0, 1, 1])
        );
        assert_eq!(
            first.line(),
            "01:02:03.000005 IP 172.16.1.10 > 172.16.2.10: ICMP type 8, length 4"
        );
    }

    #[test]
    fn a_record_still_being_written_is_left_out() {
        let octets = file(&[&frame(), &frame()]);
        for cut in 1..40 {
            assert_eq!(read(&octets[..octets.len() - cut], Mark::START).unwrap().0.len(), 1);
        }
        assert!(read(&octets[4..], Mark::START).is_err());
    }
}
