//! A Redis Cluster of three primaries with a copy each as the shared store of a realm: what happens when a primary is lost.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, wait_for};
use crate::process;
use crate::redis::Redis;

/// Primaries, and copies of them.
const PRIMARIES: usize = 3;
/// How long the nodes may take for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// The nodes.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts all nodes, and returns when every slot is served and every primary has its copy.
    ///
    /// # Errors
    ///
    /// When Redis is not installed, or they do not come together.
    pub async fn start(lab: &Lab) -> Result<Self> {
        let mut nodes = Vec::new();
        for number in 0..PRIMARIES * 2 {
            nodes.push(Redis::start_node(lab, &format!("redis-{number}")).await?);
        }
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        process::run(&mut create)?;
        let cluster = Self { nodes };
        cluster.whole().await?;
        Ok(cluster)
    }

    /// The `stateStore` of a Federation for these nodes.
    pub fn declaration(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| format!("\"127.0.0.1:{}\"", node.port)).collect();
        format!("{{redis: {{mode: Cluster, addresses: [{}]}}}}", addresses.join(", "))
    }

    /// Kills the primary with this place among the primaries at once, waits until its copy serves its slots, starts it again,
    /// and returns when it is a copy.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn kill_primary(&mut self, place: usize) -> Result<()> {
        let primaries = || self.nodes.iter().enumerate().filter(|(_, node)| is_primary(node)).map(|(number, _)| number);
        let number = primaries().cycle().nth(place % PRIMARIES).context("no primary")?;
        let node = self.nodes.get_mut(number).context("no such node")?;
        node.kill();
        wait_for("another primary", PATIENCE, || async {
            let primaries = self.nodes.iter().filter(|node| is_primary(node)).count();
            Ok((primaries == PRIMARIES && self.serves()).then_some(()))
        })
        .await?;
        self.nodes.get_mut(number).context("no such node")?.resume().await?;
        self.whole().await
    }

    /// Whether the first node that answers sees every slot served.
    fn serves(&self) -> bool {
        let states = self.nodes.iter().filter_map(|node| node.ask(&["CLUSTER", "INFO"]).ok());
        states.into_iter().all(|state| state.contains("cluster_state:ok"))
    }

    /// Waits until every node sees every slot served, and every primary has a copy that is up to date.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn whole(&self) -> Result<()> {
        wait_for("the Cluster is whole", PATIENCE, || async {
            let served = self.nodes.iter().all(|node| {
                let state = node.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
                state.contains("cluster_state:ok") && state.contains(&format!("cluster_known_nodes:{}", PRIMARIES * 2))
            });
            let copied = self.nodes.iter().filter(|node| {
                let state = node.ask(&["INFO", "replication"]).unwrap_or_default();
                state.contains("role:master") && state.contains("state=online")
            });
            Ok((served && copied.count() == PRIMARIES).then_some(()))
        })
        .await
    }
}

fn is_primary(node: &Redis) -> bool {
    node.ask(&["INFO", "replication"]).is_ok_and(|state| state.contains("role:master"))
}
