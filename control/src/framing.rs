//! Lines on a stream, with a limit (`PROTOCOL.md` §1).

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Longest request line in octets, its end not counted.
pub const REQUEST_LIMIT: usize = 4096;
/// Longest response line in octets, its end not counted: about 30,000 registered members.
pub const RESPONSE_LIMIT: usize = 16 * 1024 * 1024;

/// Why no line came.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The line goes on beyond the limit.
    #[error("a line is longer than {limit} octets")]
    TooLong {
        /// Most octets that a line may have.
        limit: usize,
    },
    /// The stream ended inside a line.
    #[error("the connection ended after {have} octets of a line")]
    Truncated {
        /// How much of it came.
        have: usize,
    },
    /// Reading from or writing to the stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads one line without its end; `None` at the end of the stream. Never holds more than `limit`
/// octets.
///
/// # Errors
/// [`FrameError`]; after one the stream cannot be used any more.
pub async fn read_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    limit: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return if line.is_empty() {
                Ok(None)
            } else {
                Err(FrameError::Truncated { have: line.len() })
            };
        }
        let end = buffer.iter().position(|octet| *octet == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        if line.len() + part.len() > limit {
            return Err(FrameError::TooLong { limit });
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
