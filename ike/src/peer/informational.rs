//! Informational exchanges with a peer: deletes, refusals, and whether it is alive.

use super::exchange::Phase;
use super::{ChildFailure, Peer, PeerEvent};
use crate::dead_peer_detection::{DeadPeerDetection, Due, Heard};
use crate::endpoint::{Inbound, SessionEnd};
use crate::error::Error;
use crate::phase1::{Cookies, Informational};
use crate::time::BootTime;
use crate::wire::delete::Delete;
use crate::wire::notify::Notification;
use crate::wire::registry::{Doi, NotifyType, ProtocolId};

impl Peer {
    pub(super) fn handle_informational(
        &mut self,
        cookies: Cookies,
        message_id: u32,
        inbound: Inbound<'_>,
    ) -> Result<(), Error> {
        let session = self.endpoint.session_at(&cookies, inbound.source)?;
        let (said, proof) = session.open_informational(message_id, inbound.datagram)?;
        let deleted = session.is_deleted_by(&said);
        self.endpoint.follow(&proof, &inbound);
        for said in said {
            match said {
                Informational::Delete(delete) => self.handle_delete(&delete),
                Informational::Notification(notification) => {
                    self.handle_notification(&cookies, &notification, inbound.now);
                }
            }
        }
        if deleted {
            self.endpoint.end(&cookies, SessionEnd::DeletedByPeer);
        }
        Ok(())
    }

    fn handle_delete(&mut self, delete: &Delete) {
        if delete.protocol != ProtocolId::IPSEC_ESP {
            return;
        }
        let spi =
            |octets: &Vec<u8>| <[u8; 4]>::try_from(octets.as_slice()).ok().map(u32::from_be_bytes);
        let spis: Vec<u32> = delete.spis.iter().filter_map(spi).collect();
        if !spis.is_empty() {
            self.events.push_back(PeerEvent::Deleted { spis });
        }
    }

    fn handle_notification(
        &mut self,
        cookies: &Cookies,
        notification: &Notification,
        now: BootTime,
    ) {
        let session = self.endpoint.session(cookies);
        if let (Some(detection), Some(session)) = (self.detection.get_mut(cookies), session)
            && let Heard::Answer(answer) = detection.handle(session.sa(), notification, now)
        {
            self.say(cookies, answer);
        }
        match notification.kind {
            kind if kind.is_error() => self.handle_refusal(cookies, kind, now),
            _ => {}
        }
    }

    /// The peer refuses a Quick Mode. Hardly any says which: it is taken for the answer to all that
    /// wait for one under this ISAKMP SA.
    fn handle_refusal(&mut self, cookies: &Cookies, kind: NotifyType, now: BootTime) {
        let Some(session) = self.endpoint.session(cookies) else { return };
        let waiting = |(message_id, quick): (&u32, &super::Quick)| match quick.phase {
            Phase::ExpectChoice(..) => Some((*message_id, quick.child)),
            _ => None,
        };
        let refused: Vec<(u32, usize)> = session.exchanges().iter().filter_map(waiting).collect();
        for (message_id, child) in refused {
            self.finish(cookies, message_id, None, now);
            self.fail(child, ChildFailure::Refused(kind));
        }
    }

    pub(super) fn say_delete(&mut self, cookies: &Cookies, spis: &[u32]) {
        let delete = Delete {
            doi: Doi::IPSEC,
            protocol: ProtocolId::IPSEC_ESP,
            spi_size: 4,
            spis: spis.iter().map(|spi| spi.to_be_bytes().to_vec()).collect(),
        };
        let Some((session, rng)) = self.endpoint.session_and_rng(cookies) else { return };
        if let Ok(message) = session.seal_delete_of(delete, rng) {
            self.transmit(message);
        }
    }

    /// Begins to ask whether the peer is there, if that is configured.
    pub(super) fn detect(&mut self, cookies: Cookies, now: BootTime) {
        let Some(session) = self.endpoint.session(&cookies) else { return };
        let settings = self.config.dead_peer_detection;
        let detection = DeadPeerDetection::new(settings, session.sa(), &mut self.rng, now);
        self.detection.insert(cookies, detection);
    }

    pub(super) fn ask_peer(&mut self, now: BootTime) {
        let all: Vec<Cookies> = self.detection.keys().copied().collect();
        for cookies in all {
            let session = self.endpoint.session(&cookies);
            let (Some(detection), Some(session)) = (self.detection.get_mut(&cookies), session)
            else {
                continue;
            };
            match detection.handle_timeout(session.sa(), now) {
                Due::NotYet => {}
                Due::Ask(question) => self.say(&cookies, question),
                Due::Dead => {
                    // A peer may have forgotten an ISAKMP SA that a newer one took the place of.
                    let newest = self.sessions.last() == Some(&cookies);
                    self.endpoint.end(&cookies, SessionEnd::Here);
                    if newest {
                        self.events.push_back(PeerEvent::Dead);
                    }
                }
            }
        }
    }

    fn say(&mut self, cookies: &Cookies, notification: Notification) {
        let Some((session, rng)) = self.endpoint.session_and_rng(cookies) else { return };
        if let Ok(message) = session.notify(notification, rng) {
            self.transmit(message);
        }
    }
}
