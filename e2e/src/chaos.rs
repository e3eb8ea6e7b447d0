//! Faults at random under load: what `make chaos` runs for a quarter of an hour, and a scenario for a minute.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::balancer::Policy;
use crate::cluster::Cluster;
use crate::haproxy::Haproxy;
use crate::kamailio::{Kamailio, Proxied};
use crate::lab::{Lab, wait_until};
use crate::ledger::Judgement;
use crate::manifests::{Partner, Realm};
use crate::pki::{Authority, Certificate, Name};
use crate::pods::Pods;
use crate::ports;
use crate::prosody::Prosody;
use crate::redis::Redis;
use crate::sentinel::Group;
use crate::sip_agent::SipAgent;
use crate::slow_proxy::{SlowProxy, Weather};
use crate::traffic::{Access, Dice, Plan, Side, Traffic};

/// The partner whose users take part.
pub const PARTNER: &str = "partner.example";
/// The partner with whom messages travel in sessions, where the plan has one.
pub const TALKER: &str = "talker.example";
/// What a server wrote so shortly before a process died may not have been read, or not have left on the other side.
const IN_SOCKET: Duration = Duration::from_millis(250);

/// How many addresses the gateways have for connections, so that several of them have some at a time.
const FRONTS: usize = 3;
/// How long is waited for a link to leave a pod without a store; the books have their own opinion of it, too.
const MOVED: Duration = Duration::from_secs(10);
/// How long is waited for what is under way at the end: long enough to tell what is late from what is lost.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long is waited for a link to a server that listens again; the books have their own opinion of it.
const LINK: Duration = Duration::from_secs(60);

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The pod with the partner's link is killed (SIGKILL), and started again some seconds later.
    KillHolder,
    /// Any pod is killed.
    KillAny,
    /// A pod stands still (SIGSTOP) for longer than its leases, and goes on.
    Pause,
    /// A pod drains and ends (SIGTERM), and is started again.
    Drain,
    /// Redis is stopped and started on what it has written.
    RedisRestart,
    /// Every connection to Redis breaks.
    RedisCut,
    /// Redis does not answer for some seconds.
    RedisSilent,
    /// One pod alone cannot reach Redis for some seconds, half of the time one with the partner's link: its connections are
    /// refused, or nothing passes.
    RedisCutOne,
    /// Every answer of Redis comes late.
    RedisSlow,
    /// The connections of components break.
    LinkCut,
    /// The Sentinels let a copy take the place of the primary of Redis.
    RedisFailover,
    /// The primary of Redis is killed; once there is another one it comes back as its copy.
    RedisKillPrimary,
    /// A primary of the Redis Cluster is killed; once its copy serves in its place it comes back as a copy.
    RedisKillNode,
    /// Redis has no memory left for writes for some seconds.
    RedisFull,
    /// The organisation's server is stopped by its administrator and started again; its users log in again.
    ServerRestart,
}

impl Fault {
    /// Those of a realm with one Redis.
    pub const ALONE: [Self; 12] = [
        Self::KillHolder,
        Self::KillAny,
        Self::Pause,
        Self::Drain,
        Self::RedisRestart,
        Self::RedisCut,
        Self::RedisSilent,
        Self::RedisCutOne,
        Self::RedisSlow,
        Self::RedisFull,
        Self::LinkCut,
        Self::ServerRestart,
    ];
    /// Those of a realm with a group of them.
    pub const GROUP: [Self; 8] = [
        Self::RedisFailover,
        Self::RedisKillPrimary,
        Self::KillHolder,
        Self::KillAny,
        Self::Pause,
        Self::Drain,
        Self::LinkCut,
        Self::ServerRestart,
    ];

    /// Those of a realm with a Cluster.
    pub const CLUSTER: [Self; 3] = [Self::RedisKillNode, Self::KillHolder, Self::Drain];

    /// Whether it needs a group of Redis servers with Sentinels.
    pub fn needs_group(self) -> bool {
        matches!(self, Self::RedisFailover | Self::RedisKillPrimary)
    }

    /// Its name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillHolder => "kill-holder",
            Self::KillAny => "kill",
            Self::Pause => "pause",
            Self::Drain => "drain",
            Self::RedisRestart => "redis-restart",
            Self::RedisCut => "redis-cut",
            Self::RedisSilent => "redis-silent",
            Self::RedisCutOne => "redis-cut-one",
            Self::RedisSlow => "redis-slow",
            Self::LinkCut => "link-cut",
            Self::RedisFailover => "redis-failover",
            Self::RedisKillPrimary => "redis-kill-primary",
            Self::RedisKillNode => "redis-kill-node",
            Self::RedisFull => "redis-full",
            Self::ServerRestart => "server-restart",
        }
    }

    /// Finds a fault by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALONE.into_iter().chain(Self::GROUP).chain(Self::CLUSTER).find(|fault| fault.name() == name)
    }
}

