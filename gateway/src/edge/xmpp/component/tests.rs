//! Several processes of a realm at one server that lets one connection have a component's name.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use isthmus_store::{Limits, MemoryStore, SystemClock};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::*;
use crate::bridge::tests::rig::read_until;
use crate::bridge::tests::store::TestStore;

const SOON: Duration = Duration::from_secs(10);
const HEADER: &[u8] = b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
    xmlns='jabber:component:accept' id='one' from='partner.example'>";
const CONFLICT: &[u8] =
    b"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";

/// A server that gives the name to the newest connection, or refuses each.
struct Server {
    port: u16,
    /// When each handshake came, and what it said.
    handshakes: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Server {
    async fn start(refuses: Arc<AtomicBool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let handshakes: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let seen = Arc::clone(&handshakes);
        tokio::spawn(async move {
            let mut newest: Option<TcpStream> = None;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = String::new();
                read_until(&mut stream, &mut text, "<stream:stream").await;
                read_until(&mut stream, &mut text, ">").await;
                stream.write_all(HEADER).await.unwrap();
                read_until(&mut stream, &mut text, "</handshake>").await;
                seen.lock().push((Instant::now(), text.split("<handshake>").nth(1).unwrap_or("").to_owned()));
                let loser = if refuses.load(Ordering::SeqCst) {
                    Some(stream)
                } else {
                    stream.write_all(b"<handshake/>").await.unwrap();
                    newest.replace(stream)
                };
                if let Some(mut loser) = loser {
                    // It may have gone by itself.
                    let _ = loser.write_all(CONFLICT).await;
                }
            }
        });
        Self { port, handshakes }
    }

    fn handshakes(&self) -> Vec<(Instant, String)> {
        self.handshakes.lock().clone()
    }

    async fn until(&self, handshakes: usize) -> Instant {
        let met = async {
            while self.handshakes().len() < handshakes {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, met).await.unwrap_or_else(|_| panic!("no {handshakes} handshakes: {:?}", self.handshakes()));
        self.handshakes()[handshakes - 1].0
    }
}

/// Takes a connection and its handshake; gives what came, too.
async fn let_in(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = timeout(SOON, listener.accept()).await.expect("no connection").unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, ">").await;
    stream.write_all(HEADER).await.unwrap();
    read_until(&mut stream, &mut text, "</handshake>").await;
    stream.write_all(b"<handshake/>").await.unwrap();
    (stream, text)
}

struct Nobody;

impl XmppHandler for Nobody {
    fn stanza(&self, _: &LinkSpec, _: Stanza) {}
    fn delivery(&self, _: BarrierToken, _: Delivery) {}
    fn link_ready(&self, _: &LinkSpec, _: Option<EpochMillis>) {}
}

/// Keeps the ids of stanzas.
#[derive(Default)]
struct Ids(Mutex<Vec<String>>);

impl XmppHandler for Ids {
    fn stanza(&self, _: &LinkSpec, stanza: Stanza) {
        if let Stanza::Message(message) = stanza {
            self.0.lock().extend(message.id.as_deref().map(str::to_owned));
        }
    }
    fn delivery(&self, _: BarrierToken, _: Delivery) {}
    fn link_ready(&self, _: &LinkSpec, _: Option<EpochMillis>) {}
}

/// Starts processes that want the link. Each has a secret of its own, so that their handshakes can be told apart.
fn processes(server: &Server, lives: &[&str]) -> Vec<Arc<Links>> {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    lives.iter().map(|life| process(server.port, life, &inner, &(Arc::new(Nobody) as Arc<dyn XmppHandler>))).collect()
}

fn process(port: u16, life: &str, store: &Arc<dyn Store>, handler: &Arc<dyn XmppHandler>) -> Arc<Links> {
    process_on(TestStore::shared_over(Arc::clone(store)), port, life, handler)
}

fn process_on(store: Arc<TestStore>, port: u16, life: &str, handler: &Arc<dyn XmppHandler>) -> Arc<Links> {
    let links = Links::new(store, life, Arc::new(Metrics::new()));
    let spec = LinkSpec {
        host: "127.0.0.1".to_owned(),
        port,
        name: "partner.example".parse().unwrap(),
        locals: vec!["corp.example".parse().unwrap()],
        secret: Secret::new(life),
        tls: None,
    };
    links.set(vec![spec], handler);
    links
}

