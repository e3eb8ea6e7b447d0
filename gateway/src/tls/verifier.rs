//! Chain, validity and usage of a peer's certificate; names are decided elsewhere.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

/// id-kp-serverAuth, id-kp-clientAuth, id-kp-sipDomain (RFC 5924) and anyExtendedKeyUsage.
const ACCEPTED_USAGES: [&[usize]; 4] =
    [&[1, 3, 6, 1, 5, 5, 7, 3, 1], &[1, 3, 6, 1, 5, 5, 7, 3, 2], &[1, 3, 6, 1, 5, 5, 7, 3, 20], &[2, 5, 29, 37, 0]];

/// Verifies the chain of a peer of either role against the realm's trust anchors.
///
/// A certificate is usable when it has no extended key usage or any of serverAuth, clientAuth, sipDomain
/// or any: public authorities stopped issuing clientAuth, so a server's certificate must do for both roles.
#[derive(Debug)]
pub struct ChainVerifier {
    trust: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ChainVerifier {
    /// Makes a verifier over trust anchors.
    pub fn new(trust: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Self {
        Self { trust, provider }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(certificate_error)?;
        certificate
            .verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &self.trust.roots,
                intermediates,
                now,
                AnyPeerUsage,
                None,
                None,
            )
            .map(|_| ())
            .map_err(certificate_error)
    }
}

struct AnyPeerUsage;

impl ExtendedKeyUsageValidator for AnyPeerUsage {
    fn validate(&self, iter: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = false;
        for usage in iter {
            present = true;
            let oid = usage?.to_decoded_oid();
            if ACCEPTED_USAGES.iter().any(|accepted| *accepted == oid) {
                return Ok(());
            }
        }
        if present {
            return Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
                required: webpki::KeyUsage::server_auth(),
                present: Vec::new(),
            }));
        }
        Ok(())
    }
}

fn certificate_error(error: webpki::Error) -> Error {
    let kind = match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(kind)
}

/// The proof of possession of the key, which both roles give alike and the library asks for by two traits.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for ChainVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Some peers pick their certificate by these hints and send none when theirs is cross-signed.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is checked by the connection's user against the domain's accepted identities, before
        // a byte of SIP is sent (RFC 5922 §7.3).
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