/// What stands between each pod and the one server.
#[derive(Debug)]
pub struct Ways(Vec<SlowProxy>);

impl Ways {
    /// Changes the weather for all pods.
    pub fn set(&self, weather: Weather) {
        self.0.iter().for_each(|way| way.set(weather));
    }

    /// Breaks what is open, once.
    pub fn break_connections(&self) {
        self.0.iter().for_each(SlowProxy::break_connections);
    }

    /// The way of one pod.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn of(&self, pod: usize) -> Result<&SlowProxy> {
        self.0.get(pod).with_context(|| format!("pod {pod} has no way to Redis"))
    }
}

/// The shared store of a realm, and what can be done to it.
#[derive(Debug)]
pub enum Shared {
    /// One server, and what stands between the pods and it.
    Alone {
        /// The server.
        redis: Redis,
        /// Between the pods and Redis.
        ways: Ways,
    },
    /// A primary, its copies, and three Sentinels.
    Group(Group),
    /// A Cluster.
    Cluster(Cluster),
}

impl Shared {
    /// Starts one server, and a proxy before it for each of so many pods.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn alone(lab: &Lab, pods: u8) -> Result<Self> {
        let redis = Redis::start_strict(lab).await?;
        let way = |_| SlowProxy::start((Ipv4Addr::LOCALHOST, redis.port).into());
        let ways = Ways((0..pods).map(way).collect::<Result<_>>()?);
        Ok(Self::Alone { redis, ways })
    }

    /// Starts a group.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn group(lab: &Lab) -> Result<Self> {
        Ok(Self::Group(Group::start(lab).await?))
    }

    /// Starts a Cluster.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn cluster(lab: &Lab) -> Result<Self> {
        Ok(Self::Cluster(Cluster::start(lab).await?))
    }

    /// What stands between the pods and the one server.
    ///
    /// # Errors
    ///
    /// When there are several.
    pub fn ways(&self) -> Result<&Ways> {
        match self {
            Self::Alone { ways, .. } => Ok(ways),
            Self::Group(_) | Self::Cluster(_) => bail!("nothing stands before several servers"),
        }
    }

    fn declaration(&self, pod: usize) -> Result<String> {
        Ok(match self {
            Self::Alone { ways, .. } => {
                format!("{{redis: {{mode: Standalone, addresses: [\"127.0.0.1:{}\"]}}}}", ways.of(pod)?.port)
            }
            Self::Group(group) => group.declaration(),
            Self::Cluster(cluster) => cluster.declaration(),
        })
    }
}

/// What went with a pod that was killed.
#[derive(Debug, Clone, Copy)]
pub struct Struck {
    /// Since when what it had may have got lost.
    pub from: Duration,
    /// Until when the server may have written into its socket, if it may have had a link.
    pub socket: Option<Duration>,
}

/// A realm of several pods with Redis, Prosody and a SIP domain around it, and users who talk.
#[derive(Debug)]
pub struct Field {
    /// The organisation's server.
    pub prosody: Prosody,
    /// The store.
    pub store: Shared,
    /// Between the pods and the component port of Prosody.
    pub link_way: SlowProxy,
    /// The gateways.
    pub pods: Pods,
    /// The users.
    pub traffic: Traffic,
    /// The partners, each of which has a link.
    domains: Vec<String>,
    /// The partners' proxy, if they have one.
    _proxy: Option<Kamailio>,
    /// What speaks TLS for it.
    _ends_of_tls: Vec<Haproxy>,
}

/// Who shows what where the gateways and the partners' proxy speak TLS.
struct Certificates {
    ours: Certificate,
    theirs: Certificate,
}

impl Certificates {
    fn sign(partners: &[&str]) -> Result<Self> {
        let authority = Authority::new("federation test")?;
        let names: Vec<_> = partners.iter().map(|domain| format!("sip:{domain}")).collect();
        let names: Vec<_> = names.iter().map(|name| Name::SipUri(name)).collect();
        let ours = authority.sign(&[Name::Dns("sip.corp.example"), Name::SipUri("sip:corp.example")])?;
        Ok(Self { ours, theirs: authority.sign(&names)? })
    }
}

