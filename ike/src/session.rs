//! A session: an established ISAKMP SA with the exchanges under it, the same for both roles.
//!
//! Either side may begin exchanges under the SA; its message identifiers are the session's, and
//! each begins one exchange (RFC 2408 §3.1), whoever chose it.

use std::collections::{BTreeMap, BTreeSet};

use core::fmt::Debug;

pub use crate::address::PeerAddress;
use crate::config::{Identity, PeerCredential};
use crate::crypto::SeededRng;
use crate::error::{Error, NotAccepted};
use crate::phase1::{Cookies, HashVerified, Informational, IsakmpSa};
use crate::retransmission::Answered;
use crate::time::BootTime;
use crate::wire::delete::Delete;
use crate::wire::notify::Notification;

/// An exchange under an ISAKMP SA, as far as the session has to know it.
pub trait Exchange: Debug {
    /// Names the exchange while the endpoint exists.
    type Id: Copy + Ord + Debug;

    fn id(&self) -> Self::Id;

    /// Whether it has not come to its end. A finished one is kept for copies of its last request.
    fn is_running(&self) -> bool;

    /// When it is given up, or forgotten.
    fn deadline(&self) -> BootTime;
}

/// An ISAKMP SA and what happens under it. `X` is an exchange of the protocol above.
#[derive(Debug)]
pub struct Session<X> {
    sa: IsakmpSa,
    address: PeerAddress,
    /// Where phase 1 found the peer.
    origin: PeerAddress,
    since: BootTime,
    expires: BootTime,
    /// What phase 1 was authenticated with, if the peer began it: the session ends when that is
    /// replaced.
    credential: Option<PeerCredential>,
    /// The last message of phase 1 that we answered, and the answer, which may have been lost.
    phase1: Option<Answered>,
    exchanges: BTreeMap<u32, X>,
    /// Message identifiers that the peer has used.
    used: BTreeSet<u32>,
    /// Message IDs of exchanges that we began.
    own: BTreeSet<u32>,
    /// How many the peer may use.
    most: usize,
}

impl<X> Session<X> {
    /// The session of an ISAKMP SA that was established at `now`.
    pub fn new(sa: IsakmpSa, address: PeerAddress, now: BootTime) -> Self {
        let expires = now + sa.lifetime();
        let (exchanges, used, own) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self {
            sa,
            address,
            origin: address,
            since: now,
            expires,
            credential: None,
            phase1: None,
            exchanges,
            used,
            own,
            most: MESSAGE_IDS,
        }
    }

    /// Keeps what phase 1 was authenticated with, and the answer to its last message for copies of
    /// that message.
    #[must_use]
    pub fn with_phase1(self, credential: PeerCredential, answered: Answered) -> Self {
        Self { credential: Some(credential), phase1: Some(answered), ..self }
    }

    /// Keeps what phase 1 was authenticated with.
    #[must_use]
    pub fn with_credential(self, credential: PeerCredential) -> Self {
        Self { credential: Some(credential), ..self }
    }

    /// Keeps our last message of phase 1 for copies of the one that it answered.
    #[must_use]
    pub fn with_answer(self, answered: Answered) -> Self {
        Self { phase1: Some(answered), ..self }
    }

    /// Makes room for the questions and answers of dead peer detection, which go on for as long as
    /// the ISAKMP SA lives.
    #[must_use]
    pub fn with_dead_peer_detection(self) -> Self {
        Self { most: MESSAGE_IDS_WITH_DETECTION, ..self }
    }

    /// What phase 1 was authenticated with, if the peer began it.
    pub fn credential(&self) -> Option<&PeerCredential> {
        self.credential.as_ref()
    }

    pub fn sa(&self) -> &IsakmpSa {
        &self.sa
    }

    /// The cookie pair, which names the session.
    pub fn cookies(&self) -> Cookies {
        self.sa.cookies()
    }

    /// Where the peer is.
    pub fn address(&self) -> PeerAddress {
        self.address
    }

    /// Where phase 1 found the peer: its credential is the one for this address, wherever it went
    /// since.
    pub fn origin(&self) -> PeerAddress {
        self.origin
    }

    /// The peer has said something fresh and authentic from `address`: it is there now. Returns
    /// where it was if that is somewhere else.
    ///
    /// `proof` must come from a message that the session has not heard before. One of another
    /// session moves nothing.
    pub(crate) fn follow(
        &mut self,
        proof: &HashVerified,
        address: PeerAddress,
    ) -> Option<PeerAddress> {
        let moved = proof.cookies() == self.cookies() && address != self.address;
        moved.then(|| core::mem::replace(&mut self.address, address))
    }

