//! One pair of ESP SAs of a tunnel, from the moment it was negotiated to its end.
//!
//! ```text
//! prepared --confirmed--> sent on --------------------+--> rekeyed --> replaced --> gone
//!   received on           (at once, or a moment later |                (grace)
//!                          where another is sent on)  +--> expired
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ike::BootTime;
use ike::phase1::Role;
use ike::quick::Child;
use ike::session::PeerAddress;

/// A peer installs what it negotiated when message 3 arrives: it is given this time before the
/// first packet comes on a new SA while an old one is there.
const SWITCH: Duration = Duration::from_secs(1);
/// How long a replaced pair is received on: packets under way, and a peer that switches later.
const GRACE: Duration = Duration::from_secs(5);

/// A pair of SAs.
#[derive(Debug)]
pub struct Pair {
    pub sas: Child,
    /// Where the peer is.
    pub address: PeerAddress,
    role: Role,
    since: BootTime,
    rekey_at: BootTime,
    expires: BootTime,
    /// From when it is sent on, if nothing newer is.
    send_from: Option<BootTime>,
    /// Pairs that this one replaces, by our SPIs: they were there when we asked for it.
    replaces: BTreeSet<u32>,
    /// When it goes, because another one has taken its place.
    retires: Option<BootTime>,
}

impl Pair {
    /// A pair that was negotiated at `now`. `jitter` spreads renewals, 0 to 255: two sides that
    /// began together should not renew together.
    pub fn new(
        sas: Child,
        address: PeerAddress,
        role: Role,
        replaces: BTreeSet<u32>,
        jitter: u8,
        now: BootTime,
    ) -> Self {
        let lifetime = sas.lifetime;
        let margin = margin(lifetime);
        let jitter = margin * u32::from(jitter) / 512;
        // Who asked for it renews it; the other side does when that does not happen.
        let early = match role {
            Role::Initiator => margin + jitter,
            Role::Responder => margin / 2 - jitter / 2,
        };
        Self {
            sas,
            address,
            role,
            since: now,
            rekey_at: now + lifetime.saturating_sub(early),
            expires: now + lifetime,
            send_from: None,
            replaces,
            retires: None,
        }
    }

    /// The SPI of the inbound SA, which we chose.
    pub fn spi(&self) -> u32 {
        self.sas.inbound.spi
    }

    /// The address that it is sent on to.
    pub fn remote(&self) -> IpAddr {
        self.address.remote.ip()
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn since(&self) -> BootTime {
        self.since
    }

    pub fn expires(&self) -> BootTime {
        self.expires
    }

    /// Both sides have the keys. `others` says whether another pair is sent on meanwhile.
    pub fn confirm(&mut self, others: bool, now: BootTime) {
        if self.send_from.is_none() {
            let waits = others && self.role == Role::Initiator;
            self.send_from = Some(if waits { now + SWITCH } else { now });
        }
    }

    /// Whether it may be sent on now.
    pub fn sends(&self, now: BootTime) -> bool {
        self.send_from.is_some_and(|from| from <= now) && now < self.expires
    }

    /// Since when it may be sent on: the latest one is.
    pub fn send_from(&self) -> Option<BootTime> {
        self.send_from
    }

    /// Whether a new one is due.
    pub fn is_due(&self, now: BootTime) -> bool {
        self.rekey_at <= now
    }

    /// The kernel says that it has carried nearly all that it may: a new one is due.
    pub fn near_end(&mut self, now: BootTime) {
        self.rekey_at = self.rekey_at.min(now);
    }

    /// The kernel has ended it.
    pub fn ended(&mut self, now: BootTime) {
        self.expires = self.expires.min(now);
    }

    /// What it takes the place of, once it is sent on.
    pub fn replaced(&self, now: BootTime) -> Option<&BTreeSet<u32>> {
        self.sends(now).then_some(&self.replaces)
    }

    /// Another one is sent on now that was asked for in its place.
    pub fn retire(&mut self, now: BootTime) {
        self.retires.get_or_insert(now + GRACE);
    }

    /// Whether its time is over.
    pub fn is_over(&self, now: BootTime) -> bool {
        self.expires <= now || self.retires.is_some_and(|at| at <= now)
    }

    /// When the next of these is due.
    pub fn next(&self, now: BootTime) -> Option<BootTime> {
        let all = [self.send_from, Some(self.rekey_at), Some(self.expires), self.retires];
        all.into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// How long before its end a pair is renewed: a tenth of its lifetime, within bounds.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).clamp(Duration::from_secs(10), Duration::from_secs(540)).min(lifetime / 2)
}
