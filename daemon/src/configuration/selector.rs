//! Traffic selectors: `source`, `destination`, `protocol`, `source-port`, `destination-port`.

use gdoi::group::{AddressRange, TrafficSelector};

use super::report::Report;
use super::setting::{located, place, required, value};
use super::table::{Located, Place};
use crate::options;

/// Protocols that have ports where TCP has them: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

options! {
    /// A traffic selector: addresses, protocol and ports.
    pub struct Selector {
        pub place: Option<Place> = place();
        /// Source addresses: a prefix, an address, a range "10.0.0.10-10.0.0.20", or "any".
        pub source: Option<Located<AddressRange>> = required("source").set("\"172.16.0.0/12\"");
        /// Destination addresses, in the same forms.
        pub destination: Option<Located<AddressRange>> =
            required("destination").set("\"172.16.0.0/12\"");
        /// IP protocol; 0 is any.
        pub protocol: u8 = value("protocol", 0);
        /// Port of the source; 0 is any. Only for protocols with ports: 6 (TCP), 17 (UDP), 33, 132,
        /// 136.
        pub source_port: Located<u16> = located("source-port", 0);
        /// Port of the destination; 0 is any.
        pub destination_port: Located<u16> = located("destination-port", 0);
    }
}

impl Selector {
    /// The selector, which messages call `path`; `None` when something is wrong, which is then
    /// noted.
    pub fn raise(&self, path: &str, report: &Report) -> Option<Located<TrafficSelector>> {
        let dot = if path.is_empty() { "" } else { "." };
        let protocol = self.protocol;
        let mut sound = true;
        let ports =
            [("source-port", &self.source_port), ("destination-port", &self.destination_port)];
        for (key, port) in ports {
            if port.value != 0 && !WITH_PORTS.contains(&protocol) {
                let message = format!("{path}{dot}{key}: protocol {protocol} has no ports");
                let remedy = "set protocol = 6 (TCP), 17 (UDP), 33, 132 or 136, or remove the port";
                report.error(Some(port.place.clone()), message, remedy);
                sound = false;
            }
        }
        let (source, destination) = (self.source.as_ref()?, self.destination.as_ref()?);
        if let (Some(left), Some(right)) = (is_ipv4(source), is_ipv4(destination))
            && left != right
        {
            report.error(
                Some(destination.place.clone()),
                format!("{path}{dot}destination: not of the source's address family"),
                "use two IPv4 sides or two IPv6 sides",
            );
            sound = false;
        }
        let value = TrafficSelector {
            protocol,
            source: source.value,
            source_port: self.source_port.value,
            destination: destination.value,
            destination_port: self.destination_port.value,
        };
        sound.then(|| Located { value, place: self.place.clone().unwrap_or_default() })
    }
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
    use super::super::{Section as _, parse};
    use super::*;

    fn read(text: &str) -> Result<TrafficSelector, String> {
        parse("f", text, |mut root| {
            let selector = Selector::read(&mut root).raise("", root.report());
            root.finish();
            selector
        })
        .map(|loaded| loaded.value.value)
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
