//! Facts about the machine's interfaces, by rtnetlink.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::error::Error;

/// One interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number. Another one after the interface was re-created.
    pub index: u32,
    /// Administratively up and with a carrier.
    pub up: bool,
    /// Its addresses with their prefix length, as configured (host part kept).
    pub addresses: Vec<IpNet>,
    /// MTU in octets.
    pub mtu: u32,
    /// Next hop of the default route over this interface, IPv4 first; the one with the smallest metric.
    pub gateway: Option<IpAddr>,
}

/// All interfaces by name.
pub async fn interfaces() -> Result<BTreeMap<String, Interface>, Error> {
    Err(Error::Unsupported(String::from("interfaces")))
}

/// Next hop of the default route over `interface`.
pub async fn gateway(interface: &str) -> Result<Option<IpAddr>, Error> {
    let all = interfaces().await?;
    let found = all.get(interface).ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
    Ok(found.gateway)
}
