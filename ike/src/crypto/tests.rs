//! Published vectors and recordings of other implementations; nothing here compares the crate with
//! itself alone.

use super::keymat::{self, PhaseOneKeys};
use super::*;
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use crate::testing::{GROUPS, group_named, hash_named, hex, json, octets};

const HASHES: [HashAlgorithm; 5] = [
    HashAlgorithm::Md5,
    HashAlgorithm::Sha1,
    HashAlgorithm::Sha2_256,
    HashAlgorithm::Sha2_384,
    HashAlgorithm::Sha2_512,
];

/// RFC 2202 §2, §3 and RFC 4231 §4.3: the key "Jefe".
#[test]
fn prf_is_hmac_at_full_length() {
    let expected = [
        "750c783e6ab0b503eaa86e310a5db738",
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
         9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ];
    for (algorithm, expected) in HASHES.into_iter().zip(expected) {
        let output = prf(algorithm, b"Jefe", &[b"what do ya want ", b"", b"for nothing?"]);
        assert_eq!(output.expose(), hex(expected), "{algorithm:?}");
        assert_eq!(output.len(), algorithm.output_length());
    }
}

/// RFC 1321 appendix A.5 and FIPS 180 examples: "abc".
#[test]
fn hash_of_parts_is_the_hash_of_their_concatenation() {
    let expected = [
        "900150983cd24fb0d6963f7d28e17f72",
        "a9993e364706816aba3e25717850c26c9cd0d89d",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ];
    for (algorithm, expected) in HASHES.into_iter().zip(expected) {
        assert_eq!(hash(algorithm, &[b"a", b"", b"bc"]), hex(expected), "{algorithm:?}");
    }
}

/// NIST SP 800-38A appendix F.2, FIPS 81 appendix B.
#[test]
fn ciphers_give_the_published_ciphertext_and_back() {
    let text = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
    let iv = "000102030405060708090a0b0c0d0e0f";
    let cases = [
        (
            Phase1Encryption::Aes128Cbc,
            "2b7e151628aed2a6abf7158809cf4f3c",
            iv,
            text,
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2\
             73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
        ),
        (
            Phase1Encryption::Aes192Cbc,
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            iv,
            text,
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a\
             571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
        ),
        (
            Phase1Encryption::Aes256Cbc,
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            iv,
            text,
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d\
             39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        ),
        (
            Phase1Encryption::DesCbc,
            "0123456789abcdef",
            "1234567890abcdef",
            "4e6f77206973207468652074696d6520666f7220616c6c20",
            "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6",
        ),
        // Three equal keys make 3DES what DES is.
        (
            Phase1Encryption::TripleDesCbc,
            "0123456789abcdef0123456789abcdef0123456789abcdef",
            "1234567890abcdef",
            "4e6f77206973207468652074696d6520666f7220616c6c20",
            "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6",
        ),
    ];
    for (encryption, key, iv, plain, secret) in cases {
        let cipher = Cipher::new(encryption, Secret::new(hex(key))).unwrap();
        let iv = Iv::leading(encryption, &hex(iv));
        let mut buffer = hex(plain);
        let next = cipher.encrypt(&iv, &mut buffer).unwrap();
        assert_eq!(buffer, hex(secret), "{encryption:?}");
        assert_eq!(next.as_slice(), &hex(secret)[hex(secret).len() - encryption.block_length()..]);
        assert_eq!(
            cipher.decrypt(&iv, &mut buffer).unwrap(),
            next,
            "both sides continue the chain alike"
        );
        assert_eq!(buffer, hex(plain));
    }
}

#[test]
fn ciphers_refuse_what_is_not_whole_blocks_and_leave_it_alone() {
    let encryption = Phase1Encryption::Aes128Cbc;
    let cipher = Cipher::new(encryption, Secret::new(vec![0; 16])).unwrap();
    let iv = Iv::leading(encryption, &[0; 16]);
    for have in [0, 1, 15, 17, 31] {
        let mut buffer = vec![7; have];
        assert_eq!(
            cipher.decrypt(&iv, &mut buffer),
            Err(CipherError::NotWholeBlocks { block: 16, have })
        );
        assert_eq!(
            cipher.encrypt(&iv, &mut buffer),
            Err(CipherError::NotWholeBlocks { block: 16, have })
        );
        assert_eq!(buffer, vec![7; have]);
    }
    let short = Iv::leading(Phase1Encryption::DesCbc, &[0; 16]);
    assert_eq!(
        cipher.decrypt(&short, &mut [0; 16]),
        Err(CipherError::IvLength { expected: 16, received: 8 })
    );
    assert_eq!(
        Cipher::new(encryption, Secret::new(vec![0; 24])).unwrap_err(),
        CipherError::KeyLength { expected: 16, received: 24 }
    );
}

