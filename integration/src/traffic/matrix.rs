//! The traffic matrix: a few datagrams of every kind that `SECURITY.md` distinguishes, both ways
//! through the first member and forged in the core, and what became of each kind.

use crate::lab::nodes::{Node, Process};
use crate::lab::topology::{G1, HA, HB, R, SERVERS};
use crate::lab::{Lab, Moment};
use crate::observe::capture::Captured;
use crate::observe::leak::from_member;
use crate::observe::packet::{ESP, Packet, UDP, word};
use crate::report::table::{Column, Promise};
use crate::traffic::{Datagram, value};
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Datagrams of each kind.
const COUNT: u64 = 5;
/// The service that members never encrypt.
pub const EXCLUDED: u16 = 5003;
/// The service that passes in clear while there is no key.
pub const FAIL_OPEN: u16 = 5005;
/// The service that has a TEK of its own, where a scenario gives it one.
pub const SERVICE: u16 = 5001;

const HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 10);
const OWN: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 1);
const WAN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 10);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 0, 13, 1);
/// Ports of the first member itself at which somebody listens: for what its peer sent, for what was
/// forged.
const LISTENS: [u16; 2] = [5110, 5210];

/// What has been sent is there or lost after this time.
const ARRIVES: Duration = Duration::from_millis(500);

/// Where a kind of datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the first branch.
    Out,
    /// From elsewhere, as its sender's own router lets it pass.
    In,
    /// Put on the core's link to the first member in clear.
    Forged,
}

/// A kind of datagram.
#[derive(Debug, Clone, Copy)]
struct Kind {
    column: Column,
    way: Way,
    /// The TEK of one service alone covers it.
    service: bool,
    from: Node,
    datagram: Datagram,
}

const fn kind(
    column: Column,
    way: Way,
    from: Node,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    size: usize,
) -> Kind {
    let datagram = Datagram {
        source: SocketAddrV4::new(source.0, source.1),
        destination: SocketAddrV4::new(destination.0, destination.1),
        size,
    };
    Kind { column, way, service: destination.1 == SERVICE, from, datagram }
}

/// Sizes differ, so that ESP tells by its length what is inside; ICMP errors that quote a datagram
/// have other lengths.
const KINDS: [Kind; 19] = [
    kind(Column::Out, Way::Out, HA, (HOST, 6000), (FAR, 5000), 100),
    kind(Column::Out, Way::Out, HA, (HOST, 6001), (FAR, SERVICE), 600),
    kind(Column::In, Way::In, HB, (FAR, 7000), (HOST, 5100), 150),
    kind(Column::In, Way::In, HB, (FAR, 7001), (HOST, SERVICE), 650),
    kind(Column::In, Way::Forged, R, (FAR, 8000), (HOST, 5200), 150),
    kind(Column::In, Way::Forged, R, (FAR, 8001), (HOST, SERVICE), 650),
    kind(Column::Own, Way::Out, G1, (OWN, 6010), (FAR, 5010), 200),
    kind(Column::Own, Way::Out, G1, (OWN, 6011), (FAR, SERVICE), 700),
    kind(Column::Own, Way::In, HB, (FAR, 7010), (OWN, LISTENS[0]), 250),
    kind(Column::Own, Way::Forged, R, (FAR, 8010), (OWN, LISTENS[1]), 250),
    kind(Column::Excluded, Way::Out, HA, (HOST, 6003), (FAR, EXCLUDED), 300),
    kind(Column::Excluded, Way::In, HB, (FAR, 7003), (HOST, EXCLUDED), 350),
    kind(Column::Excluded, Way::Forged, R, (FAR, 8003), (HOST, EXCLUDED), 350),
    kind(Column::FailOpen, Way::Out, HA, (HOST, 6005), (FAR, FAIL_OPEN), 400),
    kind(Column::FailOpen, Way::In, HB, (FAR, 7005), (HOST, FAIL_OPEN), 450),
    kind(Column::FailOpen, Way::Forged, R, (FAR, 8005), (HOST, FAIL_OPEN), 450),
    kind(Column::Unrelated, Way::Out, HA, (HOST, 6007), (ELSEWHERE, 5007), 500),
    kind(Column::Unrelated, Way::Out, G1, (WAN, 6008), (ELSEWHERE, 5008), 500),
    kind(Column::Unrelated, Way::In, SERVERS[2], (ELSEWHERE, 7007), (HOST, 5107), 550),
];

