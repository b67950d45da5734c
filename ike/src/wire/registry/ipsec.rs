//! ESP transforms and IPsec SA attributes, which SAT payloads of the GDOI reuse.

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

open_number! {
    /// ESP transform identifiers (RFC 2407 §4.4.4, RFC 3602 §5.2, RFC 4106 §8.3).
    EspTransformId(u8) {
        DES = 2; TRIPLE_DES = 3; BLOWFISH = 7; NULL = 11; AES_CBC = 12; AES_CTR = 13; AES_CCM_8 = 14; AES_CCM_12 = 15;
        AES_CCM_16 = 16; AES_GCM_8 = 18; AES_GCM_12 = 19; AES_GCM_16 = 20;
    }
}

open_number! {
    /// Authentication Algorithm of an IPsec SA (RFC 2407 §4.5, RFC 4868 §4).
    AuthenticationAlgorithm(u16) {
        HMAC_MD5 = 1; HMAC_SHA1 = 2; DES_MAC = 3; KPDK = 4; HMAC_SHA2_256 = 5; HMAC_SHA2_384 = 6; HMAC_SHA2_512 = 7;
    }
}

open_number! {
    /// Encapsulation Mode of an IPsec SA (RFC 2407 §4.5, RFC 3947 §5.1); the last two are those of
    /// its drafts.
    EncapsulationMode(u16) {
        TUNNEL = 1; TRANSPORT = 2; UDP_TUNNEL = 3; UDP_TRANSPORT = 4; DRAFT_UDP_TUNNEL = 61443; DRAFT_UDP_TRANSPORT = 61444;
    }
}
