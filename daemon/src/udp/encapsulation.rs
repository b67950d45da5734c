//! The socket option UDP_ENCAP, which the library does not name.

use nix::libc;
use nix::setsockopt_impl;
use nix::sys::socket::sockopt::SetUsize;

/// What the kernel does with datagrams that hold packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct UdpEncapsulation;

setsockopt_impl!(UdpEncapsulation, libc::IPPROTO_UDP, libc::UDP_ENCAP, usize, SetUsize);

/// `UDP_ENCAP_ESPINUDP`: the form of RFC 3948.
pub(super) const ESP_IN_UDP: usize = 2;
