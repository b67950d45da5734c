//! Sequences of fragments: the first octet of each is its length in units of four octets, one after
//! the other at growing times. Memory stays bounded, and what comes out whole has been put in.
#![no_main]

use core::time::Duration;

use ike::BootTime;
use ike::fragmentation::Reassembly;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let mut reassembly = Reassembly::default();
    let (mut rest, mut put_in) = (octets, 0);
    for seconds in 0.. {
        let Some((length, behind)) = rest.split_first() else { return };
        let length = (usize::from(*length) * 4).min(behind.len());
        let (datagram, behind) = behind.split_at(length);
        rest = behind;
        put_in += datagram.len();
        let now = BootTime::new(Duration::from_secs(seconds));
        if let Ok(Some(whole)) = reassembly.handle(datagram, now) {
            assert!(whole.len() <= put_in);
        }
        assert!(reassembly.len() <= 8);
    }
});
