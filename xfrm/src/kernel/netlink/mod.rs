//! The real kernel: XFRM, nf_tables and routing over netlink.

pub(crate) mod channel;
pub(crate) mod event;
mod event_source;
mod nftables;
pub(crate) mod policy;
pub(crate) mod route;
pub(crate) mod rtnetlink;
pub(crate) mod sa;

use core::fmt;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::constants::{
    XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA, XFRM_MSG_NEWPOLICY,
    XFRM_MSG_NEWSA, XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA,
};

use crate::algorithm::{Encryption, Integrity, Protection};
use crate::desired::{Desired, PlaceholderRoute};
use crate::error::{EEXIST, ENOENT, ESRCH, Error};
use crate::kernel::netlink::channel::{Channel, Message, Netfilter, Route, Xfrm};
use crate::kernel::{Current, InstalledSa, Kernel};
use crate::key::Key;
use crate::model::{Install, Policy, PolicyId, Sa, SaId, SaRole};
use crate::ownership::Ownership;
use crate::parts::Parts;

use crate::counters::Counters;
use crate::op::Op;
pub use event_source::EventSource;

/// Sockets to XFRM, nf_tables and routing. Needs CAP_NET_ADMIN. Use inside a tokio runtime with I/O
/// and time.
pub struct Netlink {
    xfrm: Channel<Xfrm>,
    netfilter: Channel<Netfilter>,
    route: Channel<Route>,
    /// Interfaces as of the last reading: selectors and routes name them, the kernel counts them.
    interfaces: BTreeMap<String, u32>,
    /// VRF devices by their routing table.
    vrfs: BTreeMap<u32, u32>,
    /// Where routes of ours should lead, and in which table they stand; `None` before the first
    /// reading.
    placeholders: Option<BTreeSet<(IpAddr, u32)>>,
    /// Flags of the guard tables that this kernel knows; `None` before the first change of them.
    guard_flags: Option<u32>,
}

