//! Peer profiles: one table of presets over few switches (peer specification §6).
//!
//! Code elsewhere branches on [`PeerSettings::dialect`] and on the switches, never on the name of a
//! profile. `overrides` of a FederatedDomain set single switches. Cells of the table that the
//! specification marks as unknown hold the cautious value.

use std::time::Duration;

pub use isthmus_crds::{
    Dialect, DndMapping, EmitPresence, IdleMapping, ImMode, NotifyStyle, PeerType, SdpMedia, TlsVersion, TypingMode,
};

use isthmus_crds::{Overrides, SipTransport, SrvName};

/// The largest pager message on UDP (RFC 3428 §8, RFC 7572 §6).
const PAGER_MAX_UDP: usize = 1300;
/// The largest pager message on streams.
const PAGER_MAX_STREAM: usize = 64 * 1024;

/// Which records lead to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Srv {
    /// `_sipfederationtls._tcp`.
    SipFederationTls,
    /// NAPTR and SRV by RFC 3263.
    Rfc3263,
    /// `_xmpp-server._tcp`.
    XmppServer,
    /// `_xmpps-server._tcp`, then `_xmpp-server._tcp` (XEP-0368).
    XmppsThenXmpp,
    /// `_xmpp-server._tcp`, `_xmpps-server._tcp`, then the historic `_jabber._tcp`.
    XmppXmppsJabber,
}

/// What the peer does with several SRV records of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrvSelect {
    /// It copes with one host and one address only.
    SingleHostSingleIp,
    /// It takes the record of lowest priority and highest weight and ignores the rest.
    BestOnly,
    /// It takes the first record and ignores the rest.
    FirstOnly,
    /// It orders by RFC 2782.
    Rfc2782,
    /// It orders by RFC 2782 and tries all.
    Rfc2782All,
}

/// What we publish for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// One SRV record, one address.
    OneSrvOneA,
    /// One SRV record, one or several addresses.
    OneSrvManyA,
    /// Several SRV records of equal priority and weight.
    ManySrvEqual,
}

/// Whether the peer demands that our SRV target lies inside our domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameDomainTarget {
    /// It does not look.
    No,
    /// It is safer so.
    Advise,
    /// It refuses others.
    Strict,
}

/// Whether the peer needs cipher suites that modern libraries lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacySuites {
    /// No.
    No,
    /// Depends on the operating system below it.
    Maybe,
    /// Yes: an ECDSA certificate may help, else a TLS front is needed.
    Yes,
}

/// How the peer and we prove who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAuth {
    /// Mutual TLS, name in the common name or an alternative name.
    MtlsCnOrSan,
    /// Mutual TLS, name in an alternative name.
    MtlsSan,
    /// Mutual TLS with an edge that many domains share: the certificate alone says nothing about the domain.
    MtlsSanSharedEdge,
    /// Mutual TLS, our subject is listed at the peer.
    MtlsSubjectListed,
    /// TLS; the peer may have no client certificate.
    TlsServerOrMtls,
    /// TLS with a self-signed certificate, to be pinned.
    TlsServer,
    /// SASL EXTERNAL, else dialback.
    SaslExternalThenDialback,
    /// SASL EXTERNAL on TLS, dialback without.
    SaslExternalIfTlsElseDialback,
    /// Dialback.
    DialbackOnly,
}

/// What keeps an idle connection open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepaliveKind {
    /// Double CRLF (RFC 5626 §4.4.1).
    CrLf,
    /// A space between stanzas (RFC 6120 §4.6.1).
    Space,
}

/// How one-to-one messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageMode {
    /// As stanzas.
    Stanza,
    /// In a SIP session only.
    Session,
    /// As single MESSAGE requests only.
    Pager,
    /// As single MESSAGE requests; in a session when the peer refuses those or the size forbids them.
    PagerThenSession,
    /// In a session; as single MESSAGE requests when the peer refuses sessions.
    SessionThenPager,
}

/// Presence towards an XMPP peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmppPresence {
    /// As it is.
    AsIs,
    /// "Busy" is shown as idle there.
    BusyAsIdle,
}

/// What happens to group chat with the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupChat {
    /// Refused.
    None,
    /// Multi-user chat both ways.
    Muc,
    /// Multi-user chat through chat aliases.
    MucViaAlias,
    /// Only in our rooms.
    OursOnly,
}

