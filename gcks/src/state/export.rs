//! A key server as octets. No key leaves but in a [`Secret`].

use gdoi::BootTime;
use gdoi::crypto::Secret;
use gdoi::group::{AddressRange, TrafficSelector};
use gdoi::lkh::KeyTree;
use gdoi::push::{AcknowledgementKind, SealedPush};

use super::settings;
use crate::config::TekTemplate;
use crate::group::kek::Kek;
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::RekeySa;
use crate::group::tek_schedule::{Life, Tek};
use crate::members::registry::Registration;
use crate::server::{GroupState, KeyServer};
use daemon::sealed::codec::Encoder;

/// Changes when the octets do.
pub(super) const VERSION: u8 = 2;

impl<E: Entropy> KeyServer<E> {
    /// All that a restart must not forget.
    pub fn export(&self) -> Secret {
        let mut out = Encoder::default();
        out.u8(VERSION);
        out.count(self.members.len());
        self.members.iter().for_each(|member| settings::put_member(&mut out, member));
        out.count(self.groups.len());
        for state in &self.groups {
            group(&mut out, state);
        }
        out.count(self.registry.iter().count());
        for (group, identity, registration) in self.registry.iter() {
            out.u32(group.0);
            out.identity(identity);
            self::registration(&mut out, registration);
        }
        out.count(self.removed.len());
        for (group, name) in &self.removed {
            out.u32(group.0);
            out.octets(name.as_bytes());
        }
        let offers: Vec<_> = self.server.proved_offers().collect();
        out.count(offers.len());
        for (source, offer) in offers {
            out.address(source);
            out.octets(offer);
        }
        let pending = self.pending();
        out.count(pending.len());
        for (group, policy, delivery) in pending {
            out.u32(group.0);
            settings::put_delivery_policy(&mut out, policy);
            push(&mut out, delivery.push());
            let destinations: Vec<_> = delivery.destinations().collect();
            out.count(destinations.len());
            for (source, destination, leaf_key) in destinations {
                out.socket(source);
                out.socket(destination);
                out.option(leaf_key, |out, key| out.octets(key.expose()));
            }
        }
        out.finish()
    }
}

fn group(out: &mut Encoder, state: &GroupState) {
    settings::put_group(out, &state.group);
    state.schedule.export(out);
    let (held, next) = state.senders.held();
    out.u16(state.senders.bits());
    out.u64(next);
    out.count(held.len());
    for (identifier, until) in held {
        out.u64(*identifier);
        out.option(*until, Encoder::time);
    }
    out.option(state.rekey.as_ref(), rekey);
}

fn rekey(out: &mut Encoder, rekey: &RekeySa) {
    settings::put_rekey(out, &rekey.settings);
    out.octets(rekey.private_key.expose());
    out.option(rekey.kek(), kek);
    out.count(rekey.retired.len());
    for retired in &rekey.retired {
        push(out, &retired.last);
        out.u8(retired.deleted.into());
        out.time(retired.at);
    }
    out.count(rekey.abandoned.len());
    rekey.abandoned.iter().for_each(|leaf| out.u16(*leaf));
}

fn kek(out: &mut Encoder, kek: &Kek) {
    out.kek_policy(kek.stored_policy());
    out.octets(kek.key().expose());
    out.u32(kek.sequence_number());
    out.time(kek.ends());
    out.count(kek.capacity());
    out.option(kek.tree().and_then(KeyTree::export), |out, tree| out.octets(tree.expose()));
    out.option(kek.last(), push);
    out.time(kek.last_at());
}

fn push(out: &mut Encoder, push: &SealedPush) {
    out.put(push.spi());
    out.u32(push.sequence_number());
    out.octets(push.datagram());
    out.option(push.acknowledgement().map(AcknowledgementKind::number), Encoder::u16);
    out.octets(push.base_key().expose());
}

fn registration(out: &mut Encoder, registration: &Registration) {
    out.octets(registration.name.as_bytes());
    out.socket(registration.address);
    out.socket(registration.local);
    out.time(registration.first);
    out.time(registration.last);
    out.u64(registration.pulls);
    out.option(registration.keys_end, Encoder::time);
    out.option(registration.sender, Encoder::u64);
    out.option(registration.leaf, Encoder::u16);
    out.u64(registration.acknowledgements);
    out.option(registration.last_acknowledgement, Encoder::time);
    out.u64(registration.silent);
    out.option(registration.acknowledged, |out, (spi, number)| {
        out.put(&spi);
        out.u32(number);
    });
}

/// A TEK with its keys.
pub(crate) fn tek(out: &mut Encoder, tek: &Tek) {
    life(out, tek.life);
    out.octets(tek.keys.encryption.expose());
    out.octets(tek.keys.integrity.expose());
    template(out, &tek.template);
    out.u8(tek.pushed.into());
}

/// A TEK that is past with its SPI.
pub(crate) fn life(out: &mut Encoder, life: Life) {
    out.u32(life.spi);
    out.time(life.ends);
}

/// A TEK that is held until a moment.
pub(crate) fn held(out: &mut Encoder, (tek, until): &(Tek, BootTime)) {
    self::tek(out, tek);
    out.time(*until);
}

/// What a TEK was made for.
pub(crate) fn template(out: &mut Encoder, template: &TekTemplate) {
    selectors(out, &template.selectors);
    out.octets(template.encryption.name.as_bytes());
    out.option(template.integrity, |out, integrity| out.octets(integrity.name.as_bytes()));
    out.u16(template.direction.0);
    out.u16(template.mode.0);
    out.u16(template.address_preservation.0);
    out.u64(template.lifetime.as_secs());
}

fn selectors(out: &mut Encoder, selectors: &[TrafficSelector]) {
    out.count(selectors.len());
    for selector in selectors {
        out.u8(selector.protocol);
        for (range, port) in [
            (&selector.source, selector.source_port),
            (&selector.destination, selector.destination_port),
        ] {
            match range {
                AddressRange::Any => out.u8(0),
                AddressRange::Address(address) => {
                    out.u8(1);
                    out.address(*address);
                }
                AddressRange::Subnet(prefix) => {
                    out.u8(2);
                    out.address(prefix.addr());
                    out.u8(prefix.prefix_len());
                }
                AddressRange::Range(first, last) => {
                    out.u8(3);
                    out.address(*first);
                    out.address(*last);
                }
            }
            out.u16(port);
        }
    }
}
