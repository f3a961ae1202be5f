//! Frames on a byte stream: the length first, checked before anything is allocated.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::codec::{self, CodecError, LIMIT_BYTES};
use crate::protocol::frame::{self, PREAMBLE_BYTES, PreambleError};
use crate::time::{self, Moment};
use crate::transport::tls::{HandshakeError, TlsFault};

/// How long a frame that has begun may take to arrive: who drips is cut off.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// How much room is made at a time: memory follows what has arrived, not what was announced.
const READ_STEP_BYTES: usize = 4 << 10;
const READ_STEP_MAX_BYTES: usize = 64 << 10;

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub enum WireError {
    /// The other side is no node, or of another version.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    /// The announced length is over the limit.
    #[error("a frame of {have} bytes was announced, the limit is {limit}")]
    TooLong {
        /// The announced length.
        have: usize,
        /// The most that is taken here.
        limit: usize,
    },
    /// The stream ended in the middle of a frame.
    #[error("the connection ended within a frame")]
    Truncated,
    /// A frame took too long.
    #[error("a frame was begun and not finished within {} ms", .limit.as_millis())]
    Slow {
        /// The time it had.
        limit: Duration,
    },
    /// The bytes are no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The other side is not who it should be, or somebody changed what it sent.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        TlsFault::of(&error).map_or_else(|| WireError::Io(error), WireError::Tls)
    }
}

impl From<HandshakeError> for WireError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Fault(fault) => WireError::Tls(fault),
            HandshakeError::Io(error) => WireError::Io(error),
        }
    }
}

/// Reads frames. Every method may be dropped while it waits: what has arrived stays in the buffer.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// When the first byte of the unfinished frame was seen.
    begun: Option<Moment>,
    frame_timeout: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader at the start of a stream.
    pub fn new(stream: R) -> Self {
        FrameReader { stream, buffer: Vec::new(), begun: None, frame_timeout: FRAME_TIMEOUT }
    }

    /// The same with another limit than [`FRAME_TIMEOUT`].
    #[cfg(test)]
    pub fn with_frame_timeout(mut self, limit: Duration) -> Self {
        self.frame_timeout = limit;
        self
    }

    /// Reads and checks the preamble; false if the stream ends before its first byte.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn preamble(&mut self) -> Result<bool, WireError> {
        while self.buffer.len() < PREAMBLE_BYTES {
            if !self.fill(PREAMBLE_BYTES).await? {
                return Ok(false);
            }
        }
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes.copy_from_slice(&self.buffer[..PREAMBLE_BYTES]);
        self.consume(PREAMBLE_BYTES);
        frame::check_preamble(bytes)?;
        Ok(true)
    }

    /// The next message of at most `limit` bytes; none when the stream has ended between two frames.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn message<T: DeserializeOwned>(&mut self, limit: usize) -> Result<Option<T>, WireError> {
        while self.buffer.len() < 4 {
            if !self.fill(4).await? {
                return Ok(None);
            }
        }
        let mut length = [0; 4];
        length.copy_from_slice(&self.buffer[..4]);
        let length = u32::from_be_bytes(length) as usize;
        if length > limit {
            return Err(WireError::TooLong { have: length, limit });
        }
        while self.buffer.len() < 4 + length {
            self.fill(4 + length).await?;
        }
        let message = codec::decode(&self.buffer[4..4 + length])?;
        self.consume(4 + length);
        Ok(Some(message))
    }

    /// Takes in more bytes on the way to `target`; false at the end of the stream if nothing is buffered.
    async fn fill(&mut self, target: usize) -> Result<bool, WireError> {
        let room = (target - self.buffer.len()).clamp(READ_STEP_BYTES, READ_STEP_MAX_BYTES);
        self.buffer.reserve(room);
        let mut stream = (&mut self.stream).take(room as u64);
        let read = match self.begun {
            None => stream.read_buf(&mut self.buffer).await?,
            Some(begun) => {
                let limit = self.frame_timeout;
                let left = limit.saturating_sub(time::now().since(begun));
                tokio::time::timeout(left, stream.read_buf(&mut self.buffer))
                    .await
                    .map_err(|_| WireError::Slow { limit })??
            }
        };
        if read == 0 {
            return if self.buffer.is_empty() { Ok(false) } else { Err(WireError::Truncated) };
        }
        self.begun.get_or_insert_with(time::now);
        Ok(true)
    }

    fn consume(&mut self, length: usize) {
        self.buffer.drain(..length);
        self.buffer.shrink_to(READ_STEP_MAX_BYTES);
        self.begun = if self.buffer.is_empty() { None } else { Some(time::now()) };
    }

    /// Bytes that the buffer has room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Reads and forgets until the stream ends.
    pub async fn discard(mut self) {
        let mut scratch = [0; 512];
        while matches!(self.stream.read(&mut scratch).await, Ok(read) if read > 0) {}
    }
}

/// A message as a frame: length and bytes.
///
/// # Errors
/// [`CodecError`] if it is too long.
pub fn encode_frame<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0; 4];
    codec::encode_into(message, &mut frame)?;
    let length = frame.len() - 4;
    debug_assert!(length <= LIMIT_BYTES);
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Writes all bytes within `limit`, through whatever keeps some back. After an error the stream is of no use any more: it may end within a frame.
///
/// # Errors
/// The socket's error, or `TimedOut`.
pub async fn write_within<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8], limit: Duration) -> io::Result<()> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    match tokio::time::timeout(limit, write).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read")),
    }
}