/// All switches of one peer. Durations are as they go on the wire, whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    /// The row the presets come from; for status and logs.
    pub peer: PeerType,
    /// The language spoken.
    pub dialect: Dialect,

    /// Which records lead to the peer.
    pub srv: Srv,
    /// Whether a Microsoft peer without `_sipfederationtls` is looked up by RFC 3263.
    pub srv_fallback: bool,
    /// What the peer does with several records of ours.
    pub srv_select: SrvSelect,
    /// What we publish for it.
    pub publish: Publish,
    /// Whether our SRV target must lie inside our domain.
    pub same_domain_target: SameDomainTarget,
    /// The lowest version of TLS that we speak with it; never below 1.2 (RFC 8996).
    pub tls_min: TlsVersion,
    /// Whether the peer may know nothing above TLS 1.0 or 1.1, which we do not speak; status warns.
    pub peer_may_need_tls10: bool,
    /// Whether it may need old cipher suites.
    pub legacy_suites: LegacySuites,
    /// How both sides prove who they are.
    pub peer_auth: PeerAuth,
    /// Whether it demands the clientAuth usage in our certificate.
    pub client_eku_needed: bool,
    /// The one edge name behind which all domains of this peer stand, if there is such.
    pub fixed_edge: Option<&'static str>,
    /// What keeps an idle connection open.
    pub keepalive_kind: KeepaliveKind,
    /// Time between keep-alives; `None` sends none.
    pub keepalive: Option<Duration>,
    /// Most requests a second that we send to the domain.
    pub rate: u32,

    /// How messages travel.
    pub messages: MessageMode,
    /// What is done with offers of sessions.
    pub sdp_media: SdpMedia,
    /// What we send while a local user types; what the peer sends is always read.
    pub typing: TypingMode,
    /// Whether chat states are sent only after the peer said that it knows them.
    pub typing_if_disco: bool,
    /// Whether formatted text is kept from the peer.
    pub plain_text_only: bool,
    /// Whether received HTML also becomes XHTML-IM.
    pub xhtml_im: bool,
    /// Whether a 200 to a message is a delivery receipt (interworking specification §5.7).
    pub receipt_on_200: bool,
    /// Whether a session is opened anew once on 408, 480 or 481 to a message in it.
    pub reopen_session: bool,
    /// Longest wait for the final answer to an INVITE.
    pub invite_timeout: Duration,
    /// Time without traffic after which a session ends.
    pub idle_timeout: Duration,
    /// Largest pager message when configured; see [`Self::pager_max_bytes`].
    pub pager_max: Option<usize>,
    /// Whether the resource goes into From as `gr` (RFC 7247 §6.5).
    pub gr_in_from: bool,

    /// The presence document that we send over SIP.
    pub emit_presence: EmitPresence,
    /// How presence looks towards an XMPP peer.
    pub xmpp_presence: XmppPresence,
    /// Whether "away" from the peer means nothing.
    pub ignore_away: bool,
    /// How notifications are sent to and taken from the peer.
    pub notify_style: NotifyStyle,
    /// Lifetime that our subscriptions ask for.
    pub expires_ask: Duration,
    /// Longest lifetime that we grant.
    pub expires_grant: Duration,
    /// How often the peer refreshes, where it is known.
    pub peer_refresh: Option<Duration>,
    /// Shortest time between two notifications of one dialog (RFC 3856 §6.10); `None` sets no bound.
    pub notify_interval: Option<Duration>,
    /// Whether a local user's probe may be answered by a SUBSCRIBE with Expires 0.
    pub poll: bool,
    /// What "do not disturb" becomes.
    pub dnd_maps_to: DndMapping,
    /// What "idle" becomes.
    pub idle_maps_to: IdleMapping,
    /// Whether "away" is dropped for a contact in a meeting (interworking specification §4.4, table 8 row 3).
    pub strict_table8: bool,

    /// What happens to group chat.
    pub group_chat: GroupChat,
    /// How long the peer is silent before it reports an undeliverable stanza.
    pub silent_failure: Option<Duration>,
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What the rows of the Microsoft dialect share.
const MICROSOFT: PeerSettings = PeerSettings {
    peer: PeerType::Sfb2015,
    dialect: Dialect::Microsoft,
    srv: Srv::SipFederationTls,
    srv_fallback: false,
    srv_select: SrvSelect::BestOnly,
    publish: Publish::OneSrvManyA,
    same_domain_target: SameDomainTarget::Strict,
    tls_min: TlsVersion::Tls12,
    peer_may_need_tls10: false,
    legacy_suites: LegacySuites::No,
    peer_auth: PeerAuth::MtlsSan,
    client_eku_needed: true,
    fixed_edge: None,
    keepalive_kind: KeepaliveKind::CrLf,
    keepalive: Some(secs(120)),
    rate: 15,
    messages: MessageMode::Session,
    sdp_media: SdpMedia::Message,
    typing: TypingMode::KeyboardActivity,
    typing_if_disco: false,
    plain_text_only: false,
    xhtml_im: false,
    receipt_on_200: true,
    reopen_session: true,
    invite_timeout: secs(60),
    idle_timeout: secs(600),
    pager_max: None,
    gr_in_from: false,
    emit_presence: EmitPresence::MsPidfPlusRpid,
    xmpp_presence: XmppPresence::AsIs,
    ignore_away: false,
    notify_style: NotifyStyle::Notify,
    expires_ask: secs(7200),
    expires_grant: secs(7200),
    peer_refresh: Some(secs(6300)),
    notify_interval: Some(secs(5)),
    poll: true,
    dnd_maps_to: DndMapping::Busy,
    idle_maps_to: IdleMapping::Away,
    strict_table8: false,
    group_chat: GroupChat::None,
    silent_failure: None,
};

