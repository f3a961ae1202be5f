//! A client of ZooKeeper's protocol, as far as writes need it: a connection with a session, one request at a time.
//!
//! Numbers are big-endian, a string or a buffer stands behind its length, and so does each message (jute, as the Java client writes it).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const CREATE: i32 = 1;
const SET_DATA: i32 = 5;

/// ZooKeeper's codes for "it is there" and "there is none".
const NODE_EXISTS: i32 = -110;
const NO_NODE: i32 = -101;

/// How long a session lives without the pings of the usual clients, in milliseconds: longer than any row.
pub const SESSION_MS: i32 = 600_000;

/// All permissions.
const EVERYTHING: i32 = 31;

pub struct Connection {
    stream: BufReader<TcpStream>,
    message: Vec<u8>,
    number: i32,
}

impl Connection {
    pub async fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream: BufReader::new(stream), message: Vec::new(), number: 0 };
        connection.begin();
        // The protocol's version, the last change that was seen, the time-out, and the session, which is new and has no password yet.
        connection.int(0);
        connection.long(0);
        connection.int(SESSION_MS);
        connection.long(0);
        connection.bytes(&[0; 16]);
        connection.message.push(0);
        connection.send().await?;
        // The version, and then the time-out that was granted; a refused session has none.
        match connection.receive().await?.get(4..8) {
            Some(granted) if granted != [0; 4] => Ok(connection),
            _ => Err(io::Error::other("ZooKeeper opened no session")),
        }
    }

    /// Overwrites a value, or creates it; synced by a majority when this returns.
    pub async fn put(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.request(SET_DATA, key, value);
        self.int(-1);
        self.send().await?;
        match self.answer().await? {
            NO_NODE => self.create(key, value).await,
            code => done(code),
        }
    }

    async fn create(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.request(CREATE, key, value);
        // One rule, for everybody; and it stays when this session ends.
        self.int(1);
        self.int(EVERYTHING);
        self.bytes(b"world");
        self.bytes(b"anyone");
        self.int(0);
        self.send().await?;
        match self.answer().await? {
            // Another client was first, with the same value.
            NODE_EXISTS => Ok(()),
            code => done(code),
        }
    }

    fn request(&mut self, kind: i32, key: &str, value: &[u8]) {
        self.begin();
        self.number += 1;
        self.int(self.number);
        self.int(kind);
        self.bytes(format!("/{key}").as_bytes());
        self.bytes(value);
    }

    /// The code of the answer to the last request.
    async fn answer(&mut self) -> io::Result<i32> {
        let asked = self.number;
        let answer = self.receive().await?;
        let number = |at: usize| answer.get(at..at + 4).map(|bytes| i32::from_be_bytes(bytes.try_into().unwrap()));
        // Its number, the number of the change (8 bytes), and the code.
        match (number(0), number(12)) {
            (Some(number), Some(code)) if number == asked => Ok(code),
            _ => Err(io::Error::other(format!("an answer to something else: {answer:?}"))),
        }
    }

    fn begin(&mut self) {
        self.message.clear();
        // Its length, when it is known.
        self.int(0);
    }

    async fn send(&mut self) -> io::Result<()> {
        let length = self.message.len() as i32 - 4;
        self.message[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.message).await
    }

    async fn receive(&mut self) -> io::Result<&[u8]> {
        let length = self.stream.read_i32().await?;
        if !(0..1 << 20).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        self.message.resize(length as usize, 0);
        self.stream.read_exact(&mut self.message).await?;
        Ok(&self.message)
    }

    fn int(&mut self, number: i32) {
        self.message.extend_from_slice(&number.to_be_bytes());
    }

    fn long(&mut self, number: i64) {
        self.message.extend_from_slice(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.int(bytes.len() as i32);
        self.message.extend_from_slice(bytes);
    }
}

/// Whether the server at this address leads, by its word `srvr`, and takes a write.
pub async fn is_ready(address: &str) -> bool {
    let leads = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"srvr").await?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer).await?;
        io::Result::Ok(answer.contains("Mode: leader"))
    };
    let takes_a_write = async { Connection::open(address).await?.put("ready", b"").await };
    leads.await.unwrap_or(false) && takes_a_write.await.is_ok()
}

fn done(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::other(format!("ZooKeeper says {code}"))) }
}
