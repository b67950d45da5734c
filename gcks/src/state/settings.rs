//! The configuration that a state was written under: members without their keys, groups, and how
//! their keys are pushed.
//!
//! With it a restart under another configuration does what a running server does when its
//! configuration changes.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::sealed::codec::{Decoder, Encoder, StateError};
use gdoi::config::{ByteOrder, Trailer};
use gdoi::group::{GroupAssociatedPolicy, GroupId};
use gdoi::push::{DeliveryPolicy, KekPacketSpi, SignedLength};
use ike::config::{Credential, Identity};
use ike::crypto::HashAlgorithm;
use ike::crypto::{RsaForm, Secret};
use ipnet::IpNet;

use super::{Form, codec};
use crate::config::rekey::KEK_ENCRYPTIONS;
use crate::config::{
    Group, Interoperability, Member, MulticastPath, Rekey, SigningKeyKind, Transport,
};

type Decoded<T> = Result<T, StateError>;

pub(super) fn put_member(out: &mut Encoder, member: &Member) {
    out.octets(member.name.as_bytes());
    out.address(member.addresses.addr());
    out.u8(member.addresses.prefix_len());
    out.option(member.identity.as_ref(), Encoder::identity);
    out.count(member.groups.len());
    member.groups.iter().for_each(|group| out.u32(group.0));
    put_byte_order(out, member.group_id_byte_order);
}

/// The members of the configuration now, by what they may be known by.
pub(super) struct Members<'m> {
    by_peer: BTreeMap<(IpNet, Option<&'m Identity>), &'m Member>,
    by_name: BTreeMap<&'m str, &'m Member>,
}

impl<'m> Members<'m> {
    pub(super) fn new(members: &'m [Member]) -> Self {
        // The first one counts.
        let all = || members.iter().rev();
        Self {
            by_peer: all().map(|one| ((one.addresses, one.identity.as_ref()), one)).collect(),
            by_name: all().map(|one| (one.name.as_str(), one)).collect(),
        }
    }
}

/// A member; its key is the one that it has now in `members`, because no ISAKMP SA outlives a
/// restart.
pub(super) fn member(from: &mut Decoder<'_>, members: &Members<'_>, form: Form) -> Decoded<Member> {
    let name = from.text()?.to_owned();
    let addresses = IpNet::new(from.address()?, from.u8()?).map_err(|_| from.error("a prefix"))?;
    let identity = from.option(Decoder::identity)?;
    let groups = from.list(|from| from.u32().map(GroupId))?.into_iter().collect();
    let group_id_byte_order = match form {
        Form::Present => byte_order(from)?,
        Form::Version5 => ByteOrder::default(),
    };
    // It may have another name by now.
    let same = members.by_peer.get(&(addresses, identity.as_ref()));
    let now = same.or_else(|| members.by_name.get(name.as_str()));
    let credential = now.map_or_else(
        || Credential::PreSharedKey(Arc::new(Secret::new(Vec::new()))),
        |now| now.credential.clone(),
    );
    Ok(Member { name, addresses, identity, credential, groups, group_id_byte_order })
}

pub(super) fn put_group(out: &mut Encoder, group: &Group) {
    out.octets(group.name.as_bytes());
    out.u32(group.id.0);
    out.count(group.teks.len());
    group.teks.iter().for_each(|template| codec::put_template(out, template));
    out.option(group.gap.activation_time_delay, put_duration);
    out.option(group.gap.deactivation_time_delay, put_duration);
    out.u16(group.sender_id_bits);
    out.option(group.rekey.as_ref(), put_rekey);
    let forms = group.interoperability;
    for flag in [
        forms.signature_form == RsaForm::RawDigest,
        forms.signed_length == SignedLength::Unpadded,
        forms.trailer == Trailer::TwoMore,
        forms.kek_packet == KekPacketSpi::Old,
    ] {
        out.u8(flag.into());
    }
    put_byte_order(out, forms.selector_byte_order);
}

pub(super) fn group(from: &mut Decoder<'_>, form: Form) -> Decoded<Group> {
    Ok(Group {
        name: from.text()?.to_owned(),
        id: GroupId(from.u32()?),
        teks: from.list(codec::template)?,
        gap: GroupAssociatedPolicy {
            activation_time_delay: from.option(duration)?,
            deactivation_time_delay: from.option(duration)?,
        },
        sender_id_bits: from.u16()?,
        rekey: from.option(rekey)?,
        interoperability: match form {
            Form::Present => interoperability(from)?,
            Form::Version5 => Interoperability::default(),
        },
        // Numbers of members and servers are the present configuration's.
        member_threshold: None,
        cluster: None,
    })
}

fn interoperability(from: &mut Decoder<'_>) -> Decoded<Interoperability> {
    let mut flag = || Ok(from.u8()? != 0);
    let (raw, unpadded, longer, old) = (flag()?, flag()?, flag()?, flag()?);
    Ok(Interoperability {
        signature_form: if raw { RsaForm::RawDigest } else { RsaForm::DigestInfo },
        signed_length: if unpadded { SignedLength::Unpadded } else { SignedLength::Padded },
        trailer: if longer { Trailer::TwoMore } else { Trailer::Standard },
        kek_packet: if old { KekPacketSpi::Old } else { KekPacketSpi::New },
        selector_byte_order: byte_order(from)?,
    })
}

