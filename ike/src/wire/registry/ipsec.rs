//! IPsec SA attributes, which SAT payloads of the GDOI reuse.

use crate::open_number;

open_number! {
    /// IPsec SA attribute classes (RFC 2407 §4.5, RFC 4304 §2, RFC 4359 §7). RFC 6407 §5.5.1.1
    /// defines the values of the last two but prints no class number; 14 and 15 are what the IANA
    /// registry and implementations use.
    SaAttribute(u16) {
        LIFE_TYPE = 1; LIFE_DURATION = 2; GROUP_DESCRIPTION = 3; ENCAPSULATION_MODE = 4; AUTHENTICATION_ALGORITHM = 5;
        KEY_LENGTH = 6; KEY_ROUNDS = 7; COMPRESS_DICTIONARY_SIZE = 8; COMPRESS_PRIVATE_ALGORITHM = 9; ECN_TUNNEL = 10;
        EXTENDED_SEQUENCE_NUMBER = 11; AUTHENTICATION_KEY_LENGTH = 12; SIGNATURE_ENCODING_ALGORITHM = 13;
        ADDRESS_PRESERVATION = 14; SA_DIRECTION = 15;
    }
}

open_number! {
    /// Life Type of phase 1 and of IPsec SAs (RFC 2409 appendix A, RFC 2407 §4.5).
    LifeType(u16) { SECONDS = 1; KILOBYTES = 2; }
}
