//! The key-value store over HTTP: what its routes take and answer as JSON.
//!
//! Keys are UTF-8 here. A value is text where people could read it ([`text_of`]), else base64 under another name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::protocol::ledger::{Expectation, KeyValue, KvOperation, KvResult};

/// Longest key in bytes, if the configuration names no other: 4 KiB.
pub const KEY_LIMIT_BYTES: usize = 4 << 10;
/// Longest value in bytes, if the configuration names no other: 1 MiB.
pub const VALUE_LIMIT_BYTES: usize = 1 << 20;
/// The longest key that a configuration may allow, in bytes: with every byte as a percent sign and two digits it fits a path.
pub const MOST_KEY_BYTES: usize = 16 << 10;
/// The largest value that a configuration may allow, in bytes: with all that travels around it, it fits a frame between nodes.
pub const MOST_VALUE_BYTES: usize = 1536 << 10;
/// Most operations in one request.
pub const OPERATIONS_LIMIT: usize = 256;
/// What a request may have beyond one value, in bytes: keys and small values. One entry of the log must hold all of it.
pub const BESIDE_VALUE_BYTES: usize = 64 << 10;

/// A value as text, if it is UTF-8 without control characters, ends of lines and tabs apart: JSON writes six bytes for each of those.
pub fn text_of(value: &[u8]) -> Option<&str> {
    let is_plain = |character: char| !character.is_control() || matches!(character, '\t' | '\r' | '\n');
    std::str::from_utf8(value).ok().filter(|text| text.chars().all(is_plain))
}

/// A value as JSON has it: as text, or else in base64.
pub fn text_or_base64(value: &[u8]) -> (Option<String>, Option<String>) {
    match text_of(value) {
        Some(text) => (Some(text.to_owned()), None),
        None => (None, Some(BASE64.encode(value))),
    }
}

/// Answer to a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// Entries of the log up to and including the write.
    pub commit: u64,
    /// The ledger's revision after it.
    pub revision: u64,
    /// What came of each operation.
    pub results: Vec<KvResult>,
}

/// Answer to a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listed {
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// The ledger's revision.
    pub revision: u64,
    /// Keys in order.
    pub items: Vec<Item>,
    /// Whether there are more: ask again with `after=` the last key.
    pub more: bool,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The value, if it is UTF-8 without control characters other than tab, line feed and carriage return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Revision in which the key was made.
    pub create_revision: u64,
    /// Revision of its last change.
    pub mod_revision: u64,
    /// Changes since it was made.
    pub version: u64,
    /// When it is gone, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_ms: Option<u64>,
}

impl Item {
    /// The value's bytes.
    ///
    /// # Errors
    /// `value_base64` is not base64.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match (&self.value, &self.value_base64) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(coded)) => BASE64.decode(coded).map_err(|error| error.to_string()),
            (None, None) => Ok(Vec::new()),
        }
    }
}

impl From<KeyValue> for Item {
    fn from(found: KeyValue) -> Self {
        let (text, coded) = text_or_base64(&found.value);
        Item {
            key: String::from_utf8_lossy(&found.key).into_owned(),
            value: text,
            value_base64: coded,
            create_revision: found.create_revision,
            mod_revision: found.mod_revision,
            version: found.version,
            expires_unix_ms: found.expires.map(|stamp| stamp.0),
        }
    }
}

/// One event of `GET /api/v1/watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The revision of the change.
    pub revision: u64,
    /// The key.
    pub key: String,
    /// What it is now; none if it is gone.
    pub item: Option<Item>,
}

/// Body of `POST /api/v1/kv`: operations that are done all together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The operations, in their order.
    pub operations: Vec<BatchOperation>,
}

/// One operation of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum BatchOperation {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// The value as text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// The value in base64, in place of `value`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value_base64: Option<String>,
        /// Time after which the key is gone, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in_ms: Option<u64>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Lets the batch fail unless the key is as said; exactly one of the conditions.
    Require {
        /// The key.
        key: String,
        /// It is there (true) or not (false).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        present: Option<bool>,
        /// It was last changed in this revision.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mod_revision: Option<u64>,
        /// It has this value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// Adds to a number.
    Add {
        /// The key.
        key: String,
        /// What is added.
        by: i64,
        /// The least value that may come out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        floor: Option<i64>,
    },
}

