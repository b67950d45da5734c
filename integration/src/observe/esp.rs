//! ESP in user space (RFC 4303 §3.4): verifies and decrypts what was captured, with nothing of the
//! kernel's but its key.

use crate::observe::packet::{Packet, word};
use crate::observe::states::State;
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::{U8, U11, U12, U16};
use aes_gcm::aead::{Aead, KeyInit, Nonce, Payload};
use anyhow::{Context, Result, bail};
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::NoPadding};
use ccm::Ccm;
use hmac::{Hmac, Mac};

/// SPI and sequence number, in front of everything (RFC 4303 §2).
const HEADER: usize = 8;
/// Next header of a tunnelled IPv4 packet.
const IPV4: u8 = 4;

/// Opens one whole ESP packet and returns the packet inside.
///
/// # Errors
/// Says which check failed: ICV, padding, next header or the packet inside.
pub fn open(packet: &Packet, state: &State) -> Result<Packet> {
    let spi = packet.spi().context("not an ESP packet")?;
    if spi != state.spi {
        bail!("SPI {spi:#x} is not {:#x}", state.spi);
    }
    let clear = match (&state.combined, &state.encryption) {
        (Some((name, key, bits)), _) => open_combined(&packet.payload, name, key, *bits)?,
        (None, Some((name, key))) => {
            let (hash, integrity_key, bits) =
                state.integrity.as_ref().context("the state has no integrity")?;
            let covered = verify(&packet.payload, hash, integrity_key, bits / 8)?;
            decrypt(covered, name, key)?
        }
        (None, None) => bail!("the state has no cipher"),
    };
    let inner = without_trailer(&clear)?;
    Packet::read(inner).context("no IPv4 packet inside")
}

/// Checks the ICV and returns what it covers.
fn verify<'a>(payload: &'a [u8], hash: &str, key: &[u8], length: usize) -> Result<&'a [u8]> {
    let (covered, icv) = split_end(payload, length)?;
    let good = match hash {
        "hmac(sha1)" => tag_is::<Hmac<sha1::Sha1>>(key, covered, icv)?,
        "hmac(sha256)" => tag_is::<Hmac<sha2::Sha256>>(key, covered, icv)?,
        "hmac(sha384)" => tag_is::<Hmac<sha2::Sha384>>(key, covered, icv)?,
        "hmac(sha512)" => tag_is::<Hmac<sha2::Sha512>>(key, covered, icv)?,
        other => bail!("the verifier does not know {other}"),
    };
    if !good {
        bail!("ICV does not verify");
    }
    Ok(covered)
}

fn tag_is<M: Mac + KeyInit>(key: &[u8], covered: &[u8], icv: &[u8]) -> Result<bool> {
    let mut mac =
        <M as KeyInit>::new_from_slice(key).ok().context("integrity key of a wrong length")?;
    mac.update(covered);
    Ok(mac.verify_truncated_left(icv).is_ok())
}

fn decrypt(covered: &[u8], name: &str, key: &[u8]) -> Result<Vec<u8>> {
    let body = covered.get(HEADER..).context("shorter than an ESP header")?;
    match (name, key.len()) {
        ("ecb(cipher_null)", _) => Ok(body.to_vec()),
        ("cbc(aes)", 16) => decrypt_cbc::<cbc::Decryptor<Aes128>>(body, key),
        ("cbc(aes)", 24) => decrypt_cbc::<cbc::Decryptor<Aes192>>(body, key),
        ("cbc(aes)", 32) => decrypt_cbc::<cbc::Decryptor<Aes256>>(body, key),
        (other, length) => bail!("the verifier does not know {other} with {length} octets of key"),
    }
}

fn decrypt_cbc<D: BlockModeDecrypt + KeyIvInit>(body: &[u8], key: &[u8]) -> Result<Vec<u8>> {
    let (iv, text) = body.split_at_checked(16).context("no room for an IV")?;
    let cipher = D::new_from_slices(key, iv).ok().context("cipher key of a wrong length")?;
    let mut clear = text.to_vec();
    let length = cipher
        .decrypt_padded::<NoPadding>(&mut clear)
        .ok()
        .context("not a whole number of blocks")?
        .len();
    clear.truncate(length);
    Ok(clear)
}

