//! What the wire may bring, at every moment of a registration: truncated, oversized, foreign,
//! replayed and random datagrams, and a flood. Each is an error with a reason, changes nothing, and
//! disturbs nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gdoi::config::{RegistrationConfig, ServerConfig};
use gdoi::event::{ServerEvent, Transmit};
use gdoi::member::Registration;
use ike::config::{
    Credential, PeerCredential, Phase1Policy, Phase1Transform, RetransmissionPolicy,
};
use ike::crypto::DhGroup;
use ike::crypto::{Secret, SeededRng};
use ike::endpoint::Limits;
use support::*;

/// Registers one member while `attack` may say something after every step; the registration must
/// not notice.
fn register_under(attack: impl Fn(&mut Pair, usize)) -> Pair {
    let mut pair = Pair::new(1);
    pair.settle();
    let end = pair.now + seconds(5);
    let mut seen = 0;
    loop {
        // Attack after each datagram that was sent.
        if pair.sent.len() > seen {
            seen = pair.sent.len();
            attack(&mut pair, seen);
        }
        if !pair.step(end) {
            break;
        }
    }
    assert!(pair.is_registered(0), "{:?}", pair.failure(0));
    assert_eq!(pair.registered(0).unwrap(), &group_sa(GROUP));
    assert_eq!(pair.completed(), 1);
    assert_eq!(pair.server.statistics().established, 1);
    assert_eq!(pair.members[0].stage(), gdoi::event::Stage::Registered);
    pair
}

/// Both sides get `datagram` in the other's name; both must refuse it, and nothing may come out.
fn refused(pair: &mut Pair, what: &str, datagram: &[u8]) {
    let deadlines = (pair.server.poll_timeout(), pair.members[0].poll_timeout());
    let now = pair.now;
    let by_server = pair.server.handle_datagram(member_address(1), server_address(), datagram, now);
    let by_member = pair.members[0].handle_datagram(server_address(), datagram, now);
    for error in [by_server, by_member] {
        let error = error.expect_err(what);
        assert!(!error.reason().is_empty() && !error.to_string().is_empty());
    }
    assert!(
        pair.server.poll_transmit().is_none() && pair.members[0].poll_transmit().is_none(),
        "{what}"
    );
    assert!(pair.server.poll_event().is_none() && pair.members[0].poll_event().is_none(), "{what}");
    assert_eq!((pair.server.poll_timeout(), pair.members[0].poll_timeout()), deadlines, "{what}");
}

#[test]
fn truncated_and_extended_datagrams() {
    register_under(|pair, seen| {
        let last = pair.sent[seen - 1].payload.clone();
        for length in 0..last.len() {
            refused(pair, "truncated", &last[..length]);
            // With a length field that fits what is there.
            if length >= 28 {
                let mut cut = last[..length].to_vec();
                cut[24..28].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
                if cut[16] != 0 {
                    refused(pair, "truncated, with its length", &cut);
                }
            }
        }
        for extra in [1, 4, 16, 60_000] {
            let mut long = last.clone();
            long.resize(last.len() + extra, 0);
            refused(pair, "extended", &long);
        }
    });
}

#[test]
fn oversized_datagrams() {
    register_under(|pair, seen| {
        for fill in [0_u8, 0xff, 0x0a] {
            refused(pair, "65,535 octets", &vec![fill; 65_535]);
            let mut datagram = pair.sent[seen - 1].payload.clone();
            datagram.resize(65_535, fill);
            datagram[24..28].copy_from_slice(&65_535_u32.to_be_bytes());
            refused(pair, "65,535 octets behind a good header", &datagram);
        }
    });
}

#[test]
fn wrong_cookies_exchange_types_flags_and_identifiers() {
    register_under(|pair, seen| {
        let last = pair.sent[seen - 1].payload.clone();
        let change = |place: usize, value: u8| {
            let mut datagram = last.clone();
            datagram[place] ^= value;
            datagram
        };
        // Message 1 with another initiator cookie is another member's; with a responder cookie it
        // is a good message 2. In message 2 the member learns the responder's cookie: who knows the
        // first one could write it.
        let cookies = match seen {
            1 => 0..0,
            2 => 0..8,
            _ => 0..16,
        };
        for place in cookies.chain([17]) {
            refused(pair, "header", &change(place, 0x40));
        }
        for exchange in [0, 1, 3, 4, 6, 31, 33, 34, 35, 240, 255] {
            let mut datagram = last.clone();
            datagram[18] = exchange;
            refused(pair, "exchange type", &datagram);
        }
        refused(pair, "encryption bit", &change(19, 1));
        for place in 20..24 {
            refused(pair, "message identifier", &change(place, 1));
        }
    });
}

