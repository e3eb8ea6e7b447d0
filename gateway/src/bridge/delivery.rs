//! Messages on their way to a local user, and the answers that wait for them.
//!
//! A MESSAGE is answered 200 when the local server has dealt with the stanza and returned no error, with the
//! mapped error when it did, and with 202 when that takes too long (interworking specification §5.3). What was
//! answered 202 is kept until the server has confirmed it; after a broken link it is sent again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isthmus_interwork::error_map::{self, RequestKind};
use isthmus_interwork::pager;
use isthmus_model::Domain;
use isthmus_sip::Message;
use isthmus_sip::endpoint::ServerTxId;
use isthmus_xmpp::component::{BarrierToken, Delivery};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Bridge;
use crate::edge::xmpp::LinkSpec;

/// How long an answer over UDP waits; beyond it the peer repeats its request.
const CEILING_UDP: Duration = Duration::from_millis(400);
/// How long an answer over a stream waits.
const CEILING_STREAM: Duration = Duration::from_secs(1);
/// The deadlines are looked at no more often than this.
const TICK: Duration = Duration::from_millis(10);
/// Messages that wait for a link to come back, in all.
const MAX_HELD: usize = 10_000;

/// One message under way.
struct Pending {
    tx: ServerTxId,
    request: Message,
    to_tag: String,
    stanza: Arc<isthmus_xmpp::Message>,
    local: Domain,
    remote: Domain,
    arrived: Instant,
    /// 202 was sent: the message is ours to deliver now.
    accepted: bool,
}

/// All messages under way.
#[derive(Default)]
pub(super) struct Deliveries {
    next: AtomicU64,
    pending: Mutex<HashMap<u64, Pending>>,
    /// Deadlines of the answers; within one ceiling they come in order.
    deadlines: Mutex<[VecDeque<(Instant, u64)>; 2]>,
    added: Notify,
    /// Accepted messages whose link broke.
    held: Mutex<VecDeque<Pending>>,
}

/// What is to be delivered for a request.
pub(super) struct Letter {
    pub(super) tx: ServerTxId,
    pub(super) request: Message,
    pub(super) to_tag: String,
    pub(super) stanza: isthmus_xmpp::Message,
    pub(super) local: Domain,
    pub(super) remote: Domain,
    pub(super) reliable: bool,
    pub(super) arrived: Instant,
}

impl Bridge {
    /// Hands a message to the local server and answers its request when the fate is known.
    pub(super) fn deliver(&self, letter: Letter) {
        let token = self.deliveries.next.fetch_add(1, Ordering::Relaxed);
        let Letter { tx, request, to_tag, stanza, local, remote, reliable, arrived } = letter;
        let stanza = Arc::new(stanza);
        let pending = Pending {
            tx,
            request,
            to_tag,
            stanza: Arc::clone(&stanza),
            local: local.clone(),
            remote: remote.clone(),
            arrived,
            accepted: false,
        };
        self.deliveries.pending.lock().insert(token, pending);
        if self.links.deliver(&local, &remote, stanza, BarrierToken(token)).is_err() {
            if let Some(pending) = self.deliveries.pending.lock().remove(&token) {
                self.metrics.message("sip_to_xmpp", "no_link");
                let answer = error_map::no_link().respond(&pending.request, Some(&pending.to_tag), "isthmus");
                self.respond(pending.tx, &pending.request, answer);
            }
            return;
        }
        let ceiling = if reliable { CEILING_STREAM } else { CEILING_UDP };
        let mut deadlines = self.deliveries.deadlines.lock();
        let lane = &mut deadlines[usize::from(reliable)];
        let first = lane.is_empty();
        lane.push_back((arrived + ceiling, token));
        drop(deadlines);
        if first {
            self.deliveries.added.notify_one();
        }
    }

