//! The four messages against recordings of another implementation and against octets computed from
//! the formulas.

use super::member::{ExpectKeys, ExpectPolicy};
use super::message::{Message1, Message2, Message3, Message4};
use super::server::{Requested, message4};
use crate::config::{ByteOrder, PolicyForm};
use crate::error::{ApiMisuse, Error, PeerMisbehaved};
use crate::group::{GroupId, GroupSa, IssuedSa};
use crate::wire::gap::Gap;
use crate::wire::group_id;
use crate::wire::registry::GROUPKEY_PULL;
use crate::wire::sa_kek::Trailer;
use crate::wire::seq::SequenceNumber;
use crate::wire::tests::computed;
use crate::wire::{
    GroupKeys, KeyError, group_keys, group_policy, key_download, security_association,
};
use ike::crypto::{Secret, SeededRng};
use ike::phase1::{IsakmpSa, Opened};
use ike::testing::hex;
use ike::testing::worked_isakmp_sa;
use ike::testing::{GDOI, Recording};
use ike::wire::chain::{Body, encode_one};
use ike::wire::header;
use ike::wire::nonce::Nonce;
use ike::wire::registry::PayloadKind;
use ike::wire::vendor::VendorId;
use ike::wire::{Codec, Writer};

/// The recorded pull, opened message by message by the side that received it.
struct Recorded {
    member: IsakmpSa,
    server: IsakmpSa,
    opened: Vec<Opened>,
    datagrams: Vec<Vec<u8>>,
}

fn recorded(name: &str) -> Recorded {
    let recording = Recording::load(name);
    let (member, server) = recording.established();
    let datagrams: Vec<Vec<u8>> = (7..=10).map(|number| recording.message(number)).collect();
    let message_id = header::split(&datagrams[0]).unwrap().0.message_id;
    let mut cipher = server.exchange(GROUPKEY_PULL, message_id);
    let mut opened = Vec::new();
    for (index, datagram) in datagrams.iter().enumerate() {
        let receiver = if index % 2 == 0 { &server } else { &member };
        let message = receiver.open(&cipher, datagram).unwrap();
        cipher = message.next();
        opened.push(message);
    }
    Recorded { member, server, opened, datagrams }
}

#[test]
fn recorded_messages_are_read_and_written_to_the_same_octets() {
    for name in GDOI {
        let Recorded { member, server, opened, datagrams } = recorded(name);
        let [one, two, three, four] = opened.as_slice() else { panic!("four messages") };

        // HDR*, HASH(1), Ni, ID -->
        let message1 = Message1::read(&server, one).unwrap().0.unwrap();
        assert_eq!(group_id::group(&message1.group, ByteOrder::Host), Some(GroupId(1234)));
        let ni = message1.nonce.clone();
        // HDR*, HASH(2), Nr, SA <--
        let message2 = Message2::read(&member, two, &ni).unwrap().unwrap();
        let nr = message2.nonce.clone();
        assert_eq!(message2.policy.teks.len(), 2);
        assert!(message2.policy.kek.is_some() && message2.policy.gap.is_some());
        // HDR*, HASH(3) -->
        let message3 = Message3::read(&server, three, &ni, &nr).unwrap().0.unwrap();
        assert_eq!(message3.requests, None);
        // HDR*, HASH(4), SEQ, KD <--
        let message4 = Message4::read(&member, four, &ni, &nr).unwrap().unwrap();
        assert_eq!(message4.sequence_number.as_deref(), Some(&SequenceNumber(0)));
        assert_eq!(message4.keys.packets.len(), 3);

        let rests = [
            message1.rest().unwrap(),
            message2.rest().unwrap(),
            message3.rest().unwrap(),
            Message4::rest(Some(SequenceNumber(0)), &message4.keys).unwrap(),
        ];
        let nonces: [Vec<&[u8]>; 4] = [vec![], vec![&ni.0], vec![&ni.0, &nr.0], vec![&ni.0, &nr.0]];
        let mut cipher = server.exchange(GROUPKEY_PULL, one.header().message_id);
        for ((rest, nonces), datagram) in rests.iter().zip(&nonces).zip(&datagrams) {
            let sealed =
                member.seal_authenticated(&cipher, nonces, rest.0, rest.1.expose()).unwrap();
            cipher = sealed.next();
            assert_eq!(sealed.into_datagram(), *datagram, "{name}");
        }
    }
}