fn put_byte_order(out: &mut Encoder, order: ByteOrder) {
    out.u8((order == ByteOrder::Host).into());
}

fn byte_order(from: &mut Decoder<'_>) -> Decoded<ByteOrder> {
    Ok(if from.u8()? != 0 { ByteOrder::Host } else { ByteOrder::Network })
}

fn hash_number(hash: HashAlgorithm) -> usize {
    match hash {
        HashAlgorithm::Md5 => 0,
        HashAlgorithm::Sha1 => 1,
        HashAlgorithm::Sha2_256 => 2,
        HashAlgorithm::Sha2_384 => 3,
        HashAlgorithm::Sha2_512 => 4,
    }
}

pub(super) fn put_rekey(out: &mut Encoder, rekey: &Rekey) {
    match rekey.transport {
        Transport::Unicast => out.u8(0),
        Transport::Multicast { source, destination } => {
            out.u8(1);
            out.socket(source);
            out.socket(destination);
        }
    }
    put_path(out, &rekey.path);
    out.octets(rekey.encryption.name.as_bytes());
    match rekey.signing_key {
        SigningKeyKind::Rsa(bits) => out.u16(bits),
        SigningKeyKind::EcdsaP256 => out.u16(256),
        SigningKeyKind::EcdsaP384 => out.u16(384),
    }
    out.octets(rekey.signing_key_file.as_os_str().as_bytes());
    out.count(hash_number(rekey.signature_hash));
    put_duration(out, rekey.lifetime);
    put_delivery_policy(out, rekey.delivery);
    for flag in [rekey.acknowledgements, rekey.drop_unresponsive_members, rekey.lkh, rekey.legacy] {
        out.u8(flag.into());
    }
}

pub(super) fn rekey(from: &mut Decoder<'_>) -> Decoded<Rekey> {
    let transport = match from.u8()? {
        0 => Transport::Unicast,
        1 => Transport::Multicast { source: from.socket()?, destination: from.socket()? },
        _ => return Err(from.error("a transport")),
    };
    let path = path(from)?;
    let name = from.text()?;
    let encryption = KEK_ENCRYPTIONS.iter().find(|encryption| encryption.name == name);
    let encryption = *encryption.ok_or_else(|| from.error("a cipher of a KEK"))?;
    let signing_key = match from.u16()? {
        256 => SigningKeyKind::EcdsaP256,
        384 => SigningKeyKind::EcdsaP384,
        bits => SigningKeyKind::Rsa(bits),
    };
    let signing_key_file = PathBuf::from(std::ffi::OsString::from_vec(from.octets()?.to_vec()));
    let hash = from.count()?;
    let signature_hash = match hash {
        0 => HashAlgorithm::Md5,
        1 => HashAlgorithm::Sha1,
        2 => HashAlgorithm::Sha2_256,
        3 => HashAlgorithm::Sha2_384,
        4 => HashAlgorithm::Sha2_512,
        _ => return Err(from.error("a hash")),
    };
    let lifetime = duration(from)?;
    let delivery = delivery_policy(from)?;
    let mut flag = || Ok(from.u8()? != 0);
    Ok(Rekey {
        transport,
        path,
        encryption,
        signing_key,
        signing_key_file,
        signature_hash,
        lifetime,
        delivery,
        acknowledgements: flag()?,
        drop_unresponsive_members: flag()?,
        lkh: flag()?,
        legacy: flag()?,
    })
}

pub(super) fn put_path(out: &mut Encoder, path: &MulticastPath) {
    out.option(path.interface.as_deref(), |out, name| out.octets(name.as_bytes()));
    out.u8(path.ttl);
}

pub(super) fn path(from: &mut Decoder<'_>) -> Decoded<MulticastPath> {
    let interface = from.option(|from| from.text().map(str::to_owned))?;
    Ok(MulticastPath { interface, ttl: from.u8()? })
}

pub(super) fn put_delivery_policy(out: &mut Encoder, policy: DeliveryPolicy) {
    put_duration(out, policy.period);
    out.u32(policy.repetitions);
    put_duration(out, policy.acknowledgement_wait);
}

pub(super) fn delivery_policy(from: &mut Decoder<'_>) -> Decoded<DeliveryPolicy> {
    Ok(DeliveryPolicy {
        period: duration(from)?,
        repetitions: from.u32()?,
        acknowledgement_wait: duration(from)?,
    })
}

/// All durations of a configuration are whole seconds.
fn put_duration(out: &mut Encoder, duration: Duration) {
    out.u64(duration.as_secs());
}

fn duration(from: &mut Decoder<'_>) -> Decoded<Duration> {
    from.u64().map(Duration::from_secs)
}
