//! TLS towards a server, and whether it refuses our certificate.
//!
//! With TLS 1.3 a client's handshake is over before the server has judged the client's certificate: the refusal is an
//! alert in the place of the first answer, where it would pass for a broken connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What the server said against our certificate, if it did.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal(Arc<OnceLock<AlertDescription>>);

impl Refusal {
    /// Takes note of an error of the connection.
    pub(super) fn note(&self, error: &io::Error) {
        let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = error
            && is_about_our_certificate(*alert)
        {
            // The first one counts; there is no second in one connection.
            let _ = self.0.set(*alert);
        }
    }

    /// Returns what the server said, for people.
    pub(super) fn text(&self) -> Option<String> {
        self.0.get().map(|alert| format!("{alert:?}"))
    }
}

/// Tells whether a server sends an alert for nothing but the certificate of its client (RFC 8446 §6.2).
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// A TLS stream that takes note of a refusal.
pub(super) struct Judged {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) refusal: Refusal,
}

impl AsyncRead for Judged {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.refusal.note(error);
        }
        read
    }
}

impl AsyncWrite for Judged {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
