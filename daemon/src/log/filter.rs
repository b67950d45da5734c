//! The check of a log filter: `EnvFilter` takes a word that is no level for the name of a module
//! and then logs nothing.

use thiserror::Error;

use crate::configuration::closest;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A part of a filter that names no level.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("\"{name}\" is not a level; {}", remedy(.name))]
pub struct UnknownLevel {
    pub name: String,
}

fn remedy(name: &str) -> String {
    let levels = format!("write one of {}, or MODULE=LEVEL", LEVELS.join(", "));
    match closest(name, LEVELS.into_iter()) {
        Some(level) => format!("did you mean \"{level}\"? {levels}"),
        None => levels,
    }
}

/// Whether every part of `filter` is `LEVEL` or `MODULE=LEVEL`.
pub(super) fn check(filter: &str) -> Result<(), UnknownLevel> {
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Err(UnknownLevel { name: level.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_with_levels_pass() {
        for filter in ["info", "WARN", "off", "info,gdoi=trace", "agent=debug, xfrm=off", ""] {
            assert_eq!(check(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn an_unknown_level_is_refused_with_the_list() {
        assert_eq!(
            check("inof").unwrap_err().to_string(),
            "\"inof\" is not a level; did you mean \"info\"? write one of off, error, warn, info, \
             debug, trace, or MODULE=LEVEL"
        );
        for filter in ["loud", "gdoi", "info,gdoi=", "info,gdoi=7", "agent=verbose"] {
            let text = check(filter).unwrap_err().to_string();
            assert!(text.contains("off, error, warn, info, debug, trace"), "{text}");
        }
    }
}
