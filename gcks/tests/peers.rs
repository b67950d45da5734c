//! What members of other kinds need of the key server: forms of messages, sender identifiers, new
//! TEKs after a restart, and refusals that name the option.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use daemon::sealed::codec::Clock;
use gcks::group::event::Event as GroupEvent;
use gcks::group::key_generation::OsEntropy;
use gcks::server::KeyServer;
use gcks::server::event::Event;
use gdoi::config::{ByteOrder, RegistrationConfig, Trailer};
use gdoi::event::RegistrationFailure;
use gdoi::group::AddressRange;
use gdoi::push::{KekPacketSpi, RekeyEvent, RekeyMember, RekeySettings, SealOptions, SignedLength};
use ike::BootTime;
use ike::crypto::RsaForm;
use support::world::{is_push, server};
use support::*;

fn config(number: u8) -> RegistrationConfig {
    registration(number, number, 1, address(number), server())
}

/// The refusals, as the log has them.
fn refusals(service: &mut KeyServer<OsEntropy>) -> Vec<String> {
    let refused = events(service).into_iter().filter_map(|event| match event {
        Event::Refused { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    refused.collect()
}

/// Pushes since the last look: what each was for.
fn purposes(service: &mut KeyServer<OsEntropy>, now: BootTime) -> Vec<&'static str> {
    service.handle_timeout(now);
    while service.poll_transmit().is_some() {}
    let pushed = events(service).into_iter().filter_map(|event| match event {
        Event::Group { event: GroupEvent::Pushed { purpose, .. }, .. } => Some(purpose),
        _ => None,
    });
    pushed.collect()
}

#[test]
fn the_order_of_the_group_number_is_each_members_own() {
    let keys = keys();
    let text = configuration(keys.path(), "", "10.0.0", CBC).replacen(
        "groups = [\"one\"]\n",
        "groups = [\"one\"]\n[member.interoperability]\ngroup-id-byte-order = \"host\"\n",
        1,
    );
    let mut service = start(parse(&text));
    let host =
        |number| RegistrationConfig { group_id_byte_order: ByteOrder::Host, ..config(number) };
    register(&mut service, host(1), at(1000)).group_sa();
    register(&mut service, config(2), at(1000)).group_sa();
    assert_eq!(refusals(&mut service), Vec::<String>::new());
    for (wrong, member, order) in [(host(2), "g2", "host"), (config(1), "g1", "network")] {
        let failure = register(&mut service, wrong, at(1001)).failure();
        assert!(matches!(failure, RegistrationFailure::Refused { .. }), "{failure}");
        let named =
            format!("group-id-byte-order = \"{order}\" in [member.interoperability] of {member}");
        let told = refusals(&mut service);
        assert!(told.len() == 1 && told[0].contains(&named) && told[0].contains("one"), "{told:?}");
    }
    // Neither this nor its reverse.
    let unknown = RegistrationConfig { group: gdoi::group::GroupId(77), ..config(2) };
    register(&mut service, unknown, at(1002)).failure();
    let told = refusals(&mut service);
    assert!(told[0].contains("no such group") && !told[0].contains("byte-order"), "{told:?}");
}

const FORMS: &str = "[group.interoperability]\nrsa-signature = \"raw-digest\"\n\
                     signed-length = \"unpadded\"\nsak-reserved-octets = \"six\"\n\
                     new-kek-spi = \"old\"\nselector-byte-order = \"host\"\n";

#[test]
fn forms_of_a_group_are_in_its_pulls_and_pushes() {
    let directory = keys();
    let settings = format!("{}\n{FORMS}", pushes(""));
    let text = configuration_with(directory.path(), "", "10.0.0", CBC, &settings);
    let config_read = parse(&text);
    let expected = SealOptions {
        form: RsaForm::RawDigest,
        length: SignedLength::Unpadded,
        trailer: Trailer::TwoMore,
        selectors: ByteOrder::Host,
        kek_packet: KekPacketSpi::Old,
    };
    assert_eq!(config_read.groups[0].interoperability.seal_options(), expected);
    let signing = signing_keys(&config_read);
    let mut service = KeyServer::new(config_read, &signing, [1; 32], OsEntropy);

    let failure = register(&mut service, config(2), at(1000)).failure().to_string();
    assert!(failure.contains("selector-byte-order = \"host\""), "{failure}");
    let host = RegistrationConfig { selector_byte_order: ByteOrder::Host, ..config(1) };
    let sa = register(&mut service, host, at(1000)).group_sa();
    let prefix = AddressRange::Subnet("172.16.0.0/12".parse().unwrap());
    assert_eq!(sa.policy().teks[0].selector.source, prefix);

    // The same after a restart, from the sealed state, which no configuration contradicts.
    let state = (&gcks::state::Stored::Records(service.export()), Clock::same(at(1000)));
    let mut service =
        KeyServer::restore(parse(&text), &signing, [2; 32], OsEntropy, state, at(1000)).unwrap();
    let changed = |event: &Event| matches!(event, Event::ConfigurationChanged { .. });
    assert!(!events(&mut service).iter().any(changed));
    service.rekey("one", at(1001)).unwrap();
    let push = std::iter::from_fn(|| service.poll_transmit()).find(is_push).unwrap();
    let settings = RekeySettings {
        address: address(1),
        acknowledgement_length: Default::default(),
        selector_byte_order: ByteOrder::Host,
        legacy: false,
    };
    let mut member = RekeyMember::new(&sa, settings, at(1000)).unwrap().unwrap();
    member.handle_datagram(push.source, address(1), &push.payload, at(1001)).unwrap();
    let Some(RekeyEvent::Accepted(accepted)) = member.poll_event() else { panic!() };
    assert_eq!(accepted.group_sa.unwrap().policy().teks[0].selector.source, prefix);
}

/// RFC 6407 §3.5: a member may ask for more than the one sender identifier that it gets anyway.
#[test]
fn sender_identifiers_as_many_as_asked_for() {
    let mut service = pushing(GCM, "");
    let ask = |service: &mut KeyServer<OsEntropy>, number, sender_ids| {
        let config = RegistrationConfig { sender_ids, ..config(number) };
        let sa = register(service, config, at(1000)).group_sa();
        sa.sender_ids().map_or(Vec::new(), |ids| ids.values.clone())
    };
    assert_eq!(ask(&mut service, 1, None), [0]);
    assert_eq!(ask(&mut service, 2, Some(3)), [1, 2, 3]);
    assert_eq!(ask(&mut service, 1, Some(0)), [4], "at least one");
    assert_eq!(ask(&mut service, 2, Some(u16::MAX)).len(), 61, "its share");
    let mut service = pushing(CBC, "");
    assert_eq!(ask(&mut service, 1, Some(3)), [0_u64; 0]);
}

/// A Linux member that restarted must not send with the counter-mode TEK that it used before.
#[test]
fn a_member_that_restarted_gets_new_counter_mode_teks() {
    let restarted = |number| RegistrationConfig { initial_contact: true, ..config(number) };
    let mut service = pushing(GCM, "");
    let current = |service: &KeyServer<OsEntropy>| {
        let group = service.groups().next().unwrap();
        let current = group.teks().lifetimes().filter(|(_, _, current)| *current);
        current.map(|(_, lifetime, _)| lifetime.spi).collect::<Vec<_>>()
    };
    for number in [1, 2] {
        register(&mut service, restarted(number), at(1000)).group_sa();
    }
    assert!(purposes(&mut service, at(1100)).is_empty(), "it had no keys before");
    register(&mut service, config(1), at(1100)).group_sa();
    assert!(purposes(&mut service, at(1110)).is_empty(), "it did not restart");
    let before = current(&service);
    register(&mut service, restarted(1), at(1200)).group_sa();
    assert!(purposes(&mut service, at(1201)).is_empty(), "its keys come first");
    assert_eq!(purposes(&mut service, at(1202)), ["restart of a member"]);
    assert_ne!(current(&service), before);
    // However often and whoever restarts: once a minute.
    for (time, number) in [(1210, 1), (1220, 2), (1230, 1)] {
        register(&mut service, restarted(number), at(time)).group_sa();
        assert!(purposes(&mut service, at(time + 5)).is_empty());
    }
    assert!(purposes(&mut service, at(1261)).is_empty());
    assert_eq!(purposes(&mut service, at(1262)), ["restart of a member"]);
    assert!(purposes(&mut service, at(1400)).is_empty());
    // New TEKs that came by the way are new enough.
    register(&mut service, restarted(1), at(1500)).group_sa();
    service.rekey("one", at(1501)).unwrap();
    assert_eq!(purposes(&mut service, at(1501)), ["operator: rekey"]);
    assert!(purposes(&mut service, at(1600)).is_empty());

    let mut service = pushing(CBC, "");
    for time in [1000, 1100] {
        register(&mut service, restarted(1), at(time)).group_sa();
    }
    assert!(purposes(&mut service, at(1200)).is_empty(), "no counter mode");
}

/// A restart of the key server itself, within the seconds that such a member waits, keeps it from
/// nothing; and members that restart in turn make no more of it than before.
#[test]
fn new_counter_mode_teks_wait_over_a_restart_of_the_key_server() {
    let directory = keys();
    let text = configuration_with(directory.path(), "", "10.0.0", GCM, &pushes(""));
    let signing = signing_keys(&parse(&text));
    let mut service = KeyServer::new(parse(&text), &signing, [1; 32], OsEntropy);
    let restart = |service: &mut KeyServer<OsEntropy>, now| {
        let state = gcks::state::Stored::Records(service.export());
        let (config, state) = (parse(&text), (&state, Clock::same(now)));
        *service = KeyServer::restore(config, &signing, [2; 32], OsEntropy, state, now).unwrap();
    };
    let restarted = |number| RegistrationConfig { initial_contact: true, ..config(number) };
    register(&mut service, restarted(1), at(1000)).group_sa();
    register(&mut service, restarted(1), at(1200)).group_sa();
    assert!(purposes(&mut service, at(1201)).is_empty(), "its keys come first");
    restart(&mut service, at(1201));
    assert_eq!(purposes(&mut service, at(1202)), ["restart of a member"]);
    register(&mut service, restarted(1), at(1210)).group_sa();
    restart(&mut service, at(1211));
    assert!(purposes(&mut service, at(1261)).is_empty(), "once a minute");
    assert_eq!(purposes(&mut service, at(1262)), ["restart of a member"]);
    restart(&mut service, at(1263));
    assert!(purposes(&mut service, at(1400)).is_empty());
}

/// A member behind 1:1 address translation proves its private address and names it in its
/// acknowledgements (RFC 8263 §3.4), also where another member really has that address.
#[test]
fn acknowledgements_from_behind_address_translation() {
    let directory = keys();
    let text = configuration_with(directory.path(), "", "10.0.0", CBC, &pushes(""));
    let other = "address = \"10.0.0.2\"\nidentity = { fqdn = \"g2.example\" }";
    let private = "address = \"10.0.0.1\"\nidentity = { address = \"10.0.0.2\" }";
    let text = text.replacen("address = \"10.0.0.2\"", other, 1);
    let text = text.replacen("address = \"10.0.0.1\"", private, 1);
    let mut service = start(parse(&text));
    let identity = ike::config::Identity::Address(address(2).ip());
    let translated = RegistrationConfig { identity, ..config(1) };
    let sa = register(&mut service, translated, at(1000)).group_sa();
    let identity = ike::config::Identity::Fqdn("g2.example".into());
    register(&mut service, RegistrationConfig { identity, ..config(2) }, at(1000)).group_sa();
    service.rekey("one", at(1001)).unwrap();
    let push = std::iter::from_fn(|| service.poll_transmit()).find(is_push).unwrap();
    let settings = RekeySettings {
        address: address(2),
        acknowledgement_length: Default::default(),
        selector_byte_order: Default::default(),
        legacy: false,
    };
    let mut member = RekeyMember::new(&sa, settings, at(1000)).unwrap().unwrap();
    member.handle_datagram(push.source, address(2), &push.payload, at(1001)).unwrap();
    let Some(RekeyEvent::Accepted(accepted)) = member.poll_event() else { panic!() };
    let ack = accepted.acknowledgement.unwrap();
    service.handle_datagram(address(1), ack.destination, &ack.payload, at(1001)).unwrap();
    let group = service.groups().next().unwrap();
    let acknowledged =
        |number| group.registry().at(address(number).ip()).map(|member| member.acknowledgements);
    assert_eq!((acknowledged(1), acknowledged(2)), (Some(1), Some(0)));
}
