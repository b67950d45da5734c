//! Writes the example file and the manual page of the configuration, or with `--check` compares
//! them; `cargo xtask man` runs it.

use std::path::Path;
use std::process::ExitCode;

use daemon::configuration::write_documents;
use gcks::config::file::documents;

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match write_documents(&workspace, &documents(), check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
