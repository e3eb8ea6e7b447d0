//! The classes of RFC 4475 §3.1.1: unusual and valid. The names are those of the RFC; the messages are composed here
//! with the same peculiarities.

use bytes::Bytes;
use isthmus_sip::{Contact, HeaderName, Host, Limits, Message, Method, Scheme, StatusCode, Transport};

use crate::{parse, wire};

/// All of them, for the oracle and the round trip.
pub(crate) fn all() -> Vec<(&'static str, Bytes)> {
    vec![
        ("wsinv", wire(WSINV)),
        ("intmeth", wire(INTMETH)),
        ("esc01", wire(ESC01)),
        ("escnull", wire(ESCNULL)),
        ("esc02", wire(ESC02)),
        ("lwsdisp", wire(LWSDISP)),
        ("longreq", longreq()),
        ("dblreq", wire(DBLREQ)),
        ("semiuri", wire(SEMIURI)),
        ("transports", wire(TRANSPORTS)),
        ("mpart01", mpart01()),
        ("unreason", wire(UNREASON)),
        ("noreason", wire(NOREASON)),
        ("inv2543", wire(INV2543)),
    ]
}

const WSINV: &str = r#"
INVITE sip:vera@chair.example;unknownparam SIP/2.0
TO :
 sip:vera@chair.example ;   tag    = 1918181833n
from   : "J Rosen \\\""       <sip:jr@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 144
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \"\"" <sip:jr@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

v=0
o=mh 29739 7272939 IN IP4 192.0.2.3
s=-
c=IN IP4 192.0.2.4
t=0 0
m=audio 49217 RTP/AVP 0 12
m=video 3227 RTP/AVP 31
a=rtpmap:31 LPC
"#;

