//! The SA KEK payload (RFC 6407 §5.3).
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    gdoi_fuzz::stable_payload::<gdoi::wire::sa_kek::SaKek>(octets);
});
