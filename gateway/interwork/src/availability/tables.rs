//! The vendor's availability tables between SIP clients and XMPP clients, row by row.
//!
//! They are test vectors of [`super`], kept apart from the rules that must reproduce them. Tables 7 to 10
//! are between XMPP clients and say that nothing changes.

use super::{SipCode, XmppCode};

/// A row of a table from SIP to XMPP.
#[derive(Debug, Clone, Copy)]
pub struct SipToXmpp {
    /// The row's name in the specification.
    pub id: &'static str,
    /// What the user chose.
    pub setting: &'static str,
    /// The state number that the client publishes.
    pub number: u32,
    /// What comes in.
    pub sip: SipCode,
    /// What goes out.
    pub xmpp: XmppCode,
}

/// A row of a table from XMPP to SIP.
#[derive(Debug, Clone, Copy)]
pub struct XmppToSip {
    /// The row's name in the specification.
    pub id: &'static str,
    /// What the user chose.
    pub setting: &'static str,
    /// What comes in.
    pub xmpp: XmppCode,
    /// What goes out.
    pub sip: SipCode,
    /// The state number that the watcher's client derives.
    pub number: u32,
}

const fn from_sip(id: &'static str, setting: &'static str, number: u32, sip: SipCode, xmpp: XmppCode) -> SipToXmpp {
    SipToXmpp { id, setting, number, sip, xmpp }
}

const fn from_xmpp(id: &'static str, setting: &'static str, xmpp: XmppCode, sip: SipCode, number: u32) -> XmppToSip {
    XmppToSip { id, setting, xmpp, sip, number }
}

/// Table 1: Office Communicator to XMPP.
pub const T1: [SipToXmpp; 6] = [
    from_sip("T1.1", "Available", 3500, SipCode::Available, XmppCode::Available),
    from_sip("T1.2", "Busy", 6500, SipCode::Busy, XmppCode::Busy),
    from_sip("T1.3", "Do Not Disturb", 9500, SipCode::Dnd, XmppCode::Busy),
    from_sip("T1.4", "Be Right Back", 12_500, SipCode::BeRightBack, XmppCode::Away),
    from_sip("T1.5", "Away", 15_500, SipCode::Away, XmppCode::Away),
    from_sip("T1.6", "Offline", 18_500, SipCode::Offline, XmppCode::Offline),
];

/// Table 2: Cisco Jabber 8 to Office Communicator.
pub const T2: [XmppToSip; 4] = [
    from_xmpp("T2.1", "Available", XmppCode::Available, SipCode::Available, 3500),
    from_xmpp("T2.2", "Busy", XmppCode::Busy, SipCode::Busy, 6500),
    from_xmpp("T2.3", "Do Not Disturb", XmppCode::Dnd, SipCode::Busy, 6500),
    from_xmpp("T2.4", "Offline", XmppCode::Offline, SipCode::Offline, 18_500),
];

/// Table 3: other XMPP clients to Office Communicator.
pub const T3: [XmppToSip; 5] = [
    from_xmpp("T3.1", "Available", XmppCode::Available, SipCode::Available, 3500),
    from_xmpp("T3.2", "Away", XmppCode::Away, SipCode::Away, 15_500),
    from_xmpp("T3.3", "Extended Away", XmppCode::Xa, SipCode::Away, 15_500),
    from_xmpp("T3.4", "Do Not Disturb", XmppCode::Dnd, SipCode::Busy, 6500),
    from_xmpp("T3.5", "Offline", XmppCode::Offline, SipCode::Offline, 18_500),
];

/// Table 4: Lync to XMPP.
pub const T4: [SipToXmpp; 6] = [
    from_sip("T4.1", "Available", 3500, SipCode::Available, XmppCode::Available),
    from_sip("T4.2", "Busy", 6500, SipCode::Busy, XmppCode::Busy),
    from_sip("T4.3", "Do Not Disturb", 9500, SipCode::Dnd, XmppCode::Busy),
    from_sip("T4.4", "Be Right Back", 12_500, SipCode::BeRightBack, XmppCode::Away),
    from_sip("T4.5", "Away", 15_500, SipCode::Away, XmppCode::Away),
    from_sip("T4.6", "Offline", 18_500, SipCode::Offline, XmppCode::Offline),
];

/// Table 5: Cisco Jabber 8 to Lync.
pub const T5: [XmppToSip; 4] = [
    from_xmpp("T5.1", "Available", XmppCode::Available, SipCode::Available, 3500),
    from_xmpp("T5.2", "Busy", XmppCode::Busy, SipCode::Busy, 6500),
    from_xmpp("T5.3", "Do Not Disturb", XmppCode::Dnd, SipCode::Busy, 6500),
    from_xmpp("T5.4", "Offline", XmppCode::Offline, SipCode::Offline, 18_500),
];

/// Table 6: other XMPP clients to Lync.
pub const T6: [XmppToSip; 5] = [
    from_xmpp("T6.1", "Available", XmppCode::Available, SipCode::Available, 3500),
    from_xmpp("T6.2", "Away", XmppCode::Away, SipCode::Away, 15_500),
    from_xmpp("T6.3", "Extended Away", XmppCode::Xa, SipCode::Away, 15_500),
    from_xmpp("T6.4", "Do Not Disturb", XmppCode::Dnd, SipCode::Busy, 6500),
    from_xmpp("T6.5", "Offline", XmppCode::Offline, SipCode::Offline, 18_500),
];
