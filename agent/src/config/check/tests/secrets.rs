//! Pre-shared keys and the state key: where they may come from, and that no report shows one.

use super::*;

#[test]
fn a_state_key_needs_a_place_that_survives() {
    let directory = "state-directory = \"/var/lib/a\"\n";
    for source in ["state-key-file = \"/state.key\"\n", "state-key-credential = \"state\"\n"] {
        let config = load_text(&format!("{directory}{source}{GROUP}")).unwrap().value;
        assert_eq!(config.state_key.map(|key| key.len()), Some(32));
        let report = load_text(&format!("{source}{GROUP}")).unwrap_err();
        assert!(report.contains("f:1:") && report.contains("add state-directory = "), "{report}");
    }
    let report =
        load_text(&format!("{directory}state-key-file = \"/short\"\n{GROUP}")).unwrap_err();
    assert!(report.contains("f:2:18: error: state key: file /short holds 5 octets"), "{report}");
    let both = "state-key-file = \"/k\"\nstate-key-credential = \"k\"\n";
    let report = load_text(&format!("{directory}{both}{GROUP}")).unwrap_err();
    assert!(report.contains("state-key-file and state-key-credential are both named"), "{report}");
    assert_eq!(load_text(GROUP).unwrap().value.state_key, None);
}

#[test]
fn a_short_key_is_a_warning() {
    let machine = Machine {
        secret: &|_| Ok(Secret::copy_from(b"short")),
        state_key: &state_key,
        ..Machine::unseen()
    };
    let loaded = parse("f", GROUP, &machine).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].to_string().contains("5 octets only"));
}

#[test]
fn no_report_shows_a_key() {
    let loaded = load_text(GROUP).unwrap();
    assert!(!format!("{:?}", loaded.value).contains("sixteen"));
}
