//! TLS from the first byte towards a server of our own, for component links.
//!
//! Unlike partners (`crate::tls`), a server of our own is judged as on the web: its chain leads to the trust anchors, and its
//! certificate names the host that was meant.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use crate::tls::{CertificateSet, TlsConfigError, provider};

/// How one link is encrypted.
#[derive(Clone)]
pub struct LinkTls {
    server_name: ServerName<'static>,
    config: Arc<ClientConfig>,
    /// The texts it was made from, so that a change is seen.
    material: Vec<Vec<u8>>,
}

impl LinkTls {
    /// Makes the settings of a link. `material` are the PEM texts that anchors and certificates were read from.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError`] when there are no trust anchors, or no protocol version is left.
    pub fn new(
        server_name: ServerName<'static>,
        anchors: RootCertStore,
        certificates: &CertificateSet,
        material: Vec<Vec<u8>>,
    ) -> Result<Self, TlsConfigError> {
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider)).build()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier);
        let config = match certificates.client_resolver("") {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        Ok(Self { server_name, config: Arc::new(config), material })
    }

    /// The name that the server's certificate must state.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// What a handshake needs.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl PartialEq for LinkTls {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.material == other.material
    }
}

impl Eq for LinkTls {}

/// The material holds a private key.
impl fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
