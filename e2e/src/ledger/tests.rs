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
    ledger.accepted("in");
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
    ledger.refused("refused", "480");
    assert_eq!(verdicts(&ledger).len(), 0);
    ledger.sent(Way::ToXmpp, "promised");
    ledger.accepted("promised");
    assert!(verdicts(&ledger)[0].starts_with("lost on the way to XMPP: promised"));
}

#[test]
fn a_message_to_sip_is_lost_without_arrival_and_error_unless_its_socket_died() {
    let ledger = one_of_each();
    ledger.sent(Way::ToSip, "returned");
    ledger.refused("returned", "480");
    assert_eq!(verdicts(&ledger).len(), 0);
    let from = ledger.now();
    ledger.sent(Way::ToSip, "silent");
    assert!(verdicts(&ledger)[0].starts_with("lost on the way to SIP: silent"));
    ledger.fault("slow", from);
    assert_eq!(verdicts(&ledger).len(), 1, "a slow store excuses nothing");
    ledger.struck("kill", from, Some(ledger.now()));
    assert_eq!(verdicts(&ledger).len(), 0);
    assert_eq!(ledger.judge().to_sip.taken, 1);
    ledger.books().faults.push(fault("kill", 0, 60, Takes::Socket(at(60))));
    ledger.sent_at(at(30), Way::ToSip, "silent, too");
    assert!(verdicts(&ledger)[0].starts_with("gone with what ended, on the way to SIP: 2, not 1 at most"));
    ledger.books().messages.remove("silent, too");
    ledger.books().faults.pop();
    // The same excuse is none for what was promised to a SIP user.
    let from = ledger.now();
    ledger.sent(Way::ToXmpp, "promised");
    ledger.accepted("promised");
    ledger.struck("kill", from, Some(ledger.now()));
    assert_eq!(verdicts(&ledger).len(), 1);
}

#[test]
fn a_socket_is_at_risk_for_a_time_of_its_own_and_not_until_the_end_of_the_fault() {
    let lost = |sent: u64, takes: Takes| {
        let ledger = one_of_each();
        ledger.sent_at(at(sent), Way::ToSip, "silent");
        ledger.books().faults.push(fault("kill", 10, 20, takes));
        let judgement = ledger.judge();
        assert_eq!(judgement.to_sip.lost.len() + judgement.to_sip.taken, 1);
        judgement.to_sip.taken_by.get("kill").copied()
    };
    let socket = Takes::Socket(at(13));
    assert_eq!([9, 10, 13, 14, 20].map(|sent| lost(sent, socket)), [None, Some(1), Some(1), None, None]);
    assert_eq!(lost(12, Takes::Nothing), None, "it had no link, or goes on");
    // A process without a link may have had numbers; broken links do not.
    let ledger = one_of_each();
    let from = ledger.now();
    ledger.struck("pause", from, None);
    ledger.links_cut("link-cut", from);
    let faults = &ledger.books().faults;
    assert_eq!((faults[0].takes, faults[0].unsent), (Takes::Nothing, true));
    assert!(matches!(faults[1].takes, Takes::Socket(until) if until <= faults[1].until) && !faults[1].unsent);
}

#[test]
fn what_arrives_or_comes_back_after_a_long_time_is_late() {
    for (after, wrong) in [(45, 0), (46, 1)] {
        let ledger = one_of_each();
        ledger.sent_at(at(1), Way::ToXmpp, "slow");
        ledger.arrived_at(at(1 + after), "slow", "id-1");
        assert_eq!(verdicts(&ledger).len(), wrong);
        ledger.sent_at(at(1), Way::ToSip, "returned");
        ledger.books().messages.get_mut("returned").unwrap().answer = Some((at(1 + after), Answer::Refused));
        assert_eq!((verdicts(&ledger).len(), ledger.judge().to_sip.told), (2 * wrong, at(after)));
    }
    let ledger = one_of_each();
    ledger.sent_at(at(1), Way::ToSip, "returned");
    ledger.books().messages.get_mut("returned").unwrap().answer = Some((at(61), Answer::Refused));
    assert_eq!(verdicts(&ledger), ["late on the way to SIP: returned (sent at 1.0 s, refused after 60.0 s)"]);
}