impl BatchOperation {
    /// The operation as it goes into the log.
    ///
    /// # Errors
    /// Two values, no condition, or two: one line that says what to do.
    pub fn into_operation(self) -> Result<KvOperation, String> {
        Ok(match self {
            BatchOperation::Put { key, value, value_base64, expires_in_ms } => {
                let value = match (value, value_base64) {
                    (Some(text), None) => Bytes::from(text),
                    (None, Some(coded)) => {
                        Bytes::from(BASE64.decode(&coded).map_err(|error| format!("value_base64 of {key:?}: {error}"))?)
                    }
                    _ => return Err(format!("put {key:?}: give either value or value_base64")),
                };
                KvOperation::Put { key: key.into(), value, expires_in_ms }
            }
            BatchOperation::Delete { key } => KvOperation::Delete { key: key.into() },
            BatchOperation::Require { key, present, mod_revision, value } => {
                let expect = match (present, mod_revision, value) {
                    (Some(false), None, None) => Expectation::Absent,
                    (Some(true), None, None) => Expectation::Present,
                    (None, Some(revision), None) => Expectation::ModRevision(revision),
                    (None, None, Some(value)) => Expectation::Value(value.into()),
                    _ => return Err(format!("require {key:?}: give exactly one of present, mod_revision and value")),
                };
                KvOperation::Require { key: key.into(), expect }
            }
            BatchOperation::Add { key, by, floor } => KvOperation::Add { key: key.into(), by, floor },
        })
    }
}

/// Answer of `GET /api/v1/cluster/hash`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateHash {
    /// Entries that this node has applied.
    pub commit: u64,
    /// BLAKE3-256 of everything that they add up to, in hexadecimal.
    pub hash: String,
}

/// Routes and headers of the key-value store, in one place for both sides.
pub mod route {
    use std::borrow::Cow;
    use std::str::Utf8Error;

    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

    /// `GET` lists, `POST` takes a [`Batch`](super::Batch).
    pub const KV: &str = "/api/v1/kv";
    /// One key: `GET`, `PUT`, `DELETE`, and `POST` to add.
    pub const KEY: &str = "/api/v1/kv/{key}";
    /// `GET`: a [`StateHash`](super::StateHash).
    pub const HASH: &str = "/api/v1/cluster/hash";
    /// `GET`: server-sent events, a [`Changed`](super::Changed) each. Query: `prefix=`, `after=REVISION`.
    pub const WATCH: &str = "/api/v1/watch";
    /// The path of a key. None for `.` and `..`, which no path can end in: whoever reads an address takes them for steps in it, with
    /// percent signs or without.
    pub fn of_key(key: &str) -> Option<String> {
        let is_step = |part: &str| matches!(part, "." | "..");
        if is_step(key) {
            return None;
        }
        // Slashes are kept where people would put them; doubled ones, and those around a step, might be put right on the way.
        let is_plain = key.split('/').all(|part| !part.is_empty() && !is_step(part));
        Some(format!("{KV}/{}", utf8_percent_encode(key, if is_plain { PLAIN } else { NO_SLASH })))
    }

