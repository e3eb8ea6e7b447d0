//! The state store that the manifests declare: embedded, or a Redis that several processes share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use isthmus_crds::RedisMode;
use isthmus_policy::Federation;
use isthmus_store::redis::{Credentials, Mode, Tls};
use isthmus_store::{Health, HealthState, MemoryStore, RedisConfig, RedisStore, Store, SystemClock};

use crate::edge::xmpp::LinkTls;
use crate::metrics::{Metrics, Reason};
use crate::run::{Failure, Options, client_tls};
use crate::source::Secrets;

/// How long the start of the process waits for a Redis; it goes on without.
const FIRST_CONTACT: Duration = Duration::from_secs(2);
/// How often the store is asked how it is.
const LOOK: Duration = Duration::from_secs(10);
/// How often while it does not work.
const LOOK_DOWN: Duration = Duration::from_secs(1);

/// What cannot change while the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    mode: Mode,
    addresses: Vec<String>,
    prefix: String,
    tls: bool,
    server_name: Option<String>,
}

/// A Redis as it is declared, with what its Secrets hold.
#[derive(Debug)]
pub(crate) struct Declared {
    place: Place,
    credentials: Option<Credentials>,
    tls: Option<LinkTls>,
}

impl Declared {
    /// Reads the declaration; `None` where there is none.
    pub(crate) fn of(federation: Option<&Federation>, secrets: &Secrets) -> Result<Option<Self>, Failure> {
        let Some((federation, redis)) = federation.and_then(|federation| Some((federation, federation.spec.redis()?)))
        else {
            return Ok(None);
        };
        let text = |name: &str, key: &str| {
            let value = secrets.get(name, key).and_then(|value| std::str::from_utf8(value).ok());
            value
                .map(|value| value.trim_end_matches(['\r', '\n']).to_owned())
                .ok_or_else(|| Failure::new(format!("Secret {name} has no key {key}: add the key to it, as text")))
        };
        let credentials = match &redis.auth_secret_ref {
            Some(auth) => Some(Credentials {
                user: auth.user_key.as_ref().map(|key| text(&auth.name, key)).transpose()?,
                password: text(&auth.name, &auth.password_key)?,
            }),
            None => None,
        };
        let host = redis.addresses.first().and_then(|address| Some(address.rsplit_once(':')?.0)).unwrap_or_default();
        let tls = redis.tls.as_ref().map(|tls| client_tls(tls, host, secrets)).transpose()?;
        let place = Place {
            mode: match redis.mode {
                RedisMode::Standalone => Mode::Standalone,
                RedisMode::Sentinel => Mode::Sentinel { master: redis.master_name.clone().unwrap_or_default() },
                RedisMode::Cluster => Mode::Cluster,
            },
            addresses: redis.addresses.clone(),
            prefix: redis.key_prefix.clone().unwrap_or_else(|| format!("isthmus:{}:", federation.namespace)),
            tls: tls.is_some(),
            server_name: redis.tls.as_ref().and_then(|tls| tls.server_name.clone()),
        };
        Ok(Some(Self { place, credentials, tls }))
    }
}

/// What new connections to a Redis use; it follows the Secrets.
#[derive(Debug)]
struct Access {
    place: Place,
    credentials: ArcSwapOption<Credentials>,
    tls: ArcSwapOption<LinkTls>,
}

/// The state store of the process.
pub(crate) struct StateStore {
    pub(crate) store: Arc<dyn Store>,
    access: Option<Arc<Access>>,
    /// The mode of the Redis; `None` for the embedded store.
    pub(crate) mode: Option<&'static str>,
    /// How the store was when it was asked last.
    pub(crate) health: Arc<ArcSwap<Option<Health>>>,
}