#[test]
fn what_is_seen_or_open_again_after_a_long_time_is_late() {
    for (after, wrong) in [(45, 0), (46, 1)] {
        let (ledger, watch) = (one_of_each(), "ana sees juliet");
        ledger.changed_at(at(10), watch, "busy");
        ledger.saw_at(at(10 + after), watch, "busy");
        assert_eq!(ledger.judge().presence.late.len(), wrong);
        ledger.unwatched_at(at(100), watch);
        ledger.watches_again_at(at(100 + after), watch);
        ledger.saw_at(at(100 + after), watch, "busy");
        let found = verdicts(&ledger);
        assert_eq!(found.len(), 2 * wrong, "{found:?}");
        let all = ["ended at 100.0 s, open again after 46.0 s", "changed at 10.0 s, seen after 46.0 s"];
        assert!(
            found.iter().zip(all).all(|(f, what)| *f == format!("late for a watcher: {watch}: {what}")),
            "{found:?}"
        );
    }
}

#[test]
fn a_second_arrival_is_a_repetition_or_a_double_by_its_id_and_time() {
    let ledger = one_of_each();
    ledger.arrived_at(at(3), "in", "id-1");
    assert_eq!((ledger.judge().to_xmpp.repeated, ledger.judge().to_xmpp.doubled.len()), (1, 0));
    ledger.arrived_at(at(2) + WINDOW + at(1), "in", "id-2");
    assert_eq!((ledger.judge().to_xmpp.doubled_late.len(), ledger.judge().to_xmpp.doubled.len()), (1, 0));
    ledger.arrived_at(at(3), "out", "id-2");
    assert!(verdicts(&ledger)[0].starts_with("doubled on the way to SIP: out"));
}

/// A fault of these seconds that leaves no number unsent.
fn fault(name: &str, from: u64, until: u64, takes: Takes) -> Fault {
    Fault { name: name.into(), from: at(from), until: at(until), takes, unsent: false }
}

/// Something was broken in these seconds.
fn broken(ledger: &Ledger, name: &str, from: u64, until: u64) {
    ledger.books().faults.push(fault(name, from, until, Takes::Nothing));
}

#[test]
fn repetitions_are_few_under_faults_and_none_without() {
    let ledger = one_of_each();
    ledger.arrived_at(at(3), "in", "id-1");
    assert_eq!(verdicts(&ledger), ["twice under one id on the way to XMPP: 1, not 0 at most"]);
    broken(&ledger, "kill", 1, 2);
    assert_eq!(verdicts(&ledger), Vec::<String>::new());
    // 21 messages: two may, three may not.
    for number in 0..20 {
        let text = format!("in-{number}");
        ledger.sent_at(at(1), Way::ToXmpp, &text);
        ledger.arrived_at(at(2), &text, &text);
        if number == 0 {
            ledger.arrived_at(at(3), &text, &text);
        }
    }
    assert_eq!(verdicts(&ledger), Vec::<String>::new());
    ledger.arrived_at(at(3), "in-1", "in-1");
    assert_eq!(verdicts(&ledger), ["twice under one id on the way to XMPP: 3, not 2 at most"]);
}

#[test]
fn late_doubles_are_one_of_a_hundred_at_most() {
    let ledger = one_of_each();
    for number in 0..99 {
        let text = format!("out-{number}");
        ledger.sent_at(at(1), Way::ToSip, &text);
        ledger.arrived_at(at(2), &text, "id-1");
    }
    for (text, wrong) in [("out-1", 0), ("out-2", 1)] {
        ledger.arrived_at(at(3) + WINDOW, text, "id-2");
        assert_eq!(verdicts(&ledger).len(), wrong, "{text}");
    }
    assert!(verdicts(&ledger)[0].starts_with("doubled late on the way to SIP: 2, not 1 at most: out-1 ("));
}