#[test]
fn the_recorded_request_is_understood_by_the_key_server_state() {
    for name in GDOI {
        let Recorded { server, datagrams, .. } = recorded(name);
        let requested = Requested::read(&server, &datagrams[0]).unwrap().0.unwrap();
        assert_eq!(requested.group(), GroupId(0xd204_0000));
        assert_eq!(ByteOrder::Host.group(requested.group()), GroupId(1234));
        assert!(Requested::read(&server, &datagrams[1]).is_err(), "message 2 under the first IV");
    }
}

#[test]
fn any_changed_octet_of_a_recorded_message_fails() {
    let name = GDOI[0];
    let Recorded { server, datagrams, .. } = recorded(name);
    for place in header::LENGTH..datagrams[0].len() {
        let mut forged = datagrams[0].clone();
        forged[place] ^= 1;
        let padding = place >= datagrams[0].len() - 16;
        // A change in the last block makes noise of the last block only: of the padding and the end
        // of ID.
        let read = Requested::read(&server, &forged);
        assert!(read.is_err(), "octet {place}, in the last block: {padding}");
    }
}

/// Octets and HASHes computed in another language from RFC 6407 §3.2.
mod worked_bytes {
    use super::*;

    const MESSAGE_ID: u32 = 0xdead_beef;

    fn ni() -> Nonce {
        Nonce((0x20..=0x2f).collect())
    }

    fn nr() -> Nonce {
        Nonce((0x40..=0x4f).collect())
    }

    fn hash(nonces: &[&[u8]], rest: &Secret) -> Vec<u8> {
        worked_isakmp_sa().authenticator(MESSAGE_ID, nonces, rest.expose()).expose().to_vec()
    }

    #[test]
    fn hash_1() {
        let message = Message1 {
            nonce: ni(),
            group: group_id::identification(GroupId(1111), ByteOrder::Network),
        };
        let (first, rest) = message.rest().unwrap();
        assert_eq!(first, PayloadKind::NONCE);
        assert_eq!(
            rest.expose(),
            hex("05000014202122232425262728292a2b2c2d2e2f 0000000c0b00000000000457")
        );
        assert_eq!(
            hash(&[], &rest),
            hex("6068f90bd5a08dafcab51bfb50d9803093adedf7ab3b7b4656bf960654783c01")
        );
    }

    #[test]
    fn hash_2() {
        let policy = security_association(&computed::policy(), Trailer::Standard);
        let (_, rest) = Message2 { nonce: nr(), policy }.rest().unwrap();
        assert_eq!(rest.len(), 20 + 160);
        assert_eq!(
            hash(&[&ni().0], &rest),
            hex("84253b96c9dd6a93f84ef9c6cbc934f37b01f9ee17fb6be854857decea696326")
        );
    }

    #[test]
    fn hash_3_has_no_zero_octet_in_front() {
        let (first, rest) = Message3 { requests: None }.rest().unwrap();
        assert_eq!((first, rest.len()), (PayloadKind::NONE, 0));
        let expected = hex("64d16e0a56b23f4bb1660e428dcf2b474c6bbec4f3fe196fcb813d305b0f761a");
        assert_eq!(hash(&[&ni().0, &nr().0], &rest), expected);
        assert_ne!(hash(&[&[0], &ni().0, &nr().0], &rest), expected);
    }

    #[test]
    fn hash_4() {
        let keys = key_download(&computed::group_sa());
        let (_, rest) = Message4::rest(Some(SequenceNumber(0)), &keys).unwrap();
        assert_eq!(rest.expose()[..8], hex("1100000800000000"));
        assert_eq!(rest.len(), 8 + 113);
        assert_eq!(
            hash(&[&ni().0, &nr().0], &rest),
            hex("10292f6fed05d9eab6a267500c8ba2f68c95639c9ceaacff86659f63fa68b639")
        );
    }
}

const ORDERS: (ByteOrder, ByteOrder) = (ByteOrder::Network, ByteOrder::Network);

const PLAIN: PolicyForm = PolicyForm {
    group_id: ByteOrder::Network,
    trailer: Trailer::Standard,
    selectors: ByteOrder::Network,
};

/// A key server's side that says whatever the test wants, properly protected.
struct Liar {
    sa: IsakmpSa,
    ni: Nonce,
    nr: Nonce,
}

