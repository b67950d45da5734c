//! Notifications of the three netlink families, as events.

use netlink_packet_xfrm::constants::{
    XFRM_MSG_ACQUIRE, XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_EXPIRE, XFRM_MSG_FLUSHPOLICY,
    XFRM_MSG_FLUSHSA, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA,
    XFRMA_TMPL, XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_POLICY, XFRMNLGRP_SA,
};

use nix::libc::{
    RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
    RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK,
};

use crate::attribute::{array, find, text};
use crate::error::Error;
use crate::kernel::event::{KernelEvent, What};
use crate::kernel::netlink::channel::{Listener, Message, Netfilter, Route, Xfrm};
use crate::kernel::netlink::{policy, route, sa};
use crate::model::Reqid;
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

/// Length of `struct xfrm_user_acquire`: identity, source, selector, policy, algorithms, sequence.
const ACQUIRE: usize = 24 + 16 + 56 + 168 + 16;
/// Where `struct xfrm_user_tmpl` has its reqid: behind identity, family and source.
const TEMPLATE_REQID: usize = 24 + 4 + 16;

/// Sockets for XFRM, nf_tables and routing.
pub(crate) fn listeners() -> Result<[Listener; 3], Error> {
    Ok([
        Listener::open(
            Xfrm,
            &[XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY],
        )?,
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
        XFRM_MSG_ACQUIRE => {
            let template = find(message.body.get(ACQUIRE..)?, XFRMA_TMPL)?;
            let reqid = Reqid(u32::from_ne_bytes(array(template, TEMPLATE_REQID)?));
            ownership.owns_reqid(reqid).then_some(KernelEvent::Acquire { reqid })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct xfrm_user_acquire` and one template, as linux/xfrm.h lays them out.
    fn acquire(reqid: u32) -> Vec<u8> {
        let mut body = vec![0; 280];
        body.extend_from_slice(&68_u16.to_ne_bytes());
        body.extend_from_slice(&XFRMA_TMPL.to_ne_bytes());
        let mut template = [0; 64];
        template[44..48].copy_from_slice(&reqid.to_ne_bytes());
        body.extend_from_slice(&template);
        body
    }

    #[test]
    fn the_kernel_asks_for_an_sa_of_ours() {
        let ownership = Ownership::default();
        let read = |body: &[u8]| {
            let kind = XFRM_MSG_ACQUIRE;
            xfrm(&Message { kind, flags: 0, sequence: 0, port: 0, body }, &ownership)
        };
        let ours = KernelEvent::Acquire { reqid: Reqid(0x4744_0080) };
        assert_eq!(read(&acquire(0x4744_0080)), Some(ours));
        assert_eq!(read(&acquire(16_397)), None);
        for length in 0..acquire(0x4744_0080).len() - 16 {
            assert_eq!(read(&acquire(0x4744_0080)[..length]), None, "{length}");
        }
    }
}