/// Nothing protects messages 1 to 4 of main mode, but whoever changes one cannot have both sides
/// agree.
#[test]
fn changed_octets_of_protected_messages() {
    let pair = register_under(|pair, seen| {
        let last = pair.sent[seen - 1].payload.clone();
        if last[19] & 1 == 1 {
            for place in 28..last.len() {
                let mut datagram = last.clone();
                datagram[place] ^= 0x20;
                refused(pair, "changed ciphertext", &datagram);
            }
        }
    });
    assert!(pair.server.statistics().discards.contains_key("wrong-hash"));
}

#[test]
fn unknown_payloads_in_clear_messages() {
    register_under(|pair, seen| {
        let mut datagram = pair.sent[seen - 1].payload.clone();
        if datagram[19] == 0 {
            for kind in [0, 9, 14, 77, 127, 200] {
                datagram[16] = kind;
                refused(pair, "unknown first payload", &datagram);
            }
        }
    });
}

#[test]
fn random_octets() {
    let mut rng = SeededRng::from_seed([77; 32]);
    let datagrams: Vec<Vec<u8>> = (0..600_usize)
        .map(|index| {
            let mut datagram = vec![0; index];
            rng.fill(&mut datagram);
            datagram
        })
        .collect();
    register_under(|pair, seen| {
        for datagram in &datagrams {
            refused(pair, "random octets", datagram);
            // Behind the good header of the moment, with a fitting length.
            let mut behind = pair.sent[seen - 1].payload[..28].to_vec();
            behind.extend_from_slice(datagram);
            let length = u32::try_from(behind.len()).unwrap();
            behind[24..28].copy_from_slice(&length.to_be_bytes());
            refused(pair, "random octets behind a header", &behind);
        }
    });
}

/// Every datagram of the run so far again, to both sides, at once and after the exchange. Requests
/// may be answered again from memory; nothing else may happen.
#[test]
fn replayed_datagrams() {
    let mut pair = register_under(|pair, seen| {
        for index in 0..seen.saturating_sub(1) {
            let Transmit { source, destination, payload } = pair.sent[index].clone();
            // Every copy of a message 1 whose offer is known gets an answer, which is no longer:
            // that would never end.
            if seen > 20 && payload[8..16] == [0; 8] {
                continue;
            }
            pair.inject(Transmit { source, destination, payload }, seconds(0));
        }
    });
    let completed = pair.completed();
    let events = pair.server_events.len();
    for when in [1, 10, 100, 1000] {
        pair.run(seconds(when));
        for transmit in pair.sent.clone() {
            // A message 1 begins a half-open exchange, whoever sends it; that is what the bounds
            // are for.
            if transmit.payload[8..16] != [0; 8] {
                pair.inject(transmit, seconds(0));
            }
        }
        pair.run(seconds(1));
    }
    assert_eq!(pair.completed(), completed);
    assert_eq!(pair.server_events.len(), events, "{:?}", pair.server_events);
    assert!(pair.server.statistics().discards["replayed"] > 0);
}

/// The messages of one exchange are worth nothing in another, nor from another address.
#[test]
fn datagrams_of_another_exchange_and_from_another_address() {
    let mut other = Pair::with(server_config(), vec![registration_config(member_address(1))]);
    other.members =
        vec![Registration::new(registration_config(member_address(1)), [99; 32], other.now)];
    other.run(seconds(5));
    register_under(|pair, seen| {
        for transmit in &other.sent {
            if transmit.payload[8..16] != [0; 8] {
                refused(pair, "another exchange", &transmit.payload);
            }
        }
        let last = pair.sent[seen - 1].clone();
        let elsewhere = SocketAddr::new(member_address(1).ip(), 4000);
        if last.payload[8..16] != [0; 8] {
            let error = pair
                .server
                .handle_datagram(elsewhere, server_address(), &last.payload, pair.now)
                .unwrap_err();
            assert_eq!(error.reason(), "wrong-source");
        }
        let error =
            pair.members[0].handle_datagram(elsewhere, &last.payload, pair.now).unwrap_err();
        assert_eq!(error.reason(), "wrong-source");
    });
}

