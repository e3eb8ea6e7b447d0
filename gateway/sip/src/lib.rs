//! Sans-io SIP: codec, framer, transactions, dialogs, subscriptions, SDP, PIDF.
