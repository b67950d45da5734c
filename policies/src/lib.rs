//! From group policy to desired kernel state: a pure function, and the only crate that knows both
//! GDOI and XFRM.
//!
//! [`check`] refuses what XFRM cannot do before keys arrive; [`compile()`] turns the state of all
//! groups of the machine into one [`xfrm::Desired`]; [`explain()`] lists the same in an operator's
//! terms.
//!
//! ```text
//! priority   policies                                            verdict
//! SERVER     LOCAL <-> key server, UDP port of the server        allow
//! EXCLUDE    exclude rules, in both directions                   allow
//! LOCAL      OUT `dev LAN`, everything                           allow
//! FAIL_OPEN  fail-open rules of a group without a key            allow
//! SELECTORS  SA TEKs in the order received, group by group      ESP
//! MIGRATING  protected prefixes of a group that only receives    allow
//! ERRORS     OUT, ICMP errors from the router's LAN addresses    allow
//! BLOCK      protected prefixes, and every TEK selector          block
//! ```
//!
//! # Choices that the sources leave open
//!
//! - **`any` is 0.0.0.0/0** in XFRM (IPv4: the group's data path has no IPv6 yet). A traffic
//!   selector `any -> any` makes everything group traffic but key server traffic, excludes and the
//!   LAN side. The nf_tables guard then stands at the LANs, between those and every other
//!   interface, so that a DHCP client on the WAN still works.
//! - **Explicit traffic selectors beat mirrored ones**: a symmetric traffic selector A -> B also
//!   protects B -> A, unless a traffic selector of another TEK says exactly B -> A.
//! - **Exclude rules count in both directions**, for all groups of the machine, since the kernel
//!   has one policy database.
//! - **Selectors with a protocol or a port add nothing to the guard**: the guard works on
//!   prefixes, and other traffic between these prefixes is not the group's. The policies alone
//!   protect such traffic selectors.
//! - **Beyond [`BLOCKED_PAIRS`] pairs of protected prefixes the guards alone close them**: policies
//!   are about pairs, and those of 200 prefixes would be 120,000.

#![warn(missing_docs)]

pub mod compile;
mod error;
pub mod explain;
mod failclose;
pub mod group;
mod local;
mod mirror;
mod open;
pub mod precedence;
mod protection;
mod rollover;
mod sa_tek;
mod selector;
pub mod zone;

pub use compile::{check, compile};
pub use error::{GroupUnusable, Unusable};
pub use explain::explain;
pub use failclose::{BLOCKED_PAIRS, closed_by_guards_alone};
pub use group::{FailurePolicy, GroupInput, GroupOptions, GroupState, InstalledTek, Mode};
pub use selector::{PAIRS_PER_SELECTOR, RANGE_PREFIXES};
pub use zone::{LanInterface, WanInterface, Zones};
