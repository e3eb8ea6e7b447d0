//! Prometheus metrics of the data plane; label values come from fixed sets.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A direction and an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Flow {
    /// `sip_to_xmpp` or `xmpp_to_sip`.
    pub direction: &'static str,
    /// What became of it.
    pub outcome: &'static str,
}

/// One reason out of a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The reason.
    pub reason: &'static str,
}

/// One state out of a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    /// The state.
    pub state: &'static str,
}

/// A method and the class of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// `in` or `out`.
    pub direction: &'static str,
    /// A known SIP method, or `other`.
    pub method: &'static str,
    /// `2xx` .. `6xx`, or `timeout`.
    pub answer: &'static str,
}

/// A note between processes, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NoteOutcome {
    /// The kind of note.
    pub kind: &'static str,
    /// What became of it.
    pub outcome: &'static str,
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// SIP requests by method and class of answer.
    pub sip_requests: Family<Request, Counter>,
    /// Messages that crossed, or did not, and why.
    pub messages: Family<Flow, Counter>,
    /// Presence notifications that crossed, or did not, and why.
    pub presence: Family<Flow, Counter>,
    /// Input that was malformed, by what it was.
    pub malformed: Family<Reason, Counter>,
    /// Requests and stanzas that policy or a limit refused.
    pub refused: Family<Reason, Counter>,
    /// SIP stream connections by direction.
    pub sip_connections: Family<State, Gauge>,
    /// Component links by state.
    pub component_links: Family<State, Gauge>,
    /// Configurations taken or refused.
    pub reloads: Family<Reason, Counter>,
    /// When the configuration in force was taken, seconds since the epoch.
    pub config_timestamp: Gauge<f64, AtomicU64>,
    /// From the arrival of a message to its final answer.
    pub message_seconds: Histogram,
    /// From the loss of a link until presence of a pair that it carries was whole again.
    pub blind_seconds: Histogram,
    /// Own subscriptions looked at after the store lost its data: `sent` again, `not_missing`, or the pair is now served
    /// `elsewhere`, to where it was `handed_over` if it was served here shortly before.
    pub resubscriptions: Family<Reason, Counter>,
    /// How often the state store had lost its data.
    pub state_lost: Counter,
    /// Store operations that failed, by reason.
    pub store_errors: Family<Reason, Counter>,
    /// Leases of links that were taken (`free`, `taken_over`, `again`) or lost.
    pub link_leases: Family<Reason, Counter>,
    /// Whether new requests are refused because the state store does not keep up, 1 or 0.
    pub overloaded: Gauge,
    /// Whether the state store works, 1 or 0.
    pub store_up: Gauge,
    /// What needs attention about the state store: 1 while it does.
    pub store_findings: Family<Reason, Gauge>,
    /// Processes that share the store, this one among them.
    pub pods: Gauge,
    /// Notes to and from other processes.
    pub pod_notes: Family<NoteOutcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("isthmus"),
            sip_requests: Family::default(),
            messages: Family::default(),
            presence: Family::default(),
            malformed: Family::default(),
            refused: Family::default(),
            sip_connections: Family::default(),
            component_links: Family::default(),
            reloads: Family::default(),
            config_timestamp: Gauge::default(),
            message_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            blind_seconds: Histogram::new(exponential_buckets(0.05, 2.0, 14)),
            resubscriptions: Family::default(),
            state_lost: Counter::default(),
            store_errors: Family::default(),
            link_leases: Family::default(),
            overloaded: Gauge::default(),
            store_up: Gauge::default(),
            store_findings: Family::default(),
            pods: Gauge::default(),
            pod_notes: Family::default(),
        };
        let r = &mut metrics.registry;
        r.register("sip_requests", "SIP requests", metrics.sip_requests.clone());
        r.register("messages", "Instant messages", metrics.messages.clone());
        r.register("presence_changes", "Presence notifications", metrics.presence.clone());
        r.register("malformed_inputs", "Malformed input from peers", metrics.malformed.clone());
        r.register("refusals", "Requests and stanzas refused", metrics.refused.clone());
        r.register("sip_connections", "SIP stream connections", metrics.sip_connections.clone());
        r.register("component_links", "XMPP component links", metrics.component_links.clone());
        r.register("config_reloads", "Configurations read", metrics.reloads.clone());
        r.register(
            "config_taken_timestamp_seconds",
            "When the configuration in force was taken",
            metrics.config_timestamp.clone(),
        );
        r.register(
            "message_duration_seconds",
            "From the arrival of a message to its final answer",
            metrics.message_seconds.clone(),
        );
        r.register(
            "blind_seconds",
            "From the loss of a link until presence of a pair was whole again",
            metrics.blind_seconds.clone(),
        );
        r.register(
            "resubscriptions",
            "Own subscriptions looked at after the state store lost its data",
            metrics.resubscriptions.clone(),
        );
        r.register("state_lost", "Losses of the state store's data", metrics.state_lost.clone());
        r.register("store_errors", "Store operations that failed", metrics.store_errors.clone());
        r.register("link_leases", "Leases of component links taken or lost", metrics.link_leases.clone());
        r.register("overloaded", "Whether new requests are refused for now", metrics.overloaded.clone());
        r.register("state_store_up", "Whether the state store works", metrics.store_up.clone());
        // Each reason from the start, so that an alert on one has a series.
        for reason in isthmus_store::health::REASONS {
            metrics.store_findings.get_or_create(&Reason { reason }).set(0);
        }
        r.register("state_store_finding", "What needs attention about the state store", metrics.store_findings.clone());
        r.register("pods", "Processes that share the state store", metrics.pods.clone());
        r.register("pod_notes", "Notes to and from other processes", metrics.pod_notes.clone());
        metrics
    }

    /// Writes all metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Counts one message.
    pub fn message(&self, direction: &'static str, outcome: &'static str) {
        self.messages.get_or_create(&Flow { direction, outcome }).inc();
    }

    /// Counts one presence notification.
    pub fn presence(&self, direction: &'static str, outcome: &'static str) {
        self.presence.get_or_create(&Flow { direction, outcome }).inc();
    }

    /// Counts one refusal.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// Counts one malformed input.
    pub fn malformed(&self, reason: &'static str) {
        self.malformed.get_or_create(&Reason { reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_the_prefix_and_their_labels() {
        let metrics = Metrics::new();
        metrics.message("sip_to_xmpp", "delivered");
        let text = metrics.render();
        assert!(text.contains(r#"isthmus_messages_total{direction="sip_to_xmpp",outcome="delivered"} 1"#), "{text}");
        for reason in ["WrongMode", "ClockDifference"] {
            assert!(text.contains(&format!("isthmus_state_store_finding{{reason=\"{reason}\"}} 0\n")), "{text}");
        }
    }
}
