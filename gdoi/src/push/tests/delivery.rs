//! A push to members, some of which do not hear it.

use std::net::IpAddr;

use super::super::ack::Claim;
use super::super::delivery::*;
use super::*;
use crate::event::Transmit;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, last])
}

fn recipients(count: u8) -> Recipients {
    Recipients {
        destinations: (1..=count)
            .map(|last| (address("192.0.2.1:848"), SocketAddr::new(ip(last), 848)))
            .collect(),
        members: (1..=count).map(|last| (ip(last), None)).collect(),
        ..Recipients::default()
    }
}

fn member_at(server: &KeyServer, last: u8) -> RekeyMember {
    let settings = RekeySettings { address: SocketAddr::new(ip(last), 848), ..settings(false) };
    RekeyMember::new(&server.group_sa(), settings, at(0)).unwrap().unwrap()
}

fn sent(delivery: &mut Delivery) -> Vec<Transmit> {
    core::iter::from_fn(|| delivery.poll_transmit()).collect()
}

fn events(delivery: &mut Delivery) -> Vec<DeliveryEvent> {
    core::iter::from_fn(|| delivery.poll_event()).collect()
}

#[test]
fn repetitions_are_the_same_octets_at_the_period() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, None);
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(2), DeliveryPolicy::default(), at(0));
    let first = sent(&mut delivery);
    assert_eq!(first.len(), 2);
    for time in [10, 20] {
        assert_eq!(delivery.poll_timeout().unwrap().at, at(time));
        delivery.handle_timeout(at(time - 1));
        assert_eq!((sent(&mut delivery), events(&mut delivery)), (vec![], vec![]));
        delivery.handle_timeout(at(time));
        assert_eq!(sent(&mut delivery), first);
    }
    assert_eq!(events(&mut delivery), [DeliveryEvent::Finished { missing: vec![] }]);
    assert!(delivery.is_finished() && delivery.poll_timeout().is_none());
}

/// A key server whose disk is full sends nothing; what waits is no repetition that was made.
#[test]
fn a_transmission_that_nobody_could_send_is_not_counted() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let policy = DeliveryPolicy { repetitions: 1, ..DeliveryPolicy::default() };
    let mut delivery = Delivery::new(server.push_tek(0x1000), recipients(2), policy, at(0));
    for time in [10, 20, 30] {
        assert_eq!(delivery.poll_timeout().unwrap().at, at(time));
        delivery.handle_timeout(at(time));
    }
    let first = sent(&mut delivery);
    assert_eq!(first.len(), 2);
    delivery.handle_timeout(at(40));
    // The repetition waits, too.
    for time in [55, 70] {
        delivery.handle_timeout(at(time));
        assert_eq!(events(&mut delivery), []);
    }
    assert_eq!(sent(&mut delivery), first);
    delivery.handle_timeout(at(85));
    let missing = vec![ip(1), ip(2)];
    assert_eq!(events(&mut delivery), [DeliveryEvent::Finished { missing }]);
}

#[test]
fn who_has_acknowledged_is_left_alone_and_who_has_not_is_named() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut members: Vec<RekeyMember> = (1..=3).map(|last| member_at(&server, last)).collect();
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(3), DeliveryPolicy::default(), at(0));
    // Member 2 hears the first repetition, member 3 none.
    for (time, hears, to) in [(0, 1, vec![1, 2, 3]), (10, 2, vec![2, 3]), (20, 0, vec![3])] {
        delivery.handle_timeout(at(time));
        let transmits = sent(&mut delivery);
        assert_eq!(
            transmits.iter().map(|one| one.destination.ip()).collect::<Vec<_>>(),
            to.into_iter().map(ip).collect::<Vec<_>>()
        );
        for transmit in transmits.iter().filter(|one| one.destination.ip() == ip(hears)) {
            let member = &mut members[usize::from(hears) - 1];
            let ack = accepted(member, &transmit.payload).acknowledgement.unwrap();
            let claim = Claim::read(&ack.payload).unwrap();
            delivery.handle_acknowledgement(&claim).unwrap();
            assert!(
                matches!(events(&mut delivery)[..], [DeliveryEvent::Acknowledged(one)] if one.address == ip(hears))
            );
            assert_eq!(delivery.handle_acknowledgement(&claim).unwrap_err().reason(), "replayed");
        }
    }
    assert_eq!(delivery.poll_timeout().unwrap().at, at(35));
    delivery.handle_timeout(at(35));
    assert_eq!(events(&mut delivery), [DeliveryEvent::Finished { missing: vec![ip(3)] }]);
}

