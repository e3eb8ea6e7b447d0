//! Requests that are refused before or by the one whom they are for.

use isthmus_model::{BareAddress, PairId};

use super::rig::{Rig, header};

// S-37, S-38
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_are_refused_whatever_the_method() {
    let mut rig = Rig::start("Session").await;
    for method in ["OPTIONS", "SUBSCRIBE", "INVITE", "MESSAGE"] {
        let more = "Require: timer,\r\n eventlist\r\nProxy-Require: sec-agree\r\n";
        rig.partner.write(method, more, "").await;
        let answer = rig.partner.answered("SIP/2.0 420 ").await;
        for tag in ["timer", "eventlist"] {
            assert!(answer.contains(&format!("Unsupported: {tag}\r\n")), "{answer}");
        }
        assert!(!answer.contains("sec-agree"), "{answer}");
        if method == "INVITE" {
            rig.partner.acknowledge_refusal(&answer).await;
        }
    }
    rig.partner.write("OPTIONS", "Proxy-Require: sec-agree\r\n", "").await;
    rig.partner.answered("SIP/2.0 200 ").await;
    assert!(rig.server.rest().is_empty());
}

// S-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_of_no_dialog_gets_481_and_reaches_nobody() {
    let mut rig = Rig::start("Session").await;
    let bare = |jid| BareAddress::from_jid(jid).unwrap();
    let pair = PairId::of(&bare("juliet@corp.example"), &bare("ana@partner.example"));
    // One that we never made, and one that looks like ours.
    let tags = ["strange".to_owned(), pair.new_tag(&mut || 7)];
    let text = "Content-Type: text/plain\r\n";
    let contact = "Contact: <sip:ana@127.0.0.1>\r\nEvent: presence\r\n";
    let notify = "Event: presence\r\nSubscription-State: active\r\nContact: <sip:ana@127.0.0.1>\r\n";
    let mut call = 0;
    for tag in tags {
        for (method, more, body) in [
            ("MESSAGE", text, "hi"),
            ("BYE", "", ""),
            ("INFO", "", ""),
            ("OPTIONS", "", ""),
            ("NOTIFY", notify, ""),
            ("SUBSCRIBE", contact, ""),
            ("INVITE", contact, ""),
        ] {
            call += 1;
            let dialog = format!(
                "From: <sip:ana@partner.example>;tag=a\r\nTo: <sip:juliet@corp.example>;tag={tag}\r\nCall-ID: lost-{call}\r\n"
            );
            rig.partner.in_dialog(&dialog, method, 2, more, body).await;
            let answer = rig.partner.answered("SIP/2.0 481 ").await;
            assert!(header(&answer, "CSeq").ends_with(method), "{answer}");
            // Over UDP a refused INVITE is repeated until this.
            if method == "INVITE" {
                rig.partner.acknowledge_refusal(&answer).await;
            }
        }
    }
    assert!(rig.server.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_no_stanza_can_carry_is_refused_for_good() {
    let mut rig = Rig::start("Session").await;
    // Each character takes five bytes in XML, which makes more than the local server takes.
    rig.partner.write("MESSAGE", "Content-Type: text/plain\r\n", &"&".repeat(60_000)).await;
    let answer = rig.partner.answered("SIP/2.0 413 ").await;
    assert_eq!(header(&answer, "Retry-After"), "", "{answer}");
    assert!(rig.server.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_messages_than_the_partners_limit_are_refused_with_a_time() {
    let mut rig = Rig::with_partner("limits: {messagesPerSecond: 2}").await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        rig.partner.write("MESSAGE", "Content-Type: text/plain\r\n", "hi").await;
    }
    for _ in 0..3 {
        answers.push(rig.partner.receive().await);
    }
    // Whichever is answered first: the accepted ones wait for the server.
    let refused: Vec<_> = answers.iter().filter(|answer| answer.starts_with("SIP/2.0 503 ")).collect();
    assert_eq!(refused.len(), 1, "{answers:?}");
    assert_eq!(header(refused[0], "Retry-After"), "1", "{answers:?}");
}
