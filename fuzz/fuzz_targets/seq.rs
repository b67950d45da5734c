//! The SEQ payload.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    gdoi_fuzz::stable_payload::<gdoi::wire::seq::SequenceNumber>(octets);
});
