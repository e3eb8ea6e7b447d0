//! Messages on their way to a local user, and the answers that wait for them.
//!
//! A MESSAGE is answered 200 when the local server has dealt with the stanza and returned no error, with the
//! mapped error when it did, and with 202 when that takes too long (interworking specification §5.3). Before the
//! 202 leaves, the message is in the store, and from then on [`super::letters`] has it. Where the store does not take it, the
//! server is waited for a while longer: a message that is refused and arrives all the same comes twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isthmus_interwork::error_map::{self, RequestKind, SipAnswer};
use isthmus_interwork::pager;
use isthmus_model::Domain;
use isthmus_sip::Message;
use isthmus_store::{Retry, StoreError};
use isthmus_xmpp::component::{BarrierToken, Delivery};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Bridge;
use super::inbound::Asker;
use super::repeats::Permit;

/// How long an answer over UDP waits; beyond it the peer repeats its request.
const CEILING_UDP: Duration = Duration::from_millis(400);
/// How long an answer over a stream waits.
const CEILING_STREAM: Duration = Duration::from_secs(1);
/// How long the server has in any case, also for a message that waited for the store before.
const AT_LEAST: Duration = Duration::from_millis(200);
/// How much longer it has when the message could not be stored. The peer gives up after 64·T1 = 32 s (RFC 3261 §17.1.2.2).
const NOT_KEPT: Duration = Duration::from_secs(3);
/// The deadlines are looked at no more often than this.
const TICK: Duration = Duration::from_millis(10);

/// One message under way that was not answered.
pub(super) struct Pending {
    asker: Asker,
    permit: Permit,
    request: Message,
    to_tag: String,
    pub(super) stanza: Arc<isthmus_xmpp::Message>,
    pub(super) local: Domain,
    pub(super) remote: Domain,
    pub(super) in_session: bool,
    arrived: Instant,
    /// It took too long and is being stored.
    late: bool,
    /// It could not be stored once.
    not_kept: bool,
    /// It did not leave, and another process is to send it.
    not_sent: bool,
    /// What the server said while it was being stored.
    fate: Option<Delivery>,
}

/// All messages under way that were not answered.
#[derive(Default)]
pub(super) struct Deliveries {
    next: AtomicU64,
    pending: Mutex<HashMap<u64, Pending>>,
    /// Deadlines of the answers over UDP, over streams, and of what was not kept; within each they come in order.
    deadlines: Mutex<[VecDeque<(Instant, u64)>; 3]>,
    added: Notify,
}

