//! Values as logs and `gdoictl` show them.

use gdoi::group::{AddressRange, TrafficSelector};

/// Octets as logs and `gdoictl` show them.
pub fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A traffic selector as `gdoictl` shows it.
pub fn selector_text(selector: &TrafficSelector) -> String {
    let side = |range: &AddressRange, port: u16| {
        let addresses = match range {
            AddressRange::Any => String::from("any"),
            AddressRange::Address(address) => address.to_string(),
            AddressRange::Subnet(prefix) => prefix.to_string(),
            AddressRange::Range(first, last) => format!("{first}-{last}"),
        };
        if port == 0 { addresses } else { format!("{addresses} port {port}") }
    };
    let source = side(&selector.source, selector.source_port);
    let destination = side(&selector.destination, selector.destination_port);
    match selector.protocol {
        0 => format!("{source} -> {destination}"),
        protocol => format!("{source} -> {destination} protocol {protocol}"),
    }
}

/// The traffic selectors of one data SA.
pub fn selectors_text(selectors: &[TrafficSelector]) -> String {
    selectors.iter().map(selector_text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_text() {
        let selector = TrafficSelector {
            protocol: 17,
            source: AddressRange::Subnet("10.0.0.0/8".parse().unwrap()),
            source_port: 0,
            destination: AddressRange::Range(
                "10.0.0.1".parse().unwrap(),
                "10.0.0.9".parse().unwrap(),
            ),
            destination_port: 53,
        };
        assert_eq!(selector_text(&selector), "10.0.0.0/8 -> 10.0.0.1-10.0.0.9 port 53 protocol 17");
    }
}
