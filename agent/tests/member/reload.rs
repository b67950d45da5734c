//! Every option that a reload may change: what it is said to do, and what it does.

use std::collections::BTreeSet;

use agent::config::change::{Consequence, changes};
use gdoi::push::AcknowledgementLength;
use gdoi::push::ack::Claim;

use testing::member::{ALL, IKE, Kek, World, configuration, seconds, teks_of};

/// Options of the group before its first table, then the tables.
fn with(lines: &str) -> String {
    configuration(1, &format!("{lines}{IKE}"))
}

fn edited(from: &str, to: &str) -> String {
    let text = with("");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn rows() -> Vec<(String, &'static str, Consequence)> {
    use Consequence::{AtOnce, Moved, RegistersAgain, Restart};
    let table = |name: &str, lines: &str| with("") + &format!("[group.{name}]\n{lines}\n");
    vec![
        (edited("branches", "offices"), "name", AtOnce),
        (edited("lan = [\"lan\"]", "lan = [\"lan\", \"lan1\"]"), "lan", AtOnce),
        (edited("wan = [\"wan\"]", "wan = [\"wan\", \"wan1\"]"), "wan", AtOnce),
        (edited("16.0.0/12\"]", "16.0.0/12\", \"192.168.0.0/16\"]"), "protected", AtOnce),
        (with("mode = \"passive\"\n"), "mode", AtOnce),
        (with("failure-policy = \"open\"\n"), "failure-policy", AtOnce),
        (with("on-exit = \"keep\"\n"), "on-exit", AtOnce),
        (with("counter-mode-send = true\n"), "counter-mode-send", AtOnce),
        (with("df-bit = \"copy\"\n"), "df-bit", AtOnce),
        (with("mss-clamp = 1300\n"), "mss-clamp", AtOnce),
        (with("recovery-probe = true\n"), "recovery-probe", AtOnce),
        (table("rekey", "acknowledgement-jitter = \"1s\""), "rekey.acknowledgement-jitter", AtOnce),
        (table("rekey", "multicast-interface = \"lan\""), "rekey.multicast-interface", AtOnce),
        (
            with("")
                + "[[group.exclude]]\nsource = \"any\"\ndestination = \"224.0.0.5\"\nprotocol = 89\n",
            "exclude",
            AtOnce,
        ),
        (
            with("")
                + "[[group.fail-open]]\nsource = \"172.16.0.0/12\"\ndestination = \"172.16.9.1\"\n",
            "fail-open",
            AtOnce,
        ),
        (format!("policy-priority = 5000000\n{}", with("")), "policy-priority", AtOnce),
        (with("placeholder = \"192.0.2.99\"\n"), "placeholder", Moved),
        (edited("\"wan\"\nlan", "\"10.0.1.1\"\nlan"), "local-address", RegistersAgain),
        (with("identity = { fqdn = \"g1.example\" }\n"), "identity", RegistersAgain),
        (edited("10.0.11.1", "10.0.12.1"), "server.address", RegistersAgain),
        (with("") + "identity = { fqdn = \"ks.example\" }\n", "server", RegistersAgain),
        (configuration(1, &IKE.replace("19", "20")), "ike", RegistersAgain),
        (table("retransmission", "repetitions = 5"), "retransmission", RegistersAgain),
        (
            table("interoperability", "group-id-byte-order = \"host\""),
            "interoperability.group-id-byte-order",
            RegistersAgain,
        ),
        (
            table("interoperability", "selector-byte-order = \"host\""),
            "interoperability.selector-byte-order",
            RegistersAgain,
        ),
        (
            table("rekey", "acknowledgement-length = \"output\""),
            "rekey.acknowledgement-length",
            RegistersAgain,
        ),
        (with("legacy = true\n"), "legacy", RegistersAgain),
        (format!("local-port = 1848\n{}", with("")), "local-port", Restart),
        (format!("control-socket = \"/run/x.sock\"\n{}", with("")), "control-socket", Restart),
    ]
}

#[tokio::test]
async fn what_a_reload_is_said_to_do_is_what_it_does() {
    for (text, option, consequence) in rows() {
        let mut world = World::new(&with(""));
        let (before, after) = (world.configured(&with("")), world.configured(&text));
        let told = changes(&before, &after);
        let names: Vec<_> =
            told.iter().map(|one| (one.option.to_string(), one.consequence)).collect();
        assert_eq!(names, [(option.to_owned(), consequence)], "{text}");
        world.start().await;
        world.pass(seconds(1)).await;
        // The outbound state moves to another placeholder.
        let keys = |world: &World| world.spis().0.into_iter().collect::<BTreeSet<_>>();
        let (sent, before) = (world.datagrams.len(), keys(&world));
        world.reload(&text).await;
        let registers = consequence == Consequence::RegistersAgain;
        assert_eq!(world.datagrams.len() > sent, registers, "{option}");
        assert_eq!(keys(&world), before, "{option}: keys stay");
        assert!(option == "failure-policy" || option == "mode" || !world.group_in_clear());
    }
}

#[test]
fn groups_and_tunnels_come_and_go() {
    let world = World::new(&with(""));
    let told = |before: &str, after: &str| {
        let changes = changes(&world.configured(before), &world.configured(after));
        let line = |one: &agent::config::change::Change| {
            (one.subject.to_string(), one.option.to_string(), one.consequence.name())
        };
        changes.iter().map(line).collect::<Vec<_>>()
    };
    let other = with("").replace("1111", "2222").replace("branches", "other");
    assert_eq!(
        told(&with(""), &other),
        [
            ("group branches".to_owned(), "name".to_owned(), "group-removed"),
            ("group other".to_owned(), "name".to_owned(), "group-added")
        ]
    );
    // Put in front of it, the placeholder moves along.
    let both = format!("{}{}", other.replace("172.16.0.0/12", "10.99.0.0/16"), with(""));
    let moved = told(&with(""), &both);
    assert!(moved.contains(&(
        "group branches".to_owned(),
        "place in the file".to_owned(),
        "entries-replaced"
    )));
    assert!(told(&both, &both).is_empty());
}

/// The rekey SA takes both from the registration that brings its KEK.
#[tokio::test]
async fn what_the_rekey_sa_takes_from_a_registration_is_there_after_a_reload() {
    let mut world = World::new(&with(""));
    world.server(1).kek = Some(Kek::new(1, 86_400));
    world.start().await;
    world.pass(seconds(1)).await;
    assert_eq!(world.server(1).pulls, 1);
    let changed = with("legacy = true\n") + "[group.rekey]\nacknowledgement-length = \"output\"\n";
    world.reload(&changed).await;
    world.pass(seconds(10)).await;
    assert_eq!((world.server(1).pulls, world.spis().1), (2, vec![0x1000]));
    let mut kek = Kek::new(1, 86_400);
    let push = kek.push(&[], Some(&teks_of(&[(0x2000, ALL, 3_600)], (None, None))));
    world.push(&push).await.unwrap();
    let ack = world.datagrams.iter().rev().find_map(|sent| Claim::read(&sent.payload).ok());
    let verified = push.verify(&ack.unwrap(), None).unwrap();
    assert_eq!(verified.length, AcknowledgementLength::Output);
}
