//! What each end sent, what it was told, what the other end saw, and the judgement on all of it.
//!
//! The books are kept by the users of a scenario and judged here. Nothing of the gateway takes part: neither its code nor its
//! metrics. Times count from the start of the books.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the gateway knows a SIP request again (interworking specification §6.3, step 5).
pub const WINDOW: Duration = Duration::from_secs(32);
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
pub enum Answer {
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
}

#[derive(Debug)]
struct Fault {
    name: String,
    from: Duration,
    until: Duration,
    /// Whether what a server wrote into the gateway's socket in this time may have gone with the process.
    takes_socket: bool,
}

#[derive(Debug, Default)]
struct Books {
    messages: BTreeMap<String, Message>,
    watches: BTreeMap<String, Watch>,
    faults: Vec<Fault>,
    /// What arrived though nobody sent it.
    unknown: Vec<String>,
    /// Requests whose CSeq left numbers out.
    skipped: Vec<String>,
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

    /// A message is about to leave; `text` is unlike that of any other.
    pub fn sent(&self, way: Way, text: &str) {
        self.sent_at(self.now(), way, text);
    }

    fn sent_at(&self, sent: Duration, way: Way, text: &str) {
        let message = Message { way, sent, answer: None, arrivals: Vec::new() };
        self.books().messages.insert(text.to_owned(), message);
    }

