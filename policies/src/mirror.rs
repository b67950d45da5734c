//! The other direction of a symmetric SA TEK, unless another SA TEK says it.

use std::collections::{BTreeMap, BTreeSet};

use gdoi::group::Spi;
use xfrm::model::Selector;

use crate::sa_tek::SaTek;

/// Which TEKs name a selector themselves, not as the other direction of another one.
pub(crate) struct Named<'l>(BTreeMap<&'l Selector, BTreeSet<(bool, Spi)>>);

impl<'l> Named<'l> {
    pub(crate) fn by(sa_teks: &'l [SaTek<'_>]) -> Self {
        let mut named: BTreeMap<&Selector, BTreeSet<(bool, Spi)>> = BTreeMap::new();
        for sa_tek in sa_teks {
            for selector in &sa_tek.selectors {
                named.entry(selector).or_default().insert((sa_tek.send, sa_tek.policy.spi));
            }
        }
        Self(named)
    }

    /// The selectors of an SA TEK, and those of the other direction if it is symmetric. A direction
    /// that an SA TEK of another TEK of the same generation names itself is left to that SA TEK.
    pub(crate) fn with_mirror(&self, sa_tek: &SaTek<'_>) -> Vec<Selector> {
        let mut selectors = sa_tek.selectors.clone();
        if sa_tek.is_symmetric() {
            let another =
                |(send, spi): &(bool, Spi)| *send == sa_tek.send && *spi != sa_tek.policy.spi;
            let left = |selector: &Selector| {
                self.0.get(selector).is_some_and(|teks| teks.iter().any(another))
            };
            selectors.extend(sa_tek.mirrored().into_iter().filter(|selector| !left(selector)));
        }
        selectors
    }
}
