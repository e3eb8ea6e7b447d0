//! One address in front of several pods: a balancer for TCP connections and UDP datagrams, as a cluster has one.
//!
//! It knows nothing of SIP but where a Call-ID stands. TLS passes through untouched. A pod sees the balancer as its peer, and
//! what a pod answers leaves from the balancer's own address, as with `nginx` or a Service that masquerades.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use crate::http;

/// Ways from one client to one member that are kept at a time; a scenario has a handful.
const MAX_WAYS: usize = 1024;

/// Which pod gets the next datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All datagrams of one client go to one pod while that pod is a member.
    Sticky,
    /// Each datagram goes to the next pod.
    RoundRobin,
    /// As round robin, counted for each Call-ID: whatever follows in a dialog or transaction meets another pod.
    AlwaysAnother,
}

#[derive(Debug, Default)]
struct Members {
    /// In order; each with whether it takes new work.
    all: Vec<(SocketAddr, bool)>,
    next: usize,
    by_call: HashMap<String, usize>,
}

impl Members {
    fn ready(&self) -> Vec<SocketAddr> {
        self.all.iter().filter(|(_, ready)| *ready).map(|(member, _)| *member).collect()
    }

    fn next(&mut self) -> Option<SocketAddr> {
        let ready = self.ready();
        self.next = self.next.wrapping_add(1);
        ready.get(self.next.checked_rem(ready.len())?).copied()
    }

    fn choose(&mut self, policy: Policy, client: SocketAddr, datagram: &[u8]) -> Option<SocketAddr> {
        let ready = self.ready();
        match policy {
            Policy::RoundRobin => self.next(),
            Policy::Sticky => ready.get(usize::from(client.port()).checked_rem(ready.len())?).copied(),
            Policy::AlwaysAnother => {
                let counter = self.by_call.entry(call_id(datagram)?).or_insert(self.next);
                *counter = counter.wrapping_add(1);
                let chosen = ready.get(counter.checked_rem(ready.len())?).copied();
                self.next = self.next.wrapping_add(1);
                chosen
            }
        }
    }
}

/// The value of Call-ID, so that one transaction can be told from another.
fn call_id(datagram: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(datagram);
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.eq_ignore_ascii_case("call-id") || name == "i").then(|| value.trim().to_owned())
    })
}

/// A running balancer. Dropping it closes every connection through it.
#[derive(Debug)]
pub struct Balancer {
    /// Clients talk to this address, over TCP and UDP.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    members: Mutex<Members>,
    policy: Mutex<Policy>,
    ways: Mutex<HashMap<(SocketAddr, SocketAddr), Way>>,
    connections: Mutex<tokio::task::JoinSet<()>>,
}

/// The socket from which a pod hears of one client.
#[derive(Debug)]
struct Way {
    socket: Arc<UdpSocket>,
    back: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.back.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Balancer {
    /// Listens on `address` for TCP and UDP, with `members` that are all taken as ready.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start(address: SocketAddr, members: &[SocketAddr], policy: Policy) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let socket = Arc::new(UdpSocket::bind(address).await.with_context(|| format!("cannot bind {address}/udp"))?);
        let members = Members { all: members.iter().map(|m| (*m, true)).collect(), ..Members::default() };
        let shared = Arc::new(Shared {
            members: Mutex::new(members),
            policy: Mutex::new(policy),
            ways: Mutex::default(),
            connections: Mutex::default(),
        });
        let tasks = vec![
            tokio::spawn(serve_connections(listener, Arc::clone(&shared))),
            tokio::spawn(serve_datagrams(socket, Arc::clone(&shared))),
        ];
        Ok(Self { address, shared, tasks })
    }

