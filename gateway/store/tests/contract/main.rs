//! The contract of the store, as one suite that runs against every backend.
//!
//! A backend is a function in `harness` that makes a fresh, empty store and can let time pass. Lifetimes are
//! odd numbers of half steps and time moves in whole steps, so a backend whose clock also runs by itself may run it.
//!
//! What needs a Redis server is under `live::`; it starts its own on 127.0.0.1.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[macro_use]
mod suite;
mod concurrency;
mod harness;
mod leases;
mod live;
mod model;
mod queues;
mod records;
mod reference;
mod timers;

contract!(harness: memory, journal);
