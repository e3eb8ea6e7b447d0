//! Listening for SIP: TLS, and TCP and UDP where the pool has a plain port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isthmus_sip::{Message, Transport};
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::flow::{Datagrams, Opener, Peer};
use super::{SipEdge, Stop, proxy, reach};
use crate::tls::CertificateNames;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest UDP payload.
const DATAGRAM: usize = 65_535;
/// The receive buffer asked of the kernel for each UDP socket.
const DATAGRAM_BACKLOG: usize = 4 * 1024 * 1024;

/// Where a pool listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The addresses; empty means every one, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// The TLS port, `None` for a pool that only speaks plain.
    pub tls: Option<u16>,
    /// The TCP and UDP port, `None` when plain SIP is off.
    pub plain: Option<u16>,
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} ({transport}): {cause}: choose another port or address, or stop what uses it")]
pub struct BindError {
    addr: SocketAddr,
    transport: Transport,
    cause: std::io::Error,
}

/// Counts stream connections, in all and by address.
#[derive(Debug, Default)]
pub struct Admission {
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

impl Admission {
    /// Takes a place for a connection from `ip`, unless a limit is reached.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, total: usize, per_address: usize) -> Option<Place> {
        let mut counts = self.counts.lock();
        let of_address = counts.1.get(&ip).copied().unwrap_or(0);
        if counts.0 >= total || of_address >= per_address {
            return None;
        }
        counts.0 += 1;
        counts.1.insert(ip, of_address + 1);
        Some(Place { admission: Arc::clone(self), ip })
    }
}

/// One connection's place; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.0 = counts.0.saturating_sub(1);
        if let Some(of_address) = counts.1.get_mut(&self.ip) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.1.remove(&self.ip);
            }
        }
    }
}

impl SipEdge {
    /// Opens every listener of `binding`; all or none.
    ///
    /// # Errors
    ///
    /// [`BindError`], naming address, transport and remedy.
    pub fn listen(self: &Arc<Self>, binding: &Binding) -> Result<Vec<SocketAddr>, BindError> {
        let mut streams = Vec::new();
        let mut sockets = Vec::new();
        let any = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u16; 8])];
        let everywhere = binding.addresses.is_empty();
        let addresses = if everywhere { &any[..] } else { &binding.addresses };
        for ip in addresses {
            for (port, transport) in [(binding.tls, Transport::Tls), (binding.plain, Transport::Tcp)] {
                let Some(port) = port else { continue };
                let addr = SocketAddr::new(*ip, port);
                match bind_stream(addr) {
                    Ok(listener) => streams.push((listener, transport)),
                    // A machine without IPv6 listens on IPv4 alone.
                    Err(_) if everywhere && ip.is_ipv6() => {}
                    Err(cause) => return Err(BindError { addr, transport, cause }),
                }
            }
            if let Some(port) = binding.plain {
                let addr = SocketAddr::new(*ip, port);
                match bind_datagrams(addr) {
                    Ok(socket) => sockets.push(socket),
                    Err(_) if everywhere && ip.is_ipv6() => {}
                    Err(cause) => return Err(BindError { addr, transport: Transport::Udp, cause }),
                }
            }
        }
        let mut bound = Vec::new();
        for (listener, transport) in streams {
            bound.extend(listener.local_addr());
            tokio::spawn(accept(Arc::clone(self), listener, transport, self.stop.subscribe()));
        }
        for socket in sockets {
            let local = socket.local_addr().map_err(|cause| BindError {
                addr: SocketAddr::from(([0, 0, 0, 0], 0)),
                transport: Transport::Udp,
                cause,
            })?;
            bound.push(local);
            tokio::spawn(datagrams(Arc::clone(self), Arc::new(socket), local, self.stop.subscribe()));
        }
        Ok(bound)
    }
}

