//! States on the wire of netlink, there and back.

use super::*;

fn key(length: usize) -> Key {
    Key::copy_from(&(1..).take(length).collect::<Vec<u8>>())
}

fn all() -> Vec<Protection> {
    let mut all = Vec::new();
    for integrity in Integrity::ALL {
        for encryption in Encryption::ALL {
            for length in encryption.key_lengths().0 {
                all.push(Protection::Separate {
                    encryption,
                    encryption_key: key(*length),
                    integrity,
                    integrity_key: key(integrity.key_lengths().0[0]),
                });
            }
        }
    }
    for aead in Aead::ALL {
        for length in aead.key_lengths().0 {
            all.extend(crate::algorithm::ICV_LENGTHS.map(|icv| Protection::Combined {
                aead,
                key: key(*length),
                icv,
            }));
        }
    }
    all
}

fn sa(protection: Protection, outbound: bool) -> Sa {
    let (source, destination) =
        if outbound { ("10.0.1.1", "192.0.2.1") } else { ("0.0.0.0", "10.0.1.1") };
    Sa {
        id: SaId { destination: destination.parse().unwrap(), spi: 0x1300 },
        source: source.parse().unwrap(),
        role: if outbound { SaRole::Outbound } else { SaRole::Inbound },
        reqid: Reqid(0x4744_0000),
        protection,
        no_path_mtu_discovery: outbound,
        sequence_may_wrap: outbound,
        install: Install::Freely,
        hard_lifetime: outbound.then_some(Duration::from_secs(3_600)),
        unicast: None,
    }
}

#[test]
fn every_algorithm_reads_back() {
    for outbound in [false, true] {
        for protection in all() {
            let sa = sa(protection, outbound);
            let seen = decode(encode(&sa).unwrap().as_octets()).unwrap();
            assert_eq!((seen.id, seen.reqid), (sa.id, sa.reqid));
            assert_eq!(seen.installed.unwrap().sa, sa);
        }
    }
}

#[test]
fn what_an_sa_with_one_sender_has_reads_back() {
    let volume = Some(Volume { soft: 900 << 10, hard: 1 << 20 });
    for (replay_window, volume, extended_sequence_numbers, mode) in [
        (64, None, false, Mode::Tunnel),
        (1024, volume, true, Mode::Transport),
        (0, volume, false, Mode::Tunnel),
        (1, None, true, Mode::Tunnel),
        (0, None, false, Mode::Transport),
        (4096, None, false, Mode::Tunnel),
    ] {
        for protection in all() {
            let port = |port| (replay_window != 64).then_some(port);
            let encapsulation = port(4500)
                .zip(port(1025))
                .map(|(source_port, other)| Encapsulation { source_port, destination_port: other });
            let unicast = Some(Unicast {
                replay_window,
                extended_sequence_numbers,
                mode,
                volume,
                encapsulation,
            });
            let sa = Sa { unicast, ..sa(protection, false) };
            let seen = decode(encode(&sa).unwrap().as_octets()).unwrap();
            assert_eq!(seen.installed.unwrap().sa, sa);
        }
    }
}

/// `struct xfrm_usersa_info` and the attributes, as linux/xfrm.h lays them out.
#[test]
fn octets_are_where_the_kernel_looks() {
    let protection = Protection::Combined { aead: Aead::AesGcm, key: key(20), icv: 16 };
    let body = encode(&sa(protection, true)).unwrap();
    let body = body.as_octets();
    assert_eq!(&body[56..60], [192, 0, 2, 1]);
    assert_eq!(&body[72..77], [0, 0, 0x13, 0, 50]);
    assert_eq!(&body[80..84], [10, 0, 1, 1]);
    assert_eq!(&body[208..212], 0x4744_0000u32.to_ne_bytes());
    // Family, tunnel, replay window 0, nopmtudisc.
    assert_eq!(&body[212..217], [2, 0, 1, 0, 4]);
    assert_eq!(&body[224..228], [96, 0, 18, 0]);
    assert_eq!(&body[228..245], b"rfc4106(gcm(aes))");
    assert_eq!(&body[292..300], [160, 0, 0, 0, 128, 0, 0, 0]);
    assert_eq!(&body[300..304], [1, 2, 3, 4]);
    assert_eq!(&body[320..328], [8, 0, 24, 0, 2, 0, 0, 0]);
}

/// `struct xfrm_encap_tmpl` of linux/xfrm.h: espinudp sport 4500 dport 1025.
#[test]
fn the_octets_of_encapsulation_in_udp() {
    let encapsulation = Encapsulation { source_port: 4500, destination_port: 1025 };
    let template = encapsulation_template(encapsulation);
    assert_eq!(template[..2], 2_u16.to_ne_bytes());
    assert_eq!(template[2..6], [0x11, 0x94, 0x04, 0x01]);
    assert_eq!(template[6..], [0; 18]);
    assert_eq!(read_encapsulation(&template), Some(encapsulation));
    for (place, value) in [(0, 7), (10, 1)] {
        let mut other = template;
        other[place] = value;
        assert_eq!(read_encapsulation(&other), None, "{place}");
    }
    assert_eq!(read_encapsulation(&template[..23]), None);
}

#[test]
fn a_state_that_others_have_changed_is_not_as_we_made_it() {
    let made = || encode(&sa(all().remove(0), true)).unwrap();
    let is_known = |body: &[u8]| decode(body).unwrap().installed.is_some();
    assert!(is_known(made().octets(XFRMA_IF_ID, &[0; 4]).as_octets()));
    for (kind, value) in [
        (XFRMA_IF_ID, &[7, 0, 0, 0][..]),
        (XFRMA_MARK, &[1, 0, 0, 0, 255, 255, 255, 255]),
        (XFRMA_SET_MARK, &[1, 0, 0, 0]),
        (XFRMA_ENCAP, &[0; 24]),
        (XFRMA_TFCPAD, &[64, 0, 0, 0]),
    ] {
        assert!(!is_known(made().octets(kind, value).as_octets()), "attribute {kind}");
    }
    // Replay window, flag `noecn`, hard limits of octets and packets, soft limit of time.
    for offset in [215, 216, 96 + 8, 96 + 24, 96 + 32] {
        let mut changed = made().as_octets().to_vec();
        changed[offset] = 1;
        let limit = changed.get_mut(offset + 1..offset + 8).filter(|_| offset < 200);
        limit.into_iter().for_each(|rest| rest.fill(0));
        assert!(!is_known(&changed), "offset {offset}");
    }
}

#[test]
fn a_wrong_key_length_is_refused_before_the_kernel_sees_it() {
    let protection = Protection::Combined { aead: Aead::AesGcm, key: key(16), icv: 16 };
    let error = encode(&sa(protection, true)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "rfc4106(gcm(aes)) takes a key of 20, 28 or 36 (with 4 of salt) octets, not 16"
    );
}

#[test]
fn a_short_or_foreign_body_is_no_state_of_ours() {
    for protection in all() {
        let body = encode(&sa(protection, true)).unwrap();
        for length in 0..body.as_octets().len() - 9 {
            let seen = decode(&body.as_octets()[..length]);
            assert!(seen.is_none_or(|seen| seen.installed.is_none()), "{length}");
        }
    }
    let body = encode(&sa(all().remove(0), true)).unwrap();
    // BEET mode, AH, another family.
    for (offset, value) in [(214, 4), (76, 51), (212, 7)] {
        let mut changed = body.as_octets().to_vec();
        changed[offset] = value;
        assert!(decode(&changed).is_none_or(|seen| seen.installed.is_none()), "{offset}");
    }
}