    /// Asks a pod's `/readyz` ten times a second, and gives it new work only while it says yes.
    pub fn watch(&mut self, member: SocketAddr, admin: SocketAddr) {
        let shared = Arc::clone(&self.shared);
        self.tasks.push(tokio::spawn(async move {
            loop {
                let asked = tokio::time::timeout(Duration::from_millis(500), http::get_at(admin, "/readyz")).await;
                let ready = asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200));
                lock(&shared.members).all.iter_mut().filter(|(m, _)| *m == member).for_each(|(_, is)| *is = ready);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }

    /// Lets a pod take work.
    pub fn add(&self, member: SocketAddr) {
        self.remove(member);
        lock(&self.shared.members).all.push((member, true));
    }

    /// Gives a pod no new connection or datagram. Connections that it has stay.
    pub fn remove(&self, member: SocketAddr) {
        lock(&self.shared.members).all.retain(|(m, _)| *m != member);
    }

    /// The pods that take new work.
    pub fn ready(&self) -> Vec<SocketAddr> {
        lock(&self.shared.members).ready()
    }

    /// Chooses pods for datagrams in another way from now on.
    pub fn set_policy(&self, policy: Policy) {
        *lock(&self.shared.policy) = policy;
    }

    /// Breaks every TCP connection, as a balancer that is replaced does.
    pub fn cut(&self) {
        lock(&self.shared.connections).abort_all();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        lock(&self.shared.connections).abort_all();
        lock(&self.shared.ways).clear();
    }
}

async fn serve_connections(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let Some(member) = lock(&shared.members).next() else { continue };
        let mut connections = lock(&shared.connections);
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            if let Ok(mut pod) = TcpStream::connect(member).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
            }
        });
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0_u8; 65_536];
    loop {
        // A pod that died leaves an error on the socket that read it; this one only hears clients.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = buffer.get(..length).unwrap_or_default();
        let policy = *lock(&shared.policy);
        let Some(member) = lock(&shared.members).choose(policy, client, datagram) else { continue };
        let Ok(way) = way(&socket, &shared, client, member).await else { continue };
        let _ = way.send(datagram).await;
    }
}

async fn way(
    front: &Arc<UdpSocket>,
    shared: &Shared,
    client: SocketAddr,
    member: SocketAddr,
) -> std::io::Result<Arc<UdpSocket>> {
    if let Some(way) = lock(&shared.ways).get(&(client, member)) {
        return Ok(Arc::clone(&way.socket));
    }
    let socket = Arc::new(UdpSocket::bind((client.ip(), 0)).await?);
    socket.connect(member).await?;
    let (back, front) = (Arc::clone(&socket), Arc::clone(front));
    let back = tokio::spawn(async move {
        let mut buffer = vec![0_u8; 65_536];
        loop {
            // "Connection refused" of a dead pod is no end: the pod may come back.
            if let Ok(length) = back.recv(&mut buffer).await {
                let _ = front.send_to(buffer.get(..length).unwrap_or_default(), client).await;
            }
        }
    });
    let mut ways = lock(&shared.ways);
    if ways.len() >= MAX_WAYS {
        ways.clear();
    }
    ways.insert((client, member), Way { socket: Arc::clone(&socket), back });
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// A pod that answers each datagram and each connection with its name.
    async fn pod(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0_u8; 1024];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                socket.send_to(name.as_bytes(), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(name.as_bytes()).await.unwrap();
            }
        });
        address
    }

    async fn ask(client: &UdpSocket, balancer: &Balancer, call: &str) -> String {
        let text = format!("OPTIONS sip:x SIP/2.0\r\nCall-ID: {call}\r\n\r\n");
        client.send_to(text.as_bytes(), balancer.address).await.unwrap();
        let mut buffer = [0_u8; 1024];
        let (length, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, balancer.address, "the answer left from another address");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn datagrams_of_one_call_meet_another_pod_each_time_and_answers_come_from_the_balancer() {
        let pods = [pod("a").await, pod("b").await, pod("c").await];
        let balancer = Balancer::start(LOCAL.into(), &pods, Policy::AlwaysAnother).await.unwrap();
        let client = UdpSocket::bind(LOCAL).await.unwrap();
        let mut last: HashMap<&str, String> = HashMap::new();
        for call in ["one", "one", "two", "one", "two", "two", "one"] {
            let answer = ask(&client, &balancer, call).await;
            assert_ne!(last.insert(call, answer.clone()), Some(answer));
        }
        balancer.set_policy(Policy::Sticky);
        let first = ask(&client, &balancer, "one").await;
        for call in ["two", "three", "four"] {
            assert_eq!(ask(&client, &balancer, call).await, first);
        }
        balancer.remove(pods[0]);
        balancer.remove(pods[1]);
        assert_eq!(ask(&client, &balancer, "one").await, "c");
    }

    #[tokio::test]
    async fn connections_go_round_and_skip_pods_that_are_out() {
        let pods = [pod("a").await, pod("b").await];
        let balancer = Balancer::start(LOCAL.into(), &pods, Policy::RoundRobin).await.unwrap();
        let read = async || {
            let mut text = String::new();
            TcpStream::connect(balancer.address).await.unwrap().read_to_string(&mut text).await.unwrap();
            text
        };
        let (first, second) = (read().await, read().await);
        assert_ne!(first, second);
        balancer.remove(pods[1]);
        assert_eq!((read().await, read().await), ("a".to_owned(), "a".to_owned()));
        balancer.add(pods[1]);
        assert_eq!(balancer.ready().len(), 2);
    }
}
