//! Octets of the sealed state: numbers in network order, texts and octet strings behind their
//! length.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gdoi::group::{KekPolicy, PushEndpoint};
use ike::BootTime;
use ike::config::Identity;
use ike::crypto::Secret;
use ike::wire::registry::IdType;
use thiserror::Error;
use zeroize::Zeroizing;

/// The octets cannot be decoded although the seal is right: another version wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the state is not understood at octet {offset}: {what}")]
pub struct StateError {
    pub offset: usize,
    /// What was expected there.
    pub what: &'static str,
}

/// Encodes a state. Its buffer is wiped on drop and whenever it grows.
#[derive(Debug, Default)]
pub struct Encoder(Zeroizing<Vec<u8>>);

impl Encoder {
    pub fn finish(mut self) -> Secret {
        Secret::new(std::mem::take(&mut *self.0))
    }

    /// Appends octets without a length.
    pub fn put(&mut self, octets: &[u8]) {
        let need = self.0.len().saturating_add(octets.len());
        if need > self.0.capacity() {
            // Growing in place would leave an unwiped copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(need.saturating_mul(2).max(4096)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(octets);
    }

    pub fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    pub fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// The number of elements that follow.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub fn octets(&mut self, octets: &[u8]) {
        self.count(octets.len());
        self.put(octets);
    }

    /// An optional value: a flag, then the value if there is one.
    pub fn option<T>(&mut self, value: Option<T>, some: impl FnOnce(&mut Self, T)) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            some(self, value);
        }
    }

    /// A point on the boot-time clock.
    pub fn time(&mut self, time: BootTime) {
        let since = time.since_boot();
        self.u64(since.as_secs());
        self.u32(since.subsec_nanos());
    }

    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.u8(4);
                self.put(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.put(&address.octets());
            }
        }
    }

    pub fn socket(&mut self, address: SocketAddr) {
        self.address(address.ip());
        self.u16(address.port());
    }

    pub fn identity(&mut self, identity: &Identity) {
        match identity {
            Identity::Address(address) => {
                self.u8(0);
                self.address(*address);
            }
            Identity::Fqdn(name) => {
                self.u8(1);
                self.octets(name.as_bytes());
            }
            Identity::UserFqdn(name) => {
                self.u8(2);
                self.octets(name.as_bytes());
            }
            Identity::DistinguishedName(name) => {
                self.u8(4);
                self.octets(name);
            }
            Identity::KeyId(octets) => {
                self.u8(3);
                self.octets(octets);
            }
        }
    }
}

impl Encoder {
    /// Policy of a KEK.
    pub fn kek_policy(&mut self, policy: &KekPolicy) {
        self.put(&policy.spi);
        self.u8(policy.protocol);
        for end in [&policy.source, &policy.destination] {
            self.u8(end.kind.0);
            self.u16(end.port);
            self.octets(&end.data);
        }
        self.u16(policy.algorithm);
        self.option(policy.key_length, Self::u16);
        self.u64(policy.lifetime.as_secs());
        self.option(policy.signature_hash, Self::u16);
        self.u16(policy.signature_algorithm);
        self.option(policy.signature_key_length, Self::u16);
        self.option(policy.acknowledgement, Self::u16);
    }
}

/// Reads what [`Encoder`] wrote.
#[derive(Debug)]
pub struct Decoder<'a> {
    octets: &'a [u8],
    offset: usize,
    clock: Clock,
}

/// Translates points in time of the state to the boot-time clock of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The boot-time clock when the state was written.
    pub written: BootTime,
    /// The moment `elapsed` later, on the clock of this boot.
    pub now: BootTime,
    /// How much time passed since the state was written.
    pub elapsed: Duration,
    /// How much of that passed for certain; `None` where all of it did. Over a reboot the wall
    /// clock alone tells the rest, and may be wrong.
    pub certain: Option<Duration>,
}

impl Clock {
    /// No translation: the same boot, no time has passed.
    pub fn same(now: BootTime) -> Self {
        Self { written: now, now, elapsed: Duration::ZERO, certain: None }
    }

    /// The same with the time alone that has passed for certain.
    #[must_use]
    pub fn at_least(self) -> Self {
        Self { elapsed: self.certain.unwrap_or(self.elapsed), ..self }
    }

    /// Whether nothing tells how much time has passed: the wall clock shows no more than what is
    /// certain.
    pub fn is_unknown(self) -> bool {
        self.certain == Some(self.elapsed)
    }

    /// Translates a point in time of the state.
    pub fn translate(self, time: BootTime) -> BootTime {
        match time >= self.written {
            true => {
                let left = time.saturating_since(self.written);
                self.now - self.elapsed.saturating_sub(left) + left.saturating_sub(self.elapsed)
            }
            false => self.now - self.elapsed - self.written.saturating_since(time),
        }
    }
}

type Decoded<T> = Result<T, StateError>;

impl<'a> Decoder<'a> {
    /// Reads `octets`, translating points in time by `clock`.
    pub fn new(octets: &'a [u8], clock: Clock) -> Self {
        Self { octets, offset: 0, clock }
    }

    pub fn error(&self, what: &'static str) -> StateError {
        StateError { offset: self.offset, what }
    }

    /// Ends the decoding: nothing may be left.
    ///
    /// # Errors
    /// Octets are left over.
    pub fn finish(self) -> Decoded<()> {
        match self.offset == self.octets.len() {
            true => Ok(()),
            false => Err(self.error("the end")),
        }
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.octets.get(self.offset..).unwrap_or_default()
    }

