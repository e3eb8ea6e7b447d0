//! The certificates that the gateway shows, chosen by name.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text holds no certificate, or a broken one.
    #[error("no readable certificate in {place}: put the PEM chain, leaf first, under this key")]
    Certificate {
        /// The Secret and key.
        place: String,
    },
    /// The text holds no private key, or a broken one.
    #[error("no readable private key in {place}: put one PEM key (PKCS#8, SEC1 or PKCS#1) under this key")]
    Key {
        /// The Secret and key.
        place: String,
    },
    /// The key is not the certificate's.
    #[error("the private key in {place} does not belong to its certificate: replace both together")]
    Mismatch {
        /// The Secret and key.
        place: String,
    },
    /// The certificate is past its end.
    #[error("the certificate in {place} has expired: renew it")]
    Expired {
        /// The Secret and key.
        place: String,
    },
}

/// One certificate with its key and the names it covers.
#[derive(Debug, Clone)]
struct Entry {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

/// All certificates of a pool; the first is the answer for a peer that names none we have.
#[derive(Debug, Default)]
pub struct CertificateSet {
    entries: Vec<Entry>,
}

impl CertificateSet {
    /// Reads one PEM chain and key and adds it; `place` names them in errors, `now` is seconds since the epoch.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], naming the place and the remedy.
    pub fn add_pem(&mut self, place: &str, chain: &[u8], key: &[u8], now: u64) -> Result<(), CertificateError> {
        let certificate_error = || CertificateError::Certificate { place: place.to_owned() };
        let key_error = || CertificateError::Key { place: place.to_owned() };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| certificate_error())?;
        let leaf = chain.first().ok_or_else(certificate_error)?;
        let (names, not_after) = covered_names(leaf).ok_or_else(certificate_error)?;
        if i64::try_from(now).is_ok_and(|now| now > not_after) {
            return Err(CertificateError::Expired { place: place.to_owned() });
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| key_error())?;
        let signer = any_supported_type(&key).map_err(|_| key_error())?;
        let certified = CertifiedKey::new(chain, signer);
        if certified.keys_match().is_err() {
            return Err(CertificateError::Mismatch { place: place.to_owned() });
        }
        self.entries.push(Entry { names, key: Arc::new(certified) });
        Ok(())
    }

    /// Tells whether no certificate is loaded.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns every name that some certificate covers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|entry| entry.names.iter().map(String::as_str))
    }

    /// Chooses by name, then by what the peer can verify; ECDSA and RSA may serve the same name.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = |entry: &&Entry| schemes.is_empty() || entry.key.key.choose_scheme(schemes).is_some();
        let named = name.and_then(|name| {
            self.entries.iter().filter(|entry| entry.names.iter().any(|own| covers(own, name))).find(usable)
        });
        named.or_else(|| self.entries.iter().find(usable)).map(|entry| Arc::clone(&entry.key))
    }

    /// Makes the resolver that shows the certificate for `own_name` when we connect.
    pub fn client_resolver(&self, own_name: &str) -> Option<Arc<dyn rustls::client::ResolvesClientCert>> {
        if self.entries.is_empty() {
            return None;
        }
        Some(Arc::new(ClientCertificates { set: Self { entries: self.entries.clone() }, name: own_name.to_owned() }))
    }
}

impl ResolvesServerCert for CertificateSet {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

#[derive(Debug)]
struct ClientCertificates {
    set: CertificateSet,
    name: String,
}

impl rustls::client::ResolvesClientCert for ClientCertificates {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.set.choose(Some(&self.name), schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Reads trust anchors from PEM texts; `place` names each in errors.
///
/// # Errors
///
/// [`CertificateError::Certificate`] when a text holds no usable anchor.
pub fn trust_from_pem<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<RootCertStore, CertificateError> {
    let mut store = RootCertStore::empty();
    for (place, text) in texts {
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(text) {
            let bad = |_| CertificateError::Certificate { place: place.to_owned() };
            store
                .add(certificate.map_err(bad)?)
                .map_err(|_| CertificateError::Certificate { place: place.to_owned() })?;
        }
        if store.len() == before {
            return Err(CertificateError::Certificate { place: place.to_owned() });
        }
    }
    Ok(store)
}

/// Reads the machine's trust anchors, for realms that name none; unreadable ones are left out.
pub fn system_trust() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "system trust anchors");
    }
    store.add_parsable_certificates(native.certs);
    store
}

/// A certificate's own names may hold a wildcard for the first label, since here we choose ours.
fn covers(own: &str, name: &str) -> bool {
    if own.eq_ignore_ascii_case(name) {
        return true;
    }
    match (own.strip_prefix("*."), name.split_once('.')) {
        (Some(parent), Some((_, rest))) => parent.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

/// Returns every DNS name and SIP domain of a certificate, and when it ends (seconds since the epoch).
fn covered_names(certificate: &CertificateDer<'_>) -> Option<(Vec<String>, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(host) => names.push(host.to_ascii_lowercase()),
                GeneralName::URI(uri) => {
                    if let Some(domain) = uri.strip_prefix("sip:") {
                        names.push(domain.to_ascii_lowercase());
                    }
                }
                _ => {}
            }
        }
    }
    if names.is_empty() {
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    Some((names, parsed.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pem(name: &str, key: &KeyPair) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.self_signed(key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn certificates_are_chosen_by_name_and_the_first_is_the_default() {
        let mut set = CertificateSet::default();
        for name in ["sip.corp.example", "sip.other.example"] {
            let (chain, key) = pem(name, &KeyPair::generate().unwrap());
            set.add_pem(name, chain.as_bytes(), key.as_bytes(), 0).unwrap();
        }
        let leaf = |name| CertificateSet::choose(&set, name, &[]).unwrap().cert[0].clone();
        assert_ne!(leaf(Some("sip.other.example")), leaf(Some("sip.corp.example")));
        assert_eq!(leaf(Some("unknown.example")), leaf(Some("sip.corp.example")));
        assert_eq!(leaf(None), leaf(Some("sip.corp.example")));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_with_the_place() {
        let (chain, _) = pem("sip.corp.example", &KeyPair::generate().unwrap());
        let (_, key) = pem("sip.corp.example", &KeyPair::generate().unwrap());
        let mut set = CertificateSet::default();
        let error = set.add_pem("Secret edge-tls", chain.as_bytes(), key.as_bytes(), 0).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains("Secret edge-tls"));
        assert!(set.is_empty());
    }

    #[test]
    fn rubbish_and_expired_certificates_are_refused() {
        let (chain, key) = pem("sip.corp.example", &KeyPair::generate().unwrap());
        let mut set = CertificateSet::default();
        let far = 1 << 50;
        assert!(matches!(set.add_pem("p", b"nonsense", key.as_bytes(), 0), Err(CertificateError::Certificate { .. })));
        assert!(matches!(set.add_pem("p", chain.as_bytes(), b"", 0), Err(CertificateError::Key { .. })));
        assert!(matches!(
            set.add_pem("p", chain.as_bytes(), key.as_bytes(), far),
            Err(CertificateError::Expired { .. })
        ));
        assert!(trust_from_pem([("p", b"nonsense".as_slice())]).is_err());
    }
}
