//! The byte form of the node protocol: the only file that names bincode.
//!
//! Rules that every serialized type keeps: no recursive type, no `Vec` of a zero-sized type, at most [`LIMIT_BYTES`]; a snapshot,
//! which travels in chunks, at most [`SNAPSHOT_LIMIT_BYTES`].
//!
//! What encodes decodes: both sides measure the bytes as they travel. What a hostile length costs: a sequence takes at most 1 MiB
//! before its elements are there (serde's caution), a run of bytes at most 16 frames of untouched zeros, and what is read
//! by borrowing, as the parts of a snapshot are, nothing. A persistent map would believe a length, so `core::ledger` reads its own.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The most bytes of an encoded value: one node frame, 2 MiB. A ledger value may have 1 MiB, and travels with its
/// key, its command and its entry around it.
pub const LIMIT_BYTES: usize = 2 << 20;

/// The same for a snapshot, 1 GiB.
pub const SNAPSHOT_LIMIT_BYTES: usize = 1 << 30;

/// What decoding may be charged for each byte of the input. The library charges an integer with its full width, at most 16 bytes,
/// and a number, a length or a tag may travel as one byte: any less, and what was encoded within the limit would be refused.
const CHARGED: usize = 16;
const CHARGE_LIMIT: usize = CHARGED * LIMIT_BYTES;
const SNAPSHOT_CHARGE_LIMIT: usize = CHARGED * SNAPSHOT_LIMIT_BYTES;

/// Bytes that are gathered before they are hashed.
const HASHED_AT_ONCE: usize = 64 << 10;

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
    decode_within::<LIMIT_BYTES, CHARGE_LIMIT, T>(bytes)
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
    decode_within::<SNAPSHOT_LIMIT_BYTES, SNAPSHOT_CHARGE_LIMIT, T>(bytes)
}

/// BLAKE3-256 of an encoded value of any size, which is never in memory as a whole.
///
/// # Errors
/// [`CodecError::Malformed`] if it is no value that can be encoded.
pub fn hash<T: Serialize>(value: &T) -> Result<[u8; 32], CodecError> {
    let mut hashed = io::BufWriter::with_capacity(HASHED_AT_ONCE, blake3::Hasher::new());
    bincode::serde::encode_into_std_write(value, &mut hashed, bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    let hasher = hashed.into_inner().map_err(|error| CodecError::Malformed(error.to_string()))?;
    Ok(*hasher.finalize().as_bytes())
}

fn encode_within<const LIMIT: usize, T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    append_within::<LIMIT, T>(value, &mut bytes)?;
    Ok(bytes)
}

fn append_within<const LIMIT: usize, T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    let configuration = bincode::config::standard();
    let have = bincode::serde::encode_into_std_write(value, bytes, configuration)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if have > LIMIT { Err(CodecError::TooLong { have, limit: LIMIT }) } else { Ok(()) }
}

fn decode_within<const LIMIT: usize, const CHARGE: usize, T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > LIMIT {
        return Err(CodecError::TooLong { have: bytes.len(), limit: LIMIT });
    }
    let configuration = bincode::config::standard().with_limit::<CHARGE>();
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
        assert!(matches!(decode::<Vec<u64>>(&frame), Err(CodecError::Malformed(_))));
        assert!(matches!(decode_snapshot::<Vec<u64>>(&frame), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn a_hash_is_that_of_the_encoded_bytes() {
        let value: Vec<u32> = (0..100_000).collect();
        assert_eq!(hash(&value).unwrap(), *blake3::hash(&encode(&value).unwrap()).as_bytes());
    }

    /// Integers are short on the way and full in memory: what is small when it is encoded must not be too large to decode.
    #[test]
    fn what_encodes_decodes_however_small_its_parts() {
        let numbers = vec![1u64; LIMIT_BYTES - 8];
        assert_eq!(decode::<Vec<u64>>(&encode(&numbers).unwrap()).unwrap(), numbers);
        let wide = vec![1u128; LIMIT_BYTES - 8];
        assert_eq!(decode::<Vec<u128>>(&encode(&wide).unwrap()).unwrap(), wide);
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
