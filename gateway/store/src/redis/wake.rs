//! Wake-ups between processes, by a channel that all subscribe to.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::PubSub;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::link::{Show, identity, open};
use super::tls::Refusal;
use crate::wake::Topic;

/// How often a silent subscription is looked at, and how long that may take.
const PING: Duration = Duration::from_secs(5);
/// The pause before subscribing anew.
const PAUSE: Duration = Duration::from_millis(200);

/// The text of a topic in the channel.
pub(super) fn text(topic: &Topic) -> String {
    match topic {
        Topic::Timers => "t".to_owned(),
        Topic::Queue(queue) => format!("q{queue}"),
        Topic::Lease(lease) => format!("l{lease}"),
    }
}

/// Listens for ever.
pub(super) async fn listen(shared: Arc<Shared>, subscribed: watch::Sender<bool>) {
    loop {
        if let Some(address) = shared.router.address()
            && let Ok(Some(subscription)) = timeout(shared.config.connect_timeout, subscribe(&shared, &address)).await
        {
            // What happened before the subscription was heard by nobody.
            shared.wakes.notify_all();
            subscribed.send_replace(true);
            tokio::select! {
                () = hear(&shared, subscription) => {}
                () = moved(&shared, &address) => {}
            }
            subscribed.send_replace(false);
        }
        sleep(PAUSE).await;
    }
}

/// Returns when others serve writes and this server does not: nobody tells anything at this one any more.
async fn moved(shared: &Shared, address: &str) {
    while shared.router.address().is_none() || shared.router.reaches(address) {
        sleep(PAUSE).await;
    }
}

async fn subscribe(shared: &Shared, address: &str) -> Option<PubSub> {
    let stream = open(&shared.config, address, &Refusal::default()).await.ok()?;
    let mut subscription = PubSub::new(&identity(&shared.config, Show::UserAndPassword, 0), stream).await.ok()?;
    subscription.subscribe(shared.names.channel()).await.ok()?;
    Some(subscription)
}

/// Passes on what is heard, until the connection is of no more use.
async fn hear(shared: &Shared, subscription: PubSub) {
    let (mut sink, mut stream) = subscription.split();
    loop {
        match timeout(PING, stream.next()).await {
            Ok(Some(message)) => {
                if let Ok(topic) = std::str::from_utf8(message.get_payload_bytes()) {
                    shared.wakes.notify(topic);
                }
            }
            Ok(None) => return,
            Err(_) => {
                if !matches!(timeout(PING, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
