//! What the process gives up.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Turns core dumps off, so that keys in memory do not reach a disk, and keeps processes of the
/// same user from reading that memory. Holds without systemd, too.
///
/// # Errors
/// The kernel refuses.
pub fn disable_core_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::getrlimit;

    use super::*;

    #[test]
    fn no_core_is_written_and_no_debugger_attaches() {
        disable_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
    }
}
