//! Log set-up: lines on standard error, where the journal or the terminal reads them.

use std::env;
use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::filter::{EnvFilter, FilterFn, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt};

/// The log cannot be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "log filter {text:?}: {source}; write a level such as \"info\" or \"debug,gdoi=trace\""
    )]
    Filter {
        /// The filter as given.
        text: String,
        /// Where it fails.
        source: ParseError,
    },
    /// A subscriber is in place already.
    #[error("the log is set up twice in one process")]
    Twice,
}

/// Starts the log. `filter` is the `--log` option; without it RUST_LOG counts, and else `info`.
///
/// netlink_proto stays silent whatever the filter says: its trace lines show whole requests, keys
/// included. Records of the `log` crate are not collected at all for the same reason.
///
/// # Errors
/// The filter does not parse, or the log is in place already.
pub fn init(filter: Option<&str>) -> Result<(), LogError> {
    let text = match filter {
        Some(text) => text.to_owned(),
        None => env::var("RUST_LOG").unwrap_or_else(|_| String::from("info")),
    };
    let filter = EnvFilter::try_new(&text).map_err(|source| LogError::Filter { text, source })?;
    // The journal stamps its lines itself.
    let journal = env::var_os("JOURNAL_STREAM").is_some();
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let result = if journal {
        let lines = lines.with_ansi(false).without_time();
        tracing::subscriber::set_global_default(
            Registry::default().with(harmless()).with(filter).with(lines),
        )
    } else {
        let lines = lines.with_ansi(io::stderr().is_terminal());
        tracing::subscriber::set_global_default(
            Registry::default().with(harmless()).with(filter).with(lines),
        )
    };
    result.map_err(|_| LogError::Twice)
}

fn harmless() -> FilterFn {
    FilterFn::new(|metadata| may_be_logged(metadata.target()))
}

fn may_be_logged(target: &str) -> bool {
    !target.starts_with("netlink_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netlink_is_silent_and_the_rest_is_not() {
        assert!(!may_be_logged("netlink_proto"));
        assert!(!may_be_logged("netlink_proto::connection"));
        assert!(!may_be_logged("netlink_packet_core"));
        assert!(may_be_logged("gcks::daemon"));
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = init(Some("gdoi=loud")).unwrap_err();
        assert!(error.to_string().contains("gdoi=loud"), "{error}");
    }
}
