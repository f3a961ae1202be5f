//! A client of etcd's v3 API: gRPC on HTTP/2, with the few protobuf messages that the benchmark needs written by hand.
//! Field numbers as in etcd's rpc.proto and kv.proto.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;

/// One connection; clones share it.
#[derive(Clone)]
pub struct Channel {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// A key's value and the revision of its last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    pub value: Bytes,
    pub mod_revision: u64,
}

impl Channel {
    pub async fn open(address: &str) -> io::Result<Channel> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        // It ends with the last clone.
        drop(tokio::spawn(connection));
        Ok(Channel { requests, authority: address.to_owned() })
    }

    /// The member that answers and the leader that it knows.
    pub async fn status(&mut self) -> io::Result<(u64, u64)> {
        let answer = self.call("/etcdserverpb.Maintenance/Status", BytesMut::new()).await?;
        let (mut member, mut leader) = (0, 0);
        for (field, value) in Fields(&answer) {
            match (field, value) {
                (1, Value::Bytes(header)) => member = number(header, 2),
                (4, Value::Number(id)) => leader = id,
                _ => {}
            }
        }
        Ok((member, leader))
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.call("/etcdserverpb.KV/Put", put_request(key, value)).await.map(drop)
    }

    /// A linearizable read.
    pub async fn get(&mut self, key: &str) -> io::Result<Option<Current>> {
        let answer = self.call("/etcdserverpb.KV/Range", range_request(key)).await?;
        Ok(first_of_range(&answer))
    }

    /// Puts if the key was last changed at `mod_revision`; gives the new revision, or what the key is now.
    pub async fn swap(
        &mut self,
        key: &str,
        mod_revision: u64,
        value: &[u8],
    ) -> io::Result<Result<u64, Option<Current>>> {
        let mut compare = BytesMut::new();
        put_number(&mut compare, 2, 2); // target: MOD; the result's default is EQUAL
        put_bytes(&mut compare, 3, key.as_bytes());
        put_number(&mut compare, 6, mod_revision);
        let (mut success, mut failure) = (BytesMut::new(), BytesMut::new());
        put_bytes(&mut success, 2, &put_request(key, value));
        put_bytes(&mut failure, 1, &range_request(key));
        let mut request = BytesMut::new();
        put_bytes(&mut request, 1, &compare);
        put_bytes(&mut request, 2, &success);
        put_bytes(&mut request, 3, &failure);
        let answer = self.call("/etcdserverpb.KV/Txn", request).await?;
        let (mut revision, mut succeeded, mut current) = (0, false, None);
        for (field, value) in Fields(&answer) {
            match (field, value) {
                (1, Value::Bytes(header)) => revision = number(header, 3),
                (2, Value::Number(flag)) => succeeded = flag == 1,
                (3, Value::Bytes(response)) => {
                    current = Fields(response).find_map(|(_, value)| match value {
                        Value::Bytes(range) => first_of_range(range),
                        Value::Number(_) => None,
                    });
                }
                _ => {}
            }
        }
        Ok(if succeeded { Ok(revision) } else { Err(current) })
    }

    /// Sends one message and takes one.
    async fn call(&mut self, method: &'static str, message: BytesMut) -> io::Result<BytesMut> {
        let uri = format!("http://{}{method}", self.authority);
        let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(()).map_err(io::Error::other)?;
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0); // not compressed
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(&message);

        let mut requests = self.requests.clone().ready().await.map_err(io::Error::other)?;
        let (response, mut body) = requests.send_request(request, false).map_err(io::Error::other)?;
        body.send_data(framed.freeze(), true).map_err(io::Error::other)?;
        let mut response = response.await.map_err(io::Error::other)?.into_body();
        let mut answer = BytesMut::new();
        while let Some(data) = response.data().await {
            let data = data.map_err(io::Error::other)?;
            response.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
            answer.extend_from_slice(&data);
        }
        let trailers = response.trailers().await.map_err(io::Error::other)?.unwrap_or_default();
        if trailers.get("grpc-status").is_none_or(|status| status != "0") || answer.len() < 5 {
            return Err(io::Error::other(format!("etcd refused: {trailers:?}")));
        }
        Ok(answer.split_off(5))
    }
}

fn put_request(key: &str, value: &[u8]) -> BytesMut {
    let mut message = BytesMut::with_capacity(key.len() + value.len() + 8);
    put_bytes(&mut message, 1, key.as_bytes());
    put_bytes(&mut message, 2, value);
    message
}

fn range_request(key: &str) -> BytesMut {
    let mut message = BytesMut::new();
    put_bytes(&mut message, 1, key.as_bytes());
    message
}

fn first_of_range(range: &[u8]) -> Option<Current> {
    let pair = Fields(range).find_map(|(field, value)| match (field, value) {
        (2, Value::Bytes(pair)) => Some(pair),
        _ => None,
    })?;
    let mut current = Current::default();
    for (field, value) in Fields(pair) {
        match (field, value) {
            (3, Value::Number(revision)) => current.mod_revision = revision,
            (5, Value::Bytes(value)) => current.value = Bytes::copy_from_slice(value),
            _ => {}
        }
    }
    Some(current)
}

/// The number in that field of a message, 0 if it has none.
fn number(message: &[u8], wanted: u64) -> u64 {
    Fields(message)
        .find_map(|(field, value)| match value {
            Value::Number(number) if field == wanted => Some(number),
            _ => None,
        })
        .unwrap_or(0)
}

fn put_varint(message: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        message.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    message.put_u8(number as u8);
}

fn put_number(message: &mut BytesMut, field: u64, number: u64) {
    put_varint(message, field << 3);
    put_varint(message, number);
}

fn put_bytes(message: &mut BytesMut, field: u64, bytes: &[u8]) {
    put_varint(message, field << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message that has only numbers and bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = self.varint()? as usize;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}
