//! Site-to-site tunnels: one value that owns them all, without clock, sockets or kernel.
//!
//! After every `handle_*` and command, log [`Tunnels::poll_event`], put [`Tunnels::add_to`] into
//! the kernel if [`Tunnels::take_changed`], and only then send [`Tunnels::poll_transmit`]: an SA
//! that the peer may send on is in the kernel before the message leaves that tells it so.

mod child_sa;
mod flow;
mod kernel;
mod paths;
pub mod show;
pub mod state;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use gdoi::event::Transmit;
use ike::config::Phase1Mode;
use ike::error::{Error, PeerMisbehaved};
use ike::peer::Foreign;
use ike::phase1::{NatTraversal, aggressive, nat_traversal};
use ike::quick::Selectors;
use ike::{BootTime, WallClock};
use policies::precedence::tunnel_reqids;
use tracing::error;
use xfrm::Desired;
use xfrm::model::{Reqid, SaId};

use crate::config::tunnel as config;
use crate::membership::Seeds;
use state::{Tunnel, is_meant, stray};

/// UDP port of IKE (RFC 2408 §2.5.1).
pub const IKE_PORT: u16 = ike::config::IKE_PORT;

/// What happened to a tunnel, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is an ISAKMP SA.
    Connected {
        /// The peer has lost what it had before.
        restarted: bool,
    },
    IsakmpSaEnded,
    /// There are SAs for a pair of networks.
    Negotiated {
        selectors: Selectors,
        /// The SPI of the inbound SA, which we chose.
        spi: u32,
        /// Whether others are replaced by them.
        rekeyed: bool,
    },
    /// Address translation gave the peer another address or port.
    Moved {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// The peer has deleted the SAs of a pair of networks.
    DeletedByPeer {
        selectors: Selectors,
    },
    /// A negotiation failed, or a request of the peer was refused.
    Failed {
        reason: String,
    },
}

/// A peer proved an identity that no tunnel at its address waits for.
fn no_owner(answered: &config::Tunnel, foreign: &Foreign) -> Error {
    let expected = answered.peer_identity.clone();
    PeerMisbehaved::WrongIdentity { expected, proved: foreign.identity().clone() }.into()
}

pub struct Tunnels {
    tunnels: Vec<Tunnel>,
    seeds: Seeds,
    /// Messages of tunnels that are gone.
    parting: VecDeque<Transmit>,
    changed: bool,
    wall_clock: WallClock,
    /// What gateways carry at most.
    bandwidth: BTreeMap<String, u64>,
}

impl Default for Tunnels {
    /// No tunnel, with seeds of the operating system.
    fn default() -> Self {
        Self::new(Box::new(daemon::entropy::seed))
    }
}

impl Tunnels {
    /// No tunnel yet: [`Tunnels::configure`] makes them.
    pub fn new(seeds: Seeds) -> Self {
        let (tunnels, parting, wall_clock) = (Vec::new(), VecDeque::new(), WallClock::default());
        let bandwidth = BTreeMap::new();
        Self { tunnels, seeds, parting, changed: false, wall_clock, bandwidth }
    }

