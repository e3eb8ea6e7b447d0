use isthmus_crds::Duration as Span;

use super::*;

/// The table of the peer specification §6.1: transport, discovery, trust.
const TRANSPORT: &str = "
OcsR2|Sip|SipFederationTls|SingleHostSingleIp|OneSrvOneA|Strict|Tls10|Yes|MtlsCnOrSan|Yes|CrLf 120|15
Lync2010|Sip|SipFederationTls|BestOnly|OneSrvManyA|Strict|Tls10|Yes|MtlsSan|Yes|CrLf 120|15
Lync2013|Sip|SipFederationTls|BestOnly|OneSrvManyA|Strict|Tls12|Yes|MtlsSan|Yes|CrLf 120|15
Sfb2015|Sip|SipFederationTls|BestOnly|OneSrvManyA|Strict|Tls12|Maybe|MtlsSan|Yes|CrLf 120|15
Sfb2019Se|Sip|SipFederationTls|BestOnly|OneSrvManyA|Strict|Tls12|No|MtlsSan|Yes|CrLf 120|15
M365|Sip|SipFederationTls|BestOnly|OneSrvManyA|Strict|Tls12|No|MtlsSanSharedEdge|Yes|CrLf 120|15
CiscoImpSip|Sip|SipFederationTls|Rfc2782|OneSrvManyA|Advise|Tls12|Maybe|MtlsSubjectListed|Yes|CrLf 120|50
ExpresswaySip|Sip|SipFederationTls|Rfc2782|OneSrvManyA|Advise|Tls12|No|MtlsSan|Yes|CrLf 120|50
SametimeXmpp|Xmpp|XmppServer|FirstOnly|OneSrvOneA|No|Tls10|Yes|SaslExternalIfTlsElseDialback|Yes|Space 120|50
WebexMessenger|Xmpp|XmppServer|Rfc2782|ManySrvEqual|No|Tls12|Maybe|DialbackOnly|No|Space 120|50
WebexApp|Xmpp|XmppServer|Rfc2782|ManySrvEqual|No|Tls12|No|DialbackOnly|No|Space 120|50
CiscoImpXmpp|Xmpp|XmppServer|Rfc2782|ManySrvEqual|No|Tls12|Maybe|SaslExternalThenDialback|Yes|Space 120|100
ExpresswayXmpp|Xmpp|XmppServer|Rfc2782|ManySrvEqual|No|Tls12|No|DialbackOnly|Yes|Space 120|100
Lync2013Xmpp|Xmpp|XmppServer|BestOnly|OneSrvManyA|No|Tls10|Yes|SaslExternalThenDialback|Yes|Space 60|20
Prosody|Xmpp|XmppsThenXmpp|Rfc2782All|ManySrvEqual|No|Tls12|No|SaslExternalThenDialback|Yes|Space 120|100
Ejabberd|Xmpp|XmppServer|Rfc2782All|ManySrvEqual|No|Tls12|No|SaslExternalThenDialback|Yes|Space 120|100
Openfire|Xmpp|XmppXmppsJabber|Rfc2782All|ManySrvEqual|No|Tls12|No|SaslExternalThenDialback|Yes|Space 120|100
MongooseIm|Xmpp|XmppServer|Rfc2782All|ManySrvEqual|No|Tls12|No|SaslExternalThenDialback|Yes|Space 120|100
XmppGeneric|Xmpp|XmppsThenXmpp|Rfc2782All|ManySrvEqual|No|Tls12|No|SaslExternalThenDialback|Yes|Space 120|50
Kamailio|Sip|Rfc3263|Rfc2782All|ManySrvEqual|No|Tls12|No|TlsServerOrMtls|No|CrLf 60|50
OpenSips|Sip|Rfc3263|Rfc2782All|ManySrvEqual|No|Tls12|No|TlsServerOrMtls|No|CrLf 60|50
Sylk|Sip|Rfc3263|Rfc2782All|ManySrvEqual|No|Tls12|No|TlsServer|No|CrLf 60|20
SimpleGeneric|Sip|Rfc3263|Rfc2782All|ManySrvEqual|No|Tls12|No|TlsServerOrMtls|No|CrLf 60|20";

