//! Parses a 760-byte SUBSCRIBE, reads its typed Via, From, To, CSeq, Call-ID and Contact, and writes it again:
//! this codec, rsip and sipx-sip in the same run, in turns, so that a busy machine slows all three alike.
//!
//! Prints the best and the median round of each in time on the processor, `ratio` lines and allocation counts. Ends with 1 only when the
//! bar of four allocations is broken: a count does not depend on the machine, a time does.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use isthmus_sip::{Limits, Message};
use rsip::headers::ToTypedHeader;
use rsip::message::HeadersExt;
use sipx_sip::parser;

const SUBSCRIBE: &[u8] = include_bytes!("subscribe.sip");
const ROUNDS: usize = 30;
const ALLOCATIONS: u64 = 4;

fn ours(input: &Bytes, limits: &Limits) -> usize {
    let message = Message::parse(input.clone(), limits).expect("the message is valid");
    let via = message.top_via();
    black_box((via.branch(), via.host(), via.port()));
    let from = message.from_();
    black_box((from.uri().expect("uri").host(), from.tag()));
    let to = message.to();
    black_box((to.uri().expect("uri").host(), to.tag()));
    black_box((message.cseq(), message.call_id()));
    black_box(message.contact().expect("contact"));
    message.rewrite().expect("it can be written").len()
}

fn rsip(input: &Bytes) -> usize {
    let message = rsip::SipMessage::try_from(input.as_ref()).expect("the message is valid");
    let via = message.via_header().and_then(ToTypedHeader::typed).expect("via");
    black_box((via.branch(), &via.uri));
    let from = message.from_header().and_then(ToTypedHeader::typed).expect("from");
    black_box((&from.uri, from.tag()));
    let to = message.to_header().and_then(ToTypedHeader::typed).expect("to");
    black_box((&to.uri, to.tag()));
    black_box(message.cseq_header().and_then(ToTypedHeader::typed).expect("cseq"));
    black_box(message.call_id_header().expect("call-id"));
    black_box(message.contact_header().and_then(ToTypedHeader::typed).expect("contact"));
    let written: Vec<u8> = message.into();
    written.len()
}

fn sipx(input: &Bytes, limits: &parser::Limits) -> usize {
    use sipx_sip::headers::{CSeq, CallId, Contact, From, To, Via};

    let message = parser::parse_datagram(input.clone(), limits).expect("the message is valid");
    let headers = message.headers();
    let via = headers.typed::<Via>().expect("via").expect("via");
    black_box(via.branch());
    let from = headers.typed::<From>().expect("from").expect("from");
    black_box((&from.uri, from.tag()));
    let to = headers.typed::<To>().expect("to").expect("to");
    black_box((&to.uri, to.tag()));
    black_box(headers.typed::<CSeq>().expect("cseq").expect("cseq"));
    black_box(headers.typed::<CallId>().expect("call-id").expect("call-id"));
    black_box(headers.typed::<Contact>().expect("contact").expect("contact"));
    message.to_bytes().len()
}

/// Nanoseconds of one call, round by round.
struct Times {
    /// Calls of a round, so many that a round takes as long for each codec: the system updates its count at ticks.
    calls: u32,
    rounds: Vec<f64>,
}

impl Times {
    fn new(calls: u32) -> Self {
        Self { calls, rounds: Vec::with_capacity(ROUNDS) }
    }

    #[expect(clippy::disallowed_methods, reason = "measures time; the crate itself reads no clock")]
    fn round(&mut self, mut call: impl FnMut() -> usize) {
        let (clock, start) = (Instant::now(), on_cpu());
        for _ in 0..self.calls {
            black_box(call());
        }
        let wall = clock.elapsed().as_secs_f64() * 1e9;
        let spent = start.zip(on_cpu()).map_or(wall, |(start, end)| end - start);
        self.rounds.push(spent / f64::from(self.calls));
    }

    fn best(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The median over the rounds of how many times longer `self` took than `other` right beside it.
    fn ratio(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect())
    }
}

/// Nanoseconds that this thread spent on a processor, where the system tells: other processes then do not count.
fn on_cpu() -> Option<f64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]
fn main() -> ExitCode {
    let input = Bytes::from_static(SUBSCRIBE);
    let (limits, sipx_limits) = (Limits::default(), parser::Limits::datagram());
    let count = |call: &dyn Fn() -> usize| {
        allocation_counter::measure(|| {
            black_box(call());
        })
        .count_total
    };
    let allocations =
        [count(&|| ours(&input, &limits)), count(&|| rsip(&input)), count(&|| sipx(&input, &sipx_limits))];
    let [mut a, mut b, mut c] = [Times::new(20_000), Times::new(4_000), Times::new(6_000)];
    for _ in 0..ROUNDS {
        a.round(|| ours(&input, &limits));
        b.round(|| rsip(&input));
        c.round(|| sipx(&input, &sipx_limits));
    }
    println!("codec: {} byte SUBSCRIBE, parse + typed headers + write, {ROUNDS} rounds", input.len());
    for (name, times, allocations) in
        [("isthmus-sip", &a, allocations[0]), ("rsip", &b, allocations[1]), ("sipx-sip", &c, allocations[2])]
    {
        println!(
            "{name:12} best {:8.0} ns  median {:8.0} ns  {allocations:4} allocations",
            times.best(),
            times.median()
        );
    }
    println!("ratio rsip/isthmus-sip {:.2} (bar 5.00)", b.ratio(&a));
    println!("ratio sipx-sip/isthmus-sip {:.2} (bar 1.00)", c.ratio(&a));
    println!("ratio 2000ns/isthmus-sip {:.2} (bar 1.00 on the reference machine)", 2000.0 / a.best());
    if allocations[0] > ALLOCATIONS {
        println!("FAIL: {} allocations, the bar is {ALLOCATIONS}", allocations[0]);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
