//! The GAP payload, and a member's request in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    if let Some(gap) = gdoi_fuzz::stable_payload::<gdoi::wire::gap::Gap>(octets) {
        let _ = gdoi::wire::sender_id_request(&gap);
    }
});
