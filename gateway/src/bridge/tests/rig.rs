//! A bridge between a scripted XMPP server, a scripted partner and a store that can be stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use isthmus_model::{Domain, EpochMillis};
use isthmus_sip::endpoint::EndpointConfig;
use isthmus_store::{Batch, Key, Limits, MemoryStore, Store, SystemClock};
use isthmus_xmpp::Stanza;
use isthmus_xmpp::component::{BarrierToken, Delivery};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::store::TestStore;
use crate::bridge::{Bridge, BridgeHandle};
use crate::edge::sip::listener::Binding;
use crate::edge::sip::{SipEdge, SipHandler};
use crate::edge::xmpp::{LinkSpec, LinkState, Links, Owner, XmppHandler};
use crate::metrics::Metrics;
use crate::pods::Pods;
use crate::run::{binding_of, prepare};
use crate::source::{self, SourceOptions};

/// How long anything may take.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// The local server: it lets every component in, tells what they send, and answers pings while it is told to.
pub(super) struct Server {
    port: u16,
    stanzas: mpsc::UnboundedReceiver<String>,
    to_component: mpsc::UnboundedSender<String>,
    answers: Arc<AtomicBool>,
    /// Each change ends the connection.
    cut: watch::Sender<u32>,
    /// The ids of results that came.
    results: Arc<Mutex<Vec<String>>>,
    unanswered: Arc<AtomicU32>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, stanzas) = mpsc::unbounded_channel();
        let (to_component, outgoing) = mpsc::unbounded_channel();
        let answers = Arc::new(AtomicBool::new(true));
        let cut = watch::Sender::new(0);
        let results = Arc::default();
        let unanswered = Arc::default();
        let at_work = AtWork {
            tell,
            answers: Arc::clone(&answers),
            cut: cut.clone(),
            results: Arc::clone(&results),
            unanswered: Arc::clone(&unanswered),
        };
        tokio::spawn(at_work.run(listener, outgoing));
        Self { port, stanzas, to_component, answers, cut, results, unanswered }
    }

    /// Sends a stanza to the component of partner.example.
    pub(super) fn send(&self, xml: &str) {
        self.to_component.send(xml.to_owned()).unwrap();
    }

    /// Sends a message of juliet to ana.
    pub(super) fn message(&self, id: &str, body: &str) {
        self.send(&format!(
            "<message from='juliet@corp.example/home' to='ana@partner.example' type='chat' id='{id}'>\
             <body>{body}</body></message>"
        ));
    }

    /// Says whether pings are answered from now on.
    pub(super) fn answer_pings(&self, answer: bool) {
        self.answers.store(answer, Ordering::SeqCst);
    }

    /// Counts the pings that came and were not answered.
    pub(super) fn unanswered_pings(&self) -> u32 {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// Returns a message of ana to juliet as an error.
    pub(super) fn bounce(&self, id: &str) {
        self.send(&format!(
            "<message type='error' id='{id}' from='juliet@corp.example' to='ana@partner.example'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        ));
    }

    /// Tells whether an iq of ours was answered with a result.
    pub(super) fn ponged(&self, id: &str) -> bool {
        self.results.lock().iter().any(|seen| seen == id)
    }

    /// Waits for the next stanza of the component.
    pub(super) async fn stanza(&mut self) -> String {
        timeout(SOON, self.stanzas.recv()).await.expect("no stanza").unwrap()
    }

    /// Returns what came and was not looked at.
    pub(super) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.stanzas.try_recv().ok()).collect()
    }
}

struct AtWork {
    tell: mpsc::UnboundedSender<String>,
    answers: Arc<AtomicBool>,
    cut: watch::Sender<u32>,
    results: Arc<Mutex<Vec<String>>>,
    unanswered: Arc<AtomicU32>,
}