impl Field {
    /// Starts everything, and returns when every watcher sees a first state. With `traces` the SIP side keeps what it gets.
    ///
    /// # Errors
    ///
    /// When a part does not start, or subscriptions do not come up.
    pub async fn start(lab: &Lab, count: u8, policy: Policy, plan: &Plan, traces: bool) -> Result<Self> {
        Self::start_on(Shared::alone(lab, count).await?, lab, count, policy, plan, traces).await
    }

    /// As [`Self::start`], on this store.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_on(
        store: Shared,
        lab: &Lab,
        count: u8,
        policy: Policy,
        plan: &Plan,
        traces: bool,
    ) -> Result<Self> {
        let domains = if plan.sessions { &[PARTNER, TALKER][..] } else { &[PARTNER] };
        let prosody = Pods::prosody(lab, &plan.user_names(), domains).await?;
        let link_way = SlowProxy::start((Ipv4Addr::LOCALHOST, prosody.component_port).into())?;
        let mut realm = Realm::new(link_way.port)?;
        let certificates = match plan.access {
            Access::KamailioOverTls => Some(Certificates::sign(domains)?),
            Access::Direct | Access::Kamailio | Access::KamailioOverTcp => None,
        };
        realm.certificate = certificates.as_ref().map(|both| both.ours.clone());
        let mut ends = Vec::new();
        let mut partners = Vec::new();
        for domain in domains {
            let users = ports::free()?;
            let port = if plan.access == Access::Direct { users } else { ports::free()? };
            let (transport, known_as) = match (plan.access, &certificates) {
                (_, Some(both)) => {
                    ends.push(Haproxy::end_mutual_tls(lab, port, &both.theirs).await?);
                    ("TLS", ends.last().map_or(port, |end| end.port))
                }
                (Access::KamailioOverTcp, None) => ("TCP", port),
                (_, None) => ("UDP", port),
            };
            let mode = if *domain == TALKER { "Session" } else { "Pager" };
            let partner = Partner::standard(domain, transport, known_as);
            realm = realm.partner(partner.switch("imMode", mode).switch("notifyInterval", "0s"));
            partners.push(Proxied { port, users, known_as });
        }
        realm.limits = Some("{newSessionsPerSecondPerDomain: 100000}".to_owned());
        let own = |pod: u8| Ok(Realm { state_store: Some(store.declaration(pod.into())?), ..realm.clone() });
        let mut pods = Pods::start_each(lab, &(0..count).map(own).collect::<Result<Vec<_>>>()?, policy).await?;
        let gateways = pods.balancer.address;
        let kamailio = match (plan.access, &certificates) {
            (Access::Direct, _) => None,
            (Access::Kamailio, _) => Some(Kamailio::proxy(lab, &partners, &[gateways], false).await?),
            (_, None) => {
                let fronts = pods.fronts(realm.plain_port, FRONTS).await?;
                Some(Kamailio::proxy(lab, &partners, &fronts, true).await?)
            }
            (_, Some(both)) => {
                let mut fronts = Vec::new();
                for front in pods.fronts(realm.tls_port, FRONTS).await? {
                    ends.push(Haproxy::begin_tls(lab, front.port(), &both.theirs).await?);
                    fronts.extend(ends.last().map(|end| SocketAddr::from((Ipv4Addr::LOCALHOST, end.port))));
                }
                Some(Kamailio::proxy(lab, &partners, &fronts, true).await?)
            }
        };
        let mut sides = Vec::new();
        for (domain, Proxied { port, users, .. }) in domains.iter().zip(partners) {
            prosody.wait_component(domain).await?;
            let proxy = if plan.access == Access::Direct { gateways } else { (Ipv4Addr::LOCALHOST, port).into() };
            let (agent, events) = SipAgent::start(domain, users, proxy, traces).await?;
            if let Some(secs) = plan.expires_secs {
                agent.grant_at_most(secs);
            }
            sides.push(Side { agent, events, domain: (*domain).to_owned(), sessions: *domain == TALKER });
        }
        let traffic = Traffic::start(plan, &prosody, sides).await?;
        let domains = domains.iter().map(ToString::to_string).collect();
        Ok(Self { prosody, store, link_way, pods, traffic, domains, _proxy: kamailio, _ends_of_tls: ends })
    }

    /// Makes one fault, waits until what was broken is whole again, and writes it in the books.
    ///
    /// # Errors
    ///
    /// When a pod or Redis does not start again: that is a finding, too.
    pub async fn make(&mut self, fault: Fault, dice: &mut Dice) -> Result<()> {
        let books = Arc::clone(&self.traffic.ledger);
        let from = books.now().saturating_sub(IN_SOCKET);
        let holder = self.pods.holder(PARTNER).await;
        let running = self.pods.running();
        let any = running.get(dice.below(running.len())).copied();
        let some = |dice: &mut Dice, least: u64, more: usize| {
            Duration::from_millis(least + u64::try_from(dice.below(more)).unwrap_or_default())
        };
        match fault {
            Fault::KillHolder | Fault::KillAny | Fault::Drain => {
                let pod = if fault == Fault::KillHolder { holder.or(any) } else { any }.context("no pod runs")?;
                if fault == Fault::Drain {
                    self.pods.drain(pod).await?;
                    books.fault(fault.name(), from);
                } else {
                    let struck = self.kill(pod).await?;
                    tokio::time::sleep(IN_SOCKET).await;
                    books.struck(fault.name(), struck.from, struck.socket);
                }
                tokio::time::sleep(some(dice, 500, 2500)).await;
                self.pods.run(pod).await?;
            }
            Fault::Pause => {
                let pod = if dice.below(2) == 0 { holder.or(any) } else { any }.context("no pod runs")?;
                self.pods.pause(pod)?;
                tokio::time::sleep(some(dice, 4000, 4000)).await;
                self.pods.resume(pod)?;
                // It reads what waits for it, even if the server has closed the connection meanwhile, and hands it on.
                books.struck(fault.name(), from, None);
            }
            Fault::RedisRestart => {
                let Shared::Alone { redis, .. } = &mut self.store else { bail!("a group is not restarted") };
                redis.restart().await?;
                books.store_cut(fault.name(), from);
            }
            Fault::RedisCut => {
                self.store.ways()?.break_connections();
                books.store_cut(fault.name(), from);
            }
            Fault::RedisSilent | Fault::RedisSlow => {
                let delay = Weather::Delay(some(dice, 20, 180));
                let ways = self.store.ways()?;
                ways.set(if fault == Fault::RedisSlow { delay } else { Weather::Silent });
                tokio::time::sleep(some(dice, 1000, 4000)).await;
                ways.set(Weather::Delay(Duration::ZERO));
                if fault == Fault::RedisSlow {
                    books.fault(fault.name(), from);
                } else {
                    books.store_cut(fault.name(), from);
                }
            }
            Fault::RedisCutOne => {
                let pod = if dice.below(2) == 0 { holder.or(any) } else { any }.context("no pod runs")?;
                let weather = if dice.below(2) == 0 { Weather::Cut } else { Weather::Silent };
                self.cut_one(pod, weather, some(dice, 3000, 5000)).await?;
                books.store_cut(fault.name(), from);
            }
            Fault::RedisFull => {
                let Shared::Alone { redis, .. } = &self.store else { bail!("only one server is filled") };
                redis.ask(&["CONFIG", "SET", "maxmemory", "1"])?;
                tokio::time::sleep(some(dice, 1000, 4000)).await;
                redis.ask(&["CONFIG", "SET", "maxmemory", "0"])?;
                books.fault(fault.name(), from);
            }
            Fault::RedisKillNode => {
                let Shared::Cluster(cluster) = &mut self.store else { bail!("there is no Cluster") };
                cluster.kill_primary(dice.below(3)).await?;
                books.store_cut(fault.name(), from);
            }
            Fault::RedisFailover | Fault::RedisKillPrimary => {
                let Shared::Group(group) = &mut self.store else { bail!("there are no Sentinels") };
                if fault == Fault::RedisFailover {
                    group.fail_over().await?;
                    group.whole().await?;
                } else {
                    group.kill_primary().await?;
                }
                books.store_cut(fault.name(), from);
            }
            Fault::LinkCut => {
                self.link_way.break_connections();
                tokio::time::sleep(IN_SOCKET).await;
                books.links_cut(fault.name(), from);
            }
            Fault::ServerRestart => {
                self.prosody.halt().await?;
                // The users read what the server has still written to them.
                tokio::time::sleep(IN_SOCKET).await;
                self.traffic.leave();
                let gone = books.now();
                tokio::time::sleep(some(dice, 0, 4000)).await;
                let logins = self.prosody.component_logins(PARTNER);
                self.prosody.resume().await?;
                let (prosody, listens) = (&self.prosody, books.now());
                let back = async {
                    let again = || (prosody.component_logins(PARTNER) > logins).then_some(());
                    let found = wait_until("the link to the server that is back", LINK, again).await;
                    books.link_back(books.now().saturating_sub(listens));
                    found
                };
                let (back, users) = tokio::join!(back, self.traffic.come_back(prosody));
                back.and(users)?;
                books.server_away(fault.name(), from, gone);
            }
        }
        Ok(())
    }

    /// The links that a pod may hold now, by the pods' own word. One of which nobody says so may be just coming up, here as well as
    /// anywhere.
    async fn held_by(&self, pod: usize) -> Vec<String> {
        let mut held = Vec::new();
        for domain in &self.domains {
            if self.pods.holder(domain).await.is_none_or(|holder| holder == pod) {
                held.push(domain.clone());
            }
        }
        held
    }

    /// Kills a pod. If it held no link it took nothing with it; otherwise the server sees the end of its connection at once, and
    /// returns what it has for nobody.
    ///
    /// # Errors
    ///
    /// When there is no such pod.
    pub async fn kill(&mut self, pod: usize) -> Result<Struck> {
        let held = self.held_by(pod).await;
        let now = self.traffic.ledger.now();
        self.pods.kill(pod)?;
        Ok(Struck { from: now.saturating_sub(IN_SOCKET), socket: (!held.is_empty()).then_some(now + IN_SOCKET) })
    }

    /// Keeps one pod from the store for so long. What links it holds must go to other pods once its leases have run out, and stay
    /// there; that takes the time that it takes, and is written in the books.
    ///
    /// Nothing may be lost by that: the pod lives, and reads what the server writes to it until the server has closed
    /// its connection for that of the next holder.
    ///
    /// # Errors
    ///
    /// When there is no such pod, or several stores.
    pub async fn cut_one(&mut self, pod: usize, weather: Weather, lasts: Duration) -> Result<()> {
        let books = &self.traffic.ledger;
        let mut links = Vec::new();
        for domain in &self.domains {
            if self.pods.holder(domain).await == Some(pod) {
                links.push((domain, self.prosody.component_logins(domain)));
            }
        }
        if self.pods.running().len() < 2 {
            links.clear();
        }
        let way = self.store.ways()?.of(pod)?;
        let (begin, end) = (books.now(), tokio::time::Instant::now() + lasts);
        way.set(weather);
        for (domain, logins) in &links {
            let moved = || (self.prosody.component_logins(domain) > *logins).then_some(());
            let _ = wait_until("the link at another pod", MOVED, moved).await;
            books.link_moved(books.now().saturating_sub(begin));
        }
        tokio::time::sleep_until(end).await;
        for (domain, logins) in &links {
            books.links_fought_for(self.prosody.component_logins(domain).saturating_sub(logins + 1));
        }
        way.set(Weather::Delay(Duration::ZERO));
        Ok(())
    }

    /// Drains and starts one pod after the other, with pauses between them, as a rolling restart does.
    ///
    /// # Errors
    ///
    /// When one does not end in time, or does not start again.
    pub async fn roll(&mut self, pause: Duration) -> Result<()> {
        for pod in 0..self.pods.count() {
            tokio::time::sleep(pause).await;
            let from = self.traffic.ledger.now();
            self.pods.drain(pod).await?;
            self.pods.run(pod).await?;
            self.traffic.ledger.fault(Fault::Drain.name(), from);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Makes faults of these kinds for a time, with pauses between them, and judges.
    ///
    /// # Errors
    ///
    /// When something does not start again, or the wire was misused.
    pub async fn run(mut self, faults: &[Fault], lasts: Duration, dice: &mut Dice) -> Result<Judgement> {
        let begin = Instant::now();
        self.traffic.flow();
        while begin.elapsed() < lasts {
            let pause = 1500 + u64::try_from(dice.below(2500)).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if let Some(fault) = faults.get(dice.below(faults.len())) {
                eprintln!("{:7.1} s: {}", self.traffic.ledger.now().as_secs_f64(), fault.name());
                self.make(*fault, dice).await.with_context(|| fault.name().to_owned())?;
            }
        }
        self.traffic.finish(PATIENCE).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        for fault in Fault::ALONE.into_iter().chain(Fault::GROUP).chain(Fault::CLUSTER) {
            assert_eq!(Fault::named(fault.name()), Some(fault));
        }
    }
}
