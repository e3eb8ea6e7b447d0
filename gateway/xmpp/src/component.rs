//! Component links (XEP-0114), from the component's side.
//!
//! [`Link`] is the machine of one connection. It is fed with what happened and the time it happened
//! (`handle_*`, `send*`), and then drained with [`Link::poll_output`] until that returns `None`; between two
//! drains it asks to be woken by [`Link::poll_timeout`]. A link that closed is of no further use: the
//! caller makes a new one after the pause that [`Event::Closed`] tells.
//!
//! It refuses to write a stanza whose `from` is outside the component's domain, since servers answer that by
//! closing the stream for everybody on it. It does not reconnect, resolve names, or hold back stanzas
//! while it is not ready.
//!
//! # Delivery barrier
//!
//! XEP-0114 has no acknowledgements. After a message sent with [`Link::send_with_barrier`] a ping to the same
//! server follows (XEP-0199). A server that routes in order answers the ping after it has dealt with the
//! message, and so after it has returned an error, if there is one. One ping is outstanding at a time
//! and stands for everything written before it: under load many messages share one. See [`Delivery`].

mod barrier;
mod close;
mod config;
mod event;

pub use barrier::{BarrierToken, Delivery};
pub use close::{CloseReason, RetryRange};
pub use config::{LinkConfig, Secret};
pub use event::{Event, Ignored, Output, SendError, TimerReason};

use std::collections::VecDeque;
use std::time::Instant;

use compact_str::{CompactString, format_compact};

use crate::element::Element;
use crate::jid;
use crate::ns;
use crate::payload::Ping;
use crate::stanza::{ErrorCondition, Iq, IqKind, Message, MessageType, Stanza, StanzaError};
use crate::stream::codec::{EncodeError, Header, StreamDecoder, StreamEncoder, StreamEvent, StreamKind};
use crate::stream::{StreamCondition, StreamError};
use barrier::Barrier;

/// Where the link is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    AwaitHeader {
        deadline: Instant,
    },
    AwaitHandshake {
        deadline: Instant,
    },
    Ready,
    /// Waiting for barriers before closing.
    Draining {
        deadline: Instant,
    },
    /// Our footer is sent.
    Closing {
        deadline: Instant,
    },
    Closed,
}

/// The machine of one component connection.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    /// Makes our ids unlike those of other links and of other people.
    nonce: u64,
    pings: u64,
    state: State,
    decoder: StreamDecoder,
    encoder: StreamEncoder,
    barrier: Barrier,
    outputs: VecDeque<Output>,
    /// The latest time told.
    now: Option<Instant>,
    last_read: Option<Instant>,
    last_sent: Option<Instant>,
    /// Since when an element has been coming.
    element_since: Option<Instant>,
    /// The keep-alive ping that is out: its id and when it was sent.
    ping: Option<(CompactString, Instant)>,
}

impl Link {
    /// Makes the machine of a connection that is about to be opened. `nonce` is random; without it somebody
    /// could guess the ids of our pings.
    pub fn new(config: LinkConfig, nonce: u64) -> Self {
        let decoder = StreamDecoder::new(StreamKind::Component, config.limits);
        let barrier = Barrier::new(config.barrier_settle);
        Self {
            config,
            nonce,
            pings: 0,
            state: State::Idle,
            decoder,
            encoder: StreamEncoder::new(StreamKind::Component),
            barrier,
            outputs: VecDeque::new(),
            now: None,
            last_read: None,
            last_sent: None,
            element_since: None,
            ping: None,
        }
    }

    /// The component's domain.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// True if stanzas can be sent.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Messages whose fate is still open.
    pub fn outstanding(&self) -> usize {
        self.barrier.outstanding()
    }

    /// Tells that the connection, with TLS where it is used, is open.
    pub fn handle_connected(&mut self, now: Instant) {
        self.tick(now);
        if self.state != State::Idle {
            return;
        }
        let header = Header { to: Some(self.config.name.clone()), ..Header::default() };
        match self.encoder.header(&header) {
            Ok(()) => {
                self.last_sent = Some(now);
                self.state = State::AwaitHeader { deadline: now + self.config.negotiation_timeout };
            }
            Err(_) => self.finish(CloseReason::Misconfigured),
        }
    }

