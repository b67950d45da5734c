//! nf_tables over netlink: the dumps and the transactions.

use std::collections::BTreeMap;

use crate::attribute::Attributes;
use crate::desired::Desired;
use crate::error::Error;
use crate::netlink::Netlink;
use crate::nft::dump::Dump;
use crate::nft::table::{
    BATCH, BATCH_BEGIN, BATCH_END, GET_CHAIN, GET_ELEMENT, GET_RULE, GET_SET, GET_TABLE, Message, OWNED,
    change_elements, header, remove, replace,
};
use crate::nft::{Fingerprint, content};
use crate::owner::Ownership;
use crate::plan::Op;
use crate::statistics::Counters;

impl Netlink {
    pub(super) async fn read_tables(
        &mut self,
        ownership: &Ownership,
    ) -> Result<(Fingerprint, BTreeMap<String, Counters>), Error> {
        let mut dump = Dump::new(ownership);
        let any = header(0);
        let netfilter = &mut self.netfilter;
        let ignore = |_: Option<()>| Ok(());
        netfilter.dump("list nf_tables tables", GET_TABLE, &any, |m| ignore(dump.table(m.body))).await?;
        if dump.fingerprint.is_empty() {
            return Ok((dump.fingerprint, dump.counters));
        }
        netfilter.dump("list nf_tables chains", GET_CHAIN, &any, |m| ignore(dump.chain(m.body))).await?;
        // With a table's name the kernel stops at the first table that has it: ask family by family.
        for (family, table) in dump.tables() {
            let body = Attributes::after(&header(family)).text(1, &table);
            netfilter.dump("list nf_tables rules", GET_RULE, body.as_octets(), |m| ignore(dump.rule(m.body))).await?;
        }
        let mut sets = Vec::new();
        let each = |message: super::channel::Message<'_>| {
            sets.extend(dump.set(message.body));
            Ok(())
        };
        netfilter.dump("list nf_tables sets", GET_SET, &any, each).await?;
        for (family, table, set) in sets {
            let body = Attributes::after(&header(family)).text(1, &table).text(2, &set);
            let each = |message: super::channel::Message<'_>| ignore(dump.elements(message.body));
            netfilter.dump("list nf_tables elements", GET_ELEMENT, body.as_octets(), each).await?;
        }
        Ok((dump.fingerprint, dump.counters))
    }

    pub(super) async fn change_tables(
        &mut self,
        op: &Op,
        desired: &Desired,
        ownership: &Ownership,
    ) -> Result<(), Error> {
        let wanted = || desired.preservation.as_ref().ok_or_else(|| Error::NotDesired(String::from("nf_tables")));
        let messages = match op {
            Op::ReplaceGuard => {
                let tables = content::guard_tables(wanted()?, &self.interfaces, ownership);
                replace(&ownership.guard_table(), OWNED, &tables)
            }
            Op::ReplaceTables => {
                replace(&ownership.table, 0, &content::main_tables(wanted()?, &self.interfaces, ownership))
            }
            Op::UpdateSets(changes) => {
                let each = |change: &crate::nft::SetChange| {
                    change_elements(&ownership.table, &change.set, &change.add, &change.remove)
                };
                changes.iter().flat_map(each).collect()
            }
            _ => {
                self.transact(op, &remove(&ownership.guard_table(), OWNED)).await?;
                remove(&ownership.table, 0)
            }
        };
        self.transact(op, &messages).await
    }

    async fn transact(&mut self, op: &Op, messages: &[Message]) -> Result<(), Error> {
        let (begin, end) = ((BATCH_BEGIN, &BATCH[..]), (BATCH_END, &BATCH[..]));
        self.netfilter.transaction(&op.to_string(), begin, messages, end).await
    }
}
