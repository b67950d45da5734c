//! The mode of an ESP SA (RFC 4301 §4.1) and its number (RFC 2407 §4.5).

use super::registry::EncapsulationMode;

/// What an ESP SA encapsulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    #[default]
    Tunnel,
    /// What is behind the IP header, between two hosts.
    Transport,
}

impl Mode {
    /// The number of the Encapsulation Mode attribute, without UDP encapsulation.
    pub fn number(self) -> EncapsulationMode {
        match self {
            Self::Tunnel => EncapsulationMode::TUNNEL,
            Self::Transport => EncapsulationMode::TRANSPORT,
        }
    }
}
