//! The domain identities that a certificate states (RFC 5922 §7.1).

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The names of a certificate that count as SIP domain identities, in lower case.
///
/// They are the `sip:` URIs of the subject alternative name; if there is none, its DNS names; and only
/// for a certificate without any subject alternative name, the common name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames(Vec<String>);

impl CertificateNames {
    /// Reads the names of a certificate; an unreadable one has none.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let Some(alternative) = alternative else {
            let common = certificate
                .subject()
                .iter_common_name()
                .filter_map(|name| name.as_str().ok())
                .map(str::to_ascii_lowercase);
            return Self(common.collect());
        };
        let names = &alternative.value.general_names;
        let uris: Vec<String> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => sip_domain(uri),
                _ => None,
            })
            .collect();
        if !uris.is_empty() {
            return Self(uris);
        }
        let hosts = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_ascii_lowercase()),
            _ => None,
        });
        Self(hosts.collect())
    }

    /// Returns the names.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Tells whether the certificate states `name`: whole name, any case, no wildcard (RFC 5922 §7.2).
    pub fn states(&self, name: &str) -> bool {
        self.0.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// Returns the domain of a `sip:` URI that has no user part, else `None`.
fn sip_domain(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let host = rest.split([':', ';', '?']).next()?;
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn names(common: &str, alternative: Vec<SanType>) -> CertificateNames {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = alternative;
        let key = KeyPair::generate().unwrap();
        CertificateNames::of(params.self_signed(&key).unwrap().der())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    #[test]
    fn dns_names_are_ignored_beside_a_sip_uri_and_the_common_name_beside_any() {
        // T-06
        let both = names("cn.example", vec![dns("edge.partner.example"), uri("sip:Partner.example")]);
        assert_eq!(both.as_slice(), ["partner.example"]);
        let only_dns = names("cn.example", vec![dns("edge.partner.example")]);
        assert_eq!(only_dns.as_slice(), ["edge.partner.example"]);
        assert_eq!(names("cn.example", vec![]).as_slice(), ["cn.example"]);
        assert!(names("cn.example", vec![uri("im:partner.example")]).as_slice().is_empty());
    }

    #[test]
    fn a_sip_uri_with_user_is_no_domain_identity() {
        // T-07
        let certificate = names("cn", vec![uri("sip:ana@partner.example"), dns("edge.partner.example")]);
        assert_eq!(certificate.as_slice(), ["edge.partner.example"]);
    }

    #[test]
    fn a_wildcard_matches_no_name_but_itself() {
        // T-05
        let certificate = names("cn", vec![dns("*.partner.example")]);
        assert!(!certificate.states("sip.partner.example"));
        assert!(!certificate.states("partner.example"));
        assert!(names("cn", vec![dns("SIP.partner.example")]).states("sip.Partner.Example"));
        assert!(!names("cn", vec![dns("partner.example")]).states("sip.partner.example"));
    }

    #[test]
    fn rubbish_has_no_names() {
        assert!(CertificateNames::of(&CertificateDer::from(vec![1, 2, 3])).as_slice().is_empty());
    }
}