/// A notification or delete without protection is a hint, whatever it says.
#[test]
fn unprotected_notifications_and_deletes_change_nothing() {
    register_under(|pair, seen| {
        let last = &pair.sent[seen - 1].payload;
        let mut header = last[..28].to_vec();
        header[18] = 5;
        header[19] = 0;
        for (kind, body) in [
            // N: DOI 2, protocol 1, no SPI, type.
            (11, vec![0, 0, 0, 12, 0, 0, 0, 2, 1, 0, 0, 14]),
            (11, vec![0, 0, 0, 12, 0, 0, 0, 2, 1, 0, 0, 24]),
            // D: DOI 2, protocol 1, one SPI of 16 octets.
            (12, [&[0, 0, 0, 28, 0, 0, 0, 2, 1, 16, 0, 1], &last[..16]].concat()),
        ] {
            let mut datagram = [header.as_slice(), &body].concat();
            datagram[16] = kind;
            let length = u32::try_from(datagram.len()).unwrap();
            datagram[24..28].copy_from_slice(&length.to_be_bytes());
            refused(pair, "unprotected", &datagram);
            // And with the encryption bit, as if it were protected.
            datagram[19] = 1;
            refused(pair, "clear octets behind the encryption bit", &datagram);
        }
    });
}

#[test]
fn strangers_without_credential_get_nothing() {
    let mut pair = Pair::new(1);
    pair.settle();
    let first = pair.sent[0].payload.clone();
    let stranger = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 848);
    let error =
        pair.server.handle_datagram(stranger, server_address(), &first, pair.now).unwrap_err();
    assert_eq!(error.reason(), "unknown-source");
    assert!(pair.server.poll_transmit().is_none());
    assert_eq!(pair.server.statistics().half_open, 0);
    assert_eq!(pair.server.statistics().discards["unknown-source"], 1);
}

/// Message 1 of a member that does not exist, with an offer that nobody has proved: the lifetime
/// of each is another.
fn forged_first_message(template: &[u8], number: u32) -> Vec<u8> {
    let mut datagram = template.to_vec();
    datagram[..4].copy_from_slice(&number.to_be_bytes());
    datagram[4] = 0xf0;
    // Life duration: 3600 s.
    let life = [0, 0, 0x0e, 0x10];
    let place = datagram.windows(4).position(|octets| octets == life).unwrap() + 2;
    let other = u16::try_from(4000 + number % 50_000).unwrap();
    datagram[place..place + 2].copy_from_slice(&other.to_be_bytes());
    datagram
}

fn forged_source(number: u32) -> SocketAddr {
    let [_, _, high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, high, low)), 848)
}

/// 10,000 first messages while ten members register: with and without a credential for the forged
/// sources, which arrive within `duration`.
fn flood(covered: bool, limits: Limits, duration: std::time::Duration) -> Pair {
    let mut server = server_config();
    server.limits = limits;
    if covered {
        server.peers.push(PeerCredential {
            addresses: "10.77.0.0/16".parse().unwrap(),
            identity: None,
            credential: Credential::PreSharedKey(std::sync::Arc::new(Secret::copy_from(
                b"nobody has it",
            ))),
        });
    }
    let members = (1..=10).map(|number| registration_config(member_address(number))).collect();
    let mut pair = Pair::with(server, members);
    pair.settle();
    let template = pair.sent[0].payload.clone();
    // The flood is under way before the members begin, and goes on while they register.
    for number in 0..10_000_u32 {
        let payload = forged_first_message(&template, number);
        let transmit =
            Transmit { source: forged_source(number), destination: server_address(), payload };
        pair.inject(transmit, duration * number / 10_000);
    }
    let begin = pair.now;
    pair.run(seconds(30));
    for index in 0..10 {
        assert!(pair.is_registered(index), "member {index}: {:?}", pair.failure(index));
    }
    assert_eq!(pair.server.statistics().phase1_established, 10);
    assert_eq!(pair.server.statistics().diffie_hellman, 20, "none for the flood");
    assert!(pair.server.statistics().half_open <= limits.half_open);
    let last = pair.member_events.iter().all(|events| events.len() == 3);
    assert!(last && pair.now.saturating_since(begin) == seconds(30));
    // Nothing of it stays.
    pair.run(seconds(60));
    assert_eq!(pair.server.statistics().half_open, 0);
    pair
}