/// What was seen of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// In clear, as a member sent it into the core.
    clear: u64,
    /// As ESP, as a member sent it into the core.
    esp: u64,
    arrived: u64,
}

impl Seen {
    /// Whether a promise is kept for what left or for what came through the peer.
    fn keeps(self, promise: Promise, way: Way, service: bool) -> bool {
        let nothing = Self::default();
        match (promise, way) {
            (Promise::BySelector, _) if service => self.keeps(Promise::Blocked, way, service),
            (Promise::BySelector, _) => self.keeps(Promise::Protected, way, service),
            // What comes in clear arrives; a peer that has a key sends something else.
            (Promise::Clear, Way::Forged) => self.arrived == COUNT,
            (_, Way::Forged) => self.arrived == 0,
            // Its destination may be behind a member that takes no clear packets.
            (Promise::Clear, Way::Out) => self.clear == COUNT && self.esp == 0,
            (Promise::Clear, Way::In) => true,
            (Promise::Protected, _) => {
                self.clear == 0 && self.esp >= COUNT && self.arrived == COUNT
            }
            (Promise::ProtectedOrLost, _) => self.clear == 0,
            (Promise::Blocked, Way::Out) => self == nothing,
            (Promise::Lost, Way::Out) => self.clear == 0 && self.arrived == 0,
            (Promise::Blocked | Promise::Lost, Way::In) => self.arrived == 0 && self.clear == 0,
        }
    }
}

/// What became of each kind of datagram.
#[derive(Debug)]
pub struct TrafficMatrix {
    seen: Vec<(Kind, Seen)>,
}

impl TrafficMatrix {
    /// Sends one and looks.
    ///
    /// # Errors
    /// When a generator or a capture fails.
    pub fn send(lab: &Lab) -> Result<Self> {
        let moment = lab.now()?;
        let sinks: Vec<Process> = LISTENS
            .iter()
            .map(|port| lab.start_sink(G1, &format!("sink --port {port} --silence-seconds 30")))
            .collect::<Result<_>>()?;
        let mut shooters = Vec::new();
        for node in [HA, G1, HB, R, SERVERS[2]] {
            let datagrams: Vec<String> = KINDS
                .iter()
                .filter(|kind| kind.from == node)
                .map(|kind| kind.datagram.to_string())
                .collect();
            let forged = if node == R { "--forged" } else { "" };
            shooters.push(lab.start_traffic(
                node,
                &format!("matrix --count {COUNT} {forged} {}", datagrams.join(" ")),
            )?);
        }
        for shooter in shooters {
            shooter.output(Duration::from_secs(30))?;
        }
        std::thread::sleep(ARRIVES);
        for port in LISTENS {
            // Nothing but the word that a flow has ended.
            lab.traffic(G1, &format!("flow --to 127.0.0.1:{port} --seconds 0"))?;
        }
        let mut listened = [0; 2];
        for (count, sink) in listened.iter_mut().zip(sinks) {
            *count = value(&sink.output(Duration::from_secs(30))?, "received").unwrap_or(0);
        }
        Self::look(lab, moment, listened)
    }

    fn look(lab: &Lab, moment: Moment, listened: [u64; 2]) -> Result<Self> {
        let core = lab.core_since(moment)?;
        let (near, far) = (lab.host_since(HA, moment)?, lab.host_since(HB, moment)?);
        let seen = KINDS.iter().map(|kind| {
            let sent = core
                .iter()
                .filter(|captured| from_member(captured))
                .map(|captured| &captured.packet);
            let clear = sent.clone().filter(|packet| is_clear(packet, &kind.datagram));
            let esp = sent.filter(|packet| {
                packet.protocol == ESP && packet.payload.len() == esp_length(kind.datagram.size)
            });
            let arrived = match *kind.datagram.destination.ip() {
                HOST => arrivals(&near, &kind.datagram),
                FAR => arrivals(&far, &kind.datagram),
                OWN => listened.get(usize::from(kind.way == Way::Forged)).copied().unwrap_or(0),
                // No capture there: the core's last link.
                _ => core
                    .iter()
                    .filter(|captured| {
                        captured.outgoing && is_clear(&captured.packet, &kind.datagram)
                    })
                    .count() as u64,
            };
            (*kind, Seen { clear: clear.count() as u64, esp: esp.count() as u64, arrived })
        });
        Ok(Self { seen: seen.collect() })
    }