/// 48 derivations of another implementation's validation suite.
#[test]
fn key_derivation_vectors() {
    let vectors = json("crypto/ikev1_key_derivation.json");
    let mut seen = 0;
    for vector in vectors.as_array().unwrap() {
        let algorithm = hash_named(&vector["hash"]);
        let field = |name: &str| octets(&vector[name]);
        let secret = |name: &str| Secret::new(field(name));
        let cookie = |name: &str| <[u8; 8]>::try_from(field(name)).unwrap();
        let expected = field("output");
        let derived = match vector["formula"].as_str().unwrap() {
            "prf" => prf(algorithm, &field("key"), &[&field("data")]),
            "skeyid" => keymat::skeyid_pre_shared(
                algorithm,
                &secret("pre_shared_key"),
                &field("ni"),
                &field("nr"),
            ),
            "expand" => keymat::expand(algorithm, &secret("key"), expected.len()),
            "keymat" => {
                // Key material of Quick Mode, which the prf must be able to give: K1 = prf(key,
                // g_xy | seed), Kn = prf(key, Kn-1 | g_xy | seed).
                let (key, g_xy, seed) = (field("key"), field("g_xy"), field("seed"));
                let mut material = Vec::new();
                let mut block = Vec::new();
                while material.len() < expected.len() {
                    block = prf(algorithm, &key, &[&block, &g_xy, &seed]).expose().to_vec();
                    material.extend_from_slice(&block);
                }
                material.truncate(expected.len());
                Secret::new(material)
            }
            step => {
                let (cky_i, cky_r) = (cookie("cky_i"), cookie("cky_r"));
                let keys = PhaseOneKeys::derive(
                    algorithm,
                    secret("skeyid"),
                    &secret("g_xy"),
                    &cky_i,
                    &cky_r,
                );
                match step {
                    "skeyid_d" => keys.skeyid_d,
                    "skeyid_a" => {
                        assert_eq!(keys.skeyid_d.expose(), field("previous"));
                        keys.skeyid_a
                    }
                    "skeyid_e" => {
                        assert_eq!(keys.skeyid_a.expose(), field("previous"));
                        keys.skeyid_e
                    }
                    other => panic!("formula {other}"),
                }
            }
        };
        assert_eq!(derived.expose(), expected, "{vector}");
        seen += 1;
    }
    assert_eq!(seen, 48);
}

