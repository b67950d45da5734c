//! Links, addresses and routes over rtnetlink.

use core::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use nix::libc::{
    EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, RTM_DELROUTE, RTM_GETADDR, RTM_GETLINK,
    RTM_GETROUTE, RTM_GETRULE, RTM_NEWROUTE, RTM_SETLINK,
};

use crate::attribute::Attributes;
use crate::error::{EINTR, ESRCH, Error};
use crate::kernel::netlink::channel::{Channel, Message, Route as Family};
use crate::kernel::netlink::ignore_missing;
use crate::kernel::netlink::route::{
    self, InterfaceAddress, Link, Route, every_address, every_link, every_route_of_ours,
};

/// How often a list is asked for when somebody else changes it meanwhile.
const READINGS: u32 = 16;

impl Channel<Family> {
    pub(crate) async fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.list("list interfaces", RTM_GETLINK, every_link(), route::link).await
    }

    /// All addresses of all links.
    pub(crate) async fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, Error> {
        self.list("list addresses", RTM_GETADDR, every_address(), route::interface_address).await
    }

    /// All routes of ours. The kernel goes through its whole table for it: not for every event.
    pub(crate) async fn routes_of_ours(&mut self) -> Result<Vec<Route>, Error> {
        // Before Linux 4.20 the kernel sends them all.
        let ours = |body: &[u8]| route::route(body).filter(|route| route.ours);
        self.list("list routes", RTM_GETROUTE, every_route_of_ours(), ours).await
    }

    /// The route of ours that packets to `destination` take.
    pub(crate) async fn route_of_ours(
        &mut self,
        destination: IpAddr,
        vrf: Option<u32>,
    ) -> Result<Option<Route>, Error> {
        let host = |route: &Route| route.ours && route.destination == Some(destination.into());
        Ok(self.route_to(destination, vrf).await?.filter(host))
    }

    /// The route that packets to `destination` take, those of a VRF device if one is given.
    pub(crate) async fn route_to(
        &mut self,
        destination: IpAddr,
        vrf: Option<u32>,
    ) -> Result<Option<Route>, Error> {
        let mut found = None;
        let each = |message: Message<'_>| {
            found = route::route(message.body);
            Ok(())
        };
        let body = route::lookup(destination, vrf);
        unless_unreachable(
            self.query("look a route up", RTM_GETROUTE, body.as_octets(), each).await,
        )?;
        Ok(found)
    }

    /// The interfaces that routing rules name as those that packets arrive by.
    pub(crate) async fn rule_inputs(&mut self) -> Result<Vec<String>, Error> {
        self.list("list routing rules", RTM_GETRULE, route::every_rule(), route::rule_input).await
    }

    /// The next hop of packets to `destination` that leave by this interface: `None` for on the
    /// link, and where no route leads there.
    pub(crate) async fn next_hop(
        &mut self,
        destination: IpAddr,
        interface: u32,
    ) -> Result<Option<IpAddr>, Error> {
        let mut found = None;
        let each = |message: Message<'_>| {
            found = route::next_hop(message.body);
            Ok(())
        };
        let body = route::lookup_by(destination, interface);
        unless_unreachable(
            self.query("look a next hop up", RTM_GETROUTE, body.as_octets(), each).await,
        )?;
        Ok(found)
    }

    /// Changes a setting of a link.
    pub(crate) async fn set_link(
        &mut self,
        operation: &str,
        wanted: &Attributes,
    ) -> Result<(), Error> {
        self.change(operation, RTM_SETLINK, 0, wanted.as_octets()).await
    }

    /// Adds a route that must not exist yet.
    pub(crate) async fn add_route(
        &mut self,
        operation: &str,
        wanted: &Attributes,
    ) -> Result<(), Error> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(operation, RTM_NEWROUTE, flags, wanted.as_octets()).await
    }

    /// Deletes a route. One that is missing already is success.
    pub(crate) async fn delete_route(
        &mut self,
        operation: &str,
        old: &Attributes,
    ) -> Result<(), Error> {
        ignore_missing(ESRCH, self.change(operation, RTM_DELROUTE, 0, old.as_octets()).await)
    }

    async fn list<T>(
        &mut self,
        operation: &'static str,
        kind: u16,
        body: Attributes,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut attempt = 1;
        loop {
            let mut list = Vec::new();
            let each = |message: Message<'_>| {
                list.extend(read(message.body));
                Ok(())
            };
            match self.dump(operation, kind, body.as_octets(), each).await {
                // Somebody changed something meanwhile.
                Err(error) if error.errno() == Some(EINTR) && attempt < READINGS => attempt += 1,
                other => return other.map(|()| list),
            }
        }
    }
}

/// What a look-up answers where no route leads, or one that forbids.
fn unless_unreachable(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error)
            if matches!(error.errno(), Some(ENETUNREACH | EHOSTUNREACH | EACCES | EINVAL)) =>
        {
            Ok(())
        }
        other => other,
    }
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
            let mut channel = Channel::<Family>::open().unwrap();
            let links = channel.links().await.unwrap();
            let loopback = links.iter().find(|link| link.name == "lo").unwrap();
            assert!(loopback.index != 0 && loopback.mtu != 0, "{links:?}");
            let addresses = channel.addresses().await.unwrap();
            let own = "127.0.0.1/8".parse().unwrap();
            assert!(addresses.contains(&InterfaceAddress { index: loopback.index, address: own }));
        });
    }

    #[test]
    fn a_refusal_names_the_request_and_keeps_the_connection() {
        block_on(async {
            let mut channel = Channel::<Family>::open().unwrap();
            // A route without a family is refused whoever asks.
            let wanted = Attributes::after(&[0; 12]);
            let error = channel.add_route("add a route", &wanted).await.unwrap_err();
            assert!(
                error.to_string().starts_with("the kernel refused to add a route: "),
                "{error}"
            );
            assert!(!channel.links().await.unwrap().is_empty());
        });
    }
}
