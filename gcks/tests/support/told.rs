//! What members are told of a change of the configuration.

use std::collections::BTreeSet;

use gdoi::group::Spi;
use gdoi::push::{Deletion, KekChange, PushAccepted};

/// What a change makes a member hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    /// New TEKs, none deleted.
    NewTeks,
    /// Deletes of single TEKs and new ones.
    OtherTeks,
    /// Deletes of single TEKs.
    TeksDeleted,
    /// All KEKs are deleted.
    KekDeleted,
    /// All KEKs and single TEKs are deleted.
    KekAndTeksDeleted,
    /// All TEKs and KEKs are deleted.
    AllDeleted,
    /// New keys by the key hierarchy.
    Hierarchy,
}

/// What these pushes told a member that held the TEKs `known`.
pub fn told(accepted: &[PushAccepted], known: &BTreeSet<Spi>) -> Told {
    let all = |one: &Deletion| matches!(one, Deletion::AllTeks(_));
    match accepted {
        [] => Told::Nothing,
        [push] if push.deletions.iter().any(all) => Told::AllDeleted,
        [push] if push.kek == KekChange::Deleted => {
            let tek = |one: &Deletion| matches!(one, Deletion::Tek(..));
            match push.deletions.iter().any(tek) {
                true => Told::KekAndTeksDeleted,
                false => Told::KekDeleted,
            }
        }
        [push] => {
            // A push with keys states all of them, new or not.
            let stated = push.group_sa.iter().flat_map(|sa| &sa.policy().teks);
            let is_new = stated.into_iter().any(|tek| !known.contains(&tek.spi));
            match (push.deletions.is_empty(), is_new) {
                (true, _) => Told::NewTeks,
                (false, true) => Told::OtherTeks,
                (false, false) => Told::TeksDeleted,
            }
        }
        _ => Told::Hierarchy,
    }
}