impl AtWork {
    /// Serves one link that matters, that of partner.example; others are let in and ignored.
    async fn run(self, listener: TcpListener, mut outgoing: mpsc::UnboundedReceiver<String>) {
        let (idle, _never) = mpsc::unbounded_channel::<String>();
        let mut others = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            read_until(&mut stream, &mut text, "<stream:stream").await;
            read_until(&mut stream, &mut text, ">").await;
            let header = "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                          xmlns='jabber:component:accept' id='rig' from='partner.example'>";
            if stream.write_all(header.as_bytes()).await.is_err() {
                continue;
            }
            read_until(&mut stream, &mut text, "</handshake>").await;
            // A test may cut the connection as soon as the gateway has it.
            let mut cut = self.cut.subscribe();
            let _ = stream.write_all(b"<handshake/>").await;
            if text.contains("fed.corp.example") {
                others.push((stream, idle.clone()));
                continue;
            }
            self.carry(stream, &mut outgoing, &mut cut).await;
        }
    }

    async fn carry(
        &self,
        mut stream: TcpStream,
        outgoing: &mut mpsc::UnboundedReceiver<String>,
        cut: &mut watch::Receiver<u32>,
    ) {
        let mut text = String::new();
        let mut piece = vec![0; 16_384];
        loop {
            tokio::select! {
                read = stream.read(&mut piece) => {
                    let Ok(n @ 1..) = read else { return };
                    text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
                    while let Some(stanza) = take_stanza(&mut text) {
                        if !stanza.starts_with("<iq") {
                            let _ = self.tell.send(stanza);
                        } else if attribute(&stanza, "type") == "result" {
                            self.results.lock().push(attribute(&stanza, "id"));
                        } else if self.answers.load(Ordering::SeqCst) {
                            let id = attribute(&stanza, "id");
                            let pong = format!("<iq type='result' id='{id}' from='corp.example' to='partner.example'/>");
                            if stream.write_all(pong.as_bytes()).await.is_err() {
                                return;
                            }
                        } else {
                            self.unanswered.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
                Some(xml) = outgoing.recv() => {
                    if stream.write_all(xml.as_bytes()).await.is_err() {
                        return;
                    }
                }
                _ = cut.changed() => return,
            }
        }
    }
}

pub(crate) async fn read_until(stream: &mut TcpStream, text: &mut String, end: &str) {
    let mut piece = vec![0; 4096];
    while !text.contains(end) {
        let Ok(n @ 1..) = stream.read(&mut piece).await else { return };
        text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
    }
}

/// Takes a whole stanza from the front; the gateway's stanzas do not nest elements of their own name.
fn take_stanza(text: &mut String) -> Option<String> {
    let start = text.find('<')?;
    let name: String = text[start + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
    let open_end = start + text[start..].find('>')?;
    let end = if text[..open_end].ends_with('/') {
        open_end + 1
    } else {
        let close = format!("</{name}>");
        open_end + text[open_end..].find(&close)? + close.len()
    };
    let stanza = text[start..end].to_owned();
    text.drain(..end);
    Some(stanza)
}

/// Reads an attribute of the first tag.
pub(super) fn attribute(stanza: &str, name: &str) -> String {
    let tag = stanza.split('>').next().unwrap_or_default();
    for quote in ['\'', '"'] {
        if let Some((_, rest)) = tag.split_once(&format!(" {name}={quote}")) {
            return rest.split(quote).next().unwrap_or_default().to_owned();
        }
    }
    String::new()
}

/// The partner, one UDP socket.
pub(super) struct Partner {
    socket: UdpSocket,
    gateway: SocketAddr,
    sent: u32,
    /// The last request, but for ACK.
    pub(super) last: String,
}

impl Partner {
    /// Waits for the next message from the gateway.
    pub(super) async fn receive(&self) -> String {
        let mut buffer = vec![0; 65_536];
        let n = timeout(SOON, self.socket.recv(&mut buffer)).await.expect("nothing came").unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    /// Waits for the next message from the gateway, which begins so.
    pub(super) async fn answered(&self, start: &str) -> String {
        let answer = self.receive().await;
        assert!(answer.starts_with(start), "{answer}");
        answer
    }

    /// Waits for the next request with this method, answering nothing; repetitions of others are passed over.
    pub(super) async fn request(&self, method: &str) -> String {
        loop {
            let message = self.receive().await;
            if message.starts_with(&format!("{method} ")) {
                return message;
            }
        }
    }

    /// Sends the last request once more, to the gateway that another partner talks to; over another `branch` if one is
    /// given. The answer comes here.
    pub(super) async fn repeat_at(&self, other: &Self, branch: Option<&str>) {
        let copy = match (branch, self.last.split_once(";branch=").and_then(|(_, rest)| rest.split_once("\r\n"))) {
            (Some(branch), Some((old, _))) => self.last.replacen(old, branch, 1),
            _ => self.last.clone(),
        };
        self.socket.send_to(copy.as_bytes(), other.gateway).await.unwrap();
    }

    pub(super) async fn send(&self, message: &str) {
        self.socket.send_to(message.as_bytes(), self.gateway).await.unwrap();
    }

    /// Answers a request; `more` are whole header lines, `tag` is ours.
    pub(super) async fn answer(&self, request: &str, status: &str, tag: &str, more: &str, body: &str) {
        self.send(&answer_to(request, status, tag, more, body)).await;
    }

    /// Writes a request of ana to juliet; gives its Call-ID.
    pub(super) async fn write(&mut self, method: &str, more: &str, body: &str) -> String {
        let juliet = "sip:juliet@corp.example";
        self.write_as(method, "sip:ana@partner.example", (juliet, juliet), more, body).await
    }

    /// Writes a request with a From, a Request-URI and a To of the test's choice; gives its Call-ID.
    pub(super) async fn write_as(
        &mut self,
        method: &str,
        from: &str,
        (uri, to): (&str, &str),
        more: &str,
        body: &str,
    ) -> String {
        self.sent += 1;
        let (number, port) = (self.sent, self.socket.local_addr().unwrap().port());
        let call = format!("call-{number}@rig");
        let request = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKrig{number}\r\n\
             Max-Forwards: 70\r\nFrom: <{from}>;tag=rig{number}\r\nTo: <{to}>\r\n\
             Call-ID: {call}\r\nCSeq: 1 {method}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(&request).await;
        self.last = request;
        call
    }

    /// Takes the next request, which must be an INVITE, as one who has sessions.
    pub(super) async fn accept_session(&self) -> String {
        let invite = self.answered("INVITE ").await;
        self.accept(&invite).await;
        self.answered("ACK ").await;
        invite
    }

    /// Answers an INVITE as one who has sessions.
    pub(super) async fn accept(&self, invite: &str) {
        let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=message 5060 sip null\r\na=accept-types:text/plain\r\n";
        let port = self.socket.local_addr().unwrap().port();
        let more = format!("Contact: <sip:ana@127.0.0.1:{port}>\r\nContent-Type: application/sdp\r\n");
        self.answer(invite, "200 OK", "far", &more, sdp).await;
    }

    /// Refuses the next request, which must begin so; the ACK that follows on an INVITE is taken.
    pub(super) async fn refuse(&self, start: &str, status: &str) -> String {
        let request = self.answered(start).await;
        self.answer(&request, status, "far", "", "").await;
        if start.starts_with("INVITE") {
            self.answered("ACK ").await;
        }
        request
    }

    /// Acknowledges the refusal of an INVITE, so that it is not repeated.
    pub(super) async fn acknowledge_refusal(&self, answer: &str) {
        let lines =
            ["Via", "From", "To", "Call-ID"].map(|name| format!("{name}: {}\r\n", header(answer, name))).concat();
        let (number, _) = header(answer, "CSeq").split_once(' ').unwrap();
        let ack = "ACK sip:juliet@corp.example SIP/2.0";
        self.send(&format!("{ack}\r\n{lines}CSeq: {number} ACK\r\nContent-Length: 0\r\n\r\n")).await;
    }

    /// Takes the next request, which must be a MESSAGE with this text, and answers 200.
    pub(super) async fn accept_message(&self, text: &str) -> String {
        let message = self.answered("MESSAGE ").await;
        assert!(message.ends_with(&format!("\r\n\r\n{text}")), "{message}");
        self.answer(&message, "200 OK", "far", "", "").await;
        message
    }

    /// Opens a session with juliet; gives the headers that requests in its dialog share.
    pub(super) async fn open_session(&mut self) -> String {
        let dialog = self.ask_for_session().await;
        self.in_dialog(&dialog, "ACK", 1, "", "").await;
        dialog
    }

    /// As [`Self::open_session`], up to the 200, which is not acknowledged.
    pub(super) async fn ask_for_session(&mut self) -> String {
        let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=message 5060 sip null\r\na=accept-types:text/plain\r\n";
        let more = "Contact: <sip:ana@127.0.0.1>\r\nContent-Type: application/sdp\r\n";
        let call = self.write("INVITE", more, sdp).await;
        let answer = self.answered("SIP/2.0 200 ").await;
        let (from, to) = (header(&answer, "From"), header(&answer, "To"));
        format!("From: {from}\r\nTo: {to}\r\nCall-ID: {call}\r\n")
    }

    /// Writes a request in a dialog.
    pub(super) async fn in_dialog(&mut self, dialog: &str, method: &str, cseq: u32, more: &str, body: &str) {
        self.sent += 1;
        let (number, port) = (self.sent, self.socket.local_addr().unwrap().port());
        let request = format!(
            "{method} sip:juliet@corp.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKrig{number}\r\n\
             Max-Forwards: 70\r\n{dialog}CSeq: {cseq} {method}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(&request).await;
        if method != "ACK" {
            self.last = request;
        }
    }

    /// Proves that the gateway has sent nothing so far: many round trips through its edge bring only their answers.
    pub(super) async fn nothing_came(&mut self) {
        for _ in 0..20 {
            self.write("OPTIONS", "", "").await;
            let answer = self.receive().await;
            assert!(answer.starts_with("SIP/2.0 200") && answer.contains("OPTIONS"), "{answer}");
        }
    }
}

pub(super) fn answer_to(request: &str, status: &str, tag: &str, more: &str, body: &str) -> String {
    let mut lines = vec![format!("SIP/2.0 {status}")];
    for line in request.split("\r\n").skip(1).take_while(|line| !line.is_empty()) {
        match line.split(':').next().unwrap_or_default() {
            "To" if !line.contains(";tag=") => lines.push(format!("{line};tag={tag}")),
            "Via" | "From" | "Call-ID" | "CSeq" | "To" => lines.push(line.to_owned()),
            _ => {}
        }
    }
    let answer = lines.join("\r\n");
    format!("{answer}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads a header of a SIP message.
pub(super) fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let mut lines = message.split("\r\n");
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

/// Everything around one bridge.
pub(super) struct Rig {
    pub(super) store: Arc<TestStore>,
    pub(super) server: Server,
    pub(super) partner: Partner,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bridge: Arc<Bridge>,
    /// How often the bridge was told that the link of partner.example is up, since the links were set last.
    told_ready: Mutex<Arc<AtomicU32>>,
}

/// The bridge as the handler of links. It counts what tests cannot see in the bridge.
struct Counting {
    bridge: BridgeHandle,
    ready: Arc<AtomicU32>,
}

impl Counting {
    fn over(bridge: &Arc<Bridge>) -> (Arc<dyn XmppHandler>, Arc<AtomicU32>) {
        let ready = Arc::default();
        (Arc::new(Self { bridge: BridgeHandle(Arc::clone(bridge)), ready: Arc::clone(&ready) }), ready)
    }
}

impl XmppHandler for Counting {
    fn stanza(&self, link: &LinkSpec, stanza: Stanza) {
        self.bridge.stanza(link, stanza);
    }

    fn delivery(&self, token: BarrierToken, delivery: Delivery) {
        self.bridge.delivery(token, delivery);
    }

    fn not_sent(&self, token: BarrierToken) {
        self.bridge.not_sent(token);
    }

    fn link_ready(&self, link: &LinkSpec, lost_at: Option<EpochMillis>) {
        self.bridge.link_ready(link, lost_at);
        if link.name.as_str() == "partner.example" {
            self.ready.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Rig {
    /// Starts a bridge with a store of its own; `mode` is the partner's `imMode`.
    pub(super) async fn start(mode: &str) -> Self {
        Self::with_store(mode, Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))).await
    }

    /// Starts a bridge on a store.
    pub(super) async fn with_store(mode: &str, store: Arc<dyn Store>) -> Self {
        Self::declared(&format!("overrides: {{imMode: {mode}}}"), TestStore::over(store)).await
    }

    /// Starts a bridge on a store that other bridges may use too.
    pub(super) async fn with_shared_store(mode: &str, store: Arc<dyn Store>) -> Self {
        Self::declared(&format!("overrides: {{imMode: {mode}}}"), TestStore::shared_over(store)).await
    }

    /// Starts a bridge on a store that a test has told what to do; waits for nothing.
    pub(super) async fn starting(store: Arc<TestStore>) -> Self {
        let server = Server::start().await;
        let port = server.port;
        Self::at(server, port, "overrides: {imMode: Session}", store).await
    }

    /// Starts a bridge with a store of its own and one more field in the spec of its partner.
    pub(super) async fn with_partner(field: &str) -> Self {
        Self::declared(field, TestStore::over(Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)))))
            .await
    }

    /// Starts a bridge with one more field in the spec of its partner.
    async fn declared(field: &str, store: Arc<TestStore>) -> Self {
        let server = Server::start().await;
        let port = server.port;
        let rig = Self::at(server, port, field, store).await;
        rig.link_ready().await;
        // What a test does next must not be met by it.
        rig.until("the first walk is over", || rig.bridge.walks.are_over()).await;
        rig
    }

    /// Starts another bridge on the same store and at the same local server. What that server gets and says is told by
    /// this rig; the partner of the other one is its own.
    pub(super) async fn beside(&self, field: &str) -> Self {
        let store = TestStore::shared_over(Arc::clone(&self.store.inner));
        Self::at(Server::start().await, self.server.port, field, store).await
    }

    async fn at(server: Server, port: u16, field: &str, store: Arc<TestStore>) -> Self {
        crate::tls::install_provider();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let plain = free_port();
        write_realm(folder.path(), port, plain, socket.local_addr().unwrap().port(), field);
        let loaded = source::load(&SourceOptions::new(folder.path(), "sip"), None)
            .unwrap_or_else(|refusals| panic!("{refusals:?}"));
        let prepared = prepare(&loaded, "sip").unwrap();
        let metrics = Arc::new(Metrics::new());
        let endpoint = EndpointConfig {
            timers: prepared.runtime.timers,
            own_names: prepared.runtime.own_names(),
            ..EndpointConfig::default()
        };
        let binding = Binding { tls: None, ..binding_of(&prepared.runtime.pool) };
        let edge = SipEdge::new(endpoint, prepared.settings, prepared.tls, Arc::clone(&metrics));
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let life = format!("{:016x}", rand::random::<u64>());
        let pods = Pods::start(Arc::clone(&shared), &life, "sip/0", Arc::clone(&metrics));
        let links = Links::new(Arc::clone(&shared), &life, Arc::clone(&metrics));
        let bridge =
            Bridge::start(Arc::clone(&edge), Arc::clone(&links), shared, pods, Arc::clone(&metrics), prepared.runtime);
        edge.set_handler(Arc::new(BridgeHandle(Arc::clone(&bridge))) as Arc<dyn SipHandler>);
        let (handler, ready) = Counting::over(&bridge);
        links.set(prepared.links, &handler);
        edge.listen(&binding).unwrap();
        let gateway = SocketAddr::from(([127, 0, 0, 1], plain));
        let partner = Partner { socket, gateway, sent: 0, last: String::new() };
        Self { store, server, partner, metrics, bridge, told_ready: Mutex::new(ready) }
    }

    /// Waits until this process holds the link of partner.example by a lease that the store knows.
    pub(super) async fn leased(&self) {
        let domain = |name| Domain::parse(name).unwrap();
        for _ in 0..200 {
            if let Owner::Mine(Some(fence)) =
                self.bridge.links.owner(&domain("corp.example"), &domain("partner.example"))
            {
                let mut batch = Batch::new();
                batch.fence(fence);
                if self.store.inner.commit(batch).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the link is never held");
    }

    /// Waits until the link of partner.example is up and the bridge was told so.
    pub(super) async fn link_ready(&self) {
        self.until("the link is up", || self.told_ready() > 0 && self.link_is_up()).await;
    }

    /// Waits until the store was missed.
    pub(super) async fn until_store_is_missed(&self) {
        let failed = "isthmus_store_errors_total{reason=\"unavailable\"}";
        self.until("the outage is noticed", || self.metrics.render().contains(failed)).await;
    }

    /// Waits until a condition holds.
    pub(super) async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not seen: {what}"));
    }

    fn link_is_up(&self) -> bool {
        let states = self.bridge.links.states();
        states.iter().any(|(spec, state)| spec.name.as_str() == "partner.example" && *state == LinkState::Ready)
    }

    fn told_ready(&self) -> u32 {
        self.told_ready.lock().load(Ordering::SeqCst)
    }

    /// Breaks the link; once the gateway has seen that, it is opened anew without the pause that a gateway makes.
    pub(super) async fn break_link(&self) {
        self.cut_link().await;
        let specs: Vec<_> = self.bridge.links.states().into_iter().map(|(spec, _)| spec).collect();
        let (handler, ready) = Counting::over(&self.bridge);
        *self.told_ready.lock() = ready;
        self.bridge.links.set(Vec::new(), &handler);
        self.bridge.links.set(specs, &handler);
        self.link_ready().await;
    }

    /// Breaks the link, and lets the gateway come back by itself.
    pub(super) async fn lose_link(&self) {
        let before = self.told_ready();
        self.cut_link().await;
        self.until("the link is back", || self.told_ready() > before).await;
    }

    /// Breaks the link, and returns when the gateway has seen that. It may be about to come back then.
    pub(super) async fn cut_link(&self) {
        let before = self.told_ready();
        self.server.cut.send_modify(|cut| *cut += 1);
        self.until("the link is down", || !self.link_is_up() || self.told_ready() > before).await;
    }

    /// Waits until it is stored that the partner refuses a way of sending.
    pub(super) async fn until_refusal_is_known(&self) {
        let key = Key::peer(&Domain::parse("partner.example").unwrap());
        let wait = async {
            while self.store.stored(key.clone()).await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.expect("no refusal stored");
    }

    /// Waits until the store's queues hold so many items.
    pub(super) async fn until_queued(&self, items: usize) {
        let wait = async {
            while self.bridge.store.health().await.queued != items {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not seen: {items} items queued"));
    }

    /// Waits until messages from SIP with this outcome were counted.
    pub(super) async fn counted(&self, outcome: &str, times: u32) {
        let line = format!("isthmus_messages_total{{direction=\"sip_to_xmpp\",outcome=\"{outcome}\"}} {times}\n");
        self.until(&line, || self.metrics.render().contains(&line)).await;
    }
}

/// Finds a port below those that the system gives out, so that nobody else takes it in the meantime.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 11_000 + u16::try_from(std::process::id() % 1000).unwrap() * 20;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        let free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn write_realm(folder: &Path, component: u16, plain: u16, partner: u16, field: &str) {
    let text = format!(
        r#"apiVersion: isthmus.dev/v1alpha1
kind: Federation
metadata: {{name: default, namespace: im-edge}}
spec:
  credentialsSecretRef: {{name: isthmus-credentials}}
---
apiVersion: v1
kind: Secret
metadata: {{name: isthmus-credentials, namespace: im-edge}}
stringData: {{corp.example: s3cret}}
---
apiVersion: isthmus.dev/v1alpha1
kind: GatewayPool
metadata: {{name: sip, namespace: im-edge}}
spec:
  roles: [SIP]
  expose:
    hostname: "sip.{{domain}}"
    bind: ["127.0.0.1"]
    adminPort: 9090
    ports: {{sip: 5061, sipPlain: {plain}}}
  allowedRanges: ["127.0.0.0/8"]
---
apiVersion: isthmus.dev/v1alpha1
kind: LocalDomain
metadata: {{name: corp.example, namespace: im-edge}}
spec:
  domain: corp.example
  backend: {{component: {{host: 127.0.0.1, port: {component}, secretKey: corp.example}}}}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedDomain
metadata: {{name: partner.example, namespace: im-edge}}
spec:
  domain: partner.example
  protocol: SIP
  {field}
  sip:
    peerType: SimpleGeneric
    transport: UDP
    discovery: Static
    nextHops: [{{host: "127.0.0.1", port: {partner}}}]
"#
    );
    std::fs::write(folder.join("realm.yaml"), text).unwrap();
}
