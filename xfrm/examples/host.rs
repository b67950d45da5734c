use std::collections::{BTreeMap, BTreeSet};
use xfrm::*; use xfrm::model::*; use xfrm::preserve::*; use xfrm::netlink::Netlink; use xfrm::desired::PlaceholderRoute;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{:?}", xfrm::interface::interfaces().await);
    let netlink = Netlink::open().unwrap();
    let mut events = netlink.events(&Ownership::default()).unwrap();
    let mut r = Reconciler::new(netlink, Ownership::default());
    let mut d = Desired::default();
    let g: ipnet::IpNet = "172.16.0.0/12".parse().unwrap();
    for (dir, prio, action) in [(Direction::Out, 1000, Action::Block), (Direction::In, 1000, Action::Block), (Direction::Forward, 1000, Action::Protect(Template{source:"0.0.0.0".parse().unwrap(),destination:"10.0.1.1".parse().unwrap(),reqid:Reqid(0x47440001),optional:false}))] {
        let id = PolicyId{direction:dir, selector: Selector{source:g,destination:g,protocol:0,source_port:0,destination_port:0,interface: if dir==Direction::Forward {Some("lan".into())} else {None}}};
        d.policies.insert(id.clone(), Policy{id, priority:prio, action});
    }
    let mut groups = BTreeMap::new();
    groups.insert("192.0.2.1".parse().unwrap(), GroupPreservation{local:"10.0.1.1".parse().unwrap(), outbound_reqid:Reqid(0x47440000), inbound_spis:[0x1300,0x1301].into(), fragments:[(g,g)].into(), dont_fragment:DontFragment::Set});
    d.preservation = Some(Preservation{lan:["lan".into()].into(), wan:["wan".into()].into(), guard:[(g,g),("fd00::/16".parse().unwrap(),"fd00::/16".parse().unwrap())].into(), exclude: BTreeSet::from([Selector{source:g,destination:"224.0.0.5/32".parse().unwrap(),protocol:17,source_port:0,destination_port:520,interface:None}]), groups, defragment:true});
    d.routes.insert(PlaceholderRoute{placeholder:"192.0.2.1".parse().unwrap(), interface:"wan".into(), gateway: Some("10.0.1.254".parse().unwrap()), mtu:1500});
    println!("{:#?}", r.apply(d).await);
    println!("{:?}", r.repair().await);
    if std::env::args().nth(1).is_some() {
        loop { let e = events.next().await; println!("{e:?}"); tokio::time::sleep(std::time::Duration::from_millis(50)).await; println!("{:?}", r.repair().await); }
    }
    println!("{:?}", r.statistics().await);
}
