//! Lists of data attributes.
#![no_main]

use ike::wire::attribute;
use ike::wire::{Reader, Writer};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    let Ok(attributes) = attribute::read_all(&mut Reader::new(octets)) else { return };
    let mut writer = Writer::new();
    attribute::encode_all(&mut writer, &attributes);
    assert_eq!(writer.finish().as_deref(), Ok(octets));
    for one in &attributes {
        assert!(one.same(one));
        assert_eq!(one.as_basic().map(u64::from), one.as_basic().and(one.as_number()));
    }
});