impl Deliveries {
    /// Tells whether every message under way was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.lock().is_empty()
    }

    /// Has a message looked at at this time, if it is not answered by then.
    fn expect(&self, lane: usize, at: Instant, token: u64) {
        let mut deadlines = self.deadlines.lock();
        let Some(lane) = deadlines.get_mut(lane) else { return };
        let first = lane.is_empty();
        lane.push_back((at, token));
        drop(deadlines);
        if first {
            self.added.notify_one();
        }
    }

    /// Names one more delivery.
    pub(super) fn next_token(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// What is to be delivered for a request.
pub(super) struct Parcel {
    pub(super) asker: Asker,
    pub(super) permit: Permit,
    pub(super) request: Message,
    pub(super) to_tag: String,
    pub(super) stanza: isthmus_xmpp::Message,
    pub(super) in_session: bool,
    pub(super) local: Domain,
    pub(super) remote: Domain,
    pub(super) reliable: bool,
    pub(super) arrived: Instant,
}

impl Bridge {
    /// Hands a message to the local server and answers its request when the fate is known.
    pub(super) fn deliver(self: &Arc<Self>, parcel: Parcel) {
        let token = self.deliveries.next_token();
        let Parcel { asker, permit, request, to_tag, stanza, in_session, local, remote, reliable, arrived } = parcel;
        let stanza = Arc::new(stanza);
        let pending = Pending {
            asker,
            permit,
            request,
            to_tag,
            stanza: Arc::clone(&stanza),
            local: local.clone(),
            remote: remote.clone(),
            in_session,
            arrived,
            late: false,
            not_kept: false,
            not_sent: false,
            fate: None,
        };
        self.deliveries.pending.lock().insert(token, pending);
        if self.links.deliver(&local, &remote, stanza, BarrierToken(token)).is_err() {
            if let Some(pending) = self.deliveries.pending.lock().remove(&token) {
                self.metrics.message("sip_to_xmpp", "no_link");
                let answer = error_map::no_link().respond(&pending.request, Some(&pending.to_tag), "isthmus");
                self.conclude(pending.permit, &pending.asker, &pending.request, answer);
            }
            return;
        }
        let ceiling = if reliable { CEILING_STREAM } else { CEILING_UDP };
        self.deliveries.expect(usize::from(reliable), (arrived + ceiling).max(Instant::now() + AT_LEAST), token);
    }

    /// Takes the fate of a message.
    pub(super) fn handle_delivery(self: &Arc<Self>, token: BarrierToken, delivery: Delivery) {
        let pending = {
            let mut open = self.deliveries.pending.lock();
            match open.get_mut(&token.0) {
                // Whether it is stored already nobody knows; its answer waits for that.
                Some(pending) if pending.late => return pending.fate = Some(delivery),
                Some(_) => open.remove(&token.0),
                None => None,
            }
        };
        match pending {
            Some(pending) => self.answer_fate(pending, &delivery),
            None if self.walks.passed(token.0) => {}
            None if self.take_return(token.0, &delivery) => {}
            None => self.letter_fate(token.0, delivery),
        }
    }

    /// Takes a message back that did not leave, because its link is being given back. It is kept for the next holder.
    pub(super) fn handle_not_sent(self: &Arc<Self>, token: BarrierToken) {
        let mut open = self.deliveries.pending.lock();
        let Some(pending) = open.get_mut(&token.0) else {
            drop(open);
            return self.handle_delivery(token, Delivery::Unknown);
        };
        pending.not_sent = true;
        if pending.late {
            return;
        }
        drop(open);
        let bridge = Arc::clone(self);
        tokio::spawn(async move { bridge.answer_late(vec![token.0]).await });
    }

    fn answer_fate(self: &Arc<Self>, pending: Pending, delivery: &Delivery) {
        let Pending { asker, permit, request, to_tag, .. } = pending;
        let answer = match delivery {
            Delivery::Delivered => {
                self.metrics.message("sip_to_xmpp", "delivered");
                pager::accept(&request, true, Some(&to_tag))
            }
            Delivery::Bounced(error) => {
                self.metrics.message("sip_to_xmpp", "bounced");
                let erring = pending.stanza.to().unwrap_or_default();
                error_map::to_sip(error, erring, RequestKind::Message).respond(&request, Some(&to_tag), "isthmus")
            }
            Delivery::Unknown => {
                self.metrics.message("sip_to_xmpp", "link_lost");
                error_map::no_link().respond(&request, Some(&to_tag), "isthmus")
            }
        };
        self.metrics.message_seconds.observe(pending.arrived.elapsed().as_secs_f64());
        self.conclude(permit, &asker, &request, answer);
    }

    /// Stores what took too long, then answers it.
    async fn answer_late(self: &Arc<Self>, tokens: Vec<u64>) {
        let mut letters = Vec::new();
        {
            let mut open = self.deliveries.pending.lock();
            for token in tokens {
                // One that did not leave may be on its way into the store already.
                let Some(pending) = open.get_mut(&token).filter(|pending| !pending.late) else { continue };
                pending.late = true;
                letters.push((token, super::letters::Posted::of(pending)));
            }
        }
        for (token, stored) in self.store_letters(letters).await {
            // From here on the fate of this token is told to the letter, if there is one: both change hands at once.
            let mut open = self.deliveries.pending.lock();
            let Some(mut pending) = open.remove(&token) else { continue };
            let fate = pending.fate.take();
            match (stored, fate) {
                (Ok(letter), None) => {
                    if pending.not_sent {
                        self.send_letters_soon((pending.local.clone(), pending.remote.clone()));
                    } else {
                        self.letters.sent(token, letter);
                    }
                    drop(open);
                    self.metrics.message("sip_to_xmpp", "accepted");
                    let answer = pager::accept(&pending.request, false, Some(&pending.to_tag));
                    self.conclude(pending.permit, &pending.asker, &pending.request, answer);
                }
                (stored, Some(fate)) => {
                    drop(open);
                    self.answer_fate(pending, &fate);
                    if let Ok(letter) = stored {
                        self.letter_done(letter);
                    }
                }
                (Err(error), None) if !pending.not_kept && !pending.not_sent => {
                    (pending.late, pending.not_kept) = (false, true);
                    open.insert(token, pending);
                    drop(open);
                    self.store_failed(&error);
                    self.deliveries.expect(2, Instant::now() + NOT_KEPT, token);
                }
                (Err(error), None) => {
                    drop(open);
                    self.store_failed(&error);
                    self.metrics.message("sip_to_xmpp", "not_kept");
                    let answer = not_kept(&error).respond(&pending.request, Some(&pending.to_tag), "isthmus");
                    self.conclude(pending.permit, &pending.asker, &pending.request, answer);
                }
            }
        }
    }
}

/// The answer for a message that may still arrive, but that we cannot promise to deliver.
fn not_kept(error: &StoreError) -> SipAnswer {
    let answer = super::unavailable();
    let answer = match error.retry() {
        Retry::After(wait) => answer.with_retry_after(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1)),
        Retry::Reload | Retry::Never => answer,
    };
    answer.with_warning(399, format!("the message cannot be kept until it is delivered: store {}", error.reason()))
}

/// Stores and answers 202 where the local server takes its time.
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
                // Everything that is due; most of it was answered long ago.
                let now = Instant::now();
                let mut due = Vec::new();
                for lane in bridge.deliveries.deadlines.lock().iter_mut() {
                    while let Some((_, token)) = lane.pop_front_if(|(at, _)| *at <= now) {
                        due.push(token);
                    }
                }
                bridge.answer_late(due).await;
                tokio::time::sleep(TICK).await;
            }
        }
    }
}
