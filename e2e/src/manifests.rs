//! Writes the manifests of a scenario: the same YAML that an administrator would write.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::pki::Certificate;
use crate::ports;
use crate::prosody::COMPONENT_SECRET;

/// Namespace of all objects of a scenario.
const NAMESPACE: &str = "im-edge";
/// The pool that the gateway of a scenario runs as.
pub const POOL: &str = "sip";

/// One partner domain over SIP.
#[derive(Debug, Clone)]
pub struct Partner {
    /// Its domain.
    pub domain: String,
    /// A value of `peerType`.
    pub peer_type: String,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: String,
    /// Static next hops; empty means discovery by DNS.
    pub next_hops: Vec<(String, u16)>,
    /// Accepted names in its certificate.
    pub identities: Vec<String>,
    /// Switches over its profile, as YAML values.
    pub overrides: Vec<(String, String)>,
}

impl Partner {
    /// A standard partner with one next hop on 127.0.0.1.
    pub fn standard(domain: &str, transport: &str, port: u16) -> Self {
        Self {
            domain: domain.to_owned(),
            peer_type: "SimpleGeneric".to_owned(),
            transport: transport.to_owned(),
            next_hops: vec![("127.0.0.1".to_owned(), port)],
            identities: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// A Microsoft partner, found by its SRV records.
    pub fn microsoft(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            peer_type: "Sfb2015".to_owned(),
            transport: "TLS".to_owned(),
            next_hops: Vec::new(),
            identities: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// Replaces the next hops.
    #[must_use]
    pub fn via(mut self, host: &str, port: u16) -> Self {
        self.next_hops = vec![(host.to_owned(), port)];
        self
    }

    /// Names what stands at the other end.
    #[must_use]
    pub fn kind(mut self, peer_type: &str) -> Self {
        peer_type.clone_into(&mut self.peer_type);
        self
    }

    /// Sets one switch.
    #[must_use]
    pub fn switch(mut self, name: &str, value: &str) -> Self {
        self.overrides.push((name.to_owned(), value.to_owned()));
        self
    }

    fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: isthmus.dev/v1alpha1\nkind: FederatedDomain\n\
             metadata: {{name: {0}, namespace: {NAMESPACE}}}\n\
             spec:\n  domain: {0}\n  protocol: SIP\n",
            self.domain
        );
        if !self.overrides.is_empty() {
            text.push_str("  overrides:\n");
            for (name, value) in &self.overrides {
                let _ = writeln!(text, "    {name}: {value}");
            }
        }
        let _ = write!(text, "  sip:\n    peerType: {}\n    transport: {}\n", self.peer_type, self.transport);
        if !self.next_hops.is_empty() {
            text.push_str("    discovery: Static\n    nextHops:\n");
            for (host, port) in &self.next_hops {
                let _ = writeln!(text, "      - {{host: \"{host}\", port: {port}}}");
            }
        }
        if !self.identities.is_empty() {
            let _ = writeln!(text, "    peerIdentities: [{}]", self.identities.join(", "));
        }
        text
    }
}

/// Everything that one scenario declares.
#[derive(Debug, Clone)]
pub struct Realm {
    /// Where Prosody takes components.
    pub component_port: u16,
    /// `tls` of the component backend, as flow YAML.
    pub component_tls: Option<String>,
    /// SIP over TLS.
    pub tls_port: u16,
    /// SIP over UDP and TCP.
    pub plain_port: u16,
    /// The admin listener.
    pub admin_port: u16,
    /// Where the gateway listens; 127.0.0.1 and, where there is IPv6, `::1` when not said.
    pub bind: Vec<String>,
    /// The Federation's `stateStore`, as flow YAML.
    pub state_store: Option<String>,
    /// The partners.
    pub partners: Vec<Partner>,
    /// The local domain's `policy`, as flow YAML, for instance `{default: Allow}`.
    pub local_policy: Option<String>,
    /// FederationPolicy objects: name and rules, each rule as flow YAML.
    pub policies: Vec<(String, Vec<String>)>,
    /// Port of the name server on 127.0.0.1.
    pub resolver: Option<u16>,
    /// Where traces go.
    pub otlp: Option<String>,
    /// The gateway's certificate; its authority is what peers are checked against.
    pub certificate: Option<Certificate>,
    /// Drain times, as flow YAML.
    pub drain: String,
    /// Ranges that are not public and may be dialed.
    pub allowed_ranges: Vec<String>,
    /// The pool's `trustedProxies`, as flow YAML.
    pub trusted_proxies: Option<String>,
    /// Limits of the pool, as flow YAML.
    pub limits: Option<String>,
    /// What the gateway logs.
    pub log_filter: String,
}

impl Realm {
    /// `corp.example` behind the component port, with free ports and no partner.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub fn new(component_port: u16) -> Result<Self> {
        Ok(Self {
            component_port,
            component_tls: None,
            tls_port: ports::free()?,
            plain_port: ports::free()?,
            admin_port: ports::free()?,
            bind: Vec::new(),
            state_store: None,
            partners: Vec::new(),
            local_policy: None,
            policies: Vec::new(),
            resolver: None,
            otlp: None,
            certificate: None,
            drain: "{settle: 100ms, grace: 3s}".to_owned(),
            allowed_ranges: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            trusted_proxies: None,
            limits: None,
            log_filter: "info,isthmus=debug,isthmus_gateway=debug".to_owned(),
        })
    }

