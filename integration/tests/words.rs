//! The lab's command line says what is wrong and what there is.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Output};

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lab")).args(arguments).output().unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    let output = lab(arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_list_names_every_scenario() {
    let output = lab(&["list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for scenario in integration::scenarios::ALL {
        assert!(
            text.lines()
                .any(|line| line.starts_with(scenario.name) && line.contains(scenario.about)),
            "{text}"
        );
    }
}

#[test]
fn an_unknown_scenario_or_node_is_refused_with_the_ones_there_are() {
    assert!(
        refusal(&["run", "--scenario", "nosuch"])
            .contains("there is no scenario nosuch; there are main, ")
    );
    assert!(refusal(&["shell", "g9"]).contains("there is no node g9; there are ha g1 r g2"));
}
