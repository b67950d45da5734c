//! LKH arrays, by themselves and as attributes of a key packet.
#![no_main]

use gdoi::wire::lkh::{LkhAttribute, LkhDownload, LkhUpdate};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    gdoi_fuzz::stable::<LkhDownload>(octets);
    gdoi_fuzz::stable::<LkhUpdate>(octets);
    gdoi_fuzz::stable::<LkhAttribute>(octets);
});
