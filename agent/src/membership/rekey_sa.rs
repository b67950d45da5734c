//! The rekey SA of a group (RFC 6407 §4): its keys, what came under it, and what waits for an
//! acknowledgement.

use std::collections::BTreeMap;
use std::sync::Arc;

use gdoi::push::RekeyMember;
use ike::BootTime;

use super::pending_ack::PendingAcks;
use crate::persistence::sealed_keys::KeptKek;

/// The rekey SA and what has come under it.
#[derive(Debug, Default)]
pub struct Rekey {
    pub(super) member: Option<RekeyMember>,
    /// They leave when the kernel holds what their pushes said.
    pub(super) acknowledgements: PendingAcks,
    pub(super) discards: BTreeMap<&'static str, u64>,
    /// SPI of the KEK that the last push came under, and its number; of an earlier run at first.
    pub(super) used: Option<([u8; 16], u32)>,
    /// Number of the latest push and when it was received, until the kernel holds what it said.
    pub(super) under_way: Option<(u32, BootTime)>,
    /// The rekey SA of an earlier run, which goes on as soon as there is an address to answer from.
    pub(super) resumed: Option<Arc<KeptKek>>,
}

impl Rekey {
    /// The rekey SA, if the key server pushes.
    pub fn member(&self) -> Option<&RekeyMember> {
        self.member.as_ref()
    }

    /// Pushes discarded, by reason.
    pub fn discards(&self) -> &BTreeMap<&'static str, u64> {
        &self.discards
    }

    /// SPI of the KEK that the last push came under, and its number: what must survive the process.
    pub fn used_number(&self) -> Option<([u8; 16], u32)> {
        self.used
    }

    /// The rekey SA and its end, if there is one to keep for a later run.
    pub fn kept(&self) -> Option<Arc<KeptKek>> {
        match &self.member {
            Some(member) => Some(Arc::new(KeptKek { sa: member.export()?, end: member.expiry()? })),
            None => self.resumed.clone(),
        }
    }

    pub(super) fn resume(&mut self, used: Option<([u8; 16], u32)>, resumed: Option<KeptKek>) {
        self.used = used;
        self.resumed = resumed.map(Arc::new);
    }

    /// When the KEK ends.
    pub(super) fn expiry(&self) -> Option<BootTime> {
        self.member.as_ref()?.expiry()
    }

    pub(super) fn poll_timeout(&self, now: BootTime) -> Option<BootTime> {
        let kek =
            self.member.as_ref().and_then(RekeyMember::poll_timeout).map(|deadline| deadline.at);
        kek.into_iter().chain(self.acknowledgements.poll_timeout(now)).min()
    }

    /// What was pushed last is not carried out: neither it nor copies of it are acknowledged.
    pub(super) fn suppress_acknowledgements(&mut self) {
        self.acknowledgements.suppress();
        self.under_way = None;
        if let Some(member) = &mut self.member {
            member.withhold_acknowledgement();
        }
    }
}