#[test]
fn a_flood_from_sources_without_credential() {
    let pair = flood(false, Limits::default(), seconds(1));
    assert_eq!(pair.server.statistics().discards["unknown-source"], 10_000);
    assert_eq!(pair.server.statistics().half_open_evicted, 0);
}

#[test]
fn a_flood_from_sources_with_credential() {
    let pair = flood(true, Limits::default(), seconds(1));
    // The members, and who comes when the first has proved the offer of all, take no place or leave
    // theirs in order.
    let evicted = pair.server.statistics().half_open_evicted;
    assert!((10_000 - 4096 - 10..=10_000 - 4096).contains(&evicted), "{evicted}");
}

/// A table of 200 places turns over ten times a second; a round trip takes 40 ms.
#[test]
fn a_flood_that_a_small_table_cannot_hold() {
    let limits = Limits { half_open: 200, ..Limits::default() };
    let pair = flood(true, limits, seconds(5));
    assert!(pair.server.statistics().half_open_evicted > 9_000);
}

/// Registers `member` at `pair.server` while somebody forges 1000 messages 1 in its name in every
/// round trip, some of them with the member's own offer. Returns whether it has keys within its
/// patience.
fn register_under_forgery(pair: &mut Pair, member: u8) -> bool {
    let mut config = registration_config(member_address(member));
    config.retransmission =
        RetransmissionPolicy { initial: LATENCY * 10, maximum: LATENCY * 20, repetitions: 3 };
    pair.members = vec![Registration::new(config, [member ^ 0x3c; 32], pair.now)];
    pair.member_events = vec![Vec::new()];
    pair.sent.clear();
    pair.settle();
    let template = pair.sent[0].payload.clone();
    let end = pair.now + seconds(60);
    let mut number = 0;
    while pair.now < end && !pair.is_registered(0) && pair.failure(0).is_none() {
        let round_trip = pair.now + LATENCY * 2;
        for place in 0..1000 {
            number += 1;
            let mut payload = match place % 10 {
                0 => template.clone(),
                _ => forged_first_message(&template, number),
            };
            payload[..4].copy_from_slice(&number.to_be_bytes());
            payload[4] = 0xf0;
            let transmit =
                Transmit { source: member_address(member), destination: server_address(), payload };
            pair.inject(transmit, LATENCY * 2 * place / 1000);
        }
        while pair.step(round_trip.min(end)) {}
    }
    pair.is_registered(0)
}

#[test]
fn forged_messages_1_do_not_keep_out_whose_offer_is_known() {
    let mut pair = Pair::new(1);
    pair.members.clear();
    pair.member_events.clear();
    assert!(
        !register_under_forgery(&mut pair, 1),
        "nothing is known yet: the forger wins, and so the test can fail"
    );
    let computed = pair.server.statistics().diffie_hellman;
    assert_eq!(computed, 0, "forgeries cost no arithmetic");
    pair.run(seconds(100));
    // Without forgery, once.
    pair.members =
        vec![Registration::new(registration_config(member_address(1)), [77; 32], pair.now)];
    pair.member_events = vec![Vec::new()];
    pair.run(seconds(5));
    assert!(pair.is_registered(0));
    // From then on always, and so does every member that makes the same offer.
    for member in [1, 1, 2] {
        pair.run(seconds(100));
        let before = pair.now;
        assert!(
            register_under_forgery(&mut pair, member),
            "member {member}: {:?}",
            pair.failure(0)
        );
        assert!(pair.now.saturating_since(before) < seconds(1), "without a repetition");
        assert!(pair.server.statistics().half_open <= Limits::default().half_open_per_source);
    }
    assert_eq!(pair.server.statistics().diffie_hellman, 8);
    // After a restart, by what the server was told to remember.
    let known: Vec<_> =
        pair.server.proved_offers().map(|(source, offer)| (source, offer.to_vec())).collect();
    assert_eq!(known.len(), 2);
    pair.server = gdoi::server::Server::new(server_config(), [0xab; 32]);
    known.iter().for_each(|(source, offer)| pair.server.remember_offer(*source, offer));
    assert!(register_under_forgery(&mut pair, 1));
}

