//! Phase 1: transform identifier, attribute classes and their values.

use crate::open_number;

open_number! {
    /// Transform identifier of an ISAKMP proposal (RFC 2407 §4.4.2).
    TransformId(u8) { KEY_IKE = 1; }
}

open_number! {
    /// Attribute classes of phase 1 (RFC 2409 appendix A).
    Phase1Attribute(u16) {
        ENCRYPTION_ALGORITHM = 1; HASH_ALGORITHM = 2; AUTHENTICATION_METHOD = 3; GROUP_DESCRIPTION = 4; GROUP_TYPE = 5;
        GROUP_PRIME = 6; GROUP_GENERATOR_ONE = 7; GROUP_GENERATOR_TWO = 8; GROUP_CURVE_A = 9; GROUP_CURVE_B = 10;
        LIFE_TYPE = 11; LIFE_DURATION = 12; PRF = 13; KEY_LENGTH = 14; FIELD_SIZE = 15; GROUP_ORDER = 16;
    }
}

open_number! {
    /// Encryption Algorithm (RFC 2409 appendix A, RFC 3602 §5.1).
    EncryptionNumber(u16) {
        DES_CBC = 1; IDEA_CBC = 2; BLOWFISH_CBC = 3; RC5_CBC = 4; TRIPLE_DES_CBC = 5; CAST_CBC = 6; AES_CBC = 7;
    }
}

open_number! {
    /// Hash Algorithm (RFC 2409 appendix A, RFC 4868 §4).
    HashNumber(u16) { MD5 = 1; SHA1 = 2; TIGER = 3; SHA2_256 = 4; SHA2_384 = 5; SHA2_512 = 6; }
}

open_number! {
    /// Authentication Method (RFC 2409 appendix A, RFC 4754 §4).
    AuthenticationMethod(u16) {
        PRE_SHARED_KEY = 1; DSS_SIGNATURES = 2; RSA_SIGNATURES = 3; RSA_ENCRYPTION = 4; REVISED_RSA_ENCRYPTION = 5;
        ECDSA = 8; ECDSA_256 = 9; ECDSA_384 = 10; ECDSA_521 = 11;
    }
}

open_number! {
    /// Group Description (RFC 2409 §6, RFC 3526, RFC 5114, RFC 5903).
    GroupNumber(u16) {
        MODP_768 = 1; MODP_1024 = 2; MODP_1536 = 5; MODP_2048 = 14; MODP_3072 = 15; MODP_4096 = 16; MODP_6144 = 17;
        MODP_8192 = 18; ECP_256 = 19; ECP_384 = 20; ECP_521 = 21; MODP_1024_160 = 22; MODP_2048_224 = 23;
        MODP_2048_256 = 24;
    }
}