/// What the rows of standard SIP share.
const STANDARD: PeerSettings = PeerSettings {
    peer: PeerType::SimpleGeneric,
    dialect: Dialect::StandardSip,
    srv: Srv::Rfc3263,
    srv_select: SrvSelect::Rfc2782All,
    publish: Publish::ManySrvEqual,
    same_domain_target: SameDomainTarget::No,
    peer_auth: PeerAuth::TlsServerOrMtls,
    client_eku_needed: false,
    keepalive: Some(secs(60)),
    rate: 50,
    messages: MessageMode::Pager,
    sdp_media: SdpMedia::MessageOr488,
    typing: TypingMode::IsComposing,
    reopen_session: false,
    gr_in_from: true,
    emit_presence: EmitPresence::Rpid,
    notify_style: NotifyStyle::NotifyAllowEmpty,
    expires_ask: secs(3600),
    expires_grant: secs(3600),
    peer_refresh: Some(secs(3600)),
    ..MICROSOFT
};

/// What the rows of XMPP share; switches of SIP have no meaning there.
const XMPP: PeerSettings = PeerSettings {
    peer: PeerType::XmppGeneric,
    dialect: Dialect::Xmpp,
    srv: Srv::XmppServer,
    srv_select: SrvSelect::Rfc2782All,
    publish: Publish::ManySrvEqual,
    same_domain_target: SameDomainTarget::No,
    peer_auth: PeerAuth::SaslExternalThenDialback,
    keepalive_kind: KeepaliveKind::Space,
    rate: 100,
    messages: MessageMode::Stanza,
    sdp_media: SdpMedia::Reject488,
    typing: TypingMode::ChatStates,
    reopen_session: false,
    emit_presence: EmitPresence::Rpid,
    expires_ask: secs(3600),
    expires_grant: secs(3600),
    peer_refresh: None,
    dnd_maps_to: DndMapping::Dnd,
    idle_maps_to: IdleMapping::AwayText,
    group_chat: GroupChat::Muc,
    ..MICROSOFT
};

