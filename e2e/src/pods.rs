//! Several gateways of one realm behind one address, and what can happen to each of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::balancer::{Balancer, Policy};
use crate::gateway::Gateway;
use crate::lab::Lab;
use crate::manifests::Realm;
use crate::prosody::{Prosody, ProsodyPlan};

/// One place for a gateway: its address stays when the process is replaced.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    sip: SocketAddr,
    admin: SocketAddr,
    gateway: Option<Gateway>,
    paused: bool,
}

/// The gateways of a realm.
#[derive(Debug)]
pub struct Pods {
    /// The address of all of them: the port of the realm on 127.0.0.1, UDP and TCP.
    pub balancer: Balancer,
    fronts: Vec<Balancer>,
    places: Vec<Place>,
}

impl Pods {
    /// Starts Prosody for these users and components, so that the newest connection of a component wins, and what comes for
    /// users who are not logged in is kept for them.
    ///
    /// # Errors
    ///
    /// When Prosody does not start.
    pub async fn prosody(lab: &Lab, users: &[String], components: &[&str]) -> Result<Prosody> {
        let mut plan = ProsodyPlan::corp(&[], components);
        plan.components.push("fed.corp.example".to_owned());
        plan.users = users.to_vec();
        plan.newest_wins = true;
        plan.stores_offline = true;
        Prosody::start(lab, &plan).await
    }

    /// Starts `count` gateways of a realm and waits until each is ready.
    ///
    /// Each has an address of its own, 127.0.0.11 and so on, with the same ports; 127.0.0.1 is the balancer's.
    ///
    /// # Errors
    ///
    /// When one does not get ready.
    pub async fn start(lab: &Lab, realm: &Realm, count: u8, policy: Policy) -> Result<Self> {
        Self::start_each(lab, &vec![realm.clone(); count.into()], policy).await
    }

    /// As [`Self::start`], with one gateway for each of these, which differ in what a gateway may be told for itself: its way to
    /// the store.
    ///
    /// # Errors
    ///
    /// As [`Self::start`], or when there is none.
    pub async fn start_each(lab: &Lab, realms: &[Realm], policy: Policy) -> Result<Self> {
        let first = realms.first().context("no gateway is wanted")?;
        let write = |number: u8, folder: &Path, address: Ipv4Addr| {
            let own = realms.get(usize::from(number)).unwrap_or(first).clone();
            Realm { bind: vec![address.to_string()], ..own }.write(folder)
        };
        let count = u8::try_from(realms.len())?;
        Self::start_on(lab, count, policy, (first.plain_port, first.admin_port), write).await
    }

    /// As [`Self::start`], on the files of `manifests` with two changes: where each listens, and the state store.
    ///
    /// # Errors
    ///
    /// When the files do not say where to change them, or as [`Self::start`].
    pub async fn start_like(
        lab: &Lab,
        manifests: &Path,
        count: u8,
        ports: (u16, u16),
        state_store: &str,
    ) -> Result<Self> {
        let write = |_: u8, folder: &Path, address: Ipv4Addr| {
            let (own, secrets) = (folder.join("manifests"), folder.join("secrets"));
            std::fs::create_dir_all(&own)?;
            std::fs::create_dir_all(&secrets)?;
            let mut changed = 0;
            for entry in std::fs::read_dir(manifests)? {
                let entry = entry?;
                let mut text = std::fs::read_to_string(entry.path())?;
                for (from, to) in [
                    ("bind: [\"127.0.0.1\"]", format!("bind: [\"{address}\"]")),
                    ("  credentialsSecretRef:", format!("  stateStore: {state_store}\n  credentialsSecretRef:")),
                ] {
                    changed += text.matches(from).count();
                    text = text.replace(from, &to);
                }
                std::fs::write(own.join(entry.file_name()), text)?;
            }
            ensure!(changed == 2, "{}: {changed} places to change, not 2", manifests.display());
            Ok(())
        };
        Self::start_on(lab, count, Policy::RoundRobin, ports, write).await
    }

