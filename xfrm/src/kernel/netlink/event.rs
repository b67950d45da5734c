//! Notifications of the three netlink families, as events.

use netlink_packet_xfrm::constants::{
    XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_EXPIRE, XFRM_MSG_FLUSHPOLICY, XFRM_MSG_FLUSHSA,
    XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA, XFRMNLGRP_EXPIRE,
    XFRMNLGRP_POLICY, XFRMNLGRP_SA,
};

use nix::libc::{
    RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
    RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK,
};

use crate::attribute::{find, text};
use crate::error::Error;
use crate::kernel::event::{KernelEvent, What};
use crate::kernel::netlink::channel::{Listener, Message, Netfilter, Route, Xfrm};
use crate::kernel::netlink::{policy, route, sa};
use crate::nft::table::SUBSYSTEM;
use crate::ownership::Ownership;

pub(crate) type Read = fn(&Message<'_>, &Ownership) -> Option<KernelEvent>;

const NFNLGRP_NFTABLES: u32 = 7;
const ROUTING: [u32; 5] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
];

/// Length of `struct xfrm_usersa_info` with what follows it in an expiry: the octet that says
/// "hard".
const EXPIRE_HARD: usize = 224;

/// Sockets for XFRM, nf_tables and routing.
pub(crate) fn listeners() -> Result<[Listener; 3], Error> {
    Ok([
        Listener::open(Xfrm, &[XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY])?,
        Listener::open(Netfilter, &[NFNLGRP_NFTABLES])?,
        Listener::open(Route, &ROUTING)?.filter(&route::filter()),
    ])
}

pub(crate) fn xfrm(message: &Message<'_>, ownership: &Ownership) -> Option<KernelEvent> {
    match message.kind {
        XFRM_MSG_EXPIRE => {
            let seen = sa::decode(message.body)?;
            let hard = *message.body.get(EXPIRE_HARD)? != 0;
            ownership.owns_reqid(seen.reqid).then_some(KernelEvent::SaExpired { id: seen.id, hard })
        }
        // The deletion names an identity without a reqid: it may have been ours.
        XFRM_MSG_DELSA | XFRM_MSG_FLUSHSA => Some(KernelEvent::Flushed(What::States)),
        XFRM_MSG_DELPOLICY | XFRM_MSG_FLUSHPOLICY => Some(KernelEvent::Flushed(What::Policies)),
        XFRM_MSG_NEWSA | XFRM_MSG_UPDSA => {
            let seen = sa::decode(message.body).filter(|seen| seen.id.spi != 0)?;
            ownership.owns_reqid(seen.reqid).then_some(KernelEvent::Changed { what: What::States })
        }
        XFRM_MSG_NEWPOLICY | XFRM_MSG_UPDPOLICY => {
            // A foreign policy's update may have replaced one of ours.
            let _ = policy::index(message.body)?;
            Some(KernelEvent::Changed { what: What::Policies })
        }
        _ => None,
    }
}

pub(crate) fn netfilter(message: &Message<'_>, ownership: &Ownership) -> Option<KernelEvent> {
    if message.kind >> 8 != SUBSYSTEM {
        return None;
    }
    // Every message about a table's content names the table first.
    let table = text(find(message.body.get(4..)?, 1)?);
    let ours = table == ownership.table || table == ownership.guard_table();
    // Table, chain, rule, set, element: 0 new, 1 get, 2 delete, and so on in threes.
    let deleted = matches!(message.kind & 0xff, 2 | 5 | 8 | 11 | 14);
    let what = What::Tables;
    ours.then_some(if deleted { KernelEvent::Flushed(what) } else { KernelEvent::Changed { what } })
}

pub(crate) fn routing(message: &Message<'_>, _: &Ownership) -> Option<KernelEvent> {
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => Some(KernelEvent::LinkChanged),
        RTM_NEWADDR | RTM_DELADDR => Some(KernelEvent::AddressChanged),
        // Routing daemons change others all the time.
        RTM_NEWROUTE | RTM_DELROUTE => {
            route::concerns_us(message.body).then_some(KernelEvent::RouteChanged)
        }
        _ => None,
    }
}
