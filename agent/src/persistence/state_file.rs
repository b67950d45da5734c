//! What must outlive the process: policy, points in time and numbers of pushes, and no key.
//!
//! The keys themselves stay in the kernel, and in the
//! [sealed state](mod@crate::persistence::sealed_keys) if there is one. A new run finds them there
//! and learns here what they are for and until when, so that it goes on where the one before was
//! cut off. The file is written before the kernel is changed: what it describes and nobody holds
//! yet is left out when it is read.
//!
//! A process that dies loses nothing that it wrote, whether or not the disk has it yet, and a
//! machine that loses its power loses the kernel's keys as well. So the file waits for the disk
//! only where it names counter-mode senders, which must not send again after that either.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crc::{CRC_32_ISO_HDLC, Crc};
use daemon::replace::write_atomically;
use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    SaDirection, Spi, TekPolicy, TekProtection, TekProtocol, TrafficSelector,
};
use ike::BootTime;
use serde::{Deserialize, Serialize};

/// Version of the format. A file of another version counts as missing.
const VERSION: u32 = 7;

/// A checksum, not against forgery: whoever can write the file can compute it.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The number that the kernel draws at every boot; zero if it is not known.
pub type Boot = [u8; 16];

/// All groups at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Points in time count from this boot.
    boot: Boot,
    pub groups: Vec<SavedGroup>,
    exempt: SavedExempt,
}

/// LANs whose `disable_policy` was set before the agent set it, which the kernel forgets with the
/// boot. They may be written down when the groups are still those of an earlier boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedExempt {
    boot: Boot,
    names: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGroup {
    pub id: u32,
    /// Its keys' policy, oldest first.
    pub generations: Vec<SavedGeneration>,
    /// What was protected last, with or without a key.
    pub sa_teks: Vec<SavedSaTek>,
    /// TEKs that were sent on in counter mode: none of them is sent on again after a new
    /// installation.
    pub iv_reuse_hazard: BTreeSet<Spi>,
    /// SPI of the KEK and number of the last push under it.
    pub kek: Option<([u8; 16], u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGeneration {
    pub sa_teks: Vec<SavedSaTek>,
    /// When it was received, milliseconds since boot like all that follows.
    pub received: u64,
    /// When sending on it begins.
    pub send_from: u64,
    /// When receiving on it ends because a newer one took over.
    pub receive_until: Option<u64>,
    /// End of lifetime of each SPI.
    pub expiry: Vec<(Spi, u64)>,
    /// When each TEK may be sent on where another one protects the same traffic.
    pub active_from: Vec<(Spi, u64)>,
    /// SPIs that the key server deleted.
    pub deleted: BTreeSet<Spi>,
    /// Whether it came by push.
    pub pushed: bool,
}

/// One SA TEK, by the numbers of the SAT payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSaTek {
    pub spi: Spi,
    pub ip_protocol: u8,
    pub source: SavedRange,
    pub source_port: u16,
    pub destination: SavedRange,
    pub destination_port: u16,
    pub protocol: u8,
    pub transform: u8,
    pub key_length: Option<u16>,
    pub authentication: Option<u16>,
    pub mode: u16,
    pub address_preservation: u16,
    pub direction: u16,
    pub lifetime_seconds: u64,
    pub lifetime_kilobytes: Option<u64>,
}

/// The addresses of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedRange {
    Any,
    Address(std::net::IpAddr),
    Subnet(ipnet::IpNet),
    Range(std::net::IpAddr, std::net::IpAddr),
}

impl Saved {
    /// The groups as of this boot.
    pub fn new(boot: Boot, groups: Vec<SavedGroup>) -> Self {
        Self { version: VERSION, boot, groups, exempt: SavedExempt::default() }
    }

    /// The same with the LANs that somebody else has exempted from checks in this boot.
    #[must_use]
    pub fn with_exempt(self, boot: Boot, names: BTreeSet<String>) -> Self {
        Self { exempt: SavedExempt { boot, names }, ..self }
    }

    /// The LANs that somebody else has exempted from checks in this boot.
    pub fn exempt(&self, boot: Boot) -> BTreeSet<String> {
        let of_this_boot = self.exempt.boot == boot && boot != Boot::default();
        if of_this_boot { self.exempt.names.clone() } else { BTreeSet::new() }
    }

    /// Whether its points in time are of this boot.
    pub fn is_of(&self, boot: Boot) -> bool {
        self.boot == boot && boot != Boot::default()
    }

    /// The group with this id.
    pub fn group(&self, id: u32) -> Option<&SavedGroup> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// The same with its points in time on another clock.
    #[must_use]
    pub fn on_clock(mut self, boot: Boot, translate: impl Fn(BootTime) -> BootTime) -> Self {
        let move_over = |time: &mut u64| *time = milliseconds(translate(boot_time(*time)));
        for generation in self.groups.iter_mut().flat_map(|group| &mut group.generations) {
            let SavedGeneration { received, send_from, receive_until, expiry, active_from, .. } =
                generation;
            [received, send_from].into_iter().chain(receive_until).for_each(move_over);
            expiry.iter_mut().chain(active_from).for_each(|(_, time)| move_over(time));
        }
        Self { boot, ..self }
    }

