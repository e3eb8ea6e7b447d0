//! The endpoint, dialogs and subscriptions as scenarios: own clock, latency and loss, no sockets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail the test")]

#[path = "machines/client_timers.rs"]
mod client_timers;
#[path = "machines/dialogs.rs"]
mod dialogs;
#[path = "machines/disorder.rs"]
mod disorder;
#[path = "machines/invite.rs"]
mod invite;
#[path = "machines/pair.rs"]
mod pair;
#[path = "machines/server.rs"]
mod server;
#[path = "machines/server_timers.rs"]
mod server_timers;
#[path = "machines/side.rs"]
mod side;
#[path = "machines/subscriptions.rs"]
mod subscriptions;
#[path = "machines/transcripts.rs"]
mod transcripts;
