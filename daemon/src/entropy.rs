//! Randomness of the operating system: seeds for the protocol machines, keys and SPIs.

use thiserror::Error;

/// The kernel gave no randomness; nothing secret can be made without it.
#[derive(Debug, Error)]
#[error(
    "the kernel gives no randomness ({0}); allow getrandom in the service's system call filter"
)]
pub struct EntropyError(#[from] getrandom::Error);

/// A fresh seed for one protocol machine. Never use one twice.
///
/// # Errors
/// getrandom(2) fails, as it does where a system call filter forbids it.
pub fn seed() -> Result<[u8; 32], EntropyError> {
    let mut seed = [0; 32];
    fill(&mut seed)?;
    Ok(seed)
}

/// Fills `octets` with randomness.
///
/// # Errors
/// getrandom(2) fails; the octets then hold nothing of use.
pub fn fill(octets: &mut [u8]) -> Result<(), EntropyError> {
    Ok(getrandom::fill(octets)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        assert_ne!(super::seed().unwrap(), super::seed().unwrap());
    }
}