impl Netlink {
    /// Opens one netlink socket for each family.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            xfrm: Channel::open()?,
            netfilter: Channel::open()?,
            route: Channel::open()?,
            interfaces: BTreeMap::new(),
            vrfs: BTreeMap::new(),
            placeholders: None,
            guard_flags: None,
        })
    }

    /// A stream of what others change. Call before the first change, so that nothing falls in
    /// between.
    pub fn events(&self, ownership: &Ownership) -> Result<EventSource, Error> {
        EventSource::open(
            [self.xfrm.port(), self.netfilter.port(), self.route.port()],
            ownership.clone(),
        )
    }

    /// Reads the interfaces; returns those whose arrivals no policy checks.
    async fn read_interfaces(&mut self) -> Result<BTreeSet<String>, Error> {
        let links = self.route.links().await?;
        let exempt =
            links.iter().filter(|link| link.exempt).map(|link| link.name.clone()).collect();
        let vrfs = links.iter().filter_map(|link| Some((link.vrf_table?, link.index)));
        self.vrfs = vrfs.collect();
        self.interfaces = links.into_iter().map(|link| (link.name, link.index)).collect();
        Ok(exempt)
    }

    fn names(&self) -> BTreeMap<u32, String> {
        self.interfaces.iter().map(|(name, index)| (*index, name.clone())).collect()
    }

    async fn read_sas(
        &mut self,
        ownership: &Ownership,
    ) -> Result<BTreeMap<SaId, InstalledSa>, Error> {
        let mut sas = BTreeMap::new();
        let each = |message: Message<'_>| {
            // SPI 0: a request for an SA that the kernel made of one of our templates. It goes by
            // itself.
            let seen = sa::decode(message.body)
                .filter(|seen| seen.id.spi != 0 && ownership.owns_reqid(seen.reqid));
            sas.extend(seen.map(|seen| {
                (seen.id, seen.installed.unwrap_or_else(|| strange(seen.id, seen.reqid)))
            }));
            Ok(())
        };
        // Without a body: with one the kernel would take it for attributes of a filter.
        self.xfrm.dump("list ESP states", XFRM_MSG_GETSA, &[], each).await?;
        Ok(sas)
    }

    /// Policies whose index is kept, and which of those indexes policies have that cannot be ours.
    async fn read_policies(
        &mut self,
        keep: impl Fn(u32) -> bool,
    ) -> Result<(BTreeMap<u32, Policy>, BTreeSet<u32>), Error> {
        let names = self.names();
        let mut policies = BTreeMap::new();
        let mut others = BTreeSet::new();
        let each = |message: Message<'_>| {
            match policy::index(message.body).filter(|index| keep(*index)) {
                // To the kernel it is another policy, also with our selector and our index.
                Some(index) if policy::is_qualified(message.body) => drop(others.insert(index)),
                Some(_) => policies.extend(policy::decode(message.body, &names)),
                None => {}
            }
            Ok(())
        };
        self.xfrm.dump("list policies", XFRM_MSG_GETPOLICY, &[], each).await?;
        Ok((policies, others))
    }

    /// Routes of ours. They are looked for in the whole table once, where an earlier run may have
    /// left some, and when one that should be there is not found; otherwise each is looked up,
    /// since the table may hold a million others.
    async fn read_routes(&mut self) -> Result<BTreeSet<PlaceholderRoute>, Error> {
        let known = self.placeholders.clone().unwrap_or_default();
        let mut routes = Vec::new();
        for (placeholder, table) in &known {
            let vrf = self.vrfs.get(table).copied();
            routes.extend(self.route.route_of_ours(*placeholder, vrf).await?);
        }
        if self.placeholders.is_none() || routes.len() < known.len() {
            routes = self.route.routes_of_ours().await?;
        }
        let name = |index: u32| {
            self.interfaces.iter().find(|(_, other)| **other == index).map(|(name, _)| name.clone())
        };
        let placeholder = |route: route::Route| {
            Some(PlaceholderRoute {
                placeholder: route.destination?.addr(),
                interface: name(route.interface)?,
                gateway: route.gateway,
                mtu: route.mtu_locked.unwrap_or(0),
                table: route.table,
            })
        };
        let routes: BTreeSet<PlaceholderRoute> =
            routes.into_iter().filter_map(placeholder).collect();
        let places = routes.iter().map(|route| (route.placeholder, route.table));
        self.placeholders = Some(places.collect());
        Ok(routes)
    }

    async fn install_sa(&mut self, op: &Op, sa: &Sa, ownership: &Ownership) -> Result<(), Error> {
        let body = sa::encode(sa)?;
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let refused = match self.xfrm.change(op, XFRM_MSG_NEWSA, flags, body.as_octets()).await {
            Err(error) if error.errno() == Some(EEXIST) => error,
            other => return other,
        };
        let ours = self.read_sas(ownership).await?.contains_key(&sa.id);
        Err(if ours { refused } else { Error::ForeignState(sa.id) })
    }

    async fn add_policy(
        &mut self,
        op: &Op,
        index: u32,
        wanted: &Policy,
        ownership: &Ownership,
    ) -> Result<(), Error> {
        let body = policy::encode(wanted, index, &self.interfaces)?;
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let refused = match self.xfrm.change(op, XFRM_MSG_NEWPOLICY, flags, body.as_octets()).await
        {
            Err(error) if error.errno() == Some(EEXIST) => error,
            other => return other,
        };
        let (foreign, _) = self.read_policies(|index| !ownership.owns_policy(index)).await?;
        let in_the_way = foreign.into_values().any(|policy| policy.id == wanted.id);
        Err(if in_the_way { Error::ForeignPolicy(wanted.id.clone()) } else { refused })
    }

    async fn update_policy(&mut self, op: &Op, index: u32, wanted: &Policy) -> Result<(), Error> {
        let body = policy::encode(wanted, index, &self.interfaces)?;
        // The kernel replaces by selector, whoever owns the policy: look once more whether it is
        // still ours.
        let mut now = None;
        let names = self.names();
        let each = |message: Message<'_>| {
            now = policy::decode(message.body, &names).or(now.take());
            Ok(())
        };
        let known = policy::encode_id(index, wanted.id.direction);
        self.xfrm.query("read a policy", XFRM_MSG_GETPOLICY, &known, each).await?;
        if now.is_none_or(|(found, policy)| found != index || policy.id != wanted.id) {
            return Err(Error::from_errno(op.to_string(), ENOENT, None));
        }
        self.xfrm.change(op, XFRM_MSG_UPDPOLICY, 0, body.as_octets()).await
    }

    async fn delete_policy(&mut self, op: &Op, index: u32, id: &PolicyId) -> Result<(), Error> {
        let body = policy::encode_id(index, id.direction);
        ignore_missing(ENOENT, self.xfrm.change(op, XFRM_MSG_DELPOLICY, 0, &body).await)
    }

    async fn add_route(&mut self, op: &Op, wanted: &PlaceholderRoute) -> Result<(), Error> {
        let index = self.interfaces.get(&wanted.interface);
        let index = *index.ok_or_else(|| Error::NoInterface(wanted.interface.clone()))?;
        if let Some(placeholders) = &mut self.placeholders {
            placeholders.insert((wanted.placeholder, wanted.table));
        }
        // Replacing in one step would also replace a foreign route to the same address.
        let new = route::placeholder(wanted, index)?;
        self.route
            .delete_route(
                &op.to_string(),
                &route::any_placeholder(wanted.placeholder, wanted.table),
            )
            .await?;
        match self.route.add_route(&op.to_string(), &new).await {
            Err(error) if error.errno() == Some(EEXIST) => {
                Err(Error::ForeignRoute(wanted.placeholder))
            }
            other => other,
        }
    }

    async fn exempt(&mut self, op: &Op, interface: &str, exempt: bool) -> Result<(), Error> {
        let index = self.interfaces.get(interface);
        let index = *index.ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
        self.route.set_link(&op.to_string(), &route::exemption(index, exempt)).await
    }

    async fn delete_route(&mut self, op: &Op, old: &PlaceholderRoute) -> Result<(), Error> {
        if let Some(placeholders) = &mut self.placeholders {
            placeholders.remove(&(old.placeholder, old.table));
        }
        let Some(index) = self.interfaces.get(&old.interface) else { return Ok(()) };
        self.route.delete_route(&op.to_string(), &route::placeholder(old, *index)?).await
    }
}

