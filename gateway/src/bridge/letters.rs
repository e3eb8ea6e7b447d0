//! Messages that were answered 202 and are ours to deliver (design §6.14).
//!
//! They wait in a durable queue of the store, one for each pair of domains. Whoever holds the lease of the link takes
//! them and sends them with the ids that they had, when the link comes up and when the server kept silent about them
//! for a while; a barrier's answer takes them out. What this process has sent and waits for is not sent again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use isthmus_interwork::letter::Letter;
use isthmus_model::Domain;
use isthmus_store::{Batch, Consumer, Fence, Item, ItemId, QueueName, StoreError, record};
use isthmus_xmpp::Message;
use isthmus_xmpp::component::{BarrierToken, Delivery};
use parking_lot::Mutex;

use super::delivery::Pending;
use super::presence::PairUsers;
use super::{Bridge, DomainPair};
use crate::edge::xmpp::LinkSpec;

/// Format of a stored letter.
const LETTER_FORMAT: u16 = 1;
/// How long a letter waits for the local server; after that it is gone and the store counts it.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long letters that were taken are nobody else's, unless the link goes to another process.
const HOLD: Duration = Duration::from_secs(30);
/// How many letters are taken at once.
const ROUND: usize = 64;
/// How many letters one commit stores.
const STORED_AT_ONCE: usize = 32;
/// The pause before letters about which the server said nothing are sent again.
const RESEND: Duration = Duration::from_secs(60);
/// The pause before letters are sent that the link did not take.
const BUSY_RETRY: Duration = Duration::from_secs(5);
/// The pause between two rounds over all letters: another process may have stored one just when it lost the link.
const ROUND_PAUSE: Duration = Duration::from_secs(60);
/// The pause after an error for a local user was stored: the link may have come up just before. How often is looked who has it: a
/// link that is nobody's is somebody's within 5 s.
const LINK_LOOK: Duration = Duration::from_millis(500);
const LINK_LOOKS: u32 = 20;
/// The pause before the store is asked again when it failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// A letter in the store.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    queue: QueueName,
    item: ItemId,
    domains: DomainPair,
    /// Whom to tell about a failure: the users of the session that it came in.
    session: Option<PairUsers>,
}

/// A message on its way into the store.
pub(super) struct Posted {
    queue: QueueName,
    domains: DomainPair,
    session: Option<PairUsers>,
    bytes: Result<bytes::Bytes, StoreError>,
}

impl Posted {
    pub(super) fn of(pending: &Pending) -> Self {
        let Pending { stanza, local, remote, in_session, .. } = pending;
        Self::new((local.clone(), remote.clone()), stanza, *in_session)
    }

    fn new(domains: DomainPair, stanza: &Message, in_session: bool) -> Self {
        let letter = Letter::new(stanza, super::now().epoch, in_session);
        Self {
            queue: QueueName::letters(&domains.0, &domains.1),
            domains,
            session: PairUsers::of_jids(stanza.to(), stanza.from()).filter(|_| in_session),
            bytes: letter
                .map(|letter| record::encode(isthmus_store::Kind::Other, LETTER_FORMAT, &letter.to_bytes()))
                .map_err(|_| StoreError::Misuse { rule: "a letter can be written" }),
        }
    }

    fn stored_as(self, item: ItemId) -> Stored {
        Stored { queue: self.queue, item, domains: self.domains, session: self.session }
    }
}

/// The letters that this process has to do with.
#[derive(Default)]
pub(super) struct Letters {
    /// Sent, and waiting for their barrier.
    sent: Mutex<HashMap<u64, Stored>>,
    /// Delivered or failed, but the store could not be told yet.
    done: Mutex<HashSet<(QueueName, ItemId)>>,
    /// Pairs of domains for which another round is due.
    again: Mutex<HashSet<DomainPair>>,
}

impl Letters {
    /// Notes a letter that was sent.
    pub(super) fn sent(&self, token: u64, letter: Stored) {
        self.sent.lock().insert(token, letter);
    }
}

