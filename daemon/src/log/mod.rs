//! Log set-up: lines on standard error, where the journal or the terminal reads them.
//!
//! An event is one line: constant text, typed fields, and a field `event` with a name that stays
//! the same over versions, so that alerts can be built on it.

mod filter;
mod journal;
mod line;

use std::env;
use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::filter::{EnvFilter, FilterFn, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt};

use self::filter::UnknownLevel;
use self::journal::WithPriority;
use self::line::OneLine;

/// The log cannot be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// A part of the filter names no level.
    #[error("log filter \"{text}\": {source}")]
    Level {
        /// The filter as given.
        text: String,
        source: UnknownLevel,
    },
    /// The filter does not parse.
    #[error(
        "log filter \"{text}\": {source}; write a level such as \"info\" or \"info,gdoi=trace\""
    )]
    Filter {
        /// The filter as given.
        text: String,
        source: ParseError,
    },
    /// A subscriber is in place already.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Starts the log. `filter` is the `--log` option; without it RUST_LOG counts, and else `info`.
///
/// netlink_proto stays silent whatever the filter says: its trace lines show whole requests, keys
/// included. Records of the `log` crate are not collected at all for the same reason.
///
/// # Errors
/// The filter does not parse or names an unknown level, or the log is in place already.
pub fn init(filter: Option<&str>) -> Result<(), LogError> {
    let text = match filter {
        Some(text) => text.to_owned(),
        None => env::var("RUST_LOG").unwrap_or_else(|_| String::from("info")),
    };
    let filter = parse(text)?;
    let journal = journal::is_on_standard_error();
    let colors = !journal && io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(move || OneLine::new(io::stderr(), colors));
    let lines = lines.with_target(false).with_ansi(colors);
    let registry = Registry::default().with(harmless()).with(filter);
    let result = if journal {
        let format = WithPriority(fmt::format().without_time().with_target(false).with_ansi(false));
        tracing::subscriber::set_global_default(registry.with(lines.event_format(format)))
    } else {
        tracing::subscriber::set_global_default(registry.with(lines))
    };
    result.map_err(|_| LogError::AlreadySet)
}

fn parse(text: String) -> Result<EnvFilter, LogError> {
    if let Err(source) = filter::check(&text) {
        return Err(LogError::Level { text, source });
    }
    EnvFilter::try_new(&text).map_err(|source| LogError::Filter { text, source })
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
        for text in ["gdoi=loud", "loud", "[=info"] {
            let error = init(Some(text)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("log filter \"{text}\": ")), "{error}");
        }
    }
}