fn state(links: &Links) -> LinkState {
    links.states().remove(0).1
}

async fn until_ready(links: &[Arc<Links>]) -> &Links {
    let met = async {
        loop {
            if let Some(ready) = links.iter().find(|links| state(links) == LinkState::Ready) {
                return &**ready;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, met).await.expect("nobody has the link")
}

// A server that lets the newest win (kick_old): of three that want the name one connects, and one that is kicked by a
// stranger does not kick back.
//
#[tokio::test]
async fn who_is_kicked_from_a_link_does_not_kick_back() {
    let server = Server::start(Arc::default()).await;
    let links = processes(&server, &["one", "two", "three"]);
    let connected = server.until(1).await;
    let holder = until_ready(&links).await;
    // A handover is over, in which another connection may be the former holder's.
    sleep(HANDOVER.saturating_sub(connected.elapsed()) + HANDOVER_RETRY).await;
    assert_eq!((server.handshakes().len(), state(holder)), (1, LinkState::Ready));
    let mut stranger = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    stranger.write_all(b"<stream:stream><handshake>stranger</handshake>").await.unwrap();
    let kicked = server.until(2).await;
    let known = async {
        while state(holder) == LinkState::Ready {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, known).await.expect("the holder does not hear that it was kicked");
    // Somebody else's connection is let alone for 5 s at least (component protocol, conflict).
    sleep(Duration::from_secs(4).saturating_sub(kicked.elapsed())).await;
    let seen = server.handshakes();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(links.iter().all(|links| state(links) != LinkState::Ready));
}

// A server that refuses the newcomer (the default of several): while a former connection may still be there, one
// process asks again four times a second, and then seldom.
//
#[tokio::test]
async fn of_several_one_asks_for_a_name_that_is_taken_and_soon_seldom() {
    let refuses = Arc::new(AtomicBool::new(true));
    let server = Server::start(Arc::clone(&refuses)).await;
    let links = processes(&server, &["one", "two", "three"]);
    let first = server.until(1).await;
    // What began in the handover may end a little later.
    let over = HANDOVER + HANDOVER_RETRY * 2;
    sleep(over + Duration::from_secs(3)).await;
    let seen = server.handshakes();
    assert!(seen.iter().all(|(_, digest)| *digest == seen[0].1), "several fight for the name: {seen:?}");
    assert!(seen.len() > 3 && seen.len() <= 25, "{} attempts", seen.len());
    assert!(seen.iter().all(|(at, _)| *at < first + over), "{seen:?}");
    assert!(links.iter().all(|links| state(links) != LinkState::Ready));
}

// X-98, S-44
#[tokio::test]
async fn a_link_that_is_given_over_changes_hands_once() {
    let server = Server::start(Arc::default()).await;
    let links = processes(&server, &["one", "two", "three"]);
    server.until(1).await;
    let former = until_ready(&links).await;
    former.give_back();
    let second = server.until(2).await;
    sleep((FAREWELL * 2).saturating_sub(second.elapsed())).await;
    let seen = server.handshakes();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_ne!(seen[0].1, seen[1].1);
    let ready = links.iter().filter(|links| state(links) == LinkState::Ready);
    assert_eq!(ready.count(), 1);
}

#[tokio::test]
async fn what_the_server_wrote_before_it_heard_of_the_end_is_not_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, mut text) = let_in(&listener).await;
        read_until(&mut stream, &mut text, "</stream:stream>").await;
        let late = b"<message id='late' from='lee@corp.example' to='ana@partner.example'><body>x</body></message>\
            </stream:stream>";
        stream.write_all(late).await.unwrap();
    });
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let ids = Arc::new(Ids::default());
    let links = process(port, "one", &inner, &(Arc::clone(&ids) as Arc<dyn XmppHandler>));
    until_ready(std::slice::from_ref(&links)).await;
    // Its lease runs out and another process takes it, before it knows.
    let name = LeaseName::link(&format!("127.0.0.1:{port}"), "partner.example");
    let Owner::Mine(Some(fence)) = links.owner(&"corp.example".parse().unwrap(), &"partner.example".parse().unwrap())
    else {
        panic!("the link is not its own");
    };
    let lost = isthmus_store::Lease { fence, holder: "one".to_owned(), expires_at: EpochMillis(0) };
    assert!(inner.release(&lost).await.unwrap());
    let taken = inner.acquire(&name, "two", Duration::from_secs(60)).await.unwrap();
    assert!(matches!(taken, isthmus_store::Acquisition::Granted(_)));
    timeout(SOON, server).await.expect("the server never hears of the end").unwrap();
    let read = async {
        while ids.0.lock().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, read).await.expect("the last message is lost");
    assert_eq!(*ids.0.lock(), ["late"]);
}