/// Binds a socket for one family only: an IPv6 wildcard would take the IPv4 port too.
fn bind_socket(addr: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    } else {
        // Bursts of datagrams wait here while the process is busy; the kernel caps what it grants.
        socket.set_recv_buffer_size(DATAGRAM_BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn bind_stream(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = bind_socket(addr, Type::STREAM)?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

fn bind_datagrams(addr: SocketAddr) -> std::io::Result<Datagrams> {
    Datagrams::new(bind_socket(addr, Type::DGRAM)?.into())
}

async fn accept(edge: Arc<SipEdge>, listener: TcpListener, transport: Transport, mut stop: watch::Receiver<Stop>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Draining closes the listener; connections live on.
            _ = stop.changed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most often: wait instead of spinning.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let settings = edge.settings().clone();
        let limits = settings.connections;
        // A balancer brings the connections of many, so that its own address says nothing; each of them is counted
        // again under the address that its header states.
        let balanced = reach::lies_in(remote.ip(), &settings.trusted_proxies);
        let per_address = if balanced { limits.total } else { limits.per_address };
        let Some(place) = edge.admission.enter(remote.ip(), limits.total, per_address) else {
            edge.metrics.refused("connection_limit");
            continue;
        };
        let edge = Arc::clone(&edge);
        if balanced {
            tokio::spawn(serve_balanced(edge, stream, remote, transport, place));
        } else {
            tokio::spawn(serve(edge, stream, remote, transport, place));
        }
    }
}

/// Serves a connection of a trusted balancer in the name of the peer that its header states.
async fn serve_balanced(
    edge: Arc<SipEdge>,
    mut stream: TcpStream,
    balancer: SocketAddr,
    transport: Transport,
    place: Place,
) {
    let stated = match proxy::read_header(&mut stream).await {
        Ok(stated) => stated,
        Err(error) => {
            edge.metrics.refused("proxy_header");
            tracing::warn!(
                peer = %balancer, %error,
                "connection closed: let the balancer send the PROXY header, or take its address out of trustedProxies of the pool"
            );
            return;
        }
    };
    let remote = stated.unwrap_or(balancer);
    drop(place);
    let limits = edge.settings().connections;
    // The balancer's own probes keep to no limit of one address.
    let per_address = if stated.is_some() { limits.per_address } else { limits.total };
    let Some(place) = edge.admission.enter(remote.ip(), limits.total, per_address) else {
        edge.metrics.refused("connection_limit");
        return;
    };
    serve(edge, stream, remote, transport, place).await;
}

async fn serve(edge: Arc<SipEdge>, stream: TcpStream, remote: SocketAddr, transport: Transport, place: Place) {
    let _place = place;
    let Ok(local) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    if transport == Transport::Tcp {
        edge.carry(stream, transport, remote, local, Peer::Address, Opener::Peer).await;
        return;
    }
    let acceptor = edge.acceptor();
    let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            edge.metrics.refused("tls_handshake");
            tracing::info!(peer = %remote, %error, "TLS handshake refused");
            return;
        }
        Err(_) => {
            edge.metrics.refused("tls_handshake");
            return;
        }
    };
    // The verifier demands a certificate, so there is one.
    let names = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(CertificateNames::of);
    let Some(names) = names.filter(|names| !names.as_slice().is_empty()) else {
        edge.metrics.refused("tls_identity");
        tracing::info!(peer = %remote, "certificate states no SIP identity");
        return;
    };
    let asked_for = stream.get_ref().1.server_name().map(str::to_owned);
    let peer = Peer::Certificate { names: Arc::new(names), asked_for };
    edge.carry(stream, transport, remote, local, peer, Opener::Peer).await;
}

async fn datagrams(edge: Arc<SipEdge>, socket: Arc<Datagrams>, local: SocketAddr, mut stop: watch::Receiver<Stop>) {
    let flow = edge.flows.add_socket(Arc::clone(&socket), local);
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            changed = stop.changed() => {
                if changed.is_err() || *stop.borrow() == Stop::Now {
                    edge.flows.remove(flow.id);
                    return;
                }
                continue;
            }
        };
        // An error is an ICMP message about an earlier datagram; the transaction's timers deal with it.
        let Ok((length, remote)) = received else { continue };
        let Some(datagram) = buffer.get(..length) else { continue };
        // Keep-alives over UDP, and the empty datagram that some balancers send for a dead server.
        if datagram.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) {
            continue;
        }
        match Message::parse(Bytes::copy_from_slice(datagram), &edge.settings().limits) {
            Ok(message) => edge.receive(&flow, remote, message),
            Err(error) => edge.receive_malformed(&flow, remote, &error),
        }
    }
}
