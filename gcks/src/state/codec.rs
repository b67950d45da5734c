//! TEKs, pushes and traffic selectors as octets, both ways.

use std::time::Duration;

use gdoi::group::{
    AddressPreservation, AddressRange, EncapsulationMode, SaDirection, TekKeys, TrafficSelector,
};
use gdoi::push::{AcknowledgementKind, SealedPush};
use ike::BootTime;
use ipnet::IpNet;

use crate::config::TekTemplate;
use crate::config::tek_algorithm::{ENCRYPTIONS, INTEGRITIES};
use crate::group::tek_schedule::{Slot, Tek, TekLifetime, TekSchedule};
use daemon::sealed::codec::{Decoder, Encoder, StateError};

type Decoded<T> = Result<T, StateError>;

pub(super) fn put_schedule(out: &mut Encoder, schedule: &TekSchedule) {
    out.count(schedule.slots().len());
    for slot in schedule.slots() {
        put_template(out, &slot.template);
        out.option(slot.current.as_ref(), put_tek);
        out.option(slot.before.as_ref(), put_held);
        out.count(slot.retired.len());
        slot.retired.iter().for_each(|lifetime| put_lifetime(out, *lifetime));
    }
    out.count(schedule.gone().len());
    schedule.gone().iter().for_each(|lifetime| put_lifetime(out, *lifetime));
}

pub(super) fn schedule(from: &mut Decoder<'_>) -> Decoded<TekSchedule> {
    let slots = from.list(|from| {
        Ok(Slot {
            template: template(from)?,
            current: from.option(tek)?,
            before: from.option(|from| Ok((tek(from)?, from.time()?)))?,
            retired: from.list(lifetime)?,
        })
    })?;
    Ok(TekSchedule::from_parts(slots, from.list(lifetime)?))
}

/// A TEK with its keys.
fn put_tek(out: &mut Encoder, tek: &Tek) {
    put_lifetime(out, tek.lifetime);
    out.octets(tek.keys.encryption.expose());
    out.octets(tek.keys.integrity.expose());
    put_template(out, &tek.template);
    out.u8(tek.pushed.into());
}

/// A TEK that is past with its SPI.
fn put_lifetime(out: &mut Encoder, lifetime: TekLifetime) {
    out.u32(lifetime.spi);
    out.time(lifetime.ends);
}

/// A TEK that is held until a moment.
fn put_held(out: &mut Encoder, (tek, until): &(Tek, BootTime)) {
    put_tek(out, tek);
    out.time(*until);
}

/// What a TEK was made for.
pub(super) fn put_template(out: &mut Encoder, template: &TekTemplate) {
    put_selectors(out, &template.selectors);
    out.octets(template.encryption.name.as_bytes());
    out.option(template.integrity, |out, integrity| out.octets(integrity.name.as_bytes()));
    out.u16(template.direction.0);
    out.u16(template.mode.0);
    out.u16(template.address_preservation.0);
    out.u64(template.lifetime.as_secs());
}

fn put_selectors(out: &mut Encoder, selectors: &[TrafficSelector]) {
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

pub(super) fn put_push(out: &mut Encoder, push: &SealedPush) {
    out.put(push.spi());
    out.u32(push.sequence_number());
    out.octets(push.datagram());
    out.option(push.acknowledgement().map(AcknowledgementKind::number), Encoder::u16);
    out.octets(push.base_key().expose());
}

fn lifetime(from: &mut Decoder<'_>) -> Decoded<TekLifetime> {
    Ok(TekLifetime { spi: from.u32()?, ends: from.time()? })
}

fn tek(from: &mut Decoder<'_>) -> Decoded<Tek> {
    let lifetime = lifetime(from)?;
    let keys = TekKeys { encryption: from.secret()?, integrity: from.secret()? };
    Ok(Tek { lifetime, keys, template: template(from)?, pushed: from.u8()? != 0 })
}

/// What a TEK was made for.
pub(super) fn template(from: &mut Decoder<'_>) -> Decoded<TekTemplate> {
    let selectors = from.list(selector)?;
    let name = from.text()?;
    let encryption = ENCRYPTIONS.iter().find(|encryption| encryption.name == name);
    let encryption = *encryption.ok_or_else(|| from.error("an encryption algorithm"))?;
    let integrity = from.option(|from| {
        let name = from.text()?;
        let known = INTEGRITIES.iter().find(|integrity| integrity.name == name);
        known.copied().ok_or_else(|| from.error("an integrity algorithm"))
    })?;
    Ok(TekTemplate {
        selectors,
        encryption,
        integrity,
        direction: SaDirection(from.u16()?),
        mode: EncapsulationMode(from.u16()?),
        address_preservation: AddressPreservation(from.u16()?),
        lifetime: Duration::from_secs(from.u64()?),
    })
}

fn selector(from: &mut Decoder<'_>) -> Decoded<TrafficSelector> {
    let protocol = from.u8()?;
    let mut side = || {
        let range = match from.u8()? {
            0 => AddressRange::Any,
            1 => AddressRange::Address(from.address()?),
            2 => {
                let prefix = IpNet::new(from.address()?, from.u8()?);
                AddressRange::Subnet(prefix.map_err(|_| from.error("a prefix"))?)
            }
            3 => AddressRange::Range(from.address()?, from.address()?),
            _ => return Err(from.error("a range of addresses")),
        };
        Ok((range, from.u16()?))
    };
    let ((source, source_port), (destination, destination_port)) = (side()?, side()?);
    Ok(TrafficSelector { protocol, source, source_port, destination, destination_port })
}

pub(super) fn push(from: &mut Decoder<'_>) -> Decoded<SealedPush> {
    let (spi, number, datagram) = (from.array()?, from.u32()?, from.octets()?.to_vec());
    let acknowledgement = from.option(Decoder::u16)?;
    Ok(SealedPush::restore(spi, number, datagram, acknowledgement, from.secret()?))
}
