//! The payload chain and every payload in it. The first octet of the input is the type of the first
//! payload.
#![no_main]

use ike::wire::payload::{AnyPayload, encode_chain, first_kind};
use ike::wire::registry::PayloadKind;
use ike::wire::{Chain, InvalidMessage, RawPayload, chain};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((first, octets)) = input.split_first() else { return };
    let Ok(walked) = chain::walk(PayloadKind(*first), octets, 28) else { return };
    let mut joined: Vec<u8> =
        walked.payloads.iter().flat_map(|payload| payload.octets).copied().collect();
    joined.extend_from_slice(walked.padding);
    assert_eq!(joined, octets);
    for index in 0..walked.payloads.len() {
        let (before, behind) = (walked.octets_before(index), walked.octets_behind(index));
        let own = walked.payloads[index].octets.len();
        assert_eq!(before.len() + own + behind.len() + walked.padding.len(), octets.len());
    }
    stable(&walked, ike::wire::Payload::read);
    stable(&walked, gdoi::wire::Payload::read);
});

fn stable<P: AnyPayload + PartialEq + std::fmt::Debug>(
    walked: &Chain<'_>,
    read: impl Fn(&RawPayload<'_>) -> Result<P, InvalidMessage>,
) {
    let Ok(payloads) = walked.payloads.iter().map(&read).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let written = encode_chain(&payloads).expect("what was read can be written");
    let again = chain::walk_clear(first_kind(&payloads), &written, 28)
        .expect("what was written can be walked");
    let again: Vec<P> =
        again.payloads.iter().map(read).collect::<Result<_, _>>().expect("and read");
    assert_eq!(again, payloads);
}
