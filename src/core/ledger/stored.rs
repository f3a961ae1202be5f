//! How the ledger's parts are read from a snapshot: no length is believed before what it counts is there. (The maps' own reading
//! takes memory for as many elements as the length says.)

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet, Vector};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::protocol::ledger::Stamp;

/// Bytes, read by borrowing them from the input.
pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    struct Read;
    impl Visitor<'_> for Read {
        type Value = Bytes;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }
    }
    from.deserialize_bytes(Read)
}

/// A key of the table.
#[derive(Deserialize)]
pub(super) struct Key(#[serde(deserialize_with = "bytes")] Bytes);

/// A key with the time at which it is due.
#[derive(Deserialize)]
pub(super) struct DueKey(Stamp, #[serde(deserialize_with = "bytes")] Bytes);

impl From<Key> for Bytes {
    fn from(key: Key) -> Bytes {
        key.0
    }
}

impl From<DueKey> for (Stamp, Bytes) {
    fn from(due: DueKey) -> (Stamp, Bytes) {
        (due.0, due.1)
    }
}

/// A map, element by element; its keys are read as `R`.
pub(super) fn map<'de, R, D, K, V>(from: D) -> Result<OrdMap<K, V>, D::Error>
where
    R: Deserialize<'de> + Into<K>,
    D: Deserializer<'de>,
    K: Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    struct Read<R, K, V>(PhantomData<(R, K, V)>);
    impl<'de, R, K, V> Visitor<'de> for Read<R, K, V>
    where
        R: Deserialize<'de> + Into<K>,
        K: Ord + Clone,
        V: Deserialize<'de> + Clone,
    {
        type Value = OrdMap<K, V>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<OrdMap<K, V>, A::Error> {
            let mut map = OrdMap::new();
            while let Some((key, value)) = access.next_entry::<R, V>()? {
                map.insert(key.into(), value);
            }
            Ok(map)
        }
    }
    from.deserialize_map(Read(PhantomData::<(R, K, V)>))
}

/// A set, element by element; they are read as `R`.
pub(super) fn set<'de, R, D, K>(from: D) -> Result<OrdSet<K>, D::Error>
where
    R: Deserialize<'de> + Into<K>,
    D: Deserializer<'de>,
    K: Ord + Clone,
{
    struct Read<R, K>(PhantomData<(R, K)>);
    impl<'de, R: Deserialize<'de> + Into<K>, K: Ord + Clone> Visitor<'de> for Read<R, K> {
        type Value = OrdSet<K>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a set")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<OrdSet<K>, A::Error> {
            let mut set = OrdSet::new();
            while let Some(element) = access.next_element::<R>()? {
                set.insert(element.into());
            }
            Ok(set)
        }
    }
    from.deserialize_seq(Read(PhantomData::<(R, K)>))
}

/// A vector, element by element.
pub(super) fn vector<'de, D, T>(from: D) -> Result<Vector<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Clone,
{
    struct Read<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + Clone> Visitor<'de> for Read<T> {
        type Value = Vector<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vector<T>, A::Error> {
            let mut vector = Vector::new();
            while let Some(element) = access.next_element()? {
                vector.push_back(element);
            }
            Ok(vector)
        }
    }
    from.deserialize_seq(Read(PhantomData))
}
