//! Security Association payload of phase 1 (RFC 2408 §3.4, RFC 2407 §4.6.1).
//!
//! ```text
//! !              Domain of Interpretation  (DOI)                  !
//! !                           Situation                           !
//! ~                           Proposals                           ~
//! ```
//!
//! Other domains of interpretation may give the payload another body (RFC 6407 §5.2): their crates
//! read it.

use super::chain::{Body, encode_with, walk_clear};
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::proposal::Proposal;
use super::registry::{Doi, PayloadKind};

/// SIT_IDENTITY_ONLY (RFC 2407 §4.2.1), the situation of every plain IKE negotiation under the
/// IPsec DOI.
pub const SITUATION_IDENTITY_ONLY: u32 = 1;

/// An offer or a choice of phase 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityAssociation {
    pub doi: Doi,
    /// Situation, of the four octets that it has under the IPsec DOI. Where another DOI has none,
    /// zero is usual, and 1 is seen.
    pub situation: u32,
    pub proposals: Vec<Proposal>,
}

impl Body for SecurityAssociation {
    const KIND: PayloadKind = PayloadKind::SA;
}

impl Codec for SecurityAssociation {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        // Whether it is one that is spoken here, the exchange knows.
        let doi = Doi(reader.u32("domain of interpretation")?);
        let offset = reader.offset();
        let situation = reader.u32("situation")?;
        if situation > SITUATION_IDENTITY_ONLY {
            // Secrecy and integrity situations carry labels that nothing here understands (RFC 2407
            // §4.6.1).
            return Err(InvalidMessage::Value {
                what: "situation",
                offset,
                value: situation.into(),
            });
        }
        let offset = reader.offset();
        let mut proposals = Vec::new();
        if !reader.is_empty() {
            for payload in walk_clear(PayloadKind::PROPOSAL, reader.rest(), offset)?.payloads {
                proposals.push(payload.read()?);
            }
        }
        Ok(Self { doi, situation, proposals })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.doi.0);
        writer.u32(self.situation);
        let mut rest = self.proposals.iter().peekable();
        while let Some(proposal) = rest.next() {
            let next =
                if rest.peek().is_some() { PayloadKind::PROPOSAL } else { PayloadKind::NONE };
            encode_with(writer, next, |writer| proposal.encode(writer));
        }
    }
}
