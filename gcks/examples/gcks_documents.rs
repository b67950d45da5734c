//! Writes the example file and the manual page of the configuration, or with `--check` compares
//! them; `cargo xtask man` runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let documents = gcks::config::file::documents();
    daemon::configuration::run_documents(env!("CARGO_MANIFEST_DIR"), &documents)
}
