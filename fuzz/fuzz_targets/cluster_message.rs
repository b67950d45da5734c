//! Messages between the servers of a cluster.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    if let Ok(message) = cluster::message::Message::decode(octets) {
        let written = message.encode().expect("what was read can be written");
        assert_eq!(written.expose(), octets);
        if let cluster::message::Content::Part(part) = &message.content {
            let _ = cluster::message::Assembly::new(part);
        }
    }
});