    /// What time it is from now on, for certificates.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
        self.tunnels.iter_mut().for_each(|tunnel| tunnel.set_wall_clock(wall_clock));
    }

    /// Changes over to another configuration. A tunnel that is as it was goes on, and so does one
    /// with another certificate or key, whose SAs stay; one that has changed otherwise ends and is
    /// set up again; one that is gone ends. The peers are told.
    pub fn configure(&mut self, configs: &[config::Tunnel], now: BootTime) {
        let mut before = std::mem::take(&mut self.tunnels);
        let is_kept = |tunnel: &config::Tunnel| {
            configs.iter().any(|config| tunnel.differs_by_credential(config))
        };
        let mut kept: Vec<Tunnel> =
            before.extract_if(.., |tunnel| is_kept(tunnel.config())).collect();
        for mut gone in before {
            gone.stop(now);
            self.parting.extend(std::iter::from_fn(|| gone.poll_transmit()));
            self.changed = true;
        }
        for config in configs {
            let same = |tunnel: &Tunnel| tunnel.config().differs_by_credential(config);
            if let Some(place) = kept.iter().position(same) {
                let mut tunnel = kept.remove(place);
                if tunnel.config() != config {
                    tunnel.set_credential(config, now);
                }
                self.tunnels.push(tunnel);
                continue;
            }
            let taken: BTreeSet<u16> = self
                .tunnels
                .iter()
                .chain(&kept)
                .flat_map(|tunnel| tunnel.flows().iter().map(|flow| flow.number))
                .collect();
            let numbers: Vec<(u16, Reqid, Reqid)> = (0..=u16::MAX)
                .filter(|number| !taken.contains(number))
                .map_while(|number| tunnel_reqids(number).map(|(out, inb)| (number, out, inb)))
                .take(config.pairs().count())
                .collect();
            match (self.seeds)() {
                Ok(seed) => {
                    let mut tunnel = Tunnel::new(config.clone(), &numbers, seed);
                    tunnel.set_wall_clock(self.wall_clock);
                    tunnel.handle_timeout(now);
                    self.tunnels.push(tunnel);
                    self.changed = true;
                }
                Err(error) => {
                    error!(
                        event = "no-randomness",
                        tunnel = %config.name,
                        %error,
                        "tunnel cannot be started; it starts with the next reload"
                    );
                }
            }
        }
    }

    /// Takes over what gateways carry at most; no SA is touched.
    pub fn set_bandwidth(&mut self, gateways: &[config::GatewayConfig]) {
        let figure = |config: &config::GatewayConfig| {
            Some((config.gateway.name.clone(), config.octets_per_second()?))
        };
        let bandwidth = gateways.iter().filter_map(figure).collect();
        self.changed |= self.bandwidth != bandwidth;
        self.bandwidth = bandwidth;
    }

    pub fn all(&self) -> &[Tunnel] {
        &self.tunnels
    }

    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// Addresses that IKE is spoken from: those of tunnels that are gone as well, until their peers
    /// are told.
    pub fn local_addresses(&self) -> BTreeSet<IpAddr> {
        let parting = self.parting.iter().map(|transmit| transmit.source.ip());
        self.tunnels.iter().map(|tunnel| tunnel.config().local).chain(parting).collect()
    }

    /// Addresses that tunnels may end at behind address translation.
    pub fn nat_addresses(&self) -> BTreeSet<IpAddr> {
        let looking = self.tunnels.iter().filter(|tunnel| tunnel.config().nat != NatTraversal::Off);
        looking.map(|tunnel| tunnel.config().local).collect()
    }

    /// A datagram arrived at port 500 or 4500.
    ///
    /// # Errors
    /// It is discarded, and nothing changed.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        // Whoever speaks under keys of ours is who has them, wherever it is.
        let known = |tunnel: &Tunnel| {
            tunnel.config().local == local.ip() && tunnel.peer().recognises(local, datagram)
        };
        let place = self.tunnels.iter().position(known);
        let place = place.or_else(|| self.meant_by(source, local, datagram));
        let meant = place.and_then(|place| self.tunnels.get_mut(place));
        let meant = meant.ok_or_else(|| stray(source))?;
        let mut handled = meant.handle_datagram(source, local, datagram, now);
        let foreign: Vec<Foreign> = std::iter::from_fn(|| meant.poll_foreign()).collect();
        if foreign.is_empty() {
            return handled;
        }
        let answered = meant.config().clone();
        for foreign in foreign {
            let taken = match self.owner(&answered, &foreign) {
                Some(tunnel) => tunnel.take_over(foreign, now),
                None => Err(no_owner(&answered, &foreign)),
            };
            handled = handled.and(taken);
        }
        handled
    }

    /// The tunnel that a first message is for. Aggressive mode shows whose it is; main mode does so
    /// at its end, and of several that it may be for the first answers for all.
    fn meant_by(&self, source: SocketAddr, local: SocketAddr, datagram: &[u8]) -> Option<usize> {
        let message = nat_traversal::message(local, datagram)?;
        let claimed = aggressive::claimed_identity(message);
        let meant = |exact: bool| {
            self.tunnels.iter().position(|tunnel| {
                let config = tunnel.config();
                let expected = &config.peer_identity;
                let mode = match &claimed {
                    Some(claimed) => {
                        config.mode == Phase1Mode::Aggressive && expected.covers(claimed)
                    }
                    None => config.mode == Phase1Mode::Main || !config.shares_address,
                };
                let place = exact != config.peer.is_unspecified();
                mode && place && is_meant(tunnel, source, local)
            })
        };
        let any = || self.tunnels.iter().position(|tunnel| is_meant(tunnel, source, local));
        meant(true).or_else(|| meant(false)).or_else(any)
    }

    /// The tunnel of the peer that an ISAKMP SA belongs to which the tunnel `answered` made. What
    /// admits a peer to one must be what admits it to the other: an identity is worth no more than
    /// the authorities that vouch for it.
    fn owner(&mut self, answered: &config::Tunnel, foreign: &Foreign) -> Option<&mut Tunnel> {
        self.tunnels.iter_mut().find(|tunnel| {
            let config = tunnel.config();
            config.admits_like(answered) && config.peer_identity.covers(foreign.identity())
        })
    }

    /// An ICMP unreachable for `destination` arrived; it is unauthenticated and only shortens the
    /// wait of main mode.
    pub fn handle_unreachable(&mut self, destination: SocketAddr) {
        let meant = |tunnel: &&mut Tunnel| tunnel.config().peer == destination.ip();
        self.tunnels.iter_mut().filter(meant).for_each(Tunnel::handle_unreachable);
    }

    /// Does what is due at `now`; [`poll_timeout`](Self::poll_timeout) says when to call it.
    pub fn handle_timeout(&mut self, now: BootTime) {
        self.tunnels.iter_mut().for_each(|tunnel| tunnel.handle_timeout(now));
    }

    /// The kernel says that an SA came to a limit.
    pub fn handle_limit(&mut self, id: &SaId, hard: bool, now: BootTime) {
        self.tunnels.iter_mut().for_each(|tunnel| tunnel.handle_limit(id, hard, now));
    }

    /// A packet found a policy with this reqid and no SA.
    pub fn handle_acquire(&mut self, reqid: Reqid, now: BootTime) {
        self.tunnels.iter_mut().for_each(|tunnel| tunnel.handle_acquire(reqid, now));
    }

    /// Outbound SAs that new ones have to replace soon: their sequence number is near exhaustion,
    /// or they use a counter mode, were lost and must not be reinstalled.
    pub fn handle_unfit(&mut self, senders: &BTreeSet<SaId>, now: BootTime) {
        senders.iter().for_each(|id| self.handle_limit(id, false, now));
    }

    /// Ends all tunnels, telling the peers. Their policies stay, and drop what they are for.
    pub fn stop(&mut self, now: BootTime) {
        self.tunnels.iter_mut().for_each(|tunnel| tunnel.stop(now));
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let parting = self.parting.pop_front();
        parting.or_else(|| self.tunnels.iter_mut().find_map(Tunnel::poll_transmit))
    }

    /// When [`Tunnels::handle_timeout`] is due.
    pub fn poll_timeout(&self, now: BootTime) -> Option<BootTime> {
        self.tunnels.iter().filter_map(|tunnel| tunnel.poll_timeout(now)).min()
    }

    /// Whether the kernel should hold something else than before.
    pub fn take_changed(&mut self) -> bool {
        let changed = |tunnel: &mut Tunnel| std::mem::take(&mut tunnel.changed);
        let any = self.tunnels.iter_mut().map(changed).fold(false, |any, one| any | one);
        std::mem::take(&mut self.changed) | any
    }

    /// Adds what the tunnels want in the kernel.
    pub fn add_to(&self, desired: &mut Desired, now: BootTime) {
        let beside_groups = desired.preservation.is_some();
        self.tunnels.iter().for_each(|tunnel| kernel::add(tunnel, desired, beside_groups, now));
        kernel::add_bandwidth(&self.tunnels, &self.bandwidth, desired);
    }

    /// What happened next, and to which tunnel.
    pub fn poll_event(&mut self) -> Option<(String, Event)> {
        self.tunnels.iter_mut().find_map(|tunnel| {
            if tunnel.events.is_empty() {
                return None;
            }
            Some((tunnel.config().name.clone(), tunnel.events.remove(0)))
        })
    }
}
