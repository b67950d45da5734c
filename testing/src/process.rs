//! Processes of a test, and commands of the system.

use std::process::{Child, Command};

/// A process that ends with its test, however that ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` in a shell.
///
/// # Panics
/// It fails; the message is what it says.
pub fn sh(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {error}");
}
