//! The state in a real etcd: written as a whole or not at all, by the server that is elected.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gcks::etcd::Settings;
use gcks::etcd::client::{Client, EtcdError, put, revision};
use gcks::state::store::etcd::EtcdStore;
use gcks::state::store::{Batch, Key, Store, StoreError};
use serde_json::json;
use support::etcd::{Etcd, is_installed};

fn key(number: u32) -> Key {
    let mut key = Key::default();
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

/// Makes a server the elected one.
fn elect(client: &Client) -> i64 {
    let delete = json!({ "request_delete_range": { "key": "L2dja3MvYWN0aXZl" } });
    client.call("/v3/kv/txn", &json!({ "success": [delete] })).unwrap();
    let answer = client.call("/v3/kv/txn", &json!({ "success": [put("/gcks/active", "ks")] }));
    revision(&answer.unwrap())
}

fn read(store: &mut EtcdStore) -> BTreeMap<Key, Vec<u8>> {
    let records = store.read().unwrap();
    let count = records.len();
    let records: BTreeMap<Key, Vec<u8>> = records.into_iter().collect();
    assert_eq!(records.len(), count);
    records
}

#[test]
fn records_come_back_and_only_the_elected_server_writes() {
    if !is_installed() {
        return;
    }
    let etcd = Etcd::start(1);
    let client = etcd.client();
    let mut first = EtcdStore::new(etcd.settings("one"), elect(&client));
    assert!(read(&mut first).is_empty());
    let mut expected = BTreeMap::new();
    let mut write = |store: &mut EtcdStore, batch: Batch| {
        store.write(&batch).unwrap();
        batch.removals.iter().for_each(|key| _ = expected.remove(key));
        expected.extend(batch.puts);
        assert_eq!(read(store), expected);
    };
    let value = |octets| vec![7; octets];
    let puts = vec![(key(1), value(10)), (key(2), value(300_000)), (key(3), Vec::from([1]))];
    write(&mut first, Batch { puts, removals: Vec::new() });
    // Fewer parts than before, and one that goes.
    let puts = vec![(key(2), value(3))];
    write(&mut first, Batch { puts, removals: vec![key(1)] });
    let puts = vec![(key(2), value(200_000))];
    write(&mut first, Batch { puts, removals: Vec::new() });
    // More than fits into one transaction, by number and by size.
    let puts = (10..800).map(|number| (key(number), value(5_000))).collect();
    write(&mut first, Batch { puts, removals: vec![key(2)] });
    // Another server is elected, and the first one does not know.
    let mut second = EtcdStore::new(etcd.settings("two"), elect(&client));
    let batch = |number| Batch { puts: vec![(key(5), vec![number])], removals: Vec::new() };
    assert!(matches!(first.write(&batch(1)), Err(StoreError::Superseded { .. })));
    assert!(matches!(first.read(), Err(StoreError::Superseded { .. })));
    assert_eq!(read(&mut second), expected);
    second.write(&batch(2)).unwrap();
    assert!(first.write(&batch(1)).is_err());
    assert_eq!(read(&mut second)[&key(5)], [2]);
}

#[test]
fn a_write_that_was_given_up_does_nothing_later() {
    if !is_installed() {
        return;
    }
    let etcd = Etcd::start(1);
    let elected = elect(&etcd.client());
    let [mut late, mut next] = [(); 2].map(|()| EtcdStore::new(etcd.settings("one"), elected));
    let batch = |number| Batch { puts: vec![(key(5), vec![number])], removals: Vec::new() };
    read(&mut late);
    read(&mut next);
    next.write(&batch(2)).unwrap();
    // What was on its way since before that write.
    assert!(matches!(late.write(&batch(1)), Err(StoreError::Changed { .. })));
    assert_eq!(read(&mut late)[&key(5)], [2]);
    late.write(&batch(3)).unwrap();
}

/// Forwards requests to etcd until so many have gone by, then nothing any more. The last one
/// reaches etcd, and its answer gets lost.
fn breaks_after(requests: usize, etcd: &Etcd) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let target = etcd.nodes[0].endpoint.trim_start_matches("http://").to_owned();
    let left = Arc::new(AtomicUsize::new(requests));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, left) = (client.unwrap(), Arc::clone(&left));
            let Ok(server) = TcpStream::connect(&target) else { return };
            std::thread::spawn(move || forward(client, server, &left));
        }
    });
    address
}

