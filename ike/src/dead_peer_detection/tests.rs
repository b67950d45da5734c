//! Two sides with a network between them that loses and repeats what it likes.

use super::*;
use crate::phase1::Informational;
use crate::session::{PeerAddress, Session};
use crate::testing::worked_isakmp_sa;
use crate::wire::header;
use core::net::SocketAddr;
use proptest::prelude::*;

struct Side {
    session: Session<()>,
    detection: DeadPeerDetection,
    rng: SeededRng,
    dead: bool,
}

impl Side {
    fn new(settings: Settings, seed: u8) -> Self {
        let address = SocketAddr::from(([192, 0, 2, 1], 500));
        let address = PeerAddress { remote: address, local: address };
        let session = Session::new(worked_isakmp_sa(), address, at(0));
        let mut rng = SeededRng::from_seed([seed; 32]);
        let mut detection = DeadPeerDetection::new(settings, session.sa(), &mut rng, at(0));
        detection.peer_answers = true;
        Self { session, detection, rng, dead: false }
    }

    fn tick(&mut self, now: BootTime) -> Option<Vec<u8>> {
        match self.detection.handle_timeout(self.session.sa(), now) {
            Due::NotYet => None,
            Due::Ask(question) => Some(self.session.notify(question, &mut self.rng).unwrap()),
            Due::Dead => {
                assert!(!self.dead, "said once");
                self.dead = true;
                None
            }
        }
    }

    /// Takes a datagram and returns the answer.
    fn hear(&mut self, datagram: &[u8], now: BootTime) -> Result<Option<Vec<u8>>, crate::Error> {
        let message_id = header::split(datagram).unwrap().0.message_id;
        let (said, _) = self.session.open_informational(message_id, datagram)?;
        let [Informational::Notification(said)] = said.as_slice() else { panic!("{said:?}") };
        match self.detection.handle(self.session.sa(), said, now) {
            Heard::Answer(answer) => Ok(Some(self.session.notify(answer, &mut self.rng).unwrap())),
            _ => Ok(None),
        }
    }
}

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

fn on() -> Settings {
    Settings { mode: Mode::On, interval: Duration::from_secs(10), threshold: 3 }
}

fn answer_only() -> Settings {
    Settings { mode: Mode::AnswerOnly, ..on() }
}

