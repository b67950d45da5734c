//! Security Association payload of a group (RFC 6407 §5.2).
//!
//! ```text
//! !                              DOI                              !
//! !                           Situation                           !
//! !     SA Attribute Next Payload !          RESERVED2            !
//! ~                     SAK, GAP and SAT payloads                 ~
//! ```
//!
//! The attribute payloads form a chain of their own inside this payload's length; the Next Payload
//! octet of the generic header jumps over them. Their order is SAK, GAP, SAT (RFC 6407 §5.2.1).

use super::byte_order::ByteOrder;
use super::gap::Gap;
use super::sa_kek::SaKek;
use super::sa_tek::SaTek;
use super::selector;
use ike::wire::chain::{Body, encode_one, walk_clear};
use ike::wire::codec::{Codec, InvalidMessage, Reader, Writer};
use ike::wire::registry::{Doi, PayloadKind};

/// The policy of a group as the key server states it. DOI (2) and situation (0) are fixed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GroupSecurityAssociation {
    /// Policy of the rekey SA.
    pub kek: Option<SaKek>,
    /// Policy for the group as a whole.
    pub gap: Option<Gap>,
    /// Policy of the data SAs. At least one, unless there is a SAK.
    pub teks: Vec<SaTek>,
}

impl Body for GroupSecurityAssociation {
    const KIND: PayloadKind = PayloadKind::SA;
}

impl Codec for GroupSecurityAssociation {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        exactly("domain of interpretation", reader, Doi::GDOI.0)?;
        exactly("situation", reader, 0)?;
        let offset = reader.offset();
        let first = reader.u16("SA attribute next payload")?;
        reader.u16("reserved octets of an SA payload")?;
        let value = |kind: u16| InvalidMessage::Value {
            what: "SA attribute payload",
            offset,
            value: kind.into(),
        };
        let first = PayloadKind(u8::try_from(first).map_err(|_| value(first))?);
        if first == PayloadKind::NONE {
            return Err(value(0));
        }
        let offset = reader.offset();
        let mut sa = Self::default();
        for payload in walk_clear(first, reader.rest(), offset)?.payloads {
            let in_order = sa.teks.is_empty();
            match payload.kind {
                PayloadKind::SA_KEK if in_order && sa.kek.is_none() && sa.gap.is_none() => {
                    sa.kek = Some(payload.read()?);
                }
                PayloadKind::GROUP_ASSOCIATED_POLICY if in_order && sa.gap.is_none() => {
                    sa.gap = Some(payload.read()?)
                }
                PayloadKind::SA_TEK => sa.teks.push(payload.read()?),
                kind => {
                    return Err(InvalidMessage::Value {
                        what: "SA attribute payload",
                        offset: payload.offset,
                        value: kind.0.into(),
                    });
                }
            }
        }
        if sa.kek.is_none() && sa.teks.is_empty() {
            return Err(InvalidMessage::Count {
                what: "SAK and SAT payloads",
                offset,
                need: 1,
                have: 0,
            });
        }
        Ok(sa)
    }

    fn encode(&self, writer: &mut Writer) {
        let (kek, gap, tek) =
            (PayloadKind::SA_KEK, PayloadKind::GROUP_ASSOCIATED_POLICY, PayloadKind::SA_TEK);
        let behind_gap = if self.teks.is_empty() { PayloadKind::NONE } else { tek };
        let behind_kek = if self.gap.is_some() { gap } else { behind_gap };
        let first = if self.kek.is_some() { kek } else { behind_kek };
        if self.kek.is_none() && self.teks.is_empty() {
            writer.fail("SA payload without SAK and SAT", 0, 0);
        }
        writer.u32(Doi::GDOI.0);
        writer.u32(0);
        writer.u16(first.0.into());
        writer.u16(0);
        if let Some(kek) = &self.kek {
            encode_one(writer, behind_kek, kek);
        }
        if let Some(gap) = &self.gap {
            encode_one(writer, behind_gap, gap);
        }
        let mut rest = self.teks.iter().peekable();
        while let Some(sa_tek) = rest.next() {
            let next = if rest.peek().is_some() { tek } else { PayloadKind::NONE };
            encode_one(writer, next, sa_tek);
        }
    }
}

impl GroupSecurityAssociation {
    /// The same with the octets of all IPv4 addresses and masks of traffic selectors in `order`:
    /// between network order and the reverse, which some implementations send.
    #[must_use]
    pub fn with_selectors(mut self, order: ByteOrder) -> Self {
        if order == ByteOrder::Host {
            for sat in &mut self.teks {
                if let SaTek::Ipsec(tek) = sat {
                    tek.source = selector::reversed(&tek.source);
                    tek.destination = selector::reversed(&tek.destination);
                }
            }
        }
        self
    }
}

fn exactly(what: &'static str, reader: &mut Reader<'_>, only: u32) -> Result<(), InvalidMessage> {
    let offset = reader.offset();
    match reader.u32(what)? {
        value if value == only => Ok(()),
        value => Err(InvalidMessage::Value { what, offset, value: value.into() }),
    }
}
