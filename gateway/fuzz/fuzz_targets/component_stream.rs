//! What a server sends on a component stream.
#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| isthmus_xmpp::fuzz::component_stream(data, Instant::now()));
