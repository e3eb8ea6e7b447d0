//! The bar of design §2: at most four allocations to parse, read and write a SUBSCRIBE of 760 bytes.

use std::hint::black_box;

use bytes::Bytes;
use isthmus_sip::{Limits, Message};

const SUBSCRIBE: &[u8] = include_bytes!("../../benches/subscribe.sip");

fn count(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn a_subscribe_is_parsed_read_and_written_with_at_most_four_allocations() {
    assert_eq!(SUBSCRIBE.len(), 760);
    let (input, limits) = (Bytes::from_static(SUBSCRIBE), Limits::default());
    let allocations = count(|| {
        let message = Message::parse(input, &limits).expect("valid");
        let (via, from, to) = (message.top_via(), message.from_(), message.to());
        black_box((via.branch(), via.host(), via.rport(), from.tag(), to.tag()));
        black_box((from.uri().expect("uri"), to.uri().expect("uri")));
        black_box((message.cseq(), message.call_id(), message.contact().expect("readable")));
        black_box(message.rewrite().expect("written"));
    });
    assert!((1..=4).contains(&allocations), "{allocations} allocations");
}

#[test]
fn parsing_allocates_the_list_of_lines_alone_and_reading_nothing() {
    let (input, limits) = (Bytes::from_static(SUBSCRIBE), Limits::default());
    let allocations = count(|| {
        let message = Message::parse(input, &limits).expect("valid");
        black_box((message.vias().count(), message.from_().display_name(), message.contacts().count()));
        black_box((message.accept().count(), message.event().expect("readable"), message.body()));
        black_box(message.expires().expect("readable"));
    });
    assert_eq!(allocations, 1);
}
