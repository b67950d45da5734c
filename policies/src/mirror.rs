//! The other direction of a symmetric line, unless another line says it.

use std::collections::{BTreeMap, BTreeSet};

use gdoi::group::Spi;
use xfrm::model::Selector;

use crate::line::Line;

/// Which TEKs name a selector themselves, not as the other direction of another one.
pub(crate) struct Named<'l>(BTreeMap<&'l Selector, BTreeSet<(bool, Spi)>>);

impl<'l> Named<'l> {
    pub(crate) fn by(lines: &'l [Line<'_>]) -> Self {
        let mut named: BTreeMap<&Selector, BTreeSet<(bool, Spi)>> = BTreeMap::new();
        for line in lines {
            for selector in &line.selectors {
                named.entry(selector).or_default().insert((line.send, line.policy.spi));
            }
        }
        Self(named)
    }

    /// The selectors of a line, and those of the other direction if it is symmetric. A direction
    /// that a line of another TEK of the same generation names itself is left to that line.
    pub(crate) fn with_mirror(&self, line: &Line<'_>) -> Vec<Selector> {
        let mut selectors = line.selectors.clone();
        if line.is_symmetric() {
            let another = |(send, spi): &(bool, Spi)| *send == line.send && *spi != line.policy.spi;
            let left = |selector: &Selector| {
                self.0.get(selector).is_some_and(|teks| teks.iter().any(another))
            };
            selectors.extend(line.mirrored().into_iter().filter(|selector| !left(selector)));
        }
        selectors
    }
}
