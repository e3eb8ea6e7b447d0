//! A presence document.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isthmus_sip::pidf::fuzz(data));
