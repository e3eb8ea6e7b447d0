//! One stream connection: bytes in and out, keep-alives, deadlines.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use isthmus_sip::{Frame, Framer, Limits};
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::flow::{Flow, Queued};
use super::{SipEdge, Stop};
use crate::alarm::Alarm;

/// How long a peer may take to read what we wrote.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a message may be under way, from its first byte to its last.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer that has ever answered pings may leave one unanswered (RFC 5626 §4.4.1).
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BUFFER: usize = 16 * 1024;
/// The most bytes gathered into one write.
const WRITE_BATCH: usize = 64 * 1024;
/// How long a connection that we have closed for our own messages waits for the peer to close it, too.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it, or the network did.
    ByPeer,
    /// Nothing used it for a long time.
    Idle,
    /// The peer stopped reading, answering pings or finishing a message.
    Stuck,
    /// What came is no SIP.
    Malformed,
    /// The process is stopping.
    Stopping,
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy)]
enum Stage {
    /// It is in use.
    Open,
    /// It is closed for our messages, for this reason. What the peer wrote before it heard of that is still served, until then.
    Lingering(Ended, Instant),
}

/// Carries one connection until it ends. What is then left in `queue` was not written.
///
/// When we end it, the peer hears of that before anything that it wrote can get lost: SIP over a stream repeats nothing
/// (RFC 3261 §17.1.2.2), and a request that a closed socket swallows is an error for its user half a minute later.
pub async fn run<S: AsyncRead + AsyncWrite>(
    edge: Arc<SipEdge>,
    flow: Arc<Flow>,
    stream: S,
    queue: &mut mpsc::Receiver<Queued>,
    mut stop: watch::Receiver<Stop>,
    limits: Limits,
    idle: Duration,
) -> Ended {
    let mut stage = Stage::Open;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut framer = Framer::new(limits);
    let mut buffer = BytesMut::with_capacity(READ_BUFFER);
    let mut pings = Pings::new(idle);
    let mut alarm = Alarm::new();
    loop {
        let partial = framer.buffered() > 0;
        let deadline = match stage {
            Stage::Open => pings.next_deadline(partial),
            Stage::Lingering(_, end) => end,
        };
        alarm.set(Some(deadline.into_std()));
        let writes = !matches!(stage, Stage::Lingering(..));
        tokio::select! {
            read = reader.read_buf(&mut buffer) => {
                match (read, stage) {
                    (Ok(1..), _) => {}
                    (_, Stage::Lingering(why, _)) => return why,
                    _ => return Ended::ByPeer,
                }
                pings.heard(partial);
                if framer.push(&buffer).is_err() {
                    return Ended::Malformed;
                }
                buffer.clear();
                loop {
                    match framer.poll() {
                        Ok(None) => break,
                        Ok(Some(Frame::Ping)) => {
                            if writes && !write(&mut writer, b"\r\n").await {
                                return Ended::Stuck;
                            }
                        }
                        Ok(Some(Frame::Pong)) => pings.pong(),
                        Ok(Some(Frame::Message(message))) => {
                            pings.finished();
                            edge.receive(&flow, flow.remote, *message);
                        }
                        Ok(Some(Frame::Malformed(error))) => edge.receive_malformed(&flow, flow.remote, &error),
                        Err(error) => {
                            if let Some(error) = error.parse_error() {
                                edge.receive_malformed(&flow, flow.remote, error);
                                flush(&mut writer, queue).await;
                            }
                            return Ended::Malformed;
                        }
                    }
                }
            }
            first = queue.recv(), if writes => {
                let Some(first) = first else { return Ended::Stopping };
                pings.used();
                let (mut batch, mut next) = (BytesMut::new(), Some(first));
                while let Some(Queued::Message { bytes, .. }) = &next {
                    batch.extend_from_slice(bytes);
                    next = if batch.len() < WRITE_BATCH { queue.try_recv().ok() } else { None };
                }
                if !write(&mut writer, &batch).await {
                    return Ended::Stuck;
                }
                if let Some(Queued::End) = next {
                    stage = close_for_us(&mut writer, queue, Ended::Stopping).await;
                }
            }
            () = alarm.wait() => match stage {
                Stage::Open => match pings.due(partial) {
                    Due::Nothing => {}
                    Due::Ping => {
                        framer.ping_sent();
                        if !write(&mut writer, b"\r\n\r\n").await {
                            return Ended::Stuck;
                        }
                    }
                    Due::Idle => stage = close_for_us(&mut writer, queue, Ended::Idle).await,
                    Due::Stuck => return Ended::Stuck,
                },
                Stage::Lingering(why, _) => return why,
            },
            changed = stop.changed() => {
                if changed.is_err() || *stop.borrow() == Stop::Now {
                    flush(&mut writer, queue).await;
                    let _ = timeout(LINGER, writer.shutdown()).await;
                    return Ended::Stopping;
                }
            }
        }
    }
}

