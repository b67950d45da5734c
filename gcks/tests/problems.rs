//! What `show server` calls a problem, with its cause set and removed: on the built daemon, whose
//! state lies on a small file system of its own. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use control::{ErrorCode, GroupArgument, Request, Response};
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