/// The SIP rows of §6.2: imMode, sdpMedia, typing out, plainTextOnly, emitPresence, notifyStyle, expires ask/grant,
/// dndMapsTo, idleMapsTo, onMessage4xx, refreshFromPeer. Cells that the specification leaves to the peer or does not know are
/// the cautious values.
const SIP_MESSAGING: &str = "
OcsR2|Session|Message|KeyboardActivity|No|MsPidfPlusRpid|Notify|7200/7200|Busy|Away|Reinvite|6300
Lync2010|Session|Message|KeyboardActivity|No|MsPidfPlusRpid|Notify|7200/7200|Busy|Away|Reinvite|6300
Lync2013|Session|Message|KeyboardActivity|No|MsPidfPlusRpid|Notify|7200/7200|Busy|Away|Reinvite|6300
Sfb2015|Session|Message|KeyboardActivity|No|MsPidfPlusRpid|Notify|7200/7200|Busy|Away|Reinvite|6300
Sfb2019Se|Session|Message|KeyboardActivity|No|MsPidfPlusRpid|Notify|7200/7200|Busy|Away|Reinvite|6300
M365|Session|Message|Off|Yes|MsPidfPlusRpid|Notify|7200/7200|Busy|Away|Reinvite|6300
CiscoImpSip|Session|Message|Off|No|MsPidfPlusRpid|Notify|7200/7200|Busy|Idle|Reinvite|-
ExpresswaySip|Session|Message|Off|No|MsPidfPlusRpid|NotifyByContactHost|7200/7200|Busy|Away|Reinvite|-
Kamailio|Pager|MessageOr488|IsComposing|No|Rpid|NotifyAllowEmpty|3600/3600|Busy|Away|Bounce|3600
OpenSips|Pager|MessageOr488|IsComposing|No|Rpid|NotifyAllowEmpty|3600/3600|Busy|Away|Bounce|3600
Sylk|Pager|Reject488|IsComposing|No|RpidExtended|Notify|3600/3600|Busy|Away|Bounce|-
SimpleGeneric|PagerThenSession|MessageOr488|IsComposing|No|Rpid|NotifyAllowEmpty|3600/3600|Busy|Away|Bounce|-";

/// The XMPP rows of §6.2: typing, plainTextOnly, presence out, away in, dndMapsTo, idleMapsTo, groupChat, silence before a
/// bounce, refreshFromPeer.
const XMPP_MESSAGING: &str = "
SametimeXmpp|ChatStates if disco|Yes|AsIs|kept|Dnd|AwayText|None|-|-
WebexMessenger|ChatStates|No|BusyAsIdle|kept|Dnd|Idle|OursOnly|-|-
WebexApp|Off|Yes|AsIs|ignored|Dnd|Away|None|-|-
CiscoImpXmpp|ChatStates|No|AsIs|kept|Dnd|Idle|MucViaAlias|-|-
ExpresswayXmpp|ChatStates|No|AsIs|kept|Dnd|Idle|MucViaAlias|-|-
Lync2013Xmpp|ChatStates|Yes|AsIs|kept|Dnd|Away|None|-|28800
Prosody|ChatStates|No|AsIs|kept|Dnd|AwayText|Muc|-|-
Ejabberd|ChatStates|No|AsIs|kept|Dnd|AwayText|Muc|300|-
Openfire|ChatStates|No|AsIs|kept|Dnd|AwayText|Muc|-|-
MongooseIm|ChatStates|No|AsIs|kept|Dnd|AwayText|Muc|-|-
XmppGeneric|ChatStates|No|AsIs|kept|Dnd|AwayText|Muc|-|-";

fn yes(flag: bool) -> &'static str {
    if flag { "Yes" } else { "No" }
}

fn secs_or_dash(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.as_secs().to_string())
}

/// Compares every row of a table with the settings as `cells` prints them.
fn compare(table: &str, peers: &[PeerType], cells: impl Fn(&PeerSettings) -> String) {
    let rows: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), peers.len(), "every profile has a row");
    for row in rows {
        let name = row.split('|').next().unwrap();
        let peer = *peers.iter().find(|peer| peer.as_str() == name).expect(name);
        let settings = PeerSettings::of(peer);
        assert_eq!(settings.peer, peer);
        assert_eq!(settings.dialect, peer.dialect());
        assert_eq!(format!("{name}|{}", cells(&settings)), row);
    }
}

#[test]
fn every_profile_has_its_row_of_transport_and_trust() {
    compare(TRANSPORT, PeerType::ALL, |s| {
        let keepalive = match s.keepalive_kind {
            KeepaliveKind::CrLf => "CrLf",
            KeepaliveKind::Space => "Space",
        };
        format!(
            "{}|{:?}|{:?}|{:?}|{:?}|{}|{:?}|{:?}|{}|{keepalive} {}|{}",
            if s.dialect.is_sip() { "Sip" } else { "Xmpp" },
            s.srv,
            s.srv_select,
            s.publish,
            s.same_domain_target,
            if s.peer_may_need_tls10 { "Tls10" } else { "Tls12" },
            s.legacy_suites,
            s.peer_auth,
            yes(s.client_eku_needed),
            s.keepalive.unwrap().as_secs(),
            s.rate,
        )
    });
    // Whatever the peer is used to, we speak nothing below 1.2.
    assert!(PeerType::ALL.iter().all(|peer| PeerSettings::of(*peer).tls_min == TlsVersion::Tls12));
}

#[test]
fn every_sip_profile_has_its_row_of_messaging_and_presence() {
    let peers: Vec<PeerType> = PeerType::sip().collect();
    compare(SIP_MESSAGING, &peers, |s| {
        format!(
            "{:?}|{}|{}|{}|{}|{}|{}/{}|{}|{}|{}|{}",
            s.messages,
            s.sdp_media,
            s.typing,
            yes(s.plain_text_only),
            s.emit_presence,
            s.notify_style,
            s.expires_ask.as_secs(),
            s.expires_grant.as_secs(),
            s.dnd_maps_to,
            s.idle_maps_to,
            if s.reopen_session { "Reinvite" } else { "Bounce" },
            secs_or_dash(s.peer_refresh),
        )
    });
}

