//! nf_tables over netlink: the dumps and the transactions.

use std::collections::BTreeSet;

use crate::attribute::Attributes;
use crate::desired::Desired;
use crate::error::{EINVAL, ENOENT, EOPNOTSUPP, Error};
use crate::kernel::Current;
use crate::kernel::netlink::Netlink;
use crate::nft::dump::Dump;
use crate::nft::table::{
    BATCH, BATCH_BEGIN, BATCH_END, GET_CHAIN, GET_ELEMENT, GET_RULE, GET_SET, GET_TABLE, Message,
    OWNED, PERSISTENT, change_elements, header, remove, replace,
};
use crate::nft::{Fingerprint, IP, content};
use crate::op::Op;
use crate::ownership::Ownership;

impl Netlink {
    /// Chains, rules and counters, and which sets there are. Elements that were known stay.
    pub(super) async fn read_tables(
        &mut self,
        ownership: &Ownership,
        current: &mut Current,
    ) -> Result<(), Error> {
        let mut dump = Dump::new(ownership);
        let any = header(0);
        let netfilter = &mut self.netfilter;
        let ignore = |_: Option<()>| Ok(());
        netfilter
            .dump("list nf_tables tables", GET_TABLE, &any, |m| ignore(dump.table(m.body)))
            .await?;
        if !dump.fingerprint.is_empty() {
            netfilter
                .dump("list nf_tables chains", GET_CHAIN, &any, |m| ignore(dump.chain(m.body)))
                .await?;
            // With a table's name the kernel stops at the first table that has it: ask family by
            // family.
            for (family, table) in dump.tables() {
                let body = Attributes::after(&header(family)).text(1, &table);
                netfilter
                    .dump("list nf_tables rules", GET_RULE, body.as_octets(), |m| {
                        ignore(dump.rule(m.body))
                    })
                    .await?;
            }
            netfilter
                .dump("list nf_tables sets", GET_SET, &any, |m| ignore(dump.set(m.body)))
                .await?;
        }
        let Dump { mut fingerprint, counters, .. } = dump;
        let known = core::mem::take(&mut current.tables.sets);
        let still = known
            .into_iter()
            .filter(|(key, _)| fingerprint.sets.contains_key(key))
            .collect::<Vec<_>>();
        fingerprint.sets.extend(still);
        current.tables = fingerprint;
        current.rules = counters;
        Ok(())
    }

    /// The elements of the sets that `tables` names.
    pub(super) async fn read_elements(
        &mut self,
        ownership: &Ownership,
        tables: &mut Fingerprint,
    ) -> Result<(), Error> {
        let mut dump = Dump::new(ownership);
        for (table, set) in tables.sets.keys() {
            dump.fingerprint.sets.insert((table.clone(), set.clone()), BTreeSet::new());
            // Sets of SPIs stand in the `ip` tables alone.
            let body = Attributes::after(&header(IP)).text(1, table).text(2, set);
            let each = |message: super::channel::Message<'_>| {
                dump.elements(message.body);
                Ok(())
            };
            match self
                .netfilter
                .dump("list nf_tables elements", GET_ELEMENT, body.as_octets(), each)
                .await
            {
                // The set is gone: as empty as one that never was, and the event of its end is on
                // its way.
                Err(error) if error.errno() == Some(ENOENT) => {}
                other => other?,
            }
        }
        tables.sets = dump.fingerprint.sets;
        Ok(())
    }

    pub(super) async fn change_tables(
        &mut self,
        op: &Op,
        desired: &Desired,
        ownership: &Ownership,
    ) -> Result<(), Error> {
        let wanted =
            || desired.preservation.as_ref().ok_or_else(|| Error::NotDesired(Box::new(op.clone())));
        let messages = match op {
            Op::ReplaceGuard => {
                let flags = self.guard_flags().await?;
                let tables = content::guard_tables(wanted()?, ownership, flags);
                replace(&ownership.guard_table(), flags, &tables)
            }
            Op::ReplaceTables => replace(
                &ownership.table,
                0,
                &content::main_tables(wanted()?, &self.interfaces, ownership),
            ),
            Op::UpdateSets(changes) => {
                let each = |change: &crate::nft::SetChange| {
                    change_elements(&ownership.table, &change.set, &change.add, &change.remove)
                };
                changes.iter().flat_map(each).collect()
            }
            _ => {
                let flags = self.guard_flags().await?;
                self.transact(op, &remove(&ownership.guard_table(), flags)).await?;
                remove(&ownership.table, 0)
            }
        };
        self.transact(op, &messages).await
    }

    /// Whether this kernel keeps the guard tables when the process ends.
    pub async fn guard_persists(&mut self) -> Result<bool, Error> {
        Ok(self.guard_flags().await? & PERSISTENT != 0)
    }

    /// The flags of the guard tables: tried once, by a table that comes and goes in one
    /// transaction.
    async fn guard_flags(&mut self) -> Result<u32, Error> {
        if let Some(flags) = self.guard_flags {
            return Ok(flags);
        }
        let both = OWNED | PERSISTENT;
        let tried = remove("gdoi-probe", both);
        let (begin, end) = ((BATCH_BEGIN, &BATCH[..]), (BATCH_END, &BATCH[..]));
        let operation = "try a table that persists";
        let flags = match self.netfilter.transaction(operation, begin, &tried, end).await {
            Ok(()) => both,
            Err(error) if matches!(error.errno(), Some(EINVAL | EOPNOTSUPP)) => OWNED,
            Err(error) => return Err(error),
        };
        self.guard_flags = Some(flags);
        Ok(flags)
    }

    async fn transact(&mut self, op: &Op, messages: &[Message]) -> Result<(), Error> {
        let (begin, end) = ((BATCH_BEGIN, &BATCH[..]), (BATCH_END, &BATCH[..]));
        self.netfilter.transaction(op, begin, messages, end).await
    }
}
