//! SIP users' watches of XMPP users: refreshed, ended and opened again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Users;
use crate::ledger::Ledger;
use crate::sip_agent::Dialog;

/// How long is waited before something that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Over how many places of its lifetime the refreshes of different watches are spread.
pub(super) const PLACES: u32 = 16;
/// How long a refresh may take at the end of a run.
const ONE_REFRESH: Duration = Duration::from_secs(5);

/// A SIP user's watch of an XMPP user.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) name: String,
    pub(super) contact: String,
    pub(super) user: String,
    /// While it is open, its dialog; who holds the lock refreshes it, ends it or opens it.
    pub(super) dialog: tokio::sync::Mutex<Option<Dialog>>,
    /// Its former dialogs whose end was accepted.
    pub(super) former: Mutex<Vec<Dialog>>,
}

/// Whether an answer is no end of a subscription: the other side asks for patience, or says nothing (RFC 6665 §4.1.2.2).
fn asks_patience(status: u16) -> bool {
    // 477 is Kamailio's word for a request that it could not send, as when a connection broke with a process.
    matches!(status, 0 | 408 | 477 | 500 | 503)
}

/// Refreshes a subscription until it got a longer life, or is over.
async fn refresh(ledger: &Ledger, watch: &str, dialog: &Dialog, expires_secs: u32, end: Instant) -> bool {
    let mut last = None;
    loop {
        let Ok(status) = tokio::time::timeout_at(end, dialog.refresh(expires_secs)).await else {
            let last = last.map_or_else(|| "nothing".to_owned(), |status: u16| status.to_string());
            ledger.ended(watch, &format!("it ran out while its refresh got {last}"));
            return false;
        };
        match status {
            200..=299 => return true,
            status if asks_patience(status) => {
                ledger.put_off(status);
                last = Some(status);
            }
            status => {
                ledger.ended(watch, &format!("its refresh got {status}"));
                return false;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Refreshes a watch from about half of its lifetime on, as long as it is watched.
pub(super) async fn keep(users: Arc<Users>, ledger: Arc<Ledger>, watch: Arc<Watch>, place: u32) {
    let lifetime = Duration::from_secs(users.plan.watch_secs().into());
    // Half of the lifetime is left to try again in, less for those whose turn comes later.
    let left = lifetime / 4 + lifetime / 4 * (PLACES - place) / PLACES;
    loop {
        let due = watch.dialog.lock().await.as_ref().map(|dialog| Instant::from_std(dialog.expires_at()) - left);
        let Some(due) = due else { return };
        if Instant::now() < due {
            tokio::time::sleep_until(due).await;
            // It may have been opened anew, or refreshed, meanwhile.
            continue;
        }
        let open = watch.dialog.lock().await;
        let Some(dialog) = open.as_ref() else { return };
        // An end that a NOTIFY told is in the books.
        if dialog.ended() {
            return;
        }
        let end = Instant::from_std(dialog.expires_at());
        if end.checked_duration_since(Instant::now()).is_some_and(|rest| rest > left) {
            continue;
        }
        if !refresh(&ledger, &watch.name, dialog, users.plan.watch_secs(), end).await {
            return;
        }
        ledger.refreshed(&watch.name);
    }
}

/// Ends a watch by the wish of its watcher, and opens it again, however often that takes.
pub(super) async fn renew(users: &Users, ledger: &Ledger, watch: &Watch) {
    // Who is just being refreshed or renewed stays.
    let Ok(mut open) = watch.dialog.try_lock() else { return };
    if open.as_ref().is_none_or(Dialog::ended) {
        return;
    }
    let Some(dialog) = open.take() else { return };
    ledger.unwatched(&watch.name);
    let over = Instant::from_std(dialog.expires_at());
    let mut first = true;
    while let Ok(status) = tokio::time::timeout_at(over, dialog.refresh(0)).await {
        match status {
            200..=299 => {
                watch.former.lock().unwrap_or_else(PoisonError::into_inner).push(dialog.clone());
                break;
            }
            status if asks_patience(status) => ledger.put_off(status),
            // The end may have been served though its answer did not come.
            481 if !first => break,
            status => {
                ledger.ended(&watch.name, &format!("its end got {status}"));
                break;
            }
        }
        first = false;
        tokio::time::sleep(AGAIN).await;
    }
    tokio::time::sleep(AGAIN).await;
    *open = open_anew(users, ledger, watch).await;
}

/// Opens a watch again that is written down as unwatched, however often that takes.
pub(super) async fn open_anew(users: &Users, ledger: &Ledger, watch: &Watch) -> Option<Dialog> {
    let (name, agent) = users.side(&watch.contact)?;
    loop {
        match agent.watch(name, &watch.user, users.plan.watch_secs()).await {
            Ok(dialog) => {
                ledger.watches_again(&watch.name);
                return Some(dialog);
            }
            Err(status) if asks_patience(status) => {
                ledger.put_off(status);
                tokio::time::sleep(AGAIN).await;
            }
            Err(status) => {
                ledger.ended(&watch.name, &format!("its new SUBSCRIBE got {status}"));
                return None;
            }
        }
    }
}

/// Refreshes a watch to see whether it lives.
pub(super) async fn look(users: &Users, ledger: &Ledger, watch: &Watch, end: Instant) {
    // A refresh or a new SUBSCRIBE may still be under way; even when all the time is used up there is time for one.
    let end = end.max(Instant::now() + ONE_REFRESH);
    let open = tokio::time::timeout_at(end, watch.dialog.lock()).await.ok();
    let lives = match open.as_ref().and_then(|open| open.as_ref()) {
        Some(dialog) => {
            let end = end.max(Instant::now() + ONE_REFRESH);
            refresh(ledger, &watch.name, dialog, users.plan.watch_secs(), end).await && !dialog.ended()
        }
        None => false,
    };
    ledger.alive(&watch.name, usize::from(lives));
}
