//! The kinds of peer: one value per row of the profile table, and the three dialects that code branches on.

string_enum! {
    /// What stands at the other end of a federation link. It selects a row of presets; single switches are set in
    /// `overrides`. Code branches on [`PeerType::dialect`] and on switches, never on the value itself.
    pub enum PeerType {
        /// Office Communications Server 2007 R2.
        OcsR2 = "OcsR2",
        /// Lync Server 2010.
        Lync2010 = "Lync2010",
        /// Lync Server 2013 over SIP.
        Lync2013 = "Lync2013",
        /// Skype for Business Server 2015.
        Sfb2015 = "Sfb2015",
        /// Skype for Business Server 2019 and Subscription Edition.
        Sfb2019Se = "Sfb2019Se",
        /// Microsoft 365 (Teams).
        M365 = "M365",
        /// Cisco IM and Presence over SIP.
        CiscoImpSip = "CiscoImpSip",
        /// Cisco Expressway in front of a SIP peer.
        ExpresswaySip = "ExpresswaySip",
        /// IBM or HCL Sametime Gateway.
        SametimeXmpp = "SametimeXmpp",
        /// Cisco Webex Messenger (Connect).
        WebexMessenger = "WebexMessenger",
        /// Cisco Webex App.
        WebexApp = "WebexApp",
        /// Cisco IM and Presence over XMPP.
        CiscoImpXmpp = "CiscoImpXmpp",
        /// Cisco Expressway in front of an XMPP peer.
        ExpresswayXmpp = "ExpresswayXmpp",
        /// The XMPP gateway of Lync Server 2013.
        Lync2013Xmpp = "Lync2013Xmpp",
        /// Prosody.
        Prosody = "Prosody",
        /// ejabberd.
        Ejabberd = "Ejabberd",
        /// Openfire.
        Openfire = "Openfire",
        /// MongooseIM.
        MongooseIm = "MongooseIm",
        /// Any other XMPP server.
        XmppGeneric = "XmppGeneric",
        /// Kamailio with its presence modules.
        Kamailio = "Kamailio",
        /// OpenSIPS with its presence modules.
        OpenSips = "OpenSips",
        /// SylkServer.
        Sylk = "Sylk",
        /// Any other SIP server that speaks SIMPLE.
        SimpleGeneric = "SimpleGeneric",
    }
}

/// The three languages that a peer can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// SIP as Microsoft's edges speak it: session mode, `_sipfederationtls`, their presence elements.
    Microsoft,
    /// SIP and SIMPLE by the RFCs.
    StandardSip,
    /// XMPP server-to-server.
    Xmpp,
}

impl Dialect {
    /// True for both dialects of SIP.
    pub const fn is_sip(self) -> bool {
        matches!(self, Self::Microsoft | Self::StandardSip)
    }

    /// Word for logs, status and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Microsoft => "microsoft",
            Self::StandardSip => "standard-sip",
            Self::Xmpp => "xmpp",
        }
    }
}

impl PeerType {
    /// The dialect that this kind of peer speaks.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::OcsR2
            | Self::Lync2010
            | Self::Lync2013
            | Self::Sfb2015
            | Self::Sfb2019Se
            | Self::M365
            | Self::CiscoImpSip
            | Self::ExpresswaySip => Dialect::Microsoft,
            Self::Kamailio | Self::OpenSips | Self::Sylk | Self::SimpleGeneric => Dialect::StandardSip,
            Self::SametimeXmpp
            | Self::WebexMessenger
            | Self::WebexApp
            | Self::CiscoImpXmpp
            | Self::ExpresswayXmpp
            | Self::Lync2013Xmpp
            | Self::Prosody
            | Self::Ejabberd
            | Self::Openfire
            | Self::MongooseIm
            | Self::XmppGeneric => Dialect::Xmpp,
        }
    }

    /// The values allowed in `spec.sip.peerType`, in table order.
    pub fn sip() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|peer| peer.dialect().is_sip())
    }

    /// The values allowed in `spec.xmpp.peerType`, in table order.
    pub fn xmpp() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|peer| peer.dialect() == Dialect::Xmpp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_profile_table_has_one_dialect() {
        assert_eq!(PeerType::ALL.len(), 23);
        assert_eq!(PeerType::sip().count(), 12);
        assert_eq!(PeerType::xmpp().count(), 11);
        assert_eq!(PeerType::ALL.iter().filter(|peer| peer.dialect() == Dialect::Microsoft).count(), 8);
    }
}
