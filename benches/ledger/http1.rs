//! A client of our key-value API: one request at a time on a kept-alive connection, bytes out, status and length in.

use std::io::{self, Write};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::people::Asked;

/// Longer answers than this are not expected.
const BUFFER_BYTES: usize = 4096;

/// Pause before a request goes out again, with its id, because no leader was confirmed at that moment.
const PAUSE: Duration = Duration::from_millis(5);

pub struct Connection {
    stream: TcpStream,
    host: String,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The first half of the request ids, the client's own.
    client: u64,
    sequence: u64,
}

/// What came back.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    pub async fn open(address: &str, client: u64) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (request, answer) = (Vec::with_capacity(1024), vec![0; BUFFER_BYTES]);
        Ok(Connection { stream, host: address.to_owned(), request, answer, client, sequence: 0 })
    }

    /// Sends a request with a fresh id and reads its answer.
    pub async fn call(&mut self, method: &str, key: &str, query: &str, body: &[u8]) -> io::Result<Answer<'_>> {
        self.sequence += 1;
        self.request.clear();
        write!(self.request, "{method} /api/v1/kv/{key}{query} HTTP/1.1\r\nhost: {}\r\n", self.host)?;
        if method != "GET" {
            write!(self.request, "idempotency-key: {:016x}{:016x}\r\n", self.client, self.sequence)?;
            write!(self.request, "content-length: {}\r\n", body.len())?;
        }
        self.exchange(body).await
    }

    /// The same with a signed request, which has an id of its own.
    pub async fn signed(&mut self, asked: &Asked) -> io::Result<Answer<'_>> {
        self.request.clear();
        let Asked { method, path, body, id, authorization, .. } = asked;
        write!(self.request, "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: {authorization}\r\n", self.host)?;
        write!(self.request, "idempotency-key: {id}\r\ncontent-length: {}\r\n", body.len())?;
        self.exchange(body).await
    }

    async fn exchange(&mut self, body: &[u8]) -> io::Result<Answer<'_>> {
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        loop {
            self.stream.write_all(&self.request).await?;
            let (status, start, end) = self.answer().await?;
            if status != 503 {
                return Ok(Answer { status, body: &self.answer[start..end] });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn answer(&mut self) -> io::Result<(u16, usize, usize)> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answer[filled..]).await?;
            if read == 0 {
                return Err(io::Error::other("the connection ended, or the answer is too long"));
            }
            filled += read;
            if let Some(found) = parse(&self.answer[..filled]).filter(|(_, _, end)| filled >= *end) {
                return Ok(found);
            }
        }
    }
}

/// Status, start and end of the body, once the head is complete.
fn parse(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let start = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..start]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Some((status, start, start + length.unwrap_or(0usize)))
}
