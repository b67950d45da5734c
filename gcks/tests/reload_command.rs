//! `gdoictl reload` and its dry run on the built daemon: what they tell, and that the daemon answers
//! others while a configuration is read.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use control::{ConfigurationChanges, ReloadArgument, Request, Response};
use support::*;

struct Daemon {
    child: Child,
    keys: tempfile::TempDir,
    port: u16,
    _log: BufReader<std::process::ChildStderr>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start() -> Self {
        let keys = keys();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = file(keys.path(), "gcks.toml", &text(&keys, port, "127.0.0.1"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_gcks"))
            .arg("--config")
            .arg(config)
            .env_remove("NOTIFY_SOCKET")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = String::new();
        while !lines.contains("key server is ready") {
            assert_ne!(log.read_line(&mut lines).unwrap(), 0, "the daemon ended: {lines}");
        }
        Self { child, keys, port, _log: log }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    fn write(&self, text: &str) {
        file(self.keys.path(), "gcks.toml", text);
    }

    fn text(&self) -> String {
        text(&self.keys, self.port, "127.0.0.1")
    }

    fn ask(&self, request: Request) -> Result<Response, control::client::ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(control::client::ask(&self.path("control.sock"), request))
    }

    fn reload(&self, dry_run: bool) -> ConfigurationChanges {
        match self.ask(Request::Reload(ReloadArgument { dry_run })).unwrap() {
            Response::Configuration(changes) => *changes,
            other => panic!("{other:?}"),
        }
    }
}

/// A server with pushes in the folder of its keys, which is its state directory.
fn text(keys: &tempfile::TempDir, port: u16, listen: &str) -> String {
    let folder = keys.path().display();
    let head = format!(
        "listen = [\"{listen}\"]\nport = {port}\nstate-directory = \"{folder}\"\nlegacy = false"
    );
    configuration_with(keys.path(), &head, "127.0.7", CBC, &pushes(""))
}

#[test]
fn a_dry_run_tells_what_a_reload_does_and_does_nothing() {
    let daemon = Daemon::start();
    let renamed = daemon.text().replace("\"two\"", "\"three\"");
    daemon.write(&renamed);
    let dry = daemon.reload(true);
    assert!(dry.dry_run && !daemon.path("three.pem").exists(), "no key was made");
    let line = dry.changes.iter().find(|change| change.subject == "group three").unwrap();
    assert_eq!(line.consequences[0].name, "group-made");
    let done = daemon.reload(false);
    assert_eq!(done, ConfigurationChanges { dry_run: false, ..dry });
    assert!(daemon.path("three.pem").exists());
    assert!(daemon.reload(false).changes.is_empty());
    daemon.write(&renamed.replace("id = 2", "id = 1"));
    let refused = daemon.ask(Request::Reload(ReloadArgument { dry_run: true })).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("gcks.toml:") && refused.ends_with("(not-possible)"), "{refused}");
    assert_eq!(refused.lines().count(), 1);
}

/// What only a restart changes does not act at once through what is derived from it: signing keys
/// in another folder, pushes from an address that no socket has.
#[test]
fn what_takes_a_restart_does_not_act_before() {
    let daemon = Daemon::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let multicast =
        "\"ecdsa-p256\"\ntransport = \"multicast\"\nmulticast-address = \"239.192.1.1\"";
    daemon.write(&daemon.text().replace("\"ecdsa-p256\"", multicast));
    daemon.reload(false);
    let moved = text(&daemon.keys, daemon.port + 1, "127.0.0.9")
        .replace("\"ecdsa-p256\"", multicast)
        .replace(
            &format!("state-directory = \"{}\"", daemon.keys.path().display()),
            &format!("state-directory = \"{}\"", elsewhere.path().display()),
        )
        .replace("control.sock", "other.sock");
    daemon.write(&moved);
    let changes = daemon.reload(false).changes;
    let options: Vec<&str> = changes.iter().map(|change| change.option.as_str()).collect();
    assert_eq!(options, ["control-socket", "state-directory", "listen", "port"], "{changes:?}");
    assert!(changes.iter().all(|change| change.consequences[0].name == "restart-required"));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "no key was made there");
}

/// A key of 4,096 bits takes a second, and more than that on a busy machine.
#[test]
fn others_are_answered_while_a_signing_key_is_made() {
    let daemon = Daemon::start();
    let more = "[[group]]\nname = \"three\"\nid = 3\n[[group.tek]]\nencryption = \"aes-256-cbc\"\n\
        integrity = \"hmac-sha2-256-128\"\n[[group.tek.policy]]\nsource = \"172.16.0.0/12\"\n\
        destination = \"172.16.0.0/12\"\n[group.rekey]\nsigning-key = \"rsa-4096\"\n";
    daemon.write(&format!("{}{more}", daemon.text()));
    let pid = daemon.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let (begin, mut answers) = (Instant::now(), 0);
    while !daemon.path("three.pem").exists() {
        assert!(begin.elapsed() < seconds(120));
        daemon.ask(Request::ShowServer).unwrap();
        answers += 1;
    }
    // One answer at most would come before the key, if the server waited for it.
    assert!(answers > 3, "{answers} answers in {:?}", begin.elapsed());
}
