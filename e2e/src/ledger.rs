//! What each end sent, what it was told, what the other end saw, and the judgement on all of it.
//!
//! The books are kept by the users of a scenario and judged here. Nothing of the gateway takes part: neither its code nor its
//! metrics. Times count from the start of the books.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod judgement;

pub use judgement::{Judgement, Messages, Presence, percentile};

/// How long the gateway knows a SIP request again (interworking specification §6.3, step 5).
pub const WINDOW: Duration = Duration::from_secs(32);
/// How long after its end a fault may still be felt.
const AFTER: Duration = Duration::from_secs(5);
/// A request may be seen so long after it was sent.
const SEEN_LATE: Duration = Duration::from_millis(250);
/// How long a server that listens again may be without its component, and a pod without a store may keep a link.
const LINK_BACK: Duration = Duration::from_secs(5);
/// How many offenders of a kind a table names.
const NAMED: usize = 5;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From a SIP user to an XMPP user: a 2xx means that it is ours to deliver.
    ToXmpp,
    /// From an XMPP user to a SIP user: it arrives or comes back as an error.
    ToSip,
}

/// What a sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A 2xx.
    Accepted,
    /// An error, or no answer until the transaction's end.
    Refused,
}

#[derive(Debug)]
struct Message {
    way: Way,
    sent: Duration,
    answer: Option<(Duration, Answer)>,
    /// When, and under which id of the wire.
    arrivals: Vec<(Duration, String)>,
}

#[derive(Debug, Default)]
struct Watch {
    changes: Vec<(Duration, String)>,
    seen: Vec<(Duration, String)>,
    /// Ends that the watcher did not ask for, with their reason.
    ended: Vec<(Duration, String)>,
    /// How many dialogs lived at the end; `None` while nobody has looked.
    alive: Option<usize>,
    /// When the watcher ended it by their own wish, and when it was open again.
    pauses: Vec<(Duration, Option<Duration>)>,
    /// When it was refreshed.
    refreshed: Vec<Duration>,
    /// When a NOTIFY of its only dialog got 481; a new dialog may have mended that.
    disowned: Vec<Duration>,
}

#[derive(Debug)]
struct Fault {
    name: String,
    from: Duration,
    until: Duration,
    takes: Takes,
    /// Whether a request may have been stored with its number and never sent.
    unsent: bool,
}

/// What a fault takes with it that the gateway cannot give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Nothing.
    Nothing,
    /// What a server wrote into the socket of a gateway's process until this time.
    Socket(Duration),
    /// What was in the queues of the local server when it stopped, at this time at the latest.
    Server(Duration),
    /// The way to the store, for as long as the fault lasted.
    Store,
}

/// 64·T1 and what a refresh takes before.
const TIMER_N: Duration = Duration::from_secs(45);

impl Fault {
    fn lasts_at(&self, time: Duration) -> bool {
        (self.from..=self.until).contains(&time)
    }

    /// Whether something was broken in this time, or shortly before.
    fn touches(&self, from: Duration, until: Duration) -> bool {
        from <= self.until + AFTER && self.from <= until
    }

    /// Whether an XMPP user's message of this time may be in no one's hands: the server had written it to a process that was
    /// killed, or had not got to writing it before it was stopped itself.
    fn takes_to_sip(&self, sent: Duration) -> bool {
        match self.takes {
            Takes::Nothing | Takes::Store => false,
            Takes::Socket(until) | Takes::Server(until) => (self.from..=until).contains(&sent),
        }
    }

    /// Whether a SIP user's message that was accepted at this time may be in no one's hands: only when the gateway had given
    /// it to a server that was just being stopped.
    fn takes_to_xmpp(&self, accepted: Duration) -> bool {
        matches!(self.takes, Takes::Server(gone) if (self.from..=gone).contains(&accepted))
    }

