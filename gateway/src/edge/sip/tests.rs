use std::net::Ipv4Addr;

use isthmus_sip::timer::TimerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

/// Answers to requests come soon, or not at all.
const SOON: Duration = Duration::from_secs(5);

/// Hands on the requests of peers, and hears nothing else.
struct Requests(mpsc::UnboundedSender<(ServerTxId, Message)>);

impl SipHandler for Requests {
    fn request(&self, tx: ServerTxId, _: &Arc<Flow>, _: SocketAddr, request: Message) {
        let _ = self.0.send((tx, request));
    }
    fn ack(&self, _: Message, _: bool) {}
    fn cancelled(&self, _: ServerTxId) {}
    fn foreign_response(&self, _: &Arc<Flow>, _: SocketAddr, _: &Message) -> bool {
        false
    }
    fn never_acknowledged(&self, _: String, _: String) {}
    fn late_acceptance(&self, _: &Arc<Flow>, _: SocketAddr, _: Message) {}
}

fn edge(t4: Duration) -> (Arc<SipEdge>, mpsc::UnboundedReceiver<(ServerTxId, Message)>) {
    edge_with(t4, Duration::from_mins(1))
}

/// An edge that closes connections which nobody uses for so long.
fn edge_with(t4: Duration, idle: Duration) -> (Arc<SipEdge>, mpsc::UnboundedReceiver<(ServerTxId, Message)>) {
    let endpoint = EndpointConfig { timers: TimerConfig { t4, ..TimerConfig::default() }, ..EndpointConfig::default() };
    let connections = ConnectionLimits { total: 10, per_address: 10, idle };
    let (anchors, certificates) = (Arc::new(rustls::RootCertStore::empty()), Arc::new(CertificateSet::default()));
    let server = tls::server_config(Arc::clone(&anchors), Arc::clone(&certificates)).unwrap();
    let tls = EdgeTls { server, client: ClientTrust { anchors, certificates } };
    let settings = EdgeSettings {
        limits: Limits::default(),
        connections,
        allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
        trusted_proxies: Vec::new(),
    };
    let edge = SipEdge::new(endpoint, settings, tls, Arc::new(Metrics::new()));
    let (tell, requests) = mpsc::unbounded_channel();
    edge.set_handler(Arc::new(Requests(tell)));
    (edge, requests)
}

/// A connection with somebody at this address; returns their end of it.
fn connect(edge: &Arc<SipEdge>, remote: SocketAddr, opened_by: Opener) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4096);
    let edge = Arc::clone(edge);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 5061));
    tokio::spawn(async move { edge.carry(near, Transport::Tcp, remote, local, Peer::Address, opened_by).await });
    far
}

/// A request of a peer that listens on this port.
fn from_peer(number: u32, port: u16) -> String {
    format!(
        "MESSAGE sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:{port};branch=z9hG4bK{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:ana@partner.example>;tag={number}\r\nTo: <sip:juliet@corp.example>\r\n\
         Call-ID: {number}\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
    )
}

async fn answer(edge: &SipEdge, requests: &mut mpsc::UnboundedReceiver<(ServerTxId, Message)>) {
    let (tx, request) = timeout(SOON, requests.recv()).await.expect("no request came").unwrap();
    edge.respond(tx, &request, ResponseWriter::for_request(&request, StatusCode::OK, None, Some("t")).finish(b""));
}

/// Gives up all connections as at the end of the process.
fn give_up(edge: &Arc<SipEdge>) -> impl Future<Output = ()> + use<> {
    let edge = Arc::clone(edge);
    async move {
        edge.give_up_connections(Opener::Peer).await;
        edge.give_up_connections(Opener::Here).await;
    }
}

/// The next message that a peer reads, and an empty text at the end.
async fn read(far: &mut DuplexStream) -> String {
    let mut buffer = [0; 4096];
    let length = timeout(SOON, far.read(&mut buffer)).await.expect("nothing came").unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn request(number: u64, destination: Destination) -> Outgoing {
    let text = format!(
        "MESSAGE sip:ana@partner.example SIP/2.0\r\nMax-Forwards: 70\r\nFrom: <sip:juliet@corp.example>;tag={number}\r\n\
         To: <sip:ana@partner.example>\r\nCall-ID: {number}\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\n\
         Content-Length: 2\r\n\r\nhi"
    );
    let sent_by = SentBy::new("sip.corp.example", None);
    Outgoing { request: Bytes::from(text), destination, sent_by, alias: false, correlation: number }
}

#[tokio::test]
async fn what_a_broken_connection_did_not_take_fails_at_once_and_the_rest_after_t4() {
    let (edge, _) = edge(Duration::from_millis(300));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 5060));
    // A pipe so narrow that the first request gets stuck in it, and the second waits behind.
    let (near, mut far) = tokio::io::duplex(64);
    let (queue, outgoing) = mpsc::channel(SEND_QUEUE);
    let flow = edge.flows.add_stream(Transport::Tcp, addr, addr, Peer::Address, Opener::Here, queue);
    let destination = Destination::Flow { flow: flow.id, transport: Transport::Tcp, remote: addr };
    let carried = Arc::clone(&edge);
    tokio::spawn(async move { carried.carry_flow(flow, near, outgoing).await });
    let (first, mut first_events) = edge.exchanges.open();
    edge.drive(|endpoint, now| endpoint.send_request(now, request(first, destination))).unwrap();
    far.read_exact(&mut [0; 32]).await.unwrap();
    let (second, mut second_events) = edge.exchanges.open();
    edge.drive(|endpoint, now| endpoint.send_request(now, request(second, destination))).unwrap();

    let broken = Instant::now();
    drop(far);
    let event = timeout(SOON, second_events.recv()).await.expect("the waiting request was forgotten");
    assert!(matches!(event, Some(Event::SendFailed { .. })), "{event:?}");
    assert!(first_events.try_recv().is_err(), "half a request may have been taken: its answer may still come");
    let event = timeout(SOON, first_events.recv()).await.expect("the written request was forgotten");
    assert!(matches!(event, Some(Event::Timeout { .. })), "{event:?}");
    assert!(broken.elapsed() >= Duration::from_millis(300));
    // And nothing can be queued where nobody takes it.
    let (third, mut third_events) = edge.exchanges.open();
    edge.drive(|endpoint, now| endpoint.send_request(now, request(third, destination))).unwrap();
    assert!(matches!(third_events.try_recv(), Ok(Event::SendFailed { .. })));
}