    /// Whether a column's promise is kept, and what was seen.
    pub fn keeps(&self, column: Column, promise: Promise) -> (bool, String) {
        let (mut kept, mut told) = (true, Vec::new());
        for (kind, seen) in self.seen.iter().filter(|(kind, _)| kind.column == column) {
            let keeps = seen.keeps(promise, kind.way, kind.service);
            // An excluded or unrelated datagram has nobody in its way.
            let through =
                column != Column::Excluded && column != Column::Unrelated || seen.arrived == COUNT;
            kept &= keeps && through;
            let way = match kind.way {
                Way::Out => "sent",
                Way::In => "from the other side",
                Way::Forged => "forged in clear in the core",
            };
            let Seen { clear, esp, arrived } = seen;
            // What is forged no member sends.
            let crossed = match (kind.way, kind.column) {
                (Way::Forged, _) => String::new(),
                (_, Column::Unrelated) => format!(" {clear} in clear into the core,"),
                _ => format!(" {clear} in clear and {esp} as ESP into the core,"),
            };
            told.push(format!(
                "{COUNT} {way}, {} > {}:{crossed} {arrived} arrived{}",
                kind.datagram.source,
                kind.datagram.destination,
                if keeps && through { "" } else { "   <-- not as promised" }
            ));
        }
        (kept && !told.is_empty(), told.join("\n"))
    }
}

fn is_clear(packet: &Packet, datagram: &Datagram) -> bool {
    packet.protocol == UDP
        && (packet.source, packet.destination)
            == (*datagram.source.ip(), *datagram.destination.ip())
        && word(&packet.payload, 0) == Some(datagram.source.port())
        && word(&packet.payload, 2) == Some(datagram.destination.port())
}

fn arrivals(captured: &[Captured], datagram: &Datagram) -> u64 {
    captured
        .iter()
        .filter(|captured| !captured.outgoing && is_clear(&captured.packet, datagram))
        .count() as u64
}

/// Length of an ESP packet behind the IP header that carries a UDP payload of this size in a
/// tunnel, with AES-CBC and a 128-bit ICV (RFC 4303 §2, RFC 3602 §2).
pub fn esp_length(size: usize) -> usize {
    let inner = 20 + 8 + size;
    8 + 16 + (inner + 2).next_multiple_of(16) + 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn esp_tells_by_its_length_what_is_inside() {
        // What somebody forges in clear is never ESP.
        let lengths: Vec<usize> = KINDS
            .iter()
            .filter(|kind| kind.way != Way::Forged && kind.column != Column::Unrelated)
            .map(|kind| esp_length(kind.datagram.size))
            .collect();
        let distinct: BTreeSet<usize> = lengths.iter().copied().collect();
        assert_eq!(distinct.len(), lengths.len());
        for kind in &KINDS {
            // A host's port unreachable quotes the datagram; the whole error is at most 576 octets.
            let quoted = (kind.datagram.size + 28).min(576 - 28);
            assert!(!distinct.contains(&esp_length(quoted)), "{}", kind.datagram);
        }
    }

    #[test]
    fn a_promise_is_kept_by_what_it_says_and_nothing_else() {
        let protected = Seen { clear: 0, esp: COUNT, arrived: COUNT };
        let clear = Seen { clear: COUNT, esp: 0, arrived: COUNT };
        let lost = Seen { clear: 0, esp: COUNT, arrived: 0 };
        let nothing = Seen::default();
        let kept_by = |promise| {
            [protected, clear, lost, nothing].map(|seen: Seen| seen.keeps(promise, Way::Out, false))
        };
        assert_eq!(kept_by(Promise::Protected), [true, false, false, false]);
        assert_eq!(kept_by(Promise::Clear), [false, true, false, false]);
        assert_eq!(kept_by(Promise::Lost), [false, false, true, true]);
        assert_eq!(kept_by(Promise::Blocked), [false, false, false, true]);
        assert_eq!(kept_by(Promise::ProtectedOrLost), [true, false, true, true]);
        assert!(
            nothing.keeps(Promise::BySelector, Way::Out, true)
                && !nothing.keeps(Promise::BySelector, Way::Out, false)
        );
        for promise in
            [Promise::Protected, Promise::Blocked, Promise::Lost, Promise::ProtectedOrLost]
        {
            assert!(
                !Seen { clear: 0, esp: 0, arrived: 1 }.keeps(promise, Way::Forged, false),
                "{promise:?}"
            );
        }
    }
}
