//! Dumped tables, as a fingerprint and counters.

use std::collections::BTreeMap;

use crate::attribute::{array, attributes, be32, find, text};
use crate::counters::Counters;
use crate::nft::table::{PERSISTENT, hook_digest};
use crate::nft::{Fingerprint, USER_COMMENT, USER_DIGEST, set_key};
use crate::ownership::Ownership;

/// Collects the messages of the dumps.
pub(crate) struct Dump<'a> {
    ownership: &'a Ownership,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) counters: BTreeMap<String, Counters>,
}

impl<'a> Dump<'a> {
    pub(crate) fn new(ownership: &'a Ownership) -> Self {
        Self { ownership, fingerprint: Fingerprint::default(), counters: BTreeMap::new() }
    }

    /// A body of `NFT_MSG_NEWTABLE`.
    pub(crate) fn table(&mut self, body: &[u8]) -> Option<()> {
        let (family, name, rest) = self.ours(body, 1)?;
        // Whether it persists depends on the kernel alone; without an owner it is another one.
        let flags = find(rest, 2).and_then(be32).unwrap_or(0) & !PERSISTENT;
        self.fingerprint.chains.insert((name, family, String::new()), vec![u64::from(flags)]);
        Some(())
    }

    /// Family and name of the tables of ours that were seen.
    pub(crate) fn tables(&self) -> Vec<(u8, String)> {
        let named = self.fingerprint.chains.keys().filter(|(.., chain)| chain.is_empty());
        named.map(|(table, family, _)| (*family, table.clone())).collect()
    }

    /// A body of `NFT_MSG_NEWCHAIN`.
    pub(crate) fn chain(&mut self, body: &[u8]) -> Option<()> {
        let (family, table, rest) = self.ours(body, 1)?;
        let name = text(find(rest, 3)?);
        let hook = find(rest, 4).map_or(0, |hook| {
            let kind = find(rest, 7).map(text).unwrap_or_default();
            let number = find(hook, 1).and_then(be32).unwrap_or(0);
            let priority =
                find(hook, 2).and_then(|value| array(value, 0)).map_or(0, i32::from_be_bytes);
            let device = find(hook, 3).map(text).unwrap_or_default();
            hook_digest(
                &kind,
                number,
                priority,
                &device,
                find(rest, 5).and_then(be32).unwrap_or(u32::MAX),
            )
        });
        self.fingerprint.chains.entry((table, family, name)).or_insert_with(|| vec![hook]);
        Some(())
    }

    /// A body of `NFT_MSG_NEWRULE`. Rules come in the order of evaluation, after their chains.
    pub(crate) fn rule(&mut self, body: &[u8]) -> Option<()> {
        let (family, table, rest) = self.ours(body, 1)?;
        let chain = text(find(rest, 2)?);
        let data = find(rest, 7).unwrap_or_default();
        // Of somebody else, or changed by somebody else: no digest that we would compute.
        let digest = user_data(data, USER_DIGEST)
            .and_then(|value| array(value, 0))
            .map_or(0, u64::from_be_bytes);
        self.fingerprint.chains.entry((table, family, chain)).or_default().push(digest);
        let comment =
            user_data(data, USER_COMMENT).map(text).filter(|comment| !comment.is_empty())?;
        let counter = attributes(find(rest, 4)?).find_map(|(_, expression)| {
            let is_counter = find(expression, 1).map(text).as_deref() == Some("counter");
            is_counter.then(|| find(expression, 2))?
        })?;
        let number = |kind| {
            find(counter, kind).and_then(|value| array(value, 0)).map_or(0, u64::from_be_bytes)
        };
        let sum = self.counters.entry(comment).or_default();
        sum.octets = sum.octets.saturating_add(number(1));
        sum.packets = sum.packets.saturating_add(number(2));
        Some(())
    }

    /// A body of `NFT_MSG_NEWSET`.
    pub(crate) fn set(&mut self, body: &[u8]) -> Option<()> {
        let (family, table, rest) = self.ours(body, 1)?;
        let name = text(find(rest, 2)?);
        let digest = find(rest, 13).and_then(|data| user_data(data, USER_DIGEST));
        match digest.and_then(|value| array(value, 0)).map(u64::from_be_bytes) {
            // Nobody can change its elements.
            Some(digest) => {
                let key = (table, family, set_key(&name));
                self.fingerprint.chains.insert(key, vec![digest]);
            }
            None => drop(self.fingerprint.sets.entry((table, name)).or_default()),
        }
        Some(())
    }

    /// A body of `NFT_MSG_NEWSETELEM`.
    pub(crate) fn elements(&mut self, body: &[u8]) -> Option<()> {
        let (_, table, rest) = self.ours(body, 1)?;
        let name = text(find(rest, 2)?);
        let Some(set) = self.fingerprint.sets.get_mut(&(table, name)) else { return Some(()) };
        let keys = attributes(find(rest, 3)?)
            .filter_map(|(_, element)| find(find(element, 1)?, 1).and_then(be32));
        set.extend(keys);
        Some(())
    }

    /// Family, table and attributes of a message about a table of ours.
    fn ours<'b>(&self, body: &'b [u8], table_kind: u16) -> Option<(u8, String, &'b [u8])> {
        let family = *body.first()?;
        let rest = body.get(4..)?;
        let table = text(find(rest, table_kind)?);
        let ours = table == self.ownership.table || table == self.ownership.guard_table();
        ours.then_some((family, table, rest))
    }
}

/// One field of user data: kind, length, value.
fn user_data(mut data: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
        let value = data.get(2..2 + length)?;
        if kind == wanted {
            return Some(value);
        }
        data = data.get(2 + length..)?;
    }
}
