//! Both ends of the socket: framing, refusals, limits, the socket file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::client::{ClientError, ask};
use control::framing::{FrameError, REQUEST_LIMIT, read_line};
use control::server::{CONNECTIONS, Call, RESERVED, serve};
use control::socket::{Access, BindError, Listener, Peer};
use control::{ErrorCode, Refusal, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// A daemon that answers `show-server` and is not a member.
fn daemon(folder: &Path) -> PathBuf {
    daemon_for(folder, Access::own())
}

fn daemon_for(folder: &Path, access: Access) -> PathBuf {
    let path = folder.join("control.sock");
    let (sender, mut calls) = mpsc::channel::<Call>(4);
    tokio::spawn(serve(Listener::bind(&path).unwrap(), access, sender));
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let response = match call.request() {
                Request::ShowServer => Response::Server(Box::default()),
                request => Response::Refused(Refusal::not_served_here("gcks", request)),
            };
            call.answer(response);
        }
    });
    path
}

async fn read(stream: &mut BufReader<UnixStream>) -> Option<Response> {
    let line = read_line(stream, 1 << 20).await.unwrap()?;
    Some(Response::from_line(&line).unwrap())
}

fn code(response: Option<Response>) -> ErrorCode {
    match response {
        Some(Response::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_connection_many_requests() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = BufReader::new(UnixStream::connect(daemon(folder.path())).await.unwrap());
    let lines: [(&[u8], Option<ErrorCode>); 12] = [
        (b"{\"version\":1,\"request\":\"show-server\"}\n", None),
        (b"{\"version\":1,\"request\":\"show-member\"}\n", Some(ErrorCode::NotServedHere)),
        (b"{\"version\":1,\"request\":\"reboot\"}\n", Some(ErrorCode::UnknownRequest)),
        (
            b"{\"version\":1,\"request\":{\"clear\":{\"group\":1}}}\n",
            Some(ErrorCode::UnknownRequest),
        ),
        (b"{\"version\":2,\"request\":\"show-server\"}\n", Some(ErrorCode::Version)),
        (b"{\"request\":\"show-server\"}\n", Some(ErrorCode::Malformed)),
        (b"{\"version\":1}\n", Some(ErrorCode::Malformed)),
        (b"[1,2]\n", Some(ErrorCode::Malformed)),
        (b"\xff\xfe\n", Some(ErrorCode::Malformed)),
        (b"\n", Some(ErrorCode::Malformed)),
        (
            b"{\"version\":1,\"request\":{\"rekey\":{\"group\":\"one\"}}}\n",
            Some(ErrorCode::NotServedHere),
        ),
        // Fields that a newer client adds are ignored.
        (b"{\"version\":1,\"request\":\"show-server\",\"colour\":true}\n", None),
    ];
    for (line, expected) in lines {
        stream.get_mut().write_all(line).await.unwrap();
        let response = read(&mut stream).await;
        match expected {
            Some(expected) => {
                assert_eq!(code(response), expected, "{}", String::from_utf8_lossy(line))
            }
            None => assert!(matches!(response, Some(Response::Server(_)))),
        }
    }
}

#[tokio::test]
async fn a_line_in_pieces_and_two_lines_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = BufReader::new(UnixStream::connect(daemon(folder.path())).await.unwrap());
    let line = Request::ShowServer.to_line();
    let (head, tail) = line.split_at(7);
    stream.get_mut().write_all(head).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.get_mut().write_all(&[tail, &line].concat()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(read(&mut stream).await, Some(Response::Server(_))));
    }
}

