//! Prefixes as elements of interval sets.
//!
//! A rule for each pair of prefixes costs every packet its evaluation, and a table of a hundred
//! prefixes does not fit into one transaction. Sets cost a look-up, however many pairs there are.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::nft::rule::family;

/// Addresses from the first to the last, as numbers.
pub(crate) type Range = (u128, u128);

/// The prefixes of one family as ranges that neither overlap nor touch: what an interval set takes.
pub(crate) fn ranges<'n>(prefixes: impl Iterator<Item = &'n IpNet>, wanted: u8) -> Vec<Range> {
    let mut sorted: Vec<Range> =
        prefixes.filter(|prefix| family(prefix) == wanted).map(range).collect();
    sorted.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Pairs of source and destination prefixes of one family, in as few sets as possible whose
/// elements do not overlap: the kernel refuses an element that begins inside of another one.
///
/// Sources at one depth of nesting are disjoint, and the destinations of one source are merged. A
/// policy without nested sources makes one set; hub and spokes in both directions make two.
pub(crate) fn layers<'n>(
    pairs: impl Iterator<Item = &'n (IpNet, IpNet)>,
    wanted: u8,
) -> Vec<Vec<(Range, Range)>> {
    let mut by_source: BTreeMap<IpNet, Vec<&IpNet>> = BTreeMap::new();
    for (source, destination) in pairs.filter(|(source, _)| family(source) == wanted) {
        by_source.entry(source.trunc()).or_default().push(destination);
    }
    let mut layers: Vec<Vec<(Range, Range)>> = Vec::new();
    let mut enclosing: Vec<IpNet> = Vec::new();
    // A prefix comes after those that contain it.
    for (source, destinations) in by_source {
        while enclosing.last().is_some_and(|outer| !outer.contains(&source)) {
            enclosing.pop();
        }
        let depth = enclosing.len();
        enclosing.push(source);
        if layers.len() <= depth {
            layers.resize_with(depth + 1, Vec::new);
        }
        if let Some(layer) = layers.get_mut(depth) {
            let destinations = ranges(destinations.into_iter(), wanted);
            layer.extend(destinations.into_iter().map(|destination| (range(&source), destination)));
        }
    }
    layers
}

fn range(prefix: &IpNet) -> Range {
    match prefix {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{IP, IP6};

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn pairs(texts: &[(&str, &str)]) -> Vec<(IpNet, IpNet)> {
        texts.iter().map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).collect()
    }

    #[test]
    fn ranges_neither_overlap_nor_touch() {
        let prefixes = nets(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "10.0.3.0/24"]);
        let expected = [(0x0a00_0000, 0x0a00_01ff), (0x0a00_0300, 0x0a00_03ff)];
        assert_eq!(ranges(prefixes.iter(), IP), expected);
        assert_eq!(ranges(nets(&["0.0.0.0/0", "10.0.0.0/8"]).iter(), IP), [(0, 0xffff_ffff)]);
        assert_eq!(ranges(nets(&["::/0", "10.0.0.0/8"]).iter(), IP6), [(0, u128::MAX)]);
    }

    #[test]
    fn disjoint_sources_share_a_layer() {
        let selectors = pairs(&[
            ("10.0.1.0/24", "10.0.2.0/24"),
            ("10.0.1.0/24", "10.0.3.0/24"),
            ("10.0.2.0/24", "10.0.0.0/8"),
            ("fd00::/16", "fd00::/16"),
        ]);
        let layers = layers(selectors.iter(), IP);
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0].len(), 2);
    }

    #[test]
    fn hub_and_spokes_make_two_layers_and_no_more_elements_than_selectors() {
        let spokes: Vec<IpNet> =
            (0..200_u8).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        let hub: IpNet = "10.0.0.0/8".parse().unwrap();
        let mut selectors: Vec<(IpNet, IpNet)> = spokes.iter().map(|spoke| (*spoke, hub)).collect();
        selectors.extend(spokes.iter().step_by(2).map(|spoke| (hub, *spoke)));
        let layers = layers(selectors.iter(), IP);
        assert_eq!(layers.iter().map(Vec::len).collect::<Vec<_>>(), [100, 200]);
    }

    /// Every layer is a set of disjoint boxes, and together they hold exactly the pairs.
    #[test]
    fn layers_are_disjoint_and_complete() {
        let selectors = pairs(&[
            ("10.0.0.0/8", "10.0.0.0/16"),
            ("10.0.0.0/16", "10.0.0.0/8"),
            ("10.0.0.0/24", "0.0.0.0/0"),
            ("0.0.0.0/0", "10.0.5.0/24"),
            ("172.16.0.0/12", "172.16.0.0/12"),
            ("172.16.4.0/24", "172.16.0.0/12"),
        ]);
        let layers = layers(selectors.iter(), IP);
        let inside = |(first, last): Range, address: u128| first <= address && address <= last;
        for layer in &layers {
            for (position, (source, destination)) in layer.iter().enumerate() {
                for (other_source, other_destination) in layer.iter().skip(position + 1) {
                    let apart = |one: &Range, other: &Range| one.1 < other.0 || other.1 < one.0;
                    assert!(apart(source, other_source) || apart(destination, other_destination));
                }
            }
        }
        let addresses: Vec<std::net::Ipv4Addr> =
            ["10.0.0.1", "10.0.1.1", "10.0.5.1", "10.1.0.1", "172.16.4.1", "172.31.0.1", "8.8.8.8"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        for source in &addresses {
            for destination in &addresses {
                let number = |address: &std::net::Ipv4Addr| u128::from(u32::from(*address));
                let found = layers.iter().flatten().any(|(from, to)| {
                    inside(*from, number(source)) && inside(*to, number(destination))
                });
                let wanted = selectors.iter().any(|(from, to)| {
                    from.contains(&std::net::IpAddr::V4(*source))
                        && to.contains(&std::net::IpAddr::V4(*destination))
                });
                assert_eq!(found, wanted, "{source} -> {destination}");
            }
        }
    }
}
