//! The delivery barrier: which messages a ping stands for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use compact_str::CompactString;

use crate::jid;
use crate::stanza::StanzaError;

/// The caller's name for a message whose fate it wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarrierToken(pub u64);

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The server dealt with it and returned no error.
    Delivered,
    /// The server, or the recipient, returned this error.
    Bounced(Box<StanzaError>),
    /// The link ended, or the server did not answer in time. It may have arrived or not.
    Unknown,
}

/// A message that was written, or a mark between stanzas.
#[derive(Debug)]
struct Sent {
    /// Its place in the order of writing.
    place: u64,
    /// What an error tells of the message that it is about; `None` for a mark.
    names: Option<Names>,
    token: BarrierToken,
}

#[derive(Debug)]
struct Names {
    id: CompactString,
    from: CompactString,
    to: CompactString,
}

/// A ping that is out.
#[derive(Debug)]
struct Asked {
    id: CompactString,
    /// The first place that it does not stand for.
    until: u64,
    since: Instant,
}

/// The messages of one link whose fate is open, in the order of writing.
#[derive(Debug)]
pub(super) struct Barrier {
    outstanding: VecDeque<Sent>,
    /// The place of the next message.
    next: u64,
    /// The first place that no ping stands for yet.
    asked_until: u64,
    asked: Option<Asked>,
    /// Answered pings that wait for errors which may overtake them: until when, and for which places.
    settling: VecDeque<(Instant, u64)>,
    settle: Duration,
    /// The first place that is neither answered nor given up.
    overdue_until: u64,
}

impl Barrier {
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            outstanding: VecDeque::new(),
            next: 0,
            asked_until: 0,
            asked: None,
            settling: VecDeque::new(),
            settle,
            overdue_until: 0,
        }
    }

    /// Messages whose fate is open.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Notes a message that was written.
    pub(super) fn sent(&mut self, id: &CompactString, from: &CompactString, to: &CompactString, token: BarrierToken) {
        self.push(Some(Names { id: id.clone(), from: from.clone(), to: to.clone() }), token);
    }

    /// Marks a place behind everything that was written so far.
    pub(super) fn marked(&mut self, token: BarrierToken) {
        self.push(None, token);
    }

    fn push(&mut self, names: Option<Names>, token: BarrierToken) {
        self.outstanding.push_back(Sent { place: self.next, names, token });
        self.next += 1;
    }

    /// True if a ping is due: there are messages that none stands for, and none is out.
    pub(super) fn wants_ping(&self) -> bool {
        self.asked.is_none() && self.asked_until < self.next
    }

    /// Notes that a ping was written; it stands for all messages before it.
    pub(super) fn asked(&mut self, id: CompactString, now: Instant) {
        self.asked = Some(Asked { id, until: self.next, since: now });
        self.asked_until = self.next;
    }

    /// Takes an answer; false if it is not that of the ping.
    pub(super) fn answered(&mut self, id: &str, now: Instant) -> bool {
        match self.asked.take_if(|asked| asked.id == id) {
            Some(asked) => {
                self.settling.push_back((now + self.settle, asked.until));
                true
            }
            None => false,
        }
    }

    /// The next message that is delivered by now.
    pub(super) fn next_delivered(&mut self, now: Instant) -> Option<BarrierToken> {
        loop {
            let (at, until) = *self.settling.front()?;
            if at > now {
                return None;
            }
            if let Some(sent) = self.take_before(until) {
                return Some(sent.token);
            }
            self.settling.pop_front();
        }
    }

    /// Takes a returned error and says which message it is about.
    ///
    /// It must mirror the addresses, so that nobody but the recipient, its server or ours can return one.
    pub(super) fn bounced(&mut self, id: &str, from: &str, to: &str) -> Option<BarrierToken> {
        let is_about = |sent: &Names| {
            sent.id == id && mirrors(&sent.to, from) && jid::bare(&sent.from).eq_ignore_ascii_case(jid::bare(to))
        };
        let place = self.outstanding.iter().position(|sent| sent.names.as_ref().is_some_and(is_about))?;
        self.outstanding.remove(place).map(|sent| sent.token)
    }

    /// The next message whose ping has gone unanswered for `timeout`. When all are told, another may go out.
    pub(super) fn next_overdue(&mut self, now: Instant, timeout: Duration) -> Option<BarrierToken> {
        if let Some(asked) = self.asked.take_if(|asked| asked.since + timeout <= now) {
            self.overdue_until = asked.until;
        }
        // what settles is told as delivered in its time; pings are answered in order, so it all lies before
        if self.settling.is_empty() {
            return self.take_before(self.overdue_until).map(|sent| sent.token);
        }
        let settling = self.settling.back().map_or(0, |(_, until)| *until);
        let at = self.outstanding.iter().position(|sent| sent.place >= settling && sent.place < self.overdue_until)?;
        self.outstanding.remove(at).map(|sent| sent.token)
    }

    /// The next message whose fate nobody will tell any more.
    pub(super) fn next_lost(&mut self) -> Option<BarrierToken> {
        self.asked = None;
        self.settling.clear();
        self.asked_until = self.next;
        self.outstanding.pop_front().map(|sent| sent.token)
    }

    /// When something of this runs out.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.since + timeout);
        let settled = self.settling.front().map(|(at, _)| *at);
        [asked, settled].into_iter().flatten().min()
    }

    fn take_before(&mut self, until: u64) -> Option<Sent> {
        self.outstanding.pop_front_if(|sent| sent.place < until)
    }
}

/// True if an error from `from` can be about a stanza to `to`: it comes from there, from the bare address, or
/// from the server of its domain.
fn mirrors(to: &str, from: &str) -> bool {
    from.eq_ignore_ascii_case(to) || from.eq_ignore_ascii_case(jid::bare(to)) || jid::same_domain(from, jid::domain(to))
}
