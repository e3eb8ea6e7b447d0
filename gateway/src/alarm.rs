//! A clock for one deadline that moves often.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

/// Where the timer stands while there is no deadline.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Wakes a task at a deadline that is set anew with each message.
///
/// A timer that is made anew for each wait wakes the runtime's clock each time, which costs more than a message. This
/// one stays where it is when the deadline moves later, and looks again when it fires.
#[derive(Debug)]
pub struct Alarm {
    due: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Makes an alarm without deadline.
    pub fn new() -> Self {
        Self { due: None, timer: Box::pin(sleep(FAR)) }
    }

    /// Sets the deadline, or none.
    pub fn set(&mut self, due: Option<Instant>) {
        self.due = due;
        if let Some(due) = due
            && self.timer.deadline() > due.into()
        {
            self.timer.as_mut().reset(due.into());
        }
    }

    /// Waits until the deadline has passed. Dropping the wait loses nothing.
    pub async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.due {
                Some(due) if due <= now => return Poll::Ready(()),
                due => self.timer.as_mut().reset(due.unwrap_or(now + FAR).into()),
            }
        }
        Poll::Pending
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Tells whether the alarm rings within `limit`.
    async fn rings_within(alarm: &mut Alarm, limit: Duration) -> bool {
        timeout(limit, alarm.wait()).await.is_ok()
    }

    #[tokio::test]
    async fn it_rings_at_the_last_deadline_set_and_again_until_it_is_moved() {
        let mut alarm = Alarm::new();
        assert!(!rings_within(&mut alarm, Duration::from_millis(20)).await, "no deadline is set");
        let begin = Instant::now();
        alarm.set(Some(begin + Duration::from_millis(10)));
        alarm.set(Some(begin + Duration::from_millis(60)));
        alarm.wait().await;
        assert!(begin.elapsed() >= Duration::from_millis(60), "the later deadline counts");
        assert!(rings_within(&mut alarm, Duration::from_millis(100)).await, "what is due stays due");
        alarm.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(!rings_within(&mut alarm, Duration::from_millis(20)).await);
        alarm.set(Some(Instant::now()));
        assert!(rings_within(&mut alarm, Duration::from_secs(5)).await, "an earlier deadline counts");
        alarm.set(None);
        assert!(!rings_within(&mut alarm, Duration::from_millis(20)).await);
    }
}