    /// The sender of a message was told something; the first word counts.
    pub fn answered(&self, text: &str, answer: Answer) {
        let now = self.now();
        if let Some(message) = self.books().messages.get_mut(text) {
            message.answer.get_or_insert((now, answer));
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

    /// Something was broken from `from` until now. `takes_socket` tells that a process was killed or stood still, so that
    /// what a server had written into its socket went with it: XEP-0114 has no acknowledgements.
    pub fn fault(&self, name: &str, from: Duration, takes_socket: bool) {
        let until = self.now();
        self.books().faults.push(Fault { name: name.to_owned(), from, until, takes_socket });
    }

    /// A request left numbers of its dialog's CSeq out. A process that dies between storing a request and sending it makes
    /// such a gap, which receivers must accept (RFC 3261 §12.2.2); nothing else may.
    pub fn skipped(&self, what: &str) {
        self.books().skipped.push(what.to_owned());
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

    /// How many watchers do not see the last state.
    pub fn stale(&self) -> usize {
        self.books().watches.values().filter(|w| w.is_wrong()).count()
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
            judgement.presence.count(name, watch, &books.faults);
        }
        if books.faults.iter().any(|fault| fault.takes_socket) {
            judgement.skipped_in_faults = books.skipped.len();
        } else {
            judgement.skipped.clone_from(&books.skipped);
        }
        for fault in &books.faults {
            *judgement.faults.entry(fault.name.clone()).or_default() += 1;
        }
        judgement.presence.calm.sort_unstable();
        judgement.presence.blind.sort_unstable();
        judgement
    }
}

impl Watch {
    /// Whether the last state shown is not the last one taken.
    fn is_wrong(&self) -> bool {
        let last = self.changes.last().map(|(_, state)| state);
        last.is_some() && last != self.seen.last().map(|(_, state)| state)
    }
}

/// The messages of one way.
#[derive(Debug, Default, Clone)]
pub struct Messages {
    /// Sent at all.
    pub sent: usize,
    /// Answered 2xx.
    pub accepted: usize,
    /// Answered with an error, or not at all.
    pub refused: usize,
    /// Arrived at least once.
    pub arrived: usize,
    /// Arrived although the sender was told that they did not.
    pub refused_and_arrived: usize,
    /// Arrived more than once under one id, which a receiver can see.
    pub repeated: usize,
    /// Arrived again under another id within [`WINDOW`].
    pub doubled: Vec<String>,
    /// Arrived again under another id after it.
    pub doubled_late: Vec<String>,
    /// Nobody has them and nobody was told.
    pub lost: Vec<String>,
    /// As `lost`, but written by the server into the socket of a process that was just then killed or paused.
    pub in_socket: usize,
    /// The longest way of one that arrived.
    pub slowest: Duration,
}

impl Messages {
    fn count(&mut self, text: &str, message: &Message, faults: &[Fault]) {
        self.sent += 1;
        let answer = message.answer.map(|(_, answer)| answer);
        self.accepted += usize::from(answer == Some(Answer::Accepted));
        self.refused += usize::from(answer == Some(Answer::Refused));
        let Some((first, id)) = message.arrivals.first() else {
            // A SIP sender counts as told when nothing was promised; an XMPP sender only by an error.
            let promised = match message.way {
                Way::ToXmpp => answer == Some(Answer::Accepted),
                Way::ToSip => answer.is_none(),
            };
            let in_socket = |f: &Fault| f.takes_socket && (f.from..=f.until).contains(&message.sent);
            if promised && message.way == Way::ToSip && faults.iter().any(in_socket) {
                self.in_socket += 1;
            } else if promised {
                self.lost.push(format!("{text} (sent at {:.1} s)", message.sent.as_secs_f64()));
            }
            return;
        };
        self.arrived += 1;
        self.refused_and_arrived += usize::from(answer == Some(Answer::Refused));
        self.slowest = self.slowest.max(first.saturating_sub(message.sent));
        let others = message.arrivals.iter().skip(1);
        self.repeated += usize::from(others.clone().any(|(_, again)| again == id));
        if let Some((at, again)) = others.clone().find(|(_, again)| again != id) {
            let list = if *at <= *first + WINDOW { &mut self.doubled } else { &mut self.doubled_late };
            let (first, at) = (first.as_secs_f64(), at.as_secs_f64());
            list.push(format!("{text} ({id} at {first:.1} s, {again} at {at:.1} s)"));
        }
    }
}

/// Subscriptions and what they showed.
#[derive(Debug, Default, Clone)]
pub struct Presence {
    /// Watches in the books.
    pub watches: usize,
    /// Changes of state.
    pub changes: usize,
    /// Watches without a dialog at the end, or ended although nobody asked.
    pub lost: Vec<String>,
    /// Watches with more than one dialog at the end.
    pub doubled: Vec<String>,
    /// Watchers who see another state than the last one.
    pub wrong: Vec<String>,
    /// Time until each change was seen, in order, of changes made when nothing was broken.
    pub calm: Vec<Duration>,
    /// The same, of changes made during a fault or within 5 s of its end.
    pub blind: Vec<Duration>,
}

impl Presence {
    fn count(&mut self, name: &str, watch: &Watch, faults: &[Fault]) {
        self.watches += 1;
        self.changes += watch.changes.len();
        if watch.is_wrong() {
            let last = |list: &[(Duration, String)]| list.last().map(|(_, state)| state.clone()).unwrap_or_default();
            self.wrong.push(format!("{name}: is '{}', shown '{}'", last(&watch.changes), last(&watch.seen)));
        }
        match (watch.alive, watch.ended.first()) {
            (_, Some((at, reason))) => self.lost.push(format!("{name}: {reason} at {:.1} s", at.as_secs_f64())),
            (Some(0), None) => self.lost.push(format!("{name}: no dialog at the end")),
            (Some(2..), None) => self.doubled.push(name.to_owned()),
            _ => {}
        }
        for (number, (at, _)) in watch.changes.iter().enumerate() {
            let newer = &watch.changes[number..];
            let shown = watch.seen.iter().find(|(seen, state)| seen >= at && newer.iter().any(|(_, s)| s == state));
            let Some((seen, _)) = shown else { continue };
            let during = |f: &Fault| (f.from..f.until + Duration::from_secs(5)).contains(at);
            let list = if faults.iter().any(during) { &mut self.blind } else { &mut self.calm };
            list.push(seen.saturating_sub(*at));
        }
    }
}

/// The judgement on a whole run; its display is the table.
#[derive(Debug, Default, Clone)]
pub struct Judgement {
    /// Messages from SIP users.
    pub to_xmpp: Messages,
    /// Messages from XMPP users.
    pub to_sip: Messages,
    /// Subscriptions of both sides.
    pub presence: Presence,
    /// Messages that nobody had sent.
    pub unknown: Vec<String>,
    /// Requests whose CSeq left numbers out though no process died or stood still.
    pub skipped: Vec<String>,
    /// How many there were in a run in which one did.
    pub skipped_in_faults: usize,
    /// How often each fault was made.
    pub faults: BTreeMap<String, usize>,
}

impl Judgement {
    /// Everything that must not be, one line each; empty means that the run was right.
    pub fn faults_found(&self) -> Vec<String> {
        let lists = [
            ("lost on the way to XMPP", &self.to_xmpp.lost),
            ("doubled on the way to XMPP", &self.to_xmpp.doubled),
            ("lost on the way to SIP", &self.to_sip.lost),
            ("doubled on the way to SIP", &self.to_sip.doubled),
            ("subscription lost", &self.presence.lost),
            ("subscription doubled", &self.presence.doubled),
            ("wrong at the end", &self.presence.wrong),
            ("never sent", &self.unknown),
            ("CSeq with a gap", &self.skipped),
        ];
        let mut found = Vec::new();
        for (what, list) in lists {
            found.extend(list.iter().take(NAMED).map(|item| format!("{what}: {item}")));
            if list.len() > NAMED {
                found.push(format!("{what}: {} in all", list.len()));
            }
        }
        found
    }
}

/// The value that `part` (0 to 1) of a sorted list do not exceed.
pub fn percentile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "lists of a scenario are short, and the result stays inside"
    )]
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<40}{:>12}{:>12}", "messages", "to XMPP", "to SIP")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, of: fn(&Messages) -> usize| {
            writeln!(f, "  {name:<38}{:>12}{:>12}", of(&self.to_xmpp), of(&self.to_sip))
        };
        row(f, "sent", |m| m.sent)?;
        row(f, "answered 2xx", |m| m.accepted)?;
        row(f, "answered with an error or not at all", |m| m.refused)?;
        row(f, "arrived", |m| m.arrived)?;
        row(f, "arrived although refused", |m| m.refused_and_arrived)?;
        row(f, "arrived twice under one id", |m| m.repeated)?;
        row(f, "doubled within 32 s", |m| m.doubled.len())?;
        row(f, "doubled later", |m| m.doubled_late.len())?;
        row(f, "gone with the socket of a dead process", |m| m.in_socket)?;
        row(f, "lost", |m| m.lost.len())?;
        let (slow_in, slow_out) = (self.to_xmpp.slowest.as_secs_f64(), self.to_sip.slowest.as_secs_f64());
        writeln!(f, "  {:<38}{slow_in:>10.2} s{slow_out:>10.2} s", "slowest")?;
        let presence = &self.presence;
        writeln!(f, "subscriptions")?;
        for (name, count) in [
            ("watches", presence.watches),
            ("changes of state", presence.changes),
            ("lost", presence.lost.len()),
            ("doubled", presence.doubled.len()),
            ("wrong at the end", presence.wrong.len()),
            ("gaps in CSeq", self.skipped.len() + self.skipped_in_faults),
        ] {
            writeln!(f, "  {name:<38}{count:>12}")?;
        }
        for (name, list) in [("calm", &presence.calm), ("during faults", &presence.blind)] {
            let [middle, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(list, part).as_secs_f64());
            let text = format!("until seen, {name} ({})", list.len());
            writeln!(f, "  {text:<38}  p50 {middle:.2} s, p99 {most:.2} s, max {all:.2} s")?;
        }
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "faults: {}", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") })?;
        for line in self.faults_found() {
            writeln!(f, "WRONG {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn one_of_each() -> Ledger {
        let ledger = Ledger::default();
        for (way, text) in [(Way::ToXmpp, "in"), (Way::ToSip, "out")] {
            ledger.sent_at(at(1), way, text);
            ledger.arrived_at(at(2), text, "id-1");
        }
        ledger.answered("in", Answer::Accepted);
        ledger.changed_at(at(3), "ana sees juliet", "away");
        ledger.saw_at(at(4), "ana sees juliet", "away");
        ledger.alive("ana sees juliet", 1);
        ledger
    }

    fn verdicts(ledger: &Ledger) -> Vec<String> {
        ledger.judge().faults_found()
    }

    #[test]
    fn a_run_without_fault_is_right() {
        let ledger = one_of_each();
        assert_eq!(verdicts(&ledger), Vec::<String>::new());
        assert_eq!(ledger.judge().presence.calm, [at(1)]);
        assert!(!ledger.judge().to_string().contains("WRONG"));
    }

    #[test]
    fn an_accepted_message_that_nobody_got_is_lost_and_a_refused_one_is_not() {
        let ledger = one_of_each();
        ledger.sent(Way::ToXmpp, "refused");
        ledger.answered("refused", Answer::Refused);
        assert_eq!(verdicts(&ledger).len(), 0);
        ledger.sent(Way::ToXmpp, "promised");
        ledger.answered("promised", Answer::Accepted);
        assert!(verdicts(&ledger)[0].starts_with("lost on the way to XMPP: promised"));
    }

    #[test]
    fn a_message_to_sip_is_lost_without_arrival_and_error_unless_its_socket_died() {
        let ledger = one_of_each();
        ledger.sent(Way::ToSip, "returned");
        ledger.answered("returned", Answer::Refused);
        assert_eq!(verdicts(&ledger).len(), 0);
        let from = ledger.now();
        ledger.sent(Way::ToSip, "silent");
        assert!(verdicts(&ledger)[0].starts_with("lost on the way to SIP: silent"));
        ledger.fault("slow", from, false);
        assert_eq!(verdicts(&ledger).len(), 1, "a slow store excuses nothing");
        ledger.fault("kill", from, true);
        assert_eq!(verdicts(&ledger).len(), 0);
        assert_eq!(ledger.judge().to_sip.in_socket, 1);
        // The same excuse is none for what was promised to a SIP user.
        let from = ledger.now();
        ledger.sent(Way::ToXmpp, "promised");
        ledger.answered("promised", Answer::Accepted);
        ledger.fault("kill", from, true);
        assert_eq!(verdicts(&ledger).len(), 1);
    }

    #[test]
    fn a_second_arrival_is_a_repetition_or_a_double_by_its_id_and_time() {
        let ledger = one_of_each();
        ledger.arrived_at(at(3), "in", "id-1");
        assert_eq!((ledger.judge().to_xmpp.repeated, verdicts(&ledger).len()), (1, 0));
        ledger.arrived_at(at(2) + WINDOW + at(1), "in", "id-2");
        assert_eq!((ledger.judge().to_xmpp.doubled_late.len(), verdicts(&ledger).len()), (1, 0));
        ledger.arrived_at(at(3), "out", "id-2");
        assert!(verdicts(&ledger)[0].starts_with("doubled on the way to SIP: out"));
    }

    #[test]
    fn what_nobody_sent_is_found() {
        let ledger = one_of_each();
        ledger.arrived("ghost", "id-1");
        assert_eq!(verdicts(&ledger), ["never sent: ghost"]);
    }

    #[test]
    fn subscriptions_are_lost_by_an_end_or_by_absence_and_doubled_by_a_second_dialog() {
        for (alive, word) in [(0, "subscription lost"), (2, "subscription doubled")] {
            let ledger = one_of_each();
            ledger.alive("ana sees juliet", alive);
            assert!(verdicts(&ledger)[0].starts_with(word));
        }
        let ledger = one_of_each();
        ledger.ended("ana sees juliet", "481");
        assert!(verdicts(&ledger)[0].starts_with("subscription lost: ana sees juliet: 481"));
    }

    #[test]
    fn a_stale_state_is_wrong_and_a_late_one_is_blind_time() {
        let ledger = one_of_each();
        ledger.changed_at(at(5), "ana sees juliet", "busy");
        assert_eq!(verdicts(&ledger), ["wrong at the end: ana sees juliet: is 'busy', shown 'away'"]);
        assert_eq!(ledger.stale(), 1);
        ledger.changed_at(at(7), "ana sees juliet", "here");
        ledger.saw_at(at(9), "ana sees juliet", "here");
        assert_eq!(verdicts(&ledger).len(), 0);
        // The state in between was never shown: its blind time ends with the next one.
        assert_eq!(ledger.judge().presence.calm, [at(1), at(2), at(4)]);
        ledger.books().faults.push(Fault { name: "kill".into(), from: at(4), until: at(5), takes_socket: true });
        assert_eq!(ledger.judge().presence.blind, [at(2), at(4)]);
        assert_eq!(percentile(&[at(1), at(2), at(4)], 0.5), at(2));
        assert_eq!(percentile(&[], 0.5), at(0));
    }
}
