//! What the two ends of a tunnel are configured with, in our words and in strongSwan's.

use super::socket;
use crate::lab::Lab;

pub(in crate::scenarios) const KEY: &str = "a key for the lab alone";

/// One configuration of both ends.
#[derive(Clone, Copy)]
pub(in crate::scenarios) struct Ends {
    pub(in crate::scenarios) what: &'static str,
    /// Lines of our gateway and of our tunnel.
    pub(in crate::scenarios) gateway: &'static str,
    pub(in crate::scenarios) tunnel: &'static str,
    /// Proposals in strongSwan's words.
    pub(in crate::scenarios) ike: &'static str,
    pub(in crate::scenarios) esp: &'static str,
    /// Options of its child, and its key and networks where they differ.
    pub(in crate::scenarios) child: &'static str,
    pub(in crate::scenarios) key: &'static str,
    pub(in crate::scenarios) networks: &'static str,
}

pub(in crate::scenarios) const STRONG: Ends = Ends {
    what: "AES-256-GCM, PFS group 14",
    gateway: "",
    tunnel: "",
    ike: "aes256-sha256-modp2048",
    esp: "aes256gcm16-modp2048",
    child: "",
    key: KEY,
    networks: "172.16.2.0/24",
};

/// What both sides agree on, one line of the table each.
pub(in crate::scenarios) const AGREED: &[Ends] = &[
    STRONG,
    Ends {
        what: "AES-128-CBC, SHA2-256, no PFS",
        tunnel: "esp = [\"aes-128-cbc-sha2-256\"]\npfs = \"off\"",
        esp: "aes128-sha256",
        ..STRONG
    },
    Ends {
        what: "AES-256-CBC, SHA2-512, PFS group 15; phase 1 SHA2-384",
        gateway: "hash = [\"sha2-384\"]\ndh-group = [15]",
        tunnel: "esp = [\"aes-256-cbc-sha2-512\"]\npfs = 15",
        ike: "aes256-sha384-modp3072",
        esp: "aes256-sha512-modp3072",
        ..STRONG
    },
    Ends {
        what: "profile google: AES-128-CBC, SHA-1, group 2",
        gateway: "profile = \"google\"",
        tunnel: "legacy = true",
        ike: "aes128-sha1-modp1024",
        esp: "aes128-sha1-modp1024",
        ..STRONG
    },
];

/// Sequence numbers of 64 bits.
pub(in crate::scenarios) const EXTENDED: Ends = Ends {
    what: "AES-256-CBC, SHA2-256, sequence numbers of 64 bits",
    tunnel: "esp = [\"aes-256-cbc-sha2-256\"]\nextended-sequence-numbers = true",
    esp: "aes256-sha256-esn-modp2048",
    ..STRONG
};

/// What follows the IP header, between the two routers.
pub(in crate::scenarios) const TRANSPORT: Ends = Ends {
    what: "transport mode between the ends",
    tunnel: "mode = \"transport\"",
    child: "mode = transport",
    networks: "10.0.2.1/32",
    ..STRONG
};

impl Ends {
    fn is_transport(&self) -> bool {
        self.child.contains("transport")
    }

    /// Our side, as strongSwan names it.
    fn their_remote(&self) -> &'static str {
        match self {
            _ if self.is_transport() => "10.0.1.1/32",
            _ if self.networks.contains("[icmp]") => "172.16.1.0/24[icmp]",
            _ => "172.16.1.0/24",
        }
    }
}

pub(in crate::scenarios) fn ours(lab: &Lab, ends: &Ends, start: &str) -> String {
    let networks = match ends.is_transport() {
        true => "",
        false => "local-networks = [\"172.16.1.0/24\"]\nremote-networks = [\"172.16.2.0/24\"]\n",
    };
    format!(
        "control-socket = \"{}\"\n\n[[gateway]]\nname = \"lab\"\n{}\n\n[[tunnel]]\nname = \
         \"site\"\ngateway = \"lab\"\nlocal-address = \"10.0.1.1\"\npeer = \
         \"10.0.2.1\"\n{networks}pre-shared-key-file = \"{}\"\nstart = \"{start}\"\n{}\n",
        socket(lab),
        ends.gateway,
        lab.file("tunnel.psk").display(),
        ends.tunnel,
    )
}

pub(in crate::scenarios) fn theirs(ends: &Ends) -> String {
    format!(
        "connections {{\n  lab {{\n    version = 1\n    local_addrs = 10.0.2.1\n    remote_addrs = \
         10.0.1.1\n    proposals = {}\n    local {{\n      auth = psk\n    }}\n    remote {{\n      \
         auth = psk\n    }}\n    children {{\n      net {{\n        local_ts = {}\n        \
         remote_ts = {}\n        esp_proposals = {}\n        {}\n      }}\n    }}\n  \
         }}\n}}\nsecrets {{\n  ike-lab {{\n    secret = \"{}\"\n  }}\n}}\n",
        ends.ike,
        ends.networks,
        ends.their_remote(),
        ends.esp,
        ends.child,
        ends.key
    )
}
