//! Switches of a peer's profile that one FederatedDomain may set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::schema;

string_enum! {
    /// How messages travel over SIP.
    pub enum ImMode {
        /// In a session: INVITE, MESSAGE in the dialog, BYE.
        Session = "Session",
        /// As single MESSAGE requests.
        Pager = "Pager",
        /// By whichever the peer takes, remembered per domain.
        Auto = "Auto",
    }
}

string_enum! {
    /// What we send while a local user types.
    pub enum TypingMode {
        /// Microsoft's KeyboardActivity in INFO.
        KeyboardActivity = "KeyboardActivity",
        /// `application/im-iscomposing+xml` (RFC 3994).
        IsComposing = "IsComposing",
        /// Chat states (XEP-0085).
        ChatStates = "ChatStates",
        /// Nothing.
        Off = "Off",
    }
}

string_enum! {
    /// What a peer's media line for messages is taken to mean, and what other offers get.
    pub enum SdpMedia {
        /// Offer and accept `m=message`.
        Message = "Message",
        /// Offer `m=message`; fall back to pager mode on 488.
        MessageOr488 = "MessageOr488",
        /// Refuse sessions with 488.
        Reject488 = "Reject488",
    }
}

string_enum! {
    /// The presence document that we send.
    pub enum EmitPresence {
        /// PIDF with Microsoft's and RPID elements.
        MsPidfPlusRpid = "MsPidfPlusRpid",
        /// PIDF with RPID elements.
        Rpid = "Rpid",
        /// PIDF with RPID elements and extended activities.
        RpidExtended = "RpidExtended",
    }
}

string_enum! {
    /// How notifications are sent to and taken from the peer.
    pub enum NotifyStyle {
        /// A document in each NOTIFY.
        Notify = "Notify",
        /// A NOTIFY may be empty while there is nothing to tell.
        NotifyAllowEmpty = "NotifyAllowEmpty",
        /// Routed by the host of the Contact.
        NotifyByContactHost = "NotifyByContactHost",
    }
}

string_enum! {
    /// What "do not disturb" becomes.
    pub enum DndMapping {
        /// Busy.
        Busy = "Busy",
        /// Do not disturb.
        Dnd = "Dnd",
    }
}

string_enum! {
    /// What "idle" becomes.
    pub enum IdleMapping {
        /// Away.
        Away = "Away",
        /// Idle.
        Idle = "Idle",
        /// Away with a text.
        AwayText = "AwayText",
    }
}

string_enum! {
    /// Which SRV records lead to a SIP peer.
    pub enum SrvName {
        /// `_sipfederationtls._tcp`.
        SipFederationTls = "SipFederationTls",
        /// NAPTR and SRV by RFC 3263.
        Rfc3263 = "Rfc3263",
    }
}

string_enum! {
    /// Lowest version of TLS that is spoken with a peer.
    pub enum TlsVersion {
        /// TLS 1.2.
        Tls12 = "Tls12",
        /// TLS 1.3.
        Tls13 = "Tls13",
    }
}

/// Switches over the values of the peer type's profile. A change is taken without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overrides {
    /// How messages travel over SIP: Session, Pager or Auto. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub im_mode: Option<ImMode>,
    /// Lifetime that our subscriptions ask for and the longest that we grant, for example `2h`. Default: by peer type, 1h or
    /// 2h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Duration>,
    /// Shortest time between two notifications about one user in one subscription, for example `5s`; `0s` removes the
    /// bound. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_interval: Option<Duration>,
    /// Time between keep-alives on an idle connection, for example `120s`; `0s` turns them off. Default: by peer type, 60s or
    /// 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Duration>,
    /// Most requests a second that we send to the domain, 1 to 10000. Default: by peer type, 15 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<1, 10000>")]
    pub rate: Option<u32>,
    /// Largest pager message that we send, in bytes of the whole request, 400 to 65536. Default: 1300 on UDP, 65536 on TCP
    /// and TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int::<400, 65536>")]
    pub pager_max_bytes: Option<u32>,
    /// Longest wait for the final answer to an INVITE, for example `60s`. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite_timeout: Option<Duration>,
    /// Time without traffic after which a session ends, for example `600s`. Default: 600s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// What we send while a local user types: KeyboardActivity, IsComposing, ChatStates or "Off" (in quotes). Default: by
    /// peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typing: Option<TypingMode>,
    /// Whether a 200 to a message counts as a delivery receipt for the sender. Default: true.
    #[serde(default, rename = "receiptOn200", skip_serializing_if = "Option::is_none")]
    pub receipt_on_200: Option<bool>,
    /// Whether formatted text is refused. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_text_only: Option<bool>,
    /// Whether received HTML is also passed on as XHTML-IM. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xhtml_im: Option<bool>,
    /// Media lines of sessions: Message, MessageOr488 or Reject488. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdp_media: Option<SdpMedia>,
    /// Presence document that we send: MsPidfPlusRpid, Rpid or RpidExtended. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emit_presence: Option<EmitPresence>,
    /// Style of notifications: Notify, NotifyAllowEmpty or NotifyByContactHost. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_style: Option<NotifyStyle>,
    /// What "do not disturb" becomes: Busy or Dnd. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnd_maps_to: Option<DndMapping>,
    /// What "idle" becomes: Away, Idle or AwayText. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_maps_to: Option<IdleMapping>,
    /// SRV records that lead to the peer: SipFederationTls or Rfc3263. Default: by peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srv_name: Option<SrvName>,
    /// Lowest version of TLS: Tls12 or Tls13. Default: Tls12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_min: Option<TlsVersion>,
    /// Whether "away" is dropped from a contact in a meeting, as row 3 of table 8 shows it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_table8: Option<bool>,
}
