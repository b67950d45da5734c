//! Octets computed from the RFCs alone, both ways, for what the recordings do not hold.

use crate::wire::cert::Certificate;
use crate::wire::cert_request::CertificateRequest;
use crate::wire::delete::Delete;
use crate::wire::nat_d::NatDetection;
use crate::wire::notify::Notification;
use crate::wire::registry::{CertificateEncoding, Doi, NotifyType, ProtocolId};
use crate::wire::sa::SecurityAssociation;
use crate::wire::vendor::VendorId;

use crate::testing::{golden, hex};

#[test]
fn payloads_that_no_recording_holds() {
    golden(
        "00 00 0007 04 3000",
        &Certificate { encoding: CertificateEncoding::X509_SIGNATURE, data: vec![0x30, 0] },
    );
    golden("00 00 0005 04", &CertificateRequest { encoding: CertificateEncoding(4), data: vec![] });
    golden(
        "00 00 0014 afcad71368a1f1c96b8696fc77570100",
        &VendorId(hex("afcad71368a1f1c96b8696fc77570100")),
    );
    golden("00 00 0008 01020304", &NatDetection(vec![1, 2, 3, 4]));
    golden(
        "00 00 0010 00000002 01 00 0012 aabbccdd",
        &Notification {
            doi: Doi::GDOI,
            protocol: ProtocolId::ISAKMP,
            spi: vec![],
            kind: NotifyType::INVALID_ID_INFORMATION,
            data: hex("aabbccdd"),
        },
    );
    golden(
        "00 00 001c 00000002 01 10 0001 0102030405060708 1112131415161718",
        &Delete::isakmp_sa(
            Doi::GDOI,
            [1, 2, 3, 4, 5, 6, 7, 8],
            [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
        ),
    );
}

#[test]
fn phase1_situation_of_the_ipsec_doi() {
    let body = SecurityAssociation { doi: Doi::IPSEC, situation: 1, proposals: vec![] };
    golden("00 00 000c 00000001 00000001", &body);
}
