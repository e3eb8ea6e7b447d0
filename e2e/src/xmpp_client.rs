//! A chat client of a local user: tokio-xmpp against Prosody, with everything it received kept in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::StreamExt as _;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_xmpp::connect::DnsConfig;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::iq::Iq;
use tokio_xmpp::parsers::message::Message;
use tokio_xmpp::parsers::presence::Presence;
use tokio_xmpp::xmlstream::Timeouts;
use tokio_xmpp::{Client, Event, Stanza};

/// How long a client waits for something that ought to come at once.
pub const SOON: Duration = Duration::from_secs(10);
const CLIENT: &str = "jabber:client";
const ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// One stanza as the client got it from its server.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it arrived.
    pub at: Instant,
    /// The whole stanza.
    pub stanza: Element,
}

impl Received {
    /// `message`, `presence` or `iq`.
    pub fn name(&self) -> &str {
        self.stanza.name()
    }

    /// The value of an attribute, empty when absent.
    pub fn attribute<'a>(&'a self, name: &'a str) -> &'a str {
        self.stanza.attr(name).unwrap_or_default()
    }

    /// The sender's address.
    pub fn from(&self) -> &str {
        self.attribute("from")
    }

    /// The sender's address without its resource.
    pub fn from_bare(&self) -> &str {
        self.from().split('/').next().unwrap_or_default()
    }

    /// The `type` attribute, empty when absent.
    pub fn kind(&self) -> &str {
        self.attribute("type")
    }

    /// Text of a child in the client namespace (`body`, `show`, `status`, `thread`, `subject`).
    pub fn text(&self, child: &str) -> Option<String> {
        self.stanza.get_child(child, CLIENT).map(Element::text)
    }

    /// The body of a message.
    pub fn body(&self) -> Option<String> {
        self.text("body")
    }

    /// Type, condition and text of an error stanza.
    pub fn error(&self) -> Option<(String, String, String)> {
        let error = self.stanza.get_child("error", CLIENT)?;
        let kind = error.attr("type").unwrap_or_default().to_owned();
        let condition = error
            .children()
            .find(|c| c.ns() == ERRORS && c.name() != "text")
            .map(|c| c.name().to_owned())
            .unwrap_or_default();
        let text = error.get_child("text", ERRORS).map(Element::text).unwrap_or_default();
        Some((kind, condition, text))
    }

    /// Whether this is a presence of the given type from the given bare address.
    pub fn is_presence(&self, kind: &str, from: &str) -> bool {
        self.name() == "presence" && self.kind() == kind && self.from_bare() == from
    }

    /// Whether this is a message with the given body from the given bare address. A line end after the
    /// body does not count: SIPp cannot leave it out.
    pub fn is_message(&self, from: &str, body: &str) -> bool {
        self.name() == "message"
            && self.kind() != "error"
            && self.from_bare() == from
            && self.body().is_some_and(|b| b.trim_end() == body)
    }
}

#[derive(Debug, Default)]
struct Inbox {
    received: Mutex<Vec<Received>>,
    changed: Notify,
    /// Gets everything in place of `received`, once somebody listens.
    listener: Mutex<Option<mpsc::UnboundedSender<Received>>>,
}