    /// Adds a partner.
    #[must_use]
    pub fn partner(mut self, partner: Partner) -> Self {
        self.partners.push(partner);
        self
    }

    /// Adds a FederationPolicy with these rules.
    #[must_use]
    pub fn rules(mut self, name: &str, rules: &[&str]) -> Self {
        self.policies.push((name.to_owned(), rules.iter().map(ToString::to_string).collect()));
        self
    }

    /// Writes all files: `manifests/realm.yaml`, one file per partner and policy, and the secrets' folder.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let manifests = folder.join("manifests");
        fs::create_dir_all(&manifests)?;
        self.write_secrets(&folder.join("secrets"))?;
        fs::write(manifests.join("realm.yaml"), self.realm_yaml())?;
        for partner in &self.partners {
            fs::write(manifests.join(format!("partner-{}.yaml", partner.domain)), partner.yaml())?;
        }
        for (name, rules) in &self.policies {
            let mut text = format!(
                "apiVersion: isthmus.dev/v1alpha1\nkind: FederationPolicy\n\
                 metadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  rules:\n"
            );
            for rule in rules {
                let _ = writeln!(text, "    - {rule}");
            }
            fs::write(manifests.join(format!("policy-{name}.yaml")), text)?;
        }
        Ok(())
    }

    fn write_secrets(&self, folder: &Path) -> Result<()> {
        let credentials = folder.join("isthmus-credentials");
        fs::create_dir_all(&credentials)?;
        fs::write(credentials.join("corp.example"), COMPONENT_SECRET)?;
        if let Some(certificate) = &self.certificate {
            let tls = folder.join("gateway-tls");
            fs::create_dir_all(&tls)?;
            fs::write(tls.join("tls.crt"), &certificate.chain_pem)?;
            fs::write(tls.join("tls.key"), &certificate.key_pem)?;
            let trust = folder.join("peer-ca");
            fs::create_dir_all(&trust)?;
            fs::write(trust.join("ca.crt"), &certificate.authority_pem)?;
        }
        Ok(())
    }

    fn realm_yaml(&self) -> String {
        let mut federation = "  credentialsSecretRef: {name: isthmus-credentials}\n".to_owned();
        if self.certificate.is_some() {
            federation.push_str("  trust: {caSecretRefs: [{name: peer-ca}]}\n");
        }
        if let Some(port) = self.resolver {
            let _ = writeln!(federation, "  resolver: {{addresses: [\"127.0.0.1:{port}\"]}}");
        }
        if let Some(endpoint) = &self.otlp {
            let _ = writeln!(federation, "  telemetry: {{otlpEndpoint: \"{endpoint}\", traceSampleRatio: \"1.0\"}}");
        }
        let ranges: Vec<String> = self.allowed_ranges.iter().map(|range| format!("\"{range}\"")).collect();
        let ranges = ranges.join(", ");
        if let Some(store) = &self.state_store {
            let _ = writeln!(federation, "  stateStore: {store}");
        }
        let loopback = if ports::has_ipv6() { &["127.0.0.1", "::1"][..] } else { &["127.0.0.1"] };
        let bind: Vec<&str> = self.bind.iter().map(String::as_str).collect();
        let bind = if bind.is_empty() { loopback } else { &bind[..] };
        let bind = bind.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
        let tls = if self.certificate.is_some() { "  tls: {secretRefs: [{name: gateway-tls}]}\n" } else { "" };
        let policy = self.local_policy.as_ref().map(|p| format!("  policy: {p}\n")).unwrap_or_default();
        format!(
            r#"apiVersion: isthmus.dev/v1alpha1
kind: Federation
metadata: {{name: default, namespace: {NAMESPACE}}}
spec:
{federation}---
apiVersion: isthmus.dev/v1alpha1
kind: GatewayPool
metadata: {{name: {POOL}, namespace: {NAMESPACE}}}
spec:
  roles: [SIP]
  expose:
    hostname: "sip.{{domain}}"
    bind: [{bind}]
    adminPort: {admin}
    ports: {{sip: {sip}, sipPlain: {plain}}}
  allowedRanges: [{ranges}]
{proxies}  drain: {drain}
  logFilter: "{filter}"
{limits}{tls}---
apiVersion: isthmus.dev/v1alpha1
kind: LocalDomain
metadata: {{name: corp.example, namespace: {NAMESPACE}}}
spec:
  domain: corp.example
  backend:
    component: {{host: 127.0.0.1, port: {component}, secretKey: corp.example{component_tls}}}
{policy}"#,
            admin = self.admin_port,
            sip = self.tls_port,
            plain = self.plain_port,
            drain = self.drain,
            filter = self.log_filter,
            proxies = self.trusted_proxies.as_ref().map(|p| format!("  trustedProxies: {p}\n")).unwrap_or_default(),
            limits = self.limits.as_ref().map(|l| format!("  limits: {l}\n")).unwrap_or_default(),
            component = self.component_port,
            component_tls = self.component_tls.as_ref().map(|tls| format!(", tls: {tls}")).unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use isthmus_crds::Secret;
    use isthmus_crds::validate::{UnknownFields, validate};

    use super::*;
    use crate::pki::{Authority, Name};

    #[test]
    fn what_the_harness_writes_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let mut realm = Realm::new(5347)
            .unwrap()
            .partner(Partner::standard("partner.example", "UDP", 5060).switch("imMode", "Pager").via("::1", 5060))
            .partner(Partner::microsoft("blue.example"))
            .rules("abuse", &["{name: rude, action: Deny, response: Drop, remote: {domains: [rude.example]}}"]);
        realm.certificate = Some(Authority::new("test").unwrap().sign(&[Name::Dns("sip.corp.example")]).unwrap());
        realm.resolver = Some(5353);
        realm.otlp = Some("http://127.0.0.1:4318".to_owned());
        realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
        realm.local_policy = Some("{default: Allow}".to_owned());
        realm.write(folder.path()).unwrap();
        let mut seen = 0;
        for entry in fs::read_dir(folder.path().join("manifests")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
            for document in documents {
                if Secret::recognises(&document) {
                    continue;
                }
                let report = validate(&document, None, UnknownFields::Refuse);
                assert!(report.is_accepted(), "{}: {report:?}", path.display());
                seen += 1;
            }
        }
        assert_eq!(seen, 6);
    }
}
