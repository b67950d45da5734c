//! What must outlive the process: policy, points in time and numbers of pushes, and no key.
//!
//! The keys themselves stay in the kernel. A new run finds them there and learns here what they are for and until when,
//! so that it goes on where the one before was cut off. The file is written before the kernel is changed: what it
//! describes and the kernel does not hold yet is left out when it is read.

use core::time::Duration;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use gdoi::BootTime;
use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform, SaDirection, Spi,
    TekPolicy, TekProtection, TekProtocol, TrafficSelector,
};
use serde::{Deserialize, Serialize};

/// Version of the format. A file of another version counts as missing.
const VERSION: u32 = 1;
/// A number that the kernel draws at every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// All groups at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Points in time count from this boot.
    boot: String,
    /// The groups.
    pub groups: Vec<SavedGroup>,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGroup {
    /// Group id.
    pub id: u32,
    /// Its keys' policy, oldest first.
    pub generations: Vec<SavedGeneration>,
    /// What was protected last, with or without a key.
    pub lines: Vec<SavedLine>,
    /// TEKs that were sent on in counter mode: none of them is sent on again after a new installation.
    pub spent: BTreeSet<Spi>,
    /// SPI of the KEK and number of the last push under it.
    pub kek: Option<([u8; 16], u32)>,
}

/// One group SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGeneration {
    /// Its lines.
    pub lines: Vec<SavedLine>,
    /// When it was received, milliseconds since boot like all that follows.
    pub received: u64,
    /// When sending on it begins.
    pub send_from: u64,
    /// When receiving on it ends because a newer one took over.
    pub receive_until: Option<u64>,
    /// End of life of each SPI.
    pub expiry: Vec<(Spi, u64)>,
    /// SPIs that the key server deleted.
    pub deleted: BTreeSet<Spi>,
    /// Whether it came by push.
    pub pushed: bool,
}

/// One policy line, by the numbers of the SAT payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of TekPolicy")]
pub struct SavedLine {
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
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are those of AddressRange")]
pub enum SavedRange {
    Any,
    Address(core::net::IpAddr),
    Subnet(ipnet::IpNet),
    Range(core::net::IpAddr, core::net::IpAddr),
}

impl Saved {
    /// The groups as of this boot.
    pub fn new(groups: Vec<SavedGroup>) -> Self {
        Self { version: VERSION, boot: boot(), groups }
    }

    /// The group with this id. Of another boot only what no boot changes is left.
    pub fn group(&self, id: u32) -> Option<SavedGroup> {
        let group = self.groups.iter().find(|group| group.id == id)?.clone();
        match self.boot == boot() {
            true => Some(group),
            false => Some(SavedGroup { generations: Vec::new(), ..group }),
        }
    }
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    written: Option<Vec<u8>>,
}

impl StateFile {
    /// The file at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier run left; `None` if it left nothing.
    ///
    /// # Errors
    /// The file cannot be read or is damaged; nothing is adopted then.
    pub fn read(&self) -> io::Result<Option<Saved>> {
        let octets = match fs::read(&self.path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let saved: Saved = serde_json::from_slice(&octets)?;
        Ok(Some(saved).filter(|saved| saved.version == VERSION))
    }

    /// Writes `saved` unless it is there already. The file is always whole: it is replaced in one step.
    ///
    /// # Errors
    /// The disk or the directory is not to be had; the file before stays.
    pub fn write(&mut self, saved: &Saved) -> io::Result<()> {
        let octets = serde_json::to_vec(saved)?;
        if self.written.as_ref() == Some(&octets) {
            return Ok(());
        }
        let temporary = self.path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&octets)?;
        file.sync_data()?;
        fs::rename(&temporary, &self.path)?;
        self.written = Some(octets);
        Ok(())
    }
}

fn boot() -> String {
    fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Milliseconds since boot.
pub fn milliseconds(at: BootTime) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// The point in time so many milliseconds after boot.
pub fn boot_time(milliseconds: u64) -> BootTime {
    BootTime::new(Duration::from_millis(milliseconds))
}

impl From<&TekPolicy> for SavedLine {
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

impl From<&SavedLine> for TekPolicy {
    fn from(line: &SavedLine) -> Self {
        let range = |range: SavedRange| match range {
            SavedRange::Any => AddressRange::Any,
            SavedRange::Address(address) => AddressRange::Address(address),
            SavedRange::Subnet(net) => AddressRange::Subnet(net),
            SavedRange::Range(first, last) => AddressRange::Range(first, last),
        };
        Self {
            spi: line.spi,
            selector: TrafficSelector {
                protocol: line.ip_protocol,
                source: range(line.source),
                source_port: line.source_port,
                destination: range(line.destination),
                destination_port: line.destination_port,
            },
            protection: TekProtection {
                protocol: TekProtocol(line.protocol),
                transform: EspTransform(line.transform),
                key_length: line.key_length,
                authentication: line.authentication.map(AuthenticationAlgorithm),
                mode: EncapsulationMode(line.mode),
                address_preservation: AddressPreservation(line.address_preservation),
                direction: SaDirection(line.direction),
                lifetime: Duration::from_secs(line.lifetime_seconds),
                lifetime_kilobytes: line.lifetime_kilobytes,
            },
        }
    }
}
