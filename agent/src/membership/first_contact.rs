//! INITIAL-CONTACT (RFC 2407 §4.6.3.3): only the first exchange of this run with a key server may
//! say that there is no other ISAKMP SA. Groups share their key servers, so they share this, too.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ike::config::Identity;

/// Who speaks with whom: our address, the key server's, and who we are there.
type Pair = (SocketAddr, SocketAddr, Identity);

/// The pairs that have, or are about to have, an ISAKMP SA of this run.
#[derive(Clone, Debug, Default)]
pub struct Contacts(Arc<Mutex<BTreeSet<Pair>>>);

/// The right to say INITIAL-CONTACT in one exchange. Given back when the exchange comes to no
/// ISAKMP SA.
#[derive(Debug)]
pub(crate) struct FirstContact {
    contacts: Contacts,
    pair: Pair,
    established: bool,
}

impl Contacts {
    /// The right to say INITIAL-CONTACT, if no exchange has it or has had it.
    pub(crate) fn first(
        &self,
        local: SocketAddr,
        server: SocketAddr,
        identity: &Identity,
    ) -> Option<FirstContact> {
        let pair = (local, server, identity.clone());
        let is_first = self.with(|pairs| pairs.insert(pair.clone()));
        is_first.then(|| FirstContact { contacts: self.clone(), pair, established: false })
    }

    fn with<T>(&self, action: impl FnOnce(&mut BTreeSet<Pair>) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FirstContact {
    /// There is an ISAKMP SA now.
    pub(crate) fn established(mut self) {
        self.established = true;
    }
}

impl Drop for FirstContact {
    fn drop(&mut self) {
        if !self.established {
            self.contacts.with(|pairs| pairs.remove(&self.pair));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_exchange_for_each_key_server_says_it_until_one_is_established() {
        let [local, one, two] = [1, 2, 3].map(|last| SocketAddr::from(([10, 0, 0, last], 848)));
        let identity = Identity::Address(local.ip());
        let contacts = Contacts::default();
        let of_another_group = contacts.clone();
        let first = contacts.first(local, one, &identity).unwrap();
        assert!(of_another_group.first(local, one, &identity).is_none(), "under way");
        assert!(of_another_group.first(local, two, &identity).is_some(), "another key server");
        drop(first);
        let second = of_another_group.first(local, one, &identity).unwrap();
        second.established();
        assert!(contacts.first(local, one, &identity).is_none(), "for the rest of the run");
        let named = Identity::Fqdn("branch1.example".to_owned());
        assert!(contacts.first(local, one, &named).is_some(), "another identity");
    }
}
