//! What differs between two configurations, option by option.
//!
//! Every struct is taken apart, so that the compiler finds a field that nobody compares; names come
//! from the declarations.

use std::fmt::Display;
use std::time::Duration;

use daemon::configuration::{Declaration, Name, Names, duration_text, name_of};
use gdoi::group::GroupAssociatedPolicy;
use gdoi::push::DeliveryPolicy;
use ike::config::{Credential, Identity};
use ike::endpoint::Limits;

use super::change::Difference;
use super::file::{self, ADDRESS_PRESERVATION, DIRECTION, MODE};
use super::rekey::{self, MulticastPath, Rekey, Transport};
use super::{Group, Interoperability, Member, TekTemplate};
use crate::config::names::{
    gap_activation, gap_deactivation, in_rekey, rekey_encryption, signing_key_file, tek_encryption,
    tek_integrity, tek_lifetime,
};
use crate::text::selectors_text;

/// What is written where nothing is set.
const NONE: &str = "none";

/// Differences of one subject that are being collected.
#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    /// Compares values of the declared type.
    fn value<V>(&mut self, option: &impl Declaration<V>, table: Option<Name>, both: (&V, &V)) {
        self.texts(within(option.name(), table), option.text(both.0), option.text(both.1));
    }

    fn texts(&mut self, option: Name, before: impl Display, after: impl Display) {
        let difference = Difference::of(option, before, after);
        if difference.before != difference.after {
            self.0.push(difference);
        }
    }

    /// Compares values of a declared option that may be left out.
    fn names<T: PartialEq>(&mut self, option: Name, names: Names<T>, before: &T, after: &T) {
        let text = |value: &T| name_of(value, names).trim_matches('"').to_owned();
        self.texts(option, text(before), text(after));
    }
}

fn within(option: Name, table: Option<Name>) -> Name {
    match table {
        Some(table) => option.inside(table),
        None => option,
    }
}

/// What differs between two entries of one member, but its groups.
pub fn member_differences(before: &Member, after: &Member) -> Vec<Difference> {
    let Member { name, addresses, identity, credential, groups: _, group_id_byte_order } = before;
    let mut differences = Differences::default();
    differences.texts(file::Member::name().name(), name, &after.name);
    differences.texts(file::Member::address().name(), addresses, after.addresses);
    let text = |identity: &Option<Identity>| match identity {
        Some(identity) => identity.to_string(),
        None => String::from("its address"),
    };
    differences.texts(file::Member::identity().name(), text(identity), text(&after.identity));
    if *credential != after.credential {
        differences.0.push(Difference::untold(match after.credential {
            Credential::PreSharedKey(_) => file::Member::pre_shared_key().name(),
            _ => file::Member::certificate().name(),
        }));
    }
    let byte_orders = (group_id_byte_order, &after.group_id_byte_order);
    let table = Some(file::Member::interoperability().name());
    let option = file::MemberInteroperability::group_id_byte_order();
    differences.value(&option, table, byte_orders);
    differences.0
}

/// What differs between two groups of one name and number besides their rekey tables and the traffic
/// selectors of their TEKs.
pub struct GroupDifferences {
    pub sender_id_bits: Option<Difference>,
    pub member_threshold: Option<Difference>,
    /// Forms of its messages.
    pub forms: Vec<Difference>,
    /// Its policy and its TEKs: what a TEK carries that is made next.
    pub policy: Vec<Difference>,
}

/// Compares two groups of one name and number.
pub fn group_differences(before: &Group, after: &Group) -> GroupDifferences {
    // A cluster takes a restart.
    let Group {
        name: _,
        id: _,
        teks,
        gap,
        sender_id_bits,
        rekey: _,
        interoperability,
        member_threshold,
        cluster: _,
    } = before;
    let one = |option: Name, before: String, after: String| {
        (before != after).then(|| Difference::of(option, before, after))
    };
    let threshold = |limit: &Option<usize>| limit.map_or(NONE.into(), |most| most.to_string());
    let mut policy = Differences::default();
    gap_differences(gap, &after.gap, &mut policy);
    // TEKs with the same traffic selectors are compared.
    for new in &after.teks {
        let mut alike = teks.iter().filter(|old| old.selectors == new.selectors);
        if let Some(old) = alike.next() {
            tek_differences(old, new, &mut policy);
        }
    }
    GroupDifferences {
        sender_id_bits: one(
            file::Group::sender_id_bits().name(),
            sender_id_bits.to_string(),
            after.sender_id_bits.to_string(),
        ),
        member_threshold: one(
            file::Group::member_threshold().name(),
            threshold(member_threshold),
            threshold(&after.member_threshold),
        ),
        forms: form_differences(*interoperability, after.interoperability),
        policy: policy.0,
    }
}

fn form_differences(before: Interoperability, after: Interoperability) -> Vec<Difference> {
    let Interoperability {
        signature_form,
        signed_length,
        trailer,
        kek_packet,
        selector_byte_order,
    } = &before;
    let mut all = Differences::default();
    let table = Some(file::Group::interoperability().name());
    type Table = file::Interoperability;
    all.value(&Table::rsa_signature(), table, (signature_form, &after.signature_form));
    all.value(&Table::signed_length(), table, (signed_length, &after.signed_length));
    all.value(&Table::sak_reserved_octets(), table, (trailer, &after.trailer));
    all.value(&Table::new_kek_spi(), table, (kek_packet, &after.kek_packet));
    let byte_orders = (selector_byte_order, &after.selector_byte_order);
    all.value(&Table::selector_byte_order(), table, byte_orders);
    all.0
}

