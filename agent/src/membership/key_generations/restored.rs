//! KeyGenerations of an earlier run: what was written down about them, with the keys that the
//! kernel still holds.

use std::collections::BTreeMap;

use gdoi::group::{GroupAssociatedPolicy, GroupId, GroupPolicy, GroupSa, Spi, TekKeys, TekPolicy};
use ike::BootTime;
use ike::crypto::Secret;

use super::{Generation, KeyGenerations};
use crate::persistence::state_file::{SavedGeneration, SavedSaTek, boot_time, milliseconds};

impl KeyGenerations {
    /// What a later run needs to know beside the keys.
    pub fn save(&self) -> Vec<SavedGeneration> {
        let save = |generation: &Generation| SavedGeneration {
            sa_teks: generation.sa.policy().teks.iter().map(SavedSaTek::from).collect(),
            received: milliseconds(generation.received),
            send_from: milliseconds(generation.send_from),
            receive_until: generation.receive_until.map(milliseconds),
            expiry: generation.expiry.iter().map(|(spi, end)| (*spi, milliseconds(*end))).collect(),
            active_from: generation
                .active_from
                .iter()
                .map(|(spi, from)| (*spi, milliseconds(*from)))
                .collect(),
            deleted: generation.deleted.clone(),
            pushed: generation.pushed,
        };
        self.generations.iter().map(save).collect()
    }

    /// Keys with lifetime left that nobody deleted.
    pub fn keys(&self, now: BootTime) -> BTreeMap<Spi, &TekKeys> {
        let usable = self.generations.iter().filter(|generation| !generation.is_over(now));
        let keys = usable.flat_map(|generation| {
            let alive = |spi: &Spi| generation.expiry.get(spi).is_some_and(|end| *end > now);
            generation
                .sa
                .tek_keys()
                .iter()
                .filter(move |(spi, _)| alive(spi))
                .map(|(spi, keys)| (*spi, keys))
        });
        // An SA TEK whose key is not known keeps its place with an empty one.
        keys.filter(|(_, keys)| !keys.encryption.is_empty() || !keys.integrity.is_empty()).collect()
    }

    /// Whether `keys` has all keys in use of what an earlier run saved. Otherwise that run was cut
    /// off before it had carried the last push out.
    pub fn is_complete(
        saved: &[SavedGeneration],
        keys: impl Fn(Spi) -> Option<TekKeys>,
        now: BootTime,
    ) -> bool {
        let in_use = saved.iter().flat_map(|generation| {
            let until = generation.receive_until.map_or(u64::MAX, |until| until);
            let alive = move |end: u64| boot_time(end.min(until)) > now;
            let used =
                move |(spi, end): &&(Spi, u64)| alive(*end) && !generation.deleted.contains(spi);
            generation.expiry.iter().filter(used).map(|(spi, _)| *spi)
        });
        let mut in_use = in_use;
        in_use.all(|spi| keys(spi).is_some())
    }

    /// Takes up what an earlier run saved, as far as `keys` has it. A TEK whose key is not there
    /// keeps its SA TEKs, whose traffic is blocked; a group SA without any key is left out, and
    /// does not end the ones before it.
    pub fn adopt(
        group: GroupId,
        saved: &[SavedGeneration],
        sa_teks: &[SavedSaTek],
        keys: impl Fn(Spi) -> Option<TekKeys>,
        now: BootTime,
    ) -> Self {
        let mut adopted =
            Self { sa_teks: sa_teks.iter().map(TekPolicy::from).collect(), ..Self::default() };
        let mut bridged = true;
        for saved in saved.iter().rev() {
            let mut expiry: BTreeMap<Spi, BootTime> =
                saved.expiry.iter().map(|(spi, end)| (*spi, boot_time(*end))).collect();
            let alive = |spi: &Spi| expiry.get(spi).is_some_and(|end| *end > now);
            let mut held: BTreeMap<Spi, TekKeys> = expiry
                .keys()
                .filter(|spi| alive(spi))
                .filter_map(|spi| Some((*spi, keys(*spi)?)))
                .collect();
            let has_key = !held.is_empty();
            for (spi, end) in &mut expiry {
                // An SA TEK without a key keeps its place as one that has ended.
                held.entry(*spi).or_insert_with(|| {
                    *end = now.min(*end);
                    TekKeys {
                        encryption: Secret::new(Vec::new()),
                        integrity: Secret::new(Vec::new()),
                    }
                });
            }
            if has_key {
                let policy = GroupPolicy {
                    group,
                    kek: None,
                    gap: GroupAssociatedPolicy::default(),
                    teks: saved.sa_teks.iter().map(TekPolicy::from).collect(),
                };
                adopted.generations.insert(
                    0,
                    Generation {
                        sa: GroupSa::from_kernel(policy, held),
                        received: boot_time(saved.received),
                        send_from: boot_time(saved.send_from),
                        receive_until: saved.receive_until.filter(|_| bridged).map(boot_time),
                        expiry,
                        active_from: saved
                            .active_from
                            .iter()
                            .map(|(spi, from)| (*spi, boot_time(*from)))
                            .collect(),
                        deleted: saved.deleted.clone(),
                        pushed: saved.pushed,
                        sa_teks_before: adopted.sa_teks.clone(),
                    },
                );
            }
            bridged &= has_key;
        }
        adopted.drop_ended(now);
        adopted.shown = adopted.in_use(now);
        adopted
    }
}