#[tokio::test]
async fn an_oversized_line_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = BufReader::new(UnixStream::connect(daemon(folder.path())).await.unwrap());
    // The daemon may close before everything is written.
    let _ = stream.get_mut().write_all(&vec![b' '; REQUEST_LIMIT + 1]).await;
    assert_eq!(code(read(&mut stream).await), ErrorCode::TooLong);
    let mut rest = Vec::new();
    // Unread octets make the kernel report a reset instead of an end.
    match stream.read_to_end(&mut rest).await {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_limit_is_exact() {
    let at_limit = [vec![b'x'; 10], vec![b'\n']].concat();
    assert_eq!(read_line(&mut at_limit.as_slice(), 10).await.unwrap().unwrap().len(), 10);
    assert!(matches!(
        read_line(&mut at_limit.as_slice(), 9).await,
        Err(FrameError::TooLong { limit: 9 })
    ));
    assert!(matches!(
        read_line(&mut b"abc".as_slice(), 9).await,
        Err(FrameError::Truncated { have: 3 })
    ));
    assert!(read_line(&mut b"".as_slice(), 9).await.unwrap().is_none());
}

#[tokio::test]
async fn connections_are_bounded_and_places_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = daemon(folder.path());
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS + RESERVED {
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        stream.get_mut().write_all(&Request::ShowServer.to_line()).await.unwrap();
        assert!(matches!(read(&mut stream).await, Some(Response::Server(_))));
        open.push(stream);
    }
    let refused = ask(&path, Request::ShowServer).await;
    assert!(
        matches!(&refused, Err(ClientError::Refused { source, .. }) if source.code == ErrorCode::Busy),
        "{refused:?}"
    );
    open.clear();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(ask(&path, Request::ShowServer).await.is_ok());
}

#[tokio::test]
async fn a_daemon_that_goes_down_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let (sender, mut calls) = mpsc::channel::<Call>(4);
    let served = tokio::spawn(serve(Listener::bind(&path).unwrap(), Access::own(), sender));
    let asked = tokio::spawn({
        let path = path.clone();
        async move { ask(&path, Request::ShowServer).await }
    });
    // The call is dropped without an answer.
    drop(calls.recv().await);
    let answer = asked.await.unwrap();
    assert!(
        matches!(&answer, Err(ClientError::Refused { source, .. }) if source.code == ErrorCode::Unavailable),
        "{answer:?}"
    );
    drop(calls);
    served.await.unwrap();
    assert!(!path.exists(), "the socket file goes with the listener");
    assert!(matches!(
        ask(&path, Request::ShowServer).await,
        Err(ClientError::NotRunning { unit: "gcks", .. })
    ));
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(Listener::bind(&path), Err(BindError::InUse { .. })));
    assert!(path.exists(), "the live one is untouched");
    drop(listener);
    std::fs::write(&path, "notes").unwrap();
    assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
    let missing = folder.path().join("missing/control.sock");
    assert!(matches!(Listener::bind(&missing), Err(BindError::NoFolder { .. })));
}

#[test]
fn who_gets_in() {
    let access = Access::of(100, 200);
    let none = Vec::new;
    assert!(access.admits(Peer { uid: 0, gid: 0 }, none));
    assert!(access.admits(Peer { uid: 100, gid: 5 }, none));
    assert!(access.admits(Peer { uid: 7, gid: 200 }, none));
    assert!(access.admits(Peer { uid: 7, gid: 7 }, || vec![7, 200]));
    assert!(!access.admits(Peer { uid: 7, gid: 7 }, || vec![7, 0, 100]));
    assert!(!access.admits(Peer { uid: 200, gid: 100 }, none));
}

#[test]
fn only_root_and_the_daemons_user_may_change_something() {
    let access = Access::of(500, 600);
    let commands = |uid, gid| access.commands(Peer { uid, gid });
    assert!(commands(0, 0) && commands(500, 1));
    assert!(!commands(501, 600), "the group looks, and no more");
}

#[test]
fn requests_on_the_wire() {
    let group = || control::GroupArgument { group: "one".to_owned() };
    let member = || control::MemberArgument { group: "one".to_owned(), member: "g1".to_owned() };
    for (request, text, command) in [
        (Request::ShowServer, "\"show-server\"", false),
        (Request::Register(group()), "{\"register\":{\"group\":\"one\"}}", true),
        (Request::RemoveAll(group()), "{\"remove-all\":{\"group\":\"one\"}}", true),
        (Request::Remove(member()), "{\"remove\":{\"group\":\"one\",\"member\":\"g1\"}}", true),
    ] {
        let line = request.to_line();
        assert_eq!(
            String::from_utf8_lossy(&line),
            format!("{{\"version\":1,\"request\":{text}}}\n")
        );
        assert_eq!(Request::from_line(&line).unwrap(), request);
        assert_eq!(request.is_command(), command);
    }
}
