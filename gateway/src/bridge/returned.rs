//! Errors that tell local users that their messages did not go through.
//!
//! A user who hears nothing takes a message for delivered, so such an error is not lost with the link that it should leave
//! on. It is sent with a barrier, like a message of a partner; where the link does not take it or breaks, it becomes a
//! letter ([`super::letters`]), which whoever has the link next sends. While the store is away as well, it waits here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_xmpp::component::{BarrierToken, Delivery};
use isthmus_xmpp::{Message, Stanza};
use parking_lot::Mutex;

use super::{Bridge, DomainPair};

/// How many errors may be under way; more of them are counted and lost.
const MOST: usize = 8192;
/// The pause between two attempts to be rid of an error, and how many there are: 10 min.
const AGAIN: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 1200;

/// An error on its way to a local user.
#[derive(Debug, Clone)]
struct Returned {
    domains: DomainPair,
    stanza: Arc<Message>,
}

/// The errors that are under way.
#[derive(Default)]
pub(super) struct Returns(Mutex<HashMap<u64, Returned>>);

impl Returns {
    /// Tells whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Bridge {
    /// Tells a local user that a message did not go through, over the link of these domains.
    pub(super) fn return_to_sender(self: &Arc<Self>, domains: DomainPair, mut error: Message) {
        // The barrier needs one; that of the message stays.
        error.id.get_or_insert_with(|| self.next_stanza_id().into());
        let token = self.deliveries.next_token();
        let returned = Returned { domains, stanza: Arc::new(error) };
        {
            let mut under_way = self.returns.0.lock();
            if under_way.len() >= MOST {
                drop(under_way);
                self.metrics.refused("returns_full");
                if let Some(left_out) = self.store_lines.line("returns", Instant::now()) {
                    tracing::error!(
                        limit = MOST,
                        left_out,
                        "an error for a local user is lost: too many are under way"
                    );
                }
                return;
            }
            under_way.insert(token, returned.clone());
        }
        if !self.send_back(token, &returned) {
            tokio::spawn(Arc::clone(self).bring_back(token, returned));
        }
    }

    /// Puts the error on the link, if this process has it.
    fn send_back(&self, token: u64, Returned { domains: (local, remote), stanza }: &Returned) -> bool {
        self.elsewhere(local, remote).is_none()
            && self.links.deliver(local, remote, Arc::clone(stanza), BarrierToken(token)).is_ok()
    }

    /// Takes what became of an error that was sent; tells whether it was one.
    pub(super) fn take_return(self: &Arc<Self>, token: u64, delivery: &Delivery) -> bool {
        if *delivery == Delivery::Unknown {
            let Some(returned) = self.returns.0.lock().get(&token).cloned() else { return false };
            tokio::spawn(Arc::clone(self).bring_back(token, returned));
            return true;
        }
        self.returns.0.lock().remove(&token).is_some()
    }

    /// Gives the error to whoever has the link, or to the store, as often as it takes.
    async fn bring_back(self: Arc<Self>, token: u64, returned: Returned) {
        for _ in 0..ATTEMPTS {
            if self.hand_back(&returned).await {
                self.returns.0.lock().remove(&token);
                return;
            }
            tokio::time::sleep(AGAIN).await;
            if self.send_back(token, &returned) {
                return;
            }
        }
        self.returns.0.lock().remove(&token);
        let (local, remote) = &returned.domains;
        self.metrics.refused("return_lost");
        tracing::error!(%local, %remote, "an error for a local user is lost: neither link nor store took it for 10 min");
    }

    /// Tells whether somebody else has the error now.
    async fn hand_back(self: &Arc<Self>, Returned { domains, stanza }: &Returned) -> bool {
        if let Some(life) = self.elsewhere(&domains.0, &domains.1) {
            return self.send_stanza_note(&life, domains, &Stanza::Message((**stanza).clone())).await;
        }
        let kept = self.keep_as_letter(domains, stanza).await;
        kept.inspect_err(|error| self.store_failed(error)).is_ok()
    }
}
