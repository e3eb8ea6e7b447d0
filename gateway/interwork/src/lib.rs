//! Mappings between SIP and XMPP, both directions.
