//! Logs, spans and where they go.

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
    /// Text on a terminal, JSON everywhere else.
    Auto,
}

/// What spans need to leave the process.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanExport {
    /// The OTLP/HTTP endpoint of a collector, for example `http://collector:4318`.
    pub endpoint: String,
    /// The share of traces to keep, 0.0 to 1.0.
    pub sample_ratio: f64,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The log filter is not one.
    #[error("log filter {filter:?}: {cause}: write it like \"info\" or \"info,isthmus_gateway=debug\"")]
    Filter {
        /// The filter as configured.
        filter: String,
        /// The parser's words.
        cause: String,
    },
    /// The exporter refused its endpoint.
    #[error("span export to {endpoint:?}: {cause}: give an http:// or https:// URL of an OTLP collector")]
    Export {
        /// The endpoint as configured.
        endpoint: String,
        /// The exporter's words.
        cause: String,
    },
    /// A subscriber is installed already.
    #[error("telemetry was started twice")]
    Twice,
}

/// The running telemetry; keep it, and call [`Telemetry::shutdown`] at the end so that no span is lost.
#[derive(Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging and, with an `export`, the sending of spans.
    ///
    /// # Errors
    ///
    /// [`TelemetryError`].
    pub fn start(filter: &str, format: LogFormat, export: Option<&SpanExport>) -> Result<Self, TelemetryError> {
        let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
        let json = match format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !std::io::stderr().is_terminal(),
        };
        let lines = if json {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        } else {
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).boxed()
        };
        let spans = export.map(provider).transpose()?;
        let exporter = spans.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("isthmus-gateway"))
                // The exporter's own HTTP client must not make spans of its own.
                .with_filter(Targets::new().with_target("isthmus", tracing::Level::INFO))
        });
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .with(exporter)
            .try_init()
            .map_err(|_| TelemetryError::Twice)?;
        Ok(Self { filter: handle, spans })
    }

    /// Replaces the log filter of the running process.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Filter`]; the former filter stays in force.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse_filter(filter)?;
        self.filter
            .reload(parsed)
            .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), cause: error.to_string() })
    }

    /// Sends what is buffered and stops.
    pub async fn shutdown(self) {
        let Some(spans) = self.spans else { return };
        let done = tokio::task::spawn_blocking(move || spans.shutdown()).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, "spans left unsent");
        }
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), cause: error.to_string() })
}

fn provider(export: &SpanExport) -> Result<SdkTracerProvider, TelemetryError> {
    let endpoint = format!("{}/v1/traces", export.endpoint.trim_end_matches('/'));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| TelemetryError::Export { endpoint: export.endpoint.clone(), cause: error.to_string() })?;
    let resource = Resource::builder()
        .with_service_name("isthmus-gateway")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(export.sample_ratio))))
        .with_resource(resource)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_with_the_remedy() {
        let error = parse_filter("isthmus=loud").unwrap_err().to_string();
        assert!(error.contains("isthmus=loud") && error.contains("write it like"), "{error}");
    }
}