impl Liar {
    fn new() -> Self {
        Self { sa: worked_isakmp_sa(), ni: Nonce(vec![1; 16]), nr: Nonce(vec![2; 16]) }
    }

    /// A member that waits for the keys of `policy`.
    fn expect_keys(&self, sa: &IssuedSa) -> ExpectKeys {
        ExpectKeys {
            cipher: self.sa.exchange(GROUPKEY_PULL, 7),
            ni: self.ni.clone(),
            nr: self.nr.clone(),
            policy: sa.policy().clone(),
        }
    }

    fn say(&self, first: PayloadKind, rest: &[u8]) -> Vec<u8> {
        let cipher = self.sa.exchange(GROUPKEY_PULL, 7);
        self.sa
            .seal_authenticated(&cipher, &[&self.ni.0, &self.nr.0], first, rest)
            .unwrap()
            .into_datagram()
    }

    fn keys(
        &self,
        expected: &IssuedSa,
        number: Option<u32>,
        given: &IssuedSa,
    ) -> Result<GroupSa, Error> {
        let (first, rest) =
            Message4::rest(number.map(SequenceNumber), &key_download(given)).unwrap();
        self.expect_keys(expected).read(&self.sa, &self.say(first, rest.expose())).unwrap()
    }
}

#[test]
fn keys_must_fit_the_policy_exactly() {
    let liar = Liar::new();
    let sa = computed::group_sa();
    assert_eq!(liar.keys(&sa, Some(0), &sa).unwrap(), computed::group_sa());
    assert_eq!(
        liar.keys(&sa, None, &sa),
        Err(PeerMisbehaved::SequenceNumber { present: false }.into())
    );

    let without_kek = IssuedSa::new(
        crate::group::GroupPolicy { kek: None, ..computed::policy() },
        [(0x0bad_c0de, tek_keys(20))].into(),
        None,
        None,
        None,
    );
    assert!(liar.keys(&without_kek, None, &without_kek).is_ok());
    assert_eq!(
        liar.keys(&without_kek, Some(0), &without_kek),
        Err(PeerMisbehaved::SequenceNumber { present: true }.into())
    );
    assert!(matches!(
        liar.keys(&without_kek, None, &sa),
        Err(Error::PeerMisbehaved(PeerMisbehaved::Keys(KeyError::UnannouncedKek(_))))
    ));
    let short = IssuedSa::new(
        without_kek.policy().clone(),
        [(0x0bad_c0de, tek_keys(19))].into(),
        None,
        None,
        None,
    );
    assert!(matches!(
        liar.keys(&without_kek, None, &short),
        Err(Error::PeerMisbehaved(PeerMisbehaved::Keys(KeyError::Length {
            need: 20,
            have: 19,
            ..
        })))
    ));
}

fn tek_keys(octets: usize) -> crate::group::TekKeys {
    crate::group::TekKeys {
        encryption: Secret::new(vec![3; octets]),
        integrity: Secret::new(Vec::new()),
    }
}

/// A payload type, and what writes such a payload with the type of the one behind it.
type Encoded<'a> = (PayloadKind, &'a dyn Fn(&mut Writer, PayloadKind));

