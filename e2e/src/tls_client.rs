//! A bare TLS client, for peers that break the rules of who may connect.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::pki::Certificate;

/// Connects to 127.0.0.1, sends `text` and returns what comes back before the other side closes.
///
/// Without `own` no client certificate is shown. An answer that ends with a TLS alert or a reset is what
/// was read until then.
///
/// # Errors
///
/// When no TCP connection can be made, or the server neither answers nor closes within 5 s.
pub async fn exchange(
    port: u16,
    server_name: &str,
    authority_pem: &str,
    own: Option<&Certificate>,
    text: &str,
) -> Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match own {
        Some(own) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(own.chain_pem.as_bytes())?],
            PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())?,
        )?,
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(server_name.to_owned()).context("a test name is wrong")?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let talk = async {
        let mut answer = Vec::new();
        let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else {
            return answer;
        };
        if stream.write_all(text.as_bytes()).await.is_ok() {
            let mut piece = [0_u8; 4096];
            while let Ok(n) = stream.read(&mut piece).await {
                answer.extend_from_slice(piece.get(..n).unwrap_or_default());
                // A whole answer without body is all that callers look for.
                if n == 0 || answer.windows(4).any(|w| w == b"\r\n\r\n") {
                    break;
                }
            }
        }
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), talk).await.context("neither answer nor close in 5 s")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
