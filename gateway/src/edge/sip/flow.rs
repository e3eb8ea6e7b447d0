//! Open ways to a peer: a stream connection, or one of our UDP sockets.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isthmus_sip::Transport;
use isthmus_sip::endpoint::{FlowId, Origin};
use parking_lot::{Mutex, RwLock};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::tls::CertificateNames;

/// Peers whose connections have ended and had brought requests: how many are remembered, and how long. An INVITE is answered
/// within three minutes, and everything else sooner.
const MAX_FORMER: usize = 4096;
const FORMER: Duration = Duration::from_mins(4);

/// Who is at the other end, as far as the transport tells.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Somebody with a verified certificate.
    Certificate {
        /// What the certificate states.
        names: Arc<CertificateNames>,
        /// The name of ours that they asked for, where they opened the connection.
        asked_for: Option<String>,
    },
    /// Nobody proved anything; the source address is all there is.
    Address,
}

impl Peer {
    /// Tells whether a connection with `other` is one with this peer, as far as certificates tell.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Certificate { names, .. }, Self::Certificate { names: others, .. }) => {
                names.as_slice().iter().any(|name| others.as_slice().contains(name))
            }
            (Self::Address, Self::Address) => true,
            (Self::Certificate { .. }, Self::Address) | (Self::Address, Self::Certificate { .. }) => false,
        }
    }
}

/// One open way.
#[derive(Debug)]
pub struct Flow {
    /// Its name towards the transaction layer.
    pub id: FlowId,
    /// How it carries messages.
    pub transport: Transport,
    /// The other end; unspecified for a UDP socket, which has many.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Who is there.
    pub peer: Peer,
    out: Out,
}

#[derive(Debug)]
enum Out {
    Datagrams(Arc<Datagrams>),
    Stream { opened_by: Opener, queue: mpsc::Sender<Queued>, asked: AtomicBool },
}

/// What waits for its connection's socket.
#[derive(Debug)]
pub enum Queued {
    /// A message.
    Message {
        /// All of it.
        bytes: Bytes,
        /// Whose it is: told when the connection ends before the message was written.
        origin: Origin,
    },
    /// The end of what we write.
    End,
}

/// Who opened a stream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// The peer.
    Peer,
    /// This process.
    Here,
}

impl Opener {
    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "inbound",
            Self::Here => "outbound",
        }
    }
}

/// A UDP socket that wakes its reader for datagrams alone. One that also waits to be writable, as the runtime's own
/// does, wakes a thread for each datagram sent, and nobody here waits to send one.
#[derive(Debug)]
pub struct Datagrams {
    socket: AsyncFd<UdpSocket>,
}