    /// All values and their checksum.
    ///
    /// # Errors
    /// None that the values can cause.
    pub fn to_octets(&self) -> io::Result<Vec<u8>> {
        postcard::to_allocvec_crc32(self, CHECKSUM.digest()).map_err(io::Error::other)
    }

    /// What [`Saved::to_octets`] wrote; `None` of another version.
    ///
    /// # Errors
    /// The octets are damaged.
    pub fn from_octets(octets: &[u8]) -> io::Result<Option<Self>> {
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        if postcard::take_from_bytes::<u32>(octets).map_err(damaged)?.0 != VERSION {
            return Ok(None);
        }
        match postcard::take_from_bytes_crc32(octets, CHECKSUM.digest()).map_err(damaged)? {
            (saved, []) => Ok(Some(saved)),
            (_, behind) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} octets too many", behind.len()),
            )),
        }
    }
}

impl SavedGroup {
    /// What no boot changes.
    #[must_use]
    pub fn without_keys(self) -> Self {
        Self { generations: Vec::new(), ..self }
    }
}

/// Where it is kept: a file that every change replaces as a whole.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What it holds, as far as this run wrote it.
    written: Vec<u8>,
}

impl StateFile {
    /// The file at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier run left; `None` if it left nothing.
    ///
    /// # Errors
    /// The file cannot be read or is damaged; nothing is restored then.
    pub fn read(&self) -> io::Result<Option<Saved>> {
        match fs::read(&self.path) {
            Ok(octets) => Saved::from_octets(&octets),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes `saved` unless it is there already.
    ///
    /// # Errors
    /// The disk or the directory is not to be had; what was written before stays.
    pub fn write(&mut self, saved: &Saved) -> io::Result<()> {
        let octets = saved.to_octets()?;
        if self.written == octets && self.path.exists() {
            return Ok(());
        }
        // Neither counts if anything fails.
        self.written.clear();
        if saved.groups.iter().any(|group| !group.iv_reuse_hazard.is_empty()) {
            write_atomically(&self.path, &octets)?;
        } else {
            let beside = self.path.with_extension("new");
            fs::write(&beside, &octets)?;
            fs::rename(&beside, &self.path)?;
        }
        self.written = octets;
        Ok(())
    }
}

/// A point in time as the file holds it, in milliseconds since boot.
pub fn milliseconds(at: BootTime) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// The point in time so many milliseconds after boot.
pub fn boot_time(milliseconds: u64) -> BootTime {
    BootTime::new(Duration::from_millis(milliseconds))
}

impl From<&TekPolicy> for SavedSaTek {
    fn from(policy: &TekPolicy) -> Self {
        let TekPolicy { spi, selector, protection } = policy;
        let range = |range: AddressRange| match range {
            AddressRange::Any => SavedRange::Any,
            AddressRange::Address(address) => SavedRange::Address(address),
            AddressRange::Subnet(net) => SavedRange::Subnet(net),
            AddressRange::Range(first, last) => SavedRange::Range(first, last),
        };
        Self {
            spi: *spi,
            ip_protocol: selector.protocol,
            source: range(selector.source),
            source_port: selector.source_port,
            destination: range(selector.destination),
            destination_port: selector.destination_port,
            protocol: protection.protocol.0,
            transform: protection.transform.0,
            key_length: protection.key_length,
            authentication: protection.authentication.map(|algorithm| algorithm.0),
            mode: protection.mode.0,
            address_preservation: protection.address_preservation.0,
            direction: protection.direction.0,
            lifetime_seconds: protection.lifetime.as_secs(),
            lifetime_kilobytes: protection.lifetime_kilobytes,
        }
    }
}

impl From<&SavedSaTek> for TekPolicy {
    fn from(sa_tek: &SavedSaTek) -> Self {
        let range = |range: SavedRange| match range {
            SavedRange::Any => AddressRange::Any,
            SavedRange::Address(address) => AddressRange::Address(address),
            SavedRange::Subnet(net) => AddressRange::Subnet(net),
            SavedRange::Range(first, last) => AddressRange::Range(first, last),
        };
        Self {
            spi: sa_tek.spi,
            selector: TrafficSelector {
                protocol: sa_tek.ip_protocol,
                source: range(sa_tek.source),
                source_port: sa_tek.source_port,
                destination: range(sa_tek.destination),
                destination_port: sa_tek.destination_port,
            },
            protection: TekProtection {
                protocol: TekProtocol(sa_tek.protocol),
                transform: EspTransform(sa_tek.transform),
                key_length: sa_tek.key_length,
                authentication: sa_tek.authentication.map(AuthenticationAlgorithm),
                mode: EncapsulationMode(sa_tek.mode),
                address_preservation: AddressPreservation(sa_tek.address_preservation),
                direction: SaDirection(sa_tek.direction),
                lifetime: Duration::from_secs(sa_tek.lifetime_seconds),
                lifetime_kilobytes: sa_tek.lifetime_kilobytes,
            },
        }
    }
}

#[cfg(test)]
mod tests;