impl PeerSettings {
    /// Returns the presets of a row (peer specification §6.1 and §6.2).
    pub const fn of(peer: PeerType) -> Self {
        let row = match peer {
            PeerType::OcsR2 => Self {
                srv_select: SrvSelect::SingleHostSingleIp,
                publish: Publish::OneSrvOneA,
                peer_may_need_tls10: true,
                legacy_suites: LegacySuites::Yes,
                peer_auth: PeerAuth::MtlsCnOrSan,
                ..MICROSOFT
            },
            PeerType::Lync2010 => Self { peer_may_need_tls10: true, legacy_suites: LegacySuites::Yes, ..MICROSOFT },
            PeerType::Lync2013 => Self { legacy_suites: LegacySuites::Yes, ..MICROSOFT },
            PeerType::Sfb2015 => Self { legacy_suites: LegacySuites::Maybe, ..MICROSOFT },
            PeerType::Sfb2019Se => MICROSOFT,
            PeerType::M365 => Self {
                peer_auth: PeerAuth::MtlsSanSharedEdge,
                fixed_edge: Some("sipfed.online.lync.com"),
                typing: TypingMode::Off,
                plain_text_only: true,
                ..MICROSOFT
            },
            PeerType::CiscoImpSip => Self {
                srv_select: SrvSelect::Rfc2782,
                same_domain_target: SameDomainTarget::Advise,
                legacy_suites: LegacySuites::Maybe,
                peer_auth: PeerAuth::MtlsSubjectListed,
                rate: 50,
                typing: TypingMode::Off,
                idle_maps_to: IdleMapping::Idle,
                peer_refresh: None,
                ..MICROSOFT
            },
            // Cells that say "the peer's": the values that any peer behind it stands.
            PeerType::ExpresswaySip => Self {
                srv_select: SrvSelect::Rfc2782,
                same_domain_target: SameDomainTarget::Advise,
                rate: 50,
                typing: TypingMode::Off,
                notify_style: NotifyStyle::NotifyByContactHost,
                peer_refresh: None,
                ..MICROSOFT
            },
            PeerType::SametimeXmpp => Self {
                srv_select: SrvSelect::FirstOnly,
                publish: Publish::OneSrvOneA,
                peer_may_need_tls10: true,
                legacy_suites: LegacySuites::Yes,
                peer_auth: PeerAuth::SaslExternalIfTlsElseDialback,
                rate: 50,
                typing_if_disco: true,
                plain_text_only: true,
                group_chat: GroupChat::None,
                ..XMPP
            },
            PeerType::WebexMessenger => Self {
                srv_select: SrvSelect::Rfc2782,
                legacy_suites: LegacySuites::Maybe,
                peer_auth: PeerAuth::DialbackOnly,
                client_eku_needed: false,
                rate: 50,
                xmpp_presence: XmppPresence::BusyAsIdle,
                idle_maps_to: IdleMapping::Idle,
                group_chat: GroupChat::OursOnly,
                ..XMPP
            },
            PeerType::WebexApp => Self {
                srv_select: SrvSelect::Rfc2782,
                peer_auth: PeerAuth::DialbackOnly,
                client_eku_needed: false,
                rate: 50,
                typing: TypingMode::Off,
                plain_text_only: true,
                ignore_away: true,
                idle_maps_to: IdleMapping::Away,
                group_chat: GroupChat::None,
                ..XMPP
            },
            PeerType::CiscoImpXmpp => Self {
                srv_select: SrvSelect::Rfc2782,
                legacy_suites: LegacySuites::Maybe,
                idle_maps_to: IdleMapping::Idle,
                group_chat: GroupChat::MucViaAlias,
                ..XMPP
            },
            PeerType::ExpresswayXmpp => Self {
                srv_select: SrvSelect::Rfc2782,
                peer_auth: PeerAuth::DialbackOnly,
                idle_maps_to: IdleMapping::Idle,
                group_chat: GroupChat::MucViaAlias,
                ..XMPP
            },
            PeerType::Lync2013Xmpp => Self {
                srv_select: SrvSelect::BestOnly,
                publish: Publish::OneSrvManyA,
                peer_may_need_tls10: true,
                legacy_suites: LegacySuites::Yes,
                keepalive: Some(secs(60)),
                rate: 20,
                plain_text_only: true,
                peer_refresh: Some(secs(28_800)),
                idle_maps_to: IdleMapping::Away,
                group_chat: GroupChat::None,
                ..XMPP
            },
            PeerType::Prosody => Self { srv: Srv::XmppsThenXmpp, ..XMPP },
            PeerType::Ejabberd => Self { silent_failure: Some(secs(300)), ..XMPP },
            PeerType::Openfire => Self { srv: Srv::XmppXmppsJabber, ..XMPP },
            PeerType::MongooseIm => XMPP,
            PeerType::XmppGeneric => Self { srv: Srv::XmppsThenXmpp, rate: 50, ..XMPP },
            PeerType::Kamailio | PeerType::OpenSips => STANDARD,
            PeerType::Sylk => Self {
                peer_auth: PeerAuth::TlsServer,
                rate: 20,
                sdp_media: SdpMedia::Reject488,
                emit_presence: EmitPresence::RpidExtended,
                notify_style: NotifyStyle::Notify,
                peer_refresh: None,
                ..STANDARD
            },
            PeerType::SimpleGeneric => {
                Self { rate: 20, messages: MessageMode::PagerThenSession, peer_refresh: None, ..STANDARD }
            }
        };
        Self { peer, ..row }
    }