#[test]
fn nobody_is_blind_for_five_seconds_after_a_kill_and_ten_after_anything() {
    let blind_for = |seconds: u64, faults: &[&str]| {
        let ledger = one_of_each();
        for name in faults {
            broken(&ledger, name, 9, 10);
        }
        ledger.changed_at(at(10), "ana sees juliet", "busy");
        ledger.saw_at(at(10 + seconds), "ana sees juliet", "busy");
        verdicts(&ledger)
    };
    assert_eq!(blind_for(4, &["kill", "kill-holder", "drain"]), Vec::<String>::new());
    assert_eq!(blind_for(5, &["kill", "drain"]), ["p99 until seen after the end of a pod: 5.0 s, not below 5s"]);
    assert_eq!(blind_for(9, &["kill", "pause"]), Vec::<String>::new());
    assert_eq!(blind_for(10, &["pause"]), ["p99 until seen during faults: 10.0 s, not below 10s"]);
    // What else was broken at another time does not count.
    let ledger = one_of_each();
    broken(&ledger, "pause", 40, 41);
    broken(&ledger, "kill", 9, 10);
    ledger.changed_at(at(10), "ana sees juliet", "busy");
    ledger.saw_at(at(15), "ana sees juliet", "busy");
    assert_eq!(verdicts(&ledger), ["p99 until seen after the end of a pod: 5.0 s, not below 5s"]);
    assert_eq!(blind_for(10, &[]), Vec::<String>::new(), "no fault, no blind time");
}

#[test]
fn what_changed_without_a_store_is_timed_from_its_return() {
    let ledger = one_of_each();
    ledger.books().faults.push(fault("redis away", 9, 60, Takes::Store));
    ledger.changed_at(at(10), "ana sees juliet", "busy");
    ledger.saw_at(at(63), "ana sees juliet", "busy");
    assert_eq!((ledger.judge().presence.blind, verdicts(&ledger).len()), (vec![at(3)], 0));
}

#[test]
fn a_message_may_arrive_though_refused_only_when_something_broke() {
    let ledger = one_of_each();
    ledger.books().messages.get_mut("in").unwrap().answer = Some((at(2), Answer::Refused));
    assert!(verdicts(&ledger)[0].starts_with("refused and arrived on the way to XMPP, with nothing broken: in"));
    let broken = |from: u64, until: u64| {
        ledger.books().faults = vec![fault("kill", from, until, Takes::Nothing)];
        verdicts(&ledger).len()
    };
    assert_eq!((broken(3, 4), broken(2, 4)), (1, 0));
    assert_eq!(ledger.judge().to_xmpp.refused_and_arrived, 1);
}

#[test]
fn a_session_that_nobody_ended_may_not_be_gone() {
    let ledger = one_of_each();
    ledger.session_opened();
    assert_eq!((verdicts(&ledger).len(), ledger.judge().sessions), (0, 1));
    ledger.session_lost(at(2), "ana with juliet");
    assert!(verdicts(&ledger)[0].starts_with("session lost: ana with juliet"));
}

#[test]
fn a_server_that_is_back_may_not_be_without_its_link_for_long() {
    let ledger = one_of_each();
    ledger.link_back(at(4));
    assert_eq!(verdicts(&ledger), Vec::<String>::new());
    ledger.link_back(at(6));
    assert_eq!(verdicts(&ledger), ["a server that was back had no link for 6.0 s"]);
}

#[test]
fn a_link_must_leave_a_pod_without_a_store_once_and_soon() {
    let ledger = one_of_each();
    ledger.link_moved(at(3));
    ledger.links_fought_for(0);
    assert_eq!(verdicts(&ledger), Vec::<String>::new());
    ledger.link_moved(at(6));
    ledger.links_fought_for(2);
    assert_eq!(
        verdicts(&ledger),
        [
            "a pod without a store kept a link for 6.0 s",
            "links that a pod without a store did not give up: connected anew 2 times"
        ]
    );
}

#[test]
fn changes_before_the_measurement_are_not_timed() {
    let ledger = one_of_each();
    ledger.books().measured_from = at(4);
    assert_eq!((ledger.judge().presence.calm.len(), ledger.judge().presence.changes), (0, 1));
}

#[test]
fn a_stopped_server_excuses_its_queues_and_the_time_without_it_but_no_wrong_end() {
    let ledger = one_of_each();
    let from = ledger.now();
    for (way, text) in [(Way::ToXmpp, "in queue"), (Way::ToSip, "out queue")] {
        ledger.sent(way, text);
        ledger.accepted(text);
    }
    ledger.books().messages.get_mut("out queue").unwrap().answer = None;
    let gone = ledger.now();
    std::thread::sleep(Duration::from_millis(2));
    ledger.changed("ana sees juliet", "unseen");
    ledger.sent(Way::ToXmpp, "taken though there was no server");
    ledger.accepted("taken though there was no server");
    ledger.server_away("restart", from, gone);
    let judgement = ledger.judge();
    assert_eq!((judgement.to_xmpp.taken, judgement.to_sip.taken), (1, 1));
    let found = verdicts(&ledger);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("lost on the way to XMPP: taken though"));
    assert!(found[1].starts_with("wrong at the end: ana sees juliet: is 'unseen'"));
    ledger.saw("ana sees juliet", "unseen");
    // Only the change before is timed; it was made within 5 s of the fault.
    assert_eq!((ledger.judge().presence.calm, ledger.judge().presence.blind), (vec![], vec![at(1)]));
}

