//! The ISAKMP header (RFC 2408 §3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! !                          Initiator                            !
//! !                            Cookie                             !
//! !                          Responder                            !
//! !                            Cookie                             !
//! !  Next Payload ! MjVer ! MnVer ! Exchange Type !     Flags     !
//! !                          Message ID                           !
//! !                            Length                             !
//! ```

use super::codec::{Codec, EncodeError, InvalidMessage, Reader, Writer};
use super::registry::{ExchangeType, Flags, PayloadKind};

/// Octets of the header.
pub const LENGTH: usize = 28;

/// Version 1.0: major in the high nibble, minor in the low one.
pub const VERSION: u8 = 0x10;

/// A cookie: one half of what names an ISAKMP SA, or of a KEK's SPI.
pub type Cookie = [u8; 8];

/// The header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Initiator cookie; never zero in a good message.
    pub initiator_cookie: Cookie,
    /// Responder cookie; zero in the first message of phase 1.
    pub responder_cookie: Cookie,
    /// Type of the first payload.
    pub next_payload: PayloadKind,
    /// Major version in the upper four bits, minor version in the lower ones.
    pub version: u8,
    pub exchange: ExchangeType,
    pub flags: Flags,
    /// Message ID: 0 in phase 1 and in a push.
    pub message_id: u32,
    /// Octets of header and payloads; with encryption, of header and padded ciphertext.
    pub length: u32,
}

impl Codec for Header {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        Ok(Self {
            initiator_cookie: reader.array("initiator cookie")?,
            responder_cookie: reader.array("responder cookie")?,
            next_payload: PayloadKind(reader.u8("next payload")?),
            version: reader.u8("version")?,
            exchange: ExchangeType(reader.u8("exchange type")?),
            flags: Flags(reader.u8("flags")?),
            message_id: reader.u32("message ID")?,
            length: reader.u32("message length")?,
        })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put(&self.initiator_cookie);
        writer.put(&self.responder_cookie);
        writer.u8(self.next_payload.0);
        writer.u8(self.version);
        writer.u8(self.exchange.0);
        writer.u8(self.flags.0);
        writer.u32(self.message_id);
        writer.u32(self.length);
    }
}

impl Header {
    /// The message: this header with its length filled in, then `body` (the payloads, or their
    /// ciphertext).
    pub fn message(mut self, body: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let length = LENGTH.saturating_add(body.len());
        let mut writer = Writer::new();
        match u32::try_from(length) {
            Ok(length) => self.length = length,
            Err(_) => writer.fail("message length", length, u32::MAX as usize),
        }
        self.encode(&mut writer);
        writer.put(body);
        writer.finish()
    }
}

/// Cuts a datagram into its header and what follows.
///
/// Fails on a version other than 1.0 and on a Length field that is not the datagram's length (RFC
/// 2408 §5.2).
pub fn split(datagram: &[u8]) -> Result<(Header, &[u8]), InvalidMessage> {
    let mut reader = Reader::new(datagram);
    let header = Header::read(&mut reader)?;
    if header.version != VERSION {
        return Err(InvalidMessage::Value {
            what: "version",
            offset: 17,
            value: header.version.into(),
        });
    }
    let announced = usize::try_from(header.length).unwrap_or(usize::MAX);
    if announced < LENGTH {
        return Err(InvalidMessage::Length {
            what: "message length",
            offset: 24,
            minimum: LENGTH,
            maximum: datagram.len(),
            have: announced,
        });
    }
    let mut body = reader.sub("message", announced.saturating_sub(LENGTH))?;
    reader.finish("message")?;
    Ok((header, body.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First message of a recorded main mode: header only, Length cut to it.
    const GOLDEN: &str = "e58533e7f612b1440000000000000000 01 10 02 00 00000000 0000001c";

    fn golden() -> Header {
        Header {
            initiator_cookie: [0xe5, 0x85, 0x33, 0xe7, 0xf6, 0x12, 0xb1, 0x44],
            responder_cookie: [0; 8],
            next_payload: PayloadKind::SA,
            version: VERSION,
            exchange: ExchangeType::IDENTITY_PROTECTION,
            flags: Flags::NONE,
            message_id: 0,
            length: 28,
        }
    }

    #[test]
    fn golden_octets_both_ways() {
        let octets = crate::testing::hex(GOLDEN);
        assert_eq!(split(&octets), Ok((golden(), &[][..])));
        assert_eq!(golden().message(&[]), Ok(octets));
    }

    #[test]
    fn every_truncation_is_refused() {
        let octets = crate::testing::hex(GOLDEN);
        for length in 0..octets.len() {
            assert!(
                matches!(split(&octets[..length]), Err(InvalidMessage::Truncated { .. })),
                "{length}"
            );
        }
    }

    #[test]
    fn length_must_be_the_datagrams() {
        let mut octets = crate::testing::hex(GOLDEN);
        octets.push(0);
        assert_eq!(
            split(&octets),
            Err(InvalidMessage::Trailing { what: "message", offset: 28, have: 1 })
        );
        octets[27] = 30;
        let short = InvalidMessage::Truncated { what: "message", offset: 28, need: 2, have: 1 };
        assert_eq!(split(&octets), Err(short));
        octets[27] = 27;
        assert!(matches!(split(&octets), Err(InvalidMessage::Length { offset: 24, have: 27, .. })));
        octets[24..28].fill(0xff);
        assert!(matches!(split(&octets), Err(InvalidMessage::Truncated { offset: 28, .. })));
    }

    #[test]
    fn only_version_one_dot_zero() {
        for version in [0x00, 0x0f, 0x11, 0x20] {
            let mut octets = crate::testing::hex(GOLDEN);
            octets[17] = version;
            let refused =
                InvalidMessage::Value { what: "version", offset: 17, value: version.into() };
            assert_eq!(split(&octets), Err(refused));
        }
    }
}
