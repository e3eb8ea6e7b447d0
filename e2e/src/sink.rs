//! Ends of the line for benchmarks: an XMPP server that lets everybody watch and counts messages, a SIP server that only
//! says 200.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::broadcast;

use crate::watchers::state_text;

/// A server that lets every component in, counts messages, answers pings, and accepts who wants to watch its users.
///
/// It takes what a well-formed component link sends and checks nothing: it stands where Prosody would be
/// too slow to measure anything else.
#[derive(Debug)]
pub struct ComponentSink {
    /// Components connect here on 127.0.0.1.
    pub port: u16,
    seen: Arc<Seen>,
    /// The name of a component, and what it gets.
    to_components: broadcast::Sender<(String, String)>,
    task: tokio::task::JoinHandle<()>,
}

/// What has come, and how it is dealt with.
#[derive(Debug, Default)]
struct Seen {
    messages: AtomicU64,
    /// Pings are not answered.
    silent: AtomicBool,
    /// The ids of messages, where they are kept.
    ids: Option<Mutex<Vec<String>>>,
    /// The number of the state that users show, where they show any.
    states: Option<Mutex<States>>,
    probes: AtomicU64,
}

/// What users show, by the number of the state.
#[derive(Debug, Default)]
struct States {
    of_all: u64,
    /// Those who have changed since.
    of: HashMap<String, u64>,
}

impl Seen {
    /// The inside of a presence stanza of this user.
    fn presence_of(&self, user: &str) -> Option<String> {
        let states = self.states.as_ref()?.lock().ok()?;
        let state = states.of.get(user).copied().unwrap_or(states.of_all);
        Some(format!("<status>{}</status>", state_text(state)))
    }
}

impl ComponentSink {
    /// Listens on a free port.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        Self::with(Seen::default()).await
    }

    /// As [`Self::start`], but it answers no ping until [`Self::speak`], and keeps the ids of messages.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start_silent() -> Result<Self> {
        Self::with(Seen { silent: AtomicBool::new(true), ids: Some(Mutex::default()), ..Seen::default() }).await
    }

    /// As [`Self::start`], but users show the state with number 0 and answer probes with what they show.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start_showing() -> Result<Self> {
        Self::with(Seen { states: Some(Mutex::default()), ..Seen::default() }).await
    }

    async fn with(seen: Seen) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(seen);
        let shared = Arc::clone(&seen);
        let (to_components, _) = broadcast::channel(64);
        let outgoing = to_components.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, outgoing) = (Arc::clone(&shared), outgoing.subscribe());
                tokio::spawn(async move {
                    let _ = serve_component(stream, &seen, outgoing).await;
                });
            }
        });
        Ok(Self { port, seen, to_components, task })
    }

    /// How many message stanzas have come.
    pub fn messages(&self) -> u64 {
        self.seen.messages.load(Ordering::Relaxed)
    }

    /// The ids of the messages, in order, if they are kept.
    pub fn ids(&self) -> Vec<String> {
        self.seen.ids.as_ref().and_then(|ids| Some(ids.lock().ok()?.clone())).unwrap_or_default()
    }

    /// How many probes have come.
    pub fn probes(&self) -> u64 {
        self.seen.probes.load(Ordering::Relaxed)
    }

    /// Every user shows another state; nobody is told.
    pub fn change_all(&self, state: u64) {
        if let Some(mut states) = self.seen.states.as_ref().and_then(|states| states.lock().ok()) {
            *states = States { of_all: state, of: HashMap::new() };
        }
    }

    /// A user shows another state, and these watchers at a component are told together.
    pub fn change(&self, user: &str, state: u64, component: &str, watchers: impl Iterator<Item = String>) {
        if let Some(mut states) = self.seen.states.as_ref().and_then(|states| states.lock().ok()) {
            states.of.insert(user.to_owned(), state);
        }
        let Some(inside) = self.seen.presence_of(user) else { return };
        let stanza = |watcher| format!("<presence from='{user}/home' to='{watcher}'>{inside}</presence>");
        self.send(component, watchers.map(stanza).collect());
    }

    /// Sends stanzas to a component, in one piece.
    pub fn send(&self, component: &str, stanzas: String) {
        // Nobody is connected: then nobody gets it.
        let _ = self.to_components.send((component.to_owned(), stanzas));
    }

    /// Answers pings from now on.
    pub fn speak(&self) {
        self.seen.silent.store(false, Ordering::SeqCst);
    }
}

