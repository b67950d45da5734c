//! The connection to rtnetlink: a request, its answers, and a limit on the time.
//!
//! Requests go through the handle of `rtnetlink` itself and not through its `execute`, which takes
//! the end of a broken connection for success and hides that the kernel interrupted a dump.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_sys::{AsyncSocket, TokioSocket};
use rtnetlink::Handle;

use crate::error::{EINTR, ESRCH, Error};
use crate::kernel::netlink::channel::{LIMIT, failed, words};
use crate::kernel::netlink::route::{
    InterfaceAddress, Link, Route, every_route, interface_address, link, route,
};
use crate::kernel::netlink::{NETLINK_ROUTE, gone};

/// A connection that is made anew when it broke. Its task ends when this is dropped.
pub(crate) struct Routing {
    handle: Option<Handle>,
    port: Arc<AtomicU32>,
}

impl Routing {
    pub(crate) fn open() -> Result<Self, Error> {
        let port = Arc::default();
        Ok(Self { handle: Some(connect(&port)?), port })
    }

    /// The socket's address, which events name as their cause. Another one after the connection
    /// broke.
    pub(crate) fn port(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.port)
    }

    /// All links.
    pub(crate) async fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut links = Vec::new();
        let each = |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.extend(link(&message));
            }
        };
        self.request("list interfaces", RouteNetlinkMessage::GetLink(wanted), NLM_F_DUMP, each)
            .await?;
        Ok(links)
    }

    /// All addresses of all links.
    pub(crate) async fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, Error> {
        let wanted = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses = Vec::new();
        let each = |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                addresses.extend(interface_address(&message));
            }
        };
        self.request("list addresses", wanted, NLM_F_DUMP, each).await?;
        Ok(addresses)
    }

    /// The unicast routes of the main table that `keep` wants, of one protocol or of all
    /// ([`RouteProtocol::Unspec`]).
    pub(crate) async fn routes(
        &mut self,
        protocol: RouteProtocol,
        keep: impl Fn(&Route) -> bool,
    ) -> Result<Vec<Route>, Error> {
        let wanted = RouteNetlinkMessage::GetRoute(every_route(protocol));
        let mut routes = Vec::new();
        let each = |message| {
            if let RouteNetlinkMessage::NewRoute(message) = message {
                routes.extend(route(&message).filter(&keep));
            }
        };
        self.request("list routes", wanted, NLM_F_DUMP, each).await?;
        Ok(routes)
    }

    /// Adds a route that must not exist yet.
    pub(crate) async fn add_route(
        &mut self,
        operation: &str,
        wanted: RouteMessage,
    ) -> Result<(), Error> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(operation, RouteNetlinkMessage::NewRoute(wanted), flags, |_| {}).await
    }

    /// Deletes a route. One that is already gone is success.
    pub(crate) async fn delete_route(
        &mut self,
        operation: &str,
        old: RouteMessage,
    ) -> Result<(), Error> {
        gone(
            ESRCH,
            self.request(operation, RouteNetlinkMessage::DelRoute(old), NLM_F_ACK, |_| {}).await,
        )
    }

    /// `flags` hold NLM_F_ACK or NLM_F_DUMP: the library waits for ever without an end of the
    /// answers.
    async fn request(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), Error> {
        let handle = match &mut self.handle {
            Some(handle) => handle,
            none => none.insert(connect(&self.port)?),
        };
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let late = |_| Err(Error::Timeout { operation: operation.to_owned(), limit: LIMIT });
        let outcome = tokio::time::timeout(LIMIT, exchange(handle, operation, request, each)).await;
        let outcome = outcome.unwrap_or_else(late);
        if matches!(outcome, Err(Error::Timeout { .. } | Error::ConnectionEnded { .. })) {
            self.handle = None;
        }
        outcome
    }
}

/// Opens a connection, whose task ends with the last handle.
fn connect(port: &AtomicU32) -> Result<Handle, Error> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed("open"))?;
    let inner = socket.socket_mut();
    let address = inner.bind_auto().map_err(failed("bind"))?;
    inner.set_cap_ack(true).map_err(failed("set NETLINK_CAP_ACK"))?;
    inner.set_ext_ack(true).map_err(failed("set NETLINK_EXT_ACK"))?;
    // Linux 4.20: the kernel leaves out what a dump did not ask for. Older ones send all, and it is
    // sorted out here.
    let _ = inner.set_netlink_get_strict_chk(true);
    let (mut connection, handle, _) = rtnetlink::from_socket(socket);
    // So that the end of the answers cannot be mistaken for the end of the connection, nor a dump
    // that failed midway for a whole one.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    port.store(address.port_number(), Ordering::Relaxed);
    // On a task of its own: should the library panic, the answers end, and nothing else.
    tokio::spawn(connection);
    Ok(handle)
}

async fn exchange(
    handle: &mut Handle,
    operation: &str,
    request: NetlinkMessage<RouteNetlinkMessage>,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> Result<(), Error> {
    let ended = || Error::ConnectionEnded { operation: operation.to_owned() };
    let mut answers = handle.request(request).map_err(|_| ended())?;
    let mut interrupted = false;
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => each(message),
            NetlinkPayload::Error(error) => {
                let refused = |code| Err(Error::from_errno(operation, code, words(&error.header)));
                return error.code.map_or(Ok(()), |code| refused(code.get()));
            }
            NetlinkPayload::Done(done) if done.code != 0 => {
                return Err(Error::from_errno(operation, done.code, None));
            }
            NetlinkPayload::Done(_) if interrupted => {
                return Err(Error::from_errno(operation, EINTR, None));
            }
            NetlinkPayload::Done(_) => return Ok(()),
            _ => {}
        }
    }
    Err(ended())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn the_loopback_interface_is_found() {
        block_on(async {
            let links = Routing::open().unwrap().links().await.unwrap();
            assert!(
                links.iter().any(|link| link.name == "lo" && link.index != 0 && link.mtu != 0),
                "{links:?}"
            );
        });
    }

    #[test]
    fn a_refusal_names_the_request_and_keeps_the_connection() {
        block_on(async {
            let mut routing = Routing::open().unwrap();
            // A route without a family is refused whoever asks.
            let error =
                routing.add_route("add a route", RouteMessage::default()).await.unwrap_err();
            assert!(
                error.to_string().starts_with("the kernel refused to add a route: "),
                "{error}"
            );
            assert!(routing.handle.is_some());
        });
    }

    #[test]
    fn a_connection_that_ended_is_an_error_once() {
        block_on(async {
            let mut routing = Routing::open().unwrap();
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            drop(connection);
            routing.handle = Some(handle);
            let error = routing.links().await.unwrap_err();
            assert_eq!(
                error,
                Error::ConnectionEnded { operation: String::from("list interfaces") }
            );
            assert!(error.is_transient());
            routing.port().store(0, Ordering::Relaxed);
            assert!(!routing.links().await.unwrap().is_empty());
            assert_ne!(routing.port().load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn a_connection_that_ends_before_the_answer_is_no_success() {
        block_on(async {
            let mut routing = Routing::open().unwrap();
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            routing.handle = Some(handle);
            // The request is taken, and nobody answers it.
            let ending = async {
                tokio::task::yield_now().await;
                drop(connection);
            };
            let (outcome, ()) =
                tokio::join!(routing.add_route("add a route", RouteMessage::default()), ending);
            assert_eq!(
                outcome,
                Err(Error::ConnectionEnded { operation: String::from("add a route") })
            );
        });
    }
}
