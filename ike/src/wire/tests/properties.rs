//! Properties: every payload survives writing and reading.

use crate::testing::{survives, survives_bare};
use crate::wire::attribute::{Attribute, AttributeValue};
use crate::wire::cert::Certificate;
use crate::wire::cert_request::CertificateRequest;
use crate::wire::delete::Delete;
use crate::wire::hash::Hash;
use crate::wire::header;
use crate::wire::header::Header;
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nat_d::NatDetection;
use crate::wire::nonce::Nonce;
use crate::wire::notify::Notification;
use crate::wire::proposal::Proposal;
use crate::wire::registry::{
    CertificateEncoding, Doi, ExchangeType, Flags, IdType, NotifyType, PayloadKind, ProtocolId,
    TransformId,
};
use crate::wire::sa::SecurityAssociation;
use crate::wire::signature::Signature;
use crate::wire::transform::Transform;
use crate::wire::vendor::VendorId;
use proptest::collection::vec;
use proptest::prelude::*;

/// Octets up to `most`.
fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

fn some_octets() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..=80)
}

prop_compose! {
    // Class 0 is reserved everywhere, and a SAK that starts with it is ambiguous.
    fn attribute()(class in 1u16..0x8000, short: bool, value: u16, long in octets(40)) -> Attribute {
        let value = if short { AttributeValue::Short(value) } else { AttributeValue::Long(long) };
        Attribute { class, value }
    }
}

fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
    vec(attribute(), 0..6)
}

prop_compose! {
    fn transform()(number: u8, id: u8, attributes in attributes()) -> Transform {
        Transform { number, id: TransformId(id), attributes }
    }
}

prop_compose! {
    fn proposal()(number: u8, protocol: u8, spi in octets(16), transforms in vec(transform(), 0..5)) -> Proposal {
        Proposal { number, protocol: ProtocolId(protocol), spi, transforms }
    }
}

prop_compose! {
    fn phase1_sa()(gdoi: bool, situation in 0u32..=1, proposals in vec(proposal(), 0..4)) -> SecurityAssociation {
        SecurityAssociation { doi: if gdoi { Doi::GDOI } else { Doi::IPSEC }, situation, proposals }
    }
}

fn delete() -> impl Strategy<Value = Delete> {
    (any::<u32>(), any::<u8>(), 1u8..=32).prop_flat_map(|(doi, protocol, spi_size)| {
        vec(vec(any::<u8>(), usize::from(spi_size)), 0..6).prop_map(move |spis| Delete {
            doi: Doi(doi),
            protocol: ProtocolId(protocol),
            spi_size,
            spis,
        })
    })
}

proptest! {
    #[test]
    fn headers(cookies: ([u8; 8], [u8; 8]), kinds: (u8, u8, u8), message_id: u32, body in octets(200)) {
        let header = Header {
            initiator_cookie: cookies.0,
            responder_cookie: cookies.1,
            next_payload: PayloadKind(kinds.0),
            version: header::VERSION,
            exchange: ExchangeType(kinds.1),
            flags: Flags(kinds.2),
            message_id,
            length: 28 + u32::try_from(body.len()).expect("small"),
        };
        survives_bare(&header);
        let message = header.message(&body).expect("fits");
        prop_assert_eq!(header::split(&message), Ok((header, body.as_slice())));
    }

    #[test]
    fn phase1_payloads(sa in phase1_sa(), data in some_octets(), number: u8, nonce in vec(any::<u8>(), 8..=256)) {
        survives(&sa);
        survives(&KeyExchange(data.clone()));
        survives(&Hash(data.clone()));
        survives(&Signature(data.clone()));
        survives(&NatDetection(data.clone()));
        survives(&VendorId(data.clone()));
        survives(&Certificate { encoding: CertificateEncoding(number), data: data.clone() });
        survives(&CertificateRequest { encoding: CertificateEncoding(number), data });
        survives(&Nonce(nonce));
    }

    #[test]
    fn notifications_deletes_and_identifications(
        doi: u32,
        numbers: (u8, u8, u16),
        spi in octets(255),
        data in octets(80),
        delete in delete(),
    ) {
        let protocol = ProtocolId(numbers.0);
        survives(&Notification { doi: Doi(doi), protocol, spi, kind: NotifyType(numbers.2), data: data.clone() });
        survives(&Identification { kind: IdType(numbers.0), protocol: numbers.1, port: numbers.2, data });
        survives(&delete);
    }
}
