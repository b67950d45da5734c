//! Certificates that no datagram of ours may be long enough for.

use core::time::Duration;
use std::sync::Arc;

use super::*;
use crate::certificate::testing::{Authority, Contents, NOW as WALL, key};
use crate::crypto::KeyKind;
use crate::time::WallClock;

fn certified(host: u8, other: u8, authority: &Authority) -> Side {
    let mut contents = Contents::new(&format!("CN=h{host}")).address(&format!("192.0.2.{host}"));
    for number in 0..100 {
        contents = contents.dns(&format!("a-name-that-makes-it-longer-{number}.example"));
    }
    let credential = authority.credential(contents, key(KeyKind::Ecdsa256, host));
    let mut config = config(host, other, "", 1);
    config.phase1 = config.phase1.authenticated_by(credential.authentication());
    config.credential = Credential::Certificate(Arc::new(credential));
    let mut side = Side::new(config, host);
    side.peer.set_wall_clock(WallClock::new(BootTime::default(), WALL));
    side
}

#[test]
fn long_certificates_pass_in_fragments_both_ways() {
    let authority = Authority::new(1);
    let mut sides = [certified(1, 2, &authority), certified(2, 1, &authority)];
    sides[0].peer.negotiate(0, BootTime::default());
    let mut pieces = [0, 0];
    for second in 0..30 {
        let now = BootTime::new(Duration::from_secs(second));
        for from in [0, 1] {
            sides[from].peer.handle_timeout(now);
            sides[from].drain();
            while let Some(sent) = sides[from].peer.poll_transmit() {
                assert!(sent.payload.len() <= 1248, "{}", sent.payload.len());
                let is_piece = sent.payload[16] == 132;
                pieces[from] += usize::from(is_piece);
                // The first piece of every message is lost once.
                if is_piece && pieces[from] == 1 {
                    continue;
                }
                let (source, local) = (sent.source, sent.destination);
                let _ = sides[1 - from].peer.handle_datagram(source, local, &sent.payload, now);
                sides[1 - from].drain();
            }
        }
    }
    assert!(pieces.iter().all(|count| *count > 4), "{pieces:?}");
    for side in &sides {
        assert_eq!(side.peer.established(), 1);
        assert_eq!(side.sends(0).len(), 1);
    }
}

/// Nobody makes us keep pieces of an exchange that there is not.
#[test]
fn a_piece_of_a_strangers_exchange_is_refused() {
    let mut side = certified(1, 2, &Authority::new(1));
    let header = crate::wire::Header {
        initiator_cookie: [3; 8],
        responder_cookie: [4; 8],
        next_payload: PayloadKind::FRAGMENT,
        version: crate::wire::header::VERSION,
        exchange: ExchangeType::IDENTITY_PROTECTION,
        flags: Flags::NONE,
        message_id: 0,
        length: 0,
    };
    let piece = header.message(&[0, 0, 0, 9, 0, 1, 1, 0, 7]).unwrap();
    let handled = side.peer.handle_datagram(address(2), address(1), &piece, BootTime::default());
    assert_eq!(handled, Err(NotAccepted::UnknownCookies.into()));
}
