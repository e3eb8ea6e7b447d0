//! Users of both sides who write to, watch and answer each other, and keep books of it.

mod watches;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::lab::wait_until;
use crate::ledger::{Judgement, Ledger, Way};
use crate::prosody::Prosody;
use crate::sip_agent::{Dialog, Event, Session, SipAgent};
use crate::xmpp_client::{Received, XmppClient, escape};
use watches::{PLACES, Watch, keep, look, open_anew, renew};

/// How long subscriptions of SIP users last when nobody refreshes them and the plan says nothing.
const EXPIRES_SECS: u32 = 900;
/// How many XMPP users log in, and how many watchers subscribe, at a time.
const AT_ONCE: usize = 10;

/// How many messages a SIP user writes in a session before they end it.
const IN_SESSION: usize = 20;

/// Who talks, and how much.
#[derive(Debug, Clone)]
pub struct Plan {
    /// XMPP users, named u0, u1, ...
    pub users: usize,
    /// SIP users that each of them has as contacts, at the partners in turn; each pair watches both ways.
    pub contacts: usize,
    /// Messages a second, both ways together.
    pub messages: u32,
    /// Changes of state a second, both sides together. Each is shown to all contacts of a user.
    pub changes: u32,
    /// SIP users' watches a second that are ended and opened again.
    pub renewals: u32,
    /// How long subscriptions last that either side asks for, so that they need refreshes; 900 s of SIP users, and up to an
    /// hour of the gateway, when not said. The gateway grants nothing below 60 s.
    pub expires_secs: Option<u32>,
    /// Where the choice of pairs starts.
    pub seed: u64,
    /// Whether every second contact belongs to a partner with whom messages travel in sessions.
    pub sessions: bool,
    /// How the partners' users reach the gateways.
    pub access: Access,
}

/// How users of partners reach the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They send to the gateways themselves.
    Direct,
    /// A Kamailio stands between, and everything is UDP.
    Kamailio,
    /// A Kamailio stands between, and speaks TCP with the gateways.
    KamailioOverTcp,
    /// The same over TLS, which HAProxy adds at its side: Kamailio 5.6 with OpenSSL 3 dies now and then of TLS under load
    /// (kamailio/kamailio#3791).
    KamailioOverTls,
}

impl Plan {
    /// The local parts of the XMPP users.
    pub fn user_names(&self) -> Vec<String> {
        (0..self.users).map(|number| format!("u{number}")).collect()
    }

    fn watch_secs(&self) -> u32 {
        self.expires_secs.unwrap_or(EXPIRES_SECS)
    }
}

/// A source of random numbers that a seed repeats (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed >> 16).unwrap_or_default().checked_rem(bound).unwrap_or_default()
    }
}

/// The users and their books.
#[derive(Debug)]
pub struct Traffic {
    /// The books.
    pub ledger: Arc<Ledger>,
    shared: Arc<Users>,
    watches: Vec<Arc<Watch>>,
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// It gives the renewals that are still under way.
    flow: Option<JoinHandle<JoinSet<()>>>,
}

/// A partner's users.
#[derive(Debug)]
pub struct Side {
    /// The SIP side itself.
    pub agent: SipAgent,
    /// What it tells.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Its domain.
    pub domain: String,
    /// Whether its users open a session for what they write, as the gateway does for what is written to them; otherwise both
    /// send single messages.
    pub sessions: bool,
}

/// An XMPP user, logged in or not.
#[derive(Debug)]
struct User {
    bare: String,
    client: Mutex<Option<Arc<XmppClient>>>,
}

impl User {
    fn client(&self) -> Option<Arc<XmppClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The session that a SIP user has open, how many messages they will still write in it, and when it was opened.
type Talk = Arc<tokio::sync::Mutex<Option<(Session, usize, Duration)>>>;

#[derive(Debug)]
struct Users {
    plan: Plan,
    sides: Vec<(String, SipAgent)>,
    xmpp: Vec<User>,
    /// One for each contact who talks in sessions.
    talks: BTreeMap<String, Talk>,
}

impl Users {
    fn contact(&self, user: usize, number: usize) -> String {
        let domain = number.checked_rem(self.sides.len()).and_then(|side| self.sides.get(side));
        format!("s{user}x{number}@{}", domain.map(|(domain, _)| domain.as_str()).unwrap_or_default())
    }