#[tokio::test]
async fn nothing_is_read_from_the_server_while_the_store_is_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let store = TestStore::shared_over(inner);
    let ids = Arc::new(Ids::default());
    let port = listener.local_addr().unwrap().port();
    let links = process_on(Arc::clone(&store), port, "one", &(Arc::clone(&ids) as Arc<dyn XmppHandler>));
    let (mut stream, mut text) = let_in(&listener).await;
    until_ready(std::slice::from_ref(&links)).await;
    store.set_busy(true);
    // A read that had begun before may bring one message yet.
    let mut number = 0;
    let mut write = async || {
        number += 1;
        let message =
            format!("<message id='{number}' from='lee@corp.example' to='ana@partner.example'><body>x</body></message>");
        stream.write_all(message.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    };
    write().await;
    write().await;
    write().await;
    assert!(ids.0.lock().len() <= 1, "{:?}", ids.0.lock());
    // What is to be written is written nevertheless.
    let presence = isthmus_xmpp::stanza::Presence::new(
        isthmus_xmpp::stanza::PresenceType::Available,
        "ana@partner.example",
        "lee@corp.example",
    );
    let (local, remote) = ("corp.example".parse().unwrap(), "partner.example".parse().unwrap());
    links.send(&local, &remote, Stanza::Presence(presence)).unwrap();
    timeout(SOON, read_until(&mut stream, &mut text, "<presence")).await.expect("nothing is written");
    store.set_busy(false);
    let read = async {
        while ids.0.lock().len() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, read).await.expect("what waited is lost");
    assert_eq!(*ids.0.lock(), ["1", "2", "3"]);
}