#[tokio::test]
async fn what_a_peer_wrote_before_it_heard_of_the_end_is_answered_over_a_connection_of_ours() {
    let (edge, mut requests) = edge(Duration::from_secs(5));
    let mut theirs = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), Opener::Peer);
    let mut ours = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 5070)), Opener::Here);
    theirs.write_all(from_peer(1, 5070).as_bytes()).await.unwrap();
    answer(&edge, &mut requests).await;
    assert!(read(&mut theirs).await.starts_with("SIP/2.0 200"));

    let ending = tokio::spawn(give_up(&edge));
    assert_eq!(read(&mut theirs).await, "", "the peer is told first");
    theirs.write_all(from_peer(2, 5070).as_bytes()).await.unwrap();
    answer(&edge, &mut requests).await;
    let answer = read(&mut ours).await;
    assert!(answer.starts_with("SIP/2.0 200") && answer.contains("branch=z9hG4bK2"), "{answer}");
    drop(theirs);
    assert_eq!(read(&mut ours).await, "");
    drop(ours);
    timeout(SOON, ending).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_lasts_until_its_last_answer_and_no_peer_keeps_it_for_longer() {
    let (edge, mut requests) = edge(Duration::from_secs(5));
    let mut peer = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), Opener::Peer);
    let mut silent = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_001)), Opener::Peer);
    peer.write_all(from_peer(1, 5070).as_bytes()).await.unwrap();
    let waiting = timeout(SOON, requests.recv()).await.unwrap();
    let ending = tokio::spawn(give_up(&edge));
    assert!(timeout(Duration::from_millis(50), peer.read(&mut [0; 9])).await.is_err(), "closed before the answer");
    let (tx, request) = waiting.unwrap();
    edge.respond(tx, &request, ResponseWriter::for_request(&request, StatusCode::OK, None, Some("t")).finish(b""));
    assert!(read(&mut peer).await.starts_with("SIP/2.0 200"));
    assert_eq!(read(&mut peer).await, "");
    // Neither peer closes its own side.
    assert_eq!(read(&mut silent).await, "");
    ending.await.unwrap();
    assert_eq!(edge.connections(Opener::Peer).get(), 0, "a peer that says nothing is waited for");
}

#[tokio::test]
async fn a_peer_that_waits_for_an_answer_all_the_time_is_told_of_the_end_all_the_same() {
    let (edge, mut requests) = edge(Duration::from_secs(5));
    let mut peer = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), Opener::Peer);
    let mut ours = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 5070)), Opener::Here);
    peer.write_all(from_peer(1, 5070).as_bytes()).await.unwrap();
    let (tx, request) = timeout(SOON, requests.recv()).await.unwrap().unwrap();
    let begun = Instant::now();
    let ending = tokio::spawn({
        let edge = Arc::clone(&edge);
        async move { edge.give_up_connections(Opener::Peer).await }
    });
    assert_eq!(read(&mut peer).await, "");
    assert!(begun.elapsed() >= QUIET, "a moment without questions was not waited for");
    edge.respond(tx, &request, ResponseWriter::for_request(&request, StatusCode::OK, None, Some("t")).finish(b""));
    assert!(read(&mut ours).await.starts_with("SIP/2.0 200"));
    drop(peer);
    timeout(SOON, ending).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_comes_on_a_connection_that_is_closed_as_idle_is_served() {
    let (edge, mut requests) = edge_with(Duration::from_secs(5), Duration::from_millis(100));
    let mut peer = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), Opener::Peer);
    assert_eq!(read(&mut peer).await, "");
    peer.write_all(from_peer(1, 5070).as_bytes()).await.unwrap();
    assert!(timeout(SOON, requests.recv()).await.is_ok(), "the request was swallowed");
}

// S-05
#[tokio::test]
async fn an_answer_whose_connection_is_gone_leaves_over_a_new_one() {
    let (edge, mut requests) = edge(Duration::from_secs(5));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut peer = connect(&edge, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)), Opener::Peer);
    peer.write_all([from_peer(1, port), from_peer(2, port)].concat().as_bytes()).await.unwrap();
    let waiting = [timeout(SOON, requests.recv()).await.unwrap(), timeout(SOON, requests.recv()).await.unwrap()];
    drop(peer);
    while edge.connections(Opener::Peer).get() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for (tx, request) in waiting.into_iter().flatten() {
        edge.respond(tx, &request, ResponseWriter::for_request(&request, StatusCode::OK, None, Some("t")).finish(b""));
    }
    // Both over one.
    let (mut new, _) = timeout(SOON, listener.accept()).await.expect("no connection for the answers").unwrap();
    let mut text = String::new();
    while text.matches("SIP/2.0 200").count() < 2 {
        let mut buffer = [0; 4096];
        let length = timeout(SOON, new.read(&mut buffer)).await.expect("an answer is missing").unwrap();
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(text.contains("branch=z9hG4bK1") && text.contains("branch=z9hG4bK2"), "{text}");
    assert_eq!(edge.unanswered(), 0);
}