    /// Takes the fate of a message.
    pub(super) fn handle_delivery(&self, token: BarrierToken, delivery: Delivery) {
        let Some(pending) = self.deliveries.pending.lock().remove(&token.0) else { return };
        let Pending { tx, request, to_tag, accepted, .. } = &pending;
        if *accepted {
            match delivery {
                Delivery::Delivered => self.metrics.message("sip_to_xmpp", "delivered_late"),
                Delivery::Bounced(error) => {
                    // The sender was told 202; nothing in pager mode can take that back.
                    self.metrics.message("sip_to_xmpp", "bounced_after_202");
                    tracing::warn!(condition = error.condition.as_str(), "message bounced after it was accepted");
                }
                Delivery::Unknown => self.hold(pending),
            }
            return;
        }
        let answer = match &delivery {
            Delivery::Delivered => {
                self.metrics.message("sip_to_xmpp", "delivered");
                pager::accept(request, true, Some(to_tag))
            }
            Delivery::Bounced(error) => {
                self.metrics.message("sip_to_xmpp", "bounced");
                let erring = pending.stanza.to().unwrap_or_default();
                error_map::to_sip(error, erring, RequestKind::Message).respond(request, Some(to_tag), "isthmus")
            }
            Delivery::Unknown => {
                self.metrics.message("sip_to_xmpp", "link_lost");
                error_map::no_link().respond(request, Some(to_tag), "isthmus")
            }
        };
        self.metrics.message_seconds.observe(pending.arrived.elapsed().as_secs_f64());
        self.respond(*tx, request, answer);
    }

    fn hold(&self, pending: Pending) {
        let mut held = self.deliveries.held.lock();
        if held.len() >= MAX_HELD {
            self.metrics.message("sip_to_xmpp", "lost_overflow");
            tracing::error!("too many accepted messages wait for the local server; one is lost");
            return;
        }
        self.metrics.message("sip_to_xmpp", "held");
        held.push_back(pending);
    }

    /// Sends what was accepted before the link broke, with the same stanza ids.
    pub(super) fn send_held(&self, link: &LinkSpec) {
        let mut held = self.deliveries.held.lock();
        let (now, later): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut *held)
            .into_iter()
            .partition(|pending| pending.remote == link.name && link.locals.contains(&pending.local));
        *held = later;
        drop(held);
        for pending in now {
            let token = self.deliveries.next.fetch_add(1, Ordering::Relaxed);
            let (local, remote) = (pending.local.clone(), pending.remote.clone());
            let stanza = Arc::clone(&pending.stanza);
            self.deliveries.pending.lock().insert(token, pending);
            if self.links.deliver(&local, &remote, stanza, BarrierToken(token)).is_err()
                && let Some(pending) = self.deliveries.pending.lock().remove(&token)
            {
                self.hold(pending);
            }
        }
    }

    fn answer_late(&self, token: u64) {
        let mut open = self.deliveries.pending.lock();
        let Some(pending) = open.get_mut(&token).filter(|pending| !pending.accepted) else { return };
        pending.accepted = true;
        let (tx, request) = (pending.tx, pending.request.clone());
        let answer = pager::accept(&request, false, Some(&pending.to_tag));
        drop(open);
        self.metrics.message("sip_to_xmpp", "accepted");
        self.respond(tx, &request, answer);
    }
}

/// Answers 202 where the local server takes its time.
pub(super) async fn run(bridge: Arc<Bridge>) {
    loop {
        let next = {
            let deadlines = bridge.deliveries.deadlines.lock();
            deadlines.iter().filter_map(|lane| lane.front().copied()).min()
        };
        match next {
            None => bridge.deliveries.added.notified().await,
            Some((at, _)) if at > Instant::now() => {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = bridge.deliveries.added.notified() => {}
                }
            }
            Some(_) => {
                // One wake-up serves everything that is due; most of it was answered long ago.
                let now = Instant::now();
                let mut due = Vec::new();
                for lane in bridge.deliveries.deadlines.lock().iter_mut() {
                    while let Some((_, token)) = lane.pop_front_if(|(at, _)| *at <= now) {
                        due.push(token);
                    }
                }
                for token in due {
                    bridge.answer_late(token);
                }
                tokio::time::sleep(TICK).await;
            }
        }
    }
}
