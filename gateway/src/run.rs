//! The life of the process: first configuration, start, reloads, drain.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use isthmus_crds::{ClientTls, SecretRef};
use isthmus_policy::{Pool, Snapshot};
use isthmus_sip::Limits;
use isthmus_sip::endpoint::EndpointConfig;
use isthmus_sip::timer::TimerConfig;
use isthmus_xmpp::component::Secret;
use rustls_pki_types::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout_at;

use crate::admin::{self, Readiness};
use crate::bridge::{Bridge, BridgeHandle, Runtime};
use crate::dns::Locator;
use crate::edge::sip::flow::Opener;
use crate::edge::sip::listener::Binding;
use crate::edge::sip::{ClientTrust, ConnectionLimits, EdgeSettings, EdgeTls, GIVING_UP, SipEdge, SipHandler};
use crate::edge::xmpp::{LinkSpec, LinkTls, Links, XmppHandler};
use crate::metrics::{Metrics, Reason};
use crate::pods::Pods;
use crate::report::{AtNextStart, LastError, StatusReport};
use crate::source::{self, Loaded, Secrets, SourceOptions};
use crate::state_store::{Declared, StateStore};
use crate::telemetry::{LogFormat, SpanExport, Telemetry};
use crate::tls::{self, CertificateSet};

/// `EX_CONFIG` of sysexits: the first configuration is bad.
const EXIT_CONFIG: u8 = 78;
/// Connections without messages are closed after this (interworking specification §6.10).
const IDLE: Duration = Duration::from_secs(600);
/// After a second signal the drain ends this soon.
const HURRY: Duration = Duration::from_secs(1);

/// How the process was started.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "isthmus-gateway",
    version,
    about = "Federates presence and messages between XMPP servers and partners"
)]
pub struct Options {
    /// Directory with the manifests of one realm (`.yaml`, `.yml`, `.json`), read recursively and watched.
    #[arg(long, value_name = "DIR", env = "ISTHMUS_MANIFESTS")]
    pub manifests: PathBuf,
    /// Name of the GatewayPool that this process belongs to.
    #[arg(long, value_name = "NAME", env = "ISTHMUS_POOL")]
    pub pool: String,
    /// Number of the node within the pool.
    #[arg(long, value_name = "N", default_value_t = 0, env = "ISTHMUS_NODE")]
    pub node: u32,
    /// Directory with Secrets as mounted: `DIR/<secret>/<key>`.
    #[arg(long, value_name = "DIR", env = "ISTHMUS_SECRETS")]
    pub secrets: Option<PathBuf>,
    /// Directory where the embedded store keeps users' decisions and accepted messages; without it they end with the
    /// process.
    #[arg(long, value_name = "DIR", env = "ISTHMUS_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Threads that carry traffic; by default one for each two processors. More of them wake each other for single
    /// messages, which costs processor time and saves none.
    #[arg(long, value_name = "N", default_value_t = default_threads(), env = "ISTHMUS_THREADS")]
    pub threads: NonZeroUsize,
    /// Takes unknown fields as warnings instead of errors.
    #[arg(long)]
    pub lenient: bool,
    /// The shape of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto, env = "ISTHMUS_LOG_FORMAT")]
    pub log_format: LogFormat,
}

fn default_threads() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors.div_ceil(2)).unwrap_or(NonZeroUsize::MIN)
}

/// Why the process cannot start or go on; printed for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What one configuration gives the edges.
pub(crate) struct Prepared {
    pub(crate) runtime: Runtime,
    pub(crate) tls: EdgeTls,
    pub(crate) links: Vec<LinkSpec>,
    pub(crate) settings: EdgeSettings,
    pub(crate) store: Option<Declared>,
}

