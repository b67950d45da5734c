//! Blocks of sender identifiers: the root server of a cluster divides them among the servers.
//!
//! Members of all servers send under the same TEKs, so no two servers may give the same identifier
//! (RFC 6407 §3.5). A block is granted with a generation of the group, like keys: it is on the
//! root's disk before the server that is to have it hears of it, and it stays with that server
//! across restarts. Blocks of a server that has left are free when the TEKs have ended that
//! its members may have. When nothing is left all keys are deleted, and another era begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ike::BootTime;

/// Into how many blocks identifiers are divided, whatever their width.
pub const BLOCKS: u16 = 16;

/// A member counts a TEK's lifetime from the moment its keys arrive, and a server may learn late
/// that it has left the cluster.
const DELIVERY: Duration = Duration::from_secs(600);

/// The identifiers that one server of a cluster gives to its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// Counts how often all identifiers became free at once.
    pub era: u64,
    /// Width of an identifier in bits.
    pub bits: u16,
    pub blocks: BTreeSet<u16>,
}

/// Who gives identifiers of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name of the sub-server; `None` is the root itself. No server has the empty name of blocks
    /// that [`retire`](SenderBlocks::retire) took away.
    pub server: Option<Arc<str>>,
    /// When the block is free; `None` as long as it is one of the servers.
    pub ends: Option<BootTime>,
}

/// All blocks, as the root server has given them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderBlocks {
    era: u64,
    grants: BTreeMap<u16, Grant>,
}

impl SenderBlocks {
    /// The blocks that this server, on its own so far, has used are its own.
    pub fn new(used: BTreeSet<u16>) -> Self {
        let own = Grant { server: None, ends: None };
        Self { era: 1, grants: used.into_iter().map(|block| (block, own.clone())).collect() }
    }

    /// The blocks of the sealed state.
    pub fn restore(era: u64, grants: BTreeMap<u16, Grant>) -> Self {
        Self { era, grants }
    }

    pub fn era(&self) -> u64 {
        self.era
    }

    /// All blocks that are taken.
    pub fn grants(&self) -> &BTreeMap<u16, Grant> {
        &self.grants
    }

    /// Blocks of a sub-server, or of the root.
    pub fn of(&self, server: Option<&str>) -> BTreeSet<u16> {
        let own = self
            .grants
            .iter()
            .filter(|(_, grant)| grant.server.as_deref() == server && grant.ends.is_none());
        own.map(|(block, _)| *block).collect()
    }

    /// Gives a server one more block. Returns whether there was one.
    pub fn grant(&mut self, server: Option<&Arc<str>>) -> bool {
        let free = (0..BLOCKS).find(|block| !self.grants.contains_key(block));
        let Some(block) = free else { return false };
        self.grants.insert(block, Grant { server: server.cloned(), ends: None });
        true
    }

    /// Only these are sub-servers, and TEKs end by `last_end`. Returns whether anything changed.
    pub fn keep(&mut self, servers: &[Arc<str>], last_end: BootTime, now: BootTime) -> bool {
        let count = self.grants.len();
        self.grants.retain(|_, grant| grant.ends.is_none_or(|ends| ends > now));
        let mut changed = count != self.grants.len();
        for grant in self.grants.values_mut() {
            let is_one = grant.server.as_ref().is_none_or(|server| servers.contains(server));
            let ends = (!is_one).then(|| grant.ends.unwrap_or(last_end + DELIVERY));
            // A server that is back has what was its own: nobody else got it.
            changed |= std::mem::replace(&mut grant.ends, ends) != ends;
        }
        changed
    }

    /// A sub-server does not know any more which identifiers of its blocks it has given: they are
    /// nobody's until the TEKs, which end by `last_end`, are over.
    pub fn retire(&mut self, server: &str, last_end: BootTime) {
        let own = self.grants.values_mut().filter(|one| one.server.as_deref() == Some(server));
        for grant in own {
            let ends = Some(grant.ends.unwrap_or(last_end + DELIVERY));
            *grant = Grant { server: Some("".into()), ends };
        }
    }

    /// The root takes back what it has used no identifier of.
    pub fn return_unused(&mut self, used: &BTreeSet<u16>) {
        self.grants.retain(|block, grant| grant.server.is_some() || used.contains(block));
    }

    /// All TEKs have ended: everything is free.
    pub fn reset(&mut self) {
        *self = Self { era: self.era.saturating_add(1), grants: BTreeMap::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn no_block_is_given_to_two_servers() {
        let mut blocks = SenderBlocks::new(BTreeSet::from([3]));
        let servers: Vec<Arc<str>> = vec!["ks2".into(), "ks3".into()];
        let mut taken = blocks.of(None);
        for server in servers.iter().cycle().take(15) {
            assert!(blocks.grant(Some(server)));
        }
        assert!(!blocks.grant(None), "all are given");
        for server in &servers {
            let own = blocks.of(Some(server));
            assert!(own.is_disjoint(&taken));
            taken.extend(own);
        }
        assert_eq!(taken.len(), usize::from(BLOCKS));
        blocks.reset();
        assert_eq!((blocks.era(), blocks.of(None)), (2, BTreeSet::new()));
    }

    #[test]
    fn retired_blocks_are_nobodys_until_the_teks_have_ended() {
        let mut blocks = SenderBlocks::new(BTreeSet::new());
        let servers: [Arc<str>; 2] = ["ks2".into(), "ks3".into()];
        servers.iter().for_each(|server| assert!(blocks.grant(Some(server))));
        blocks.retire("ks2", at(1000));
        assert_eq!((blocks.of(Some("ks2")), blocks.of(Some("ks3"))), ([].into(), [1].into()));
        assert!(!blocks.keep(&servers, at(2000), at(1599)), "it does not get them back");
        assert!(blocks.grant(Some(&servers[0])));
        assert_eq!(blocks.of(Some("ks2")), [2].into());
        assert!(blocks.keep(&servers, at(2000), at(1600)));
        assert!(blocks.grant(Some(&servers[0])));
        assert_eq!(blocks.of(Some("ks2")), [0, 2].into());
    }

    #[test]
    fn blocks_of_a_server_that_is_none_any_more_rest_until_the_teks_have_ended() {
        let mut blocks = SenderBlocks::new(BTreeSet::new());
        let (two, three): (Arc<str>, Arc<str>) = ("ks2".into(), "ks3".into());
        blocks.grant(Some(&two));
        blocks.grant(Some(&three));
        assert!(blocks.keep(std::slice::from_ref(&three), at(1000), at(10)));
        blocks.grant(None);
        assert_eq!((blocks.of(Some(&two)), blocks.of(None)), (BTreeSet::new(), [2].into()));
        let mut back = blocks.clone();
        assert!(back.keep(&[two.clone(), three.clone()], at(1000), at(20)));
        assert_eq!(back.of(Some(&two)), [0].into(), "it is back");
        assert!(!blocks.keep(std::slice::from_ref(&three), at(2000), at(1599)));
        assert!(blocks.keep(&[three], at(3000), at(1600)));
        assert!(blocks.grant(None));
        assert_eq!(blocks.of(None), [0, 2].into());
    }
}