    async fn start_on(
        lab: &Lab,
        count: u8,
        policy: Policy,
        (plain_port, admin_port): (u16, u16),
        write: impl Fn(u8, &Path, Ipv4Addr) -> Result<()>,
    ) -> Result<Self> {
        let mut places = Vec::new();
        for number in 0..count {
            let address = Ipv4Addr::new(127, 0, 0, 11 + number);
            let folder = lab.folder(&format!("pod-{number}"))?;
            write(number, &folder, address)?;
            places.push(Place {
                folder,
                sip: (address, plain_port).into(),
                admin: (address, admin_port).into(),
                gateway: None,
                paused: false,
            });
        }
        let front = (Ipv4Addr::LOCALHOST, plain_port).into();
        let members: Vec<SocketAddr> = places.iter().map(|place| place.sip).collect();
        let mut pods = Self { balancer: Balancer::start(front, &members, policy).await?, places, fronts: Vec::new() };
        for number in 0..pods.places.len() {
            pods.run(number).await?;
        }
        for place in &pods.places {
            pods.balancer.watch(place.sip, place.admin);
        }
        Ok(pods)
    }

    /// Adds addresses of all of them for one of their ports; TLS passes through untouched. A client that has a connection to each
    /// speaks with several pods at a time.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound.
    pub async fn fronts(&mut self, port: u16, count: usize) -> Result<Vec<SocketAddr>> {
        let mut members: Vec<_> =
            self.places.iter().map(|place| (SocketAddr::from((place.sip.ip(), port)), place.admin)).collect();
        for _ in 0..count {
            // The first connection of each goes to another pod.
            members.rotate_left(1);
            let all: Vec<_> = members.iter().map(|(member, _)| *member).collect();
            let mut front = Balancer::start((Ipv4Addr::LOCALHOST, 0).into(), &all, Policy::RoundRobin).await?;
            for (member, admin) in &members {
                front.watch(*member, *admin);
            }
            self.fronts.push(front);
        }
        Ok(self.fronts.iter().map(|front| front.address).collect())
    }

    fn place(&mut self, number: usize) -> Result<&mut Place> {
        self.places.get_mut(number).with_context(|| format!("there is no pod {number}"))
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The SIP address of a pod itself.
    pub fn sip(&self, number: usize) -> Option<SocketAddr> {
        self.places.get(number).map(|place| place.sip)
    }

    /// A pod that runs.
    pub fn pod(&self, number: usize) -> Option<&Gateway> {
        self.places.get(number)?.gateway.as_ref()
    }

    /// The numbers of the pods that run and are not paused.
    pub fn running(&self) -> Vec<usize> {
        let runs = |(number, place): (usize, &Place)| (place.gateway.is_some() && !place.paused).then_some(number);
        self.places.iter().enumerate().filter_map(runs).collect()
    }

    /// Starts the gateway of a place and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not get ready.
    pub async fn run(&mut self, number: usize) -> Result<()> {
        let place = self.place(number)?;
        place.gateway = None;
        place.paused = false;
        place.gateway = Some(Gateway::resume_at(&place.folder, place.admin).await?);
        Ok(())
    }

    /// Kills a pod at once (SIGKILL).
    ///
    /// # Errors
    ///
    /// When there is no such pod.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        let place = self.place(number)?;
        place.paused = false;
        if let Some(gateway) = place.gateway.take() {
            gateway.kill();
        }
        Ok(())
    }

    /// Stops the clock of a pod (SIGSTOP).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&mut self, number: usize) -> Result<()> {
        let place = self.place(number)?;
        place.gateway.as_ref().context("the pod does not run")?.signal(Signal::STOP)?;
        place.paused = true;
        Ok(())
    }

    /// Lets a paused pod go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&mut self, number: usize) -> Result<()> {
        let place = self.place(number)?;
        place.gateway.as_ref().context("the pod does not run")?.signal(Signal::CONT)?;
        place.paused = false;
        Ok(())
    }

    /// Lets a pod drain (SIGTERM) and end, as a rolling restart does, and gives the time that this took.
    ///
    /// # Errors
    ///
    /// When it does not run, or as [`Gateway::stop`].
    pub async fn drain(&mut self, number: usize) -> Result<Duration> {
        let gateway = self.place(number)?.gateway.take().context("the pod does not run")?;
        gateway.stop().await.with_context(|| format!("the drain of pod {number}"))
    }

    /// Which pod has this link up, by its own status page.
    pub async fn holder(&self, name: &str) -> Option<usize> {
        for number in self.running() {
            let Some(Ok(status)) = self.page(number).await else { continue };
            let links = status.get("links").and_then(|l| l.as_array()).cloned().unwrap_or_default();
            let says = |link: &serde_json::Value, key: &str, value: &str| link.get(key).is_some_and(|v| v == value);
            if links.iter().any(|link| says(link, "component", name) && says(link, "state", "Connected")) {
                return Some(number);
            }
        }
        None
    }

    async fn page(&self, number: usize) -> Option<Result<serde_json::Value>> {
        Some(self.pod(number)?.status().await)
    }
}
