//! The ISAKMP header of a datagram.
#![no_main]

use ike::wire::header;

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| {
    gdoi_fuzz::stable::<header::Header>(datagram);
    if let Ok((header, body)) = header::split(datagram) {
        assert_eq!(header.message(body).as_deref(), Ok(datagram));
    }
});
