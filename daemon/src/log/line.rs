//! One event, one line: whatever a peer or a file puts into a field, it cannot forge a second line.

use std::io::{self, Write};

/// Writes each event with its control characters escaped, the final line feed apart.
///
/// `tracing_subscriber` hands over a whole event with each `write_all`.
pub(super) struct OneLine<W> {
    inner: W,
    /// Whether sequences that choose a color stay. Others never do: `tracing_subscriber` escapes
    /// them in messages but not in fields.
    colors: bool,
}

impl<W: Write> OneLine<W> {
    pub(super) fn new(inner: W, colors: bool) -> Self {
        Self { inner, colors }
    }

    fn escaped(&self, event: &str) -> String {
        let event = event.strip_suffix('\n').unwrap_or(event);
        let mut line = String::with_capacity(event.len() + 1);
        for (start, letter) in event.char_indices() {
            let breaks = letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
            if breaks && !(self.colors && event.get(start..).is_some_and(is_color)) {
                line.extend(letter.escape_default());
            } else {
                line.push(letter);
            }
        }
        line.push('\n');
        line
    }
}

/// Whether `text` begins with a sequence that chooses a color (ECMA-48 SGR).
fn is_color(text: &str) -> bool {
    text.strip_prefix("\u{1b}[").is_some_and(|rest| {
        rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';')
            .starts_with('m')
    })
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = self.escaped(&String::from_utf8_lossy(event));
        self.inner.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_field_forges_a_second_line() {
        for colors in [false, true] {
            let memory = Memory::default();
            let writer = memory.clone();
            let layer = fmt::layer()
                .without_time()
                .with_ansi(colors)
                .with_writer(move || OneLine::new(writer.clone(), colors));
            let name = "evil\n\r INFO forged\u{1b}[2J\u{2028}end";
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                tracing::info!(event = "test", name, shown = %name, "message of {name}");
            });
            let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(text.ends_with('\n') && text.contains("evil\\n"), "{text}");
            assert!(!text.contains(['\r', '\u{2028}']) && !text.contains("\u{1b}[2J"), "{text:?}");
        }
    }
}
