//! The configuration in force, with what the bridge derives from it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use isthmus_crds::{Dialect as ConfigDialect, SipTransport, TypingMode};
use isthmus_interwork::Dialect;
use isthmus_interwork::address::Spelling;
use isthmus_interwork::authorization::PairConfig;
use isthmus_interwork::peer::Refuses;
use isthmus_interwork::session::SessionConfig;
use isthmus_model::{BareAddress, DenyMode, Domain};
use isthmus_policy::profile::{MessageMode, Srv};
use isthmus_policy::{FederatedDomain, Pool, Route, Snapshot};
use isthmus_sip::Transport;
use isthmus_sip::endpoint::SentBy;
use isthmus_sip::subscription::ExpiresLimits;
use isthmus_sip::subscription::notifier::NotifierConfig;
use isthmus_sip::timer::TimerConfig;

use crate::dns::{Discovery, Locator};
use crate::edge::sip::outbound::{PeerRoute, Whereabouts};

/// Subscriptions of one watcher to one user; a person has a handful of devices.
const MAX_DIALOGS: usize = 16;
/// The shortest lifetime that is granted to a watcher.
const MIN_EXPIRES_SECS: u32 = 60;

/// One configuration.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The compiled realm.
    pub snapshot: Arc<Snapshot>,
    /// The pool that this process belongs to.
    pub pool: Arc<Pool>,
    /// The resolver.
    pub locator: Locator,
    /// The SIP timers.
    pub timers: TimerConfig,
}

impl Runtime {
    /// Returns how requests for users of `remote` leave on behalf of `local`; `None` when there is no such
    /// SIP domain or no name of ours for the local domain.
    pub fn route(&self, remote: &Domain, local: &Domain) -> Option<Arc<PeerRoute>> {
        let domain = self.snapshot.federated(remote)?;
        let transport = transport_of(domain);
        Some(Arc::new(PeerRoute {
            peer: remote.clone(),
            local: local.clone(),
            sent_by: SentBy::new(self.pool.sip_name(local)?, self.port(transport)),
            whereabouts: match &domain.route {
                Route::Static(hops) => {
                    Whereabouts::Static(hops.iter().map(|hop| (hop.host.clone(), hop.port)).collect())
                }
                Route::Dns => Whereabouts::Dns(match domain.settings.srv {
                    Srv::SipFederationTls => Discovery::SipFederationTls { fallback: domain.settings.srv_fallback },
                    _ => Discovery::Rfc3263,
                }),
            },
            transport,
            domain: Arc::clone(domain),
        }))
    }

    /// Returns every name under which peers know us.
    pub fn own_names(&self) -> Vec<SentBy> {
        let mut names: Vec<SentBy> = self
            .snapshot
            .locals()
            .iter()
            .filter_map(|local| self.pool.sip_name(&local.domain))
            .map(|name| SentBy::new(name, None))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn port(&self, transport: Transport) -> Option<u16> {
        match transport {
            Transport::Tls => Some(self.pool.ports.sip),
            Transport::Tcp | Transport::Udp => self.pool.ports.sip_plain,
        }
    }

    /// Returns the Contact of dialogs between a local user and a federated domain.
    pub fn contact(&self, local: &BareAddress, domain: &FederatedDomain) -> Option<String> {
        let host = self.pool.sip_name(&local.domain)?;
        let transport = transport_of(domain);
        let port = self.port(transport).unwrap_or_else(|| transport.default_port());
        let user = local.local.to_sip_user();
        let name = transport.as_str().to_ascii_lowercase();
        Some(format!("<sip:{user}@{host}:{port};transport={name}>"))
    }

    /// Returns what the session machine needs; `None` when the domain is gone from the configuration. `refuses` is what
    /// was learned about the domain.
    pub fn session_config(
        &self,
        local: &BareAddress,
        remote: &BareAddress,
        spelling: Option<Spelling>,
        refuses: Option<Refuses>,
    ) -> Option<SessionConfig> {
        let domain = self.snapshot.federated(&remote.domain)?;
        let settings = &domain.settings;
        let (new_sessions, pager_fallback) = match settings.messages {
            MessageMode::Session => (true, false),
            MessageMode::SessionThenPager => {
                let open = refuses != Some(Refuses::Sessions);
                (open, open)
            }
            MessageMode::PagerThenSession => (refuses == Some(Refuses::SingleMessages), false),
            MessageMode::Pager | MessageMode::Stanza => (false, false),
        };
        // Address and port of the session description carry no meaning: messages travel in the dialog.
        let address = self.pool.bind.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let port = self.port(transport_of(domain)).unwrap_or(5060);
        let agent = self.pool.sip_name(&local.domain)?;
        Some(SessionConfig {
            idle: settings.idle_timeout,
            answer_wait: settings.invite_timeout,
            transaction_timeout: self.timers.timeout(),
            receipt_on_200: settings.receipt_on_200,
            typing: settings.typing != TypingMode::Off,
            new_sessions,
            pager_fallback,
            spelling,
            ..SessionConfig::new(dialect_of(domain), self.contact(local, domain)?, address, port, agent)
        })
    }

    /// Returns what the pair machine needs; `None` when the domain is gone from the configuration.
    pub fn pair_config(
        &self,
        local: &BareAddress,
        remote: &BareAddress,
        spelling: Option<Spelling>,
    ) -> Option<PairConfig> {
        let domain = self.snapshot.federated(&remote.domain)?;
        let home = self.snapshot.local(&local.domain)?;
        let settings = &domain.settings;
        Some(PairConfig {
            dialect: dialect_of(domain),
            contact: self.contact(local, domain)?,
            expires_ask_secs: secs(settings.expires_ask),
            expires: ExpiresLimits { min_secs: MIN_EXPIRES_SECS, max_secs: secs(settings.expires_grant).max(3600) },
            notifier: NotifierConfig { interval: settings.notify_interval.unwrap_or_default() },
            deny_mode: match home.policy.deny_mode {
                DenyMode::Polite => DenyMode::Polite,
                DenyMode::Reject => DenyMode::Reject,
            },
            pending_max: home.policy.pending_max,
            timer_n: self.timers.timeout(),
            max_dialogs: MAX_DIALOGS,
            spelling,
        })
    }
}

/// Returns the dialect that the mappings branch on.
pub(super) fn dialect_of(domain: &FederatedDomain) -> Dialect {
    match domain.settings.dialect {
        ConfigDialect::Microsoft => Dialect::Microsoft,
        _ => Dialect::Standard,
    }
}

/// Returns how the domain is reached.
fn transport_of(domain: &FederatedDomain) -> Transport {
    match domain.transport {
        SipTransport::Tls => Transport::Tls,
        SipTransport::Tcp => Transport::Tcp,
        SipTransport::Udp => Transport::Udp,
    }
}

fn secs(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
