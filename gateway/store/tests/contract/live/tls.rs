//! One server with TLS: who is let in, and what is said of who is not.

use std::sync::Arc;
use std::time::Duration;

use isthmus_store::redis::{Mode, Tls};
use isthmus_store::{HealthState, Key, RedisConfig, RedisStore, Store as _};
use parking_lot::Mutex;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::PrivateKeyDer;

use super::connected;
use super::servers::{Server, free_port};
use super::single::{LIMIT, PLAIN, put, reason, recovered, unavailable};
use crate::harness::{LONG, pair};

pub(super) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str, until: i32) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// The files with which a server shows a certificate for redis.example.
pub(super) struct Shown {
    folder: tempfile::TempDir,
}

impl Shown {
    pub(super) fn by(authority: &Authority) -> Self {
        let (certificate, key) = authority.sign("redis.example", 4000);
        let shown = Self { folder: tempfile::tempdir().unwrap() };
        for (name, text) in
            [("cert", certificate.pem()), ("key", key.serialize_pem()), ("ca", authority.certificate.pem())]
        {
            std::fs::write(shown.file(name), text).unwrap();
        }
        shown
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The options of a server that speaks TLS on this port; `clients` tells whether they must show a certificate.
    pub(super) fn options(&self, port: u16, clients: &str) -> Vec<String> {
        let files = [("--tls-cert-file", "cert"), ("--tls-key-file", "key"), ("--tls-ca-cert-file", "ca")];
        let files = files.into_iter().flat_map(|(option, name)| [option.to_owned(), self.file(name)]);
        let rest = ["--tls-port", &port.to_string(), "--tls-auth-clients", clients].map(str::to_owned);
        files.chain(rest).collect()
    }
}

/// A server that shows a certificate of `authority` for redis.example.
struct Guarded {
    port: u16,
    _server: Server,
    _shown: Shown,
}

impl Guarded {
    fn start(authority: &Authority, clients: &str) -> Self {
        let (shown, port) = (Shown::by(authority), free_port());
        let options = shown.options(port, clients);
        let options: Vec<_> = PLAIN.into_iter().chain(options.iter().map(String::as_str)).collect();
        Self { port, _server: Server::start(&options), _shown: shown }
    }

    fn config(
        &self,
        name: Option<&str>,
        client: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static,
    ) -> RedisConfig {
        let tls = Tls { config: Arc::new(client), server_name: name.map(str::to_owned) };
        let config = RedisConfig::new(Mode::Standalone, vec![format!("127.0.0.1:{}", self.port)], "tls:");
        RedisConfig { tls: Some(tls), timeout: LIMIT, ..config }
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// How a client speaks TLS that trusts `root` and shows nothing.
pub(super) fn trusting(root: &Authority) -> Tls {
    let client = client(BOTH, root, None);
    Tls { config: Arc::new(move || Arc::clone(&client)), server_name: Some("redis.example".to_owned()) }
}

/// A client that trusts `root`, and shows what `shown` has signed, or nothing.
fn client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    root: &Authority,
    shown: Option<(&Authority, i32)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let client = client.with_root_certificates(roots);
    let Some((authority, until)) = shown else { return Arc::new(client.with_no_client_auth()) };
    let (certificate, key) = authority.sign("gateway.example", until);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Arc::new(client.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_the_name_and_the_issuer_are_verified() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let server = Guarded::start(&ours, "no");
    let trusting = |root: &Authority, name: Option<&str>| {
        let client = client(BOTH, root, None);
        server.config(name, move || Arc::clone(&client))
    };
    let good = connected(trusting(&ours, Some("redis.example")));
    put(&good, &Key::pair(&pair("ana")), LONG).await.unwrap();
    for bad in
        [trusting(&foreign, Some("redis.example")), trusting(&ours, Some("other.example")), trusting(&ours, None)]
    {
        let store = RedisStore::start(bad).unwrap();
        let refused = unavailable(put(&store, &Key::pair(&pair("ana")), LONG).await);
        assert!(refused.contains("TLS"), "{refused}");
        assert_eq!(reason(&store, "Unreachable").await, HealthState::Down);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_certificate_of_ours_is_named_and_a_right_one_needs_no_restart() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let server = Guarded::start(&ours, "yes");
    let key = Key::pair(&pair("ana"));
    let wrong = [
        client(&[&rustls::version::TLS13], &ours, None),
        client(&[&rustls::version::TLS13], &ours, Some((&foreign, 4000))),
        client(&[&rustls::version::TLS12], &ours, Some((&foreign, 4000))),
        client(&[&rustls::version::TLS13], &ours, Some((&ours, 2000))),
    ];
    for wrong in wrong {
        let shown = Arc::new(Mutex::new(wrong));
        let read = Arc::clone(&shown);
        let store = RedisStore::start(server.config(Some("redis.example"), move || Arc::clone(&read.lock()))).unwrap();
        assert!(!store.ready(Duration::from_millis(200)).await);
        assert_eq!(reason(&store, "AuthenticationFailed").await, HealthState::Down);
        let findings = store.health().await.findings;
        assert!(findings.iter().all(|finding| finding.remedy.contains("clientSecretRef")), "{findings:?}");
        let refused = unavailable(put(&store, &key, LONG).await);
        assert!(refused.contains("client certificate"), "{refused}");
        *shown.lock() = client(BOTH, &ours, Some((&ours, 4000)));
        recovered(&store, &key).await;
    }
}