#[test]
fn every_xmpp_profile_has_its_row_of_messaging_and_presence() {
    let peers: Vec<PeerType> = PeerType::xmpp().collect();
    compare(XMPP_MESSAGING, &peers, |s| {
        assert_eq!(s.messages, MessageMode::Stanza);
        format!(
            "{}{}|{}|{:?}|{}|{}|{}|{:?}|{}|{}",
            s.typing,
            if s.typing_if_disco { " if disco" } else { "" },
            yes(s.plain_text_only),
            s.xmpp_presence,
            if s.ignore_away { "ignored" } else { "kept" },
            s.dnd_maps_to,
            s.idle_maps_to,
            s.group_chat,
            secs_or_dash(s.silent_failure),
            secs_or_dash(s.peer_refresh),
        )
    });
}

#[test]
fn all_sip_profiles_share_the_times_and_the_interval() {
    for peer in PeerType::sip() {
        let settings = PeerSettings::of(peer);
        assert_eq!(settings.notify_interval, Some(secs(5)), "{peer}");
        assert_eq!(settings.invite_timeout, secs(60), "{peer}");
        assert_eq!(settings.idle_timeout, secs(600), "{peer}");
        assert!(settings.receipt_on_200 && settings.poll, "{peer}");
        assert_eq!(settings.group_chat, GroupChat::None, "{peer}");
        let standard = settings.dialect == Dialect::StandardSip;
        assert_eq!(settings.gr_in_from, standard, "{peer}");
        assert_eq!(settings.messages.session_first(), !standard, "{peer}");
    }
}

#[test]
fn overrides_set_single_switches_and_leave_the_rest() {
    let base = PeerSettings::of(PeerType::Sfb2015);
    assert_eq!(base.with(&Overrides::default()), base);
    let overrides = Overrides {
        im_mode: Some(ImMode::Auto),
        expires: Some(Span::from_secs(900)),
        notify_interval: Some(Span::from_secs(0)),
        keepalive: Some(Span::from_secs(0)),
        rate: Some(7),
        pager_max_bytes: Some(900),
        invite_timeout: Some(Span::from_secs(20)),
        idle_timeout: Some(Span::from_secs(30)),
        typing: Some(TypingMode::Off),
        receipt_on_200: Some(false),
        plain_text_only: Some(true),
        xhtml_im: Some(true),
        sdp_media: Some(SdpMedia::Reject488),
        emit_presence: Some(EmitPresence::Rpid),
        notify_style: Some(NotifyStyle::NotifyAllowEmpty),
        dnd_maps_to: Some(DndMapping::Dnd),
        idle_maps_to: Some(IdleMapping::Idle),
        srv_name: Some(SrvName::Rfc3263),
        tls_min: Some(TlsVersion::Tls13),
        strict_table8: Some(true),
    };
    let expected = PeerSettings {
        messages: MessageMode::SessionThenPager,
        expires_ask: secs(900),
        expires_grant: secs(900),
        notify_interval: None,
        keepalive: None,
        rate: 7,
        pager_max: Some(900),
        invite_timeout: secs(20),
        idle_timeout: secs(30),
        typing: TypingMode::Off,
        receipt_on_200: false,
        plain_text_only: true,
        xhtml_im: true,
        sdp_media: SdpMedia::Reject488,
        emit_presence: EmitPresence::Rpid,
        notify_style: NotifyStyle::NotifyAllowEmpty,
        dnd_maps_to: DndMapping::Dnd,
        idle_maps_to: IdleMapping::Idle,
        srv: Srv::Rfc3263,
        tls_min: TlsVersion::Tls13,
        strict_table8: true,
        ..base
    };
    assert_eq!(base.with(&overrides), expected);
}

#[test]
fn auto_tries_what_the_dialect_prefers_first() {
    let auto = Overrides { im_mode: Some(ImMode::Auto), ..Overrides::default() };
    let mode = |peer| PeerSettings::of(peer).with(&auto).messages;
    assert_eq!(mode(PeerType::Kamailio), MessageMode::PagerThenSession);
    assert_eq!(mode(PeerType::Lync2013), MessageMode::SessionThenPager);
    assert_eq!(mode(PeerType::Prosody), MessageMode::Stanza);
    assert!(mode(PeerType::Kamailio).may_fall_back() && !MessageMode::Session.may_fall_back());
}

#[test]
fn pager_messages_are_small_on_udp_unless_configured() {
    let settings = PeerSettings::of(PeerType::Kamailio);
    assert_eq!(settings.pager_max_bytes(SipTransport::Udp), 1300);
    assert_eq!(settings.pager_max_bytes(SipTransport::Tcp), 65_536);
    assert_eq!(settings.pager_max_bytes(SipTransport::Tls), 65_536);
    let overrides = Overrides { pager_max_bytes: Some(4000), ..Overrides::default() };
    assert_eq!(settings.with(&overrides).pager_max_bytes(SipTransport::Udp), 4000);
}