/// Runs the gateway until it is told to stop.
pub async fn run(options: Options) -> ExitCode {
    tls::install_provider();
    let source = SourceOptions {
        dir: options.manifests.clone(),
        secrets: options.secrets.clone(),
        pool: options.pool.clone(),
        node: options.node,
        lenient: options.lenient,
    };
    let loaded = match source::load(&source, None) {
        Ok(loaded) => loaded,
        Err(refusals) => {
            for refusal in &refusals {
                complain(&refusal.to_string());
            }
            complain(&format!("{} problem(s) in {}: nothing was started", refusals.len(), source.dir.display()));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let prepared = match prepare(&loaded, &options.pool) {
        Ok(prepared) => prepared,
        Err(failure) => {
            complain(&failure.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match Process::start(options, source, loaded, prepared).await {
        Ok(process) => process.serve().await,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "before logging starts, the terminal is all there is")]
fn complain(text: &str) {
    eprintln!("isthmus-gateway: {text}");
}

struct Process {
    options: Options,
    source: SourceOptions,
    loaded: Arc<ArcSwap<Loaded>>,
    last_error: LastError,
    at_next_start: AtNextStart,
    telemetry: Telemetry,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    edge: Arc<SipEdge>,
    links: Arc<Links>,
    bridge: Arc<Bridge>,
    pods: Arc<Pods>,
    state: StateStore,
    binding: Binding,
}

impl Process {
    async fn start(
        options: Options,
        source: SourceOptions,
        loaded: Loaded,
        prepared: Prepared,
    ) -> Result<Self, Failure> {
        let pool = Arc::clone(&prepared.runtime.pool);
        let export = span_export(&loaded.snapshot);
        let telemetry = Telemetry::start(&pool.log_filter, options.log_format, export.as_ref()).map_err(Failure::of)?;
        let metrics = Arc::new(Metrics::new());
        let readiness = Arc::new(Readiness::default());
        let state = StateStore::open(&options, prepared.store, Arc::clone(&metrics)).await?;
        let store = Arc::clone(&state.store);
        let life = format!("{:016x}", rand::random::<u64>());
        let node = format!("{}/{}", options.pool, options.node);
        let pods = Pods::start(Arc::clone(&store), &life, &node, Arc::clone(&metrics));
        let endpoint = EndpointConfig {
            timers: prepared.runtime.timers,
            own_names: prepared.runtime.own_names(),
            pod: life.clone(),
            product: Some(concat!("Isthmus/", env!("CARGO_PKG_VERSION")).to_owned()),
            ..EndpointConfig::default()
        };
        let edge = SipEdge::new(endpoint, prepared.settings, prepared.tls, Arc::clone(&metrics));
        let links = Links::new(Arc::clone(&store), &life, Arc::clone(&metrics));
        let bridge = Bridge::start(
            Arc::clone(&edge),
            Arc::clone(&links),
            Arc::clone(&store),
            Arc::clone(&pods),
            Arc::clone(&metrics),
            prepared.runtime,
        );
        edge.set_handler(Arc::new(BridgeHandle(Arc::clone(&bridge))) as Arc<dyn SipHandler>);
        let loaded = Arc::new(ArcSwap::from_pointee(loaded));
        let (last_error, at_next_start) = (LastError::default(), AtNextStart::default());
        let report = StatusReport {
            loaded: Arc::clone(&loaded),
            links: Arc::clone(&links),
            store: Arc::clone(&store),
            store_mode: state.mode,
            health: Arc::clone(&state.health),
            bridge: Arc::clone(&bridge),
            pods: Arc::clone(&pods),
            last_error: Arc::clone(&last_error),
            at_next_start: Arc::clone(&at_next_start),
            pool: options.pool.clone(),
        };
        let admin_addr = admin_address(&pool);
        let listener = admin::bind(admin_addr).await.map_err(|error| {
            Failure(format!(
                "cannot bind the admin port {admin_addr}: {error}: set expose.adminPort of GatewayPool {} to a free port",
                pool.name
            ))
        })?;
        tokio::spawn(admin::serve(listener, Arc::clone(&readiness), Arc::clone(&metrics), Arc::new(report)));
        readiness.set_configured();
        for notice in &loaded.load().notices {
            tracing::warn!(%notice, "configuration");
        }
        let binding = binding_of(&pool);
        let process = Self {
            options,
            source,
            loaded,
            last_error,
            at_next_start,
            telemetry,
            metrics,
            readiness,
            edge,
            links,
            bridge,
            pods,
            state,
            binding,
        };
        process.links.set(prepared.links, &process.handler());
        if pool.roles.sip {
            let bound = process.edge.listen(&process.binding).map_err(Failure::of)?;
            tracing::info!(addresses = ?bound, "listening for SIP");
        }
        process.readiness.set_listening();
        process.note_configuration("taken");
        Ok(process)
    }

    fn handler(&self) -> Arc<dyn XmppHandler> {
        Arc::new(BridgeHandle(Arc::clone(&self.bridge)))
    }

    async fn serve(self) -> ExitCode {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
            tracing::error!("signals cannot be received");
            return ExitCode::FAILURE;
        };
        let mut changes = source::watch_from(&self.source, &self.loaded.load_full());
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => self.reload().await,
                changed = changes.recv() => match changed {
                    Some(()) => self.reload().await,
                    None => tokio::time::sleep(Duration::from_secs(1)).await,
                },
            }
        }
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        self.drain(again).await;
        self.telemetry.shutdown().await;
        ExitCode::SUCCESS
    }

    /// Takes a changed directory, all or nothing; connections live on.
    async fn reload(&self) {
        let (source, former) = (self.source.clone(), self.loaded.load_full());
        let read = tokio::task::spawn_blocking(move || source::load(&source, Some(&former))).await;
        let loaded = match read {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(refusals)) => {
                for refusal in &refusals {
                    tracing::error!(%refusal, "configuration refused; the former one stays in force");
                }
                let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                return self.refuse(texts.join("\n"));
            }
            Err(error) => return self.refuse(format!("the reader failed: {error}")),
        };
        let prepared = match prepare(&loaded, &self.options.pool) {
            Ok(prepared) => prepared,
            Err(failure) => {
                tracing::error!(error = %failure, "configuration refused; the former one stays in force");
                return self.refuse(failure.to_string());
            }
        };
        let mut later = Vec::new();
        if binding_of(&prepared.runtime.pool) != self.binding {
            later.push("listener addresses changed: they are taken at the next start");
        }
        if let Err(error) = self.telemetry.set_filter(&prepared.runtime.pool.log_filter) {
            tracing::error!(%error, "log filter");
        }
        for notice in &loaded.notices {
            tracing::warn!(%notice, "configuration");
        }
        if self.state.take(prepared.store) {
            later.push("Federation.spec.stateStore changed: it is taken at the next start");
        }
        for what in &later {
            tracing::warn!("{what}");
        }
        *self.at_next_start.lock() = later;
        self.edge.set_settings(prepared.settings);
        self.edge.set_tls(prepared.tls);
        self.edge.set_own_names(&prepared.runtime.own_names());
        self.bridge.set_runtime(prepared.runtime);
        self.links.set(prepared.links, &self.handler());
        self.loaded.store(Arc::new(loaded));
        *self.last_error.lock() = None;
        self.note_configuration("taken");
        tracing::info!(generation = self.loaded.load().generation, "configuration taken");
    }

    fn refuse(&self, error: String) {
        *self.last_error.lock() = Some(error);
        self.metrics.reloads.get_or_create(&Reason { reason: "refused" }).inc();
    }

    fn note_configuration(&self, outcome: &'static str) {
        self.metrics.reloads.get_or_create(&Reason { reason: outcome }).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.config_timestamp.set(now.as_secs_f64());
    }

    /// Stops as kubernetes specification §8.2 says: unready, settle, no new connections, finish, close.
    async fn drain(&self, again: impl Future<Output = ()>) {
        let pool = Arc::clone(&self.bridge.runtime().pool);
        tracing::info!(settle = ?pool.settle, grace = ?pool.grace, "draining");
        self.readiness.set_draining();
        self.pods.drain().await;
        let finish = async {
            tokio::time::sleep(pool.settle).await;
            // Others take the links over while this process finishes what it began.
            self.links.give_back();
            self.edge.drain();
            let end = Instant::now() + pool.grace;
            if !timeout_at(end.into(), self.end_work(pool.grace)).await.unwrap_or_default() {
                let (unanswered, unfinished) = (self.edge.unanswered(), self.bridge.unfinished());
                tracing::warn!(unanswered, ?unfinished, "the time for draining is over");
            }
        };
        tokio::select! {
            () = finish => {}
            () = async { again.await; tokio::time::sleep(HURRY).await } => {}
        }
        self.links.close();
        self.edge.close();
        self.pods.leave().await;
        // The sockets' last bytes leave.
        tokio::time::sleep(Duration::from_millis(200)).await;
        tracing::info!("stopped");
    }

    /// Lets peers turn to other processes, and finishes what is under way; tells whether that came to its end.
    async fn end_work(&self, grace: Duration) -> bool {
        // A stream's transactions are remembered for 32 s after their answer; those need no waiting.
        let is_done = || self.edge.unanswered() == 0 && self.bridge.is_idle() && self.links.are_handed_over();
        // Our own connections end like those of peers, also where the work does not.
        let last = Instant::now() + grace.saturating_sub(GIVING_UP.min(grace / 4));
        loop {
            // Nothing is done while peers go on asking. Answers of their last moment may still leave over our own connections.
            self.edge.give_up_connections(Opener::Peer).await;
            while !is_done() && Instant::now() < last {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.edge.give_up_connections(Opener::Here).await;
            // Something may have come meanwhile.
            if is_done() || Instant::now() >= last {
                return is_done();
            }
        }
    }
}

fn admin_address(pool: &Pool) -> SocketAddr {
    let ip = pool.bind.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    SocketAddr::new(ip, pool.admin_port)
}

pub(crate) fn binding_of(pool: &Pool) -> Binding {
    Binding {
        addresses: pool.bind.clone(),
        tls: (!pool.tls_secrets.is_empty()).then_some(pool.ports.sip),
        plain: pool.ports.sip_plain,
    }
}

fn span_export(snapshot: &Snapshot) -> Option<SpanExport> {
    let telemetry = snapshot.federation()?.spec.telemetry.as_ref()?;
    let endpoint = telemetry.otlp_endpoint.clone()?;
    Some(SpanExport { endpoint, sample_ratio: telemetry.trace_sample_ratio() })
}

/// Derives everything that the edges need, or says what is wrong.
pub(crate) fn prepare(loaded: &Loaded, pool: &str) -> Result<Prepared, Failure> {
    let snapshot = &loaded.snapshot;
    let pool = snapshot.pool(pool).ok_or_else(|| Failure(format!("no GatewayPool {pool} in the configuration")))?;
    let resolvers = snapshot.federation().map(|federation| federation.resolver.clone()).unwrap_or_default();
    let locator = Locator::new(&resolvers).map_err(Failure)?;
    let runtime =
        Runtime { snapshot: Arc::clone(snapshot), pool: Arc::clone(pool), locator, timers: TimerConfig::default() };
    let settings = EdgeSettings {
        limits: Limits::default(),
        connections: ConnectionLimits {
            total: usize::try_from(pool.limits.connections).unwrap_or(usize::MAX),
            per_address: usize::try_from(pool.limits.connections_per_address).unwrap_or(usize::MAX),
            idle: IDLE,
        },
        allowed_ranges: pool.allowed_ranges.clone(),
        trusted_proxies: pool.trusted_proxies.clone(),
    };
    Ok(Prepared {
        tls: edge_tls(snapshot, pool, &loaded.secrets)?,
        links: link_specs(snapshot, &loaded.secrets)?,
        store: Declared::of(snapshot.federation().map(|federation| &**federation), &loaded.secrets)?,
        runtime,
        settings,
    })
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Reads what an object says is in a Secret.
fn secret_text<'a>(secrets: &'a Secrets, secret: &str, key: &str) -> Result<&'a [u8], Failure> {
    secrets.get(secret, key).ok_or_else(|| Failure(format!("Secret {secret} has no key {key}: add the key to it")))
}

fn edge_tls(snapshot: &Snapshot, pool: &Pool, secrets: &Secrets) -> Result<EdgeTls, Failure> {
    let now = unix_now();
    let mut certificates = CertificateSet::default();
    let locals = snapshot.locals();
    let own = locals.iter().filter_map(|local| local.tls_secret.as_ref());
    for secret in pool.tls_secrets.iter().chain(own) {
        let (chain, key) = (secret_text(secrets, secret, "tls.crt")?, secret_text(secrets, secret, "tls.key")?);
        certificates.add_pem(&format!("Secret {secret}"), chain, key, now).map_err(Failure::of)?;
    }
    let federation = snapshot.federation();
    let anchors = federation.and_then(|f| f.spec.trust.as_ref()).map(|trust| &trust.ca_secret_refs[..]);
    let anchors = match anchors {
        Some(refs) if !refs.is_empty() => {
            let mut texts = Vec::new();
            for reference in refs {
                let text = secret_text(secrets, &reference.name, "ca.crt")?;
                texts.push((format!("Secret {}", reference.name), text));
            }
            tls::certificates::trust_from_pem(texts.iter().map(|(place, text)| (place.as_str(), *text)))
                .map_err(Failure::of)?
        }
        _ if certificates.is_empty() => rustls::RootCertStore::empty(),
        _ => tls::certificates::system_trust(),
    };
    let (anchors, certificates) = (Arc::new(anchors), Arc::new(certificates));
    Ok(EdgeTls {
        server: tls::server_config(Arc::clone(&anchors), Arc::clone(&certificates)).map_err(Failure::of)?,
        client: ClientTrust { anchors, certificates },
    })
}

fn link_specs(snapshot: &Snapshot, secrets: &Secrets) -> Result<Vec<LinkSpec>, Failure> {
    let reference = snapshot.federation().and_then(|federation| federation.spec.credentials_secret_ref.as_ref());
    let links = snapshot.component_links().into_iter();
    // A server has a link for each partner: what they share is made once, since the trust anchors of the system are many.
    let mut made: Vec<(String, ClientTls, LinkTls)> = Vec::new();
    links
        .map(|link| {
            let name = reference.map(|reference| reference.name.as_str()).unwrap_or_default();
            let secret = secrets.get(name, &link.secret_key).and_then(|secret| std::str::from_utf8(secret).ok());
            let secret = secret.ok_or_else(|| {
                Failure(format!(
                    "no component secret for {}: put key {} into Secret {name:?} named by credentialsSecretRef of the Federation",
                    link.name, link.secret_key
                ))
            })?;
            let share = |tls: ClientTls| {
                if let Some((_, _, shared)) = made.iter().find(|(host, of, _)| *host == link.host && *of == tls) {
                    return Ok(shared.clone());
                }
                let new = client_tls(&tls, &link.host, secrets)?;
                made.push((link.host.clone(), tls, new.clone()));
                Ok(new)
            };
            let tls = link.tls.map(share).transpose()?;
            Ok(LinkSpec {
                host: link.host,
                port: link.port,
                name: link.name,
                locals: link.locals,
                secret: Secret::new(secret.trim_end_matches(['\r', '\n'])),
                tls,
            })
        })
        .collect()
}

/// TLS towards a server of our own, with the texts of the Secrets that it names.
pub(crate) fn client_tls(tls: &ClientTls, host: &str, secrets: &Secrets) -> Result<LinkTls, Failure> {
    let text = |secret: &str, key: &str| secret_text(secrets, secret, key);
    let mut material = Vec::new();
    let anchors = match &tls.ca_secret_ref {
        Some(SecretRef { name }) => {
            let anchors = text(name, "ca.crt")?;
            material.push(anchors.to_vec());
            let place = format!("Secret {name} (ca.crt)");
            tls::certificates::trust_from_pem([(place.as_str(), anchors)]).map_err(Failure::of)?
        }
        None => tls::certificates::system_trust(),
    };
    let mut certificates = CertificateSet::default();
    if let Some(SecretRef { name }) = &tls.client_secret_ref {
        let (chain, key) = (text(name, "tls.crt")?, text(name, "tls.key")?);
        material.extend([chain.to_vec(), key.to_vec()]);
        certificates.add_pem(&format!("Secret {name}"), chain, key, unix_now()).map_err(Failure::of)?;
    }
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|_| Failure(format!("{name} cannot stand in a certificate: set serverName beside its tls")))?;
    LinkTls::new(server_name, anchors, &certificates, material).map_err(Failure::of)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn links_to_one_server_share_the_tls_that_is_made_for_it() {
        tls::install_provider();
        let certificate = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        let anchor = certificate.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let shared = format!(
            r#"apiVersion: isthmus.dev/v1alpha1
kind: Federation
metadata: {{name: default, namespace: im-edge}}
spec: {{credentialsSecretRef: {{name: isthmus-credentials}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: isthmus-credentials, namespace: im-edge}}
stringData: {{component: s3cret, ca.crt: {anchor:?}}}
---
apiVersion: isthmus.dev/v1alpha1
kind: GatewayPool
metadata: {{name: sip, namespace: im-edge}}
spec: {{roles: [SIP], expose: {{hostname: "sip.{{domain}}", bind: ["127.0.0.1"], ports: {{sipPlain: 5060}}}}}}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedDomain
metadata: {{name: partner.example, namespace: im-edge}}
spec:
  domain: partner.example
  protocol: SIP
  sip: {{peerType: SimpleGeneric, transport: UDP, discovery: Static, nextHops: [{{host: 127.0.0.1, port: 5070}}]}}
"#
        );
        let local = |domain, port, more| {
            format!(
                r"---
apiVersion: isthmus.dev/v1alpha1
kind: LocalDomain
metadata: {{name: {domain}.example, namespace: im-edge}}
spec:
  domain: {domain}.example
  backend:
    component:
      {{host: 127.0.0.1, port: {port}, secretKey: component, tls: {{caSecretRef: {{name: isthmus-credentials}}{more}}}}}
"
            )
        };
        let locals = [local("a", 5347, ""), local("b", 5348, ""), local("c", 5349, ", serverName: c.example")];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("realm.yaml"), shared + &locals.concat()).unwrap();
        let loaded = source::load(&SourceOptions::new(folder.path(), "sip"), None)
            .unwrap_or_else(|refusals| panic!("{refusals:?}"));
        let links = link_specs(&loaded.snapshot, &loaded.secrets).unwrap();
        // Each local domain has a link for the partner and one for its service address.
        assert_eq!(links.len(), 6);
        let config = |link: &LinkSpec| link.tls.as_ref().unwrap().config();
        for one in &links {
            for other in &links {
                let alike = (one.port == 5349) == (other.port == 5349);
                assert_eq!(Arc::ptr_eq(&config(one), &config(other)), alike, "{} {}", one.port, other.port);
            }
        }
    }
}