impl Drop for ComponentSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_component(
    mut stream: TcpStream,
    seen: &Seen,
    mut outgoing: broadcast::Receiver<(String, String)>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut name = String::new();
    let mut text = String::new();
    let mut raw = Vec::new();
    let mut piece = vec![0_u8; 64 * 1024];
    loop {
        let n = tokio::select! {
            read = stream.read(&mut piece) => read?,
            Ok((component, stanzas)) = outgoing.recv() => {
                if component == name {
                    stream.write_all(stanzas.as_bytes()).await?;
                }
                continue;
            }
        };
        if n == 0 {
            return Ok(());
        }
        raw.extend_from_slice(piece.get(..n).unwrap_or_default());
        // A character may be cut in two by the read: keep its start for the next round.
        let whole = match std::str::from_utf8(&raw) {
            Ok(_) => raw.len(),
            Err(error) => error.valid_up_to(),
        };
        text.push_str(&String::from_utf8_lossy(raw.get(..whole).unwrap_or_default()));
        raw.drain(..whole);
        let answer = answer_tags(&mut text, seen, &mut name);
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Looks at every complete tag, takes it out of the text and gives what is to be answered.
fn answer_tags(text: &mut String, seen: &Seen, component: &mut String) -> String {
    let mut answer = String::new();
    let mut used = 0;
    while let Some(open) = text[used..].find('<').map(|at| at + used) {
        let Some(close) = text[open..].find('>').map(|at| at + open) else { break };
        let tag = &text[open + 1..close];
        let name = tag.trim_end_matches('/').split([' ', '\n']).next().unwrap_or_default();
        let attributes = attributes(tag);
        let of = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
        match name {
            "stream:stream" => {
                of("to").clone_into(component);
                answer.push_str(&format!(
                    "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                     xmlns='jabber:component:accept' id='sink' from='{component}'>"
                ));
            }
            "presence" if of("type") == "subscribe" => answer.push_str(&format!(
                "<presence type='subscribed' from='{to}' to='{from}'/><presence from='{to}/home' to='{from}'>{}</presence>",
                seen.presence_of(of("to")).unwrap_or_default(),
                to = of("to"),
                from = of("from")
            )),
            "presence" if of("type") == "probe" => {
                seen.probes.fetch_add(1, Ordering::Relaxed);
                if let Some(inside) = seen.presence_of(of("to")) {
                    answer.push_str(&format!(
                        "<presence from='{to}/home' to='{from}'>{inside}</presence>",
                        to = of("to"),
                        from = of("from")
                    ));
                }
            }
            "/handshake" => answer.push_str("<handshake/>"),
            "message" => {
                seen.messages.fetch_add(1, Ordering::Relaxed);
                if let Some(mut ids) = seen.ids.as_ref().and_then(|ids| ids.lock().ok()) {
                    ids.push(of("id").to_owned());
                }
            }
            "iq" if of("type") == "get" && !seen.silent.load(Ordering::SeqCst) => answer.push_str(&format!(
                "<iq type='result' id='{}' from='{}' to='{}'/>",
                of("id"),
                of("to"),
                of("from")
            )),
            _ => {}
        }
        used = close + 1;
    }
    text.drain(..used);
    answer
}

fn attributes(tag: &str) -> HashMap<&str, String> {
    let mut found = HashMap::new();
    let mut rest = tag.split_once(' ').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let Some(quote) = after.chars().next() else { break };
        let Some((value, next)) = after[1..].split_once(quote) else { break };
        found.insert(name.trim(), value.to_owned());
        rest = next;
    }
    found
}

/// A SIP server over UDP that answers every MESSAGE with 200.
#[derive(Debug)]
pub struct SipSink {
    /// It listens here on 127.0.0.1.
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl SipSink {
    /// Listens on a free port.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
        let port = socket.local_addr()?.port();
        let task = tokio::spawn(async move {
            let mut buffer = vec![0_u8; 65_536];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let request = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
                let _ = socket.send_to(answer_200(&request).as_bytes(), from).await;
            }
        });
        Ok(Self { port, task })
    }
}

impl Drop for SipSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The 200 to a request: the fields that must be copied, with a tag in To.
fn answer_200(request: &str) -> String {
    let mut answer = String::from("SIP/2.0 200 OK\r\n");
    for line in request.split("\r\n").skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        match name {
            "To" => answer.push_str(&format!("{line};tag=sink\r\n")),
            "Via" | "From" | "Call-ID" | "CSeq" => answer.push_str(&format!("{line}\r\n")),
            _ => {}
        }
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_answered_even_when_cut_in_two() {
        let seen = Seen::default();
        let mut text = "<handshake>abc</handshake><message to='a'><body>1 &gt; 0</body></message><iq ty".to_owned();
        let mut name = String::new();
        assert_eq!(answer_tags(&mut text, &seen, &mut name), "<handshake/>");
        text.push_str("pe=\"get\" id='7' from='c' to=\"s\"><ping xmlns='urn:xmpp:ping'/></iq>");
        assert_eq!(answer_tags(&mut text, &seen, &mut name), "<iq type='result' id='7' from='s' to='c'/>");
        assert_eq!(seen.messages.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_probe_is_answered_with_what_the_user_shows() {
        let sink = ComponentSink::start_showing().await.unwrap();
        let probe = |user: &str| {
            let mut text = format!("<presence type='probe' from='w@p' to='{user}'/>");
            answer_tags(&mut text, &sink.seen, &mut String::new())
        };
        let shows =
            |user, state| format!("<presence from='{user}/home' to='w@p'><status>state {state}</status></presence>");
        assert_eq!(probe("a@c"), shows("a@c", 0));
        sink.change("a@c", 3, "p", std::iter::empty());
        assert_eq!((probe("a@c"), probe("b@c")), (shows("a@c", 3), shows("b@c", 0)));
        sink.change_all(9);
        assert_eq!((probe("a@c"), sink.probes()), (shows("a@c", 9), 4));
    }
}
