//! The unit files, as systemd's own tools see them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: [&str; 2] = ["gcks", "gdoi-agent"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd").canonicalize().unwrap()
}

fn run(tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool).args(arguments).env("SYSTEMD_COLORS", "0").output().unwrap_or_else(|error| {
        panic!("{tool} cannot be run ({error}): install Debian's package systemd")
    })
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A copy whose program exists; verification looks for it.
fn copy(unit: &str, folder_of_copy: &Path) -> String {
    let original = fs::read_to_string(folder().join(format!("{unit}.service"))).unwrap();
    let program = format!("ExecStart=/usr/sbin/{unit} --config /etc/{unit}/{unit}.toml\n");
    assert!(original.contains(&program), "{unit}.service starts something else");
    let path = folder_of_copy.join(format!("{unit}.service"));
    fs::write(
        &path,
        original.replace(&format!("ExecStart=/usr/sbin/{unit} "), "ExecStart=/bin/true "),
    )
    .unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn units_pass_verification_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let output = run("systemd-analyze", &["verify", "--man=no", &copy(unit, directory.path())]);
        assert!(output.status.success() && text(&output).is_empty(), "{unit}: {}", text(&output));
    }
}

#[test]
fn verification_would_find_a_defect() {
    let directory = tempfile::tempdir().unwrap();
    let path = copy("gcks", directory.path());
    let broken =
        fs::read_to_string(&path).unwrap().replace("ProtectSystem=strict", "ProtectSystem=rather");
    fs::write(&path, broken).unwrap();
    let output = run("systemd-analyze", &["verify", "--man=no", &path]);
    assert!(text(&output).contains("rather"), "{}", text(&output));
}

#[test]
fn units_are_hardened() {
    let directory = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let path = copy(unit, directory.path());
        let output = run(
            "systemd-analyze",
            &["security", "--offline=true", "--threshold=25", "--no-pager", &path],
        );
        assert!(output.status.success(), "{unit}: {}", text(&output));
    }
}

#[test]
fn capabilities_are_exactly_those_needed() {
    let lines = |unit: &str| fs::read_to_string(folder().join(format!("{unit}.service"))).unwrap();
    for (unit, capabilities) in
        [("gcks", "CAP_NET_BIND_SERVICE"), ("gdoi-agent", "CAP_NET_ADMIN CAP_NET_BIND_SERVICE")]
    {
        for option in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            let line = format!("{option}={capabilities}");
            assert!(lines(unit).lines().any(|found| found == line), "{unit}: {line}");
        }
        assert!(lines(unit).contains(&format!("User={unit}\n")));
    }
    assert!(lines("gdoi-agent").contains("AF_NETLINK"));
    assert!(!lines("gcks").contains("AF_NETLINK"));
}

#[test]
fn users_and_directories_are_understood() {
    let root = tempfile::tempdir().unwrap();
    if fs::metadata(root.path()).unwrap().uid() != 0 {
        eprintln!("only root may make users and root's directories: not checked");
        return;
    }
    fs::create_dir(root.path().join("etc")).unwrap();
    let root_option = format!("--root={}", root.path().display());
    for unit in UNITS {
        let users = folder().join(format!("{unit}.sysusers.conf"));
        let output = run("systemd-sysusers", &[&root_option, users.to_str().unwrap()]);
        assert!(output.status.success(), "{unit}: {}", text(&output));
        let passwd = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
        assert!(passwd.lines().any(|line| line.starts_with(&format!("{unit}:"))), "{passwd}");
        let directories = folder().join(format!("{unit}.tmpfiles.conf"));
        let output =
            run("systemd-tmpfiles", &["--create", &root_option, directories.to_str().unwrap()]);
        assert!(output.status.success(), "{unit}: {}", text(&output));
        let keys = fs::metadata(root.path().join(format!("etc/{unit}/psk"))).unwrap();
        assert_eq!(keys.permissions().mode() & 0o777, 0o700);
    }
}