/// Runs both sides for `seconds`. `arrives` decides about each datagram.
fn run(
    [one, other]: [&mut Side; 2],
    seconds: core::ops::Range<u64>,
    mut arrives: impl FnMut(&[u8]) -> bool,
) -> usize {
    let mut datagrams = 0;
    for second in seconds {
        for turn in [0, 1] {
            let (from, to) =
                if turn == 0 { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
            let Some(question) = from.tick(at(second)) else { continue };
            datagrams += 1;
            if !arrives(&question) {
                continue;
            }
            let Some(answer) = to.hear(&question, at(second)).unwrap() else { continue };
            datagrams += 1;
            if arrives(&answer) {
                from.hear(&answer, at(second)).unwrap();
            }
        }
    }
    datagrams
}

#[test]
fn a_living_peer_stays_alive_and_is_asked_once_an_interval() {
    let (mut one, mut other) = (Side::new(on(), 1), Side::new(on(), 2));
    let datagrams = run([&mut one, &mut other], 0..101, |_| true);
    assert_eq!(datagrams, 40, "each asks ten times");
    assert_eq!((one.dead, other.dead), (false, false));
    let expected =
        Statistics { questions_sent: 10, answers_sent: 10, answers_received: 10, ignored: 0 };
    assert_eq!((one.detection.statistics(), other.detection.statistics()), (expected, expected));
}

#[test]
fn a_dead_peer_is_found_after_the_threshold() {
    let (mut one, mut other) = (Side::new(on(), 1), Side::new(answer_only(), 2));
    run([&mut one, &mut other], 0..25, |_| true);
    run([&mut one, &mut other], 25..60, |_| false);
    assert!(!one.dead, "questions at 30, 40 and 50 wait until 60");
    assert_eq!(run([&mut one, &mut other], 60..1000, |_| false), 0, "and then no more");
    assert!(one.dead && one.detection.is_dead());
    assert_eq!(one.detection.poll_timeout(), None);
    assert!(!other.dead, "who only answers finds nobody dead");
}

#[test]
fn one_answer_in_time_starts_the_count_over() {
    let (mut one, mut other) = (Side::new(on(), 1), Side::new(answer_only(), 2));
    let mut count = 0;
    run([&mut one, &mut other], 0..1000, |_| {
        count += 1;
        // Two questions are lost, the third and its answer arrive.
        !matches!(count % 4, 1 | 2)
    });
    assert!(!one.dead);
}

#[test]
fn traffic_is_as_good_as_an_answer() {
    let (mut one, mut other) = (Side::new(on(), 1), Side::new(answer_only(), 2));
    for second in 0..100 {
        one.detection.handle_traffic(at(second));
        assert_eq!(run([&mut one, &mut other], second..second + 1, |_| false), 0);
    }
    assert!(!one.dead);
    assert_eq!(one.detection.poll_timeout(), Some(at(109)));
}

#[test]
fn who_does_not_ask_and_who_is_not_to_be_asked() {
    for settings in [answer_only(), Settings { mode: Mode::Off, ..on() }] {
        let mut side = Side::new(settings, 1);
        assert_eq!((side.detection.poll_timeout(), side.tick(at(1000))), (None, None));
    }
    let mut side = Side::new(on(), 1);
    side.detection.peer_answers = false;
    assert_eq!((side.detection.poll_timeout(), side.tick(at(1000))), (None, None));
    assert_eq!(Mode::Off.vendor_ids(), []);
    assert_eq!(Mode::AnswerOnly.vendor_ids(), Mode::On.vendor_ids());

    let mut asking = Side::new(on(), 1);
    let question = asking.tick(at(10)).unwrap();
    let mut off = Side::new(Settings { mode: Mode::Off, ..on() }, 2);
    assert_eq!(off.hear(&question, at(10)), Ok(None));
    assert_eq!(off.detection.statistics().ignored, 1);
}

/// What was recorded, of either side and either kind, proves no life.
#[test]
fn recorded_and_reflected_messages_prove_nothing() {
    let (mut one, mut other) = (Side::new(on(), 1), Side::new(on(), 2));
    let mut recorded = Vec::new();
    run([&mut one, &mut other], 0..30, |datagram| {
        recorded.push(datagram.to_vec());
        true
    });
    assert_eq!(recorded.len(), 8);
    let before = (one.detection.statistics(), other.detection.statistics());
    for side in [&mut one, &mut other] {
        let mut own = Vec::new();
        for second in 30..100 {
            own.extend(side.tick(at(second)));
            for datagram in recorded.iter().chain(&own) {
                assert!(side.hear(datagram, at(second)).is_err(), "{second}");
            }
        }
        assert!(side.dead);
    }
    let after = (one.detection.statistics(), other.detection.statistics());
    assert_eq!(before.0.answers_received, after.0.answers_received);
    assert_eq!(before.1.answers_sent, after.1.answers_sent);
}

/// Three hours with a question of each side every other second: more messages than a session
/// otherwise carries.
#[test]
fn a_session_carries_many_questions() {
    let often = Settings { interval: Duration::from_secs(2), ..on() };
    let (mut one, mut other) = (Side::new(often, 1), Side::new(often, 2));
    for side in [&mut one, &mut other] {
        side.session = Session::new(worked_isakmp_sa(), side.session.address(), at(0))
            .with_dead_peer_detection();
    }
    run([&mut one, &mut other], 0..10_800, |_| true);
    assert!(!one.dead && !other.dead);
    assert_eq!(one.detection.statistics().answers_received, 5_399);
}

#[test]
fn numbers_go_up_and_one_is_answered_a_few_times() {
    let mut side = Side::new(answer_only(), 1);
    let sa = worked_isakmp_sa();
    let ask = |side: &mut Side, number: u32| {
        let said = notification(&sa, NotifyType::R_U_THERE, number);
        side.detection.handle(&sa, &said, at(1))
    };
    let answer = |number| Heard::Answer(notification(&sa, NotifyType::R_U_THERE_ACK, number));
    assert_eq!(ask(&mut side, 100), answer(100));
    assert_eq!(ask(&mut side, 105), answer(105), "some were lost");
    assert_eq!(ask(&mut side, 104), Heard::Ignored(Ignored::StaleQuestion(104)));
    for _ in 0..ANSWERS {
        assert_eq!(ask(&mut side, 105), answer(105), "the answer was lost");
    }
    assert_eq!(ask(&mut side, 105), Heard::Ignored(Ignored::StaleQuestion(105)));
    assert_eq!(ask(&mut side, 106), answer(106));
}

#[test]
fn answers_must_be_to_the_question_that_waits() {
    let mut side = Side::new(on(), 1);
    let sa = worked_isakmp_sa();
    let number = side.detection.next;
    assert!(number < 1 << 31);
    let hear = |side: &mut Side, said: Notification| side.detection.handle(&sa, &said, at(10));
    let answer = |number| notification(&sa, NotifyType::R_U_THERE_ACK, number);
    let unknown = Heard::Ignored(Ignored::UnknownAnswer(number));
    assert_eq!(hear(&mut side, answer(number)), unknown, "nobody has asked");
    side.tick(at(10)).unwrap();
    let wrong = Heard::Ignored(Ignored::UnknownAnswer(number + 1));
    assert_eq!(hear(&mut side, answer(number + 1)), wrong);
    let malformed = Heard::Ignored(Ignored::Malformed);
    for said in [
        Notification { data: vec![0; 3], ..answer(number) },
        Notification { spi: vec![1; 16], ..answer(number) },
        Notification { protocol: ProtocolId::IPSEC_ESP, ..answer(number) },
    ] {
        assert_eq!(hear(&mut side, said), malformed);
    }
    assert_eq!(hear(&mut side, Notification { spi: vec![], ..answer(number) }), Heard::Alive);
    assert_eq!(hear(&mut side, answer(number)), unknown, "once");
    let other = sa.notification(NotifyType::INITIAL_CONTACT);
    assert_eq!(hear(&mut side, other), Heard::Other);
}

#[test]
fn values_of_nothing_are_the_least_ones() {
    let nothing = Settings { mode: Mode::On, interval: Duration::ZERO, threshold: 0 };
    let mut side = Side::new(nothing, 1);
    assert_eq!(side.detection.poll_timeout(), Some(at(1)));
    assert!(side.tick(at(1)).is_some() && side.tick(at(2)).is_none());
    assert!(side.dead);
}

proptest! {
    /// Whatever is lost, a peer is dead exactly when `threshold` questions in a row got no answer.
    #[test]
    fn dead_if_and_only_if_the_last_questions_got_no_answer(
        fates in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..60),
        threshold in 1..6_u32,
    ) {
        let (mut one, mut other) =
            (Side::new(Settings { threshold, ..on() }, 1), Side::new(answer_only(), 2));
        let (mut row, mut dead) = (0, false);
        for (round, (question_lost, answer_lost)) in (1..).zip(fates) {
            dead |= row >= threshold;
            let now = at(round * 10);
            let question = one.tick(now);
            prop_assert_eq!((one.dead, question.is_none()), (dead, dead));
            let Some(question) = question else { continue };
            row += 1;
            if question_lost {
                continue;
            }
            let answer = other.hear(&question, now).unwrap().expect("an answer");
            if !answer_lost {
                one.hear(&answer, now).unwrap();
                row = 0;
            }
        }
    }
}