    /// Applies the switches that one FederatedDomain sets.
    #[must_use]
    pub fn with(mut self, overrides: &Overrides) -> Self {
        // Destructured whole, so that a new switch cannot be forgotten here.
        let Overrides {
            im_mode,
            expires,
            notify_interval,
            keepalive,
            rate,
            pager_max_bytes,
            invite_timeout,
            idle_timeout,
            typing,
            receipt_on_200,
            plain_text_only,
            xhtml_im,
            sdp_media,
            emit_presence,
            notify_style,
            dnd_maps_to,
            idle_maps_to,
            srv_name,
            tls_min,
            strict_table8,
        } = overrides;
        if let Some(mode) = im_mode {
            self.messages = self.message_mode(*mode);
        }
        if let Some(expires) = expires {
            self.expires_ask = expires.get();
            self.expires_grant = expires.get();
        }
        if let Some(interval) = notify_interval {
            self.notify_interval = (!interval.is_zero()).then(|| interval.get());
        }
        if let Some(keepalive) = keepalive {
            self.keepalive = (!keepalive.is_zero()).then(|| keepalive.get());
        }
        if let Some(bytes) = pager_max_bytes {
            self.pager_max = Some(usize::try_from(*bytes).unwrap_or(PAGER_MAX_STREAM));
        }
        if let Some(name) = srv_name {
            self.srv = match name {
                SrvName::SipFederationTls => Srv::SipFederationTls,
                SrvName::Rfc3263 => Srv::Rfc3263,
            };
        }
        self.rate = rate.unwrap_or(self.rate);
        self.invite_timeout = invite_timeout.map_or(self.invite_timeout, isthmus_crds::Duration::get);
        self.idle_timeout = idle_timeout.map_or(self.idle_timeout, isthmus_crds::Duration::get);
        self.typing = typing.unwrap_or(self.typing);
        self.receipt_on_200 = receipt_on_200.unwrap_or(self.receipt_on_200);
        self.plain_text_only = plain_text_only.unwrap_or(self.plain_text_only);
        self.xhtml_im = xhtml_im.unwrap_or(self.xhtml_im);
        self.sdp_media = sdp_media.unwrap_or(self.sdp_media);
        self.emit_presence = emit_presence.unwrap_or(self.emit_presence);
        self.notify_style = notify_style.unwrap_or(self.notify_style);
        self.dnd_maps_to = dnd_maps_to.unwrap_or(self.dnd_maps_to);
        self.idle_maps_to = idle_maps_to.unwrap_or(self.idle_maps_to);
        self.tls_min = tls_min.unwrap_or(self.tls_min);
        self.strict_table8 = strict_table8.unwrap_or(self.strict_table8);
        self
    }

    /// Returns the largest pager message in bytes of the whole request (design §6.17).
    pub fn pager_max_bytes(&self, transport: SipTransport) -> usize {
        self.pager_max.unwrap_or(match transport {
            SipTransport::Udp => PAGER_MAX_UDP,
            SipTransport::Tcp | SipTransport::Tls => PAGER_MAX_STREAM,
        })
    }

    /// Spells out a configured mode: what `Auto` tries first is a matter of the dialect (design §6.7).
    const fn message_mode(&self, mode: ImMode) -> MessageMode {
        match (self.dialect, mode) {
            (Dialect::Xmpp, _) => MessageMode::Stanza,
            (_, ImMode::Session) => MessageMode::Session,
            (_, ImMode::Pager) => MessageMode::Pager,
            (Dialect::Microsoft, ImMode::Auto) => MessageMode::SessionThenPager,
            (Dialect::StandardSip, ImMode::Auto) => MessageMode::PagerThenSession,
        }
    }
}

impl MessageMode {
    /// Tells whether a message is first tried in a session.
    pub const fn session_first(self) -> bool {
        matches!(self, Self::Session | Self::SessionThenPager)
    }

    /// Tells whether the other mode may be tried when the first is refused.
    pub const fn may_fall_back(self) -> bool {
        matches!(self, Self::PagerThenSession | Self::SessionThenPager)
    }
}

#[cfg(test)]
mod tests;