/// Exchanges past message 3 keep their places even if the table is full of them.
#[test]
fn a_running_exchange_is_never_evicted() {
    let mut server = server_config();
    server.limits = Limits { half_open: 3, ..Limits::default() };
    let members = (1..=3).map(|number| registration_config(member_address(number))).collect();
    let mut pair = Pair::with(server, members);
    // HDR*, IDii, HASH_I --> is held up.
    pair.network =
        Box::new(|transmit| match transmit.payload[19] & 1 == 1 && transmit.payload[18] == 2 {
            true if transmit.source != server_address() => vec![seconds(10)],
            _ => vec![LATENCY],
        });
    pair.run(seconds(1));
    assert_eq!(
        (pair.server.statistics().half_open, pair.server.statistics().diffie_hellman),
        (3, 6)
    );
    let template = pair.sent[0].payload.clone();
    for number in 0..100 {
        let payload = forged_first_message(&template, number);
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1)), 848);
        let error =
            pair.server.handle_datagram(source, server_address(), &payload, pair.now).unwrap_err();
        assert_eq!(error.reason(), "half-open-limit");
    }
    pair.run(seconds(20));
    assert!((0..3).all(|index| pair.is_registered(index)));
}

/// A public value off the curve may be somebody else's, so one exchange may send two; the true
/// message 3 still counts then. None of them costs a key pair.
#[test]
fn unusable_public_values_are_tolerated_twice() {
    for bad in 1..=3_u8 {
        let mut pair = Pair::new(1);
        let mut seen = 0;
        // HDR, KE, Ni --> comes late.
        pair.network = Box::new(move |_| {
            seen += 1;
            if seen == 3 { vec![seconds(3)] } else { vec![LATENCY] }
        });
        pair.run(std::time::Duration::from_millis(500));
        let mut forged = pair.sent[2].clone();
        for number in 0..bad {
            // Within the public value: header of 28 octets, generic header of 4.
            forged.payload[28 + 4 + 10] ^= 1 << number;
            let error = pair.server.handle_datagram(
                forged.source,
                server_address(),
                &forged.payload,
                pair.now,
            );
            assert_eq!(error.unwrap_err().reason(), "public-value");
        }
        assert_eq!(pair.server.statistics().diffie_hellman, 0);
        pair.run(seconds(100));
        assert_eq!(pair.is_registered(0), bad < 3, "{bad} bad ones");
    }
}

