//! The key servers of a group and the keys shared with them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use daemon::configuration::Located;
use ike::config::Identity;

use super::credentials::Named;
use super::{Check, file, holder, is_broadcast};
use crate::config::{LocalAddress, MOST_SERVERS, Server};

impl Check<'_> {
    pub(super) fn servers(
        &mut self,
        group: &file::Group,
        local: Option<&LocalAddress>,
    ) -> Option<Vec<Server>> {
        if let Some(fifth) = group.servers.get(MOST_SERVERS) {
            let count = group.servers.len();
            let message = format!(
                "group {} has {count} key servers; at most {MOST_SERVERS} are tried",
                group.label()
            );
            self.report.error(fifth.place.clone(), message, "remove the ones that matter least");
        }
        let shared = self.credential(&Named {
            pre_shared_key: &group.pre_shared_key,
            certificate: &group.certificate,
            path: "group.certificate",
        });
        let mut raised = Vec::new();
        let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let mut complete = !group.servers.is_empty();
        for server in &group.servers {
            let address =
                server.address.as_ref().and_then(|address| self.server_address(address, local));
            let credential = if server.names_key || server.certificate.is_some() {
                self.credential(&Named {
                    pre_shared_key: &server.pre_shared_key,
                    certificate: &server.certificate,
                    path: "group.server.certificate",
                })
            } else {
                if !group.names_key && group.certificate.is_none() {
                    let label = group.label();
                    let message = format!("group {label}: no pre-shared key for this key server");
                    self.no_credential(server.place.clone(), message);
                }
                shared.clone()
            };
            let (ours, theirs) = (group.identity.as_ref(), server.identity.as_ref());
            self.identities(credential.as_ref(), ours, theirs, "group.identity");
            let (Some(address), Some(credential)) = (address, credential) else {
                complete = false;
                continue;
            };
            let place =
                server.address.as_ref().map(|address| address.place.clone()).unwrap_or_default();
            let socket = SocketAddr::new(address, server.port);
            if let Some(first) = seen.get(&socket) {
                let message =
                    format!("group.server.address: {socket} is the server of line {first} again");
                self.error(
                    &place,
                    message,
                    "name each key server once; the order is the order of trying",
                );
            } else {
                seen.insert(socket, self.report.line(place.start));
            }
            let identity = match &server.identity {
                Some(identity) => identity.value.clone(),
                None => Identity::Address(address),
            };
            raised.push(Server { address: socket, identity, credential });
        }
        complete.then_some(raised)
    }

    fn server_address(
        &self,
        address: &Located<IpAddr>,
        local: Option<&LocalAddress>,
    ) -> Option<IpAddr> {
        const KEY: &str = "group.server.address";
        let server = self.usable(address.value, &address.place, KEY)?;
        if server.is_unspecified() || server.is_multicast() || is_broadcast(server) {
            let message = format!("{KEY}: {server} is no host's address");
            self.error(&address.place, message, "write the address of one key server");
            return None;
        }
        let ours = self.machine.interfaces.and_then(|interfaces| holder(interfaces, server));
        let holder = match (local, ours) {
            (_, Some(interface)) => Some(format!("it is on {interface}")),
            (Some(LocalAddress::Address(local)), None) if *local == server => {
                Some("it is the group's local-address".to_owned())
            }
            _ => None,
        };
        if let Some(holder) = holder {
            let message = format!("{KEY}: {server} is our own address, {holder}");
            self.error(
                &address.place,
                message,
                "write the key server's address; a member is not its own key server",
            );
            return None;
        }
        Some(server)
    }
}
