//! A receiver of traces: takes OTLP over HTTP and keeps the bytes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::wait_until;

/// Largest request that is read, in bytes.
const LIMIT: usize = 4 << 20;

/// A running receiver.
#[derive(Debug)]
pub struct OtlpReceiver {
    /// It listens here on 127.0.0.1.
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

/// One export.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path that was posted to.
    pub path: String,
    /// The protobuf bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// Whether the bytes hold this text, for instance the name of a service or span.
    pub fn holds(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl OtlpReceiver {
    /// Listens on a free port.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&sink)));
            }
        });
        Ok(Self { port, requests, task })
    }

    /// What has arrived so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().map(|r| r.clone()).unwrap_or_default()
    }

    /// Waits for an export that holds the given text.
    ///
    /// # Errors
    ///
    /// When none comes within 20 s.
    pub async fn wait_holding(&self, text: &str) -> Result<Request> {
        wait_until(&format!("a trace with {text:?}"), Duration::from_secs(20), || {
            self.requests().into_iter().find(|r| r.holds(text))
        })
        .await
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, sink: Arc<Mutex<Vec<Request>>>) {
    let mut buffer = Vec::new();
    loop {
        let Some((head_end, length)) = read_head(&mut stream, &mut buffer).await else { return };
        while buffer.len() < head_end + length {
            let mut piece = [0_u8; 8192];
            match stream.read(&mut piece).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(piece.get(..n).unwrap_or_default()),
                _ => return,
            }
        }
        let rest = buffer.split_off(head_end + length);
        let head = String::from_utf8_lossy(buffer.get(..head_end).unwrap_or_default()).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = buffer.split_off(head_end);
        if let Ok(mut requests) = sink.lock() {
            requests.push(Request { path, body });
        }
        buffer = rest;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Reads until the empty line; gives where the body starts and how long it is.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(usize, usize)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(buffer.get(..end)?).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(0);
            return (length <= LIMIT).then_some((end + 4, length));
        }
        let mut piece = [0_u8; 8192];
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 && buffer.len() < LIMIT => buffer.extend_from_slice(piece.get(..n)?),
            _ => return None,
        }
    }
}