impl Inbox {
    fn take(&self, received: Received) {
        // Held to the end: who begins to listen meanwhile gets it.
        let Ok(listener) = self.listener.lock() else { return };
        if let Some(listener) = listener.as_ref() {
            let _ = listener.send(received);
            return;
        }
        if let Ok(mut all) = self.received.lock() {
            all.push(received);
        }
        self.changed.notify_waiters();
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Received> {
        let (send, received) = mpsc::unbounded_channel();
        if let (Ok(mut listener), Ok(mut before)) = (self.listener.lock(), self.received.lock()) {
            for stanza in before.drain(..) {
                let _ = send.send(stanza);
            }
            *listener = Some(send);
        }
        received
    }
}

/// A logged-in user. Dropping it breaks its connection.
#[derive(Debug)]
pub struct XmppClient {
    address: String,
    inbox: Arc<Inbox>,
    start: Mutex<usize>,
    send: mpsc::Sender<Stanza>,
    task: tokio::task::JoinHandle<()>,
    next_id: AtomicU64,
}

impl XmppClient {
    /// Logs in on loopback without TLS and asks for the roster, so that subscriptions are delivered.
    ///
    /// # Errors
    ///
    /// When the login does not succeed within 10 s.
    pub async fn login(address: &str, password: &str, port: u16) -> Result<Self> {
        let jid: Jid = address.parse().context("a test address is wrong")?;
        let password = password.to_owned();
        let inbox = Arc::new(Inbox::default());
        let (send, commands) = mpsc::channel(64);
        let (tell, online) = oneshot::channel();
        let into = Arc::clone(&inbox);
        let task = clients()?.spawn(async move {
            let mut client = Client::new_plaintext(
                jid,
                password,
                DnsConfig::addr(&format!("127.0.0.1:{port}")),
                Timeouts::default(),
            );
            let bound = come_up(&mut client).await;
            let is_up = bound.is_ok();
            if tell.send(bound).is_ok() && is_up {
                drive(client, commands, into).await;
            }
        });
        let mut user =
            Self { address: String::new(), inbox, start: Mutex::new(0), send, task, next_id: AtomicU64::new(1) };
        user.address = tokio::time::timeout(SOON, online).await.context("no answer to the login")???;
        user.send_xml("<iq xmlns='jabber:client' type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
            .await?;
        user.wait("the roster", |r| r.name() == "iq" && r.attribute("id") == "roster").await?;
        Ok(user)
    }

    /// The full address that the server has bound.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address without its resource.
    pub fn bare(&self) -> &str {
        self.address.split('/').next().unwrap_or_default()
    }

    /// Sends a stanza written as XML in the namespace `jabber:client`.
    ///
    /// # Errors
    ///
    /// When it is not a stanza or the connection is gone.
    pub async fn send_xml(&self, xml: &str) -> Result<()> {
        let element: Element = xml.parse().with_context(|| format!("not XML: {xml}"))?;
        let stanza = match element.name() {
            "message" => Stanza::Message(Message::try_from(element)?),
            "presence" => Stanza::Presence(Presence::try_from(element)?),
            "iq" => Stanza::Iq(Iq::try_from(element)?),
            other => bail!("{other} is no stanza"),
        };
        self.send.send(stanza).await.map_err(|_| anyhow!("{} is not connected", self.address))
    }

    /// Announces plain availability and waits until the server has taken it. A message that came before would find
    /// the user offline.
    ///
    /// # Errors
    ///
    /// When the server does not show the user their own presence.
    pub async fn come_online(&self) -> Result<()> {
        self.available("", "").await?;
        self.wait("one's own presence", |r| r.name() == "presence" && r.from() == self.address()).await.map(drop)
    }

    /// Announces availability. An empty `show` is plain "available", an empty `status` none.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub async fn available(&self, show: &str, status: &str) -> Result<()> {
        let mut xml = "<presence xmlns='jabber:client'>".to_owned();
        if !show.is_empty() {
            xml.push_str(&format!("<show>{show}</show>"));
        }
        if !status.is_empty() {
            xml.push_str(&format!("<status>{}</status>", escape(status)));
        }
        xml.push_str("</presence>");
        self.send_xml(&xml).await
    }

    /// Sends a presence of the given type to a contact (`subscribe`, `subscribed`, ...).
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub async fn presence(&self, kind: &str, to: &str) -> Result<()> {
        self.send_xml(&format!("<presence xmlns='jabber:client' type='{kind}' to='{to}'/>")).await
    }

    /// Goes offline without closing the connection.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub async fn unavailable(&self) -> Result<()> {
        self.send_xml("<presence xmlns='jabber:client' type='unavailable'/>").await
    }