#[test]
fn the_last_acknowledgement_ends_the_delivery() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(3));
    let mut member = member_at(&server, 1);
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(1), DeliveryPolicy::default(), at(0));
    let ack = accepted(&mut member, &sent(&mut delivery)[0].payload).acknowledgement.unwrap();
    delivery.handle_acknowledgement(&Claim::read(&ack.payload).unwrap()).unwrap();
    assert_eq!(events(&mut delivery).last(), Some(&DeliveryEvent::Finished { missing: vec![] }));
    assert!(delivery.is_finished() && sent(&mut delivery).is_empty());
}

#[test]
fn acknowledgements_of_others_count_for_nothing() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut stranger = member_at(&server, 9);
    let mut member = member_at(&server, 1);
    let old = server.push_tek(0x0fff);
    let late = accepted(&mut member, old.datagram()).acknowledgement.unwrap();
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(1), DeliveryPolicy::default(), at(0));
    let foreign = accepted(&mut stranger, delivery.push().datagram()).acknowledgement.unwrap();
    let mut forged = accepted(&mut member, delivery.push().datagram()).acknowledgement.unwrap();
    forged.payload[40] ^= 1;
    for (ack, reason) in [
        (late, "unexpected-acknowledgement"),
        (foreign, "unexpected-acknowledgement"),
        (forged, "wrong-hash"),
    ] {
        let claim = Claim::read(&ack.payload).unwrap();
        assert_eq!(delivery.handle_acknowledgement(&claim).unwrap_err().reason(), reason);
    }
    assert_eq!(
        (events(&mut delivery), delivery.missing().collect::<Vec<_>>()),
        (vec![], vec![ip(1)])
    );
}

#[test]
fn figures_out_of_bounds_are_brought_back() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let policy = DeliveryPolicy {
        period: Duration::ZERO,
        repetitions: 1000,
        acknowledgement_wait: Duration::ZERO,
    };
    let mut delivery = Delivery::new(server.push_tek(0x1000), recipients(1), policy, at(0));
    let mut times = 0;
    while let Some(deadline) = delivery.poll_timeout() {
        times += sent(&mut delivery).len();
        delivery.handle_timeout(deadline.at);
    }
    assert_eq!(times, 61);
    assert_eq!(events(&mut delivery), [DeliveryEvent::Finished { missing: vec![ip(1)] }]);
}

#[test]
fn a_multicast_group_is_one_destination_for_many_members() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let group = (address("192.0.2.1:848"), address("239.192.1.1:848"));
    let members = (1..=200).map(|last| (ip(last), None)).collect();
    let recipients = Recipients { destinations: vec![group], members, ..Recipients::default() };
    let mut members: Vec<RekeyMember> = (1..=200).map(|last| member_at(&server, last)).collect();
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients, DeliveryPolicy::default(), at(0));
    let datagram = sent(&mut delivery).remove(0).payload;
    for member in &mut members {
        let ack = accepted(member, &datagram).acknowledgement.unwrap();
        delivery.handle_acknowledgement(&Claim::read(&ack.payload).unwrap()).unwrap();
    }
    assert!(delivery.is_finished());
    assert_eq!(events(&mut delivery).len(), 201);
}

