//! A member registers: the exchanges message by message, and how each kind of failure shows.

mod support;

use gdoi::event::{RegistrationEvent, ServerEvent, Stage};
use support::*;

/// Main mode and pull with a fair network: ten datagrams, one of each arrow.
#[test]
fn ten_datagrams_register_a_member() {
    let mut pair = Pair::new(1);
    pair.run(seconds(5));
    assert_eq!(pair.registered(0), Some(&group_sa(GROUP)));
    let from_member: Vec<bool> = pair.sent.iter().map(|sent| sent.source == member_address(1)).collect();
    // HDR, SA -->             HDR, SA <--
    // HDR, KE, Ni -->         HDR, KE, Nr <--
    // HDR*, IDii, HASH_I -->  HDR*, IDir, HASH_R <--
    // HDR*, HASH(1), Ni, ID -->   HDR*, HASH(2), Nr, SA <--
    // HDR*, HASH(3) -->       HDR*, HASH(4), KD <--
    assert_eq!(from_member, [true, false, true, false, true, false, true, false, true, false]);
    assert_eq!(pair.members[0].stage(), Stage::Registered);
    assert!(pair.server_errors.is_empty() && pair.member_errors.is_empty());
    assert!(matches!(
        pair.server_events.as_slice(),
        [
            ServerEvent::Phase1Established { .. },
            ServerEvent::PullRequested { group: GROUP, .. },
            ServerEvent::PullCompleted { group: GROUP, .. }
        ]
    ));
    assert!(matches!(
        pair.member_events[0].as_slice(),
        [
            RegistrationEvent::Phase1Established { .. },
            RegistrationEvent::PolicyOffered(_),
            RegistrationEvent::Registered(_)
        ]
    ));
}
