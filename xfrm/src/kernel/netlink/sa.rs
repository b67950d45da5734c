//! XFRM states on the wire of netlink: our type to `XFRM_MSG_NEWSA` and back.

use core::net::IpAddr;
use core::time::Duration;

use netlink_packet_core::Emitable;
use netlink_packet_xfrm::constants::{
    AF_INET, AF_INET6, IPPROTO_ESP, XFRM_INF, XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL,
    XFRM_SA_XFLAG_OSEQ_MAY_WRAP, XFRM_STATE_AF_UNSPEC, XFRM_STATE_ESN, XFRM_STATE_NOPMTUDISC,
    XFRMA_ALG_AEAD, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_COMP, XFRMA_ALG_CRYPT, XFRMA_COADDR,
    XFRMA_ENCAP, XFRMA_IF_ID, XFRMA_MARK, XFRMA_OFFLOAD_DEV, XFRMA_REPLAY_ESN_VAL,
    XFRMA_REPLAY_VAL, XFRMA_SA_EXTRA_FLAGS, XFRMA_SET_MARK, XFRMA_SET_MARK_MASK, XFRMA_TFCPAD,
};
use netlink_packet_xfrm::{Address, LifetimeConfig, UserSaId, UserSaInfo};
use zeroize::Zeroizing;

use crate::algorithm::{Aead, Encryption, Integrity, Protection};
use crate::attribute::{Attributes, array, attributes, text};
use crate::counters::Counters;
use crate::error::Error;
use crate::kernel::InstalledSa;
use crate::key::Key;
use crate::model::{Encapsulation, Install, Mode, Reqid, Sa, SaId, SaRole, Unicast, Volume};

/// Length of `struct xfrm_usersa_info`.
const SA_INFO: usize = 224;
/// Length of the name at the beginning of `struct xfrm_algo` and its relatives.
const NAME: usize = 64;

/// The body of `XFRM_MSG_NEWSA`.
pub(crate) fn encode(sa: &Sa) -> Result<Attributes, Error> {
    encode_update(sa, sa.hard_lifetime)
}

/// The body of `XFRM_MSG_UPDSA`, which takes over limits as well: `hard_lifetime` counts from the
/// installation.
pub(crate) fn encode_update(sa: &Sa, hard_lifetime: Option<Duration>) -> Result<Attributes, Error> {
    sa.protection.check()?;
    let mut info = UserSaInfo::default();
    info.source(&sa.source);
    info.destination(&sa.id.destination);
    info.id.spi = sa.id.spi;
    info.id.proto = IPPROTO_ESP;
    info.reqid = sa.reqid.0;
    // Any inner address: without the flag an IPv4 tunnel takes IPv4 only, which is what the model
    // has.
    info.flags = if sa.no_path_mtu_discovery { XFRM_STATE_NOPMTUDISC } else { 0 };
    if let Some(limit) = hard_lifetime {
        info.lifetime_cfg.hard_add_expires_seconds = limit.as_secs().max(1);
    }
    let Unicast { replay_window, extended_sequence_numbers, mode, volume, encapsulation } =
        sa.unicast.unwrap_or_default();
    info.mode = mode_number(mode);
    if extended_sequence_numbers {
        info.flags |= XFRM_STATE_ESN;
    }
    if let Some(Volume { soft, hard }) = volume {
        info.lifetime_cfg.soft_byte_limit = soft.max(1);
        info.lifetime_cfg.hard_byte_limit = hard.max(1);
    }
    let mut header = [0; SA_INFO];
    info.emit(&mut header);
    let mut body = Attributes::after(&header);
    match &sa.protection {
        Protection::Separate { encryption, encryption_key, integrity, integrity_key } => {
            let value =
                algorithm(integrity.kernel_name(), integrity_key, Some(integrity.truncation()));
            body = body.octets(XFRMA_ALG_AUTH_TRUNC, &value);
            body = body.octets(
                XFRMA_ALG_CRYPT,
                &algorithm(encryption.kernel_name(), encryption_key, None),
            );
        }
        Protection::Combined { aead, key, icv } => {
            body = body.octets(
                XFRMA_ALG_AEAD,
                &algorithm(aead.kernel_name(), key, Some(u32::from(*icv) * 8)),
            );
        }
    }
    if replay_window > 0 {
        body = body.octets(XFRMA_REPLAY_ESN_VAL, &replay_state(replay_window));
    }
    if let Some(encapsulation) = encapsulation {
        body = body.octets(XFRMA_ENCAP, &encapsulation_template(encapsulation));
    }
    if sa.sequence_may_wrap {
        body = body.octets(XFRMA_SA_EXTRA_FLAGS, &XFRM_SA_XFLAG_OSEQ_MAY_WRAP.to_ne_bytes());
    }
    Ok(body)
}