#[test]
fn a_message_holds_its_payloads_once_and_no_others() {
    let liar = Liar::new();
    let sa = computed::group_sa();
    let member = liar.expect_keys(&sa);
    let keys = key_download(&sa);
    let chain = |payloads: &[Encoded<'_>]| {
        let mut writer = Writer::new();
        for (index, (_, encode)) in payloads.iter().enumerate() {
            encode(&mut writer, payloads.get(index + 1).map_or(PayloadKind::NONE, |next| next.0));
        }
        let first = payloads.first().map_or(PayloadKind::NONE, |first| first.0);
        liar.say(first, &writer.finish().unwrap())
    };
    let kd: Encoded<'_> =
        (PayloadKind::KEY_DOWNLOAD, &|writer, next| encode_one(writer, next, &keys));
    let seq: Encoded<'_> =
        (SequenceNumber::KIND, &|writer, next| encode_one(writer, next, &SequenceNumber(3)));
    let vendor: Encoded<'_> =
        (PayloadKind::VENDOR_ID, &|writer, next| encode_one(writer, next, &VendorId(vec![9; 16])));
    let foreign: Encoded<'_> =
        (PayloadKind(77), &|writer, next| encode_one(writer, next, &VendorId(vec![9; 16])));
    let private: Encoded<'_> =
        (PayloadKind(128), &|writer, next| encode_one(writer, next, &VendorId(vec![9; 16])));
    let notification: Encoded<'_> = (PayloadKind::NOTIFICATION, &|writer, next| {
        encode_one(writer, next, &VendorId(vec![9; 16]))
    });
    let read = |payloads: &[_]| member.read(&liar.sa, &chain(payloads)).unwrap();

    assert_eq!(read(&[seq, kd]).unwrap().sequence_number(), Some(3));
    assert_eq!(read(&[kd, seq]).unwrap().sequence_number(), Some(3), "in any order");
    assert!(read(&[vendor, seq, kd, vendor]).is_ok(), "vendor IDs are passed over");
    assert_eq!(
        read(&[private, seq, notification, kd, private]).unwrap(),
        computed_sa(3),
        "as is what peers add"
    );
    let message = Message4::NAME;
    let duplicate =
        |kind| Err(ike::error::PeerMisbehaved::DuplicatePayload { message, kind }.into());
    assert_eq!(read(&[seq, seq, kd]), duplicate(PayloadKind::SEQUENCE_NUMBER));
    assert_eq!(read(&[seq, kd, kd]), duplicate(PayloadKind::KEY_DOWNLOAD));
    assert_eq!(
        read(&[seq]),
        Err(ike::error::PeerMisbehaved::MissingPayload { message, payload: "KD" }.into())
    );
    assert_eq!(
        read(&[]),
        Err(ike::error::PeerMisbehaved::MissingPayload { message, payload: "KD" }.into())
    );
    assert!(matches!(
        read(&[seq, kd, foreign]),
        Err(Error::Ike(ike::Error::PeerMisbehaved(ike::error::PeerMisbehaved::ForeignPayload {
            kind: PayloadKind(77),
            ..
        })))
    ));
}

fn computed_sa(number: u32) -> IssuedSa {
    let GroupKeys { tek_keys, kek_keys, sender_ids, .. } =
        group_keys(&computed::policy(), key_download(&computed::group_sa())).unwrap();
    IssuedSa::new(computed::policy(), tek_keys, kek_keys, Some(number), sender_ids)
}

#[test]
fn nonces_have_8_to_128_octets() {
    let sa = worked_isakmp_sa();
    let request = |octets: usize| {
        let group = group_id::identification(GroupId(1), ByteOrder::Network);
        let (first, rest) = Message1 { nonce: Nonce(vec![5; octets]), group }.rest().unwrap();
        let cipher = sa.exchange(GROUPKEY_PULL, 9);
        let datagram =
            sa.seal_authenticated(&cipher, &[], first, rest.expose()).unwrap().into_datagram();
        Requested::read(&sa, &datagram).unwrap().0.map(|requested| requested.group())
    };
    assert_eq!(request(8), Ok(GroupId(1)));
    assert_eq!(request(128), Ok(GroupId(1)));
    assert!(request(7).is_err());
    assert_eq!(request(129), Err(ike::error::PeerMisbehaved::NonceLength { have: 129 }.into()));
}

#[test]
fn requests_in_message_3_are_understood_or_refused() {
    let sa = worked_isakmp_sa();
    let group_sa = computed::group_sa();
    let rng = &mut SeededRng::from_seed([8; 32]);
    let (member, message1) = ExpectPolicy::start(&sa, GroupId(1111), ORDERS, 5, rng).unwrap();
    let requested = Requested::read(&sa, &message1).unwrap().0.unwrap();
    let (server, message2) = requested.answer(&sa, group_sa.policy(), PLAIN, rng).unwrap();
    let policy = member.read(&sa, &message2).unwrap().unwrap();
    let offered = member.receive(policy);
    let (expect_keys, message3) = offered.accept(&sa, None).unwrap();
    let accepted = server.read(&sa, &message3).unwrap().0.unwrap();
    let message4 = accepted.answer(&sa, &group_sa).unwrap();
    assert_eq!(expect_keys.read(&sa, &message4).unwrap().unwrap(), computed::group_sa());

    let with = |gap: Gap| {
        let (cipher, ni, nr) = (
            offered_cipher(&sa, &message1, &message2),
            expect_keys.ni.clone(),
            expect_keys.nr.clone(),
        );
        let (first, rest) = Message3 { requests: Some(gap) }.rest().unwrap();
        let datagram = sa
            .seal_authenticated(&cipher, &[&ni.0, &nr.0], first, rest.expose())
            .unwrap()
            .into_datagram();
        server.read(&sa, &datagram).unwrap().0
    };
    let sids = ike::wire::attribute::Attribute::short(3_u16, 2_u16);
    let unknown = ike::wire::attribute::Attribute::short(99_u16, 2_u16);
    assert!(with(Gap { attributes: vec![sids] }).is_ok());
    assert!(matches!(with(Gap { attributes: vec![unknown] }), Err(Error::PeerIncompatible(_))));
}

