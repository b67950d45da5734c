//! The command line of the built program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may fail loudly")]

use std::process::Command;

#[test]
fn an_unknown_log_level_is_refused_with_the_levels() {
    let gcks = env!("CARGO_BIN_EXE_gcks");
    let arguments = ["--log", "verbose", "--check", "--config", "/nonexistent/gcks.toml"];
    let output = Command::new(gcks).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stderr).unwrap();
    assert_eq!(report.matches("\"verbose\" is not a level").count(), 1, "{report}");
    assert!(report.contains("off, error, warn, info, debug, trace"), "{report}");
}