fn forward(mut client: TcpStream, mut server: TcpStream, left: &AtomicUsize) {
    let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let gate = Arc::new(AtomicUsize::new(1));
    let open = Arc::clone(&gate);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = answers.read(&mut buffer) {
            if open.load(Ordering::SeqCst) == 0 || to_client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        if buffer[..length].starts_with(b"POST ") {
            match left.load(Ordering::SeqCst) {
                0 => break,
                1 => gate.store(0, Ordering::SeqCst),
                _ => {}
            }
            left.fetch_sub(1, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    if gate.load(Ordering::SeqCst) == 0 {
        // The request that was forwarded is carried out.
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_large_batch_happens_as_a_whole_wherever_its_server_ends() {
    if !is_installed() {
        return;
    }
    let etcd = Etcd::start(1);
    let client = etcd.client();
    let state = |generation: u8| -> BTreeMap<Key, Vec<u8>> {
        (0..400).map(|number| (key(number), vec![generation; 400])).collect()
    };
    let batch =
        |generation| Batch { puts: state(generation).into_iter().collect(), removals: Vec::new() };
    let mut whole = EtcdStore::new(etcd.settings("one"), elect(&client));
    read(&mut whole);
    whole.write(&batch(0)).unwrap();
    let (mut before, mut outcomes) = (0_u8, Vec::new());
    for requests in 1.. {
        let settings =
            Settings { endpoints: vec![breaks_after(requests, &etcd)], ..etcd.settings("one") };
        let mut cut = EtcdStore::new(settings, elect(&client));
        let written = cut.read().and_then(|_| cut.write(&batch(before + 1)));
        let mut next = EtcdStore::new(etcd.settings("two"), elect(&client));
        let after = read(&mut next);
        let generation = after[&key(0)][0];
        assert_eq!(after, state(generation), "a mixture after {requests} requests");
        assert!([before, before + 1].contains(&generation), "{generation} after {before}");
        assert!(written.is_err() || generation == before + 1);
        outcomes.push(generation - before);
        before = generation;
        if written.is_ok() {
            break;
        }
    }
    let turn = outcomes.iter().position(|moved| *moved == 1).unwrap();
    assert!(turn > 3 && outcomes[turn..].iter().all(|moved| *moved == 1), "{outcomes:?}");
    assert!(outcomes.len() > turn + 4, "ends after the commit as well: {outcomes:?}");
}

/// Answers everything with `answer`, as it is.
fn nonsense(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut buffer = [0; 4096];
            let _ = client.read(&mut buffer);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn what_is_wrong_with_etcd_is_one_clear_line() {
    let call = |endpoints: &[String]| {
        let client = Client::new(endpoints, Duration::from_millis(300));
        client.call("/v3/kv/range", &json!({ "key": "Zm9v" })).unwrap_err()
    };
    for (answer, expected) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "no answer of its JSON gateway"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "answers \"hello\""),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n", "404 page"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "answers \"{}\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"kvs\": [", "no"),
        (
            "HTTP/1.1 503 x\r\nContent-Length: 64\r\n\r\n{\"error\":\"etcdserver: no leader\",\"message\":\"etcdserver: no leader\"}",
            "no",
        ),
    ] {
        let error = call(&[nonsense(answer)]).to_string();
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let error = call(&[silent, "http://127.0.0.1:1".to_owned()]);
    assert!(matches!(error, EtcdError::Unreachable { .. }), "{error}");
    assert!(error.to_string().ends_with("start etcd, or correct the endpoints"), "{error}");
}

#[test]
fn a_full_etcd_is_told_apart() {
    if !is_installed() {
        return;
    }
    let etcd = Etcd::with(1, &["--quota-backend-bytes", "300000"]);
    let mut store = EtcdStore::new(etcd.settings("one"), elect(&etcd.client()));
    read(&mut store);
    let mut last = None;
    for number in 0..100 {
        let puts = vec![(key(number), vec![1; 50_000])];
        match store.write(&Batch { puts, removals: Vec::new() }) {
            Ok(()) => {}
            Err(error) => {
                last = Some(error);
                break;
            }
        }
    }
    let error = last.unwrap().to_string();
    assert!(error.contains("etcd has no room") && error.contains("etcdctl defrag"), "{error}");
}
