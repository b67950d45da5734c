//! A state that cannot be written for a while: nothing leaves meanwhile, and no push is lost by it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use support::world::is_push;
use support::*;

#[test]
fn a_push_waits_for_the_disk() {
    let directory = keys();
    let text = configuration_with(directory.path(), "", "10.0.0", CBC, &pushes(""));
    let mut service = start(parse(&text));
    service.keep_state();
    let mut member = gdoi::member::Registration::new(
        registration(1, 1, 1, address(1), SERVER.parse().unwrap()),
        [3; 32],
        at(1000),
    );
    let registered = loop {
        if let Some(outcome) = outcome(&mut member, at(1000)) {
            break outcome;
        }
        while let Some(sent) = member.poll_transmit() {
            service.handle_datagram(address(1), sent.destination, &sent.payload, at(1000)).unwrap();
        }
        service.saved();
        while let Some(sent) = service.poll_transmit() {
            let _ = member.handle_datagram(sent.source, &sent.payload, at(1000));
        }
    };
    registered.group_sa();
    service.rekey("one", at(1010)).unwrap();
    // The disk is full for longer than all repetitions take.
    for second in 1010..1100 {
        assert!(service.is_unsaved() && service.poll_transmit().is_none());
        service.discard_answers();
        service.handle_timeout(at(second));
    }
    let group = service.groups().next().unwrap();
    assert_eq!(group.rekey_sa().unwrap().counters().missing, 0, "nobody could acknowledge");
    service.saved();
    let sent: Vec<_> = std::iter::from_fn(|| service.poll_transmit()).collect();
    assert!(sent.len() == 1 && is_push(&sent[0]), "{sent:?}");
    // The repetitions follow as ever.
    let mut repeated = 0;
    for second in 1100..1200 {
        service.handle_timeout(at(second));
        service.saved();
        let again: Vec<_> = std::iter::from_fn(|| service.poll_transmit()).collect();
        repeated += again.iter().filter(|again| again.payload == sent[0].payload).count();
    }
    assert_eq!(repeated, 2);
}