    /// # Errors
    /// Here and in all methods below: the octets are missing, or no valid value.
    pub fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let end = self.offset.saturating_add(count);
        let taken = self.octets.get(self.offset..end).ok_or_else(|| self.error("more octets"))?;
        self.offset = end;
        Ok(taken)
    }

    /// Takes `N` octets as an array.
    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.error("more octets"))
    }

    pub fn u8(&mut self) -> Decoded<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Decoded<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Decoded<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Decoded<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The number of elements that follow.
    pub fn count(&mut self) -> Decoded<usize> {
        let count = self.u32()?;
        usize::try_from(count).map_err(|_| self.error("a smaller count"))
    }

    pub fn octets(&mut self) -> Decoded<&'a [u8]> {
        let count = self.count()?;
        self.take(count)
    }

    pub fn text(&mut self) -> Decoded<&'a str> {
        let octets = self.octets()?;
        std::str::from_utf8(octets).map_err(|_| self.error("a text"))
    }

    pub fn secret(&mut self) -> Decoded<Secret> {
        self.octets().map(Secret::copy_from)
    }

    /// A value behind an octet that says whether it is there.
    pub fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Decoded<T>) -> Decoded<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => some(self).map(Some),
            _ => Err(self.error("0 or 1")),
        }
    }

    pub fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.count()?;
        (0..count).map(|_| one(self)).collect()
    }

    /// A point in time, translated to this boot.
    pub fn time(&mut self) -> Decoded<BootTime> {
        let (seconds, nanoseconds) = (self.u64()?, self.u32()?);
        if nanoseconds >= 1_000_000_000 {
            return Err(self.error("a time"));
        }
        Ok(self.clock.translate(BootTime::new(Duration::new(seconds, nanoseconds))))
    }

    pub fn address(&mut self) -> Decoded<IpAddr> {
        match self.u8()? {
            4 => Ok(IpAddr::from(self.array::<4>()?)),
            6 => Ok(IpAddr::from(self.array::<16>()?)),
            _ => Err(self.error("an address")),
        }
    }

    pub fn socket(&mut self) -> Decoded<SocketAddr> {
        Ok(SocketAddr::new(self.address()?, self.u16()?))
    }

    pub fn identity(&mut self) -> Decoded<Identity> {
        Ok(match self.u8()? {
            0 => Identity::Address(self.address()?),
            1 => Identity::Fqdn(self.text()?.to_owned()),
            2 => Identity::UserFqdn(self.text()?.to_owned()),
            3 => Identity::KeyId(self.octets()?.to_vec()),
            4 => Identity::DistinguishedName(self.octets()?.to_vec()),
            _ => return Err(self.error("an identity")),
        })
    }

    /// Policy of a KEK.
    pub fn kek_policy(&mut self) -> Decoded<KekPolicy> {
        let (spi, protocol) = (self.array()?, self.u8()?);
        let mut end = || {
            let (kind, port) = (IdType(self.u8()?), self.u16()?);
            Ok(PushEndpoint { kind, port, data: self.octets()?.to_vec() })
        };
        let (source, destination) = (end()?, end()?);
        Ok(KekPolicy {
            spi,
            protocol,
            source,
            destination,
            algorithm: self.u16()?,
            key_length: self.option(Self::u16)?,
            lifetime: Duration::from_secs(self.u64()?),
            signature_hash: self.option(Self::u16)?,
            signature_algorithm: self.u16()?,
            signature_key_length: self.option(Self::u16)?,
            acknowledgement: self.option(Self::u16)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn points_in_time_keep_their_distance() {
        let same = Clock::same(at(1000));
        assert_eq!((same.translate(at(1500)), same.translate(at(400))), (at(1500), at(400)));
        // 200 s later, on another boot that is 5000 s old.
        let (elapsed, certain) = (Duration::from_secs(200), None);
        let other = Clock { written: at(1000), now: at(5000), elapsed, certain };
        assert_eq!(other.translate(at(1500)), at(5300));
        assert_eq!(other.translate(at(1100)), at(4900), "it is over");
        assert_eq!(other.translate(at(900)), at(4700));
        let fresh = Clock { written: at(1000), now: at(10), elapsed, certain };
        assert_eq!(fresh.translate(at(1500)), at(310));
        assert_eq!(fresh.translate(at(1100)), at(0), "before this boot");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut encoder = Encoder::default();
        encoder.u64(7);
        encoder.octets(&vec![5; 10_000]);
        encoder.option(Some(3), Encoder::u16);
        encoder.option(None, Encoder::u16);
        encoder.time(at(12));
        encoder.socket("[2001:db8::1]:848".parse().unwrap());
        encoder.identity(&Identity::KeyId(vec![0, 255]));
        let octets = encoder.finish();
        let mut decoder = Decoder::new(octets.expose(), Clock::same(at(0)));
        assert_eq!(decoder.u64(), Ok(7));
        assert_eq!(decoder.octets().unwrap().len(), 10_000);
        assert_eq!(decoder.option(Decoder::u16), Ok(Some(3)));
        assert_eq!(decoder.option(Decoder::u16), Ok(None));
        assert_eq!(decoder.time(), Ok(at(12)));
        assert_eq!(decoder.socket().unwrap(), "[2001:db8::1]:848".parse().unwrap());
        assert_eq!(decoder.identity(), Ok(Identity::KeyId(vec![0, 255])));
        decoder.finish().unwrap();
        let mut short = Decoder::new(&[0, 0, 0, 9, 1], Clock::same(at(0)));
        assert_eq!(short.octets().unwrap_err().offset, 4);
    }
}
