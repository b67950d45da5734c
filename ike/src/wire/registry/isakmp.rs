//! ISAKMP itself: payloads, exchanges, flags, domains of interpretation, identification types.

use crate::open_number;

open_number! {
    /// Payload types (RFC 2408 §3.1, RFC 6407 §5, RFC 3947 §3.2).
    PayloadKind(u8) {
        NONE = 0; SA = 1; PROPOSAL = 2; TRANSFORM = 3; KEY_EXCHANGE = 4; IDENTIFICATION = 5; CERTIFICATE = 6;
        CERTIFICATE_REQUEST = 7; HASH = 8; SIGNATURE = 9; NONCE = 10; NOTIFICATION = 11; DELETE = 12; VENDOR_ID = 13;
        SA_KEK = 15; SA_TEK = 16; KEY_DOWNLOAD = 17; SEQUENCE_NUMBER = 18; PROOF_OF_POSSESSION = 19; NAT_D = 20;
        NAT_OA = 21; GROUP_ASSOCIATED_POLICY = 22; FRAGMENT = 132;
    }
}

open_number! {
    /// Exchange types (RFC 2408 §3.1). What 32 to 239 mean depends on the domain of interpretation:
    /// 32 is Quick Mode under the IPsec DOI and GROUPKEY-PULL under the GDOI.
    ExchangeType(u8) {
        NONE = 0; BASE = 1; IDENTITY_PROTECTION = 2; AUTHENTICATION_ONLY = 3; AGGRESSIVE = 4; INFORMATIONAL = 5;
    }
}

/// Flags of the ISAKMP header (RFC 2408 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    pub const NONE: Self = Self(0);
    /// E: everything behind the header is encrypted.
    pub const ENCRYPTION: Self = Self(1);
    /// C: wait for a notification before using the SA.
    pub const COMMIT: Self = Self(2);
    /// A: authenticated but not encrypted.
    pub const AUTHENTICATION_ONLY: Self = Self(4);

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits that no RFC defines.
    pub fn unknown(self) -> u8 {
        self.0 & !(Self::ENCRYPTION.0 | Self::COMMIT.0 | Self::AUTHENTICATION_ONLY.0)
    }
}

open_number! {
    /// Domain of interpretation (RFC 2408 §A.2, RFC 2407 §4.4, RFC 6407 §5.2).
    Doi(u32) { ISAKMP = 0; IPSEC = 1; GDOI = 2; }
}

open_number! {
    /// Protocol identifiers of proposals, notifications and deletes under the IPsec DOI (RFC 2407
    /// §4.4.1). Under the GDOI a delete has other numbers (RFC 6407 §5.9).
    ProtocolId(u8) { RESERVED = 0; ISAKMP = 1; IPSEC_AH = 2; IPSEC_ESP = 3; IPCOMP = 4; }
}

open_number! {
    /// Identification types (RFC 2407 §4.6.2.1, RFC 8052 §4).
    IdType(u8) {
        RESERVED = 0; IPV4_ADDR = 1; FQDN = 2; USER_FQDN = 3; IPV4_ADDR_SUBNET = 4; IPV6_ADDR = 5; IPV6_ADDR_SUBNET = 6;
        IPV4_ADDR_RANGE = 7; IPV6_ADDR_RANGE = 8; DER_ASN1_DN = 9; DER_ASN1_GN = 10; KEY_ID = 11; LIST = 12; OID = 13;
    }
}

open_number! {
    /// Certificate encodings (RFC 2408 §3.9).
    CertificateEncoding(u8) {
        NONE = 0; PKCS7 = 1; PGP = 2; DNS_SIGNED_KEY = 3; X509_SIGNATURE = 4; X509_KEY_EXCHANGE = 5; KERBEROS_TOKENS = 6;
        CRL = 7; ARL = 8; SPKI = 9; X509_ATTRIBUTE = 10;
    }
}
