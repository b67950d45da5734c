//! Peers that are somewhere else after phase 1 (RFC 3947 §4): who moves a session, and by what.

use super::*;
use crate::phase1::Role;
use crate::wire::registry::NotifyType;

/// An endpoint that follows its peers, with one session, and the initiator's side of it.
fn established() -> (Pair, IsakmpSa) {
    let (mut pair, message_3) = Pair::up_to_message_3(Arithmetic::InPlace);
    pair.say(address(1), &message_3).unwrap();
    let message_4 = pair.answer().unwrap();
    let sa = pair.establish(&message_4);
    let mut config = pair.endpoint.config.clone();
    config.mobility = PeerMobility::Follow;
    assert_eq!(pair.endpoint.reconfigure(config), []);
    while pair.endpoint.poll_event().is_some() {}
    (pair, sa)
}

/// Another port of the same address, and an address for which there is no credential.
fn elsewhere() -> [SocketAddr; 2] {
    [SocketAddr::new(address(1).ip(), 4500), SocketAddr::from(([203, 0, 113, 5], 40_000))]
}

fn notification(sa: &IsakmpSa, rng: &mut SeededRng) -> Vec<u8> {
    sa.seal_notification(sa.notification(NotifyType::INITIAL_CONTACT), rng.message_id()).unwrap()
}

/// Where the endpoint sends what it says under the session.
fn answers_go_to(pair: &mut Pair, sa: &IsakmpSa) -> SocketAddr {
    pair.endpoint.notify(&sa.cookies(), NotifyType::INVALID_ID_INFORMATION).unwrap();
    pair.endpoint.poll_transmit().unwrap().destination
}

#[test]
fn an_authentic_message_from_elsewhere_moves_the_peer() {
    let (mut pair, sa) = established();
    assert_eq!(answers_go_to(&mut pair, &sa), address(1));
    let mut from = address(1);
    for to in elsewhere() {
        let said = notification(&sa, &mut pair.rng);
        assert_eq!(pair.say(to, &said), Ok(None));
        match pair.endpoint.poll_event() {
            Some(EndpointEvent::Moved { cookies, from: was, to: is }) => {
                assert_eq!(cookies, sa.cookies());
                assert_eq!((was.remote, is.remote, is.local), (from, to, address(9)));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(answers_go_to(&mut pair, &sa), to);
        let session = pair.endpoint.session_at(&sa.cookies(), to).unwrap();
        assert_eq!((session.address().remote, session.sa().role()), (to, Role::Responder));
        from = to;
    }
    // It has gone nowhere since, and its credential is still the one for where it came from.
    let said = notification(&sa, &mut pair.rng);
    assert_eq!(pair.say(from, &said), Ok(None));
    assert!(pair.endpoint.poll_event().is_none());
    let config = pair.endpoint.config.clone();
    assert_eq!(pair.endpoint.reconfigure(config), []);
    assert_eq!(pair.endpoint.delete_peers(|peer, _| peer == from), [from]);
    assert_eq!(pair.endpoint.poll_transmit().unwrap().destination, from);
}

#[test]
fn nothing_else_moves_it() {
    let (mut pair, sa) = established();
    let said = notification(&sa, &mut pair.rng);
    let exchange = sa.exchange(ExchangeType(32), 7);
    let phase_2 =
        sa.seal_authenticated(&exchange, &[], PayloadKind::NONE, &[]).unwrap().into_datagram();
    for to in elsewhere() {
        let mut forged = said.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(pair.say(to, &forged).is_err());
        // Of phase 2, only the protocol above knows what is authentic.
        assert_eq!(pair.say(to, &phase_2), Ok(Some(Doi::IPSEC)));
        assert_eq!(answers_go_to(&mut pair, &sa), address(1));
    }
    assert_eq!(pair.say(address(1), &said), Ok(None));
    for to in elsewhere() {
        assert_eq!(pair.say(to, &said), Err(NotAccepted::Replayed.into()), "a copy");
    }
    assert_eq!(answers_go_to(&mut pair, &sa), address(1));
    assert!(pair.endpoint.poll_event().is_none());

    let stranger = elsewhere()[1];
    let mut unknown = said;
    unknown[0] ^= 1;
    assert_eq!(pair.say(stranger, &unknown), Err(NotAccepted::UnknownSource(stranger).into()));
}

#[test]
fn the_protocol_above_says_what_was_authentic() {
    let (mut pair, sa) = established();
    let exchange = sa.exchange(ExchangeType(32), 7);
    let phase_2 =
        sa.seal_authenticated(&exchange, &[], PayloadKind::NONE, &[]).unwrap().into_datagram();
    let to = elsewhere()[1];
    let inbound = pair.endpoint.admit(to, address(9), &phase_2, NOW).unwrap();
    let session = pair.endpoint.session_at(&sa.cookies(), to).unwrap();
    let opened = session.sa().open(&exchange, &phase_2).unwrap();
    let (_, proof) = opened.authenticate(session.sa(), "message", &[]).unwrap();
    pair.endpoint.follow(&proof, &inbound);
    assert_eq!(answers_go_to(&mut pair, &sa), to);

    // A proof is for one session.
    let other = crate::testing::worked_isakmp_sa();
    let exchange = other.exchange(ExchangeType(32), 7);
    let said = other.seal_authenticated(&exchange, &[], PayloadKind::NONE, &[]).unwrap();
    let opened = other.open(&exchange, said.datagram()).unwrap();
    let (_, proof) = opened.authenticate(&other, "message", &[]).unwrap();
    let home = PeerAddress { remote: address(1), local: address(9) };
    assert_eq!(pair.endpoint.sessions.follow(&sa.cookies(), &proof, home), None);
    assert_eq!(answers_go_to(&mut pair, &sa), to);
}

/// A peer that moved and lost its state says INITIAL-CONTACT in a new phase 1 from wherever it is.
#[test]
fn a_peer_that_moved_is_found_where_it_is_and_where_it_came_from() {
    for from in [address(1), elsewhere()[0]] {
        let (mut pair, sa) = established();
        let to = elsewhere()[1];
        let said = notification(&sa, &mut pair.rng);
        pair.say(to, &said).unwrap();
        let identity = Identity::Address(address(1).ip());
        let sessions = &pair.endpoint.sessions;
        let later = NOW + Duration::from_secs(1);
        for place in [from, to] {
            assert_eq!(sessions.before(later, &identity, place.ip()), [sa.cookies()], "{place}");
        }
        let third = address(3).ip();
        assert_eq!(sessions.before(later, &identity, third), []);
        assert_eq!(sessions.of_identity(&identity), [sa.cookies()]);
        pair.endpoint.delete_identity(&identity);
        let sessions = &pair.endpoint.sessions;
        for place in [from, to] {
            assert_eq!(sessions.before(later, &identity, place.ip()), [], "{place}");
        }
    }
}
