//! A table as data, and as the messages of a transaction.

use std::collections::BTreeSet;

use crate::attribute::Attributes;
use crate::nft::rule::Rule;
use crate::nft::{ALL_FAMILIES, digest};

// Message kinds of linux/netfilter/nf_tables.h, with the subsystem in the upper octet.
pub(crate) const SUBSYSTEM: u16 = 10;
pub(crate) const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub(crate) const GET_TABLE: u16 = NEW_TABLE | 1;
pub(crate) const DELETE_TABLE: u16 = NEW_TABLE | 2;
pub(crate) const NEW_CHAIN: u16 = NEW_TABLE | 3;
pub(crate) const GET_CHAIN: u16 = NEW_TABLE | 4;
pub(crate) const NEW_RULE: u16 = NEW_TABLE | 6;
pub(crate) const GET_RULE: u16 = NEW_TABLE | 7;
pub(crate) const NEW_SET: u16 = NEW_TABLE | 9;
pub(crate) const GET_SET: u16 = NEW_TABLE | 10;
pub(crate) const NEW_ELEMENT: u16 = NEW_TABLE | 12;
pub(crate) const GET_ELEMENT: u16 = NEW_TABLE | 13;
pub(crate) const DELETE_ELEMENT: u16 = NEW_TABLE | 14;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFT_TABLE_F_OWNER`: only the socket that made the table can change it, and it goes with the
/// socket.
pub(crate) const OWNED: u32 = 2;
const POLICY_ACCEPT: u32 = 1;

/// Kind, flags and body of one message.
pub(crate) type Message = (u16, u16, Vec<u8>);

/// One table.
pub(crate) struct Table {
    pub(crate) family: u8,
    pub(crate) name: String,
    pub(crate) flags: u32,
    pub(crate) comment: &'static str,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// A set of SPIs.
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) elements: BTreeSet<u32>,
}

/// A chain, with a hook or to jump to.
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a chain is called.
pub(crate) struct Hook {
    /// `filter` or `route`.
    pub(crate) kind: &'static str,
    /// Number of the hook in its family.
    pub(crate) number: u32,
    /// Lower first.
    pub(crate) priority: i32,
    /// Device of an ingress hook.
    pub(crate) device: Option<String>,
}

impl Hook {
    pub(crate) fn digest(&self) -> u64 {
        hook_digest(
            self.kind,
            self.number,
            self.priority,
            self.device.as_deref().unwrap_or_default(),
            POLICY_ACCEPT,
        )
    }
}

/// What tells one hook from another.
pub(crate) fn hook_digest(
    kind: &str,
    number: u32,
    priority: i32,
    device: &str,
    policy: u32,
) -> u64 {
    let (number, priority, policy) =
        (number.to_be_bytes(), priority.to_be_bytes(), policy.to_be_bytes());
    digest([kind.as_bytes(), &number, &priority, device.as_bytes(), &policy])
}

/// The beginning of every message: family, version, resource.
pub(crate) fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The header of a transaction's first and last message: the resource is the subsystem, in network
/// byte order.
pub(crate) const BATCH: [u8; 4] = [0, 0, 0, SUBSYSTEM as u8];
pub(crate) const BATCH_BEGIN: u16 = 16;
pub(crate) const BATCH_END: u16 = 17;

/// Messages that put `tables` in the place of everything called `name`.
pub(crate) fn replace(name: &str, flags: u32, tables: &[Table]) -> Vec<Message> {
    let mut messages = remove(name, flags);
    tables.iter().for_each(|table| table.write(&mut messages));
    messages
}

/// Messages that remove everything called `name`, whether it is there or not.
pub(crate) fn remove(name: &str, flags: u32) -> Vec<Message> {
    // Deleting a table that is not there fails the transaction; adding it first never does.
    let both = ALL_FAMILIES.into_iter().flat_map(|family| {
        let body = Attributes::after(&header(family)).text(1, name);
        let named = body.as_octets().to_vec();
        [(NEW_TABLE, CREATE, body.be32(2, flags).as_octets().to_vec()), (DELETE_TABLE, 0, named)]
    });
    both.collect()
}

/// Messages that change the elements of a set in the `ip` table.
pub(crate) fn change_elements(
    table: &str,
    set: &str,
    add: &BTreeSet<u32>,
    remove: &BTreeSet<u32>,
) -> Vec<Message> {
    let mut messages = Vec::new();
    if !add.is_empty() {
        messages.push((NEW_ELEMENT, CREATE, elements(super::IP, table, set, add)));
    }
    if !remove.is_empty() {
        messages.push((DELETE_ELEMENT, 0, elements(super::IP, table, set, remove)));
    }
    messages
}

impl Table {
    fn write(&self, messages: &mut Vec<Message>) {
        let begin = || Attributes::after(&header(self.family)).text(1, &self.name);
        let body = begin().be32(2, self.flags).octets(6, &super::comment(self.comment));
        messages.push((NEW_TABLE, CREATE, body.as_octets().to_vec()));
        for (set, id) in self.sets.iter().zip(1..) {
            // Four octets in network byte order, shown as `esp spi`.
            let body =
                begin().text(2, &set.name).be32(3, 0).be32(4, TYPE_INTEGER).be32(5, 4).be32(10, id);
            messages.push((NEW_SET, CREATE, body.octets(13, &SPI_TYPE).as_octets().to_vec()));
            if !set.elements.is_empty() {
                messages.push((
                    NEW_ELEMENT,
                    CREATE,
                    elements(self.family, &self.name, &set.name, &set.elements),
                ));
            }
        }
        for chain in &self.chains {
            let mut body = begin().text(3, &chain.name);
            if let Some(hook) = &chain.hook {
                let place =
                    Attributes::new().be32(1, hook.number).octets(2, &hook.priority.to_be_bytes());
                let place = hook.device.iter().fold(place, |place, device| place.text(3, device));
                body = body.nested(4, place).be32(5, POLICY_ACCEPT).text(7, hook.kind);
            }
            messages.push((NEW_CHAIN, CREATE, body.as_octets().to_vec()));
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                let body = begin()
                    .text(2, &chain.name)
                    .nested(4, rule.expressions())
                    .octets(7, &rule.user_data());
                messages.push((NEW_RULE, CREATE | APPEND, body.as_octets().to_vec()));
            }
        }
    }
}

fn elements(family: u8, table: &str, set: &str, spis: &BTreeSet<u32>) -> Vec<u8> {
    let list = spis.iter().fold(Attributes::new(), |list, spi| {
        let key = Attributes::new().octets(1, &spi.to_be_bytes());
        list.nested(1, Attributes::new().nested(1, key))
    });
    Attributes::after(&header(family))
        .text(1, table)
        .text(2, set)
        .nested(3, list)
        .as_octets()
        .to_vec()
}

/// nft's number of its type "integer".
const TYPE_INTEGER: u32 = 4;

/// How nft notes `typeof esp spi` in a set's user data: byte order of the key (big endian), then
/// the expression (payload: protocol ESP, field SPI, 32 bits).
const SPI_TYPE: [u8; 34] = [
    0, 4, 2, 0, 0, 0, // byte order
    3, 26, // type of the key
    0, 4, 7, 0, 0, 0, // an expression of kind payload
    1, 18, // what it loads
    0, 4, 2, 0, 0, 0, // ESP
    1, 4, 1, 0, 0, 0, // SPI
    4, 4, 32, 0, 0, 0, // bits
];
