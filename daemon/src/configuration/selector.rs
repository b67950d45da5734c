//! Traffic selectors: `source`, `destination`, `protocol`, `source-port`, `destination-port`.

use gdoi::group::{AddressRange, TrafficSelector};

use super::table::Table;

/// Protocols that have ports where TCP has them: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Reads a selector from the keys of `table`; the caller finishes the table. `None` when something
/// is wrong, which is then noted.
pub fn traffic_selector(table: &mut Table<'_>) -> Option<TrafficSelector> {
    let source = table.required::<AddressRange>("source");
    let destination = table.required::<AddressRange>("destination");
    let protocol = table.or::<u8>("protocol", 0);
    let source_port = table.or::<u16>("source-port", 0);
    let destination_port = table.or::<u16>("destination-port", 0);
    let mut sound = true;
    for (key, port) in [("source-port", source_port), ("destination-port", destination_port)] {
        if port != 0 && !WITH_PORTS.contains(&protocol) {
            let message = format!("{}: protocol {protocol} has no ports", table.key_path(key));
            let remedy = "set protocol = 6 (TCP), 17 (UDP), 33, 132 or 136, or remove the port";
            table.report().error(table.place_of(key), message, remedy);
            sound = false;
        }
    }
    let (source, destination) = (source?, destination?);
    if let (Some(left), Some(right)) = (is_ipv4(&source), is_ipv4(&destination))
        && left != right
    {
        let message =
            format!("{}: not of the source's address family", table.key_path("destination"));
        table.report().error(
            Some(destination.place.clone()),
            message,
            "use two IPv4 sides or two IPv6 sides",
        );
        sound = false;
    }
    let selector = TrafficSelector {
        protocol,
        source: source.value,
        source_port,
        destination: destination.value,
        destination_port,
    };
    sound.then_some(selector)
}

fn is_ipv4(range: &AddressRange) -> Option<bool> {
    match range {
        AddressRange::Any => None,
        AddressRange::Address(address) | AddressRange::Range(address, _) => Some(address.is_ipv4()),
        AddressRange::Subnet(prefix) => Some(prefix.addr().is_ipv4()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(text: &str) -> Result<TrafficSelector, String> {
        parse("f", text, |mut root| {
            let selector = traffic_selector(&mut root);
            root.finish();
            selector
        })
        .map(|loaded| loaded.value)
        .map_err(|report| report.to_string())
    }

    #[test]
    fn a_whole_selector() {
        let text = "source = \"10.0.0.0/8\"\ndestination = \"any\"\nprotocol = 17\ndestination-port = 53\n";
        let expected = TrafficSelector {
            protocol: 17,
            source: AddressRange::Subnet("10.0.0.0/8".parse().unwrap()),
            source_port: 0,
            destination: AddressRange::Any,
            destination_port: 53,
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn defects() {
        let text = "source = \"10.0.0.0/8\"\ndestination = \"2001:db8::/32\"\nsource-port = 80\n";
        assert_eq!(
            read(text).unwrap_err(),
            "\
f:2:15: error: destination: not of the source's address family; use two IPv4 sides or two IPv6 sides
f:3:15: error: source-port: protocol 0 has no ports; set protocol = 6 (TCP), 17 (UDP), 33, 132 or 136, or remove the port
f: 2 errors; nothing was started
"
        );
        assert!(
            read("source = \"any\"\n")
                .unwrap_err()
                .contains("destination is missing; add destination = ")
        );
    }
}
