//! A stream, cut into pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isthmus_sip::fuzz::sip_framer(data));
