//! What every fuzz target of a decoder checks.

use std::fmt::Debug;

use ike::wire::chain::Body;
use ike::wire::{Codec, RawPayload};

/// Whatever `octets` decode to must survive being written and read again.
pub fn stable<T: Codec + PartialEq + Debug>(octets: &[u8]) -> Option<T> {
    let value = T::decode(octets).ok()?;
    let written = value.to_octets().expect("what was read can be written");
    assert!(written.len() <= octets.len(), "writing made it longer");
    let again = T::decode(&written).expect("what was written can be read");
    assert_eq!(value, again);
    assert_eq!(again.to_octets().as_ref(), Ok(&written));
    Some(value)
}

/// As [`stable`], for the body of a payload that stands at some offset of a message: faults must
/// lie within it.
pub fn stable_payload<T: Body + PartialEq + Debug>(octets: &[u8]) -> Option<T> {
    let mut payload = vec![0, 0, 0, 0];
    payload.extend_from_slice(octets);
    let raw = RawPayload { kind: T::KIND, offset: 28, octets: &payload };
    match raw.read::<T>() {
        Ok(value) => {
            assert_eq!(stable::<T>(octets).as_ref(), Some(&value));
            Some(value)
        }
        Err(error) => {
            let place = error.offset();
            assert!((32..=32 + octets.len()).contains(&place), "{error} is outside the payload");
            assert!(T::decode(octets).is_err());
            None
        }
    }
}
