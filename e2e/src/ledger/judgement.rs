//! The judgement on the books of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Answer, Fault, LINK_BACK, Message, NAMED, WINDOW, Watch, Way};

/// How long 99 of 100 changes may take to be seen when something broke; less where no more than a pod was gone.
const BLIND: Duration = Duration::from_secs(10);
const BLIND_AFTER_POD: Duration = Duration::from_secs(5);
/// One of so many messages may arrive twice under one id in a run in which something broke.
const REPEATED: usize = 20;
/// One of so many may be gone with a process or a link that ended while it was on its way: what of it is no loss is known to
/// half a second only, and who loses all that comes near such an end shall not pass for that.
const TAKEN: usize = 5;
/// One of so many may arrive twice under two ids when the window is over.
const DOUBLED_LATE: usize = 100;
/// Messages that took longer are named.
const SLOW_MESSAGE: Duration = Duration::from_secs(25);
/// Within this time everybody must hear of the arrival or of the failure of a message, and see a state: a transaction is over
/// after 32 s, and where its process died others find that out within 10 s more (interworking specification S-41).
const LATE: Duration = Duration::from_secs(45);
/// What took longer to be seen is named.
const SLOW: Duration = Duration::from_secs(1);

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
    /// Arrived although the sender was told that they did not: what had left and was not confirmed when something broke.
    pub refused_and_arrived: usize,
    /// The same, when nothing was broken.
    pub refused_in_calm: Vec<String>,
    /// Arrived more than once under one id, which a receiver can see.
    pub repeated: usize,
    /// Arrived again under another id within [`WINDOW`].
    pub doubled: Vec<String>,
    /// Arrived again under another id after it.
    pub doubled_late: Vec<String>,
    /// Nobody has them and nobody was told.
    pub lost: Vec<String>,
    /// As `lost`, but written by the server into the socket of a process that was just then killed, or in the queues
    /// of a server that was just then stopped.
    pub taken: usize,
    /// With which faults they went.
    pub taken_by: BTreeMap<String, usize>,
    /// The longest way of one that arrived.
    pub slowest: Duration,
    /// The longest time until a sender was told of a failure.
    pub told: Duration,
    /// Arrived, or their senders were told, after a long time.
    pub slow: Vec<String>,
    /// The same, later than anybody waits for.
    pub late: Vec<String>,
}

impl Messages {
    pub(super) fn count(&mut self, text: &str, message: &Message, faults: &[Fault]) {
        self.sent += 1;
        let answer = message.answer.map(|(_, answer)| answer);
        self.accepted += usize::from(answer == Some(Answer::Accepted));
        self.refused += usize::from(answer == Some(Answer::Refused));
        if let Some((told, Answer::Refused)) = message.answer {
            let took = told.saturating_sub(message.sent);
            self.told = self.told.max(took);
            self.note_late(text, message, took, "refused");
        }
        let Some((first, id)) = message.arrivals.first() else {
            // A SIP sender counts as told when nothing was promised; an XMPP sender only by an error.
            let promised = match message.way {
                Way::ToXmpp => answer == Some(Answer::Accepted),
                Way::ToSip => answer.is_none(),
            };
            let taken = |f: &Fault| match (message.way, message.answer) {
                (Way::ToSip, _) => f.takes_to_sip(message.sent),
                (Way::ToXmpp, Some((accepted, _))) => f.takes_to_xmpp(accepted),
                (Way::ToXmpp, None) => false,
            };
            if !promised {
                return;
            }
            if let Some(fault) = faults.iter().find(|fault| taken(fault)) {
                self.taken += 1;
                *self.taken_by.entry(fault.name.clone()).or_default() += 1;
            } else {
                self.lost.push(format!("{text} (sent at {:.1} s)", message.sent.as_secs_f64()));
            }
            return;
        };
        self.arrived += 1;
        if let Some((told, Answer::Refused)) = message.answer {
            self.refused_and_arrived += 1;
            if !faults.iter().any(|f| f.touches(message.sent, told)) {
                self.refused_in_calm.push(format!("{text} (sent at {:.1} s)", message.sent.as_secs_f64()));
            }
        }
        let took = first.saturating_sub(message.sent);
        self.slowest = self.slowest.max(took);
        self.note_late(text, message, took, "arrived");
        let others = message.arrivals.iter().skip(1);
        self.repeated += usize::from(others.clone().any(|(_, again)| again == id));
        if let Some((at, again)) = others.clone().find(|(_, again)| again != id) {
            let list = if *at <= *first + WINDOW { &mut self.doubled } else { &mut self.doubled_late };
            let (first, at) = (first.as_secs_f64(), at.as_secs_f64());
            list.push(format!("{text} ({id} at {first:.1} s, {again} at {at:.1} s)"));
        }
    }

