//! The command line of the built program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn check(directory: &Path, text: &str) -> Output {
    let path = directory.join("agent.toml");
    fs::write(&path, text).unwrap();
    let agent = env!("CARGO_BIN_EXE_gdoi-agent");
    Command::new(agent).args(["--check", "--config"]).arg(&path).output().unwrap()
}

fn key(directory: &Path, name: &str, mode: u32) -> String {
    let path = directory.join(name);
    fs::write(&path, "a key of thirty-two octets or so\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

fn configuration(key: &str) -> String {
    format!(
        "[[group]]\nname = \"branches\"\nid = 1\nlocal-address = \"10.0.1.1\"\nlan = [\"nolan0\"]\nwan = [\"lo\"]\n\
         protected = [\"172.16.0.0/12\"]\npre-shared-key-file = \"{key}\"\n[[group.server]]\naddress = \"10.0.9.1\"\n"
    )
}

#[test]
fn check_reports_every_defect_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let open = key(directory.path(), "open", 0o644);
    let output = check(directory.path(), &format!("{}prot = 1\n", configuration(&open)));
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stderr).unwrap();
    let file = directory.path().join("agent.toml").display().to_string();
    for line in [
        format!("{file}:5:8: warning: group.lan: there is no interface \"nolan0\"; create it"),
        format!(
            "{file}:8:23: error: pre-shared key: file {open} is readable by everybody; run `chmod 600 {open}`"
        ),
        format!("{file}:11:1: error: unknown key \"prot\" in group.server; did you mean \"port\"?"),
        format!("{file}: 2 errors; nothing was started"),
    ] {
        assert!(report.contains(&line), "{line}\nin\n{report}");
    }
    assert!(!report.contains("thirty-two"));
}

#[test]
fn a_missing_file_is_one_clear_line() {
    let agent = env!("CARGO_BIN_EXE_gdoi-agent");
    let output =
        Command::new(agent).args(["--config", "/nonexistent/agent.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(report.contains("/nonexistent/agent.toml: error: cannot be read"), "{report}");
}

#[test]
fn an_unknown_log_level_is_refused_with_the_levels() {
    let agent = env!("CARGO_BIN_EXE_gdoi-agent");
    let output = Command::new(agent).args(["--log", "verbose", "--check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(report.contains("\"verbose\" is not a level"), "{report}");
    assert!(report.contains("off, error, warn, info, debug, trace"), "{report}");
}
