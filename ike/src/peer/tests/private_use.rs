//! Requests of private use and their answers.

use core::time::Duration;

use super::{Net, config};
use crate::crypto::Secret;
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::peer::{PeerEvent, PrivateBody, QuestionId, RequestId};
use crate::wire::registry::{ExchangeType, PayloadKind};

const SECOND: Duration = Duration::from_secs(1);
const KIND: ExchangeType = ExchangeType(240);

fn body(octets: &[u8]) -> PrivateBody {
    PrivateBody { kind: PayloadKind(128), octets: Secret::copy_from(octets) }
}

fn connected() -> Net {
    let mut net = Net::fitting(0);
    let now = net.now;
    net.sides[0].peer.connect(now);
    net.collect();
    net.run(SECOND);
    assert_eq!([0, 1].map(|side: usize| net.sides[side].peer.established()), [1, 1]);
    net
}

fn ask(net: &mut Net, side: usize, octets: &[u8]) -> RequestId {
    let now = net.now;
    let asked = net.sides[side].peer.ask(KIND, &body(octets), SECOND * 2, now);
    net.collect();
    asked.unwrap().unwrap()
}

fn answer(net: &mut Net, side: usize, question: QuestionId, octets: &[u8]) -> bool {
    let now = net.now;
    let answered = net.sides[side].peer.answer_question(question, &body(octets), now).unwrap();
    net.collect();
    answered
}

fn questions(net: &Net, side: usize) -> Vec<(QuestionId, Vec<u8>)> {
    let events = net.sides[side].events.iter();
    let asked = events.filter_map(|event| match event {
        PeerEvent::Asked { question, kind: KIND, body, .. } => {
            Some((*question, body.octets.expose().to_vec()))
        }
        _ => None,
    });
    asked.collect()
}

fn answers(net: &Net, side: usize) -> Vec<(RequestId, Vec<u8>)> {
    let events = net.sides[side].events.iter();
    let answered = events.filter_map(|event| match event {
        PeerEvent::Answered { request, body } => Some((*request, body.octets.expose().to_vec())),
        _ => None,
    });
    answered.collect()
}

#[test]
fn either_side_asks_and_is_answered() {
    let mut net = connected();
    for (asks, answers_it) in [(0, 1), (1, 0)] {
        let request = ask(&mut net, asks, b"what");
        net.run(SECOND);
        let [(question, said)] = questions(&net, answers_it).try_into().unwrap();
        assert_eq!(said, b"what");
        assert!(answer(&mut net, answers_it, question, b"that"));
        net.run(SECOND);
        assert_eq!(answers(&net, asks), [(request, b"that".to_vec())]);
        assert!(!net.sides[asks].peer.is_asking(request));
    }
}

/// What could not be done at first may be possible when the request comes again.
#[test]
fn a_request_without_an_answer_is_repeated_and_told_again() {
    let mut net = connected();
    let request = ask(&mut net, 0, b"what");
    net.run(SECOND * 5);
    let told = questions(&net, 1);
    assert_eq!(told.len(), 3, "at once and after 2 and 4 seconds");
    assert!(told.iter().all(|one| *one == told[0]));
    assert!(answer(&mut net, 1, told[0].0, b"that"));
    net.run(SECOND * 10);
    assert_eq!(answers(&net, 0), [(request, b"that".to_vec())]);
    assert_eq!(questions(&net, 1).len(), 3);
}

#[test]
fn a_lost_answer_is_given_again_with_the_same_octets() {
    let mut net = connected();
    ask(&mut net, 0, b"what");
    net.run(SECOND);
    let (question, _) = questions(&net, 1).remove(0);
    let before = net.fate.clone();
    net.cut();
    assert!(answer(&mut net, 1, question, b"that"));
    net.fate = before;
    net.run(SECOND * 3);
    assert_eq!(answers(&net, 0).len(), 1);
    assert_eq!(questions(&net, 1).len(), 1, "the copy of the request is answered from memory");
    assert!(!answer(&mut net, 1, question, b"another"));
}

#[test]
fn what_we_said_is_not_taken_for_the_peers_word() {
    let mut net = connected();
    let now = net.now;
    ask(&mut net, 0, b"what");
    let reflected = net.queue.values().next().unwrap().3.clone();
    let (here, there) = (net.sides[0].address, net.sides[1].address);
    let result = net.sides[0].peer.handle_datagram(there, here, &reflected, now);
    // Decrypted behind the request it is noise.
    assert!(matches!(
        result,
        Err(Error::PeerMisbehaved(
            PeerMisbehaved::WrongHash { .. } | PeerMisbehaved::MissingPayload { .. }
        ) | Error::InvalidMessage(_))
    ));
    assert_eq!(questions(&net, 0).len(), 0);
}

#[test]
fn nothing_is_asked_without_an_isakmp_sa_and_what_was_asked_ends_with_it() {
    let mut net = Net::new(config(1, 2, "key", 0), config(2, 1, "key", 0));
    let now = net.now;
    assert_eq!(net.sides[0].peer.ask(KIND, &body(b"what"), SECOND, now), Ok(None));
    let mut net = connected();
    let request = ask(&mut net, 0, b"what");
    net.sides[0].peer.disconnect();
    net.collect();
    let lost = net.sides[0].events.iter();
    let lost = lost.filter(
        |event| matches!(event, PeerEvent::RequestLost { request: lost } if *lost == request),
    );
    assert_eq!(lost.count(), 1);
}

#[test]
fn a_recorded_request_counts_once() {
    let mut net = connected();
    let now = net.now;
    ask(&mut net, 0, b"what");
    let recorded = net.queue.values().next().unwrap().3.clone();
    net.run(SECOND);
    let (question, _) = questions(&net, 1).remove(0);
    answer(&mut net, 1, question, b"that");
    net.run(SECOND);
    let (here, there) = (net.sides[1].address, net.sides[0].address);
    let copy = net.sides[1].peer.handle_datagram(there, here, &recorded, now);
    assert_eq!(copy, Err(NotAccepted::Replayed.into()), "answered a moment ago");
    net.collect();
    assert_eq!(questions(&net, 1).len(), 1);
}