/// Figures computed in another language from the formulas of RFC 2409 §5 and appendix B.
#[test]
fn worked_keys_and_ivs() {
    let (cky_i, cky_r) =
        ([1, 2, 3, 4, 5, 6, 7, 8], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    let ni_b: Vec<u8> = (0x20..0x30).collect();
    let nr_b: Vec<u8> = (0x40..0x50).collect();
    let cases = [
        (
            HashAlgorithm::Sha1,
            "ba76758a1c280ed7db7bd262217074d7136ff2a7",
            "6cb87d05cd21a46b01e343f2764891b4056f8549",
            "193f3dc975b9eb4601a5b71e180b6294ceb9edbf",
            "c9ffcb75aaee24ce348853fa77c8ab35aa14f18f",
            "c9ffcb75aaee24ce348853fa77c8ab35",
            "431b6d55e6e7f2475766169b2b2c75d10b6b2457efcfe35ca0d832487bd2598a",
        ),
        (
            HashAlgorithm::Sha2_256,
            "dc8b6d930ece941845a9d9438665ed8bcd5f4053ad92c87d48c96bc4f5baff4b",
            "25e4773507a922889fb50d6bb808b36ea8571236f11fc832fe729147c65dd3d5",
            "281f555ac6bc9478b882e3ac36bdcec1393c32dda65ea27df1e00b711215315e",
            "1d9811ed93e3b44ea8ec1a4d0c5e3ae62be1ba5b6d12c41d62a2c48f9b1f0f7e",
            "1d9811ed93e3b44ea8ec1a4d0c5e3ae6",
            "1d9811ed93e3b44ea8ec1a4d0c5e3ae62be1ba5b6d12c41d62a2c48f9b1f0f7e",
        ),
    ];
    for (algorithm, skeyid, d, a, e, aes_128, aes_256) in cases {
        let psk = Secret::copy_from(b"lab-psk");
        let derived = keymat::skeyid_pre_shared(algorithm, &psk, &ni_b, &nr_b);
        assert_eq!(derived.expose(), hex(skeyid));
        let keys =
            PhaseOneKeys::derive(algorithm, derived, &Secret::new(vec![0xaa; 256]), &cky_i, &cky_r);
        assert_eq!(keys.skeyid_d.expose(), hex(d));
        assert_eq!(keys.skeyid_a.expose(), hex(a));
        assert_eq!(keys.skeyid_e.expose(), hex(e));
        let key = |encryption| keymat::cipher_key(algorithm, &keys.skeyid_e, encryption).unwrap();
        assert_eq!(key(Phase1Encryption::Aes128Cbc).expose(), hex(aes_128));
        assert_eq!(key(Phase1Encryption::Aes256Cbc).expose(), hex(aes_256));
    }
    let (algorithm, encryption) = (HashAlgorithm::Sha2_256, Phase1Encryption::Aes128Cbc);
    let iv = keymat::phase1_iv(algorithm, encryption, &[0xbb; 256], &[0xcc; 256]);
    assert_eq!(iv.as_slice(), hex("2e76fd37b853d7fd01d1d0e7536d7cf2"));
    let last_block = Iv::leading(encryption, &(0x60..0x70).collect::<Vec<u8>>());
    let iv = keymat::phase2_iv(algorithm, encryption, &last_block, 0xdead_beef);
    assert_eq!(iv.as_slice(), hex("7de7d5a1f05ceae3238c50004447f2d5"));
}

/// RFC 2409 appendix A and B: the key is made of the first octets that are no weak key.
#[test]
fn des_keys_are_never_weak() {
    let weak = [
        "0101010101010101",
        "1f1f1f1f0e0e0e0e",
        "011f011f010e010e",
        "fee0fee0fef1fef1",
        "0000000000000000",
    ];
    for weak in weak {
        let strong = hex("133457799bbcdff1");
        let skeyid_e = Secret::new([hex(weak), strong.clone()].concat());
        let key =
            keymat::cipher_key(HashAlgorithm::Md5, &skeyid_e, Phase1Encryption::DesCbc).unwrap();
        assert_eq!(key.expose(), strong, "{weak}");
    }
    let hopeless = Secret::new(vec![0xfe; 16]);
    assert!(keymat::cipher_key(HashAlgorithm::Md5, &hopeless, Phase1Encryption::DesCbc).is_none());
}

fn agree(own: &KeyPair, peer: &[u8]) -> Result<Secret, DhError> {
    own.agree(&PublicValue::read(own.group(), peer)?)
}

/// RFC 5903 §8, RFC 5114 appendix A.3, and figures from another language's integers for the other
/// groups.
#[test]
fn diffie_hellman_vectors_of_every_group() {
    let mut groups = Vec::new();
    for vector in json("crypto/diffie_hellman.json").as_array().unwrap() {
        let group = group_named(&vector["group"]);
        let a = KeyPair::with_private(group, &octets(&vector["private_a"]));
        let b = KeyPair::with_private(group, &octets(&vector["private_b"]));
        assert_eq!(a.public(), octets(&vector["public_a"]), "{group:?}");
        assert_eq!(b.public(), octets(&vector["public_b"]), "{group:?}");
        let shared = octets(&vector["shared"]);
        assert_eq!(agree(&a, b.public()).unwrap().expose(), shared, "{group:?}");
        assert_eq!(agree(&b, a.public()).unwrap().expose(), shared, "{group:?}");
        assert_eq!(shared.len(), group.shared_length());
        assert_eq!(a.public().len(), group.public_length());
        groups.push(group);
    }
    groups.sort();
    let mut all = GROUPS.to_vec();
    all.sort();
    assert_eq!(groups, all);
}

#[test]
fn fresh_pairs_agree_and_differ() {
    let mut rng = SeededRng::from_seed([3; 32]);
    for group in GROUPS {
        let (a, b) = (KeyPair::generate(group, &mut rng), KeyPair::generate(group, &mut rng));
        assert_ne!(a.public(), b.public());
        assert_eq!(agree(&a, b.public()).unwrap(), agree(&b, a.public()).unwrap(), "{group:?}");
    }
}

#[test]
fn public_values_of_the_wrong_length_are_refused() {
    let mut rng = SeededRng::from_seed([4; 32]);
    for group in [DhGroup::Modp1024, DhGroup::Ecp256, DhGroup::Ecp384] {
        let peer = KeyPair::generate(group, &mut rng);
        let expected = group.public_length();
        let longer = [&[0], peer.public()].concat();
        let wrong = DhError::Length { group, expected, received: expected + 1 };
        assert_eq!(PublicValue::read(group, &longer).unwrap_err(), wrong);
        let wrong = DhError::Length { group, expected, received: expected - 1 };
        assert_eq!(PublicValue::read(group, &peer.public()[1..]).unwrap_err(), wrong);
        assert_eq!(
            PublicValue::read(group, &[]).unwrap_err(),
            DhError::Length { group, expected, received: 0 }
        );
    }
}

/// 0, 1, p-1, p and 2^n-1 are refused; 2 and p-2 are the bounds of what is accepted.
#[test]
fn public_values_out_of_range_are_refused() {
    for (group, prime) in [
        (DhGroup::Modp768, modp::MODP_768),
        (DhGroup::Modp1024, modp::MODP_1024),
        (DhGroup::Modp1536, modp::MODP_1536),
        (DhGroup::Modp2048, modp::MODP_2048),
        (DhGroup::Modp3072, modp::MODP_3072),
        (DhGroup::Modp4096, modp::MODP_4096),
        (DhGroup::Modp2048Subgroup256, modp::MODP_2048_256_PRIME),
    ] {
        let p = hex(prime);
        let changed = |by: u8| {
            let mut value = p.clone();
            *value.last_mut().unwrap() -= by;
            value
        };
        let small = |value: u8| {
            let mut octets = vec![0; p.len()];
            *octets.last_mut().unwrap() = value;
            octets
        };
        for outside in [small(0), small(1), changed(1), p.clone(), vec![0xff; p.len()]] {
            assert_eq!(PublicValue::read(group, &outside).unwrap_err(), DhError::Range { group });
        }
        for inside in [small(2), changed(2)] {
            match PublicValue::read(group, &inside) {
                Err(error) => {
                    assert_eq!(error, DhError::Subgroup { group });
                    assert_eq!(
                        group,
                        DhGroup::Modp2048Subgroup256,
                        "only this group has a subgroup to check"
                    );
                }
                Ok(_) => assert_ne!(group, DhGroup::Modp2048Subgroup256),
            }
        }
    }
}

#[test]
fn points_off_the_curve_are_refused() {
    let mut rng = SeededRng::from_seed([6; 32]);
    for group in [DhGroup::Ecp256, DhGroup::Ecp384] {
        let peer = KeyPair::generate(group, &mut rng);
        let mut off = peer.public().to_vec();
        *off.last_mut().unwrap() ^= 1;
        for bad in [off, vec![0; group.public_length()], vec![0xff; group.public_length()]] {
            assert_eq!(PublicValue::read(group, &bad).unwrap_err(), DhError::NotOnCurve { group });
        }
    }
}

#[test]
fn a_value_of_another_group_is_refused() {
    let mut rng = SeededRng::from_seed([7; 32]);
    let groups =
        [DhGroup::Ecp256, DhGroup::Ecp384, DhGroup::Modp2048, DhGroup::Modp2048Subgroup256];
    for group in groups {
        let own = KeyPair::generate(group, &mut rng);
        for received in groups.into_iter().filter(|received| *received != group) {
            let peer = KeyPair::generate(received, &mut rng);
            let peer = PublicValue::read(received, peer.public()).unwrap();
            assert_eq!(own.agree(&peer).unwrap_err(), DhError::OtherGroup { group, received });
        }
    }
}

#[test]
fn comparison_is_about_every_octet_and_the_length() {
    assert!(constant_time_eq(b"abc", b"abc"));
    assert!(!constant_time_eq(b"abc", b"abd"));
    assert!(!constant_time_eq(b"abc", b"xbc"));
    assert!(!constant_time_eq(b"abc", b"ab"));
    assert!(!constant_time_eq(b"", b"a"));
}
