//! Scenarios between real programs, and proofs that those programs behave as the harness expects.

/// Everything in here starts servers; `make check` leaves it out by this name.
#[path = "scenarios"]
mod live {
    mod ejabberd;
    mod errors;
    mod life;
    mod links;
    mod pager;
    mod peers;
    mod pods;
    mod policy;
    mod presence;
    mod quickstart;
    mod redis;
    mod reload;
    mod session;
    mod transport;
}
