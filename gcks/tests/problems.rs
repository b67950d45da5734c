//! What `show server` calls a problem, with its cause set and removed: on the built daemon, whose
//! state lies on a small file system of its own. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use control::{ErrorCode, GroupArgument, Request, Response};
use ike::certificate::testing::{Authority, Contents, DAY, key as signing_key};
use ike::crypto::KeyKind;
use nix::sched::{CloneFlags, unshare};
use support::*;
use testing::process::{Running, sh};

fn ask(socket: &Path, request: Request) -> Result<Response, control::client::ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(control::client::ask(socket, request))
}

fn problems(socket: &Path) -> Vec<String> {
    match ask(socket, Request::ShowServer).unwrap() {
        Response::Server(snapshot) => snapshot.problems,
        other => panic!("{other:?}"),
    }
}

fn register(port: u16) {
    let socket = UdpSocket::bind("127.0.7.1:0").unwrap();
    let server = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let config = registration(0, 1, 1, socket.local_addr().unwrap(), server);
    register_by(&socket, config, server).0.group_sa();
}

#[test]
fn a_state_that_cannot_be_written_is_a_problem_until_it_can_be() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it takes root to make a mount namespace");
        return;
    }
    // The thread of the test alone sees what is mounted, and everything it starts.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
    let directory = keys();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mounted = state.display();
    sh(&format!("mount --make-rprivate / && mount -t tmpfs -o size=4m state {mounted}"));
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let head = format!(
        "listen = [\"127.0.0.1\"]\nport = {port}\nstate-directory = \"{mounted}\"\n\
         [ike]\ndh-group = [19]"
    );
    let text = configuration_with(directory.path(), &head, "127.0.7", CBC, &pushes(""));
    let config = file(directory.path(), "gcks.toml", &text);
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_gcks"));
    daemon.arg("--config").arg(config).env_remove("NOTIFY_SOCKET");
    let daemon = daemon.stderr(std::fs::File::create(directory.path().join("log")).unwrap());
    let _daemon = Running(daemon.spawn().unwrap());
    let socket = directory.path().join("control.sock");
    while ask(&socket, Request::ShowServer).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    register(port);
    assert_eq!(problems(&socket), [""; 0]);

    // As long as nothing has to be written there is no problem.
    sh(&format!("dd if=/dev/zero of={mounted}/filler bs=4k 2>/dev/null || true"));
    let mut refused = None;
    for _ in 0..50 {
        let rekey = Request::Rekey(GroupArgument { group: String::from("one") });
        match ask(&socket, rekey) {
            Ok(_) => {}
            Err(control::client::ClientError::Refused { source, .. }) => {
                refused = Some(source);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused.expect("the disk is full").code, ErrorCode::Unavailable);
    let told = problems(&socket);
    assert!(told.len() == 1 && told[0].contains("nothing is sent until it can be"), "{told:?}");

    sh(&format!("rm {mounted}/filler"));
    let since = Instant::now();
    while !problems(&socket).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", problems(&socket));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until the problems are these, by what each contains, as both forms show them.
fn become_these(socket: &Path, expected: &[&str]) {
    let since = Instant::now();
    loop {
        let told = problems(socket);
        let found = |part: &&str| told.iter().any(|one| one.contains(*part));
        if told.len() == expected.len() && expected.iter().all(found) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{told:#?}\nfor\n{expected:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let gdoictl = Path::new(env!("CARGO_BIN_EXE_gcks")).with_file_name("gdoictl");
    if !gdoictl.exists() {
        eprintln!("not compared with what gdoictl shows: {} is not built", gdoictl.display());
        return;
    }
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&gdoictl).arg("--socket").arg(socket).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (text, json) = (run(&["show", "server"]), run(&["--json", "show", "server"]));
    for part in expected {
        let mut lines = text.lines().filter(|line| line.starts_with("Problem"));
        assert!(lines.any(|line| line.contains(part)), "{part}\n{text}");
        assert!(json.contains(part), "{part}\n{json}");
    }
}

#[test]
fn certificates_and_refused_configurations_are_problems_until_they_are_mended() {
    let directory = keys();
    let path = |name: &str| directory.path().join(name);
    let pem = |name: &str, label: &str, der: &[u8]| {
        let text = pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap();
        write(&path(name), &text, 0o600);
    };
    let own = signing_key(KeyKind::Ecdsa256, 10);
    let contents = Contents::authority("CN=Root of the tests,O=Example");
    let authority = Authority::with(1, Contents { valid: (0, u32::MAX.into()), ..contents });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let certificate = |end| {
        let valid = (now - 700 * DAY, end);
        let contents = Contents::new("CN=server,O=Example").address("127.0.0.1");
        pem("site.crt", "CERTIFICATE", &authority.certify(Contents { valid, ..contents }, &own));
    };
    certificate(now - 3 * DAY);
    pem("site.key", "PRIVATE KEY", own.to_pkcs8_der().unwrap().expose());
    pem("ca.crt", "CERTIFICATE", &authority.der());
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = directory.path().display();
    let head = format!(
        "listen = [\"127.0.0.1\"]\nport = {port}\n\
         [[certificate]]\nname = \"site\"\nchain-file = \"{folder}/site.crt\"\n\
         private-key-file = \"{folder}/site.key\"\nauthority-files = [\"{folder}/ca.crt\"]\n\
         [[member]]\nname = \"branches\"\naddress = \"10.9.0.0/16\"\ncertificate = \"site\"\n\
         identity = {{ dn = \"CN=*,OU=Branches,O=Example\" }}\ngroups = [\"one\"]\n"
    );
    let text = configuration(directory.path(), &head, "127.0.7", CBC);
    let config = file(directory.path(), "gcks.toml", &text);
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_gcks"));
    daemon.arg("--config").arg(config).env_remove("NOTIFY_SOCKET");
    let daemon = daemon.stderr(std::fs::File::create(path("log")).unwrap());
    let daemon = Running(daemon.spawn().unwrap());
    let socket = path("control.sock");
    while ask(&socket, Request::ShowServer).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let reload = || sh(&format!("kill -HUP {}", daemon.0.id()));
    const ENDED: &str = "certificate site: the certificate of CN=server,O=Example ended at";
    become_these(&socket, &[ENDED]);
    certificate(now + 300 * DAY);
    reload();
    become_these(&socket, &[]);
    // Others can read it.
    write(&path("k1"), &key(1), 0o644);
    reload();
    become_these(&socket, &["configuration not reloaded, the previous one stays in use"]);
    write(&path("k1"), &key(1), 0o600);
    reload();
    become_these(&socket, &[]);
}