#[test]
fn a_superseded_push_is_not_sent_and_its_acknowledgements_count() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut member = member_at(&server, 1);
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(2), DeliveryPolicy::default(), at(0));
    let unsent = delivery.destinations().count();
    sent(&mut delivery);
    let ack = accepted(&mut member, delivery.push().datagram()).acknowledgement.unwrap();
    delivery.supersede(at(5));
    assert_eq!((unsent, delivery.destinations().count()), (2, 0));
    assert_eq!((sent(&mut delivery), delivery.poll_timeout().unwrap().at), (vec![], at(20)));
    delivery.handle_acknowledgement(&Claim::read(&ack.payload).unwrap()).unwrap();
    delivery.handle_timeout(at(20));
    assert!(sent(&mut delivery).is_empty() && delivery.is_finished());
    let events = events(&mut delivery);
    assert!(matches!(events[0], DeliveryEvent::Acknowledged(one) if one.address == ip(1)));
    assert_eq!(events[1..], [DeliveryEvent::Finished { missing: vec![] }], "nobody is missed");
}

#[test]
fn excused_members_are_heard_and_not_missed() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut member = member_at(&server, 1);
    let recipients = Recipients { excused: true, ..recipients(2) };
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients, DeliveryPolicy::default(), at(0));
    assert_eq!(sent(&mut delivery).len(), 2);
    let ack = accepted(&mut member, delivery.push().datagram()).acknowledgement.unwrap();
    delivery.handle_acknowledgement(&Claim::read(&ack.payload).unwrap()).unwrap();
    assert_eq!(delivery.destinations().map(|(_, to, _)| to.ip()).collect::<Vec<_>>(), [ip(2)]);
    while let Some(deadline) = delivery.poll_timeout() {
        delivery.handle_timeout(deadline.at);
        assert!(sent(&mut delivery).iter().all(|one| one.destination.ip() == ip(2)));
    }
    assert_eq!(events(&mut delivery)[1..], [DeliveryEvent::Finished { missing: vec![] }]);
}

/// A member behind 1:1 address translation writes its private address into the acknowledgement (RFC
/// 8263 §3.4) and is known by the public one that it pulled from.
#[test]
fn a_member_behind_address_translation() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let private = RekeySettings { address: address("10.9.9.9:848"), ..settings(false) };
    let mut member = RekeyMember::new(&server.group_sa(), private, at(0)).unwrap().unwrap();
    let mut second = member_at(&server, 2);
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(2), DeliveryPolicy::default(), at(0));
    let ack = accepted(&mut member, &sent(&mut delivery)[0].payload).acknowledgement.unwrap();
    let claim = Claim::read(&ack.payload).unwrap();
    let refused = |delivery: &mut Delivery, claim: &Claim| {
        delivery.handle_acknowledgement(claim).unwrap_err().reason()
    };
    assert_eq!(refused(&mut delivery, &claim), "unexpected-acknowledgement");
    let foreign = claim.clone().from_source(ip(7));
    assert_eq!(refused(&mut delivery, &foreign), "unexpected-acknowledgement");
    delivery.handle_acknowledgement(&claim.from_source(ip(1))).unwrap();
    assert!(matches!(
        events(&mut delivery)[..],
        [DeliveryEvent::Acknowledged(one)] if one.address == ip(1)
    ));
    assert_eq!(delivery.missing().collect::<Vec<_>>(), [ip(2)]);
    // An address that is a member's counts, wherever the datagram comes from.
    let push = delivery.push().datagram().to_vec();
    let ack = accepted(&mut second, &push).acknowledgement.unwrap();
    let claim = Claim::read(&ack.payload).unwrap().from_source(ip(1));
    delivery.handle_acknowledgement(&claim).unwrap();
    assert!(delivery.is_finished());
}

