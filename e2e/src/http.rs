//! As much HTTP as it takes to read an admin port, or to ask a server's own API.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// Gets a path from 127.0.0.1.
///
/// # Errors
///
/// When nothing answers within 5 s.
pub async fn get(port: u16, path: &str) -> Result<Response> {
    get_at((Ipv4Addr::LOCALHOST, port).into(), path).await
}

/// Gets a path from another address of this machine.
///
/// # Errors
///
/// As [`get`].
pub async fn get_at(server: SocketAddr, path: &str) -> Result<Response> {
    exchange(server, &format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")).await
}

/// Posts JSON to a path on 127.0.0.1.
///
/// # Errors
///
/// As [`get`].
pub async fn post(port: u16, path: &str, json: &str) -> Result<Response> {
    let length = json.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json");
    let server = (Ipv4Addr::LOCALHOST, port).into();
    exchange(server, &format!("{head}\r\nContent-Length: {length}\r\n\r\n{json}")).await
}

async fn exchange(server: SocketAddr, request: &str) -> Result<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        // Version 1.0, so that the body comes in one piece and the connection closes.
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no HTTP status")?;
        Ok(Response { status, body: body.to_owned() })
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.context("no answer within 5 s")?
}
