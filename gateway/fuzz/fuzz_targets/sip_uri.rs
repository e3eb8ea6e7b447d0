//! A URI, alone and inside of an address.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isthmus_sip::fuzz::sip_uri(data));