fn open_combined(payload: &[u8], name: &str, key: &[u8], bits: usize) -> Result<Vec<u8>> {
    let salt_length = if name.contains("ccm") { 3 } else { 4 };
    let (key, salt) = split_end(key, salt_length)?;
    let associated = payload.get(..HEADER).context("shorter than an ESP header")?;
    let iv = payload.get(HEADER..HEADER + 8).context("no room for an IV")?;
    let text = payload.get(HEADER + 8..).context("no text")?;
    let nonce = [salt, iv].concat();
    let input = Payload { msg: text, aad: associated };
    match (name, key.len(), bits) {
        ("rfc4106(gcm(aes))", 16, 128) => unseal::<AesGcm<Aes128, U12, U16>>(key, &nonce, input),
        ("rfc4106(gcm(aes))", 24, 128) => unseal::<AesGcm<Aes192, U12, U16>>(key, &nonce, input),
        ("rfc4106(gcm(aes))", 32, 128) => unseal::<AesGcm<Aes256, U12, U16>>(key, &nonce, input),
        ("rfc4106(gcm(aes))", 16, 96) => unseal::<AesGcm<Aes128, U12, U12>>(key, &nonce, input),
        ("rfc4106(gcm(aes))", 32, 96) => unseal::<AesGcm<Aes256, U12, U12>>(key, &nonce, input),
        ("rfc4309(ccm(aes))", 16, 128) => unseal::<Ccm<Aes128, U16, U11>>(key, &nonce, input),
        ("rfc4309(ccm(aes))", 24, 128) => unseal::<Ccm<Aes192, U16, U11>>(key, &nonce, input),
        ("rfc4309(ccm(aes))", 32, 128) => unseal::<Ccm<Aes256, U16, U11>>(key, &nonce, input),
        ("rfc4309(ccm(aes))", 16, 96) => unseal::<Ccm<Aes128, U12, U11>>(key, &nonce, input),
        ("rfc4309(ccm(aes))", 16, 64) => unseal::<Ccm<Aes128, U8, U11>>(key, &nonce, input),
        (other, length, bits) => {
            bail!("the verifier does not know {other}, {length} octets of key, {bits}-bit ICV")
        }
    }
}

fn unseal<A: Aead + KeyInit>(key: &[u8], nonce: &[u8], input: Payload<'_, '_>) -> Result<Vec<u8>> {
    let cipher = A::new_from_slice(key).ok().context("key of a wrong length")?;
    let nonce = Nonce::<A>::try_from(nonce).ok().context("nonce of a wrong length")?;
    cipher.decrypt(&nonce, input).ok().context("ICV does not verify")
}

/// Takes padding, pad length and next header off (RFC 4303 §2.4 to §2.6) and checks the padding's
/// octets 1, 2, 3...
fn without_trailer(clear: &[u8]) -> Result<&[u8]> {
    let (rest, trailer) = split_end(clear, 2)?;
    let (&[padding, next], _) = trailer.split_first_chunk::<2>().context("no trailer")?;
    if next != IPV4 {
        bail!("next header {next} is not IPv4 in a tunnel");
    }
    let (inner, pad) = split_end(rest, usize::from(padding)).context("more padding than packet")?;
    if !pad.iter().zip(1u8..).all(|(octet, expected)| *octet == expected) {
        bail!("padding is not 1, 2, 3...");
    }
    // The inner packet's own length must agree: what is left over is traffic flow padding, which
    // Linux does not send.
    if word(inner, 2).map(usize::from) != Some(inner.len()) {
        bail!("the packet inside is not as long as it says");
    }
    Ok(inner)
}

