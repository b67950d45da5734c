//! Recordings of other implementations, both ways: every payload they sent is read, written and
//! compared.

use crate::config::Identity;
use crate::wire::attribute::Attribute;
use crate::wire::hash::Hash;
use crate::wire::header;
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nat_d::NatDetection;
use crate::wire::nonce::Nonce;
use crate::wire::notify::Notification;
use crate::wire::registry::{
    Doi, EncryptionNumber, ExchangeType, GroupNumber, HashNumber, IdType, NotifyType, PayloadKind,
    Phase1Attribute, ProtocolId, TransformId,
};
use crate::wire::sa::SecurityAssociation;
use crate::wire::vendor::VendorId;

use super::testdata;
use crate::testing::{both_ways, hex, walk};
use crate::wire::payload::encode_chain;

fn kinds(chain: &crate::wire::Chain<'_>) -> Vec<PayloadKind> {
    chain.kinds().collect()
}

#[test]
fn first_message_of_main_mode_offers_one_transform() {
    let datagram = testdata("recorded-aes-message1");
    let (header, body) = header::split(&datagram).expect("a good datagram");
    assert_eq!(header.exchange, ExchangeType::IDENTITY_PROTECTION);
    assert_eq!(header.responder_cookie, [0; 8]);
    let chain = walk(header.next_payload, body);
    assert_eq!((kinds(&chain), chain.padding), (vec![PayloadKind::SA], &[][..]));
    let sa: SecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!((sa.doi, sa.situation, sa.proposals.len()), (Doi::GDOI, 0, 1));
    let proposal = &sa.proposals[0];
    assert_eq!(
        (proposal.number, proposal.protocol, proposal.spi.len()),
        (1, ProtocolId::ISAKMP, 0)
    );
    assert_eq!(
        (proposal.transforms[0].number, proposal.transforms[0].id),
        (0, TransformId::KEY_IKE)
    );
    let expected = [
        Attribute::short(Phase1Attribute::ENCRYPTION_ALGORITHM, EncryptionNumber::AES_CBC),
        Attribute::short(Phase1Attribute::HASH_ALGORITHM, HashNumber::SHA2_256),
        Attribute::short(Phase1Attribute::AUTHENTICATION_METHOD, 1u16),
        Attribute::short(Phase1Attribute::GROUP_DESCRIPTION, GroupNumber::MODP_2048),
        Attribute::short(Phase1Attribute::LIFE_TYPE, 1u16),
        Attribute::short(Phase1Attribute::LIFE_DURATION, 600u16),
        Attribute::short(Phase1Attribute::KEY_LENGTH, 128u16),
    ];
    assert_eq!(proposal.transforms[0].attributes, expected);
    assert_eq!(header.message(body), Ok(datagram));
}

#[test]
fn third_message_of_main_mode_carries_key_exchange_and_nonce() {
    for (name, octets) in [("recorded-aes-message3", 256), ("recorded-3des-message3", 128)] {
        let datagram = testdata(name);
        let (header, body) = header::split(&datagram).expect("a good datagram");
        let chain = walk(header.next_payload, body);
        assert_eq!(kinds(&chain), [PayloadKind::KEY_EXCHANGE, PayloadKind::NONCE]);
        assert_eq!(both_ways::<KeyExchange>(&chain.payloads[0]).0.len(), octets);
        assert_eq!(both_ways::<Nonce>(&chain.payloads[1]).0.len(), 16);
    }
}

#[test]
fn fifth_message_of_main_mode_identifies_and_announces_first_contact() {
    let octets = testdata("recorded-aes-message5");
    let chain = walk(PayloadKind::IDENTIFICATION, &octets);
    assert_eq!(
        kinds(&chain),
        [PayloadKind::IDENTIFICATION, PayloadKind::HASH, PayloadKind::NOTIFICATION]
    );
    assert_eq!(chain.padding, [0; 4]);
    let id: Identification = both_ways(&chain.payloads[0]);
    assert_eq!((id.kind, id.protocol, id.port), (IdType::IPV4_ADDR, 0, 0));
    assert_eq!(id.as_identity(), Some(Identity::Address("10.99.0.1".parse().expect("an address"))));
    assert_eq!(both_ways::<Hash>(&chain.payloads[1]).0.len(), 32);
    let contact: Notification = both_ways(&chain.payloads[2]);
    assert_eq!((contact.doi, contact.protocol), (Doi::IPSEC, ProtocolId::ISAKMP));
    assert_eq!(contact.kind, NotifyType::INITIAL_CONTACT);
    assert_eq!(contact.spi, hex("abf707ef734d7711 602136a570e6d38c"));
    assert!(contact.data.is_empty());
}

#[test]
fn main_mode_of_other_implementations() {
    let vendor = |text: &str| VendorId(hex(text));
    let datagram = |number: u8| testdata(&format!("ike-message{number}"));

    let first = datagram(1);
    let (header, body) = header::split(&first).expect("a good datagram");
    let chain = walk(header.next_payload, body);
    let sa: SecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!((sa.doi, sa.situation, sa.proposals.len()), (Doi::IPSEC, 1, 1));
    let transforms = &sa.proposals[0].transforms;
    assert_eq!(transforms.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2, 3]);
    let groups: Vec<_> = transforms
        .iter()
        .flat_map(|one| &one.attributes)
        .filter(|one| one.class == Phase1Attribute::GROUP_DESCRIPTION.0)
        .filter_map(Attribute::as_basic)
        .collect();
    assert_eq!(groups, [14, 5, 2]);
    let vendors: Vec<VendorId> = chain.payloads[1..].iter().map(both_ways).collect();
    let dead_peer_detection = vendor("afcad71368a1f1c96b8696fc77570100");
    let traversal = vendor("4a131c81070358455c5728f20e95452f");
    assert_eq!(vendors.len(), 5);
    assert_eq!((&vendors[1], &vendors[3]), (&dead_peer_detection, &traversal));
    assert_eq!((vendors[0].0.len(), vendors[2].0.len()), (8, 20));

    let second = datagram(2);
    let (header, body) = header::split(&second).expect("a good datagram");
    let chain = walk(header.next_payload, body);
    let choice: SecurityAssociation = both_ways(&chain.payloads[0]);
    assert_eq!(choice.proposals[0].transforms, transforms[..1]);

    for number in [3, 4] {
        let octets = datagram(number);
        let (header, body) = header::split(&octets).expect("a good datagram");
        let chain = walk(header.next_payload, body);
        let expected =
            [PayloadKind::KEY_EXCHANGE, PayloadKind::NONCE, PayloadKind::NAT_D, PayloadKind::NAT_D];
        assert_eq!(kinds(&chain), expected);
        assert_eq!(both_ways::<KeyExchange>(&chain.payloads[0]).0.len(), 256);
        assert_eq!(both_ways::<Nonce>(&chain.payloads[1]).0.len(), 32);
        assert_eq!(both_ways::<NatDetection>(&chain.payloads[2]).0.len(), 32);
        both_ways::<NatDetection>(&chain.payloads[3]);
        let payloads: Vec<crate::wire::Payload> = chain
            .payloads
            .iter()
            .map(|raw| crate::wire::Payload::read(raw).expect("good"))
            .collect();
        let written = encode_chain(&payloads).expect("fits");
        assert_eq!(header.message(&written), Ok(octets));
    }
}
