//! Work that must not grow with the members of a group, counted instead of timed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use daemon::entropy::EntropyError;
use gcks::control::snapshot;
use gcks::group::key_generation::{Entropy, OsEntropy};
use gcks::members::registry::{MemberId, Registration};
use gcks::server::KeyServer;
use gdoi::event::Transmit;
use support::*;

/// A few members, and ten times as many.
const SIZES: [u8; 2] = [6, 60];

/// The operating system's generator, and how often it was asked.
struct Counted(Rc<Cell<u64>>);

impl Entropy for Counted {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), EntropyError> {
        self.0.set(self.0.get() + 1);
        OsEntropy.fill(octets)
    }
}

struct Group {
    service: KeyServer<Counted>,
    draws: Rc<Cell<u64>>,
}

impl Group {
    /// A group with these settings of pushes and so many registered members.
    fn new(settings: &str, members: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("psk");
        write(&file, &key(1), 0o600);
        let mut text = format!(
            "control-socket = \"{}/control.sock\"\n[ike]\ndh-group = [19]\n\
             [[group]]\nname = \"one\"\nid = 1\n[[group.tek]]\n{CBC}\n[[group.tek.policy]]\n\
             source = \"172.16.0.0/12\"\ndestination = \"172.16.0.0/12\"\n{}\n",
            directory.path().display(),
            pushes(settings)
        );
        for number in 1..=members + 1 {
            text += &format!(
                "[[member]]\nname = \"g{number}\"\naddress = \"10.0.0.{number}\"\n\
                 pre-shared-key-file = \"{}\"\ngroups = [\"one\"]\n",
                file.display()
            );
        }
        let config = parse(&text);
        let (keys, draws) = (signing_keys(&config), Rc::new(Cell::new(0)));
        let service = KeyServer::new(config, &keys, [1; 32], Counted(Rc::clone(&draws)));
        let mut group = Self { service, draws };
        for number in 1..=members {
            group.register(number);
        }
        group
    }

    fn register(&mut self, number: u8) {
        let config = registration(0, 1, 1, address(number), SERVER.parse().unwrap());
        register(&mut self.service, config, at(100)).group_sa();
    }

    fn members(&self) -> Vec<(MemberId, Registration)> {
        let registry = self.service.groups().next().unwrap().registry();
        registry.iter().map(|(id, member)| (id.clone(), member.clone())).collect()
    }

    fn walks(&self) -> u64 {
        self.service.groups().next().unwrap().registry().walks()
    }

    /// Number of the latest push under the KEK. Every seal takes one, and a seal has one signature.
    fn sealed(&self) -> u32 {
        let group = self.service.groups().next().unwrap();
        group.rekey_sa().unwrap().kek().unwrap().sequence_number()
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.service.poll_transmit()).collect()
    }
}

#[test]
fn a_push_is_sealed_and_signed_once_for_all_members() {
    let work = SIZES.map(|members| {
        let mut group = Group::new("", members);
        let (sealed, draws) = (group.sealed(), group.draws.get());
        assert_eq!(group.sent(), []);
        group.service.rekey("one", at(200)).unwrap();
        let sent = group.sent();
        let octets: BTreeSet<_> = sent.iter().map(|sent| &sent.payload).collect();
        let destinations: BTreeSet<_> = sent.iter().map(|sent| sent.destination).collect();
        assert_eq!((octets.len(), sent.len()), (1, usize::from(members)), "the same octets to all");
        assert_eq!(destinations.len(), sent.len());
        let shown = snapshot(&group.service, &[], at(0), at(200)).groups.remove(0);
        assert_eq!(shown.rekey.unwrap().pushes, 1);
        (group.sealed() - sealed, group.draws.get() - draws)
    });
    assert_eq!(work[0].0, 1, "sealed once");
    assert_eq!(work[0], work[1], "and as many keys are made for many members as for few");
}

#[test]
fn a_registration_touches_one_member() {
    for settings in ["", "lkh = true"] {
        let work = SIZES.map(|members| {
            let mut group = Group::new(settings, members);
            let before = group.members();
            let _ = events(&mut group.service);
            let (walks, draws) = (group.walks(), group.draws.get());
            group.register(members + 1);
            let (walks, draws) = (group.walks() - walks, group.draws.get() - draws);
            let happened = events(&mut group.service).len();
            let mut after = group.members();
            after.retain(|(id, _)| id.address != address(members + 1).ip());
            assert_eq!(after, before, "the others are as they were");
            assert_eq!(group.sent(), [], "nobody else hears of it");
            (walks, draws, happened)
        });
        assert_eq!(work[0].0, 0, "no walk over all members");
        assert_eq!(work[0], work[1], "as much randomness and as many events for many as for few");
    }
}