    fn note_late(&mut self, text: &str, message: &Message, took: Duration, what: &str) {
        let (sent, secs) = (message.sent.as_secs_f64(), took.as_secs_f64());
        for (list, from) in [(&mut self.slow, SLOW_MESSAGE), (&mut self.late, LATE)] {
            if took > from {
                list.push(format!("{text} (sent at {sent:.1} s, {what} after {secs:.1} s)"));
            }
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
    /// States that were shown after a newer one.
    pub outdated: Vec<String>,
    /// States that were shown to a watcher who had seen one, and that the user never took.
    pub untaken: Vec<String>,
    /// How often contacts were shown as unavailable within 45 s of a kill: the NOTIFY that follows a refresh was at the killed
    /// process, and without one the subscription is over after 32 s (RFC 6665 §4.1.2.2).
    pub unheard: usize,
    /// How often a NOTIFY of the only dialog of a watch got 481.
    pub disowned: usize,
    /// How often a subscription was refreshed, by either side.
    pub refreshed: usize,
    /// How often a watcher ended a watch and opened it again.
    pub renewed: usize,
    /// Watches that a watcher ended without ever getting the NOTIFY that follows (RFC 6665 §4.2.1.4).
    pub never_ended: Vec<String>,
    /// Dialogs that were left to run out while another one served.
    pub left: usize,
    /// Changes that were seen, and watches that were open again, later than anybody waits for.
    pub late: Vec<String>,
    /// Time until each change was seen, in order, of changes made when nothing was broken.
    pub calm: Vec<Duration>,
    /// The same, of changes made during a fault or within 5 s of its end.
    pub blind: Vec<Duration>,
    /// Those of them where no more was broken than that pods had ended.
    pub without_pod: Vec<Duration>,
    /// The changes that took longest to be seen: how long, whose watch, and when they were made.
    pub slowest: Vec<(Duration, String, Duration)>,
}

impl Presence {
    pub(super) fn count(&mut self, name: &str, watch: &Watch, faults: &[Fault], measured_from: Duration) {
        self.watches += 1;
        self.changes += watch.changes.len();
        if watch.is_wrong() {
            let last = |list: &[(Duration, String)]| list.last().map(|(_, state)| state.clone()).unwrap_or_default();
            self.wrong.push(format!("{name}: is '{}', shown '{}'", last(&watch.changes), last(&watch.seen)));
        }
        self.count_false(name, watch, faults);
        match (watch.alive, watch.ended.first()) {
            (_, Some((at, reason))) => self.lost.push(format!("{name}: {reason} at {:.1} s", at.as_secs_f64())),
            (Some(0), None) => {
                let refused = watch.disowned.last();
                let refused = refused.map(|at| format!(", its NOTIFY got 481 at {:.1} s", at.as_secs_f64()));
                let closed = watch.pauses.last().filter(|(_, until)| until.is_none());
                let closed =
                    closed.map(|(at, _)| format!(", its watcher wants another since {:.1} s", at.as_secs_f64()));
                let why = refused.unwrap_or_default() + &closed.unwrap_or_default();
                self.lost.push(format!("{name}: no dialog at the end{why}"));
            }
            (Some(2..), None) => self.doubled.push(name.to_owned()),
            _ => {}
        }
        self.refreshed += watch.refreshed.len();
        self.disowned += watch.disowned.len();
        for (from, until) in &watch.pauses {
            let Some(until) = until else { continue };
            self.renewed += 1;
            let (took, from) = (until.saturating_sub(*from), from.as_secs_f64());
            if took > LATE {
                self.late.push(format!("{name}: ended at {from:.1} s, open again after {:.1} s", took.as_secs_f64()));
            }
        }
        // When each change can be seen, and after which time; a watch that is open again shows the state of then.
        let changes = watch.changes.iter().enumerate().map(|(number, (at, _))| (number, *at, *at));
        let again = watch.pauses.iter().filter_map(|(from, until)| {
            let until = (*until)?;
            let number = watch.changes.iter().rposition(|(at, _)| *at <= until)?;
            Some((number, *from, until))
        });
        for (number, after, at) in changes.chain(again) {
            if at < measured_from || faults.iter().any(|f| f.hides(at)) {
                continue;
            }
            let at = faults.iter().map(|f| f.delays(at)).max().unwrap_or(at);
            let Some(newer) = watch.changes.get(number..) else { continue };
            let shown = watch.seen.iter().find(|(seen, state)| *seen >= after && newer.iter().any(|(_, s)| s == state));
            let Some((seen, _)) = shown else { continue };
            // Who had ended the watch meanwhile did not wait for it.
            let wanted = |(from, until): &(Duration, Option<Duration>)| *from > *seen || until.is_some_and(|u| u <= at);
            if !watch.pauses.iter().all(wanted) {
                continue;
            }
            self.time(seen.saturating_sub(at), name, at, faults);
        }
    }

    /// Each state shown must be one that the user took, and none that a newer one was shown in place of. Who is logged in at a
    /// server that stops is there no more.
    fn count_false(&mut self, name: &str, watch: &Watch, faults: &[Fault]) {
        let mut newest = None;
        for (at, state) in &watch.seen {
            let number = watch.changes.iter().rposition(|(_, taken)| taken == state);
            let list = match number {
                Some(_) if number >= newest => {
                    newest = number;
                    continue;
                }
                Some(_) => &mut self.outdated,
                None if newest.is_none() || faults.iter().any(|fault| fault.logs_out(*at)) => continue,
                None if state == "unavailable" && faults.iter().any(|fault| fault.loses_notify(*at)) => {
                    self.unheard += 1;
                    continue;
                }
                None => &mut self.untaken,
            };
            list.push(format!("{name} at {:.1} s: '{state}'", at.as_secs_f64()));
        }
    }

    fn time(&mut self, took: Duration, name: &str, at: Duration, faults: &[Fault]) {
        let mut touching = faults.iter().filter(|f| f.touches(at, at)).peekable();
        if touching.peek().is_none() {
            self.calm.push(took);
        } else {
            self.blind.push(took);
            if touching.all(|f| Fault::ends_a_pod(&f.name)) {
                self.without_pod.push(took);
            }
        }
        if took > LATE {
            let (took, at) = (took.as_secs_f64(), at.as_secs_f64());
            self.late.push(format!("{name}: changed at {at:.1} s, seen after {took:.1} s"));
        }
        self.note_slow(took, name, at);
    }

    fn note_slow(&mut self, took: Duration, name: &str, at: Duration) {
        let place = self.slowest.partition_point(|(longer, ..)| *longer >= took);
        if place < NAMED {
            self.slowest.insert(place, (took, name.to_owned(), at));
            self.slowest.truncate(NAMED);
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
    /// How often senders were refused in which words: a status, a condition of an error stanza.
    pub refusals: BTreeMap<String, usize>,
    /// Subscriptions of both sides.
    pub presence: Presence,
    /// How often watchers were asked for patience, by the status that they got; 0 for no answer.
    pub put_off: BTreeMap<u16, usize>,
    /// Messages that nobody had sent.
    pub unknown: Vec<String>,
    /// Requests whose CSeq left numbers out though no process died or stood still meanwhile, or lost its store.
    pub skipped: Vec<String>,
    /// How many there were while one did.
    pub skipped_in_faults: usize,
    /// Chat sessions that were opened.
    pub sessions: usize,
    /// Sessions that were gone though nobody had ended them.
    pub lost_sessions: Vec<String>,
    /// What a peer did on the wire that it must not do.
    pub misused: Vec<String>,
    /// How often each fault was made.
    pub faults: BTreeMap<String, usize>,
    /// How long servers that listened again were without their component, in order.
    pub link_back: Vec<Duration>,
    /// How long links stayed with pods that alone had no store, in order.
    pub link_moved: Vec<Duration>,
    /// How often such a link was connected anew after it had moved.
    pub fought: usize,
}

impl Judgement {
    /// Everything that must not be, one line each; empty means that the run was right.
    pub fn faults_found(&self) -> Vec<String> {
        let lists = [
            ("lost on the way to XMPP", &self.to_xmpp.lost),
            ("doubled on the way to XMPP", &self.to_xmpp.doubled),
            ("late on the way to XMPP", &self.to_xmpp.late),
            ("refused and arrived on the way to XMPP, with nothing broken", &self.to_xmpp.refused_in_calm),
            ("lost on the way to SIP", &self.to_sip.lost),
            ("doubled on the way to SIP", &self.to_sip.doubled),
            ("late on the way to SIP", &self.to_sip.late),
            ("refused and arrived on the way to SIP, with nothing broken", &self.to_sip.refused_in_calm),
            ("subscription lost", &self.presence.lost),
            ("subscription doubled", &self.presence.doubled),
            ("subscription not ended by its last NOTIFY", &self.presence.never_ended),
            ("wrong at the end", &self.presence.wrong),
            ("shown after a newer state", &self.presence.outdated),
            ("shown and never taken", &self.presence.untaken),
            ("late for a watcher", &self.presence.late),
            ("never sent", &self.unknown),
            ("session lost", &self.lost_sessions),
            ("CSeq with a gap", &self.skipped),
            ("against the rules of the wire", &self.misused),
        ];
        let mut found = Vec::new();
        for (what, list) in lists {
            found.extend(list.iter().take(NAMED).map(|item| format!("{what}: {item}")));
            if list.len() > NAMED {
                found.push(format!("{what}: {} in all", list.len()));
            }
        }
        if let Some(longest) = self.link_back.last().filter(|longest| **longest > LINK_BACK) {
            found.push(format!("a server that was back had no link for {:.1} s", longest.as_secs_f64()));
        }
        if let Some(longest) = self.link_moved.last().filter(|longest| **longest > LINK_BACK) {
            found.push(format!("a pod without a store kept a link for {:.1} s", longest.as_secs_f64()));
        }
        if self.fought > 0 {
            found.push(format!(
                "links that a pod without a store did not give up: connected anew {} times",
                self.fought
            ));
        }
        found.extend(self.above_the_bars());
        found
    }

    /// Tells whether the gateway served while things broke: more than half of what each side sent arrived. A refusal loses nothing, but
    /// one who refuses everything serves nobody.
    pub fn served(&self) -> bool {
        [&self.to_xmpp, &self.to_sip].iter().all(|messages| 2 * messages.arrived > messages.sent)
    }

    /// What is allowed, but not so much or so long.
    fn above_the_bars(&self) -> Vec<String> {
        let mut found = Vec::new();
        let presence = &self.presence;
        let kills: usize = ["kill", "kill-holder"].iter().filter_map(|name| self.faults.get(*name)).sum();
        if presence.unheard > kills {
            found.push(format!("contacts shown as away after {kills} kills: {}", presence.unheard));
        }
        for (name, list, bar) in [
            ("after the end of a pod", &presence.without_pod, BLIND_AFTER_POD),
            ("during faults", &presence.blind, BLIND),
        ] {
            let blind = percentile(list, 0.99);
            if blind >= bar {
                found.push(format!("p99 until seen {name}: {:.1} s, not below {bar:?}", blind.as_secs_f64()));
            }
        }
        for (way, messages) in [("XMPP", &self.to_xmpp), ("SIP", &self.to_sip)] {
            // One is little, however few messages there are.
            let may = if self.faults.is_empty() { 0 } else { messages.arrived.div_ceil(REPEATED) };
            if messages.repeated > may {
                found.push(format!("twice under one id on the way to {way}: {}, not {may} at most", messages.repeated));
            }
            let may = messages.sent.div_ceil(TAKEN);
            if messages.taken > may {
                found.push(format!("gone with what ended, on the way to {way}: {}, not {may} at most", messages.taken));
            }
            let (late, may) = (messages.doubled_late.len(), messages.arrived / DOUBLED_LATE);
            if late > may {
                let first = messages.doubled_late.first().map(String::as_str).unwrap_or_default();
                found.push(format!("doubled late on the way to {way}: {late}, not {may} at most: {first}"));
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
        row(f, "gone with a dead process or server", |m| m.taken)?;
        row(f, "lost", |m| m.lost.len())?;
        for (way, messages) in [("XMPP", &self.to_xmpp), ("SIP", &self.to_sip)] {
            for (fault, count) in &messages.taken_by {
                writeln!(f, "    {count} to {way} gone with {fault}")?;
            }
        }
        for (name, of) in [("slowest", (|m| m.slowest) as fn(&Messages) -> Duration), ("slowest error", |m| m.told)] {
            let (slow_in, slow_out) = (of(&self.to_xmpp).as_secs_f64(), of(&self.to_sip).as_secs_f64());
            writeln!(f, "  {name:<38}{slow_in:>10.2} s{slow_out:>10.2} s")?;
        }
        for slow in self.to_xmpp.slow.iter().chain(&self.to_sip.slow).take(NAMED) {
            writeln!(f, "    {slow}")?;
        }
        for (word, count) in &self.refusals {
            writeln!(f, "    {count} refused with {word}")?;
        }
        let presence = &self.presence;
        writeln!(f, "subscriptions")?;
        for (name, count) in [
            ("watches", presence.watches),
            ("changes of state", presence.changes),
            ("refreshed", presence.refreshed),
            ("ended and opened again", presence.renewed),
            ("unknown to the gateway (NOTIFY got 481)", presence.disowned),
            ("left to run out beside another one", presence.left),
            ("lost", presence.lost.len()),
            ("doubled", presence.doubled.len()),
            ("wrong at the end", presence.wrong.len()),
            ("shown after a newer state", presence.outdated.len()),
            ("shown and never taken", presence.untaken.len()),
            ("shown as away after a kill", presence.unheard),
            ("gaps in CSeq", self.skipped.len() + self.skipped_in_faults),
        ] {
            writeln!(f, "  {name:<38}{count:>12}")?;
        }
        for (status, count) in &self.put_off {
            writeln!(f, "    {count} SUBSCRIBE put off with {status}")?;
        }
        for (name, list) in [
            ("calm", &presence.calm),
            ("during faults", &presence.blind),
            ("after the end of a pod", &presence.without_pod),
        ] {
            let [middle, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(list, part).as_secs_f64());
            let text = format!("until seen, {name} ({})", list.len());
            writeln!(f, "  {text:<38}  p50 {middle:.2} s, p99 {most:.2} s, max {all:.2} s")?;
        }
        for (took, name, at) in presence.slowest.iter().filter(|(took, ..)| *took > SLOW) {
            writeln!(f, "    {:.2} s: {name}, changed at {:.1} s", took.as_secs_f64(), at.as_secs_f64())?;
        }
        writeln!(f, "sessions: {} opened, {} lost", self.sessions, self.lost_sessions.len())?;
        for (what, list) in [
            ("links back after their server's restart", &self.link_back),
            ("links away from pods without a store", &self.link_moved),
        ] {
            if list.is_empty() {
                continue;
            }
            let [middle, all] = [0.5, 1.0].map(|part| percentile(list, part).as_secs_f64());
            writeln!(f, "{what} ({}): p50 {middle:.2} s, max {all:.2} s", list.len())?;
        }
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "faults: {}", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") })?;
        for line in self.faults_found() {
            writeln!(f, "WRONG {line}")?;
        }
        Ok(())
    }
}