/// Sites behind address translation that use one private address, beside a member that really has
/// it: the identity proved in phase 1 and the source tell them apart.
#[test]
fn members_behind_address_translation_with_one_private_address() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut members = [1, 2, 3].map(|_| member_at(&server, 1));
    let (push, private) = (server.push_tek(0x1000), ip(1));
    // The one at 1 has the address; 2 and 3 have proved it from behind a translation.
    let identities = [(private, ip(2)), (private, ip(3))].into();
    let recipients = Recipients { identities, ..recipients(3) };
    let mut delivery = Delivery::new(push, recipients, DeliveryPolicy::default(), at(0));
    let push = delivery.push().datagram().to_vec();
    let claims = members.each_mut().map(|member| {
        let ack = accepted(member, &push).acknowledgement.unwrap();
        Claim::read(&ack.payload).unwrap()
    });
    let mut acknowledge = |from: u8| {
        let claim = claims[usize::from(from) - 1].clone().from_source(ip(from));
        delivery.handle_acknowledgement(&claim).map(|()| events(&mut delivery).remove(0))
    };
    for from in [3, 1, 2] {
        let event = acknowledge(from);
        assert!(
            matches!(event, Ok(DeliveryEvent::Acknowledged(one)) if one.address == ip(from)),
            "{from}: {event:?}"
        );
    }
    assert_eq!(acknowledge(3).unwrap_err().reason(), "replayed");
}

/// A translation that gives acknowledgements another address than pulls had: the identity in the ID
/// payload is enough while only one member has proved it.
#[test]
fn a_member_behind_address_translation_is_known_by_its_identity() {
    for (others, reason) in [(0, None), (1, Some("unexpected-acknowledgement"))] {
        let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
        let private = RekeySettings { address: address("10.9.9.9:848"), ..settings(false) };
        let mut member = RekeyMember::new(&server.group_sa(), private, at(0)).unwrap().unwrap();
        let identities = (1..=1 + others).map(|last| ("10.9.9.9".parse().unwrap(), ip(last)));
        let recipients = Recipients { identities: identities.collect(), ..recipients(2) };
        let mut delivery =
            Delivery::new(server.push_tek(0x1000), recipients, DeliveryPolicy::default(), at(0));
        let ack = accepted(&mut member, &sent(&mut delivery)[0].payload).acknowledgement.unwrap();
        let claim = Claim::read(&ack.payload).unwrap().from_source(ip(77));
        let result = delivery.handle_acknowledgement(&claim);
        assert_eq!(result.err().map(|error| error.reason()), reason);
        let missing = if others == 0 { vec![ip(2)] } else { vec![ip(1), ip(2)] };
        assert_eq!(delivery.missing().collect::<Vec<_>>(), missing);
    }
}

/// A leaf key proves one member, whatever its address is behind.
#[test]
fn a_leaf_key_tells_members_with_one_private_address_apart() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(2));
    let mut tree = crate::lkh::KeyTree::new(3, Some(128), 4, &mut server.rng).unwrap();
    let leaves = [tree.join(&mut server.rng).unwrap(), tree.join(&mut server.rng).unwrap()];
    let members = [ip(1), ip(2)].into_iter().zip(leaves.map(|leaf| tree.leaf_key(leaf)));
    let recipients = Recipients { members: members.collect(), ..recipients(2) };
    // The second is behind a translation and writes what is the first one's address here.
    let sa = server.group_sa().with_key_path(tree.download(leaves[1]).unwrap());
    let settings = RekeySettings { address: SocketAddr::new(ip(1), 848), ..settings(false) };
    let mut second = RekeyMember::new(&sa, settings, at(0)).unwrap().unwrap();
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients, DeliveryPolicy::default(), at(0));
    let ack = accepted(&mut second, &sent(&mut delivery)[1].payload).acknowledgement.unwrap();
    let claim = Claim::read(&ack.payload).unwrap();
    let unknown = delivery.handle_acknowledgement(&claim.clone().from_source(ip(9)));
    assert_eq!(unknown.unwrap_err().reason(), "wrong-hash");
    delivery.handle_acknowledgement(&claim.from_source(ip(2))).unwrap();
    assert_eq!(delivery.missing().collect::<Vec<_>>(), [ip(1)]);
}