/// `struct xfrm_encap_tmpl`: the kind, two ports in network order, an address that counts for
/// transport mode alone.
fn encapsulation_template(encapsulation: Encapsulation) -> [u8; ENCAPSULATION] {
    let mut template = [0; ENCAPSULATION];
    let Encapsulation { source_port, destination_port } = encapsulation;
    let fields =
        [ESP_IN_UDP.to_ne_bytes(), source_port.to_be_bytes(), destination_port.to_be_bytes()];
    for (octet, from) in template.iter_mut().zip(fields.concat()) {
        *octet = from;
    }
    template
}

/// The ports of ESP in UDP; `None` for other kinds, and where an address is set.
fn read_encapsulation(value: &[u8]) -> Option<Encapsulation> {
    let rest = value.get(6..ENCAPSULATION)?;
    let kind = u16::from_ne_bytes(array(value, 0)?);
    if kind != ESP_IN_UDP || rest.iter().any(|octet| *octet != 0) {
        return None;
    }
    Some(Encapsulation {
        source_port: u16::from_be_bytes(array(value, 2)?),
        destination_port: u16::from_be_bytes(array(value, 4)?),
    })
}

/// Length of `struct xfrm_encap_tmpl`.
const ENCAPSULATION: usize = 24;
/// `UDP_ENCAP_ESPINUDP`: the form of RFC 3948.
const ESP_IN_UDP: u16 = 2;

/// `struct xfrm_replay_state_esn` before the first packet: the form that has room for a window of
/// more than 32 packets, whatever the length of sequence numbers.
fn replay_state(window: u32) -> Vec<u8> {
    let words = window.div_ceil(32);
    let mut state = Vec::with_capacity(REPLAY_HEADER.saturating_add(words as usize * 4));
    for field in [words, 0, 0, 0, 0, window] {
        state.extend_from_slice(&field.to_ne_bytes());
    }
    state.resize(REPLAY_HEADER.saturating_add(words as usize * 4), 0);
    state
}

/// The kernel's number of a mode.
pub(crate) fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Tunnel => XFRM_MODE_TUNNEL,
        Mode::Transport => XFRM_MODE_TRANSPORT,
    }
}

/// The mode with a number of the kernel's; `None` for those that we never use.
pub(crate) fn mode_of(number: u8) -> Option<Mode> {
    [Mode::Tunnel, Mode::Transport].into_iter().find(|mode| mode_number(*mode) == number)
}

/// Octets of `struct xfrm_replay_state_esn` before its bitmap.
const REPLAY_HEADER: usize = 24;

/// The body of `XFRM_MSG_DELSA`.
pub(crate) fn encode_id(id: &SaId) -> Vec<u8> {
    let mut user = UserSaId { spi: id.spi, proto: IPPROTO_ESP, ..UserSaId::default() };
    user.destination(&id.destination);
    let mut body = vec![0; user.buffer_len()];
    user.emit(&mut body);
    body
}

/// `struct xfrm_algo`, or with a further length `xfrm_algo_auth` and `xfrm_algo_aead`. Lengths are
/// in bits.
fn algorithm(name: &str, key: &Key, further: Option<u32>) -> Zeroizing<Vec<u8>> {
    let mut value = Zeroizing::new(Vec::with_capacity(NAME + 8 + key.len()));
    value.extend_from_slice(name.as_bytes());
    value.resize(NAME, 0);
    let bits = u32::try_from(key.len() * 8).unwrap_or(u32::MAX);
    value.extend_from_slice(&bits.to_ne_bytes());
    if let Some(further) = further {
        value.extend_from_slice(&further.to_ne_bytes());
    }
    value.extend_from_slice(key.expose());
    value
}