impl Bridge {
    /// Stores letters, in order; several share a commit where they can.
    pub(super) async fn store_letters(&self, letters: Vec<(u64, Posted)>) -> Vec<(u64, Result<Stored, StoreError>)> {
        let mut results = Vec::new();
        let mut letters = letters.into_iter().peekable();
        while let Some(first) = letters.next() {
            // A batch stays in one shard of the store.
            let shard = first.1.queue.place();
            let mut some = vec![first];
            while some.len() < STORED_AT_ONCE
                && let Some(next) = letters.next_if(|(_, letter)| letter.queue.place() == shard)
            {
                some.push(next);
            }
            match self.commit_letters(&some).await {
                Ok(items) => results.extend(
                    some.into_iter().zip(items).map(|((token, letter), item)| (token, Ok(letter.stored_as(item)))),
                ),
                // One of them is too much; the others need not suffer.
                Err(_) if some.len() > 1 => {
                    for one in some {
                        let stored = self.commit_letters(std::slice::from_ref(&one)).await;
                        let (token, letter) = one;
                        let stored = stored.and_then(|items| {
                            let item = items.first().copied();
                            item.ok_or(StoreError::Misuse { rule: "an enqueue gives an item" })
                        });
                        results.push((token, stored.map(|item| letter.stored_as(item))));
                    }
                }
                Err(error) => results.extend(some.into_iter().map(|(token, _)| (token, Err(error.clone())))),
            }
        }
        results
    }

    /// Stores an error for a local user whom no link of this process reaches now.
    pub(super) async fn keep_as_letter(
        self: &Arc<Self>,
        domains: &DomainPair,
        error: &Message,
    ) -> Result<(), StoreError> {
        self.commit_letters(&[(0, Posted::new(domains.clone(), error, false))]).await?;
        // The link may be up again by now, here or elsewhere.
        self.send_letters_soon(domains.clone());
        Ok(())
    }

    async fn commit_letters(&self, letters: &[(u64, Posted)]) -> Result<Vec<ItemId>, StoreError> {
        let mut batch = Batch::new();
        for (_, letter) in letters {
            batch.enqueue(letter.queue.clone(), letter.bytes.clone()?, LIFETIME);
        }
        Ok(self.store.commit(batch).await?.items)
    }

    /// Takes the fate of a letter that was sent.
    pub(super) fn letter_fate(self: &Arc<Self>, token: u64, delivery: Delivery) {
        let Some(letter) = self.letters.sent.lock().remove(&token) else { return };
        match delivery {
            Delivery::Delivered => self.metrics.message("sip_to_xmpp", "delivered_late"),
            Delivery::Bounced(error) => {
                self.metrics.message("sip_to_xmpp", "bounced_after_202");
                tracing::warn!(condition = error.condition.as_str(), "message bounced after it was accepted");
                if let Some(users) = &letter.session {
                    self.tell_late_bounce(users.clone());
                }
            }
            Delivery::Unknown => {
                self.metrics.message("sip_to_xmpp", "held");
                return self.send_letters_after(letter.domains, RESEND);
            }
        }
        self.letter_done(letter);
    }

    /// Takes a letter out of the store.
    pub(super) fn letter_done(self: &Arc<Self>, letter: Stored) {
        let bridge = Arc::clone(self);
        let place = (letter.queue, letter.item);
        self.letters.done.lock().insert(place.clone());
        tokio::spawn(async move {
            match bridge.store.ack(&place.0, &[place.1], None).await {
                Ok(_) => {
                    bridge.letters.done.lock().remove(&place);
                }
                Err(error) => {
                    bridge.store_failed(&error);
                    bridge.send_letters_after(letter.domains, STORE_RETRY);
                }
            }
        });
    }