    /// Tells what was read from the connection.
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        self.tick(now);
        if matches!(self.state, State::Idle | State::Closed) {
            return;
        }
        self.last_read = Some(now);
        loop {
            match self.decoder.decode(&mut bytes) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    self.element_since = None;
                    self.take(now, event);
                }
                Err(error) => self.fail(CloseReason::Undecodable(error), error.condition()),
            }
            if self.state == State::Closed {
                return;
            }
        }
        if self.decoder.is_inside_element() {
            self.element_since.get_or_insert(now);
        }
        self.continue_drain(now);
    }

    /// Tells that the connection is gone.
    pub fn handle_closed(&mut self, now: Instant) {
        self.tick(now);
        // nobody is left to read it
        let _unsent = self.encoder.take();
        match self.state {
            State::Closed => {}
            State::Closing { .. } => self.finish(CloseReason::Requested),
            _ => self.finish(CloseReason::ConnectionLost),
        }
    }

    /// Tells that the time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        while let Some((at, reason)) = self.poll_timeout() {
            if at > now {
                break;
            }
            self.expire(now, reason);
        }
    }

    /// When [`Self::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, TimerReason)> {
        let config = &self.config;
        let state = match self.state {
            State::Idle | State::Closed => return None,
            State::AwaitHeader { deadline } | State::AwaitHandshake { deadline } => {
                Some((deadline, TimerReason::Negotiation))
            }
            State::Draining { deadline } => Some((deadline, TimerReason::Drain)),
            State::Closing { deadline } => Some((deadline, TimerReason::Close)),
            State::Ready => None,
        };
        let flowing = matches!(self.state, State::Ready | State::Draining { .. });
        let element_limit = if flowing { config.element_timeout } else { config.early_element_timeout };
        let element = self.element_since.map(|since| (since + element_limit, TimerReason::Element));
        let keep_alive = self.last_sent.map(|sent| (sent + config.keep_alive, TimerReason::KeepAlive));
        let silence = match (&self.ping, self.last_read) {
            // whatever came after the ping proves that the server is there
            (Some((_, since)), read) if read.is_none_or(|read| read < *since) => {
                Some((*since + config.ping_timeout, TimerReason::Ping))
            }
            (_, Some(read)) => Some((read + config.silence, TimerReason::Silence)),
            (_, None) => None,
        };
        let barrier = self.barrier.deadline(config.barrier_timeout).map(|at| (at, TimerReason::Barrier));
        [state, element, keep_alive.filter(|_| flowing), silence.filter(|_| flowing), barrier.filter(|_| flowing)]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// Takes the next thing to do; `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.barrier.wants_ping() && matches!(self.state, State::Ready | State::Draining { .. }) {
            self.send_barrier();
        }
        if !self.encoder.is_empty() {
            return Some(Output::Transmit(self.encoder.take()));
        }
        self.outputs.pop_front()
    }

    /// Sends a stanza.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send(&mut self, now: Instant, stanza: &Stanza) -> Result<(), SendError> {
        self.admit(now, stanza.from(), stanza.to())?;
        self.write(now, |encoder| encoder.stanza(stanza))
    }

    /// Sends a tree, for instance one that another pod handed over.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send_element(&mut self, now: Instant, element: &Element) -> Result<(), SendError> {
        self.admit(now, element.attribute("from"), element.attribute("to"))?;
        self.write(now, |encoder| encoder.element(element))
    }

    /// Sends a message and tells by [`Event::Delivery`] what became of it. Its id must be unlike that of any
    /// other message outstanding, and not to be guessed: by it a returned error is recognised.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing will be told of the token then.
    pub fn send_with_barrier(&mut self, now: Instant, message: &Message, token: BarrierToken) -> Result<(), SendError> {
        self.admit(now, message.from(), message.to())?;
        if self.barrier.outstanding() >= self.config.outstanding_max {
            return Err(SendError::TooManyOutstanding { limit: self.config.outstanding_max });
        }
        let (Some(id), Some(from), Some(to)) = (&message.id, &message.from, &message.to) else {
            return Err(SendError::NoId);
        };
        self.write(now, |encoder| encoder.message(message))?;
        self.barrier.sent(id, from, to, token);
        Ok(())
    }

    /// Tells by [`Event::Delivery`] when the server has dealt with everything that was sent before: so work that comes in great
    /// numbers can keep to the server's pace.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing will be told of the token then.
    pub fn mark(&mut self, now: Instant, token: BarrierToken) -> Result<(), SendError> {
        self.tick(now);
        if self.state != State::Ready {
            return Err(SendError::NotReady);
        }
        if self.barrier.outstanding() >= self.config.outstanding_max {
            return Err(SendError::TooManyOutstanding { limit: self.config.outstanding_max });
        }
        self.barrier.marked(token);
        Ok(())
    }

    /// Stops taking stanzas and closes as soon as the fate of every message is known, at the latest after
    /// [`LinkConfig::drain_timeout`].
    pub fn drain(&mut self, now: Instant) {
        self.tick(now);
        if self.state == State::Ready {
            self.state = State::Draining { deadline: now + self.config.drain_timeout };
            self.continue_drain(now);
        } else if matches!(self.state, State::AwaitHeader { .. } | State::AwaitHandshake { .. } | State::Idle) {
            self.close(now);
        }
    }

    /// Ends the stream: what is written goes out, then the server has [`LinkConfig::close_timeout`] to end its
    /// side. The fate of messages outstanding stays unknown unless it is told meanwhile.
    pub fn close(&mut self, now: Instant) {
        self.tick(now);
        match self.state {
            State::Closing { .. } | State::Closed => {}
            State::Idle => self.finish(CloseReason::Requested),
            _ => {
                if self.barrier.wants_ping() && self.state != State::Idle {
                    self.send_barrier();
                }
                self.encoder.footer();
                self.state = State::Closing { deadline: now + self.config.close_timeout };
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.now = Some(self.now.map_or(now, |before| before.max(now)));
    }

    /// Judges whether a stanza may go out at all.
    fn admit(&mut self, now: Instant, from: Option<&str>, to: Option<&str>) -> Result<(), SendError> {
        self.tick(now);
        if self.state != State::Ready {
            return Err(SendError::NotReady);
        }
        if !from.is_some_and(|from| jid::same_domain(jid::domain(from), &self.config.name)) {
            return Err(SendError::ForeignFrom);
        }
        if to.is_none_or(str::is_empty) {
            return Err(SendError::NoRecipient);
        }
        if self.encoder.len() >= self.config.buffer_max_bytes {
            return Err(SendError::Full);
        }
        Ok(())
    }

    fn write(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut StreamEncoder) -> Result<(), EncodeError>,
    ) -> Result<(), SendError> {
        let before = self.encoder.len();
        write(&mut self.encoder)?;
        if self.encoder.len() - before > self.config.send_max_bytes {
            self.encoder.out.truncate(before);
            return Err(SendError::TooLarge { limit: self.config.send_max_bytes });
        }
        self.last_sent = Some(now);
        Ok(())
    }

    fn take(&mut self, now: Instant, event: StreamEvent) {
        match event {
            StreamEvent::Whitespace => {}
            StreamEvent::Footer if matches!(self.state, State::Closing { .. }) => self.finish(CloseReason::Requested),
            StreamEvent::Footer => {
                self.encoder.footer();
                self.finish(CloseReason::PeerClosed);
            }
            StreamEvent::Header(header) => self.take_header(&header),
            StreamEvent::Element(element) => self.take_element(now, element),
        }
    }

    /// Answers the server's header. One without an id announces an error, for which we wait.
    fn take_header(&mut self, header: &Header) {
        let State::AwaitHeader { deadline } = self.state else { return };
        let Some(id) = header.id.as_deref().filter(|id| !id.is_empty()) else { return };
        let digest = self.config.secret.handshake(id);
        self.encoder.raw("<handshake>");
        self.encoder.raw(&digest);
        self.encoder.raw("</handshake>");
        self.state = State::AwaitHandshake { deadline };
    }

    fn take_element(&mut self, now: Instant, element: Element) {
        if let Some(error) = StreamError::read(element.root()) {
            if !matches!(self.state, State::Closing { .. }) {
                self.encoder.footer();
            }
            return self.finish(CloseReason::StreamError(error));
        }
        match self.state {
            State::Ready | State::Draining { .. } | State::Closing { .. } => self.take_stanza(now, element),
            // harmless from servers that take us for a client of RFC 6120
            _ if element.is(ns::STREAMS, "features") => {}
            State::AwaitHandshake { .. } if is_acceptance(&element) => {
                self.decoder.authenticated();
                self.state = State::Ready;
                self.outputs.push_back(Output::Event(Event::Ready));
            }
            _ => self.fail(CloseReason::UnexpectedElement, StreamCondition::UnsupportedStanzaType),
        }
    }

    fn take_stanza(&mut self, now: Instant, element: Element) {
        let stanza = match Stanza::read(element) {
            Ok(stanza) => stanza,
            Err(unreadable) => {
                if let Some(reply) = unreadable.reply {
                    self.reply(now, *reply);
                }
                return self.ignore(Ignored::Unreadable(unreadable.problem));
            }
        };
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else {
            return self.ignore(Ignored::Unaddressed);
        };
        if !jid::same_domain(jid::domain(to), &self.config.name) {
            let error = StanzaError::new(ErrorCondition::ItemNotFound).with_by(&self.config.name);
            if let Some(reply) = stanza.error_reply(error) {
                self.reply(now, reply);
            }
            return self.ignore(Ignored::ForeignRecipient);
        }
        match &stanza {
            Stanza::Iq(iq) if iq.request().is_none() && jid::same_domain(from, &self.config.server) => {
                if self.ping.as_ref().is_some_and(|(id, _)| *id == iq.id) {
                    self.ping = None;
                    return;
                }
                if self.barrier.answered(&iq.id, now) {
                    return self.report_deliveries(now);
                }
            }
            Stanza::Iq(iq) if iq.is_ping() && jid::same_domain(to, &self.config.name) => {
                if let Some(result) = iq.result(None) {
                    self.reply(now, Stanza::Iq(result));
                }
                return;
            }
            Stanza::Message(Message { kind: MessageType::Error, id: Some(id), error: Some(error), .. }) => {
                if let Some(token) = self.barrier.bounced(id, from, to) {
                    let bounced = Delivery::Bounced(Box::new(error.clone()));
                    return self.outputs.push_back(Output::Event(Event::Delivery(token, bounced)));
                }
            }
            _ => {}
        }
        self.outputs.push_back(Output::Event(Event::Stanza(Box::new(stanza))));
    }

    /// Sends an answer of our own. Its sender is the component itself where the stanza was for somebody
    /// else's domain, since the server takes no other from us.
    fn reply(&mut self, now: Instant, mut reply: Stanza) {
        if !matches!(self.state, State::Ready | State::Draining { .. }) {
            return;
        }
        if !reply.from().is_some_and(|from| jid::same_domain(jid::domain(from), &self.config.name)) {
            let from = Some(self.config.name.clone());
            match &mut reply {
                Stanza::Message(message) => message.from = from,
                Stanza::Presence(presence) => presence.from = from,
                Stanza::Iq(iq) => iq.from = from,
            }
        }
        if self.encoder.len() < self.config.buffer_max_bytes {
            // an answer that cannot be written echoes an id that could not have come in
            let _refused = self.write(now, |encoder| encoder.stanza(&reply));
        }
    }

    fn ignore(&mut self, what: Ignored) {
        self.outputs.push_back(Output::Event(Event::Ignored(what)));
    }

    fn report_deliveries(&mut self, now: Instant) {
        while let Some(token) = self.barrier.next_delivered(now) {
            self.outputs.push_back(Output::Event(Event::Delivery(token, Delivery::Delivered)));
        }
    }

    fn send_barrier(&mut self) {
        let Some(now) = self.now else { return };
        if let Some(id) = self.send_ping(now, 'b') {
            self.barrier.asked(id, now);
        }
    }

    /// Pings the server and returns the id.
    fn send_ping(&mut self, now: Instant, purpose: char) -> Option<CompactString> {
        self.pings += 1;
        let id = format_compact!("{:016x}-{purpose}{}", self.nonce, self.pings);
        let ping = Element::write(&Ping).ok()?;
        let iq = Iq::new(IqKind::Get(ping), &self.config.name, &self.config.server, &id);
        self.write(now, |encoder| encoder.iq(&iq)).ok()?;
        Some(id)
    }

    fn continue_drain(&mut self, now: Instant) {
        if matches!(self.state, State::Draining { .. }) && self.barrier.outstanding() == 0 {
            self.close(now);
        }
    }

    fn expire(&mut self, now: Instant, reason: TimerReason) {
        match reason {
            TimerReason::Negotiation => self.fail(CloseReason::NegotiationTimeout, StreamCondition::ConnectionTimeout),
            TimerReason::Element => self.fail(CloseReason::ElementTimeout, StreamCondition::ConnectionTimeout),
            TimerReason::Ping => self.fail(CloseReason::Silent, StreamCondition::ConnectionTimeout),
            TimerReason::Close => self.finish(CloseReason::Requested),
            TimerReason::Drain => self.close(now),
            TimerReason::KeepAlive => {
                self.encoder.whitespace();
                self.last_sent = Some(now);
            }
            TimerReason::Silence => match self.send_ping(now, 'k') {
                Some(id) => self.ping = Some((id, now)),
                None => self.finish(CloseReason::Misconfigured),
            },
            TimerReason::Barrier => {
                self.report_deliveries(now);
                while let Some(token) = self.barrier.next_overdue(now, self.config.barrier_timeout) {
                    self.outputs.push_back(Output::Event(Event::Delivery(token, Delivery::Unknown)));
                }
                self.continue_drain(now);
            }
        }
    }

    /// Ends the stream with an error of ours.
    fn fail(&mut self, reason: CloseReason, condition: StreamCondition) {
        if !matches!(self.state, State::Closing { .. }) {
            self.encoder.stream_error(&StreamError::new(condition));
            self.encoder.footer();
        }
        self.finish(reason);
    }

    fn finish(&mut self, reason: CloseReason) {
        while let Some(token) = self.barrier.next_lost() {
            self.outputs.push_back(Output::Event(Event::Delivery(token, Delivery::Unknown)));
        }
        self.state = State::Closed;
        self.outputs.push_back(Output::Disconnect);
        let retry_after = reason.retry_after();
        self.outputs.push_back(Output::Event(Event::Closed { reason, retry_after }));
    }
}

/// True for the empty `<handshake/>` by which a server accepts a component.
fn is_acceptance(element: &Element) -> bool {
    element.is(ns::CLIENT, "handshake") && element.children().next().is_none() && element.text().trim().is_empty()
}

#[cfg(test)]
mod tests;