/// What a dumped state says, however foreign.
pub(crate) struct Seen {
    /// Identity and reqid, enough to tell whose it is.
    pub(crate) id: SaId,
    pub(crate) reqid: Reqid,
    /// Everything, if it is a state as we make them.
    pub(crate) installed: Option<InstalledSa>,
}

/// Reads the body of `XFRM_MSG_NEWSA`. `None`: not ESP, or too short to be one.
pub(crate) fn decode(body: &[u8]) -> Option<Seen> {
    let header = body.get(..SA_INFO)?;
    let info = UserSaInfo::parse(header).ok()?;
    if info.id.proto != IPPROTO_ESP {
        return None;
    }
    let id = SaId { destination: address(&info.id.daddr, info.family)?, spi: info.id.spi };
    let source = address(&info.saddr, info.family)?;
    let (mut encryption, mut integrity, mut combined, mut extra, mut sequence) =
        (None, None, None, 0, 0);
    let (mut replay_window, mut encapsulation) = (0, None);
    // Without marks, an interface identifier, and whatever else we never set.
    let mut plain = true;
    for (kind, value) in attributes(body.get(SA_INFO..)?) {
        match kind {
            XFRMA_ALG_CRYPT => encryption = read_encryption(value),
            XFRMA_ALG_AUTH_TRUNC => integrity = read_integrity(value),
            XFRMA_ALG_AEAD => combined = read_aead(value),
            XFRMA_SA_EXTRA_FLAGS => extra = array(value, 0).map_or(0, u32::from_ne_bytes),
            XFRMA_REPLAY_VAL => sequence = array(value, 0).map_or(0, u32::from_ne_bytes),
            XFRMA_IF_ID | XFRMA_MARK | XFRMA_SET_MARK | XFRMA_SET_MARK_MASK | XFRMA_TFCPAD => {
                plain &= value.iter().all(|octet| *octet == 0);
            }
            XFRMA_REPLAY_ESN_VAL => {
                replay_window = array(value, REPLAY_HEADER - 4).map_or(0, u32::from_ne_bytes);
            }
            XFRMA_ENCAP => {
                encapsulation = read_encapsulation(value);
                plain &= encapsulation.is_some();
            }
            XFRMA_COADDR | XFRMA_OFFLOAD_DEV | XFRMA_ALG_COMP => plain = false,
            // XFRMA_ALG_AUTH repeats the integrity algorithm without its truncation.
            _ => {}
        }
    }
    let protection = match (combined, encryption, integrity) {
        (Some(combined), _, _) => Some(combined),
        (None, Some((encryption, encryption_key)), Some((integrity, integrity_key))) => {
            Some(Protection::Separate { encryption, encryption_key, integrity, integrity_key })
        }
        _ => None,
    };
    let role = if source.is_unspecified() { SaRole::Inbound } else { SaRole::Outbound };
    let reqid = Reqid(info.reqid);
    let known = plain
        && info.replay_window == 0
        && info.flags & !(XFRM_STATE_NOPMTUDISC | XFRM_STATE_AF_UNSPEC | XFRM_STATE_ESN) == 0
        && extra & !XFRM_SA_XFLAG_OSEQ_MAY_WRAP == 0
        && only_known_limits(&info.lifetime_cfg);
    let made = protection.filter(|_| known).zip(mode_of(info.mode));
    let installed = made.map(|(protection, mode)| InstalledSa {
        sa: Sa {
            id,
            source,
            role,
            reqid,
            protection,
            no_path_mtu_discovery: info.flags & XFRM_STATE_NOPMTUDISC != 0,
            sequence_may_wrap: extra & XFRM_SA_XFLAG_OSEQ_MAY_WRAP != 0,
            install: Install::Freely,
            unicast: Some(Unicast {
                replay_window,
                extended_sequence_numbers: info.flags & XFRM_STATE_ESN != 0,
                mode,
                volume: volume(&info.lifetime_cfg),
                encapsulation,
            })
            .filter(|unicast| *unicast != Unicast::default()),
            hard_lifetime: Some(info.lifetime_cfg.hard_add_expires_seconds)
                .filter(|seconds| !matches!(*seconds, 0 | XFRM_INF))
                .map(Duration::from_secs),
        },
        sequence,
        integrity_failures: info.stats.integrity_failed,
        counters: Counters { packets: info.lifetime_cur.packets, octets: info.lifetime_cur.bytes },
        added: info.lifetime_cur.add_time,
    });
    Some(Seen { id, reqid, installed })
}