/// A stranger at the address of a credential, with the public value `value` in every
/// message 3. Returns how many computations it caused within one moment, and how many of
/// its exchanges there are afterwards.
fn unusable_values(
    (group, value): (DhGroup, u8),
    offer_is_proved: bool,
    rounds: u32,
) -> (u64, usize) {
    let phase1 = Phase1Policy {
        transforms: vec![Phase1Transform { group, ..transform() }],
        ..support::phase1()
    };
    let registration = |member| RegistrationConfig {
        phase1: phase1.clone(),
        ..registration_config(member_address(member))
    };
    let server = ServerConfig { phase1: phase1.clone(), ..server_config() };
    let mut pair = Pair::with(server, vec![registration(1)]);
    if offer_is_proved {
        pair.run(seconds(5));
        assert!(pair.is_registered(0));
    }
    let before = pair.server.statistics().diffie_hellman;
    let (source, local, now) = (member_address(2), server_address(), pair.now);
    let message_1 =
        Registration::new(registration(2), [3; 32], now).poll_transmit().unwrap().payload;
    for round in 0..rounds {
        let mut offer = message_1.clone();
        offer[..4].copy_from_slice(&round.to_be_bytes());
        if pair.server.handle_datagram(source, local, &offer, now).is_err() {
            continue;
        }
        let message_2 = pair.server.poll_transmit().unwrap().payload;
        let mut message_3 = message_2[..16].to_vec();
        // KE first; main mode, in clear, no message identifier.
        message_3.extend([4, 0x10, 2, 0, 0, 0, 0, 0]);
        let nonce = [&[0, 0, 0, 20], [7; 16].as_slice()].concat();
        let length = u32::try_from(28 + 4 + group.public_length() + nonce.len()).unwrap();
        message_3.extend(length.to_be_bytes());
        message_3.extend([10, 0]);
        message_3.extend(u16::try_from(4 + group.public_length()).unwrap().to_be_bytes());
        message_3.resize(message_3.len() + group.public_length() - 1, 0);
        message_3.push(value);
        message_3.extend(nonce);
        for _ in 0..4 {
            let error = pair.server.handle_datagram(source, local, &message_3, now).unwrap_err();
            assert!(
                matches!(
                    error.reason(),
                    "public-value" | "ended" | "half-open-limit-of-source" | "unknown-cookies"
                ),
                "{error}"
            );
        }
        assert!(pair.server.poll_transmit().is_none());
    }
    let statistics = pair.server.statistics();
    (statistics.diffie_hellman - before, statistics.half_open)
}

/// Failing fast gives nobody more arithmetic than the places of one source, and those stay taken.
#[test]
fn unusable_public_values_cost_no_key_pair_and_keep_their_place() {
    let per_source = Limits::default().half_open_per_source;
    // The value 1 is out of the range of every group. In the one with a subgroup only an
    // exponentiation can tell that 2 is not in it.
    for (group, value, each, rounds) in [
        (DhGroup::Ecp256, 1, 0, 200),
        (DhGroup::Modp2048, 1, 0, 50),
        (DhGroup::Modp2048Subgroup256, 2, 1, 50),
    ] {
        for offer_is_proved in [false, true] {
            let (computed, half_open) = unusable_values((group, value), offer_is_proved, rounds);
            assert_eq!(half_open, per_source, "{group:?}, offer proved: {offer_is_proved}");
            // Two are tolerated, the third ends the exchange.
            assert_eq!(computed, each * 3 * per_source as u64, "{group:?}");
        }
    }
}

/// One address cannot fill the table, and what it sends replaces only its own older attempts.
#[test]
fn one_source_has_a_bounded_share() {
    let mut pair = Pair::new(2);
    pair.settle();
    let template = pair.sent[0].payload.clone();
    let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1)), 848);
    for number in 0..100 {
        let payload = forged_first_message(&template, number);
        assert!(pair.server.handle_datagram(source, server_address(), &payload, pair.now).is_ok());
    }
    let limits = Limits::default();
    assert_eq!(pair.server.statistics().half_open, limits.half_open_per_source);
    assert_eq!(
        pair.server.statistics().half_open_evicted,
        100 - limits.half_open_per_source as u64
    );
    pair.run(seconds(5));
    assert!(pair.is_registered(0) && pair.is_registered(1));
}

/// Whoever shares a member's address has other ports than the protocol's: what it leaves half open
/// does not keep the member out.
#[test]
fn exchanges_from_other_ports_of_a_members_address_do_not_keep_it_out() {
    let mut pair = Pair::new(1);
    pair.members.clear();
    pair.member_events.clear();
    let mut computed = 0;
    for port in 20_000..20_010_u16 {
        let mut config = registration_config(member_address(1));
        config.local.set_port(port);
        config.credential =
            Credential::PreSharedKey(std::sync::Arc::new(Secret::copy_from(b"no idea")));
        let [high, low] = port.to_be_bytes();
        pair.members.push(Registration::new(config, [high ^ low; 32], pair.now));
        pair.member_events.push(Vec::new());
        computed += 2;
    }
    pair.run(seconds(2));
    let limits = Limits::default();
    computed = computed.min(2 * limits.half_open_per_source as u64);
    assert_eq!(pair.server.statistics().half_open, limits.half_open_per_source);
    assert_eq!(pair.server.statistics().diffie_hellman, computed, "its share and no more");
    pair.members.push(Registration::new(
        registration_config(member_address(1)),
        [0x55; 32],
        pair.now,
    ));
    pair.member_events.push(Vec::new());
    pair.run(seconds(1));
    assert!(pair.is_registered(10), "at once: {:?}", pair.failure(10));
    assert_eq!(pair.server.statistics().diffie_hellman, computed + 2);
}

