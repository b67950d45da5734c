//! The push side of a membership (RFC 6407 §4): what the key server sends by itself, and what
//! becomes of it.
//!
//! A push is carried out in this order: deletes, new keys, the kernel, and only then its
//! acknowledgement (RFC 8263 §4). One that is authentic and cannot be used changes no key: the
//! group pulls again (RFC 6407 §4.4).

use std::net::SocketAddr;

use gdoi::error::Error;
use gdoi::event::Transmit;
use gdoi::group::GroupSa;
use gdoi::push::{Deletion, KekChange, PushAccepted, RekeyEvent, RekeyMember, RekeySettings};
use ike::BootTime;

use super::error::{PushRejected, RekeySaUnusable};
use super::kernel_policy;
use super::rekey_sa::Rekey;
use super::{Event, Membership};
use crate::membership::failover::SPREAD;
use crate::membership::key_generations::KeyGenerations;
use crate::membership::local_interface::{Multicast, vrf_of};

impl Membership {
    /// The rekey SA and what has come under it.
    pub fn rekey(&self) -> &Rekey {
        &self.rekey
    }

    /// Whether pushes under the KEK with this SPI are for this group.
    pub fn has_kek(&self, spi: &[u8; 16]) -> bool {
        self.rekey.member.as_ref().is_some_and(|member| member.has_spi(spi))
    }

    /// A push arrived from `source` at `local`, our address or a multicast group.
    ///
    /// # Errors
    /// It is discarded and nothing changed.
    pub fn handle_push(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let Some(member) = &mut self.rekey.member else {
            return Err(ike::error::NotAccepted::UnknownCookies.into());
        };
        let spi = member.policy().map(|policy| policy.spi);
        let result = member.handle_datagram(source, local, datagram, now);
        if let Err(error) = &result {
            let count = self.rekey.discards.entry(error.reason()).or_insert(0);
            *count = count.saturating_add(1);
        }
        let turn = match local.ip().is_multicast() {
            true => now + self.jitter.below(self.config.acknowledgement_jitter),
            false => now,
        };
        self.follow_rekey(spi, turn, now);
        self.drive(now);
        result
    }

    /// The kernel holds what this group wants: acknowledgements may leave.
    pub fn handle_applied(&mut self, now: BootTime) {
        if let Some((sequence_number, received)) = self.rekey.under_way.take() {
            let after = now.saturating_since(received);
            let microseconds = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            self.counters.push_to_kernel_microseconds = microseconds;
            let longest = &mut self.counters.push_to_kernel_longest_microseconds;
            *longest = microseconds.max(*longest);
            self.events.push_back(Event::PushApplied { sequence_number, after });
        }
        for acknowledgement in self.rekey.acknowledgements.handle_applied(now) {
            self.send_acknowledgement(acknowledgement);
        }
    }

    /// The multicast group that pushes come by, and where to join it.
    pub fn multicast(&self) -> Option<Multicast> {
        let destination = &self.rekey.member.as_ref()?.policy()?.destination;
        let group = destination.address().filter(|one| one.is_ipv4() && one.is_multicast())?;
        let local = self.local.as_ref().ok()?;
        let (interface, vrf) = match &self.config.multicast_interface {
            Some(name) => {
                let interface = self.interfaces.get(name)?;
                (interface.index, vrf_of(name, interface))
            }
            None => (local.index, local.vrf.clone()),
        };
        let port = match destination.port {
            0 => crate::config::GDOI_PORT,
            port => port,
        };
        Some(Multicast { group, port, interface, vrf })
    }

    /// Takes the rekey SA of a pull into use. Under the same KEK used numbers stay used.
    ///
    /// # Errors
    /// The rekey SA cannot be used; the one before stays.
    pub(super) fn start_rekey(
        &mut self,
        sa: &GroupSa,
        now: BootTime,
    ) -> Result<(), RekeySaUnusable> {
        let local = self.local.as_ref().map_err(Clone::clone)?;
        let settings = RekeySettings {
            address: SocketAddr::new(local.address, self.local_port),
            acknowledgement_length: self.config.acknowledgement_length,
            selector_byte_order: self.config.selector_byte_order,
            legacy: self.config.legacy,
        };
        let new = RekeyMember::new(sa, settings, now)?;
        self.rekey.member = match (new, self.rekey.member.take()) {
            (Some(new), Some(earlier)) => Some(new.continuing(earlier)),
            (new, _) => new,
        };
        if let (Some(member), Some((spi, number))) = (&mut self.rekey.member, self.rekey.used) {
            member.note_sequence_number(&spi, number);
        }
        Ok(())
    }

    /// Goes on with the rekey SA of an earlier run, if its lifetime is not over.
    pub(super) fn resume_rekey(&mut self, now: BootTime) {
        let Some(kept) = self.rekey.resumed.take_if(|_| self.local.is_ok()) else { return };
        if kept.end <= now || self.rekey.member.is_some() {
            return;
        }
        match self.start_rekey(&kept.sa, now) {
            Ok(()) => {
                let member = self.rekey.member.take();
                self.rekey.member = member.map(|member| member.ending_by(kept.end));
            }
            Err(reason) => self.events.push_back(Event::KekUnusable { reason }),
        }
    }