    /// Whether the numbers that a request left out may have been stored and not sent because of this: then it happened between
    /// the last request before them and the first one after them.
    fn leaves_unsent(&self, skip: &Skip) -> bool {
        self.unsent && skip.before <= self.until + SEEN_LATE && self.from <= skip.at
    }

    /// Whether nobody could see a change of this time, because the watcher or the watched had no server.
    fn hides(&self, change: Duration) -> bool {
        matches!(self.takes, Takes::Server(_)) && self.lasts_at(change)
    }

    /// Whether its users may be shown as away at this time, or soon after.
    fn logs_out(&self, shown: Duration) -> bool {
        matches!(self.takes, Takes::Server(_)) && self.touches(shown, shown)
    }

    /// Whether a NOTIFY may have been lost with a process so that its subscription is over at this time.
    fn loses_notify(&self, shown: Duration) -> bool {
        matches!(&*self.name, "kill" | "kill-holder") && (self.from..=self.until + TIMER_N).contains(&shown)
    }

    /// From when on a change of this time could be seen: not while there was no way to the store.
    fn delays(&self, change: Duration) -> Duration {
        if self.takes == Takes::Store && self.lasts_at(change) { self.until } else { change }
    }

    /// Whether it is the end of one process of the gateway.
    fn ends_a_pod(name: &str) -> bool {
        matches!(name, "kill" | "kill-holder" | "drain")
    }
}

/// A request whose CSeq left numbers out, and when it and the one before it were seen.
#[derive(Debug)]
struct Skip {
    what: String,
    before: Duration,
    at: Duration,
}

#[derive(Debug, Default)]
struct Books {
    messages: BTreeMap<String, Message>,
    /// How often senders were refused in which words.
    refusals: BTreeMap<String, usize>,
    watches: BTreeMap<String, Watch>,
    faults: Vec<Fault>,
    /// What arrived though nobody sent it.
    unknown: Vec<String>,
    /// Requests whose CSeq left numbers out.
    skipped: Vec<Skip>,
    /// What a peer must not do on the wire and did.
    misused: Vec<String>,
    /// Chat sessions that were opened, and those that were gone though nobody had ended them.
    sessions: usize,
    lost_sessions: Vec<String>,
    put_off: BTreeMap<u16, usize>,
    /// Watches of which one dialog ran out while another one served.
    left: Vec<String>,
    /// Watches that their watcher had ended, and no NOTIFY has.
    never_ended: Vec<(String, String)>,
    /// Changes before this time are not timed.
    measured_from: Duration,
    /// How long each restarted server was without its component.
    link_back: Vec<Duration>,
    /// How long each link stayed with a pod that alone had no store.
    link_moved: Vec<Duration>,
    /// How often a link changed its pod more than that.
    fought: usize,
}

