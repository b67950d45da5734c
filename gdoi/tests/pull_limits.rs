//! What one authenticated member may have of a key server: pulls in progress, kept answers, and
//! requests in message 3.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

use gdoi::config::{ByteOrder, ServerConfig};
use gdoi::event::ServerEvent;
use gdoi::pull::member::{ExpectPolicy, PolicyOffered};
use gdoi::pull::message::Message3;
use gdoi::server::Server;
use gdoi::wire::gap::Gap;
use gdoi::wire::registry::{GROUPKEY_PULL, GapAttribute};
use ike::BootTime;
use ike::crypto::SeededRng;
use ike::endpoint::Limits;
use ike::phase1::{Initiator, InitiatorConfig, InitiatorStep, IsakmpSa};
use ike::wire::attribute::Attribute;
use support::*;

/// A member that says what it likes under a good ISAKMP SA.
struct Insider {
    server: Server,
    sa: IsakmpSa,
    rng: SeededRng,
    now: BootTime,
}

impl Insider {
    fn new(limits: Limits) -> Self {
        let now = BootTime::new(seconds(1000));
        let mut server = Server::new(ServerConfig { limits, ..server_config() }, [0xee; 32]);
        let mut rng = SeededRng::from_seed([3; 32]);
        let config = InitiatorConfig::from(&registration_config(member_address(1)));
        let (mut initiator, mut message) = Initiator::start(config, &mut rng).unwrap();
        loop {
            server.handle_datagram(member_address(1), server_address(), &message, now).unwrap();
            let answer = server.poll_transmit().unwrap().payload;
            match initiator.handle(&answer, &mut rng).unwrap() {
                InitiatorStep::Continue { next, message: said } => {
                    (initiator, message) = (next, said)
                }
                InitiatorStep::Established(sa) => return Self { server, sa, rng, now },
                InitiatorStep::Finished(_) => panic!("aggressive mode"),
            }
        }
    }

    fn say(&mut self, datagram: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let said =
            self.server.handle_datagram(member_address(1), server_address(), datagram, self.now);
        said.map_err(|error| error.reason())?;
        Ok(self.server.poll_transmit().map(|transmit| transmit.payload))
    }

    fn request(&mut self, message_id: u32) -> (ExpectPolicy, Vec<u8>) {
        let orders = (ByteOrder::Network, ByteOrder::Network);
        ExpectPolicy::start(&self.sa, GROUP, orders, message_id, &mut self.rng).unwrap()
    }

    /// Messages 1 and 2; `answered` is message 2.
    fn offered(&mut self, message_id: u32) -> (PolicyOffered, Vec<u8>, Vec<u8>) {
        let (pull, message1) = self.request(message_id);
        self.say(&message1).unwrap();
        while let Some(event) = self.server.poll_event() {
            if let ServerEvent::PullRequested { pull, group, .. } = event {
                self.server
                    .answer_pull(pull, group_sa(group), Default::default(), self.now)
                    .unwrap();
            }
        }
        let message2 = self.server.poll_transmit().unwrap().payload;
        let policy = pull.read(&self.sa, &message2).unwrap().unwrap();
        (pull.receive(policy), message1, message2)
    }
}

#[test]
fn pulls_in_progress_are_bounded() {
    let limits = Limits { exchanges: 3, ..Limits::default() };
    let mut insider = Insider::new(limits);
    for message_id in 1..=3 {
        let request = insider.request(message_id).1;
        assert_eq!(insider.say(&request), Ok(None));
    }
    let fourth = insider.request(4).1;
    assert_eq!(insider.say(&fourth), Err("exchange-limit"));
    assert_eq!(insider.server.statistics().pulls, 3);
    // What was refused for want of room may come again.
    insider.now = insider.now + limits.half_open_timeout;
    insider.server.handle_timeout(insider.now);
    assert_eq!(insider.server.statistics().pulls, 0);
    assert_eq!(insider.say(&fourth), Ok(None));
}

/// Answers may be as long as a datagram: no more are kept for copies than pulls may be in progress.
#[test]
fn kept_answers_are_bounded() {
    let limits = Limits { exchanges: 3, ..Limits::default() };
    let mut insider = Insider::new(limits);
    let last_messages: Vec<Vec<u8>> = (1..=10)
        .map(|message_id| {
            let (_, message3) = insider.offered(message_id).0.accept(&insider.sa, None).unwrap();
            assert!(insider.say(&message3).unwrap().is_some());
            message3
        })
        .collect();
    insider.now = insider.now + seconds(1);
    let answered: Vec<bool> =
        last_messages.iter().map(|message3| insider.say(message3).is_ok()).collect();
    assert_eq!(answered, [[false; 7].as_slice(), &[true; 3]].concat(), "the newest three");
}

/// Requests for sender identifiers are heard; how many a member gets is for the key server to say
/// (RFC 6407 §5.4.2).
#[test]
fn a_request_for_sender_identifiers_gets_keys() {
    for (class, served) in [(GapAttribute::SENDER_ID_REQUEST, true), (GapAttribute(4), false)] {
        let mut insider = Insider::new(Limits::default());
        let (offer, message1, message2) = insider.offered(9);
        // Where the cipher stands, and the nonces, as the member knows them.
        let first = insider.sa.exchange(GROUPKEY_PULL, 9);
        let opened1 = insider.sa.open(&first, &message1).unwrap();
        let opened2 = insider.sa.open(&opened1.next(), &message2).unwrap();
        let nonce =
            |opened: &ike::phase1::Opened| opened.chain().unwrap().payloads[1].body().to_vec();
        let (ni, nr) = (nonce(&opened1), nonce(&opened2));
        let gap = Gap { attributes: vec![Attribute::short(class, 2_u16)] };
        let (kind, rest) = Message3 { requests: Some(gap) }.rest().unwrap();
        let sealed = insider
            .sa
            .seal_authenticated(&opened2.next(), &[&ni, &nr], kind, rest.expose())
            .unwrap();
        assert_eq!(offer.policy().group, GROUP);
        let answer = insider.say(sealed.datagram()).unwrap().unwrap();
        let pull = GROUPKEY_PULL.0;
        assert_eq!(exchange_type(&answer) == pull, served, "keys, or a notification");
        let events: Vec<_> = std::iter::from_fn(|| insider.server.poll_event()).collect();
        assert_eq!(
            events.iter().any(|event| matches!(event, ServerEvent::PullCompleted { .. })),
            served
        );
    }
}