// S-38
#[test]
fn wsinv_whitespace_folding_and_compact_names_are_read_as_one_message() {
    let message = parse(WSINV).expect("valid");
    assert_eq!(message.method(), Method::Invite);
    assert_eq!(message.request_uri(), "sip:vera@chair.example;unknownparam");
    assert_eq!(message.to().uri_str(), "sip:vera@chair.example");
    assert_eq!(message.to().tag(), Some("1918181833n"));
    assert_eq!(message.from_().display_name().as_deref(), Some(r#"J Rosen \""#));
    assert_eq!(message.from_().tag(), Some("98asjd8"));
    assert_eq!(message.max_forwards().expect("number"), Some(68));
    assert_eq!((message.cseq().number, message.cseq().method), (9, Method::Invite));
    let vias: Vec<_> = message.vias().map(|via| via.expect("via")).collect();
    assert_eq!(vias.len(), 3);
    assert_eq!(vias[0].transport(), Some(Transport::Udp));
    assert_eq!(vias[0].branch(), Some("390skdjuw"));
    assert_eq!(vias[0].rfc3261_branch(), None);
    assert_eq!(vias[1].transport(), Some(Transport::Tcp));
    assert_eq!(vias[1].host(), Host::Name("SPINDLE.example.com"));
    assert_eq!(vias[2].branch(), Some("z9hG4bK30239"));
    assert_eq!(message.header(HeaderName::Subject), Some(""));
    let fangled: Vec<_> = message.headers_named("newfangledheader").collect();
    assert_eq!(fangled.len(), 1);
    assert_eq!(
        fangled[0].split_ascii_whitespace().collect::<Vec<_>>(),
        ["newfangled", "value", "continued", "newfangled", "value"]
    );
    assert_eq!(message.headers_named("UnknownHeaderWithUnusualValue").next(), Some(";;,,;;,;"));
    let Ok(Some(Contact::Address(contact))) = message.contact() else { panic!("contact") };
    assert_eq!(contact.display_name().as_deref(), Some("Quoted string \"\""));
    assert_eq!(contact.params().get("newparam"), Some("newvalue"));
    assert_eq!(contact.params().find("secondparam"), Some(None));
    assert_eq!(contact.params().get("q"), Some("0.33"));
    let route = message.routes().next().expect("route").expect("readable");
    assert!(route.uri().expect("uri").is_loose_route());
    assert_eq!(message.body().len(), 144);
}

const INTMETH: &str = "
!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~
To: \"BEL:\\\u{7} NUL:\\\u{0} DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>
From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"\u{440}\u{430}\u{431}\u{43e}\u{442}\u{430}\";tag=_token~1'+`*%!-.
Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{
CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~
Max-Forwards: 255
extensionHeader-!.%*+_`'~:\u{feff}\u{5927}\u{505c}\u{96fb}
Content-Length: 0

";

#[test]
fn intmeth_every_character_that_may_stand_somewhere_stands_there() {
    let message = parse(INTMETH).expect("valid");
    assert_eq!(message.method(), Method::Other("!interesting-Method0123456789_*+`.%indeed'~"));
    let to = message.to();
    assert_eq!(to.display_name().as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    let uri = to.uri().expect("uri");
    assert_eq!(uri.user(), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(message.from_().tag(), Some("_token~1'+`*%!-."));
    assert_eq!(message.from_().display_name().as_deref(), Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(message.call_id(), "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
    assert_eq!(message.max_forwards().expect("number"), Some(255));
    assert_eq!(message.headers_named("extensionHeader-!.%*+_`'~").next(), Some("\u{feff}\u{5927}\u{505c}\u{96fb}"));
}

const ESC01: &str = "
INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0
To: sip:%75se%72@example.com
From: <sip:I%20have%20spaces@example.net>;tag=938
Max-Forwards: 87
i: esc01.239409asdfakjkn23onasd0-3234
CSeq: 234234 INVITE
Via: SIP/2.0/UDP host5.example.net;branch=z9hG4bKkdjuw
C: application/sdp
Contact:
  <sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>
Content-Length: 5

v=0
";

#[test]
fn esc01_escapes_are_no_delimiters() {
    let message = parse(ESC01).expect("valid");
    let uri = isthmus_sip::Uri::parse(message.request_uri()).expect("uri");
    assert_eq!(uri.percent_decode_user().as_deref(), Some("sips:user@example.com"));
    assert_eq!(uri.host(), Some(Host::Name("example.net")));
    assert_eq!(message.to().uri().expect("uri").percent_decode_user().as_deref(), Some("user"));
    assert_eq!(message.from_().uri().expect("uri").percent_decode_user().as_deref(), Some("I have spaces"));
}

const ESCNULL: &str = "
REGISTER sip:example.com SIP/2.0
To: sip:null-%00-null@example.com
From: sip:null-%00-null@example.com;tag=839923423
Max-Forwards: 70
Call-ID: escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd
CSeq: 14398234 REGISTER
Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bKkdjuw
Contact: <sip:%00@host5.example.com>
Contact: <sip:%00%00@host5.example.com>
L:0

";

#[test]
fn escnull_an_escaped_nul_is_kept_escaped() {
    let message = parse(ESCNULL).expect("valid");
    assert_eq!(message.to().uri().expect("uri").user(), Some("null-%00-null"));
    let contacts: Vec<_> = message.headers(HeaderName::Contact).collect();
    assert_eq!(contacts, ["<sip:%00@host5.example.com>", "<sip:%00%00@host5.example.com>"]);
}

const ESC02: &str = r#"
RE%47IST%45R sip:registrar.example.com SIP/2.0
To: "%Z%45" <sip:resource@example.com>
From: "%Z%45" <sip:resource@example.com>;tag=f232jadfj23
Call-ID: esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf
Via: SIP/2.0/TCP host.example.com;branch=z9hG4bK209%fzsnel234
CSeq: 29344 RE%47IST%45R
Max-Forwards: 70
Contact: <sip:alias1@host1.example.com>
C%6Fntact: <sip:alias2@host2.example.com>
Contact: <sip:alias3@host3.example.com>
l: 0

"#;

#[test]
fn esc02_a_percent_outside_of_uris_is_only_a_percent() {
    let message = parse(ESC02).expect("valid");
    assert_eq!(message.method(), Method::Other("RE%47IST%45R"));
    assert_eq!(message.to().display_name().as_deref(), Some("%Z%45"));
    assert_eq!(message.contacts().count(), 2);
    assert_eq!(message.top_via().branch(), Some("z9hG4bK209%fzsnel234"));
}

const LWSDISP: &str = "
OPTIONS sip:user@example.com SIP/2.0
To: sip:user@example.com
From: caller<sip:caller@example.com>;tag=323
Max-Forwards: 70
Call-ID: lwsdisp.1234abcd@funky.example.com
CSeq: 60 OPTIONS
Via: SIP/2.0/UDP funky.example.com;branch=z9hG4bKkdjuw
l: 0

";

#[test]
fn lwsdisp_no_space_is_needed_after_a_display_name() {
    let message = parse(LWSDISP).expect("valid");
    assert_eq!(message.from_().display_name().as_deref(), Some("caller"));
    assert_eq!(message.from_().uri_str(), "sip:caller@example.com");
}

fn longreq() -> Bytes {
    let long = |word: &str, times| word.repeat(times);
    let vias = (0..34).fold(String::new(), |vias, n| {
        vias + &format!("Via: SIP/2.0/TCP sip{n}.example.com;branch=z9hG4bK{}{n}\n", "a".repeat(40))
    });
    wire(&format!(
        "INVITE sip:user@example.com SIP/2.0\n\
         To: \"I have a user name of {0}proportion\" <sip:user@example.com:6000;{1}=unsafeparam;{2}no>\n\
         F: sip:{3}user@example.net;tag=12{4}82424;unknownheaderparam{5}=unknown{6}\n\
         Call-ID: longreq.one{7}call\n\
         CSeq: 3882340 INVITE\n\
         Unknown{8}: unknown-{9}-value\n\
         {vias}Max-Forwards: 70\n\
         Contact: <sip:{3}user@host5.example.net>\n\
         Content-Type: application/sdp\n\
         l: 5\n\nv=0\n",
        long("extreme ", 30),
        long("unknownparam", 20),
        long("very", 30),
        long("amazingly", 60),
        long("982424", 80),
        long("long", 30),
        long("loooong", 60),
        long("really", 90),
        long("Long", 60),
        long("very", 90),
    ))
}

#[test]
fn longreq_long_values_and_thirty_four_vias_are_within_the_limits() {
    let message = Message::parse(longreq(), &Limits::default()).expect("valid");
    assert_eq!(message.vias().count(), 34);
    assert!(message.from_().uri_str().len() > 500);
    assert!(message.call_id().len() > 500);
    assert_eq!(message.body().len(), 5);
}

const DBLREQ: &str = "
REGISTER sip:example.com SIP/2.0
To: sip:j.user@example.com
From: sip:j.user@example.com;tag=43251j3j324
Max-Forwards: 8
I: dblreq.0ha0isndaksdj99sdfafnl3lk233412
Contact: sip:j.user@host.example.com
CSeq: 8 REGISTER
Via: SIP/2.0/UDP 192.0.2.125;branch=z9hG4bKkdjuw23492
Content-Length: 0

INVITE sip:joe@example.com SIP/2.0
t: sip:joe@example.com

";

#[test]
fn dblreq_what_follows_the_message_in_a_datagram_is_dropped() {
    let message = parse(DBLREQ).expect("valid");
    assert_eq!(message.method(), Method::Register);
    assert!(message.body().is_empty());
}

const SEMIURI: &str = "
OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0
To: sip:j_user@example.com
From: sip:caller@example.org;tag=33242
Max-Forwards: 3
Call-ID: semiuri.0ha0isndaksdj
CSeq: 8 OPTIONS
Accept: application/sdp, application/pkcs7-mime,
        multipart/mixed, multipart/signed,
        message/sip, message/sipfrag
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkdjuw
l: 0

";

#[test]
fn semiuri_a_semicolon_before_the_at_sign_belongs_to_the_user() {
    let message = parse(SEMIURI).expect("valid");
    let uri = isthmus_sip::Uri::parse(message.request_uri()).expect("uri");
    assert_eq!(uri.percent_decode_user().as_deref(), Some("user;par=u@example.net"));
    assert_eq!(uri.params().count(), 0);
    assert_eq!(message.accept().flatten().count(), 6);
}

const TRANSPORTS: &str = "
OPTIONS sip:user@example.com SIP/2.0
To: sip:user@example.com
From: <sip:caller@example.com>;tag=323
Max-Forwards: 70
Call-ID: transports.kijh4akdnaqjkwendsasfdj
Accept: application/sdp
CSeq: 60 OPTIONS
Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKkdjuw
Via: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKklasjdhf
Via: SIP/2.0/TLS t3.example.com;branch=z9hG4bK2980unddj
Via: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en
Via: SIP/2.0/TCP t5.example.com;branch=z9hG4bK0a9idfnee
l: 0

";

#[test]
fn transports_unknown_ones_are_named_and_not_ours() {
    let message = parse(TRANSPORTS).expect("valid");
    let transports: Vec<_> = message.vias().flatten().map(|via| (via.transport_name(), via.transport())).collect();
    assert_eq!(
        transports,
        [
            ("UDP", Some(Transport::Udp)),
            ("SCTP", None),
            ("TLS", Some(Transport::Tls)),
            ("UNKNOWN", None),
            ("TCP", Some(Transport::Tcp)),
        ]
    );
}

fn mpart01() -> Bytes {
    let mut body = b"--7a9cbec02ceef655\r\nContent-Type: application/octet-stream\r\n\r\n".to_vec();
    body.extend((0..=255).chain([0, 13, 10, 13, 10]));
    body.extend_from_slice(b"\r\n--7a9cbec02ceef655--\r\n");
    let mut message = wire(&format!(
        "MESSAGE sip:kumiko@example.org SIP/2.0\n\
         Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543-;rport\n\
         Max-Forwards: 70\n\
         Call-ID: 5dbc1dd5ee1bb8c8\n\
         From: <sip:fluffy@example.com>;tag=2fb0dcc9\n\
         To: <sip:kumiko@example.org>\n\
         CSeq: 1 MESSAGE\n\
         Content-Type: multipart/mixed;boundary=7a9cbec02ceef655\n\
         Content-Length: {}\n\n",
        body.len()
    ))
    .to_vec();
    message.extend(body);
    message.into()
}

#[test]
fn mpart01_a_binary_body_passes_unchanged() {
    let message = Message::parse(mpart01(), &Limits::default()).expect("valid");
    let content_type = message.content_type().expect("readable").expect("there");
    assert!(content_type.is("Multipart/Mixed"));
    assert_eq!(content_type.boundary().as_deref(), Some("7a9cbec02ceef655"));
    assert!(message.body().windows(3).any(|w| w == [254, 255, 0]));
}

const UNREASON: &str = "
SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e} \u{441}\u{442}\u{43e} - \u{43f}\u{440}\u{43e}\u{441}\u{442}\u{43e}\u{435}
Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923
Call-ID: unreason.1234ksdfak3j2erwedfsASdf
CSeq: 35 INVITE
From: sip:user@example.com;tag=11141343
To: sip:user@example.edu;tag=2229
Content-Length: 5
Content-Type: application/sdp
Contact: <sip:user@host198.example.com>

v=0
";

#[test]
fn unreason_a_reason_phrase_may_be_any_text() {
    let message = parse(UNREASON).expect("valid");
    assert!(!message.is_request());
    assert_eq!(message.status().map(StatusCode::code), Some(200));
    assert!(message.reason().starts_with("= 2**3 * 5**2 \u{43d}"));
    assert_eq!(message.method(), Method::Invite);
}

const NOREASON: &str = "
SIP/2.0 100\u{20}
Via: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bK2398ndaoe
Call-ID: noreason.asndj203insdf99223ndf
CSeq: 35 INVITE
From: <sip:user@example.com>;tag=39ansfi3
To: <sip:user@example.edu>;tag=902jndnke3
Content-Length: 0
Contact: <sip:user@host105.example.com>

";

#[test]
fn noreason_a_reason_phrase_may_be_empty() {
    assert_eq!(parse(NOREASON).expect("valid").reason(), "");
    // and the space before it is often left out
    assert_eq!(parse(&NOREASON.replace("100 ", "100")).expect("tolerated").status().map(StatusCode::code), Some(100));
}

const INV2543: &str = "
INVITE sip:UserB@example.com SIP/2.0
Via: SIP/2.0/UDP iftgw.example.com
From: <sip:+13035551111@ift.client.example.net;user=phone>
Record-Route: <sip:UserB@example.com;maddr=ss1.example.com>
To: sip:+16505552222@ss1.example.net;user=phone
Call-ID: inv2543.1717@ift.client.example.com
CSeq: 56 INVITE
Content-Type: application/sdp

v=0
o=mhandley 29739 7272939 IN IP4 192.0.2.5
s=-
";

#[test]
fn inv2543_a_message_of_the_older_standard_has_no_branch_tag_or_length() {
    let message = parse(INV2543).expect("valid");
    assert_eq!(message.top_via().branch(), None);
    assert_eq!(message.from_().tag(), None);
    assert_eq!(message.to().params().get("user"), Some("phone"));
    assert!(message.body().ends_with(b"s=-\r\n"));
}

#[test]
fn an_unknown_scheme_is_for_the_user_agent_to_refuse() {
    for (uri, scheme) in [
        ("nobodyKnowsThisScheme:totallyopaquecontent", Scheme::Other("nobodyKnowsThisScheme")),
        ("soap.beep://192.0.2.103:3002", Scheme::Other("soap.beep")),
        ("name:John_Smith", Scheme::Other("name")),
        ("tel:+1-816-555-1212", Scheme::Tel),
    ] {
        let message = parse(&LWSDISP.replace("OPTIONS sip:user@example.com", &format!("OPTIONS {uri}"))).expect(uri);
        assert_eq!(isthmus_sip::Uri::parse(message.request_uri()).expect(uri).scheme(), scheme);
    }
}