#[test]
fn a_watch_that_its_watcher_ended_is_not_stale_and_shows_the_state_of_now_when_it_is_open_again() {
    let (ledger, watch) = (one_of_each(), "ana sees juliet");
    ledger.unwatched_at(at(5), watch);
    assert_eq!((ledger.stale(), ledger.unwatching(), verdicts(&ledger).len()), (0, 1, 0));
    ledger.changed_at(at(6), watch, "busy");
    assert_eq!((ledger.stale(), verdicts(&ledger).len()), (0, 0));
    ledger.watches_again_at(at(8), watch);
    assert_eq!((ledger.stale(), ledger.unwatching()), (1, 0));
    ledger.saw_at(at(9), watch, "busy");
    assert_eq!((ledger.stale(), verdicts(&ledger).len(), ledger.judge().presence.renewed), (0, 0, 1));
    // The change that nobody was to see is not timed, the first sight after the new beginning is.
    assert_eq!(ledger.judge().presence.calm, [at(1), at(1)]);
    // An older dialog's view says nothing about the new one, even when nothing has changed.
    ledger.unwatched_at(at(10), watch);
    ledger.watches_again_at(at(11), watch);
    assert_eq!(verdicts(&ledger), ["wrong at the end: ana sees juliet: is 'busy', shown 'busy'"]);
}

#[test]
fn a_watch_that_was_not_opened_again_is_lost() {
    let ledger = one_of_each();
    ledger.unwatched_at(at(5), "ana sees juliet");
    ledger.alive("ana sees juliet", 0);
    let lost = "subscription lost: ana sees juliet: no dialog at the end, its watcher wants another since 5.0 s";
    assert_eq!(verdicts(&ledger), [lost]);
    ledger.never_ended("ana sees juliet", "d1");
    assert_eq!(verdicts(&ledger)[1], "subscription not ended by its last NOTIFY: ana sees juliet: d1");
}

#[test]
fn a_notify_that_got_481_is_counted_and_a_loss_only_without_a_dialog_at_the_end() {
    let ledger = one_of_each();
    ledger.disowned("ana sees juliet");
    assert_eq!((verdicts(&ledger), ledger.judge().presence.disowned), (vec![], 1));
    ledger.alive("ana sees juliet", 0);
    let found = verdicts(&ledger);
    assert!(found[0].starts_with("subscription lost: ana sees juliet: no dialog at the end, its NOTIFY got 481 at "));
    assert_eq!(found.len(), 1);
    // An end that was told is named first.
    ledger.ended("ana sees juliet", "terminated");
    assert!(verdicts(&ledger)[0].starts_with("subscription lost: ana sees juliet: terminated at "));
}

#[test]
fn a_dialog_that_is_left_to_run_out_beside_another_one_is_counted_and_hides_no_loss() {
    let ledger = one_of_each();
    ledger.left("ana sees juliet");
    assert_eq!((verdicts(&ledger), ledger.judge().presence.left), (vec![], 1));
    ledger.alive("ana sees juliet", 0);
    assert_eq!(verdicts(&ledger), ["subscription lost: ana sees juliet: no dialog at the end"]);
}

#[test]
fn a_watch_that_no_notify_ended_is_found_whatever_broke() {
    let ledger = one_of_each();
    ledger.never_ended("ana sees juliet", "d1");
    ledger.never_ended("ana sees juliet", "d2");
    let found = ["d1", "d2"].map(|d| format!("subscription not ended by its last NOTIFY: ana sees juliet: {d}"));
    assert_eq!(verdicts(&ledger), found);
    ledger.unwatched_at(at(4), "ana sees juliet");
    ledger.watches_again_at(at(4), "ana sees juliet");
    ledger.saw_at(at(5), "ana sees juliet", "away");
    for takes in [Takes::Nothing, Takes::Socket(at(9)), Takes::Server(at(9)), Takes::Store] {
        ledger.books().faults = vec![fault("fault", 3, 9, takes)];
        assert_eq!(verdicts(&ledger), found, "{takes:?}");
    }
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
    ledger.books().faults.push(fault("kill", 4, 5, Takes::Socket(at(5))));
    assert_eq!(ledger.judge().presence.blind, [at(2), at(4)]);
    assert_eq!(percentile(&[at(1), at(2), at(4)], 0.5), at(2));
    assert_eq!(percentile(&[], 0.5), at(0));
}

