//! TLS of the SIP edge: whose certificate is it, is it trusted, and which of ours is shown.
//!
//! rustls' stock verifiers check names during the handshake and demand the clientAuth usage. Neither fits
//! federation: a peer's name is decided after the handshake against its domain's accepted identities
//! (RFC 5922 §7), and public authorities no longer issue clientAuth. So [`verifier`] checks chain, validity
//! and usage, [`identity`] reads the names, and whoever uses the connection asks the policy.

pub mod certificates;
pub mod identity;
pub mod verifier;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use certificates::{CertificateError, CertificateSet};
pub use identity::CertificateNames;

use verifier::ChainVerifier;

/// Installs the process's crypto provider; called first in `main` (design: one provider).
///
/// A second call does nothing.
pub fn install_provider() {
    // An error means that a provider is already installed, which is all we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// What TLS can go wrong with before a connection exists.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// rustls refused the configuration.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// There are no trust anchors to judge a server by.
    #[error("no usable trust anchors: {0}")]
    Anchors(#[from] rustls::client::VerifierBuilderError),
}

/// Makes the server side: TLS 1.2 and 1.3, a client certificate is demanded (RFC 5922 §7.4).
///
/// # Errors
///
/// [`TlsConfigError`] when the provider lacks the protocol versions.
pub fn server_config(
    trust: Arc<RootCertStore>,
    certificates: Arc<CertificateSet>,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(ChainVerifier::new(trust, provider)))
        .with_cert_resolver(certificates as Arc<dyn ResolvesServerCert>);
    // Peers are long-lived connections; resumption would skip the look at a renewed certificate.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Makes the client side, presenting the certificate for `own_name` when asked.
///
/// # Errors
///
/// [`TlsConfigError`] when the provider lacks the protocol versions.
pub fn client_config(
    trust: Arc<RootCertStore>,
    certificates: &CertificateSet,
    own_name: &str,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier::new(trust, provider)));
    let mut config = match certificates.client_resolver(own_name) {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}
