use std::net::Ipv4Addr;

use isthmus_sip::timer::TimerConfig;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::*;

/// Answers to requests come soon, or not at all.
const SOON: Duration = Duration::from_secs(5);

/// Nobody: these tests look at what we send.
struct Unheard;

impl SipHandler for Unheard {
    fn request(&self, _: ServerTxId, _: &Arc<Flow>, _: SocketAddr, _: Message) {}
    fn ack(&self, _: Message, _: bool) {}
    fn cancelled(&self, _: ServerTxId) {}
    fn foreign_response(&self, _: &Arc<Flow>, _: SocketAddr, _: &Message) -> bool {
        false
    }
    fn never_acknowledged(&self, _: String, _: String) {}
    fn late_acceptance(&self, _: &Arc<Flow>, _: SocketAddr, _: Message) {}
}

fn edge(t4: Duration) -> Arc<SipEdge> {
    let endpoint = EndpointConfig { timers: TimerConfig { t4, ..TimerConfig::default() }, ..EndpointConfig::default() };
    let connections = ConnectionLimits { total: 10, per_address: 10, idle: Duration::from_mins(1) };
    let (anchors, certificates) = (Arc::new(rustls::RootCertStore::empty()), Arc::new(CertificateSet::default()));
    let server = tls::server_config(Arc::clone(&anchors), Arc::clone(&certificates)).unwrap();
    let tls = EdgeTls { server, client: ClientTrust { anchors, certificates } };
    let settings = EdgeSettings {
        limits: Limits::default(),
        connections,
        allowed_ranges: Vec::new(),
        trusted_proxies: Vec::new(),
    };
    let edge = SipEdge::new(endpoint, settings, tls, Arc::new(Metrics::new()));
    edge.set_handler(Arc::new(Unheard));
    edge
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
    let edge = edge(Duration::from_millis(300));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 5060));
    // A pipe so narrow that the first request gets stuck in it, and the second waits behind.
    let (near, mut far) = tokio::io::duplex(64);
    let (queue, outgoing) = mpsc::channel(SEND_QUEUE);
    let flow = edge.flows.add_stream(Transport::Tcp, addr, addr, Peer::Address, queue);
    let destination = Destination::Flow { flow: flow.id, transport: Transport::Tcp, remote: addr };
    let carried = Arc::clone(&edge);
    tokio::spawn(async move { carried.carry_flow(flow, near, outgoing, "outbound").await });
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