impl Kernel for Netlink {
    async fn read(
        &mut self,
        ownership: &Ownership,
        parts: Parts,
        current: &mut Current,
    ) -> Result<(), Error> {
        if parts.interfaces {
            current.exempt = self.read_interfaces().await?;
            current.interfaces.clone_from(&self.interfaces);
            current.routes = self.read_routes().await?;
        }
        if parts.states {
            current.sas = self.read_sas(ownership).await?;
        }
        if parts.policies {
            (current.policies, current.foreign_indexes) =
                self.read_policies(|index| ownership.owns_policy(index)).await?;
        }
        if parts.tables {
            self.read_tables(ownership, current).await?;
        }
        if parts.sets {
            self.read_elements(ownership, &mut current.tables).await?;
        }
        Ok(())
    }

    async fn execute(
        &mut self,
        op: &Op,
        desired: &Desired,
        ownership: &Ownership,
    ) -> Result<(), Error> {
        match op {
            Op::AddRoute(route) => self.add_route(op, route).await,
            Op::DeleteRoute(route) => self.delete_route(op, route).await,
            Op::Exempt { interface, exempt } => self.exempt(op, interface, *exempt).await,
            Op::ReplaceGuard | Op::ReplaceTables | Op::UpdateSets(_) | Op::RemoveTables => {
                self.change_tables(op, desired, ownership).await
            }
            Op::AddPolicy { index, policy } => self.add_policy(op, *index, policy, ownership).await,
            Op::UpdatePolicy { index, policy } => self.update_policy(op, *index, policy).await,
            Op::DeletePolicy { index, id } => self.delete_policy(op, *index, id).await,
            Op::InstallSa(id) => {
                let sa =
                    desired.sas.get(id).ok_or_else(|| Error::NotDesired(Box::new(op.clone())))?;
                self.install_sa(op, sa, ownership).await
            }
            Op::UpdateSa { id, hard_lifetime } => {
                let sa =
                    desired.sas.get(id).ok_or_else(|| Error::NotDesired(Box::new(op.clone())))?;
                let body = sa::encode_update(sa, *hard_lifetime)?;
                self.xfrm.change(op, XFRM_MSG_UPDSA, 0, body.as_octets()).await
            }
            Op::DeleteSa(id) => {
                let body = sa::encode_id(id);
                ignore_missing(ESRCH, self.xfrm.change(op, XFRM_MSG_DELSA, 0, &body).await)
            }
        }
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// Success where the entry is missing already.
fn ignore_missing(errno: i32, outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}

/// A state with a reqid of ours that we would never make: equal to nothing, so that a plan replaces
/// or deletes it.
fn strange(id: SaId, reqid: crate::model::Reqid) -> InstalledSa {
    let nothing = || Key::copy_from(&[]);
    let protection = Protection::Separate {
        encryption: Encryption::Null,
        encryption_key: nothing(),
        integrity: Integrity::HmacSha1_96,
        integrity_key: nothing(),
    };
    let sa = Sa {
        id,
        source: id.destination,
        role: SaRole::Outbound,
        reqid,
        protection,
        no_path_mtu_discovery: false,
        sequence_may_wrap: false,
        install: Install::Freely,
        hard_lifetime: None,
        unicast: None,
    };
    InstalledSa { sa, counters: Counters::default(), sequence: 0, integrity_failures: 0, added: 0 }
}