#[test]
fn a_number_that_was_left_out_needs_a_fault_between_its_neighbours() {
    let verdict = |faults: &[(u64, u64, bool)]| {
        let ledger = one_of_each();
        ledger.skipped_at(at(10), at(20), "d1: NOTIFY with CSeq 7 after 5");
        for (from, until, unsent) in faults {
            let fault = Fault { unsent: *unsent, ..fault("kill", *from, *until, Takes::Nothing) };
            ledger.books().faults.push(fault);
        }
        (verdicts(&ledger), ledger.judge().skipped_in_faults)
    };
    let wrong = (vec!["CSeq with a gap: d1: NOTIFY with CSeq 7 after 5, seen at 10.0 s and 20.0 s".to_owned()], 0);
    assert_eq!(verdict(&[]), wrong);
    for (from, until) in [(9, 10), (12, 13), (20, 25), (5, 30)] {
        assert_eq!(verdict(&[(from, until, true)]), (vec![], 1), "{from} to {until}");
        assert_eq!(verdict(&[(from, until, false)]), wrong, "a fault that leaves no number unsent");
    }
    assert_eq!(verdict(&[(1, 9, true), (21, 30, true)]), wrong, "all was well between the two requests");
}

#[test]
fn what_may_leave_a_number_unsent_is_a_process_that_stops_and_a_store_whose_word_is_missing() {
    let ledger = one_of_each();
    let before = Instant::now();
    for (note, may) in [
        (Ledger::fault as fn(&Ledger, &str, Duration), false),
        (Ledger::links_cut, false),
        (|books, name, from| books.server_away(name, from, books.now()), false),
        (|books, name, from| books.struck(name, from, None), true),
        (Ledger::store_cut, true),
        (Ledger::store_away, true),
    ] {
        ledger.books().faults.clear();
        ledger.books().skipped.clear();
        let from = ledger.now();
        note(&ledger, "fault", from);
        ledger.skipped("d1", before, Instant::now());
        assert_eq!(ledger.judge().skipped_in_faults, usize::from(may));
    }
}

#[test]
fn a_state_shown_again_after_a_newer_one_and_one_that_nobody_took_are_wrong() {
    let ledger = one_of_each();
    let watch = "leo sees juliet";
    // What a watch shows at first may be from before the books.
    ledger.saw(watch, "closed");
    for state in ["first", "second"] {
        ledger.changed(watch, state);
        ledger.saw(watch, state);
        ledger.saw(watch, state);
    }
    ledger.alive(watch, 1);
    assert_eq!(verdicts(&ledger), Vec::<String>::new());
    ledger.saw(watch, "closed");
    ledger.saw(watch, "first");
    ledger.saw(watch, "second");
    let found = verdicts(&ledger);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("shown after a newer state: leo sees juliet at ") && found[0].ends_with("'first'"));
    assert!(found[1].starts_with("shown and never taken: leo sees juliet at ") && found[1].ends_with("'closed'"));
    // Who was logged in at a server that stopped is away, but was not in an older state.
    ledger.server_away("restart", Duration::ZERO, Duration::ZERO);
    let found = verdicts(&ledger);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("shown after a newer state"));
}

#[test]
fn a_kill_excuses_one_contact_who_is_shown_as_away() {
    let ledger = one_of_each();
    let watch = "juliet sees ana";
    ledger.changed(watch, "first");
    for state in ["first", "unavailable", "first"] {
        ledger.saw(watch, state);
    }
    ledger.alive(watch, 1);
    assert_eq!(verdicts(&ledger).len(), 1);
    ledger.struck("kill", Duration::ZERO, None);
    assert_eq!((verdicts(&ledger), ledger.judge().presence.unheard), (Vec::new(), 1));
    ledger.saw(watch, "unavailable");
    ledger.saw(watch, "first");
    assert_eq!(verdicts(&ledger), ["contacts shown as away after 1 kills: 2"]);
}
