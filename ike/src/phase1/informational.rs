//! Informational exchange under an ISAKMP SA (RFC 2409 §5.7): one protected message, no answer,
//! never repeated.
//!
//! ```text
//! HDR*, HASH(1), N/D      HASH(1) = prf(SKEYID_a, M-ID | N/D)
//! ```

use super::cookies::Cookies;
use super::isakmp_sa::{HashVerified, IsakmpSa, does_not_fit};
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::wire::Payload;
use crate::wire::delete::Delete;
use crate::wire::header;
use crate::wire::notify::Notification;
use crate::wire::payload::{encode_chain, first_kind};
use crate::wire::registry::{Doi, ExchangeType, NotifyType, PayloadKind, ProtocolId};

/// What an authenticated peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Informational {
    Notification(Notification),
    /// SAs that the peer has deleted.
    Delete(Delete),
}

/// INITIAL-CONTACT for the last message of main mode that an initiator sends (RFC 2407 §4.6.3.3).
/// The type is one of the IPsec DOI.
pub(super) fn initial_contact(cookies: Cookies) -> Notification {
    Notification {
        doi: Doi::IPSEC,
        protocol: ProtocolId::ISAKMP,
        spi: cookies.spi().to_vec(),
        kind: NotifyType::INITIAL_CONTACT,
        data: Vec::new(),
    }
}

/// Whether `notification` is an INITIAL-CONTACT of the exchange `cookies`.
pub(super) fn is_initial_contact(notification: &Notification, cookies: Cookies) -> bool {
    notification.kind == NotifyType::INITIAL_CONTACT
        && notification.protocol == ProtocolId::ISAKMP
        && (notification.spi.is_empty() || notification.spi == cookies.spi())
}

impl IsakmpSa {
    /// A notification about this ISAKMP SA and the exchanges under it, without data.
    pub fn notification(&self, kind: NotifyType) -> Notification {
        let spi = self.cookies().spi().to_vec();
        Notification { doi: self.doi(), protocol: ProtocolId::ISAKMP, spi, kind, data: Vec::new() }
    }

    /// Writes a protected notification. `message_id` must be fresh under the SA:
    /// [`Session::notify`](crate::session::Session::notify) takes care of that.
    ///
    /// # Errors
    /// SPI or data do not fit.
    pub fn seal_notification(
        &self,
        notification: Notification,
        message_id: u32,
    ) -> Result<Vec<u8>, Error> {
        self.seal_informational(&[notification.into()], message_id)
    }

    /// Writes a protected delete of this ISAKMP SA. `message_id` must be fresh under the SA.
    ///
    /// # Errors
    /// None in practice: a delete of one SA always fits.
    pub fn seal_delete(&self, message_id: u32) -> Result<Vec<u8>, Error> {
        let cookies = self.cookies();
        let delete = Delete::isakmp_sa(self.doi(), cookies.initiator, cookies.responder);
        self.seal_informational(&[delete.into()], message_id)
    }

    /// Writes a protected delete of other SAs.
    ///
    /// # Errors
    /// More SPIs than a payload has room for, or of another length than it says.
    pub fn seal_delete_of(&self, delete: Delete, message_id: u32) -> Result<Vec<u8>, Error> {
        self.seal_informational(&[delete.into()], message_id)
    }

    /// Whether `delete` names this ISAKMP SA.
    pub fn is_deleted_by(&self, delete: &Delete) -> bool {
        let spi = self.cookies().spi();
        delete.protocol == ProtocolId::ISAKMP
            && delete.spis.iter().any(|named| named.as_slice() == spi.as_slice())
    }

    /// Reads a protected Informational message. Payloads of types that are none of ours are left
    /// out.
    ///
    /// # Errors
    /// Not a message under this SA, malformed, or a HASH that does not fit: in each case it says
    /// nothing.
    pub fn open_informational(
        &self,
        datagram: &[u8],
    ) -> Result<(Vec<Informational>, HashVerified), Error> {
        const MESSAGE: &str = "informational message";
        let (header, _) = header::split(datagram)?;
        if header.exchange != ExchangeType::INFORMATIONAL {
            return Err(NotAccepted::Unexpected.into());
        }
        if header.message_id == 0 {
            return Err(PeerMisbehaved::MessageId(0).into());
        }
        let opened =
            self.open(&self.exchange(ExchangeType::INFORMATIONAL, header.message_id), datagram)?;
        let (chain, verified) = opened.authenticate(self, MESSAGE, &[])?;
        let mut said = Vec::new();
        for payload in chain.payloads.iter().skip(1) {
            match payload.kind {
                PayloadKind::NOTIFICATION => {
                    said.push(Informational::Notification(payload.read()?))
                }
                PayloadKind::DELETE => said.push(Informational::Delete(payload.read()?)),
                _ => {}
            }
        }
        Ok((said, verified))
    }

    fn seal_informational(&self, payloads: &[Payload], message_id: u32) -> Result<Vec<u8>, Error> {
        let exchange = self.exchange(ExchangeType::INFORMATIONAL, message_id);
        let octets = encode_chain(payloads).map_err(does_not_fit)?;
        Ok(self.seal_authenticated(&exchange, &[], first_kind(payloads), &octets)?.into_datagram())
    }
}
