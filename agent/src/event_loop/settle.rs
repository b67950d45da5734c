//! What the member wants, carried out: the kernel first, datagrams afterwards.

use std::io;

use daemon::{clock, notify};
use tracing::{debug, error, warn};
use xfrm::Kernel;

use super::EventLoop;
use crate::membership::unreachable::Unreachable;
use crate::show;

/// Of a datagram that was dropped because the kernel took none in time.
const EAGAIN: i32 = 11;
/// Of a datagram that no socket could send.
const EADDRNOTAVAIL: i32 = 99;

impl<K: Kernel> EventLoop<K> {
    /// Carries out what the member wants, the kernel first and datagrams afterwards, until it wants
    /// nothing more.
    pub(super) async fn settle(&mut self) {
        loop {
            let changed = self.update_kernel().await;
            self.update_sockets();
            let sent = self.send();
            if !changed && !sent {
                return;
            }
        }
    }

    /// Returns whether the desired state was another one.
    async fn update_kernel(&mut self) -> bool {
        let now = clock::now();
        // The reason of a change comes before the change in the log.
        self.log_events();
        let tunnels_changed = self.tunnels.take_changed();
        if tunnels_changed {
            self.member.invalidate();
        }
        let outcome = self.member.poll_desired(now);
        let changed = outcome.is_some();
        if let Some(outcome) = outcome {
            for unusable in &outcome.unusable {
                error!(
                    event = "policy-unusable",
                    group = %unusable.group,
                    reason = %unusable.reason,
                    "keys of the group are not used"
                );
            }
            let mut desired = outcome.desired;
            if let Some(desired) = &mut desired {
                self.tunnels.add_to(desired, now);
                self.dataplane.foresee_exempt(desired).await;
            }
            self.checkpoint.before_change(&self.member, self.dataplane.exempt_before(), now);
            if let Some(desired) = desired {
                // Logged there, and tried again from there.
                let _ = self.dataplane.apply(desired, now).await;
            }
        }
        // Behind the change: a repair of the state before would put back what went with an address
        // or a link, and fail.
        match self.repair.take() {
            // As above.
            Some(cause) => drop(self.dataplane.repair(cause, now).await),
            None => self.dataplane.handle_timeout(now).await,
        }
        self.member.handle_near_exhaustion(self.dataplane.near_exhaustion(), now);
        self.member.handle_suppressed(self.dataplane.suppressed(), now);
        self.tunnels.handle_unfit(self.dataplane.near_exhaustion(), now);
        self.tunnels.handle_unfit(self.dataplane.suppressed(), now);
        self.member.handle_unknown_esp(self.dataplane.unknown_esp(), now);
        self.member.handle_integrity_failures(self.dataplane.integrity_failures(), now);
        if self.dataplane.last_error().is_none() {
            self.checkpoint.after_change(&self.member, clock::wall(), now);
            self.member.handle_applied(clock::now());
        }
        self.log_events();
        changed
    }

    fn update_sockets(&mut self) {
        let now = clock::now();
        for error in self.sockets.join(&self.member.multicasts(), now) {
            if let Some(pass) = self.limiter.admit("join-failed", now) {
                let suppressed = pass.suppressed;
                warn!(event = "join-failed", %error, suppressed, "multicast pushes are not received; retrying");
            }
        }
        self.sockets.set_vrfs(self.member.vrfs());
        let ike = self.ike.set(&self.tunnels.local_addresses(), now);
        let nat = self.nat.set(&self.tunnels.nat_addresses(), now);
        let gdoi = self.sockets.set(&self.member.local_addresses(), now);
        for error in gdoi.into_iter().chain(ike).chain(nat) {
            if let Some(pass) = self.limiter.admit("bind-failed", now) {
                let suppressed = pass.suppressed;
                warn!(event = "bind-failed", %error, suppressed, "socket cannot be opened; retrying");
            }
        }
    }

    /// Returns whether there was anything to send.
    fn send(&mut self) -> bool {
        let mut sent = false;
        while let Some((transmit, sockets)) =
            self.member.poll_transmit().map(|transmit| (transmit, &self.sockets)).or_else(|| {
                let transmit = self.tunnels.poll_transmit()?;
                let nat = transmit.source.port() == self.nat.port();
                Some((transmit, if nat { &self.nat } else { &self.ike }))
            })
        {
            sent = true;
            let Err(error) = sockets.send(&transmit) else { continue };
            let now = clock::now();
            if let Some(pass) = self.limiter.admit("send-failed", now) {
                let suppressed = pass.suppressed;
                warn!(event = "send-failed", %error, suppressed, "datagram not sent");
                debug!(
                    event = "send-failed",
                    destination = %transmit.destination,
                    source = %transmit.source,
                    "datagram not sent"
                );
            }
            let without_number = match error.kind() {
                io::ErrorKind::WouldBlock => EAGAIN,
                // There is no socket for the local address.
                _ => EADDRNOTAVAIL,
            };
            let error = error.raw_os_error().unwrap_or(without_number);
            let unreachable =
                Unreachable { destination: transmit.destination, error, reporter: None };
            self.member.handle_unreachable(unreachable, now);
            self.tunnels.handle_unreachable(transmit.destination);
        }
        sent
    }

    fn log_events(&mut self) {
        while let Some((index, event)) = self.member.poll_event() {
            if let Some(membership) = self.member.memberships().get(index) {
                show::log::log(membership, &event);
            }
        }
        while let Some((tunnel, event)) = self.tunnels.poll_event() {
            crate::tunnel::show::log(&tunnel, &event);
        }
    }

    pub(super) fn show_status(&mut self) {
        let failing = self.dataplane.last_error().is_some();
        let line = show::log::line(&self.member, failing, clock::now());
        // `systemctl reload` itself only sends a signal: this is where its failure is seen.
        let line =
            self.refused.as_ref().map_or(line.clone(), |refused| format!("{refused}; {line}"));
        if line != self.status_line {
            notify::status(&line);
            self.status_line = line;
        }
    }
}