impl StateStore {
    /// Opens the declared store. A Redis that is away is waited for a little, then the process starts without it.
    pub(crate) async fn open(
        options: &Options,
        declared: Option<Declared>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Failure> {
        let (store, access): (Arc<dyn Store>, _) = if let Some(declared) = declared {
            if options.state_dir.is_some() {
                tracing::warn!("--state-dir is not used: Federation.spec.stateStore declares where state is kept");
            }
            let (store, access) = connect(declared).await?;
            (store, Some(access))
        } else {
            let (limits, clock) = (isthmus_store::memory::Limits::default(), Arc::new(SystemClock));
            let store = match &options.state_dir {
                Some(dir) => MemoryStore::open(limits, clock, dir).map_err(Failure::of)?,
                None => MemoryStore::new(limits, clock),
            };
            (Arc::new(store), None)
        };
        let mode = access.as_ref().map(|access| match access.place.mode {
            Mode::Standalone => "Standalone",
            Mode::Sentinel { .. } => "Sentinel",
            Mode::Cluster => "Cluster",
        });
        let health = Arc::new(ArcSwap::from_pointee(None));
        tokio::spawn(look(Arc::clone(&store), Arc::clone(&health), metrics));
        Ok(Self { store, access, mode, health })
    }

    /// Takes what Secrets hold now, for new connections; tells whether another store is declared by now, which only the next start
    /// of the process takes.
    pub(crate) fn take(&self, declared: Option<Declared>) -> bool {
        match (&self.access, declared) {
            (None, None) => false,
            (Some(access), Some(declared)) if access.place == declared.place => {
                access.credentials.store(declared.credentials.map(Arc::new));
                access.tls.store(declared.tls.map(Arc::new));
                false
            }
            _ => true,
        }
    }
}

async fn connect(declared: Declared) -> Result<(Arc<dyn Store>, Arc<Access>), Failure> {
    let Declared { place, credentials, tls } = declared;
    let mut config = RedisConfig::new(place.mode.clone(), place.addresses.clone(), &place.prefix);
    let access = Arc::new(Access {
        credentials: ArcSwapOption::from_pointee(credentials),
        tls: ArcSwapOption::from_pointee(tls.clone()),
        place,
    });
    let of = Arc::clone(&access);
    config.credentials = Arc::new(move || of.credentials.load().as_deref().cloned());
    config.tls = tls.map(|first| {
        let of = Arc::clone(&access);
        let config = move || of.tls.load().as_ref().map_or_else(|| first.config(), |tls| tls.config());
        Tls { config: Arc::new(config), server_name: access.place.server_name.clone() }
    });
    let store = RedisStore::start(config).map_err(Failure::of)?;
    if !store.ready(FIRST_CONTACT).await {
        tracing::warn!("the state store does not answer; dialogs and subscriptions are refused until it does");
    }
    Ok((Arc::new(store), access))
}

/// Asks the store again and again how it is, and says what changed.
async fn look(store: Arc<dyn Store>, last: Arc<ArcSwap<Option<Health>>>, metrics: Arc<Metrics>) {
    let mut known: Vec<&'static str> = Vec::new();
    loop {
        let health = store.health().await;
        metrics.store_up.set(i64::from(health.state != HealthState::Down));
        let now: Vec<_> = health.findings.iter().map(|finding| finding.reason).collect();
        for reason in known.iter().filter(|reason| !now.contains(reason)) {
            metrics.store_findings.get_or_create(&Reason { reason }).set(0);
            tracing::info!(reason, "state store: no longer so");
        }
        for finding in health.findings.iter().filter(|finding| !known.contains(&finding.reason)) {
            let (reason, message, remedy) = (finding.reason, &finding.message, &finding.remedy);
            metrics.store_findings.get_or_create(&Reason { reason }).set(1);
            tracing::warn!(reason, remedy, "state store: {message}");
        }
        known = now;
        let pause = if health.state == HealthState::Down { LOOK_DOWN } else { LOOK };
        last.store(Arc::new(Some(health)));
        tokio::time::sleep(pause).await;
    }
}
