//! The documents of `/v1/config` and `/v1/status`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use isthmus_model::Domain;
use isthmus_policy::Severity;
use isthmus_store::{Health, Store};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admin::Report;
use crate::bridge::{BlindTimes, Bridge};
use crate::edge::xmpp::{LinkState, Links};
use crate::pods::Pods;
use crate::source::Loaded;

/// The last refused configuration, `None` while the one on disk is in force.
pub type LastError = Arc<Mutex<Option<String>>>;

/// What the configuration in force says and the next start of the process will do.
pub type AtNextStart = Arc<Mutex<Vec<&'static str>>>;

/// Where the documents come from.
pub struct StatusReport {
    /// The configuration in force.
    pub loaded: Arc<ArcSwap<Loaded>>,
    /// The links to local servers.
    pub links: Arc<Links>,
    /// The state store.
    pub store: Arc<dyn Store>,
    /// The mode of the Redis that the manifests declare; `None` for the embedded store.
    pub store_mode: Option<&'static str>,
    /// How the state store was when it was asked last.
    pub health: Arc<ArcSwap<Option<Health>>>,
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// The processes that share the store.
    pub pods: Arc<Pods>,
    /// The last refused configuration.
    pub last_error: LastError,
    /// What is taken at the next start only.
    pub at_next_start: AtNextStart,
    /// The pool of this process.
    pub pool: String,
}

impl std::fmt::Debug for StatusReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusReport").finish_non_exhaustive()
    }
}

impl Report for StatusReport {
    fn config(&self) -> Value {
        let loaded = self.loaded.load();
        let later = self.at_next_start.lock().clone();
        let notices = loaded.notices.iter().map(ToString::to_string).chain(later.into_iter().map(str::to_owned));
        json!({
            "pool": self.pool,
            "generation": loaded.generation,
            "lastError": *self.last_error.lock(),
            "notices": notices.collect::<Vec<_>>(),
        })
    }

    fn status(&self) -> Value {
        let loaded = self.loaded.load();
        let problems: Vec<Value> = loaded
            .problems
            .iter()
            .map(|problem| {
                json!({
                    "kind": problem.kind.as_str(),
                    "name": problem.name,
                    "type": problem.condition,
                    "reason": problem.reason,
                    "accepted": problem.severity != Severity::Refused,
                    "field": problem.field,
                    "message": problem.message(),
                })
            })
            .collect();
        let links: Vec<Value> = self
            .links
            .states()
            .into_iter()
            .map(|(link, state)| {
                let holder = match &state {
                    LinkState::Standby(holder) => holder.clone(),
                    LinkState::Ready if self.store.is_shared() => Some(self.pods.life().to_owned()),
                    _ => None,
                };
                let (state, error) = match state {
                    LinkState::Ready => ("Connected", None),
                    LinkState::Connecting => ("Connecting", None),
                    LinkState::Down(error) => ("Disconnected", Some(error)),
                    LinkState::Standby(_) => ("Standby", None),
                };
                json!({
                    "component": link.name.as_str(),
                    "host": link.host,
                    "port": link.port,
                    "localDomains": link.locals.iter().map(Domain::as_str).collect::<Vec<_>>(),
                    "state": state,
                    "lastError": error,
                    "holder": holder,
                })
            })
            .collect();
        let pods: Vec<Value> = self
            .pods
            .members()
            .into_iter()
            .map(|member| {
                json!({
                    "life": member.life,
                    "node": member.node,
                    "startedAt": member.started,
                    "draining": member.draining,
                    "self": member.life == self.pods.life(),
                })
            })
            .collect();
        // The embedded store looks at itself without waiting.
        let fresh = if self.store.is_shared() { None } else { self.store.health().now_or_never() };
        let health = fresh.or_else(|| (**self.health.load()).clone());
        let store = health.map(|health| {
            let findings = health.findings.iter();
            json!({
                "backend": if self.store.is_shared() { "redis" } else { "memory" },
                "mode": self.store_mode,
                "state": format!("{:?}", health.state),
                "reason": health.findings.first().map_or("Reachable", |finding| finding.reason),
                "durable": health.durable,
                "records": health.records,
                "timers": health.timers,
                "queued": health.queued,
                "expiredItems": health.expired_items,
                "findings": findings
                    .map(|f| json!({"reason": f.reason, "message": f.message, "remedy": f.remedy}))
                    .collect::<Vec<_>>(),
            })
        });
        json!({
            "generation": loaded.generation,
            "problems": problems,
            "links": links,
            "presence": {"blind": blind(&self.bridge.blind_times())},
            "stateStore": store,
            "pods": pods,
        })
    }
}

/// Writes for how long presence was not whole, in seconds.
fn blind(times: &BlindTimes) -> Value {
    let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
    json!({
        "count": times.count,
        "p50": seconds(times.p50),
        "p99": seconds(times.p99),
        "max": seconds(times.max),
        "pending": times.pending,
    })
}