    /// Removes a contact from the roster, as a chat client's "delete contact" does.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub async fn remove_contact(&self, contact: &str) -> Result<()> {
        let id = self.fresh_id();
        self.send_xml(&format!(
            "<iq xmlns='jabber:client' type='set' id='{id}'><query xmlns='jabber:iq:roster'>\
             <item jid='{contact}' subscription='remove'/></query></iq>"
        ))
        .await
    }

    /// Sends a message of type `chat` and returns its id.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub async fn chat(&self, to: &str, body: &str) -> Result<String> {
        self.message("chat", to, body).await
    }

    /// Sends a message of the given type and returns its id.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub async fn message(&self, kind: &str, to: &str, body: &str) -> Result<String> {
        let id = self.fresh_id();
        self.send_xml(&format!(
            "<message xmlns='jabber:client' type='{kind}' to='{to}' id='{id}'><body>{}</body></message>",
            escape(body)
        ))
        .await?;
        Ok(id)
    }

    /// An id that this client has not used.
    pub fn fresh_id(&self) -> String {
        format!("e2e-{}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Everything received since the login or the last [`Self::forget`].
    pub fn received(&self) -> Vec<Received> {
        let start = self.start.lock().map(|s| *s).unwrap_or_default();
        self.inbox.received.lock().map(|all| all.iter().skip(start).cloned().collect()).unwrap_or_default()
    }

    /// Hands on everything since the login; it is not kept then, and the `wait` methods no longer see it.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<Received> {
        self.inbox.listen()
    }

    /// Leaves out of later looks what has been received so far.
    pub fn forget(&self) {
        if let (Ok(mut start), Ok(all)) = (self.start.lock(), self.inbox.received.lock()) {
            *start = all.len();
        }
    }

    /// Waits for a stanza that meets the condition, [`SOON`] at most.
    ///
    /// # Errors
    ///
    /// When none comes; the error lists what did come.
    pub async fn wait(&self, what: &str, matches: impl Fn(&Received) -> bool) -> Result<Received> {
        self.wait_within(what, SOON, matches).await
    }

    /// [`Self::wait`] with another limit.
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub async fn wait_within(
        &self,
        what: &str,
        within: Duration,
        matches: impl Fn(&Received) -> bool,
    ) -> Result<Received> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let changed = self.inbox.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = self.received().into_iter().find(|r| matches(r)) {
                return Ok(found);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let seen: Vec<String> = self.received().iter().map(|r| String::from(&r.stanza)).collect();
                bail!("{}: {what}: not received within {within:?}; received: {}", self.address, seen.join("\n"));
            }
        }
    }

    /// Fails when a stanza that meets the condition is there. Call it after a later event was seen.
    ///
    /// # Errors
    ///
    /// When there is one; the error shows it.
    pub fn must_not_have(&self, what: &str, matches: impl Fn(&Received) -> bool) -> Result<()> {
        match self.received().iter().find(|r| matches(r)) {
            Some(found) => {
                bail!("{}: {what}: {}", self.address, String::from(&found.stanza))
            }
            None => Ok(()),
        }
    }
}

impl Drop for XmppClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where all clients run: one thread. tokio-xmpp 6.0.0 polls what came with a lock that whoever sends may have, and is not
/// woken when the lock is free again; on one thread the two never meet.
fn clients() -> Result<&'static Handle> {
    static CLIENTS: OnceLock<Handle> = OnceLock::new();
    if let Some(handle) = CLIENTS.get() {
        return Ok(handle);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    // Of two that come here at the same time one has a thread for nothing.
    std::thread::Builder::new()
        .name("xmpp-clients".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(CLIENTS.get_or_init(|| handle))
}

async fn come_up(client: &mut Client) -> Result<String> {
    loop {
        match client.next().await {
            Some(Event::Online { bound_jid, .. }) => return Ok(bound_jid.to_string()),
            Some(Event::Disconnected(error)) => return Err(anyhow!("{error}")),
            Some(Event::Stanza(_)) => {}
            None => return Err(anyhow!("the client ended")),
        }
    }
}

async fn drive(mut client: Client, mut commands: mpsc::Receiver<Stanza>, inbox: Arc<Inbox>) {
    loop {
        tokio::select! {
            event = client.next() => match event {
                Some(Event::Stanza(stanza)) => {
                    let stanza = match stanza {
                        Stanza::Message(message) => Element::from(message),
                        Stanza::Presence(presence) => Element::from(presence),
                        Stanza::Iq(iq) => Element::from(iq),
                    };
                    inbox.take(Received { at: Instant::now(), stanza });
                }
                Some(_) => {}
                None => return,
            },
            command = commands.recv() => {
                let Some(stanza) = command else { return };
                if client.send_stanza(stanza).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Text made safe between tags and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_misses_nothing_that_came_before() {
        let inbox = Inbox::default();
        let stanza = |id: &str| Received {
            at: Instant::now(),
            stanza: Element::builder("message", CLIENT).attr("id".try_into().unwrap(), id).build(),
        };
        inbox.take(stanza("early"));
        let mut received = inbox.listen();
        inbox.take(stanza("late"));
        let mut next = || received.try_recv().map(|stanza| stanza.attribute("id").to_owned());
        assert_eq!((next().as_deref(), next().as_deref()), (Ok("early"), Ok("late")));
        assert!(next().is_err());
    }
}
