//! Sans-io XMPP: bounded stream codec, component link, stanza types.
