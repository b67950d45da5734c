//! GDOI: attributes of SAK, GAP and of the key packets.

use ike::open_number;
use ike::wire::registry::ExchangeType;

/// GROUPKEY-PULL (RFC 6407 §3.2.1).
pub const GROUPKEY_PULL: ExchangeType = ExchangeType(32);
/// GROUPKEY-PUSH (RFC 6407 §4.2).
pub const GROUPKEY_PUSH: ExchangeType = ExchangeType(33);
/// GROUPKEY-PUSH-ACK (RFC 8263 §3.1).
pub const GROUPKEY_PUSH_ACK: ExchangeType = ExchangeType(35);

open_number! {
    /// KEK attribute classes of a SAK (RFC 6407 §5.3, RFC 8263 §2).
    KekAttribute(u16) {
        KEK_MANAGEMENT_ALGORITHM = 1; KEK_ALGORITHM = 2; KEK_KEY_LENGTH = 3; KEK_KEY_LIFETIME = 4;
        SIG_HASH_ALGORITHM = 5; SIG_ALGORITHM = 6; SIG_KEY_LENGTH = 7; KE_OAKLEY_GROUP = 8; KEK_ACK_REQUESTED = 9;
    }
}

open_number! {
    /// KEK_ALGORITHM, also the Key Type of LKH keys (RFC 6407 §5.3.2).
    KekAlgorithm(u16) { DES = 1; TRIPLE_DES = 2; AES = 3; }
}

open_number! {
    /// SIG_HASH_ALGORITHM (RFC 6407 §5.3.5).
    SignatureHash(u16) { MD5 = 1; SHA1 = 2; SHA256 = 3; SHA384 = 4; SHA512 = 5; }
}

open_number! {
    /// SIG_ALGORITHM (RFC 6407 §5.3.6).
    SignatureAlgorithm(u16) { RSA = 1; DSS = 2; ECDSS = 3; ECDSA_256 = 4; ECDSA_384 = 5; ECDSA_521 = 6; }
}

open_number! {
    /// KEK_ACK_REQUESTED (RFC 8263 §2).
    RekeyAcknowledgement(u16) { KEK_SHA256 = 1; LKH_SHA256 = 2; KEK_SHA512 = 3; LKH_SHA512 = 4; }
}

open_number! {
    /// GAP attribute classes (RFC 6407 §5.4).
    GapAttribute(u16) { ACTIVATION_TIME_DELAY = 1; DEACTIVATION_TIME_DELAY = 2; SENDER_ID_REQUEST = 3; }
}

open_number! {
    /// Types of key packets (RFC 6407 §5.6).
    KdType(u8) { TEK = 1; KEK = 2; LKH = 3; SID = 4; }
}

open_number! {
    /// Attribute classes of a TEK key packet (RFC 6407 §5.6.1).
    TekKeyAttribute(u16) { TEK_ALGORITHM_KEY = 1; TEK_INTEGRITY_KEY = 2; TEK_SOURCE_AUTH_KEY = 3; }
}

open_number! {
    /// Attribute classes of a KEK key packet (RFC 6407 §5.6.2).
    KekKeyAttribute(u16) { KEK_ALGORITHM_KEY = 1; SIG_ALGORITHM_KEY = 2; }
}

open_number! {
    /// Attribute classes of an LKH key packet (RFC 6407 §5.6.3).
    LkhAttributeClass(u16) { LKH_DOWNLOAD_ARRAY = 1; LKH_UPDATE_ARRAY = 2; SIG_ALGORITHM_KEY = 3; }
}

open_number! {
    /// Attribute classes of a SID key packet (RFC 6407 §5.6.4).
    SidAttribute(u16) { NUMBER_OF_SID_BITS = 1; SID_VALUE = 2; }
}