    /// The key of a path.
    ///
    /// # Errors
    /// What stands in it is not UTF-8 when its percent signs are decoded.
    pub fn key_of(path: &str) -> Result<Cow<'_, str>, Utf8Error> {
        let coded = path.strip_prefix(KV).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
        percent_decode_str(coded).decode_utf8()
    }

    /// What stands in a path as it is.
    const PLAIN: &AsciiSet = &NO_SLASH.remove(b'/');
    /// The same, in a single part of it.
    const NO_SLASH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

    /// Response header: entries of the log that the answer comes from.
    pub const COMMIT: &str = "x-commit";
    /// Response header: the ledger's revision.
    pub const REVISION: &str = "x-revision";
    /// Response header of a single value: revision in which the key was made.
    pub const CREATE_REVISION: &str = "x-create-revision";
    /// Response header of a single value: revision of its last change.
    pub const MOD_REVISION: &str = "x-mod-revision";
    /// Response header of a single value: changes since it was made.
    pub const VERSION: &str = "x-version";
    /// Response header of a single value that expires: when it is gone, in milliseconds since 1970.
    pub const EXPIRES: &str = "x-expires-unix-ms";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KvOperation, String> {
        serde_json::from_str::<BatchOperation>(text).map_err(|error| error.to_string())?.into_operation()
    }

    #[test]
    fn operations_are_read_and_ambiguous_ones_refused() {
        let key = Bytes::from("k");
        let value = Bytes::from("v");
        assert_eq!(
            parse(r#"{"op":"put","key":"k","value":"v"}"#),
            Ok(KvOperation::Put { key: key.clone(), value: value.clone(), expires_in_ms: None })
        );
        assert_eq!(
            parse(r#"{"op":"put","key":"k","value_base64":"dg==","expires_in_ms":5}"#),
            Ok(KvOperation::Put { key: key.clone(), value, expires_in_ms: Some(5) })
        );
        assert_eq!(
            parse(r#"{"op":"require","key":"k","present":false}"#),
            Ok(KvOperation::Require { key, expect: Expectation::Absent })
        );
        for wrong in [
            r#"{"op":"put","key":"k"}"#,
            r#"{"op":"put","key":"k","value":"v","value_base64":"dg=="}"#,
            r#"{"op":"put","key":"k","value_base64":"?"}"#,
            r#"{"op":"require","key":"k"}"#,
            r#"{"op":"require","key":"k","present":true,"value":"v"}"#,
            r#"{"op":"drop","key":"k"}"#,
            r#"{"op":"delete","key":"k","prefix":true}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// What a client puts into an address comes out of the path at the server, whatever an HTTP library does with addresses.
    #[test]
    fn any_key_survives_its_path() {
        let survives = |key: &str| {
            let Some(path) = route::of_key(key) else { return matches!(key, "." | "..") };
            let address = reqwest::Url::parse(&format!("http://127.0.0.1:8001{path}?stale=true")).unwrap();
            route::key_of(address.path()).unwrap() == key
        };
        for key in [
            "a",
            "a/b",
            "/",
            "//",
            "/a",
            "//a",
            "a/",
            "a//b",
            ".",
            "..",
            "./a",
            "../a",
            "a/..",
            "a/../b",
            "a/./b",
            "/..",
            "%2e",
            "%2e%2e",
            "a/%2e%2e/b",
            "a%2fb",
            "a b",
            "a?b",
            "a#b",
            "a\\b",
            "\\..\\",
            "\t",
            "\n",
            "\0",
            "ä/ö",
            "a;b",
            "...",
            ".a",
            "a/...",
        ] {
            assert!(survives(key), "{key:?}");
        }
        assert_eq!(route::of_key("user/7.name").unwrap(), "/api/v1/kv/user/7.name");
        proptest::proptest!(|(key in "[a./%2eE?#\\\\ \t~]{1,12}|\\PC{1,20}")| {
            proptest::prop_assert!(survives(&key), "{key:?}");
        });
    }

    /// As JSON, no value is much longer than it is: neither a list nor an event grows over what its reader takes.
    #[test]
    fn a_value_of_control_characters_is_no_text() {
        assert_eq!(text_of(b"a\tb\r\nc"), Some("a\tb\r\nc"));
        for value in [&b"\0"[..], b"a\x1b[31m", b"\x7f", b"\xff"] {
            assert_eq!(text_of(value), None, "{value:?}");
        }
        let value = Bytes::from(vec![0; VALUE_LIMIT_BYTES]);
        let found = KeyValue { key: "k".into(), value, create_revision: 1, mod_revision: 1, version: 1, expires: None };
        assert!(serde_json::to_vec(&Item::from(found)).unwrap().len() < 3 * VALUE_LIMIT_BYTES / 2);
    }

    #[test]
    fn a_value_that_is_no_text_survives_json() {
        let found = KeyValue {
            key: Bytes::from("k"),
            value: Bytes::from_static(&[0xff, 0, 1]),
            create_revision: 1,
            mod_revision: 2,
            version: 3,
            expires: None,
        };
        let item: Item = serde_json::from_str(&serde_json::to_string(&Item::from(found)).unwrap()).unwrap();
        assert_eq!(item.bytes().unwrap(), [0xff, 0, 1]);
    }
}
