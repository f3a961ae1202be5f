//! Names of things: nodes, members, requests, terms, log positions and loads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node as people name it: `2` in `cloud-node 2` and in `config/cluster.toml`. From 1 to 65,535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for NodeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) | Err(_) => {
                Err(format!("\"{text}\" is not a node id: use a number from 1 to 65535, as in cloud-node 1"))
            }
            Ok(number) => Ok(NodeId(number)),
        }
    }
}

/// One life of a data directory: drawn at random when the directory is made, so that a node whose disk was wiped is not
/// taken for the voter it used to be.
/// In JSON it is its digits: a number of 64 bits is more than most readers of JSON keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, pattern = "^[0-9a-f]{16}$")]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for Incarnation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let has_digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| has_digits);
        number.map(Incarnation).ok_or_else(|| format!("\"{}\" is not an incarnation", text.escape_debug()))
    }
}

impl Serialize for Incarnation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Incarnation)
        }
    }
}

/// A member of the Raft group: the node together with the life of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct MemberId {
    /// The node as people name it.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
}

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.node, self.incarnation)
    }
}

/// A Raft term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where a log ends. Ordered as Raft compares logs: by the term of the last entry, then by its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct LogPosition {
    /// Term of the last entry; 0 when the log is empty.
    pub term: Term,
    /// Number of entries ever appended: index of the last entry + 1; 0 when the log is empty.
    pub length: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.term, self.length)
    }
}

/// Load of a node, in hundredths of a job per worker: exactly what is printed, so that ranks compare what people see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(from = "f64", into = "f64")]
#[schema(value_type = f64, minimum = 0)]
pub struct Load(u32);

impl Load {
    /// A load of `hundredths` / 100 jobs per worker.
    pub const fn from_hundredths(hundredths: u32) -> Self {
        Load(hundredths)
    }

    /// The load in hundredths of a job per worker.
    pub const fn hundredths(self) -> u32 {
        self.0
    }
}

impl From<f64> for Load {
    /// Rounds to two decimals; what is not a number, and what is negative, counts as 0.
    fn from(jobs_per_worker: f64) -> Self {
        // A float-to-integer `as` saturates, so a NaN becomes 0 and infinity the largest load.
        Load((jobs_per_worker * 100.0).round() as u32)
    }
}

impl From<Load> for f64 {
    fn from(load: Load) -> f64 {
        f64::from(load.0) / 100.0
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Makes a name of so many bytes, written as hexadecimal digits: that text in JSON, its bytes in the binary form.
macro_rules! hexadecimal_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
        #[schema(value_type = String, pattern = $pattern)]
        pub struct $name(pub [u8; $length]);

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&data_encoding::HEXLOWER.encode_display(&self.0), formatter)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, formatter)
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let wrong = || format!("\"{}\" is not {}: {} hexadecimal digits are expected", text.escape_debug(), $what, 2 * $length);
                let mut bytes = [0; $length];
                if text.len() != 2 * $length {
                    return Err(wrong());
                }
                let digits = data_encoding::HEXLOWER_PERMISSIVE;
                digits.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| wrong())?;
                Ok($name(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; $length]>::deserialize(deserializer).map($name)
                }
            }
        }
    };
}
pub(crate) use hexadecimal_id;

hexadecimal_id!(
    /// One logical request of a client, the same in every attempt.
    RequestId, 16, "a request id", "^[0-9A-Fa-f]{32}$"
);
hexadecimal_id!(
    /// The name of a cluster's ledger: BLAKE3-256 of its initial membership, random incarnations included.
    ClusterId, 32, "a cluster id", "^[0-9A-Fa-f]{64}$"
);
hexadecimal_id!(
    /// A user: the hash of the first public keys that were registered.
    UserId, 32, "a user id", "^[0-9A-Fa-f]{64}$"
);
hexadecimal_id!(
    /// The keys that a user signs and is answered with at present: their hash.
    UserKeyId, 8, "the id of a user's keys", "^[0-9A-Fa-f]{16}$"
);
hexadecimal_id!(
    /// A sealed image: BLAKE3-256 of its whole header.
    ImageId, 32, "an image id", "^[0-9A-Fa-f]{64}$"
);
hexadecimal_id!(
    /// A cluster key, by eight bytes that tell nothing about it.
    KeyId, 8, "the id of a cluster key", "^[0-9A-Fa-f]{16}$"
);

impl KeyId {
    /// The name of the cluster key of these bytes.
    pub fn of(cluster_key: &[u8; 32]) -> KeyId {
        let hash = blake3::derive_key("image-cloud 2026 cluster key id v1", cluster_key);
        KeyId(*hash.first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_what_is_printed() {
        assert_eq!(Load::from(0.504).to_string(), "0.50");
        assert_eq!(Load::from(f64::NAN), Load::from_hundredths(0));
        assert_eq!(f64::from(Load::from_hundredths(1234)), 12.34);
    }

    #[test]
    fn request_ids_round_trip_and_refuse_anything_else() {
        let id = RequestId([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("+7070707070707070707070707070707".parse::<RequestId>().is_err());
        assert!("07".parse::<RequestId>().is_err());
        assert_eq!("AB".repeat(16).parse(), Ok(RequestId([0xab; 16])));
        assert!("é".repeat(16).parse::<RequestId>().is_err());
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"07070707070707070707070707070707\"");
        assert_eq!(serde_json::from_str::<RequestId>(&json).unwrap(), id);
    }

    /// Most readers of JSON would round the number.
    #[test]
    fn an_incarnation_is_digits_in_json() {
        let incarnation = Incarnation(u64::MAX - 1);
        let json = serde_json::to_string(&incarnation).unwrap();
        assert_eq!(json, "\"fffffffffffffffe\"");
        assert_eq!(serde_json::from_str::<Incarnation>(&json).unwrap(), incarnation);
        assert!(serde_json::from_str::<Incarnation>("\"+ffffffffffffffe\"").is_err());
    }
}