/// Closes a connection for what we write; nothing more enters its queue.
async fn close_for_us<W: AsyncWrite + Unpin>(writer: &mut W, queue: &mut mpsc::Receiver<Queued>, why: Ended) -> Stage {
    queue.close();
    // A peer that does not read notices nothing; it is not waited for any longer than the others.
    let _ = timeout(LINGER, async {
        flush(writer, queue).await;
        writer.shutdown().await
    })
    .await;
    Stage::Lingering(why, Instant::now() + LINGER)
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> bool {
    let written = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    matches!(timeout(WRITE_TIMEOUT, written).await, Ok(Ok(())))
}

async fn flush<W: AsyncWrite + Unpin>(writer: &mut W, queue: &mut mpsc::Receiver<Queued>) {
    while let Ok(queued) = queue.try_recv() {
        if let Queued::Message { bytes, .. } = queued
            && !write(writer, &bytes).await
        {
            return;
        }
    }
}

enum Due {
    Nothing,
    Ping,
    Idle,
    Stuck,
}

/// Keep-alive and idle clock of one connection (interworking specification §6.10).
struct Pings {
    idle: Duration,
    last_use: Instant,
    next_ping: Instant,
    /// A ping is out since then.
    waiting: Option<Instant>,
    /// The peer has answered a ping before, so a missing answer means something.
    answers: bool,
    message_since: Option<Instant>,
}

impl Pings {
    fn new(idle: Duration) -> Self {
        let now = Instant::now();
        Self { idle, last_use: now, next_ping: next_ping(now), waiting: None, answers: false, message_since: None }
    }

    fn used(&mut self) {
        self.last_use = Instant::now();
    }

    /// A message is complete; what lies behind it is the next one's beginning.
    fn finished(&mut self) {
        self.used();
        self.message_since = Some(self.last_use);
    }

    /// Bytes came; `partial` tells whether a message was under way already.
    fn heard(&mut self, partial: bool) {
        if !partial || self.message_since.is_none() {
            self.message_since = Some(Instant::now());
        }
    }

    fn pong(&mut self) {
        self.waiting = None;
        self.answers = true;
    }

    fn next_deadline(&self, partial: bool) -> Instant {
        let mut deadline = self.next_ping.min(self.last_use + self.idle);
        if let (true, Some(since)) = (partial, self.message_since) {
            deadline = deadline.min(since + MESSAGE_TIMEOUT);
        }
        if let (true, Some(sent)) = (self.answers, self.waiting) {
            deadline = deadline.min(sent + PONG_TIMEOUT);
        }
        deadline
    }

    fn due(&mut self, partial: bool) -> Due {
        let now = Instant::now();
        if partial && self.message_since.is_some_and(|since| now >= since + MESSAGE_TIMEOUT) {
            return Due::Stuck;
        }
        if self.answers && self.waiting.is_some_and(|sent| now >= sent + PONG_TIMEOUT) {
            return Due::Stuck;
        }
        if now >= self.last_use + self.idle {
            return Due::Idle;
        }
        if now >= self.next_ping {
            self.next_ping = next_ping(now);
            self.waiting.get_or_insert(now);
            return Due::Ping;
        }
        Due::Nothing
    }
}

/// Pings go out at a random moment, so that many connections do not ping at once (RFC 5626 §4.4.1).
fn next_ping(now: Instant) -> Instant {
    now + Duration::from_millis(rand::rng().random_range(95_000..=120_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_has_its_time_and_our_own_traffic_gives_it_no_more() {
        let mut pings = Pings::new(Duration::from_mins(10));
        pings.heard(false);
        pings.used();
        assert!(pings.next_deadline(true) <= Instant::now() + MESSAGE_TIMEOUT, "begun, and something was sent");
        assert!(pings.next_deadline(false) > Instant::now() + MESSAGE_TIMEOUT);
        pings.heard(true);
        pings.finished();
        assert!(pings.next_deadline(true) <= Instant::now() + MESSAGE_TIMEOUT, "the next one lay behind it");
    }
}