    /// The name and the SIP side of a contact.
    fn side<'a>(&'a self, contact: &'a str) -> Option<(&'a str, &'a SipAgent)> {
        let (name, domain) = contact.split_once('@')?;
        self.sides.iter().find(|(own, _)| own == domain).map(|(_, agent)| (name, agent))
    }
}

/// Logs a user in; on a machine with much to do a login now and then takes too long, so there are three attempts, each as
/// another device.
async fn log_in(prosody: &Prosody, name: &str) -> Result<XmppClient> {
    let mut attempt = 1;
    loop {
        match prosody.login(name, &format!("home-{attempt}")).await {
            Err(_) if attempt < 3 => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// The name of a watch in the books.
fn watch_name(watcher: &str, watched: &str) -> String {
    format!("{watcher} sees {watched}")
}

impl Traffic {
    /// Logs everybody in, and returns when every watcher has been shown a first state.
    ///
    /// # Errors
    ///
    /// When somebody cannot log in, or a subscription does not come up within 60 s, more for very many.
    pub async fn start(plan: &Plan, prosody: &Prosody, sides: Vec<Side>) -> Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let (mut tasks, mut agents, mut talking) = (Vec::new(), Vec::new(), Vec::new());
        for side in sides {
            let books = Arc::clone(&ledger);
            tasks.push(tokio::spawn(keep_sip_books(side.domain.clone(), side.events, books)));
            talking.extend(side.sessions.then(|| side.domain.clone()));
            agents.push((side.domain, side.agent));
        }
        let user = |name: String| User { bare: format!("{name}@{}", prosody.domain), client: Mutex::default() };
        let xmpp = plan.user_names().into_iter().map(user).collect();
        let mut users = Users { plan: plan.clone(), sides: agents, xmpp, talks: BTreeMap::new() };
        for (user, contact) in (0..plan.users).flat_map(|user| (0..plan.contacts).map(move |contact| (user, contact))) {
            let contact = users.contact(user, contact);
            if contact.split('@').nth(1).is_some_and(|domain| talking.iter().any(|own| own == domain)) {
                users.talks.insert(contact, Talk::default());
            }
        }
        let shared = Arc::new(users);
        let mut traffic = Self { ledger, shared, watches: Vec::new(), tasks, stop: Arc::default(), flow: None };
        traffic.log_in(prosody).await?;
        traffic.meet().await?;
        Ok(traffic)
    }

    async fn log_in(&mut self, prosody: &Prosody) -> Result<()> {
        for some in self.shared.xmpp.chunks(AT_ONCE) {
            let logins = some.iter().map(|user| log_in(prosody, user.bare.split('@').next().unwrap_or_default()));
            for (user, client) in some.iter().zip(join_all(logins).await) {
                let client = Arc::new(client?);
                let books = Arc::clone(&self.ledger);
                self.tasks.push(tokio::spawn(keep_xmpp_books(
                    user.bare.clone(),
                    Arc::downgrade(&client),
                    client.listen(),
                    books,
                )));
                *user.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
            }
        }
        Ok(())
    }

    /// Every XMPP user is logged out, because their server is gone. They write and show nothing until [`Self::come_back`].
    pub fn leave(&self) {
        for user in &self.shared.xmpp {
            user.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Every XMPP user logs in again and shows a state.
    ///
    /// # Errors
    ///
    /// When one cannot.
    pub async fn come_back(&mut self, prosody: &Prosody) -> Result<()> {
        self.tasks.retain(|task| !task.is_finished());
        self.log_in(prosody).await?;
        let state = format!("back at {:.1} s", self.ledger.now().as_secs_f64());
        for number in 0..self.shared.xmpp.len() {
            self.show_xmpp(number, &state).await?;
        }
        Ok(())
    }

    /// Subscribes everybody to everybody of their pair.
    async fn meet(&mut self) -> Result<()> {
        let users = Arc::clone(&self.shared);
        let mut pairs = Vec::new();
        for (number, user) in users.xmpp.iter().enumerate() {
            show_xmpp(&self.ledger, &users, number, "first").await?;
            let client = user.client().context("nobody is logged in")?;
            for contact in 0..users.plan.contacts {
                let contact = users.contact(number, contact);
                show_sip(&self.ledger, &users, &contact, &user.bare, "first");
                client.presence("subscribe", &contact).await?;
                pairs.push((contact, user.bare.clone()));
            }
        }
        for some in pairs.chunks(AT_ONCE) {
            let opened = join_all(some.iter().map(|(contact, user)| async {
                let (name, agent) = users.side(contact).ok_or(0_u16)?;
                let mut attempt = 1;
                loop {
                    match agent.watch(name, user, users.plan.watch_secs()).await {
                        // The other side asks for patience.
                        Err(503) if attempt < 5 => attempt += 1,
                        outcome => return outcome,
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }));
            for ((contact, user), dialog) in some.iter().zip(opened.await) {
                let name = watch_name(contact, user);
                let dialog = dialog.map_err(|status| anyhow::anyhow!("{name}: SUBSCRIBE got {status}"))?;
                self.ledger.watches(&name);
                let dialog = tokio::sync::Mutex::new(Some(dialog));
                let watch = Arc::new(Watch {
                    name,
                    contact: contact.clone(),
                    user: user.clone(),
                    dialog,
                    former: Mutex::default(),
                });
                let place = u32::try_from(self.watches.len())? % PLACES;
                self.tasks.push(tokio::spawn(keep(
                    Arc::clone(&users),
                    Arc::clone(&self.ledger),
                    Arc::clone(&watch),
                    place,
                )));
                self.watches.push(watch);
            }
        }
        let ledger = &self.ledger;
        let patience = Duration::from_secs(60) + Duration::from_millis(10) * u32::try_from(pairs.len())?;
        let shown = wait_until("everybody sees everybody", patience, || (ledger.stale() == 0).then_some(()));
        shown.await.with_context(|| format!("{}", ledger.judge()))?;
        ledger.measure();
        Ok(())
    }

    /// Lets messages and changes flow until [`Self::finish`].
    pub fn flow(&mut self) {
        let (users, ledger, stop) = (Arc::clone(&self.shared), Arc::clone(&self.ledger), Arc::clone(&self.stop));
        let watches = self.watches.clone();
        self.flow = Some(tokio::spawn(async move {
            let mut dice = Dice::new(users.plan.seed);
            let rate = (users.plan.messages + users.plan.changes + users.plan.renewals).max(1);
            let (messages, changes) = (users.plan.messages as usize, users.plan.changes as usize);
            let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut serial = 0_u64;
            let mut renewals = JoinSet::new();
            while !stop.load(Ordering::Relaxed) {
                tick.tick().await;
                serial += 1;
                let user = dice.below(users.plan.users);
                let number = dice.below(users.plan.contacts);
                let contact = users.contact(user, number);
                let what = dice.below(rate as usize);
                let from_sip = dice.below(2) == 0;
                let (users, ledger) = (Arc::clone(&users), Arc::clone(&ledger));
                if what >= messages + changes {
                    let watch = watches.get(user * users.plan.contacts + number).cloned();
                    if let Some(watch) = watch {
                        renewals.spawn(async move { renew(&users, &ledger, &watch).await });
                    }
                    continue;
                }
                match (what < messages, from_sip) {
                    (true, true) => drop(tokio::spawn(write_sip(users, ledger, user, contact, format!("in-{serial}")))),
                    (true, false) => write_xmpp(&users, &ledger, user, &contact, &format!("out-{serial}")).await,
                    (false, true) => {
                        let Some(user) = users.xmpp.get(user) else { continue };
                        show_sip(&ledger, &users, &contact, &user.bare, &format!("v{serial}"));
                    }
                    (false, false) => drop(show_xmpp(&ledger, &users, user, &format!("v{serial}")).await),
                }
            }
            renewals
        }));
    }

    /// Ends the flow, waits until everything has arrived that will, looks at every subscription, and judges.
    ///
    /// # Errors
    ///
    /// When a peer did what it must not do on the wire. What the books show is in the judgement.
    pub async fn finish(mut self, patience: Duration) -> Result<Judgement> {
        self.stop.store(true, Ordering::Relaxed);
        // Dropping them ends them.
        let _renewals = match self.flow.take() {
            Some(flow) => Some(flow.await.context("the flow failed")?),
            None => None,
        };
        let end = Instant::now() + patience;
        let settled = |ledger: &Ledger| {
            ledger.stale() + ledger.unwatching() == 0
                && [Way::ToSip, Way::ToXmpp].map(|way| ledger.progress(way)).iter().all(|(a, b)| a == b)
        };
        while !settled(&self.ledger) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for some in self.watches.chunks(AT_ONCE) {
            join_all(some.iter().map(|watch| look(&self.shared, &self.ledger, watch, end))).await;
        }
        for (number, user) in self.shared.xmpp.iter().enumerate() {
            for contact in 0..self.shared.plan.contacts {
                let contact = self.shared.contact(number, contact);
                let Some((name, agent)) = self.shared.side(&contact) else { continue };
                self.ledger.alive(&watch_name(&user.bare, &contact), agent.watched_by(&user.bare, name));
            }
        }
        // What a repetition that is still under way brings belongs to the books, too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for watch in &self.watches {
            let former = watch.former.lock().unwrap_or_else(PoisonError::into_inner);
            for dialog in former.iter().filter(|dialog| !dialog.ended()) {
                self.ledger.never_ended(&watch.name, &dialog.call_id());
            }
        }
        let judgement = self.ledger.judge();
        self.wire_is_right().with_context(|| judgement.to_string())?;
        Ok(judgement)
    }

    /// The client of an XMPP user, while they are logged in.
    pub fn user(&self, number: usize) -> Option<Arc<XmppClient>> {
        self.shared.xmpp.get(number)?.client()
    }

    /// The subscription of a SIP user to an XMPP user, in the order of users and their contacts.
    pub fn watch(&self, number: usize) -> Option<Dialog> {
        self.watches.get(number)?.dialog.try_lock().ok()?.clone()
    }

    /// Gives an XMPP user another state.
    ///
    /// # Errors
    ///
    /// When the user is not connected.
    pub async fn show_xmpp(&self, user: usize, state: &str) -> Result<()> {
        show_xmpp(&self.ledger, &self.shared, user, state).await
    }

    /// Gives the contact of an XMPP user another state.
    pub fn show_sip(&self, user: usize, contact: usize, state: &str) {
        let Some(watcher) = self.shared.xmpp.get(user) else { return };
        show_sip(&self.ledger, &self.shared, &self.shared.contact(user, contact), &watcher.bare, state);
    }

    /// Lets a SIP contact write to its XMPP user, and keeps the books of it.
    pub async fn write_sip(&self, user: usize, contact: usize, text: &str) {
        let contact = self.shared.contact(user, contact);
        write_sip(Arc::clone(&self.shared), Arc::clone(&self.ledger), user, contact, text.to_owned()).await;
    }

    /// Lets an XMPP user write to a SIP contact, and keeps the books of it.
    pub async fn write_xmpp(&self, user: usize, contact: usize, text: &str) {
        write_xmpp(&self.shared, &self.ledger, user, &self.shared.contact(user, contact), text).await;
    }

    /// Waits until every watcher sees the last state.
    ///
    /// # Errors
    ///
    /// When somebody does not within the time.
    pub async fn all_current(&self, within: Duration) -> Result<()> {
        wait_until("everybody sees the last state", within, || (self.ledger.stale() == 0).then_some(()))
            .await
            .with_context(|| self.ledger.judge().to_string())
    }

    /// Fails when a peer did on the wire what it must not do, such as a CSeq that does not grow, or by more than one though
    /// no process died or lost its store.
    ///
    /// # Errors
    ///
    /// When there is something; the error lists it.
    pub fn wire_is_right(&self) -> Result<()> {
        let judgement = self.ledger.judge();
        let wrong = [judgement.misused, judgement.skipped].concat();
        ensure!(wrong.is_empty(), "{} times against the rules of the wire:\n{}", wrong.len(), wrong.join("\n"));
        Ok(())
    }

    /// The SIP side of a domain.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn agent_of(&self, domain: &str) -> Result<&SipAgent> {
        let side = self.shared.sides.iter().find(|(own, _)| own == domain);
        side.map(|(_, agent)| agent).with_context(|| format!("no SIP side {domain}"))
    }

    /// Every SIP user refreshes their watch. Who hears that nothing is known of it any more (481) subscribes anew (RFC 6665
    /// §4.1.2.2); gives how many these were.
    ///
    /// # Errors
    ///
    /// When somebody is told something else, or cannot subscribe.
    pub async fn watch_again(&self) -> Result<usize> {
        let mut forgotten = 0;
        for watch in &self.watches {
            let mut open = watch.dialog.lock().await;
            let status = open.as_ref().context("a watch has no dialog")?.refresh(self.shared.plan.watch_secs()).await;
            if (200..300).contains(&status) {
                continue;
            }
            ensure!(status == 481, "{}: its refresh got {status}", watch.name);
            forgotten += 1;
            self.ledger.unwatched(&watch.name);
            *open = open_anew(&self.shared, &self.ledger, watch).await;
            ensure!(open.is_some(), "{}: it could not be opened again", watch.name);
        }
        Ok(forgotten)
    }

    /// The first SIP side, if there is any.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn agent(&self) -> Result<&SipAgent> {
        self.shared.sides.first().map(|(_, agent)| agent).context("no SIP side")
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(flow) = &self.flow {
            flow.abort();
        }
    }
}

async fn write_sip(users: Arc<Users>, ledger: Arc<Ledger>, user: usize, contact: String, text: String) {
    let (Some(user), Some((name, agent))) = (users.xmpp.get(user), users.side(&contact)) else { return };
    if let Some(talk) = users.talks.get(&contact) {
        return talk_in_session(talk, &ledger, agent, (name, &user.bare), &text).await;
    }
    ledger.sent(Way::ToXmpp, &text);
    let status = agent.message(name, &user.bare, &text).await;
    tell_sip(&ledger, &text, status.unwrap_or_default());
}

/// The sender of a message got this final status, 0 when none came.
fn tell_sip(ledger: &Ledger, text: &str, status: u16) {
    match status {
        200..300 => ledger.accepted(text),
        0 => ledger.refused(text, "no answer"),
        status => ledger.refused(text, &status.to_string()),
    }
}

/// Writes one message in the open session, after opening one if there is none, and ends it after some. Who still waits for the
/// answer to their last message writes nothing.
async fn talk_in_session(talk: &Talk, ledger: &Ledger, agent: &SipAgent, (name, user): (&str, &str), text: &str) {
    let Ok(mut open) = talk.try_lock() else { return };
    if open.as_ref().is_some_and(|(session, ..)| session.ended()) {
        *open = None;
    }
    ledger.sent(Way::ToXmpp, text);
    let (session, left, opened) = match open.take() {
        Some(open) => open,
        None => match agent.invite(name, user).await {
            Ok(session) => {
                ledger.session_opened();
                (session, IN_SESSION, ledger.now())
            }
            Err(status) => return tell_sip(ledger, text, status),
        },
    };
    let status = session.message(text).await;
    tell_sip(ledger, text, status);
    let lost = |what: &str| ledger.session_lost(opened, &format!("{name} with {user}: {what} got 481"));
    if status == 481 && !session.ended() {
        lost("MESSAGE");
    }
    if status == 481 || session.ended() {
        return;
    }
    if left > 1 {
        *open = Some((session, left - 1, opened));
        return;
    }
    let ended = session.ended();
    if session.bye().await == 481 && !ended {
        lost("BYE");
    }
}

async fn write_xmpp(users: &Users, ledger: &Ledger, user: usize, contact: &str, text: &str) {
    let Some(client) = users.xmpp.get(user).and_then(User::client) else { return };
    ledger.sent(Way::ToSip, text);
    let xml =
        format!("<message xmlns='jabber:client' type='chat' to='{contact}' id='{text}'><body>{text}</body></message>");
    if client.send_xml(&xml).await.is_err() {
        ledger.refused(text, "no connection to the server");
    }
}

/// Somebody who is not logged in shows nothing.
async fn show_xmpp(ledger: &Ledger, users: &Users, user: usize, state: &str) -> Result<()> {
    let shown = users.xmpp.get(user).context("no such user")?;
    let Some(client) = shown.client() else { return Ok(()) };
    for contact in 0..users.plan.contacts {
        ledger.changed(&watch_name(&users.contact(user, contact), &shown.bare), state);
    }
    client.available("", &escape(state)).await
}

fn show_sip(ledger: &Ledger, users: &Users, contact: &str, watcher: &str, state: &str) {
    let Some((name, agent)) = users.side(contact) else { return };
    ledger.changed(&watch_name(watcher, contact), state);
    agent.show(name, state);
}

async fn keep_sip_books(domain: String, mut events: mpsc::UnboundedReceiver<Event>, ledger: Arc<Ledger>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Message { text, id, .. } => ledger.arrived(&text, &id),
            // What ends a watch at its watcher's wish, and what was under way then.
            Event::Notified { unsubscribed: true, .. } => {}
            Event::Notified { watcher, watched, state, basic, note, .. } => {
                let watch = watch_name(&format!("{watcher}@{domain}"), &watched);
                if state.starts_with("terminated") {
                    ledger.ended(&watch, &state);
                }
                match (basic.as_deref(), note) {
                    (Some("open"), Some(note)) => ledger.saw(&watch, &note),
                    (Some(basic), _) => ledger.saw(&watch, basic),
                    (None, _) => {}
                }
            }
            Event::Subscribed { fresh: true, .. } => {}
            Event::Subscribed { watcher, watched, .. } => {
                ledger.refreshed(&watch_name(&watcher, &format!("{watched}@{domain}")));
            }
            // A first SUBSCRIBE that its process did not live to write down leaves such a dialog beside the right one.
            Event::Disowned { watcher, watched, others } => {
                let watch = watch_name(&watcher, &format!("{watched}@{domain}"));
                if others == 0 {
                    ledger.disowned(&watch);
                } else {
                    ledger.left(&watch);
                }
            }
            Event::RanOut { watcher, watched, others } => {
                let watch = watch_name(&watcher, &format!("{watched}@{domain}"));
                if others == 0 {
                    ledger.ended(&watch, "it ran out without a refresh of the gateway");
                } else {
                    ledger.left(&watch);
                }
            }
            Event::Invited { .. } => ledger.session_opened(),
            Event::Skipped { what, before, at } => ledger.skipped(&what, before, at),
            Event::Wrong(text) => ledger.misused(&text),
        }
    }
}

/// Ends when the client is dropped and everything it had received is in the books.
async fn keep_xmpp_books(
    own: String,
    client: Weak<XmppClient>,
    mut received: mpsc::UnboundedReceiver<Received>,
    ledger: Arc<Ledger>,
) {
    while let Some(stanza) = received.recv().await {
        let from = stanza.from_bare().to_owned();
        let watch = watch_name(&own, &from);
        match (stanza.name(), stanza.kind()) {
            ("message", "error") => {
                let condition = stanza.error().map(|(_, condition, _)| condition);
                ledger.refused(stanza.attribute("id"), condition.as_deref().unwrap_or("no condition"));
            }
            ("message", _) => {
                if let Some(body) = stanza.body() {
                    ledger.arrived(body.trim_end(), stanza.attribute("id"));
                }
            }
            ("presence", "subscribe") => {
                if let Some(client) = client.upgrade() {
                    let _ = client.presence("subscribed", &from).await;
                }
            }
            ("presence", "unsubscribed") => ledger.ended(&watch, "unsubscribed"),
            ("presence", "") if from != own => {
                ledger.saw(&watch, &stanza.text("status").unwrap_or_default());
            }
            ("presence", "unavailable") if from != own => ledger.saw(&watch, "unavailable"),
            _ => {}
        }
    }
}