/// A host behind a member's address translation may get the member's port: what it leaves half open
/// keeps the member out for seconds, not for as long as an exchange may take.
#[test]
fn exchanges_from_the_port_of_a_member_give_their_places_away() {
    let mut pair = Pair::new(1);
    pair.members.clear();
    pair.member_events.clear();
    let limits = Limits::default();
    for number in 0..limits.half_open_per_source {
        let mut config = registration_config(member_address(1));
        config.credential =
            Credential::PreSharedKey(std::sync::Arc::new(Secret::copy_from(b"no idea")));
        pair.members.push(Registration::new(config, [number as u8; 32], pair.now));
        pair.member_events.push(Vec::new());
    }
    pair.run(seconds(1));
    let (begin, computed) = (pair.now, pair.server.statistics().diffie_hellman);
    let member = Registration::new(registration_config(member_address(1)), [0x55; 32], pair.now);
    pair.members.push(member);
    pair.member_events.push(Vec::new());
    let place = limits.half_open_per_source;
    pair.run(seconds(2));
    assert!(!pair.is_registered(place), "no place yet");
    pair.run(seconds(13));
    assert!(pair.is_registered(place), "{:?}", pair.failure(place));
    assert!(pair.now.saturating_since(begin) < limits.half_open_timeout);
    let spent = pair.server.statistics().diffie_hellman - computed;
    assert!(spent <= 2 * (1 + limits.half_open_per_source as u64), "{spent}");
}

/// A peer that registers again and again keeps a bounded number of ISAKMP SAs, the newest.
#[test]
fn established_isakmp_sas_are_bounded() {
    let mut pair = Pair::new(1);
    let limits = Limits { established_per_peer: 2, established: 3, ..Limits::default() };
    pair.server = gdoi::server::Server::new(
        gdoi::config::ServerConfig { limits, ..server_config() },
        [1; 32],
    );
    for number in 10..15 {
        let config = registration_config(member_address(1));
        pair.members = vec![Registration::new(config, [number; 32], pair.now)];
        pair.member_events = vec![Vec::new()];
        pair.run(seconds(5));
        assert!(pair.is_registered(0));
    }
    assert_eq!(pair.server.statistics().established, 2);
    for number in 20..25 {
        let config = registration_config(member_address(number));
        pair.members = vec![Registration::new(config, [number; 32], pair.now)];
        pair.member_events = vec![Vec::new()];
        pair.run(seconds(5));
        assert!(pair.is_registered(0));
    }
    assert_eq!(pair.server.statistics().established, 3);
    assert!(
        !pair.server_events.iter().any(|event| matches!(event, ServerEvent::PullAborted { .. }))
    );
}

/// Who sees message 1 can write a message 2 that comes before the true one. It costs that attempt,
/// not the next, and the attempt ends within its budget; the true key server keeps nothing of it.
#[test]
fn a_forged_message_2_costs_one_attempt() {
    let mut pair = Pair::new(1);
    pair.run(std::time::Duration::from_millis(30));
    let mut forged = pair.sent[1].clone();
    assert_eq!((forged.source, forged.payload[18]), (server_address(), 2));
    forged.payload[8] ^= 1;
    pair.inject(forged, seconds(0));
    pair.run(seconds(100));
    let failed = gdoi::event::RegistrationFailure::NoAnswer {
        stage: gdoi::event::Stage::Phase1,
        transmissions: 5,
    };
    assert_eq!(pair.failure(0), Some(&failed));
    assert_eq!(
        (pair.server.statistics().half_open, pair.server.statistics().diffie_hellman),
        (0, 0)
    );

    let again = Registration::new(registration_config(member_address(1)), [66; 32], pair.now);
    pair.members = vec![again];
    pair.member_events = vec![Vec::new()];
    pair.run(seconds(5));
    assert!(pair.is_registered(0));
}