    pub(super) fn handle_rekey_timeout(&mut self, now: BootTime) {
        if let Some(member) = &mut self.rekey.member {
            member.handle_timeout(now);
        }
        self.follow_rekey(None, now, now);
    }

    /// `spi`: of the KEK under which something may have come; `turn`: when it may be acknowledged.
    fn follow_rekey(&mut self, spi: Option<[u8; 16]>, turn: BootTime, now: BootTime) {
        while let Some(event) = self.rekey.member.as_mut().and_then(RekeyMember::poll_event) {
            match event {
                RekeyEvent::Accepted(push) => {
                    self.rekey.used =
                        spi.map(|spi| (spi, push.sequence_number)).or(self.rekey.used);
                    self.carry_out(*push, turn, now);
                }
                RekeyEvent::Unusable { sequence_number, error } => {
                    self.rekey.used = spi.map(|spi| (spi, sequence_number)).or(self.rekey.used);
                    // Only what has changed is written down.
                    self.changed = true;
                    self.give_push_up(sequence_number, error.into(), now);
                }
                RekeyEvent::Expired => {
                    self.events.push_back(Event::KekExpired);
                    self.failover.renew(SPREAD, now);
                }
            }
        }
        while let Some(copy) = self.rekey.member.as_mut().and_then(RekeyMember::poll_transmit) {
            // While the first one still waits, a copy of its push has nothing to say.
            if self.rekey.acknowledgements.is_empty() {
                self.rekey.acknowledgements.push(copy, turn);
            }
        }
    }

    fn carry_out(&mut self, push: PushAccepted, turn: BootTime, now: BootTime) {
        let PushAccepted { sequence_number, deletions, group_sa, kek, acknowledgement } = push;
        let fresh = group_sa.filter(|sa| !sa.policy().teks.is_empty());
        let spis = fresh.iter().flat_map(|sa| sa.tek_keys().keys().copied()).collect();
        let merged = match fresh.map(|sa| self.try_out(sa, &deletions, now)).transpose() {
            Ok(merged) => merged,
            Err(reason) => {
                self.give_push_up(sequence_number, reason, now);
                return;
            }
        };
        let had_teks = !self.generations.is_empty(now);
        self.generations.push(merged, &deletions, now);
        self.changed = true;
        self.counters.pushes_accepted = self.counters.pushes_accepted.saturating_add(1);
        self.events.push_back(Event::Pushed {
            sequence_number,
            spis,
            deletions: deletions.len(),
            kek,
        });
        self.rekey.under_way = Some((sequence_number, now));
        if let Some(acknowledgement) = acknowledgement {
            self.rekey.acknowledgements.push(acknowledgement, turn);
        }
        if let Some(end) = self.generations.first_end(now) {
            self.had_keys = true;
            let ends = std::iter::once(end).chain(self.rekey.expiry());
            self.failover.handle_pushed(self.last_server.unwrap_or(0), ends, now);
        } else {
            // All that is in use was deleted; a push with new TEKs may follow, or not.
            self.failover.renew(SPREAD, now);
        }
        if had_teks && self.generations.is_empty(now) {
            self.failover.handle_deleted();
            self.events.push_back(Event::TeksDeleted);
        }
        if kek == KekChange::Deleted {
            self.failover.renew(SPREAD, now);
        }
    }

    /// Puts pushed TEKs over those in use, if the kernel can do the result: nothing of a push is
    /// carried out, its deletes included, when that is not so.
    fn try_out(
        &self,
        sa: GroupSa,
        deletions: &[Deletion],
        now: BootTime,
    ) -> Result<GroupSa, PushRejected> {
        let merged = self.generations.merged(sa, deletions);
        kernel_policy::check(merged.policy(), &self.config)?;
        let mut candidate = KeyGenerations::default();
        candidate.add(merged, now);
        self.try_candidate(&candidate, now)?;
        candidate.take_latest().ok_or(PushRejected::Expired)
    }

    fn give_push_up(&mut self, sequence_number: u32, reason: PushRejected, now: BootTime) {
        self.rekey.suppress_acknowledgements();
        self.counters.pushes_unusable = self.counters.pushes_unusable.saturating_add(1);
        self.events.push_back(Event::PushUnusable { sequence_number, reason });
        self.failover.renew(SPREAD, now);
    }

    /// Our own address is known when a push is handled; it may be gone when its acknowledgement
    /// leaves.
    fn send_acknowledgement(&mut self, acknowledgement: Transmit) {
        let ours = self.local.as_ref().ok().map(|local| local.address);
        if ours == Some(acknowledgement.source.ip()) {
            self.counters.acknowledgements_sent =
                self.counters.acknowledgements_sent.saturating_add(1);
            self.transmits.push_back(acknowledgement);
        }
    }
}
