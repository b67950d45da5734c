//! Sockets of the loopback interface.

use std::time::Duration;

use super::*;

fn any_port(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 0)
}

async fn exchange(server: Socket, server_address: &str, client: Socket, client_address: &str) {
    let source = SocketAddr::new(client_address.parse().unwrap(), client.local().port());
    let destination = SocketAddr::new(server_address.parse().unwrap(), server.local().port());
    client.send(&Transmit { destination, source, payload: b"question".to_vec() }).unwrap();
    let mut buffer = [0; 64];
    let incoming = server.receive(&mut buffer).await.unwrap();
    assert_eq!(incoming, Incoming::Datagram { source, local: destination, length: 8 });
    assert_eq!(&buffer[..8], b"question");
    server
        .send(&Transmit { destination: source, source: destination, payload: b"answer".to_vec() })
        .unwrap();
    let incoming = client.receive(&mut buffer).await.unwrap();
    assert_eq!(incoming, Incoming::Datagram { source: destination, local: source, length: 6 });
}

#[tokio::test]
async fn an_answer_leaves_from_the_address_that_was_asked() {
    let server = Socket::bind(any_port("0.0.0.0")).unwrap();
    let client = Socket::bind(any_port("0.0.0.0")).unwrap();
    exchange(server, "127.0.0.7", client, "127.0.0.9").await;
}

#[tokio::test]
async fn ipv6_works_alike() {
    let Ok(server) = Socket::bind(any_port("::1")) else {
        eprintln!("this machine has no IPv6 loopback");
        return;
    };
    let client = Socket::bind(any_port("::1")).unwrap();
    exchange(server, "::1", client, "::1").await;
}

#[tokio::test]
async fn an_icmp_error_names_where_our_datagram_went() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let destination = closed.local_addr().unwrap();
    drop(closed);
    let client = Socket::bind(any_port("127.0.0.1")).unwrap();
    let transmit = Transmit { destination, source: client.local(), payload: vec![0; 10] };
    client.send(&transmit).unwrap();
    let mut buffer = [0; 64];
    let incoming = tokio::time::timeout(Duration::from_secs(5), client.receive(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    let (error, reporter) = (libc::ECONNREFUSED, Some(destination.ip()));
    assert_eq!(incoming, Incoming::Unreachable { destination, error, reporter });
    assert_eq!(error_text(error), "Connection refused");
    // The socket goes on: with the error still pending, the next datagram leaves all the same.
    client.send(&transmit).unwrap();
    let listening = Socket::bind(any_port("127.0.0.1")).unwrap();
    client
        .send(&Transmit {
            destination: listening.local(),
            source: client.local(),
            payload: vec![1; 3],
        })
        .unwrap();
    let incoming = listening.receive(&mut buffer).await.unwrap();
    assert_eq!(
        incoming,
        Incoming::Datagram { source: client.local(), local: listening.local(), length: 3 }
    );
}

#[tokio::test]
async fn a_multicast_group_is_heard_on_the_interface_it_was_joined_on_alone() {
    let group = Ipv4Addr::new(239, 192, 84, 8);
    let Ok(loopback) = nix::net::if_::if_nametoindex("lo") else {
        eprintln!("this machine has no loopback interface");
        return;
    };
    let Ok(listening) = Socket::join(group.into(), 28_483, loopback, None) else {
        eprintln!("this machine's loopback knows no multicast");
        return;
    };
    assert!(Socket::join(group.into(), 28_483, u32::MAX >> 1, None).is_err());
    let sender = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    sender.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let destination = SocketAddr::new(group.into(), 28_483);
    if sender.send_to(b"push", &destination.into()).is_err() {
        eprintln!("this machine's loopback has no route for multicast");
        return;
    }
    let mut buffer = [0; 64];
    let incoming = tokio::time::timeout(Duration::from_secs(5), listening.receive(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(incoming, Incoming::Datagram { local, length: 4, .. } if local == destination)
    );
}

#[tokio::test]
async fn a_datagram_to_a_multicast_group_leaves_by_the_interface_and_with_the_hops_asked_for() {
    let group = Ipv4Addr::new(239, 192, 84, 9);
    let Ok(loopback) = nix::net::if_::if_nametoindex("lo") else {
        eprintln!("this machine has no loopback interface");
        return;
    };
    let Ok(listening) = Socket::join(group.into(), 28_484, loopback, None) else {
        eprintln!("this machine's loopback knows no multicast");
        return;
    };
    setsockopt(&listening.descriptor, sockopt::Ipv4RecvTtl, &true).unwrap();
    let sender = Socket::bind(any_port("127.0.0.1")).unwrap();
    let destination = SocketAddr::new(group.into(), 28_484);
    let transmit = Transmit { destination, source: sender.local(), payload: b"push".to_vec() };
    assert!(
        sender.send_multicast(&transmit, Some(u32::MAX >> 1), 9).is_err(),
        "there is no such interface"
    );
    for (interface, ttl) in [(Some(loopback), 9), (None, 200)] {
        if sender.send_multicast(&transmit, interface, ttl).is_err() {
            eprintln!("this machine's loopback has no route for multicast");
            return;
        }
        listening.descriptor.readable().await.unwrap();
        let (mut buffer, mut control) = ([0; 64], cmsg_space!(libc::in_pktinfo, libc::c_int));
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrStorage>(
            listening.raw(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let hops = received.unwrap().cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::Ipv4Ttl(hops) => Some(hops),
            _ => None,
        });
        assert_eq!(hops, Some(i32::from(ttl)));
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_remedy() {
    let first = Socket::bind(any_port("127.0.0.1")).unwrap();
    let error = Socket::bind(first.local()).unwrap_err().to_string();
    assert!(error.contains("ss -ulnp"), "{error}");
    let error = Socket::bind(any_port("192.0.2.77")).unwrap_err().to_string();
    assert!(error.contains("no interface has this address"), "{error}");
}

#[tokio::test]
async fn the_longest_datagram_arrives_whole() {
    let server = Socket::bind(any_port("127.0.0.1")).unwrap();
    let client = Socket::bind(any_port("127.0.0.1")).unwrap();
    let payload = vec![7; 65_507];
    client
        .send(&Transmit { destination: server.local(), source: client.local(), payload })
        .unwrap();
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    let incoming = server.receive(&mut buffer).await.unwrap();
    assert_eq!(
        incoming,
        Incoming::Datagram { source: client.local(), local: server.local(), length: 65_507 }
    );
}

/// ESP and what keeps translations alive are the kernel's; messages behind the marker are ours.
#[tokio::test]
async fn a_socket_for_esp_hears_what_has_the_marker_alone() {
    let socket = Socket::bind("127.0.84.40:0".parse().unwrap()).unwrap();
    if let Err(error) = socket.decapsulate_esp() {
        eprintln!("not tested: this kernel takes no ESP out of UDP: {error}");
        return;
    }
    let sender = std::net::UdpSocket::bind("127.0.84.41:0").unwrap();
    let message = [0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7];
    for octets in [&[0xff][..], &[0, 0, 0x13, 0, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9], &message] {
        sender.send_to(octets, socket.local()).unwrap();
    }
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    let received = socket.receive(&mut buffer).await.unwrap();
    let Incoming::Datagram { length, .. } = received else { panic!("{received:?}") };
    assert_eq!(buffer[..length], message);
}