/// The books of one run.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    books: Mutex<Books>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { start: Instant::now(), books: Mutex::default() }
    }
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start of the books.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Everybody sees everybody: from now on the time until a change is seen counts. Before, it was the time of subscribing.
    pub fn measure(&self) {
        let now = self.now();
        self.books().measured_from = now;
    }

    /// A server that had been away got its component back so long after it listened again.
    pub fn link_back(&self, after: Duration) {
        self.books().link_back.push(after);
    }

    /// A pod that alone had no store had a link for so long until another pod connected.
    pub fn link_moved(&self, after: Duration) {
        self.books().link_moved.push(after);
    }

    /// A link that had left a pod without a store was connected anew so often before that had its store again: once by the pod
    /// that did not give it up, and then by the one that has the lease.
    pub fn links_fought_for(&self, times: usize) {
        self.books().fought += times;
    }

    /// A message is about to leave; `text` is unlike that of any other.
    pub fn sent(&self, way: Way, text: &str) {
        self.sent_at(self.now(), way, text);
    }

    fn sent_at(&self, sent: Duration, way: Way, text: &str) {
        let message = Message { way, sent, answer: None, arrivals: Vec::new() };
        self.books().messages.insert(text.to_owned(), message);
    }

    /// The sender of a message was told that it is accepted; the first word counts.
    pub fn accepted(&self, text: &str) {
        self.answered(text, Answer::Accepted);
    }

    /// The sender of a message was told that it is not accepted, in these words; the first word counts.
    pub fn refused(&self, text: &str, word: &str) {
        if self.answered(text, Answer::Refused) {
            *self.books().refusals.entry(word.to_owned()).or_default() += 1;
        }
    }

    fn answered(&self, text: &str, answer: Answer) -> bool {
        let now = self.now();
        match self.books().messages.get_mut(text) {
            Some(message) if message.answer.is_none() => {
                message.answer = Some((now, answer));
                true
            }
            _ => false,
        }
    }

    /// A message came to its recipient under this id of the wire. Repetitions that any receiver absorbs are not told.
    pub fn arrived(&self, text: &str, id: &str) {
        self.arrived_at(self.now(), text, id);
    }

    fn arrived_at(&self, now: Duration, text: &str, id: &str) {
        let mut books = self.books();
        match books.messages.get_mut(text) {
            Some(message) => message.arrivals.push((now, id.to_owned())),
            None => books.unknown.push(text.to_owned()),
        }
    }

    /// Somebody watches somebody; `watch` names both.
    pub fn watches(&self, watch: &str) {
        self.books().watches.entry(watch.to_owned()).or_default();
    }

    /// The watcher ends the watch: nothing is expected of it until [`Self::watches_again`].
    pub fn unwatched(&self, watch: &str) {
        self.unwatched_at(self.now(), watch);
    }

    fn unwatched_at(&self, now: Duration, watch: &str) {
        self.books().watches.entry(watch.to_owned()).or_default().pauses.push((now, None));
    }

    /// The watch is open again, and must show the state of now.
    pub fn watches_again(&self, watch: &str) {
        self.watches_again_at(self.now(), watch);
    }

    fn watches_again_at(&self, now: Duration, watch: &str) {
        let mut books = self.books();
        if let Some((_, until)) = books.watches.entry(watch.to_owned()).or_default().pauses.last_mut() {
            until.get_or_insert(now);
        }
    }

    /// How many watchers have ended their watch and not opened it again so far.
    pub fn unwatching(&self) -> usize {
        self.books().watches.values().filter(|watch| watch.is_paused()).count()
    }

    /// The dialog of the watch got a longer life.
    pub fn refreshed(&self, watch: &str) {
        self.refreshed_at(self.now(), watch);
    }

    fn refreshed_at(&self, now: Duration, watch: &str) {
        self.books().watches.entry(watch.to_owned()).or_default().refreshed.push(now);
    }

    /// A SUBSCRIBE was answered with a status that asks for patience, or 0 for no answer; it is sent again.
    pub fn put_off(&self, status: u16) {
        *self.books().put_off.entry(status).or_default() += 1;
    }

    /// The watcher's side knew nothing of the only dialog. It is a loss when there is none at the end.
    pub fn disowned(&self, watch: &str) {
        let now = self.now();
        self.books().watches.entry(watch.to_owned()).or_default().disowned.push(now);
    }

    /// A dialog of the watch that was not needed any more was left to run out.
    pub fn left(&self, watch: &str) {
        self.books().left.push(watch.to_owned());
    }

    /// The watcher's end of a dialog was accepted, and the NOTIFY that must follow never came.
    pub fn never_ended(&self, watch: &str, dialog: &str) {
        self.books().never_ended.push((watch.to_owned(), dialog.to_owned()));
    }

    /// Whom `watch` is about has taken another state.
    pub fn changed(&self, watch: &str, state: &str) {
        self.changed_at(self.now(), watch, state);
    }

    fn changed_at(&self, now: Duration, watch: &str, state: &str) {
        self.books().watches.entry(watch.to_owned()).or_default().changes.push((now, state.to_owned()));
    }

    /// The watcher was shown this state.
    pub fn saw(&self, watch: &str, state: &str) {
        self.saw_at(self.now(), watch, state);
    }

    fn saw_at(&self, now: Duration, watch: &str, state: &str) {
        self.books().watches.entry(watch.to_owned()).or_default().seen.push((now, state.to_owned()));
    }

    /// The watch ended and nobody had asked for that.
    pub fn ended(&self, watch: &str, reason: &str) {
        let now = self.now();
        self.books().watches.entry(watch.to_owned()).or_default().ended.push((now, reason.to_owned()));
    }

    /// How many dialogs serve the watch at the end: one is right.
    pub fn alive(&self, watch: &str, dialogs: usize) {
        self.books().watches.entry(watch.to_owned()).or_default().alive = Some(dialogs);
    }

    /// Something was broken from `from` until now. It excuses nothing that is lost or left out.
    pub fn fault(&self, name: &str, from: Duration) {
        self.note(name, from, Takes::Nothing, false);
    }

    /// A process of the gateway was killed, or stood still, from `from` until now. What a server had written until `socket` into the
    /// socket of one that was killed went with it: XEP-0114 has no acknowledgements. `None` is for a process that had no link,
    /// and for one that goes on: it reads what waits for it and hands it to the next holder.
    ///
    /// It also excuses numbers of requests that it had stored and not sent.
    pub fn struck(&self, name: &str, from: Duration, socket: Option<Duration>) {
        self.note(name, from, socket.map_or(Takes::Nothing, Takes::Socket), true);
    }

    /// The connections of the links broke between `from` and now, and what was under way in them went with them. The processes
    /// went on and had their store, so no number is left out.
    pub fn links_cut(&self, name: &str, from: Duration) {
        self.note(name, from, Takes::Socket(self.now()), false);
    }

    /// A way to the store was broken from `from` until now. What was to be written may have been written though nobody was
    /// told, so the number of a request that was not sent may be in the store. It excuses nothing else.
    pub fn store_cut(&self, name: &str, from: Duration) {
        self.note(name, from, Takes::Nothing, true);
    }

    /// The local server was away from `from` until now, when everybody was logged in again; `gone` is when the last of its
    /// users knew of it.
    ///
    /// It excuses three things. What was accepted or sent while the server was being stopped, from `from` to `gone`, may have
    /// been in its queues, and those are not the gateway's. What changed while the server was away could be seen by nobody
    /// until the users were back, so it makes no blind time; that the last state is right at the end is demanded as ever. It
    /// excuses nothing that was accepted after `gone`: with no server to give a message to, the gateway must refuse it.
    pub fn server_away(&self, name: &str, from: Duration, gone: Duration) {
        self.note(name, from, Takes::Server(gone), false);
    }

    /// The store could not be reached from `from` until now, however long that was: what changed meanwhile could be seen from
    /// now on, and its blind time begins now.
    pub fn store_away(&self, name: &str, from: Duration) {
        self.note(name, from, Takes::Store, true);
    }

    /// A chat session was opened by either side.
    pub fn session_opened(&self) {
        self.books().sessions += 1;
    }

    /// A session, opened at this time, was gone though neither side had ended it.
    pub fn session_lost(&self, opened: Duration, what: &str) {
        let (now, begin) = (self.now().as_secs_f64(), opened.as_secs_f64());
        self.books().lost_sessions.push(format!("{what} at {now:.1} s, opened at {begin:.1} s"));
    }

    /// A peer did what it must not do on the wire.
    pub fn misused(&self, what: &str) {
        self.books().misused.push(what.to_owned());
    }

    fn note(&self, name: &str, from: Duration, takes: Takes, unsent: bool) {
        let until = self.now();
        self.books().faults.push(Fault { name: name.to_owned(), from, until, takes, unsent });
    }

    /// A request left numbers of its dialog's CSeq out; `before` is when the request before it in this dialog was seen, `at` when
    /// this one was. A process that dies between storing a request and sending it makes such a gap, and so does one that is
    /// not told what it stored; receivers must accept it (RFC 3261 §12.2.2). Nothing else may make one.
    pub fn skipped(&self, what: &str, before: Instant, at: Instant) {
        let [before, at] = [before, at].map(|time| time.saturating_duration_since(self.start));
        self.skipped_at(before, at, what);
    }

    fn skipped_at(&self, before: Duration, at: Duration, what: &str) {
        let skip = Skip { what: what.to_owned(), before, at };
        self.books().skipped.push(skip);
    }

    /// How many messages went this way so far, and how many of them have arrived or come back.
    pub fn progress(&self, way: Way) -> (usize, usize) {
        let books = self.books();
        let of_way = books.messages.values().filter(|m| m.way == way);
        of_way.fold((0, 0), |(sent, done), m| {
            let is_done = !m.arrivals.is_empty() || matches!(m.answer, Some((_, Answer::Refused)));
            (sent + 1, done + usize::from(is_done))
        })
    }

    /// How many watchers do not see the last state and have no excuse.
    pub fn stale(&self) -> usize {
        let books = self.books();
        books.watches.values().filter(|watch| watch.is_wrong()).count()
    }

    /// Judges everything that is in the books.
    pub fn judge(&self) -> Judgement {
        let books = self.books();
        let mut judgement = Judgement { unknown: books.unknown.clone(), ..Judgement::default() };
        for (text, message) in &books.messages {
            let column = match message.way {
                Way::ToXmpp => &mut judgement.to_xmpp,
                Way::ToSip => &mut judgement.to_sip,
            };
            column.count(text, message, &books.faults);
        }
        for (name, watch) in &books.watches {
            judgement.presence.count(name, watch, &books.faults, books.measured_from);
        }
        for skip in &books.skipped {
            if books.faults.iter().any(|fault| fault.leaves_unsent(skip)) {
                judgement.skipped_in_faults += 1;
            } else {
                let [before, at] = [skip.before, skip.at].map(|time| time.as_secs_f64());
                judgement.skipped.push(format!("{}, seen at {before:.1} s and {at:.1} s", skip.what));
            }
        }
        judgement.refusals.clone_from(&books.refusals);
        judgement.misused.clone_from(&books.misused);
        for fault in &books.faults {
            *judgement.faults.entry(fault.name.clone()).or_default() += 1;
        }
        judgement.presence.left = books.left.len();
        let never_ended = books.never_ended.iter().map(|(watch, dialog)| format!("{watch}: {dialog}"));
        judgement.presence.never_ended = never_ended.collect();
        judgement.sessions = books.sessions;
        judgement.lost_sessions.clone_from(&books.lost_sessions);
        judgement.put_off.clone_from(&books.put_off);
        judgement.link_back.clone_from(&books.link_back);
        judgement.link_back.sort_unstable();
        judgement.link_moved.clone_from(&books.link_moved);
        judgement.link_moved.sort_unstable();
        judgement.fought = books.fought;
        judgement.presence.calm.sort_unstable();
        judgement.presence.blind.sort_unstable();
        judgement.presence.without_pod.sort_unstable();
        judgement
    }
}

impl Watch {
    /// Whether the last state shown is not the last one taken. What an earlier dialog had shown does not count, and while the
    /// watcher wants none nothing is wrong.
    fn is_wrong(&self) -> bool {
        let last = self.changes.last().map(|(_, state)| state);
        let since = self.pauses.last().map(|(from, _)| *from).unwrap_or_default();
        let shown = self.seen.last().filter(|(at, _)| *at >= since).map(|(_, state)| state);
        last.is_some() && last != shown && !self.is_paused()
    }

    /// Whether the watcher has ended it and not opened it again.
    fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|(_, until)| until.is_none())
    }
}

#[cfg(test)]
mod tests;