fn offered_cipher(sa: &IsakmpSa, message1: &[u8], message2: &[u8]) -> ike::phase1::ExchangeCipher {
    let first = sa.exchange(GROUPKEY_PULL, 5);
    sa.open(&sa.open(&first, message1).unwrap().next(), message2).unwrap().next()
}

#[test]
fn a_key_server_does_not_hand_out_what_no_member_could_use() {
    let sa = worked_isakmp_sa();
    let rng = &mut SeededRng::from_seed([8; 32]);
    let (_, message1) = ExpectPolicy::start(&sa, GroupId(1111), ORDERS, 5, rng).unwrap();
    let requested = Requested::read(&sa, &message1).unwrap().0.unwrap();
    let keyless = IssuedSa::new(computed::policy(), [].into(), None, None, None);
    assert!(matches!(
        message4(&computed::policy(), &keyless),
        Err(Error::ApiMisuse(ApiMisuse::Keys(_)))
    ));
    let mut other = computed::policy();
    other.group = GroupId(5);
    let (asked, given) = (GroupId(1111), GroupId(5));
    assert_eq!(
        requested.answer(&sa, &other, PLAIN, rng).map(|_| ()),
        Err(ApiMisuse::WrongGroup { asked, given }.into())
    );
    // A policy of more lines than a datagram holds.
    let mut long = computed::policy();
    let line = long.teks[0].clone();
    long.teks = vec![line; 1200];
    let sa_payload = security_association(&long, Trailer::Standard);
    assert!(
        group_policy(GroupId(1111), &sa_payload).is_ok()
            && sa_payload.to_octets().is_ok_and(|o| o.len() > 65_535)
    );
    assert!(matches!(
        requested.answer(&sa, &long, PLAIN, rng),
        Err(Error::Ike(ike::Error::ApiMisuse(ike::error::ApiMisuse::DoesNotFit(_))))
    ));
}

/// Plain text of messages 2 and 4, keys included, stands in states and in opened messages.
#[test]
fn debug_output_holds_no_key() {
    let sa = worked_isakmp_sa();
    let rng = &mut SeededRng::from_seed([8; 32]);
    let (member, message1) = ExpectPolicy::start(&sa, GroupId(1111), ORDERS, 5, rng).unwrap();
    let requested = Requested::read(&sa, &message1).unwrap().0.unwrap();
    let (server, message2) = requested.answer(&sa, &computed::policy(), PLAIN, rng).unwrap();
    let policy = member.read(&sa, &message2).unwrap().unwrap();
    let offered = member.receive(policy);
    let (expect_keys, message3) = offered.accept(&sa, None).unwrap();
    let accepted = server.read(&sa, &message3).unwrap().0.unwrap();
    let message4 = accepted.answer(&sa, &computed::group_sa()).unwrap();
    let opened = sa.open(&expect_keys.cipher, &message4).unwrap();
    let group_sa = expect_keys.read(&sa, &message4).unwrap().unwrap();
    // The TEK is 30, 31, 32, 33 and so on.
    let key = [format!("{:?}", [0x30, 0x31, 0x32]), format!("{:#x?}", [0x30, 0x31, 0x32])];
    let key = key.map(|text| text.trim_matches(['[', ']']).to_owned());
    for shown in [format!("{opened:?}"), format!("{group_sa:?}")] {
        assert!(key.iter().all(|key| !shown.contains(key.as_str())), "{shown}");
        assert!(shown.contains("octets)"), "a length and no more: {shown}");
    }
}
