//! Messages of phase 1 in fragments (the vendor ID "FRAGMENTATION" and payload type 132): what is
//! longer than a datagram may be, as certificates are, passes where fragments of IP do not.
//!
//! Fragments are neither encrypted nor authenticated; the message that they make up is. Who can
//! send from a peer's address can spoil one in the making, and no more: memory is bounded, and what
//! is put together is judged like any datagram.

use std::collections::BTreeMap;

use core::time::Duration;

use crate::error::{Error, NotAccepted};
use crate::phase1::Cookies;
use crate::time::BootTime;
use crate::wire::chain::walk_clear;
use crate::wire::fragment::Fragment;
use crate::wire::header::{self, Header};
use crate::wire::payload::{Payload, encode_chain};
use crate::wire::registry::{Flags, PayloadKind};
use crate::wire::vendor::VendorId;
use crate::wire::{Codec as _, EncodeError, InvalidMessage, Writer};

/// MD5("FRAGMENTATION").
const VENDOR: [u8; 16] = [
    0x40, 0x48, 0xb7, 0xd5, 0x6e, 0xbc, 0xe8, 0x85, 0x25, 0xe7, 0xde, 0x7f, 0x00, 0xd6, 0xc2, 0xd3,
];

/// Octets of the UDP payload that a datagram of ours may have: with the headers of IPv4 and UDP and
/// the marker of port 4500 it has 1,280 octets, which pass nearly everywhere.
const LONGEST_DATAGRAM: usize = 1248;

/// Octets in front of the data: ISAKMP header, generic header, identifier, number and flags.
const OVERHEAD: usize = header::LENGTH + 8;

/// Messages in the making.
const MOST_MESSAGES: usize = 8;

/// Pieces of one message.
const MOST_FRAGMENTS: usize = 64;

/// Octets of one message.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// How long the pieces of a message may take.
const TIME: Duration = Duration::from_secs(30);

/// What tells the peer that we understand fragments, in phase 1 (the capability 0x80000000).
pub fn vendor_id() -> VendorId {
    VendorId([&VENDOR[..], &[0x80, 0, 0, 0]].concat())
}

/// Whether one of them says that the peer understands fragments.
pub fn is_understood(vendor_ids: &[VendorId]) -> bool {
    vendor_ids.iter().any(|id| id.0.starts_with(&VENDOR))
}

/// The datagrams that carry `message`: itself, or fragments where it is long.
///
/// # Errors
/// It has no header, or more pieces than can be numbered.
pub fn datagrams(message: Vec<u8>, id: u16) -> Result<Vec<Vec<u8>>, Error> {
    if message.len() <= LONGEST_DATAGRAM {
        return Ok(vec![message]);
    }
    let (header, _) = header::split(&message)?;
    let pieces: Vec<&[u8]> = message.chunks(LONGEST_DATAGRAM - OVERHEAD).collect();
    let count = pieces.len();
    let numbered = pieces.into_iter().zip(1_usize..).map(|(data, number)| {
        let mut writer = Writer::new();
        let Ok(short) = u8::try_from(number) else {
            writer.fail("fragment number", number, u8::MAX.into());
            return writer.finish();
        };
        let is_last = number == count;
        Fragment { id, number: short, is_last, data: data.to_vec() }.encode(&mut writer);
        let body = [Payload::Unknown(PayloadKind::FRAGMENT, writer.finish()?)];
        // Neither encrypted nor part of an exchange of phase 2: others write the same.
        let header = Header {
            next_payload: PayloadKind::FRAGMENT,
            flags: Flags::NONE,
            message_id: 0,
            ..header
        };
        header.message(&encode_chain(&body)?)
    });
    Ok(numbered.collect::<Result<Vec<_>, EncodeError>>()?)
}

/// Messages whose pieces have not all come. The caller lets in only what an exchange of it may be.
#[derive(Debug, Default)]
pub struct Reassembly {
    messages: BTreeMap<(Cookies, u16), Message>,
}

#[derive(Debug)]
struct Message {
    since: BootTime,
    pieces: BTreeMap<u8, Vec<u8>>,
    /// Number of the last piece, once that is there.
    last: Option<u8>,
}

impl Message {
    fn octets(&self) -> usize {
        self.pieces.values().map(Vec::len).sum()
    }
}

