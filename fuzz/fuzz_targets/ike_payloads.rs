//! Payloads of phase 1 and of informational exchanges: each input as each of them.
#![no_main]

use gdoi_fuzz::stable_payload;
use ike::wire::{
    cert, cert_request, delete, fragment, hash, id, ke, nat_d, nonce, notify, sa, signature, vendor,
};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    stable_payload::<sa::SecurityAssociation>(octets);
    stable_payload::<notify::Notification>(octets);
    stable_payload::<delete::Delete>(octets);
    stable_payload::<ke::KeyExchange>(octets);
    stable_payload::<nonce::Nonce>(octets);
    stable_payload::<hash::Hash>(octets);
    stable_payload::<signature::Signature>(octets);
    stable_payload::<vendor::VendorId>(octets);
    stable_payload::<nat_d::NatDetection>(octets);
    stable_payload::<fragment::Fragment>(octets);
    stable_payload::<cert::Certificate>(octets);
    stable_payload::<cert_request::CertificateRequest>(octets);
    if let Some(id) = stable_payload::<id::Identification>(octets)
        && let Some(identity) = id.as_identity()
    {
        assert_eq!(id::Identification::of(&identity).data, id.data);
    }
});