/// Nothing may leave, for longer than all transmissions take: none of them is used up.
#[test]
fn a_push_that_cannot_leave_waits() {
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut delivery =
        Delivery::new(server.push_tek(0x1000), recipients(2), DeliveryPolicy::default(), at(0));
    // One of the two has left.
    assert!(delivery.poll_transmit().is_some());
    for _ in 0..100 {
        delivery.handle_timeout(delivery.poll_timeout().unwrap().at);
        assert!(events(&mut delivery).is_empty());
    }
    assert_eq!(sent(&mut delivery).len(), 1, "the other one");
    let mut times = 0;
    while let Some(deadline) = delivery.poll_timeout() {
        delivery.handle_timeout(deadline.at);
        times += sent(&mut delivery).len();
    }
    assert_eq!(times, 4, "both repetitions for both");
    let missing = vec![ip(1), ip(2)];
    assert_eq!(events(&mut delivery), [DeliveryEvent::Finished { missing }]);
}

/// The endpoint of a key server sends pushes beside its exchanges and takes acknowledgements from
/// known addresses alone.
#[test]
fn through_the_endpoint_of_the_key_server() {
    use crate::config::ServerConfig;
    use ike::config::{PeerCredential, Phase1Policy};
    use ike::endpoint::Limits;
    let mut server = KeyServer::new(KeyKind::Ecdsa256, 128, Some(1));
    let mut member = member_at(&server, 1);
    let mut endpoint = crate::server::Server::new(
        ServerConfig {
            identity: None,
            peers: vec![PeerCredential {
                addresses: "198.51.100.0/24".parse().unwrap(),
                identity: None,
                credential: ike::config::Credential::PreSharedKey(std::sync::Arc::new(
                    Secret::new(vec![1; 16]),
                )),
            }],
            phase1: Phase1Policy {
                doi: ike::wire::registry::Doi::GDOI,
                port: crate::PORT,
                transforms: vec![],
                lifetime: Duration::from_secs(60),
            },
            limits: Limits::default(),
        },
        [1; 32],
    );
    let id =
        endpoint.push(server.push_tek(0x1000), recipients(2), DeliveryPolicy::default(), at(0));
    let transmits: Vec<Transmit> = core::iter::from_fn(|| endpoint.poll_transmit()).collect();
    assert_eq!(transmits.len(), 2);
    let ack = accepted(&mut member, &transmits[0].payload).acknowledgement.unwrap();
    let deliver = |endpoint: &mut crate::server::Server, from: &str| {
        endpoint.handle_datagram(address(from), ack.destination, &ack.payload, at(1))
    };
    assert_eq!(deliver(&mut endpoint, "203.0.113.1:848").unwrap_err().reason(), "unknown-source");
    deliver(&mut endpoint, "198.51.100.1:848").unwrap();
    assert_eq!(deliver(&mut endpoint, "198.51.100.1:848").unwrap_err().reason(), "replayed");
    assert!(
        matches!(endpoint.poll_push_event(), Some((push, DeliveryEvent::Acknowledged(_))) if push == id)
    );
    while let Some(deadline) = endpoint.poll_timeout() {
        endpoint.handle_timeout(deadline.at);
        let again: Vec<IpAddr> = core::iter::from_fn(|| endpoint.poll_transmit())
            .map(|one| one.destination.ip())
            .collect();
        assert!(again.iter().all(|to| *to == ip(2)));
    }
    assert_eq!(
        endpoint.poll_push_event(),
        Some((id, DeliveryEvent::Finished { missing: vec![ip(2)] }))
    );
    assert_eq!(endpoint.statistics().datagrams_sent, 4);
    assert!(!endpoint.cancel_push(id));
    assert_eq!(
        deliver(&mut endpoint, "198.51.100.1:848").unwrap_err().reason(),
        "unexpected-acknowledgement"
    );
}