fn volume(limits: &LifetimeConfig) -> Option<Volume> {
    let is_bound = |limit: &u64| !matches!(*limit, 0 | XFRM_INF);
    let (soft, hard) = (limits.soft_byte_limit, limits.hard_byte_limit);
    Some(Volume { soft, hard }).filter(|_| is_bound(&soft) && is_bound(&hard))
}

/// Whether nothing but [`Sa::hard_lifetime`] and a [`Volume`] ends it.
pub(crate) fn only_known_limits(limits: &LifetimeConfig) -> bool {
    let volumes = [limits.soft_byte_limit, limits.hard_byte_limit];
    let bound = |limit: &u64| !matches!(*limit, 0 | XFRM_INF);
    let both = volumes.iter().filter(|limit| bound(limit)).count() != 1;
    let rest = LifetimeConfig { soft_byte_limit: 0, hard_byte_limit: 0, ..*limits };
    both && only_a_hard_time_limit(&rest)
}

/// Whether nothing but [`Sa::hard_lifetime`] ends it.
pub(crate) fn only_a_hard_time_limit(limits: &LifetimeConfig) -> bool {
    let LifetimeConfig {
        soft_byte_limit,
        hard_byte_limit,
        soft_packet_limit,
        hard_packet_limit,
        soft_add_expires_seconds,
        hard_add_expires_seconds: _,
        soft_use_expires_seconds,
        hard_use_expires_seconds,
    } = *limits;
    let volumes = [soft_byte_limit, hard_byte_limit, soft_packet_limit, hard_packet_limit];
    let times = [soft_add_expires_seconds, soft_use_expires_seconds, hard_use_expires_seconds];
    volumes.into_iter().chain(times).all(|limit| matches!(limit, 0 | XFRM_INF))
}

/// An address of a family, `None` for another family.
pub(crate) fn address(address: &Address, family: u16) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::V4(address.to_ipv4())),
        AF_INET6 => Some(IpAddr::V6(address.to_ipv6())),
        _ => None,
    }
}

fn read_encryption(value: &[u8]) -> Option<(Encryption, Key)> {
    let name = text(value.get(..NAME)?);
    let found = Encryption::ALL.into_iter().find(|one| one.kernel_name() == name)?;
    Some((found, key(value, NAME + 4)?))
}

fn read_integrity(value: &[u8]) -> Option<(Integrity, Key)> {
    let name = text(value.get(..NAME)?);
    let bits = u32::from_ne_bytes(array(value, NAME + 4)?);
    let found = Integrity::ALL
        .into_iter()
        .find(|one| one.kernel_name() == name && one.truncation() == bits)?;
    Some((found, key(value, NAME + 8)?))
}

fn read_aead(value: &[u8]) -> Option<Protection> {
    let name = text(value.get(..NAME)?);
    let bits = u32::from_ne_bytes(array(value, NAME + 4)?);
    let aead = Aead::ALL.into_iter().find(|one| one.kernel_name() == name)?;
    Some(Protection::Combined {
        aead,
        key: key(value, NAME + 8)?,
        icv: u8::try_from(bits / 8).ok()?,
    })
}

/// The key that begins at `offset`, as long as the length field says.
fn key(value: &[u8], offset: usize) -> Option<Key> {
    let bits = usize::try_from(u32::from_ne_bytes(array(value, NAME)?)).ok()?;
    Some(Key::copy_from(value.get(offset..offset.checked_add(bits.div_ceil(8))?)?))
}

#[cfg(test)]
mod tests;