/// Keeps what it is told of messages.
#[derive(Default)]
struct Fates(Mutex<Vec<(u64, &'static str)>>);

impl XmppHandler for Fates {
    fn stanza(&self, _: &LinkSpec, _: Stanza) {}
    fn delivery(&self, token: BarrierToken, delivery: Delivery) {
        let fate = if delivery == Delivery::Delivered { "delivered" } else { "unknown" };
        self.0.lock().push((token.0, fate));
    }
    fn not_sent(&self, token: BarrierToken) {
        self.0.lock().push((token.0, "not sent"));
    }
    fn unsent(&self, _: Stanza) {
        self.0.lock().push((0, "unsent"));
    }
    fn link_ready(&self, _: &LinkSpec, _: Option<EpochMillis>) {}
}

// K-77, K-76
// A server that closes a connection for that of the next holder drops what it has not read of it, and what it
// has not written to it.
#[tokio::test]
async fn a_link_is_given_back_when_the_server_has_dealt_with_everything_and_then_nothing_is_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let fates = Arc::new(Fates::default());
    let port = listener.local_addr().unwrap().port();
    let links = process(port, "one", &inner, &(Arc::clone(&fates) as Arc<dyn XmppHandler>));
    let (mut stream, mut text) = let_in(&listener).await;
    until_ready(std::slice::from_ref(&links)).await;
    let (local, remote) = ("corp.example".parse().unwrap(), "partner.example".parse().unwrap());
    let deliver = |token: u64| {
        let mut message = Message::new(isthmus_xmpp::MessageType::Chat, "ana@partner.example", "lee@corp.example");
        message.id = Some(format!("m{token}").into());
        links.deliver(&local, &remote, Arc::new(message), BarrierToken(token)).unwrap();
    };
    // Answers the ping that follows.
    let answer = async |stream: &mut TcpStream, text: &mut String| {
        text.clear();
        read_until(stream, text, "</iq>").await;
        let id =
            text.split("<iq ").nth(1).and_then(|iq| iq.split(" id='").nth(1).or_else(|| iq.split(" id=\"").nth(1)));
        let id = id.and_then(|id| id.split(['\'', '"']).next()).unwrap().to_owned();
        let pong = format!("<iq type='result' id='{id}' from='corp.example' to='partner.example'/>");
        stream.write_all(pong.as_bytes()).await.unwrap();
    };
    let name = LeaseName::link(&format!("127.0.0.1:{port}"), "partner.example");
    deliver(1);
    links.give_back();
    sleep(Duration::from_millis(300)).await;
    assert!(inner.holder(&name).await.unwrap().is_some(), "the lease went while the server had to deal with a message");
    answer(&mut stream, &mut text).await;
    answer(&mut stream, &mut text).await;
    let free = async {
        while inner.holder(&name).await.unwrap().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, free).await.expect("the lease is kept");
    assert_eq!(*fates.0.lock(), [(1, "delivered"), (LAST.0, "delivered")]);
    deliver(2);
    let kind = isthmus_xmpp::stanza::PresenceType::Subscribed;
    let presence = isthmus_xmpp::stanza::Presence::new(kind, "ana@partner.example", "lee@corp.example");
    links.send(&local, &remote, Stanza::Presence(presence)).unwrap();
    let told = async {
        while fates.0.lock().len() < 4 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, told).await.expect("nobody is told of the second, or of the presence");
    assert_eq!(fates.0.lock().get(2..), Some(&[(2, "not sent"), (0, "unsent")][..]));
    let mut rest = [0_u8; 1024];
    let read = timeout(Duration::from_millis(200), stream.read(&mut rest)).await;
    assert!(read.is_err(), "something was written: {}", String::from_utf8_lossy(&rest));
}

// Whether the end of a connection is noticed by a read or by a write is left to chance, so there are some rounds of it.
#[tokio::test]
async fn what_the_server_wrote_before_it_took_nothing_more_is_not_lost() {
    const ROUNDS: usize = 12;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default(), Arc::new(SystemClock)));
    let ids = Arc::new(Ids::default());
    let port = listener.local_addr().unwrap().port();
    let links = process(port, "one", &inner, &(Arc::clone(&ids) as Arc<dyn XmppHandler>));
    let (local, remote) = ("corp.example".parse().unwrap(), "partner.example".parse().unwrap());
    let presence = || {
        let kind = isthmus_xmpp::stanza::PresenceType::Available;
        Stanza::Presence(isthmus_xmpp::stanza::Presence::new(kind, "ana@partner.example", "lee@corp.example"))
    };
    for round in 0..ROUNDS {
        let (stream, _) = let_in(&listener).await;
        until_ready(std::slice::from_ref(&links)).await;
        // Something that the server never reads, so that it resets the connection.
        links.send(&local, &remote, presence()).unwrap();
        sleep(Duration::from_millis(20)).await;
        let mut stream = stream.into_std().unwrap();
        let late =
            format!("<message id='{round}' from='lee@corp.example' to='ana@partner.example'><body>x</body></message>");
        stream.write_all(late.as_bytes()).unwrap();
        drop(stream);
        links.send(&local, &remote, presence()).unwrap();
        let read = async {
            while ids.0.lock().len() <= round {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, read).await.unwrap_or_else(|_| panic!("message {round} is lost"));
    }
}

//
#[test]
fn pauses_grow_from_a_tenth_of_a_second_and_end_at_three_seconds() {
    let mut firsts = BTreeSet::new();
    for _ in 0..100 {
        let mut failures = 0;
        let first = growing(RECONNECT, &mut failures);
        assert!((RECONNECT.min..=RECONNECT.max).contains(&first), "{first:?}");
        firsts.insert(first);
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            longest = longest.max(growing(RECONNECT, &mut failures));
        }
        assert!((Duration::from_secs(2)..=Duration::from_secs(3)).contains(&longest), "{longest:?}");
    }
    assert!(firsts.len() > 50, "gateways that lost the same server come back together: {firsts:?}");
}
