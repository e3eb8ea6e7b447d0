//! A test authority and the certificates that it signs.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// A certificate authority that exists for one scenario.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate with its key, as files hold them.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate alone: the authority signs directly.
    pub chain_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: String,
    /// The authority that peers of this certificate's holder must be signed by.
    pub authority_pem: String,
}

/// A name in a certificate.
#[derive(Debug, Clone, Copy)]
pub enum Name<'a> {
    /// A DNS name, which may start with `*.`.
    Dns(&'a str),
    /// A SIP URI such as `sip:partner.example` (RFC 5922 §7.1).
    SipUri(&'a str),
}

impl Authority {
    /// Makes a new authority with an ECDSA P-256 key.
    ///
    /// # Errors
    ///
    /// When the cryptographic library fails.
    pub fn new(common_name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, common_name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Signs a certificate with exactly these names, usable as client and server.
    ///
    /// # Errors
    ///
    /// When a name cannot stand in a certificate.
    pub fn sign(&self, names: &[Name<'_>]) -> Result<Certificate> {
        self.sign_for(names, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// Signs a certificate that only says "server", as public authorities do today.
    ///
    /// # Errors
    ///
    /// When a name cannot stand in a certificate.
    pub fn sign_server_only(&self, names: &[Name<'_>]) -> Result<Certificate> {
        self.sign_for(names, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    fn sign_for(&self, names: &[Name<'_>], usages: Vec<ExtendedKeyUsagePurpose>) -> Result<Certificate> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name {
                Name::Dns(dns) => SanType::DnsName((*dns).try_into()?),
                Name::SipUri(uri) => SanType::URI((*uri).try_into()?),
            });
        }
        params.distinguished_name.push(DnType::CommonName, "isthmus test");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), authority_pem: self.pem.clone() })
    }
}
