//! The sequence number payload (RFC 6407 §5.7).
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    gdoi_fuzz::stable_payload::<gdoi::wire::seq::SequenceNumber>(octets);
});