fn gap_differences(
    before: &GroupAssociatedPolicy,
    after: &GroupAssociatedPolicy,
    all: &mut Differences,
) {
    let GroupAssociatedPolicy { activation_time_delay, deactivation_time_delay } = before;
    let text = |delay: &Option<Duration>| delay.map_or(NONE.into(), duration_text);
    all.texts(gap_activation(), text(activation_time_delay), text(&after.activation_time_delay));
    let deactivation = (deactivation_time_delay, &after.deactivation_time_delay);
    all.texts(gap_deactivation(), text(deactivation.0), text(deactivation.1));
}

fn tek_differences(before: &TekTemplate, after: &TekTemplate, all: &mut Differences) {
    let TekTemplate {
        selectors: _,
        encryption,
        integrity: _,
        direction,
        mode,
        address_preservation,
        lifetime,
    } = before;
    all.texts(tek_encryption(), encryption.name, after.encryption.name);
    all.texts(tek_integrity(), integrity_text(before), integrity_text(after));
    all.texts(tek_lifetime(), duration_text(*lifetime), duration_text(after.lifetime));
    let name = |option: Name| option.inside(file::Group::teks().name());
    let option = name(file::TekKeys::direction().name());
    all.names(option, DIRECTION, direction, &after.direction);
    all.names(name(file::TekKeys::mode().name()), MODE, mode, &after.mode);
    let option = name(file::TekKeys::address_preservation().name());
    all.names(option, ADDRESS_PRESERVATION, address_preservation, &after.address_preservation);
}

/// The integrity algorithm of a TEK as it is written.
pub fn integrity_text(tek: &TekTemplate) -> &'static str {
    tek.integrity.map_or(NONE, |one| one.name)
}

/// What differs between two ways of pushing, the signing key's kind and `lkh` included.
pub fn rekey_differences(before: &Rekey, after: &Rekey) -> Vec<Difference> {
    let Rekey {
        transport: _,
        path: MulticastPath { interface, ttl },
        encryption,
        signing_key,
        signing_key_file: path,
        signature_hash,
        lifetime,
        delivery: DeliveryPolicy { period, repetitions, acknowledgement_wait: _ },
        acknowledgements,
        drop_unresponsive_members,
        lkh,
        legacy,
    } = before;
    type Table = rekey::File;
    let mut all = Differences::default();
    let table = Some(file::Group::rekey().name());
    all.texts(in_rekey(Table::transport().name()), transport(before), transport(after));
    let text = |name: &Option<String>| name.clone().unwrap_or_else(|| NONE.to_owned());
    let option = in_rekey(Table::multicast_interface().name());
    all.texts(option, text(interface), text(&after.path.interface));
    all.texts(in_rekey(Table::multicast_ttl().name()), ttl, after.path.ttl);
    all.texts(rekey_encryption(), encryption.name, after.encryption.name);
    all.value(&Table::signing_key(), table, (signing_key, &after.signing_key));
    let paths = (path.display(), after.signing_key_file.display());
    all.texts(signing_key_file(), paths.0, paths.1);
    let hash = (signature_hash.name(), after.signature_hash.name());
    all.texts(in_rekey(Table::signature_hash().name()), hash.0, hash.1);
    all.value(&Table::lifetime(), table, (lifetime, &after.lifetime));
    all.value(&Table::period(), table, (period, &after.delivery.period));
    all.value(&Table::repetitions(), table, (repetitions, &after.delivery.repetitions));
    let acknowledgements = (acknowledgements, &after.acknowledgements);
    all.value(&Table::acknowledgements(), table, acknowledgements);
    let drop = (drop_unresponsive_members, &after.drop_unresponsive_members);
    all.value(&Table::drop_unresponsive_members(), table, drop);
    all.value(&Table::lkh(), table, (lkh, &after.lkh));
    all.value(&file::File::legacy(), None, (legacy, &after.legacy));
    all.0
}

fn transport(rekey: &Rekey) -> String {
    match rekey.transport {
        Transport::Unicast => String::from("unicast"),
        Transport::Multicast { source, destination } => {
            format!("multicast from {source} to {destination}")
        }
    }
}

/// What differs between the bounds of two servers; `most` members may be registered.
pub fn limit_differences(
    (before, most_before): (&Limits, Option<usize>),
    (after, most_after): (&Limits, Option<usize>),
) -> Vec<Difference> {
    // The last three are no options.
    let Limits {
        half_open,
        half_open_per_source,
        half_open_timeout,
        computations,
        established,
        established_per_peer: _,
        exchanges: _,
        finished_exchange: _,
    } = before;
    type Table = file::Limits;
    let mut all = Differences::default();
    let mut add = |option: Name, before: String, after: String| {
        all.texts(option.inside(file::File::limits().name()), before, after);
    };
    let mut count = |option: Name, before: &usize, after: usize| {
        add(option, before.to_string(), after.to_string());
    };
    count(Table::half_open().name(), half_open, after.half_open);
    let per_source = (half_open_per_source, after.half_open_per_source);
    count(Table::half_open_per_source().name(), per_source.0, per_source.1);
    count(Table::computations().name(), computations, after.computations);
    count(Table::established().name(), established, after.established);
    let timeout = (*half_open_timeout, after.half_open_timeout);
    add(Table::half_open_timeout().name(), duration_text(timeout.0), duration_text(timeout.1));
    let text = |most: Option<usize>| most.map_or(NONE.into(), |most| most.to_string());
    add(Table::members().name(), text(most_before), text(most_after));
    all.0
}

/// Data SAs that one configuration of a group has and the other has not, as text.
pub fn missing_selectors(of: &[TekTemplate], other: &[TekTemplate]) -> Vec<String> {
    let known = |tek: &&TekTemplate| other.iter().any(|one| one.selectors == tek.selectors);
    of.iter().filter(|tek| !known(tek)).map(|tek| selectors_text(&tek.selectors)).collect()
}