    /// Sends the letters of a link that is up.
    pub(super) fn send_letters(self: &Arc<Self>, link: LinkSpec) {
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = bridge.take_letters(&link).await {
                bridge.store_failed(&error);
                if let Some(local) = link.locals.first() {
                    bridge.send_letters_after((local.clone(), link.name.clone()), STORE_RETRY);
                }
            }
        });
    }

    /// Has letters sent that were stored a moment ago.
    pub(super) fn send_letters_soon(self: &Arc<Self>, domains: DomainPair) {
        self.send_letters_after(domains, LINK_LOOK);
    }

    /// Does another round after a pause, unless one is due already, or has the link's holder do one. While the link is down, or
    /// comes up somewhere, none is needed: its return is one too.
    fn send_letters_after(self: &Arc<Self>, domains: DomainPair, pause: Duration) {
        if !self.letters.again.lock().insert(domains.clone()) {
            return;
        }
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            for _ in 0..LINK_LOOKS {
                if bridge.links.ready(&domains.0, &domains.1).is_some_and(|link| bridge.holds(&link))
                    || bridge.elsewhere(&domains.0, &domains.1).is_some()
                {
                    break;
                }
                // Another process may have it, and this one not know that yet.
                tokio::time::sleep(LINK_LOOK).await;
            }
            bridge.letters.again.lock().remove(&domains);
            match bridge.links.ready(&domains.0, &domains.1) {
                Some(link) if bridge.holds(&link) => bridge.send_letters(link),
                _ => bridge.tell_of_letters(&domains),
            }
        });
    }

    async fn take_letters(self: &Arc<Self>, link: &LinkSpec) -> Result<(), StoreError> {
        // A new fence each time: what an earlier round took comes again, and nobody else can take it.
        match self.links.refresh_lease(link).await? {
            Some(fence) => self.take_under(link, &fence).await,
            // Whoever holds the link now sends them.
            None => Ok(()),
        }
    }

    async fn take_under(self: &Arc<Self>, link: &LinkSpec, fence: &Fence) -> Result<(), StoreError> {
        let consumer = Consumer { name: self.pods.life().to_owned(), fence: Some(fence.clone()) };
        for local in &link.locals {
            let queue = QueueName::letters(local, &link.name);
            loop {
                let items = self.store.take(&queue, &consumer, ROUND, HOLD).await?;
                if items.is_empty() {
                    break;
                }
                for item in items {
                    self.send_letter(&queue, (local, &link.name), item, fence).await?;
                }
            }
        }
        Ok(())
    }

    async fn send_letter(
        self: &Arc<Self>,
        queue: &QueueName,
        domains: (&Domain, &Domain),
        item: Item,
        fence: &Fence,
    ) -> Result<(), StoreError> {
        let place = (queue.clone(), item.id);
        if self.letters.done.lock().contains(&place) {
            self.store.ack(queue, &[item.id], Some(fence)).await?;
            self.letters.done.lock().remove(&place);
            return Ok(());
        }
        let mut sent = self.letters.sent.lock();
        if sent.values().any(|letter| letter.item == item.id && letter.queue == *queue) {
            return Ok(());
        }
        let letter = record::decode_as(isthmus_store::Kind::Other, LETTER_FORMAT, &item.bytes)
            .map_err(|error| error.to_string())
            .and_then(|envelope| Letter::from_bytes(&envelope.payload).map_err(|error| error.to_string()));
        let read = letter.and_then(|letter| {
            letter.stanza(super::now().epoch).map(|stanza| (letter.in_session(), stanza)).map_err(|e| e.to_string())
        });
        let (in_session, stanza) = match read {
            Ok(read) => read,
            Err(error) => {
                // Of a newer release, perhaps, which will read it: it stays until its time is over.
                self.metrics.message("sip_to_xmpp", "unreadable");
                tracing::error!(%error, "an accepted message cannot be read; it stays in the store");
                return Ok(());
            }
        };
        let letter = Stored {
            queue: queue.clone(),
            item: item.id,
            domains: (domains.0.clone(), domains.1.clone()),
            session: PairUsers::of_jids(stanza.to(), stanza.from()).filter(|_| in_session),
        };
        let token = self.deliveries.next_token();
        sent.insert(token, letter);
        drop(sent);
        if self.links.deliver(domains.0, domains.1, Arc::new(stanza), BarrierToken(token)).is_err()
            && let Some(letter) = self.letters.sent.lock().remove(&token)
        {
            // The link went down, or is busy.
            self.metrics.message("sip_to_xmpp", "held");
            self.send_letters_after(letter.domains, BUSY_RETRY);
        } else {
            self.metrics.message("sip_to_xmpp", "sent_again");
        }
        Ok(())
    }
}

/// Sends what waits for the links of this process now and then, beside the rounds that have a reason.
pub(super) async fn run(bridge: Arc<Bridge>) {
    loop {
        tokio::time::sleep(ROUND_PAUSE).await;
        for link in bridge.links.ready_ones() {
            bridge.send_letters(link);
        }
    }
}
