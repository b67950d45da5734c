//! A table as data, and as the messages of a transaction.

use std::collections::BTreeSet;

use crate::attribute::Attributes;
use crate::nft::pairs::Range;
use crate::nft::rule::Rule;
use crate::nft::{ALL_FAMILIES, IP, digest};

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
/// `NFT_TABLE_F_PERSIST` (Linux 6.9): an owned table stays when its socket goes, without an owner.
/// Who adds it again with the flag of an owner becomes its owner.
pub(crate) const PERSISTENT: u32 = 4;
const POLICY_ACCEPT: u32 = 1;

/// Kind, flags and body of one message.
pub(crate) type Message = (u16, u16, Vec<u8>);

pub(crate) struct Table {
    pub(crate) family: u8,
    pub(crate) name: String,
    pub(crate) flags: u32,
    pub(crate) comment: &'static str,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) elements: Elements,
}

/// What a set holds.
pub(crate) enum Elements {
    /// SPIs, which change in place.
    Spis(BTreeSet<u32>),
    /// Addresses of a family. The kernel lets nobody change them while a rule refers to the set.
    Addresses(u8, Vec<Range>),
    /// Pairs of addresses of a family, in the same way.
    Pairs(u8, Vec<(Range, Range)>),
}

/// A chain, with a hook or to jump to.
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a chain is called.
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    /// Number of the hook in its family.
    pub(crate) number: u32,
    /// Chains of one hook are passed in ascending order.
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
    for (kind, flags, spis) in [(NEW_ELEMENT, CREATE, add), (DELETE_ELEMENT, 0, remove)] {
        let lists = Elements::Spis(spis.clone()).lists().into_iter();
        messages.extend(lists.map(|list| {
            let body = begin_elements(IP, table, set).nested(3, list);
            (kind, flags, body.as_octets().to_vec())
        }));
    }
    messages
}

impl Table {
    fn write(&self, messages: &mut Vec<Message>) {
        let begin = || Attributes::after(&header(self.family)).text(1, &self.name);
        let body = begin().be32(2, self.flags).octets(6, &super::comment(self.comment));
        messages.push((NEW_TABLE, CREATE, body.as_octets().to_vec()));
        for (set, id) in self.sets.iter().zip(1..) {
            let body = set.describe(begin().text(2, &set.name)).be32(10, id);
            let body = body.octets(13, &set.user_data());
            messages.push((NEW_SET, CREATE, body.as_octets().to_vec()));
            let lists = set.elements.lists().into_iter();
            messages.extend(lists.map(|list| {
                let body = begin_elements(self.family, &self.name, &set.name).nested(3, list);
                (NEW_ELEMENT, CREATE, body.as_octets().to_vec())
            }));
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

impl Set {
    fn describe(&self, body: Attributes) -> Attributes {
        match &self.elements {
            // Four octets in network byte order, shown as `esp spi`.
            Elements::Spis(_) => body.be32(3, 0).be32(4, TYPE_INTEGER).be32(5, 4),
            Elements::Addresses(family, _) => {
                let (kind, length) = address_type(*family);
                body.be32(3, CONSTANT | INTERVAL).be32(4, kind).be32(5, length)
            }
            Elements::Pairs(family, _) => {
                let (kind, length) = address_type(*family);
                let field = || Attributes::new().be32(1, length);
                let fields = Attributes::new().nested(1, field()).nested(1, field());
                body.be32(3, CONSTANT | INTERVAL | CONCATENATED)
                    .be32(4, kind << TYPE_BITS | kind)
                    .be32(5, 2 * length)
                    .nested(9, Attributes::new().nested(2, fields))
            }
        }
    }

    /// What tells the elements of a set that nobody can change from others; `None` for SPIs.
    pub(crate) fn digest(&self) -> Option<u64> {
        let keys = match &self.elements {
            Elements::Spis(_) => return None,
            Elements::Addresses(_, ranges) => {
                ranges.iter().flat_map(|(first, last)| [*first, *last]).collect::<Vec<u128>>()
            }
            Elements::Pairs(_, pairs) => {
                pairs.iter().flat_map(|(from, to)| [from.0, from.1, to.0, to.1]).collect()
            }
        };
        let octets: Vec<u8> = keys.into_iter().flat_map(u128::to_be_bytes).collect();
        let kind = match &self.elements {
            Elements::Spis(_) => 0,
            Elements::Addresses(family, _) => *family,
            Elements::Pairs(family, _) => 0x80 | family,
        };
        Some(digest([self.name.as_bytes(), &[kind], &octets]))
    }

    fn user_data(&self) -> Vec<u8> {
        let Some(digest) = self.digest() else { return SPI_TYPE.to_vec() };
        // The key is in network byte order; nft skips the digest.
        let mut data = vec![0, 4, 2, 0, 0, 0, super::USER_DIGEST, 8];
        data.extend(digest.to_be_bytes());
        data
    }
}

impl Elements {
    /// Lists of elements, none of which comes near the 64 KiB that an attribute may have.
    fn lists(&self) -> Vec<Attributes> {
        let elements: Vec<Attributes> = match self {
            Self::Spis(spis) => spis.iter().map(|spi| element(1, &spi.to_be_bytes())).collect(),
            Self::Addresses(family, ranges) => ranges
                .iter()
                .flat_map(|(first, last)| {
                    let begin = element(1, &address(*family, *first));
                    // The first address behind it ends it; there is none behind the last one.
                    let end = last.checked_add(1).filter(|end| *end <= highest(*family));
                    let end =
                        end.map(|end| element(1, &address(*family, end)).be32(3, ELEMENT_END));
                    [begin].into_iter().chain(end)
                })
                .collect(),
            Self::Pairs(family, pairs) => pairs
                .iter()
                .map(|(from, to)| {
                    let key = [address(*family, from.0), address(*family, to.0)].concat();
                    let end = [address(*family, from.1), address(*family, to.1)].concat();
                    let key_end = Attributes::new().octets(1, &end);
                    element(1, &key).nested(10, key_end)
                })
                .collect(),
        };
        let list = |some: &[Attributes]| {
            some.iter()
                .fold(Attributes::new(), |list, one| list.octets(1 | NESTED, one.as_octets()))
        };
        elements.chunks(ELEMENTS_PER_MESSAGE).map(list).collect()
    }
}

/// Elements in one message: an attribute is shorter than 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;
const NESTED: u16 = 0x8000;
/// Flags of sets, and of the element that ends an interval.
const CONSTANT: u32 = 2;
const INTERVAL: u32 = 4;
const CONCATENATED: u32 = 0x80;
const ELEMENT_END: u32 = 1;
/// How far nft shifts the type of a concatenation's first part.
const TYPE_BITS: u32 = 6;

/// nft's number of the type, and its length in octets.
fn address_type(family: u8) -> (u32, u32) {
    if family == IP { (7, 4) } else { (8, 16) }
}

fn highest(family: u8) -> u128 {
    if family == IP { u32::MAX.into() } else { u128::MAX }
}

fn address(family: u8, number: u128) -> Vec<u8> {
    let octets = number.to_be_bytes();
    if family == IP { octets.into_iter().skip(12).collect() } else { octets.to_vec() }
}

fn element(kind: u16, key: &[u8]) -> Attributes {
    Attributes::new().nested(kind, Attributes::new().octets(1, key))
}

fn begin_elements(family: u8, table: &str, set: &str) -> Attributes {
    Attributes::after(&header(family)).text(1, table).text(2, set)
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
