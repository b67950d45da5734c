//! Errors as people read them, in one line.

use std::error::Error;

/// An error and its causes, each once: many errors name their cause in a text of their own.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let own = one.to_string();
        if !text.contains(&own) {
            text.push_str(": ");
            text.push_str(&own);
        }
        cause = one.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::client::ClientError;
    use crate::{ErrorCode, Refusal};

    #[test]
    fn no_text_is_there_twice() {
        let source = Refusal { code: ErrorCode::UnknownGroup, message: "no such group".to_owned() };
        let error = ClientError::Refused { path: PathBuf::from("/s"), source };
        let text = with_causes(&error);
        assert_eq!(text.matches("no such group").count(), 1, "{text}");
    }

    #[test]
    fn a_cause_that_is_not_named_follows() {
        let error = std::io::Error::other(std::fmt::Error);
        let text = with_causes(&error);
        assert_eq!(text.matches(&std::fmt::Error.to_string()).count(), 1, "{text}");
    }
}
