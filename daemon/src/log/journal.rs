//! The journal on standard error: it stamps its lines itself, and takes a priority in front of each
//! (sd-daemon(3)).

use core::fmt;
use std::env;
use std::io;

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether standard error goes to the journal: the service manager says where its stream leads, and
/// a process started by a service may have another one.
pub(super) fn is_on_standard_error() -> bool {
    let Ok(named) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stream| named == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// Lines with their priority (syslog(3)) in front.
pub(super) struct WithPriority<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The number of a level in syslog(3): err, warning, info, debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt as subscriber;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_begins_with_its_priority() {
        let memory = Memory::default();
        let writer = memory.clone();
        let layer = subscriber::layer()
            .with_ansi(false)
            .with_target(false)
            .event_format(WithPriority(subscriber::format().without_time().with_target(false)))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(event = "one", "first");
            tracing::warn!(event = "two", "second");
            tracing::info!(event = "three", "third");
            tracing::debug!(event = "four", "fourth");
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "<3>ERROR first event=\"one\"",
                "<4> WARN second event=\"two\"",
                "<6> INFO third event=\"three\"",
                "<7>DEBUG fourth event=\"four\"",
            ]
        );
    }
}