    /// The identity that the peer proved.
    pub fn identity(&self) -> &Identity {
        self.sa.peer_identity()
    }

    /// When the ISAKMP SA was established.
    pub fn since(&self) -> BootTime {
        self.since
    }

    /// When the ISAKMP SA ends.
    pub fn expires(&self) -> BootTime {
        self.expires
    }

    /// What phase 1 answered last.
    pub fn phase1(&mut self) -> Option<&mut Answered> {
        self.phase1.as_mut()
    }

    /// Exchanges by message identifier.
    pub fn exchanges(&self) -> &BTreeMap<u32, X> {
        &self.exchanges
    }

    pub fn exchanges_mut(&mut self) -> impl Iterator<Item = &mut X> {
        self.exchanges.values_mut()
    }

    /// An exchange, with the SA that it runs under.
    pub fn exchange_mut(&mut self, message_id: u32) -> Option<(&mut X, &IsakmpSa)> {
        Some((self.exchanges.get_mut(&message_id)?, &self.sa))
    }

    /// Puts `exchange` in the place of the one with this message identifier, which it returns.
    pub fn put(&mut self, message_id: u32, exchange: X) -> Option<X> {
        self.exchanges.insert(message_id, exchange)
    }

    /// Removes an exchange. Its message identifier stays used.
    pub fn take(&mut self, message_id: u32) -> Option<X> {
        self.exchanges.remove(&message_id)
    }

    /// Whether `message_id` may begin an exchange.
    ///
    /// # Errors
    /// It was used before, by either side, or the peer has begun as many exchanges as it may.
    pub fn may_begin(&self, message_id: u32) -> Result<(), NotAccepted> {
        if self.used.contains(&message_id) || self.own.contains(&message_id) {
            return Err(NotAccepted::Replayed);
        }
        // Forgetting any would let a recorded message begin again; a new phase 1 is cheap for an
        // honest peer.
        if self.used.len() >= self.most { Err(NotAccepted::ExchangeLimit) } else { Ok(()) }
    }

    /// An authentic message of the peer has used `message_id`.
    pub fn begin(&mut self, message_id: u32) {
        self.used.insert(message_id);
    }

    /// A message identifier for an exchange of ours. It takes no place of the peer's.
    pub fn begin_own(&mut self, rng: &mut SeededRng) -> u32 {
        loop {
            let message_id = rng.message_id();
            if !self.used.contains(&message_id) && self.own.insert(message_id) {
                return message_id;
            }
        }
    }

    /// Writes a protected notification, an exchange of its own: its message identifier is used up,
    /// so that nobody can reflect our own messages to us as the peer's.
    ///
    /// # Errors
    /// SPI or data do not fit.
    pub fn notify(
        &mut self,
        notification: Notification,
        rng: &mut SeededRng,
    ) -> Result<Vec<u8>, Error> {
        let message_id = self.begin_own(rng);
        self.sa.seal_notification(notification, message_id)
    }

    /// Writes a protected Delete of the ISAKMP SA, an exchange of its own.
    ///
    /// # Errors
    /// None in practice: a delete of one SA always fits.
    pub fn seal_delete(&mut self, rng: &mut SeededRng) -> Result<Vec<u8>, Error> {
        let message_id = self.begin_own(rng);
        self.sa.seal_delete(message_id)
    }

    /// Writes a protected Delete of SAs of phase 2, an exchange of its own.
    ///
    /// # Errors
    /// Too many SPIs for one message.
    pub fn seal_delete_of(
        &mut self,
        delete: Delete,
        rng: &mut SeededRng,
    ) -> Result<Vec<u8>, Error> {
        let message_id = self.begin_own(rng);
        self.sa.seal_delete_of(delete, message_id)
    }

    /// Reads a protected Informational message that was not heard before, and returns the proof of
    /// it as well.
    ///
    /// # Errors
    /// It was heard before, is not authentic, or the session has carried as many exchanges as it
    /// may. A forgery does not use its message identifier up.
    pub fn open_informational(
        &mut self,
        message_id: u32,
        datagram: &[u8],
    ) -> Result<(Vec<Informational>, HashVerified), Error> {
        self.may_begin(message_id)?;
        let said = self.sa.open_informational(datagram)?;
        self.begin(message_id);
        Ok(said)
    }