fn split_end(octets: &[u8], length: usize) -> Result<(&[u8], &[u8])> {
    let cut = octets.len().checked_sub(length).context("shorter than its trailer")?;
    octets.split_at_checked(cut).context("shorter than its trailer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// 172.16.1.10 > 172.16.2.10, ICMP echo request without data.
    const INNER: [u8; 28] = [
        0x45, 0, 0, 28, 0, 9, 0, 0, 64, 1, 0, 0, 172, 16, 1, 10, 172, 16, 2, 10, 8, 0, 0xf7, 0xff,
        0, 0, 0, 0,
    ];

    fn packet(payload: Vec<u8>) -> Packet {
        Packet {
            source: Ipv4Addr::new(172, 16, 1, 10),
            destination: Ipv4Addr::new(172, 16, 2, 10),
            protocol: crate::observe::packet::ESP,
            identification: 1,
            dscp: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            payload,
        }
    }

    fn padded(block: usize) -> Vec<u8> {
        let mut clear = INNER.to_vec();
        let padding = (block - (clear.len() + 2) % block) % block;
        clear.extend((1u8..).take(padding));
        clear.extend([padding as u8, IPV4]);
        clear
    }

    fn state() -> State {
        State {
            source: String::new(),
            destination: String::new(),
            spi: 0x1300,
            request_id: 0,
            integrity: None,
            encryption: None,
            combined: None,
        }
    }

    fn sealed_cbc(key: &[u8; 16], integrity: &[u8]) -> Vec<u8> {
        use cbc::cipher::BlockModeEncrypt;
        let iv = [7u8; 16];
        let mut payload = vec![0, 0, 0x13, 0, 0, 0, 0, 5];
        payload.extend(iv);
        let cipher = cbc::Encryptor::<Aes128>::new_from_slices(key, &iv).unwrap();
        let mut text = padded(16);
        let length = text.len();
        cipher.encrypt_padded::<NoPadding>(&mut text, length).unwrap();
        payload.extend(text);
        let mut mac = <Hmac<sha1::Sha1> as KeyInit>::new_from_slice(integrity).unwrap();
        mac.update(&payload);
        let tag = mac.finalize().into_bytes();
        payload.extend(&tag[..12]);
        payload
    }

    #[test]
    fn opens_cbc_with_sha1_and_only_with_the_right_keys() {
        let (key, integrity) = ([3u8; 16], [4u8; 20]);
        let mut state = state();
        state.encryption = Some(("cbc(aes)".into(), key.to_vec()));
        state.integrity = Some(("hmac(sha1)".into(), integrity.to_vec(), 96));
        let packet = packet(sealed_cbc(&key, &integrity));
        let inner = open(&packet, &state).unwrap();
        assert_eq!((inner.source, inner.protocol), (Ipv4Addr::new(172, 16, 1, 10), 1));

        let mut wrong = state.clone();
        wrong.integrity = Some(("hmac(sha1)".into(), vec![5; 20], 96));
        assert_eq!(open(&packet, &wrong).unwrap_err().to_string(), "ICV does not verify");
        let mut wrong = state.clone();
        wrong.encryption = Some(("cbc(aes)".into(), vec![6; 16]));
        assert!(open(&packet, &wrong).is_err());
        let mut wrong = state;
        wrong.spi = 0x1301;
        assert!(open(&packet, &wrong).unwrap_err().to_string().contains("SPI"));
    }

    #[test]
    fn opens_combined_modes_and_covers_the_sequence_number() {
        let mut key = vec![9u8; 16];
        key.extend([1, 2, 3, 4]);
        let nonce = [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 8];
        let header = [0, 0, 0x13, 0, 0, 0, 0, 6];
        let cipher = AesGcm::<Aes128, U12, U16>::new_from_slice(&key[..16]).unwrap();
        let nonce = Nonce::<AesGcm<Aes128, U12, U16>>::try_from(&nonce[..]).unwrap();
        let text = cipher.encrypt(&nonce, Payload { msg: &padded(4), aad: &header }).unwrap();
        let mut state = state();
        state.combined = Some(("rfc4106(gcm(aes))".into(), key, 128));
        let mut payload = header.to_vec();
        payload.extend([0, 0, 0, 0, 0, 0, 0, 8]);
        payload.extend(text);
        assert!(open(&packet(payload.clone()), &state).is_ok());
        payload[7] = 7;
        assert_eq!(open(&packet(payload), &state).unwrap_err().to_string(), "ICV does not verify");
    }
}