impl Reassembly {
    /// A datagram with a fragment. Returns the message when it is whole.
    ///
    /// # Errors
    /// It holds no fragment, or one that does not fit those before; those are forgotten then.
    pub fn handle(&mut self, datagram: &[u8], now: BootTime) -> Result<Option<Vec<u8>>, Error> {
        let (header, body) = header::split(datagram)?;
        let chain = walk_clear(header.next_payload, body, header::LENGTH)?;
        let [raw] = chain.payloads.as_slice() else {
            return Err(NotAccepted::Unexpected.into());
        };
        let Fragment { id, number, is_last, data } = raw.read()?;
        let wrong = |what| InvalidMessage::Value { what, offset: raw.offset, value: number.into() };
        if number == 0 || usize::from(number) > MOST_FRAGMENTS {
            return Err(wrong("fragment number").into());
        }
        self.messages.retain(|_, message| message.since + TIME > now);
        let key = (Cookies::of(&header), id);
        if !self.messages.contains_key(&key) && self.messages.len() >= MOST_MESSAGES {
            let oldest = self.messages.iter().min_by_key(|(_, message)| message.since);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.messages.remove(&oldest);
            }
        }
        let (pieces, last) = (BTreeMap::new(), None);
        let message = self.messages.entry(key).or_insert(Message { since: now, pieces, last });
        // A repetition of the message has the same pieces; other ones are another message's.
        if message.pieces.get(&number).is_some_and(|known| *known != data)
            || message.last.is_some_and(|last| number > last || (is_last && number != last))
        {
            *message = Message { since: now, pieces: BTreeMap::new(), last: None };
        }
        message.pieces.insert(number, data);
        if is_last {
            message.last = Some(number);
        }
        if message.octets() > LONGEST_MESSAGE {
            self.messages.remove(&key);
            return Err(wrong("fragment behind the longest message").into());
        }
        let whole = message.last.is_some_and(|last| message.pieces.len() == usize::from(last));
        if !whole {
            return Ok(None);
        }
        let message = self.messages.remove(&key);
        let pieces = message.into_iter().flat_map(|message| message.pieces.into_values());
        Ok(Some(pieces.flatten().collect()))
    }

    /// Messages in the making.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::registry::ExchangeType;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn message(cookie: u8, length: usize) -> Vec<u8> {
        let header = Header {
            initiator_cookie: [cookie; 8],
            responder_cookie: [2; 8],
            next_payload: PayloadKind::IDENTIFICATION,
            version: header::VERSION,
            exchange: ExchangeType::IDENTITY_PROTECTION,
            flags: Flags::ENCRYPTION,
            message_id: 0,
            length: 0,
        };
        let body: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
        header.message(&body).unwrap()
    }

    #[test]
    fn what_is_short_stays_whole_and_what_is_long_comes_back() {
        let short = message(1, LONGEST_DATAGRAM - header::LENGTH);
        assert_eq!(datagrams(short.clone(), 1).unwrap(), [short]);
        for length in [LONGEST_DATAGRAM - header::LENGTH + 1, 3000, 20_000] {
            let long = message(1, length);
            let pieces = datagrams(long.clone(), 7).unwrap();
            assert!(pieces.len() > 1 && pieces.iter().all(|one| one.len() <= LONGEST_DATAGRAM));
            // In any order, some twice.
            let mut reassembly = Reassembly::default();
            let order = pieces.iter().rev().chain(&pieces);
            let whole = order.filter_map(|piece| reassembly.handle(piece, at(1)).unwrap()).next();
            assert_eq!(whole, Some(long));
        }
    }

    /// The octets that strongSwan's and libreswan's sources describe.
    #[test]
    fn the_octets_of_a_fragment() {
        let pieces = datagrams(message(1, 1300), 1).unwrap();
        let [first, last] = pieces.as_slice() else { panic!("{}", pieces.len()) };
        assert_eq!(first[16..20], [132, 0x10, 2, 0], "type, version, exchange, flags");
        assert_eq!(first[20..24], [0; 4], "message identifier");
        assert_eq!(first[28..36], [0, 0, 0x04, 0xc4, 0, 1, 1, 0]);
        assert_eq!(last[32..36], [0, 1, 2, 1]);
        assert_eq!(first[36..44], [1; 8], "the message with its header");
        assert!(is_understood(&[vendor_id()]));
        assert!(is_understood(&[VendorId(VENDOR.to_vec())]));
        assert!(!is_understood(&[VendorId(VENDOR[..15].to_vec())]));
    }

    #[test]
    fn memory_is_bounded_and_pieces_grow_old() {
        let mut reassembly = Reassembly::default();
        for cookie in 1..=200 {
            let pieces = datagrams(message(cookie, 3000), 1).unwrap();
            assert_eq!(reassembly.handle(&pieces[0], at(cookie.into())), Ok(None));
            assert!(reassembly.len() <= MOST_MESSAGES);
        }
        let pieces = datagrams(message(9, 3000), 1).unwrap();
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.handle(&pieces[0], at(1)), Ok(None));
        assert_eq!(reassembly.handle(&pieces[1], at(40)), Ok(None));
        assert_eq!(reassembly.handle(&pieces[2], at(40)), Ok(None), "the first is forgotten");
        assert_eq!(reassembly.handle(&pieces[0], at(41)), Ok(Some(message(9, 3000))));
        assert!(reassembly.is_empty());
    }

    #[test]
    fn pieces_of_another_message_take_the_place() {
        let (one, other) = (message(9, 3000), message(9, 2900));
        let (first, second) = (datagrams(one, 1).unwrap(), datagrams(other.clone(), 1).unwrap());
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.handle(&first[2], at(1)), Ok(None));
        // Something mixed may come out, which no key fits; the next repetition is whole.
        for piece in &second {
            reassembly.handle(piece, at(2)).unwrap();
        }
        let all = second.iter().filter_map(|piece| reassembly.handle(piece, at(3)).unwrap());
        assert_eq!(all.last(), Some(other));
    }

    #[test]
    fn octets_that_are_no_fragment() {
        let mut reassembly = Reassembly::default();
        assert!(reassembly.handle(&message(1, 100), at(1)).is_err());
        let mut pieces = datagrams(message(1, 3000), 1).unwrap();
        for number in [0, 65, 255] {
            pieces[0][34] = number;
            assert!(reassembly.handle(&pieces[0], at(1)).is_err());
        }
        assert!(reassembly.is_empty());
        for length in 0..40 {
            assert!(reassembly.handle(&pieces[1][..length], at(1)).is_err());
        }
    }
}
