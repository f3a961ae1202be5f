//! The byte form of the node protocol: the only file that names bincode.
//!
//! Rules that every serialized type keeps: no recursive type, no `Vec` of a zero-sized type, at most [`LIMIT_BYTES`]; a snapshot,
//! which travels in chunks, at most [`SNAPSHOT_LIMIT_BYTES`].

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The most bytes that decoding may read or allocate: one node frame, 2 MiB. A ledger value may have 1 MiB, and travels with its
/// key, its command and its entry around it.
pub const LIMIT_BYTES: usize = 2 << 20;

/// The same for a snapshot, 1 GiB.
pub const SNAPSHOT_LIMIT_BYTES: usize = 1 << 30;

/// Why bytes and values did not turn into one another.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The value is too large for a frame.
    #[error("the message takes {have} bytes, at most {limit} are allowed")]
    TooLong {
        /// Size of the encoded value in bytes.
        have: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes are not such a value.
    #[error("the bytes are not a valid message: {0}")]
    Malformed(String),
    /// There are bytes behind the value.
    #[error("{extra} bytes follow the message")]
    TrailingBytes {
        /// How many bytes are left over.
        extra: usize,
    },
}

/// Encodes a value.
///
/// # Errors
/// [`CodecError::TooLong`] past [`LIMIT_BYTES`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_within::<LIMIT_BYTES, T>(value)
}

/// Puts an encoded value behind what `bytes` holds already.
///
/// # Errors
/// As [`encode`]; `bytes` may have grown then.
pub fn encode_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    append_within::<LIMIT_BYTES, T>(value, bytes)
}

/// Decodes a value that fills `bytes` to the last one.
///
/// # Errors
/// [`CodecError::TooLong`] before anything is read, [`CodecError::Malformed`], [`CodecError::TrailingBytes`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<LIMIT_BYTES, T>(bytes)
}

/// Encodes a snapshot.
///
/// # Errors
/// [`CodecError::TooLong`] past [`SNAPSHOT_LIMIT_BYTES`].
pub fn encode_snapshot<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_within::<SNAPSHOT_LIMIT_BYTES, T>(value)
}

/// Decodes a snapshot.
///
/// # Errors
/// As [`decode`].
pub fn decode_snapshot<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<SNAPSHOT_LIMIT_BYTES, T>(bytes)
}

fn encode_within<const LIMIT: usize, T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    append_within::<LIMIT, T>(value, &mut bytes)?;
    Ok(bytes)
}

fn append_within<const LIMIT: usize, T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    let configuration = bincode::config::standard().with_limit::<LIMIT>();
    let have = bincode::serde::encode_into_std_write(value, bytes, configuration)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if have > LIMIT { Err(CodecError::TooLong { have, limit: LIMIT }) } else { Ok(()) }
}

fn decode_within<const LIMIT: usize, T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > LIMIT {
        return Err(CodecError::TooLong { have: bytes.len(), limit: LIMIT });
    }
    let configuration = bincode::config::standard().with_limit::<LIMIT>();
    let (value, read) = bincode::serde::decode_from_slice(bytes, configuration)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if read < bytes.len() { Err(CodecError::TrailingBytes { extra: bytes.len() - read }) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_costs_an_error_and_no_memory() {
        // A string that claims 64 GiB: marker 253 (a u64 follows), then the length.
        let mut frame = vec![253];
        frame.extend_from_slice(&(64u64 << 30).to_le_bytes());
        assert!(matches!(decode::<String>(&frame), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let mut frame = encode(&7u32).unwrap();
        frame.push(0);
        assert!(matches!(decode::<u32>(&frame), Err(CodecError::TrailingBytes { extra: 1 })));
    }

    #[test]
    fn a_message_longer_than_a_frame_is_refused_on_both_sides() {
        let long = vec![1u8; LIMIT_BYTES + 1];
        assert!(matches!(encode(&long), Err(CodecError::TooLong { .. })));
        assert!(matches!(decode::<Vec<u8>>(&long), Err(CodecError::TooLong { .. })));
    }
}