    /// Whether one of `said` deletes this ISAKMP SA.
    pub fn is_deleted_by(&self, said: &[Informational]) -> bool {
        said.iter().any(
            |said| matches!(said, Informational::Delete(delete) if self.sa.is_deleted_by(delete)),
        )
    }
}

impl<X: Exchange> Session<X> {
    /// How many exchanges have not come to their end.
    pub fn running(&self) -> usize {
        self.exchanges.values().filter(|exchange| exchange.is_running()).count()
    }

    /// The oldest finished exchange, if more than `allowed` are kept.
    pub fn surplus(&self, allowed: usize) -> Option<u32> {
        let finished = self.exchanges.iter().filter(|(_, exchange)| !exchange.is_running());
        let oldest =
            finished.clone().min_by_key(|(_, exchange)| (exchange.deadline(), exchange.id()))?;
        (finished.count() > allowed.max(1)).then_some(*oldest.0)
    }
}

/// Exchanges that the peer may begin under one session.
const MESSAGE_IDS: usize = 4096;

/// The same where the peer also asks and answers: a day with both every other second.
const MESSAGE_IDS_WITH_DETECTION: usize = 131_072;

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::SocketAddr;

    use crate::crypto::SeededRng;
    use crate::testing::worked_isakmp_sa;
    use crate::wire::header;
    use crate::wire::registry::NotifyType;

    fn session() -> Session<()> {
        let address = SocketAddr::from(([192, 0, 2, 1], 848));
        let address = PeerAddress { remote: address, local: address };
        Session::new(worked_isakmp_sa(), address, BootTime::default())
    }

    fn hear(session: &mut Session<()>, datagram: &[u8]) -> Result<Vec<Informational>, Error> {
        let message_id = header::split(datagram).unwrap().0.message_id;
        Ok(session.open_informational(message_id, datagram)?.0)
    }

    fn refusal(rng: &mut SeededRng) -> Vec<u8> {
        let sa = worked_isakmp_sa();
        let notification = sa.notification(NotifyType::INVALID_ID_INFORMATION);
        sa.seal_notification(notification, rng.message_id()).unwrap()
    }

    /// Otherwise the recorded refusal of one pull would end every later one under the same ISAKMP
    /// SA.
    #[test]
    fn an_informational_message_counts_once() {
        let rng = &mut SeededRng::from_seed([5; 32]);
        let (first, second) = (refusal(rng), refusal(rng));
        let mut session = session();
        assert_eq!(hear(&mut session, &first).unwrap().len(), 1);
        assert_eq!(hear(&mut session, &second).unwrap().len(), 1);
        for datagram in [&first, &second] {
            assert_eq!(hear(&mut session, datagram), Err(NotAccepted::Replayed.into()));
        }
    }

    #[test]
    fn a_forgery_does_not_use_an_identifier_up() {
        let datagram = refusal(&mut SeededRng::from_seed([5; 32]));
        let mut forged = datagram.clone();
        *forged.last_mut().unwrap() ^= 1;
        let mut session = session();
        assert!(hear(&mut session, &forged).is_err());
        assert!(hear(&mut session, &datagram).is_ok());
    }

    #[test]
    fn informational_messages_are_bounded() {
        let rng = &mut SeededRng::from_seed([5; 32]);
        let mut session = session();
        session.used = (1..=MESSAGE_IDS as u32).collect();
        assert_eq!(hear(&mut session, &refusal(rng)), Err(NotAccepted::ExchangeLimit.into()));
        assert_eq!(session.used.len(), MESSAGE_IDS);
    }

    /// Both sides' Informational messages have one form and one key.
    #[test]
    fn what_we_said_is_not_taken_for_the_peers_word() {
        let rng = &mut SeededRng::from_seed([5; 32]);
        let mut session = session();
        let notification = session.sa().notification(NotifyType::INVALID_ID_INFORMATION);
        let said = [session.notify(notification, rng), session.seal_delete(rng)];
        for datagram in said {
            let reflected = hear(&mut session, &datagram.unwrap());
            assert_eq!(reflected, Err(NotAccepted::Replayed.into()));
        }
    }

    #[test]
    fn an_identifier_of_ours_is_used_up_for_the_peer_too() {
        let rng = &mut SeededRng::from_seed([5; 32]);
        let mut session = session();
        let message_id = session.begin_own(rng);
        assert_eq!(session.may_begin(message_id), Err(NotAccepted::Replayed));
        assert_ne!(session.begin_own(rng), message_id);
    }
}
