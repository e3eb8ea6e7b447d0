//! The PROXY protocol: a balancer that we trust states who really connected.
//!
//! The header comes first on the connection, before TLS. Exactly its bytes are read, so that what follows is
//! left for TLS or SIP.

use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// How long the header may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Length of the fixed part of version 2, and no more than the shortest header of version 1.
const START: usize = 15;
/// Version 2 begins with this; the length of the rest stands in bytes 14 and 15.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_V2: usize = 16;
/// The longest header of version 1, with its line end.
const MAX_V1: usize = 107;
/// The longest header of version 2 that we read. Two addresses take 52 bytes; the rest are extensions, which
/// balancers fill with a few hundred bytes.
const MAX_V2: usize = 4096;

/// A connection of a trusted balancer did not begin as it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Nothing, or only a part of the header.
    #[error("the PROXY header did not come within 5 s")]
    Slow,
    /// The connection ended inside the header.
    #[error("the connection ended before the PROXY header was complete")]
    Ended,
    /// Something else came.
    #[error("the connection does not begin with a PROXY header of version 1 or 2")]
    Malformed,
    /// The header is longer than any should be.
    #[error("the PROXY header is longer than {MAX_V2} bytes")]
    TooLong,
}

/// Reads the header. Returns the address that it states, or `None` when the balancer speaks for itself (LOCAL,
/// UNKNOWN, or a family that is not IP).
///
/// # Errors
///
/// [`ProxyError`]; the connection is of no use then.
pub async fn read_header<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, ProxyError> {
    read_within(stream, HEADER_TIMEOUT).await
}

async fn read_within<R: AsyncRead + Unpin>(stream: &mut R, limit: Duration) -> Result<Option<SocketAddr>, ProxyError> {
    timeout(limit, read(stream)).await.map_err(|_| ProxyError::Slow)?
}

async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, ProxyError> {
    let mut header = Vec::with_capacity(MAX_V1);
    more(stream, &mut header, START).await?;
    if header.starts_with(SIGNATURE_V2) {
        more(stream, &mut header, FIXED_V2 - START).await?;
        let [.., high, low] = *header.as_slice() else { return Err(ProxyError::Malformed) };
        let rest = usize::from(u16::from_be_bytes([high, low]));
        if FIXED_V2 + rest > MAX_V2 {
            return Err(ProxyError::TooLong);
        }
        more(stream, &mut header, rest).await?;
    } else if header.starts_with(b"PROXY ") {
        // The end of the line is not known beforehand, and what follows it is not ours to take.
        while !header.ends_with(b"\r\n") {
            if header.len() >= MAX_V1 {
                return Err(ProxyError::Malformed);
            }
            more(stream, &mut header, 1).await?;
        }
    } else {
        return Err(ProxyError::Malformed);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(&header, config) {
        Ok((parsed, length)) if length == header.len() => Ok(parsed.proxied_address().map(|address| address.source)),
        _ => Err(ProxyError::Malformed),
    }
}

async fn more<R: AsyncRead + Unpin>(stream: &mut R, header: &mut Vec<u8>, count: usize) -> Result<(), ProxyError> {
    let from = header.len();
    header.resize(from + count, 0);
    let Some(space) = header.get_mut(from..) else { return Err(ProxyError::Malformed) };
    stream.read_exact(space).await.map(drop).map_err(|_| ProxyError::Ended)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a connection that begins with `bytes` gives, with what is left on it afterwards.
    async fn read_from(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyError>, Vec<u8>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let read = read_header(&mut far).await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        (read, rest)
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_V2.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const ADDRESSES: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x20, 0x01, 0x13, 0xc5];

    #[tokio::test]
    async fn the_stated_source_is_read_and_not_a_byte_more() {
        let stated = SocketAddr::from(([203, 0, 113, 7], 0x2001));
        let mut with_extension = ADDRESSES.to_vec();
        with_extension.extend([4, 0, 2, 9, 9]);
        let mut six = vec![0; 36];
        six[0] = 0xfd;
        six[15] = 7;
        six[32] = 1;
        for (header, source) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 8193 5061\r\n".to_vec(), Some(stated)),
            (b"PROXY TCP6 fd00::7 fd00::1 256 5061\r\n".to_vec(), Some("[fd00::7]:256".parse().unwrap())),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &ADDRESSES), Some(stated)),
            (v2(0x21, 0x11, &with_extension), Some(stated)),
            (v2(0x21, 0x21, &six), Some("[fd00::7]:256".parse().unwrap())),
            (v2(0x20, 0x11, &ADDRESSES), None),
            (v2(0x20, 0, &[]), None),
        ] {
            let mut bytes = header.clone();
            bytes.extend(b"\x16\x03 what follows");
            let (read, rest) = read_from(&bytes).await;
            assert_eq!(read, Ok(source), "{}", header.escape_ascii());
            assert_eq!(rest, b"\x16\x03 what follows", "{}", header.escape_ascii());
        }
    }

    #[tokio::test]
    async fn whatever_is_no_whole_header_is_refused() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat();
        for (bytes, error) in [
            (b"".to_vec(), ProxyError::Ended),
            (b"PROXY TCP4 203.0.113.7".to_vec(), ProxyError::Ended),
            (b"OPTIONS sip:corp.example SIP/2.0\r\n".to_vec(), ProxyError::Malformed),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello of TLS".to_vec(), ProxyError::Malformed),
            (b"PROXY TCP4 203.0.113.700 10.0.0.1 8193 5061\r\n".to_vec(), ProxyError::Malformed),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 81930 5061\r\n".to_vec(), ProxyError::Malformed),
            (long, ProxyError::Malformed),
            (v2(0x21, 0x11, &ADDRESSES[..8]), ProxyError::Malformed),
            (v2(0x31, 0x11, &ADDRESSES), ProxyError::Malformed),
            (v2(0x22, 0x11, &ADDRESSES), ProxyError::Malformed),
            (v2(0x21, 0x11, &vec![0; 4081]), ProxyError::TooLong),
            (v2(0x21, 0x11, &ADDRESSES)[..20].to_vec(), ProxyError::Ended),
        ] {
            assert_eq!(read_from(&bytes).await.0, Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_is_given_up() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(b"PROXY TCP4 ").await.unwrap();
        assert_eq!(read_within(&mut far, Duration::from_millis(20)).await, Err(ProxyError::Slow));
    }
}