impl Datagrams {
    /// Takes a socket that does not block.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch it.
    #[expect(
        deprecated,
        reason = "its unsafe successor demands that the descriptor stays the same while it is watched, which a UdpSocket of ours does"
    )]
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self { socket: AsyncFd::with_interest(socket, Interest::READABLE)? })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Waits for a datagram; what does not fit into `buffer` is cut off. Dropping the wait loses nothing.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::recv_from`].
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.async_io(Interest::READABLE, |socket| socket.recv_from(buffer)).await
    }

    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.get_ref().send_to(bytes, to)
    }
}

/// Why bytes could not be handed to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The connection is gone.
    #[error("the connection is closed")]
    Closed,
    /// The peer does not read what was sent before.
    #[error("the connection's send queue is full")]
    Full,
}

impl Flow {
    /// Hands bytes to the socket or the connection's queue; never waits.
    ///
    /// # Errors
    ///
    /// [`FlowError`].
    pub fn send(&self, to: SocketAddr, bytes: Bytes, origin: Origin) -> Result<(), FlowError> {
        match &self.out {
            Out::Datagrams(socket) => match socket.send_to(&bytes, to) {
                Ok(_) => Ok(()),
                // A full socket buffer loses the datagram, as the network may: the timers repeat it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(_) => Err(FlowError::Closed),
            },
            Out::Stream { queue, .. } => {
                queue.try_send(Queued::Message { bytes, origin }).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => FlowError::Full,
                    mpsc::error::TrySendError::Closed(_) => FlowError::Closed,
                })
            }
        }
    }

    /// Tells whether the flow still takes bytes.
    pub fn is_open(&self) -> bool {
        match &self.out {
            Out::Datagrams(_) => true,
            Out::Stream { queue, .. } => !queue.is_closed(),
        }
    }

    /// Notes that a request came.
    pub fn note_request(&self) {
        if let Out::Stream { asked, .. } = &self.out {
            asked.store(true, Ordering::Relaxed);
        }
    }

    /// Tells who opened it; sockets are this process's.
    pub fn opened_by(&self) -> Opener {
        match &self.out {
            Out::Datagrams(_) => Opener::Here,
            Out::Stream { opened_by, .. } => *opened_by,
        }
    }

    /// Has the connection closed for what we write, after all that was handed to it before, unless its queue is full at the moment.
    /// A UDP socket has no end.
    fn end(&self) {
        if let Out::Stream { queue, .. } = &self.out {
            let _ = queue.try_send(Queued::End);
        }
    }
}

/// All open flows of the process.
#[derive(Debug, Default)]
pub struct Flows {
    next: AtomicU64,
    open: RwLock<HashMap<FlowId, Arc<Flow>>>,
    former: Mutex<VecDeque<(Instant, FlowId, Peer)>>,
}

impl Flows {
    /// Adds a UDP socket.
    pub fn add_socket(&self, socket: Arc<Datagrams>, local: SocketAddr) -> Arc<Flow> {
        let unspecified = SocketAddr::new(local.ip(), 0);
        self.add(Transport::Udp, unspecified, local, Peer::Address, Out::Datagrams(socket))
    }

    /// Adds a stream connection; what is sent to the flow comes out of `queue`'s other end.
    pub fn add_stream(
        &self,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
        peer: Peer,
        opened_by: Opener,
        queue: mpsc::Sender<Queued>,
    ) -> Arc<Flow> {
        self.add(transport, remote, local, peer, Out::Stream { opened_by, queue, asked: AtomicBool::new(false) })
    }

    /// Ends the stream connections that `opened_by` opened, but for some.
    pub fn end_streams(&self, opened_by: Opener, but_for: &BTreeSet<FlowId>) {
        let open = self.open.read();
        let ends = |flow: &&Arc<Flow>| flow.opened_by() == opened_by && !but_for.contains(&flow.id);
        open.values().filter(ends).for_each(|flow| flow.end());
    }

    fn add(&self, transport: Transport, remote: SocketAddr, local: SocketAddr, peer: Peer, out: Out) -> Arc<Flow> {
        let id = FlowId(self.next.fetch_add(1, Ordering::Relaxed));
        let flow = Arc::new(Flow { id, transport, remote, local, peer, out });
        self.open.write().insert(id, Arc::clone(&flow));
        flow
    }

    /// Finds a flow that is still there.
    pub fn find(&self, id: FlowId) -> Option<Arc<Flow>> {
        self.open.read().get(&id).cloned()
    }

    /// Takes a flow out of use.
    pub fn remove(&self, id: FlowId) {
        let Some(flow) = self.find(id) else { return };
        if let Out::Stream { asked, .. } = &flow.out
            && asked.load(Ordering::Relaxed)
        {
            let now = Instant::now();
            let mut former = self.former.lock();
            while former.len() >= MAX_FORMER || former.front().is_some_and(|(at, ..)| *at + FORMER < now) {
                former.pop_front();
            }
            former.push_back((now, id, flow.peer.clone()));
        }
        self.open.write().remove(&id);
    }

    /// Names the peer of a flow that may have ended a short while ago.
    pub fn peer_of(&self, id: FlowId) -> Option<Peer> {
        self.find(id).map(|flow| flow.peer.clone()).or_else(|| {
            let former = self.former.lock();
            former.iter().rev().find(|(_, former, _)| *former == id).map(|(.., peer)| peer.clone())
        })
    }

    /// Finds an open stream connection with `peer` to exactly `remote`.
    pub fn stream_to(&self, transport: Transport, remote: SocketAddr, peer: &Peer) -> Option<Arc<Flow>> {
        let open = self.open.read();
        let fits = |flow: &&Arc<Flow>| {
            flow.transport == transport && flow.remote == remote && flow.is_open() && flow.peer.is(peer)
        };
        open.values().find(fits).cloned()
    }

    /// Finds one of our UDP sockets that can reach `addr`.
    pub fn socket_for(&self, addr: SocketAddr) -> Option<Arc<Flow>> {
        let open = self.open.read();
        let mut sockets: Vec<_> = open
            .values()
            .filter(|flow| flow.transport == Transport::Udp && flow.local.is_ipv4() == addr.is_ipv4())
            .collect();
        sockets.sort_by_key(|flow| flow.id.0);
        sockets.first().map(|flow| Arc::clone(flow))
    }
}
