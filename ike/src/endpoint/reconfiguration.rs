//! Another configuration for an endpoint that has sessions.

use core::net::SocketAddr;

use super::credentials::Credentials;
use super::{Endpoint, EndpointConfig};
use crate::config::{Identity, PeerCredential};
use crate::session::{Exchange, PeerAddress, Session};
use crate::wire::registry::Doi;

impl<X: Exchange> Endpoint<X> {
    /// Takes over another configuration, and ends what it does not allow any more, so that nobody
    /// gets in by what has gone: half-open exchanges and ISAKMP SAs whose credential is gone, has
    /// changed or is not the one meant for their host any more; all of a domain of interpretation
    /// if its phase-1 policy is another one; all of them if our identity is. Peers hear protected
    /// Deletes. Returns who had an ISAKMP SA that ended.
    pub fn reconfigure(&mut self, config: EndpointConfig) -> Vec<SocketAddr> {
        let credentials = Credentials::new(config.peers.clone());
        let ended = {
            let is_allowed = allows(&self.config, &config, &credentials);
            self.half_open
                .retain(|half| is_allowed(half.doi, half.address, half.credential.as_ref()));
            self.sessions.find_all(|session| {
                !is_allowed(session.sa().doi(), session.origin(), session.credential())
            })
        };
        self.half_open.limit(config.limits);
        self.sessions.limit(config.limits);
        self.credentials = credentials;
        self.config = config;
        self.delete_sessions(&ended)
    }

    /// Who has an ISAKMP SA that [`reconfigure`](Self::reconfigure) would end.
    pub fn ended_by(&self, config: &EndpointConfig) -> Vec<(SocketAddr, Identity)> {
        let credentials = Credentials::new(config.peers.clone());
        let is_allowed = allows(&self.config, config, &credentials);
        let ended = |session: &&Session<X>| {
            !is_allowed(session.sa().doi(), session.origin(), session.credential())
        };
        let of = |session: &Session<X>| (session.address().remote, session.identity().clone());
        self.sessions.iter().filter(ended).map(of).collect()
    }
}

/// Whether an exchange or ISAKMP SA that began under `before` may go on under `after`.
fn allows(
    before: &EndpointConfig,
    after: &EndpointConfig,
    credentials: &Credentials,
) -> impl Fn(Doi, PeerAddress, Option<&PeerCredential>) -> bool {
    move |doi, address, used| {
        let same = after.identity == before.identity && after.policy(doi) == before.policy(doi);
        let meant = credentials.find(address.remote.ip());
        same && meant.is_some() && (used.is_none() || used == meant)
    }
}
