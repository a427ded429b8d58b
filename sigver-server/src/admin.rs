//! The metrics endpoint, in the OpenMetrics 1.0 format. No label contains a key, an address or a token.

use std::{
    fmt, io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};
use sigver_core::PairingStage;

use crate::{
    conn::registry::Registry as Connections,
    counters::{BUCKET_BOUNDS, Counters, Histogram},
    http::{
        head::{self, Head, HeadLimits},
        page,
        response::Response,
    },
    sys::{process, stream::Stream},
};

/// What the threads that serve metrics share with others.
pub(crate) struct Context {
    pub(crate) head_limits: HeadLimits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registry: Arc<Connections>,
    /// The most connections.
    pub(crate) connections: u32,
    /// The most bytes of all write buffers together.
    pub(crate) backlogs: u64,
    pub(crate) started: SystemTime,
}

/// Serves one request.
pub(crate) fn serve(stream: &Stream, context: &Arc<Context>) -> io::Result<()> {
    let respond = |head: &Head<'_>| {
        page::get(head, |path| match path {
            "/metrics" => Response::metrics(metrics(context)),
            _ => Response::NO_PAGE,
        })
    };
    let response = head::read(stream, context.head_limits, |head| Ok(respond(head)))?;
    response
        .map_or_else(|rejection| rejection, |(response, _)| response)
        .send(stream)
}

/// Returns the metrics as text in the OpenMetrics format.
pub(crate) fn metrics(context: &Arc<Context>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(Arc::clone(context))));
    let mut text = String::new();
    // Writing to a `String` does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

struct Metrics(Arc<Context>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let context = &self.0;
        let relay = context.counters.relay();
        let counters = &relay.endpoint;
        let mut page = Encoder(encoder);
        page.build_info()?;
        page.gauge("sigver_connections", "WebSocket connections", counters.hub.connections)?;
        page.gauge(
            "sigver_threads_of_connections",
            "Connections that have a thread: upgraded, in their handshake, or on their way out",
            context.registry.len() as u64,
        )?;
        page.gauge(
            "sigver_connections_limit",
            "The most connections that there may be",
            context.connections,
        )?;
        page.gauge("sigver_keys", "Keys that somebody has open", counters.hub.keys)?;
        page.gauge(
            "sigver_reserved_keys",
            "Keys that are reserved for an opener whose connection was lost",
            counters.hub.reserved,
        )?;
        page.gauge(
            "sigver_joiners",
            "Connections that have joined a key",
            counters.hub.joiners,
        )?;
        page.gauge(
            "sigver_blocked_joiners",
            "Joiners that are not read, because their opener reads too slowly",
            counters.blocked_joiners,
        )?;
        page.gauge(
            "sigver_waiting",
            "Connections that wait for a key to be opened",
            counters.hub.waiting,
        )?;
        page.gauge_in(
            "sigver_backlog",
            "Bytes that wait for clients that do not read",
            Some(&Unit::Bytes),
            counters.backlog_bytes,
        )?;
        page.gauge_in(
            "sigver_backlog_limit",
            "The most bytes that may wait for all clients together",
            Some(&Unit::Bytes),
            context.backlogs,
        )?;
        page.counter(
            "sigver_evicted",
            "Clients closed because the bytes that wait for all of them reached their limit",
            None,
            counters.evicted,
        )?;
        let (received, sent) = (counters.received, counters.sent);
        page.counters(
            "sigver_messages",
            "Messages from clients (in), and sent or queued to clients (out)",
            "direction",
            [("in", received.messages), ("out", sent.messages)],
        )?;
        page.counters(
            "sigver_message_bytes",
            "Bytes of messages, without frame headers",
            "direction",
            [("in", received.bytes), ("out", sent.bytes)],
        )?;
        page.counter(
            "sigver_dropped",
            "Data of openers to an index that names nobody",
            None,
            counters.hub.dropped,
        )?;
        let rejections: Vec<_> = context.counters.rejections().iter().collect();
        let mut refused: Vec<(&str, u64)> = counters.refused.iter().collect();
        refused.extend(rejections.iter().map(|(status, count)| (status.as_str(), *count)));
        page.counters(
            "sigver_refused",
            "Refused requests and closed clients, by reason",
            "reason",
            refused,
        )?;
        let stages = PairingStage::ALL.iter().map(|stage| stage.name());
        page.counters(
            "sigver_pairings",
            "Pairings of joiners and openers that reached a stage",
            "stage",
            stages.zip(counters.pairings),
        )?;
        page.counter(
            "sigver_events_lost",
            "Events for the program that embeds the server for which its channel had no room",
            None,
            relay.events_lost,
        )?;
        page.histogram(
            "sigver_relay",
            "From reading a message to having written it",
            &relay.latency,
        )?;
        page.gauge_in(
            "sigver_start_time",
            "When the server was started, since 1970",
            Some(&Unit::Seconds),
            context
                .started
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        )?;
        page.process()
    }
}

/// The encoder of prometheus-client, one call for each metric.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn metric<'s>(
        &'s mut self,
        name: &'s str,
        help: &'s str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauge_in(name, help, None, value)
    }

    fn gauge_in(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.metric(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: impl EncodeCounterValue) -> fmt::Result {
        let mut encoder = self.metric(name, help, unit, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.metric(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            encoder
                .encode_family(&[(label, value)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let bounds = BUCKET_BOUNDS.map(|micros| f64::from(micros) / 1e6);
        let buckets: Vec<(f64, u64)> = bounds
            .into_iter()
            .chain([f64::INFINITY])
            .zip(histogram.buckets)
            .collect();
        let count = histogram.buckets.iter().sum();
        let mut encoder = self.metric(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(histogram.sum.as_secs_f64(), count, &buckets, None)
    }

    fn build_info(&mut self) -> fmt::Result {
        let mut encoder = self.metric("sigver_build", "The version that runs", None, MetricType::Info)?;
        encoder.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    /// What the system reports about this process.
    fn process(&mut self) -> fmt::Result {
        if let Some(bytes) = process::resident_bytes() {
            let help = "Resident memory";
            self.gauge_in("process_resident_memory", help, Some(&Unit::Bytes), bytes)?;
        }
        if let Some(threads) = process::threads() {
            self.gauge("process_threads", "Threads", threads)?;
        }
        if let Some(descriptors) = process::open_files() {
            self.gauge("process_open_fds", "Open file descriptors", descriptors)?;
        }
        let seconds = process::cpu_time().as_secs_f64();
        self.counter("process_cpu", "User and system CPU time", Some(&Unit::Seconds), seconds)
    }
}
