//! The text of a scrape (Prometheus text format 0.0.4).
//!
//! The numbers are counted elsewhere and were asked for one round, so there is no metric that lives longer than its text:
//! a round is what `prometheus-client` calls a collector, in a registry of its own.

use super::names::{self, Kind, Metric};
use super::round::Round;
use crate::model::Backend;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use ringlb_proxy::control::histogram::{self, Scale, Times};
use ringlb_proxy::control::message::{
    BackendStatistics, DatagramStatistics, Health, ProxyStatistics, RingStatistics, ServiceStatistics,
};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// What was told in `round`.
pub(super) fn render(round: Round) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(round));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A metric, or the value of a label, and where its value is in what a proxy says of `T`.
type Source<T, M = Metric> = (M, fn(&T) -> u64);

const PROXY: [Source<ProxyStatistics>; 11] = [
    (names::PROXY_ACCEPTED, |proxy| proxy.accepted),
    (names::PROXY_ACTIVE, |proxy| proxy.active),
    (names::PROXY_REFUSED_AT_LIMIT, |proxy| proxy.refused_at_limit),
    (names::PROXY_NO_SERVICE, |proxy| proxy.no_service),
    (names::PROXY_NO_BACKEND, |proxy| proxy.no_backend),
    (names::PROXY_CONNECT_FAILURES, |proxy| proxy.connect_failures),
    (names::PROXY_CONNECT_RETRIES, |proxy| proxy.retries),
    (names::PROXY_PORTS_EXHAUSTED, |proxy| proxy.ports_exhausted),
    (names::PROXY_RETRIES_DENIED, |proxy| proxy.retries_denied),
    (names::PROXY_ACCESS_LOG_DROPPED, |proxy| proxy.access_log_dropped),
    (names::PROXY_WAITING, |proxy| proxy.waiting),
];

const REFUSALS: [Source<ProxyStatistics, &str>; 9] = [
    ("denied", |proxy| proxy.refused_denied),
    ("client-rate", |proxy| proxy.refused_client_rate),
    ("client-full", |proxy| proxy.refused_client_full),
    ("service-full", |proxy| proxy.refused_service_full),
    ("backends-full", |proxy| proxy.refused_backends_full),
    ("queue-full", |proxy| proxy.refused_queue_full),
    ("queue-timeout", |proxy| proxy.refused_queue_timeout),
    ("header-invalid", |proxy| proxy.refused_header_invalid),
    ("header-timeout", |proxy| proxy.refused_header_timeout),
];

const RESETS: [Source<ProxyStatistics, &str>; 6] = [
    ("client", |proxy| proxy.client_resets),
    ("backend", |proxy| proxy.backend_resets),
    ("removed", |proxy| proxy.removed_resets),
    ("drain", |proxy| proxy.drain_resets),
    ("idle", |proxy| proxy.idle_resets),
    ("lifetime", |proxy| proxy.lifetime_resets),
];

const UDP: [Source<DatagramStatistics>; 4] = [
    (names::UDP_SESSIONS, |udp| udp.sessions),
    (names::UDP_ACTIVE, |udp| udp.active),
    (names::UDP_MOVED, |udp| udp.moved),
    (names::UDP_EVICTED, |udp| udp.evicted),
];

const UDP_DATAGRAMS: [Source<DatagramStatistics, &str>; 2] =
    [("backend", |udp| udp.to_backends), ("client", |udp| udp.to_clients)];

const UDP_BYTES: [Source<DatagramStatistics, &str>; 2] =
    [("backend", |udp| udp.bytes_to_backends), ("client", |udp| udp.bytes_to_clients)];

const UDP_DROPPED: [Source<DatagramStatistics, &str>; 8] = [
    ("no_service", |udp| udp.no_service),
    ("no_backend", |udp| udp.no_backend),
    ("buffer_full", |udp| udp.buffer_full),
    ("too_large", |udp| udp.too_large),
    ("at_limit", |udp| udp.at_limit),
    ("unsendable", |udp| udp.unsendable),
    ("unanswerable", |udp| udp.unanswerable),
    ("refused", |udp| udp.refused),
];

const RING: [Source<RingStatistics>; 5] = [
    (names::RING_ENTERS, |ring| ring.enters),
    (names::RING_BUFFERS_EXHAUSTED, |ring| ring.buffers_exhausted),
    (names::RING_COMPLETION_OVERFLOWS, |ring| ring.completion_overflows),
    (names::RING_SPLICED_DIRECTIONS, |ring| ring.spliced_directions),
    (names::RING_SPLICED_BYTES, |ring| ring.spliced_bytes),
];

const BACKEND: [Source<BackendStatistics>; 14] = [
    (names::BACKEND_CONNECTIONS, |backend| backend.connections),
    (names::BACKEND_ACTIVE, |backend| backend.active),
    (names::BACKEND_CONNECT_FAILURES, |backend| backend.connect_failures),
    (names::BACKEND_EJECTIONS, |backend| backend.ejections),
    (names::BACKEND_CHECK_FAILURES, |backend| backend.check_failures),
    (names::BACKEND_EJECTED, |backend| (backend.health == Health::Ejected).into()),
    (names::BACKEND_UNHEALTHY, |backend| (backend.health == Health::Unhealthy).into()),
    (names::BACKEND_WARMTH, |backend| backend.warmth.into()),
    (names::BACKEND_UDP_SESSIONS, |backend| backend.sessions),
    (names::BACKEND_UDP_ACTIVE, |backend| backend.active_sessions),
    (names::BACKEND_SENT_DATAGRAMS, |backend| backend.datagrams_to_backend),
    (names::BACKEND_RECEIVED_DATAGRAMS, |backend| backend.datagrams_to_client),
    (names::BACKEND_SENT, |backend| backend.bytes_to_backend),
    (names::BACKEND_RECEIVED, |backend| backend.bytes_to_client),
];

impl Collector for Round {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.write_node(&mut writer)?;
        self.write_networks(&mut writer)?;
        self.write_proxies(&mut writer)?;
        self.write_services(&mut writer)
    }
}

impl Round {
    fn write_node(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.family(&names::BUILD_INFO, [([self.version], 1)])?;
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        writer.family(&names::PROCESS_START_TIME, [([], started.as_secs())])
    }

    fn write_networks(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let networks = || self.networks.iter().map(|answer| (&**answer.network.name(), answer));
        let up = networks().filter(|(_, answer)| answer.network.lb_address().is_some());
        writer.family(&names::PROXY_UP, up.map(|(name, answer)| ([name], answer.statistics.is_some().into())))?;
        let wanted = networks().map(|(name, answer)| ([name], answer.network.generation()));
        writer.family(&names::NETWORK_GENERATION, wanted)?;
        let told = || networks().filter_map(|(name, answer)| Some((name, answer.status.as_ref()?)));
        let acknowledged = told().map(|(name, status)| ([name], status.acknowledged_generation));
        writer.family(&names::NETWORK_ACKNOWLEDGED_GENERATION, acknowledged)?;
        let restarts = told().filter_map(|(name, status)| Some(([name], status.proxy.as_ref()?.restarts)));
        writer.family(&names::PROXY_RESTARTS, restarts)
    }

    fn write_proxies(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let proxies = || {
            let told = self.networks.iter();
            told.filter_map(|answer| Some((&**answer.network.name(), answer.statistics.as_ref()?)))
        };
        for (metric, value) in &PROXY {
            writer.family(metric, proxies().map(|(name, told)| ([name], value(&told.proxy))))?;
        }
        let refusals = proxies()
            .flat_map(|(name, told)| REFUSALS.iter().map(move |(reason, value)| ([name, *reason], value(&told.proxy))));
        writer.family(&names::PROXY_REFUSED, refusals)?;
        let resets = proxies()
            .flat_map(|(name, told)| RESETS.iter().map(move |(cause, value)| ([name, *cause], value(&told.proxy))));
        writer.family(&names::PROXY_RESETS, resets)?;
        for (metric, value) in &UDP {
            writer.family(metric, proxies().map(|(name, told)| ([name], value(&told.datagrams))))?;
        }
        let labelled: [(&Metric, &[Source<DatagramStatistics, &str>]); 3] = [
            (&names::UDP_DATAGRAMS, &UDP_DATAGRAMS),
            (&names::UDP_BYTES, &UDP_BYTES),
            (&names::UDP_DROPPED, &UDP_DROPPED),
        ];
        for (metric, sources) in labelled {
            let samples = proxies().flat_map(|(name, told)| {
                sources.iter().map(move |(label, value)| ([name, *label], value(&told.datagrams)))
            });
            writer.family(metric, samples)?;
        }
        for (metric, value) in &RING {
            writer.family(metric, proxies().map(|(name, told)| ([name], value(&told.ring))))?;
        }
        Ok(())
    }

    fn write_services(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let services = self.services();
        let connections = services.iter().filter_map(|row| Some((row.labels, row.told?.connections)));
        writer.family(&names::SERVICE_CONNECTIONS, connections)?;
        let begun = services.iter().filter_map(|row| Some((row.labels, row.told?.sessions)));
        writer.family(&names::SERVICE_UDP_SESSIONS, begun)?;
        let told = || services.iter().filter_map(|row| Some((row.labels, row.told?)));
        let connects = told().map(|(labels, told)| (labels, &told.connect_times));
        writer.histograms(&names::SERVICE_CONNECT_TIMES, histogram::CONNECT, connects)?;
        let sessions = told().map(|(labels, told)| (labels, &told.session_times));
        writer.histograms(&names::SERVICE_SESSION_TIMES, histogram::SESSION, sessions)?;
        let backends: Vec<_> = services.iter().flat_map(ServiceRow::backends).collect();
        for (metric, value) in &BACKEND {
            let told = backends.iter().filter_map(|row| Some((row.labels(), value(row.told?))));
            writer.family(metric, told)?;
        }
        let weights = backends.iter().map(|row| (row.labels(), row.backend.weight.0.into()));
        writer.family(&names::BACKEND_WEIGHT, weights)?;
        let draining = backends.iter().map(|row| (row.labels(), row.backend.draining.into()));
        writer.family(&names::BACKEND_DRAINING, draining)
    }

    /// The services that should be, with what their proxies have told of them. A proxy's list may be older or newer: what
    /// it tells of others is left out, so that each series belongs to something that can be looked up.
    fn services(&self) -> Vec<ServiceRow<'_>> {
        let mut rows = Vec::new();
        for answer in &self.networks {
            let told = answer.statistics.iter().flat_map(|statistics| &statistics.services);
            let told: HashMap<_, _> = told.map(|service| (service.name.as_str(), service)).collect();
            let network = &**answer.network.name();
            rows.extend(answer.network.services().in_order().map(|service| ServiceRow {
                labels: [network, &service.name],
                told: told.get(&*service.name).copied(),
                service,
            }));
        }
        rows
    }
}

struct ServiceRow<'a> {
    labels: [&'a str; 2],
    service: &'a crate::model::Service,
    told: Option<&'a ServiceStatistics>,
}

struct BackendRow<'a> {
    service: [&'a str; 2],
    address: String,
    backend: &'a Backend,
    told: Option<&'a BackendStatistics>,
}

impl<'a> ServiceRow<'a> {
    fn backends(&self) -> Vec<BackendRow<'a>> {
        let told: HashMap<IpAddr, _> =
            self.told.iter().flat_map(|told| &told.backends).map(|told| (told.address, told)).collect();
        let backends = self.service.backends.iter().map(|(address, backend)| BackendRow {
            service: self.labels,
            address: address.to_string(),
            backend,
            told: told.get(address).copied(),
        });
        backends.collect()
    }
}

impl BackendRow<'_> {
    fn labels(&self) -> [&str; 3] {
        let [network, service] = self.service;
        [network, service, &self.address]
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// Writes a metric with all its samples, if there are any: the values of its labels, and its own.
    fn family<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], u64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.descriptor(metric)?;
        for (values, value) in samples {
            let labels = Labels { names: metric.labels, values: &values };
            let mut sample = family.encode_family(&labels)?;
            if metric.kind == Kind::Counter {
                sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                sample.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    /// Writes a histogram for each of the samples, if there are any.
    fn histograms<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        scale: Scale,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], &'a Times)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let bounds: Vec<f64> = scale.bounds().map(|bound| bound.as_secs_f64()).collect();
        let mut family = self.descriptor(metric)?;
        for (values, times) in samples {
            let labels = Labels { names: metric.labels, values: &values };
            // The last one, which has no bound, is what the count says.
            let buckets: Vec<_> = bounds.iter().copied().zip(times.buckets.iter().copied()).collect();
            let (sum, count) = (Duration::from_micros(times.sum_us).as_secs_f64(), times.buckets.iter().sum());
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn descriptor(&mut self, metric: &Metric) -> Result<MetricEncoder<'_>, fmt::Error> {
        // The library adds a counter's ending itself.
        let (name, kind) = match metric.kind {
            Kind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
            Kind::Gauge => (metric.name, MetricType::Gauge),
            Kind::Histogram => (metric.name, MetricType::Histogram),
        };
        // Without the unit, which this format does not write and the library would put into the name again.
        self.0.encode_descriptor(name, metric.help, None, kind)
    }
}

struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [&'a str],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for label in self.names.iter().copied().zip(self.values.iter().copied()) {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::round::NetworkAnswer;
    use super::*;
    use crate::model::{DesiredState, Model};
    use crate::reconcile::{NetworkStatus, ProxyStatus};
    use ringlb_proxy::control::message::Statistics;
    use std::time::Duration;

    fn round(state: &str, answer: impl Fn(&str) -> (Option<NetworkStatus>, Option<Statistics>)) -> Round {
        let state: DesiredState = serde_json::from_str(state).unwrap();
        let model = Model::default().desired(&state).unwrap();
        let networks = model.networks().values().map(|network| {
            let (status, statistics) = answer(network.name());
            NetworkAnswer { network: network.clone(), status, statistics }
        });
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999);
        Round { version: "1.2.3", started, networks: networks.collect() }
    }

    const TWO: &str = r#"{"version": 1, "networks": [
        {"name": "net.a", "subnet": "10.1.0.0/24",
         "attachments": [{"name": "c1", "netns": "/run/netns/c1"}],
         "services": [{"name": "api", "backends": [{"ip": "10.1.0.3", "weight": 2, "drain": true}, {"ip": "10.1.0.9"}]}]},
        {"name": "net.b", "subnet": "10.2.0.0/24"}]}"#;

    #[test]
    fn an_empty_node_says_what_it_is() {
        let text = render(round(r#"{"version": 1, "networks": []}"#, |_| (None, None))).unwrap();
        let expected = "\
            # HELP ringlb_build_info Always 1; the daemon's version is in the label\n\
            # TYPE ringlb_build_info gauge\n\
            ringlb_build_info{version=\"1.2.3\"} 1\n\
            # HELP process_start_time_seconds When the daemon started, since the Unix epoch\n\
            # TYPE process_start_time_seconds gauge\n\
            process_start_time_seconds 1700000000\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut round = round(r#"{"version": 1, "networks": []}"#, |_| (None, None));
        round.version = "a\"b\\c\nd{}=,é";
        let text = render(round).unwrap();
        assert!(text.contains("\nringlb_build_info{version=\"a\\\"b\\\\c\\nd{}=,é\"} 1\n"), "{text}");
    }

    fn told_of_service(name: &str, connections: u64, backends: Vec<BackendStatistics>) -> ServiceStatistics {
        let times = |scale: Scale| {
            let mut buckets = vec![0; scale.buckets()];
            (buckets[1], buckets[scale.buckets() - 1]) = (3, 1);
            Times { buckets, sum_us: 9_000_250 }
        };
        let (connect_times, session_times) = (times(histogram::CONNECT), times(histogram::SESSION));
        ServiceStatistics { name: name.to_owned(), connections, sessions: 0, connect_times, session_times, backends }
    }

    #[test]
    fn a_histogram_adds_up() {
        let statistics = |_: &str| {
            let services = vec![told_of_service("api", 4, Vec::new())];
            (None, Some(Statistics { services, ..Statistics::default() }))
        };
        let text = render(round(TWO, statistics)).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("ringlb_service_connect_seconds")).collect();
        assert_eq!(lines[1], "# TYPE ringlb_service_connect_seconds histogram");
        let labels = r#"network="net.a",service="api""#;
        for (sample, value) in [
            (format!("bucket{{{labels},le=\"6.4e-05\"}}"), "0"),
            (format!("bucket{{{labels},le=\"0.000128\"}}"), "3"),
            (format!("bucket{{{labels},le=\"4.194304\"}}"), "3"),
            (format!("bucket{{{labels},le=\"+Inf\"}}"), "4"),
            (format!("sum{{{labels}}}"), "9.00025"),
            (format!("count{{{labels}}}"), "4"),
        ] {
            let line = format!("ringlb_service_connect_seconds_{sample} {value}");
            assert!(lines.contains(&line.as_str()), "{line} is not in {lines:#?}");
        }
        assert_eq!(lines.len(), 2 + histogram::CONNECT.buckets() + 2, "{lines:#?}");
    }

    #[test]
    fn a_counter_is_one_metric_with_all_its_series() {
        let statistics = |_: &str| {
            let told = |last: u8| BackendStatistics {
                address: IpAddr::from([10, 1, 0, last]),
                connections: u64::MAX,
                active: 0,
                connect_failures: 0,
                sessions: 0,
                active_sessions: 0,
                datagrams_to_backend: 0,
                datagrams_to_client: 0,
                bytes_to_backend: u64::from(last),
                bytes_to_client: 0,
                health: Health::Ejected,
                ejected_for_ms: 1,
                warmth: 100,
                ejections: 4,
                check_failures: 0,
            };
            // The one that was removed is left out, the one that was just added has not been told of.
            let backends = vec![told(3), told(77)];
            let services = vec![told_of_service("api", 5, backends.clone()), told_of_service("removed", 6, backends)];
            (None, Some(Statistics { services, ..Statistics::default() }))
        };
        let text = render(round(TWO, statistics)).unwrap();
        for expected in [
            "# HELP ringlb_backend_connections_total Connections established to the backend, and UDP sessions given to it\n\
             # TYPE ringlb_backend_connections_total counter\n\
             ringlb_backend_connections_total{network=\"net.a\",service=\"api\",backend=\"10.1.0.3\"} 18446744073709551615\n\
             # HELP ",
            "# TYPE ringlb_backend_sent_bytes_total counter\n\
             ringlb_backend_sent_bytes_total{network=\"net.a\",service=\"api\",backend=\"10.1.0.3\"} 3\n\
             # HELP ",
            "# TYPE ringlb_backend_ejected gauge\n\
             ringlb_backend_ejected{network=\"net.a\",service=\"api\",backend=\"10.1.0.3\"} 1\n\
             # HELP ",
            "# TYPE ringlb_service_connections_total counter\n\
             ringlb_service_connections_total{network=\"net.a\",service=\"api\"} 5\n\
             # HELP ",
            "# TYPE ringlb_proxy_connections_accepted_total counter\n\
             ringlb_proxy_connections_accepted_total{network=\"net.a\"} 0\n\
             ringlb_proxy_connections_accepted_total{network=\"net.b\"} 0\n\
             # HELP ",
            "# TYPE ringlb_backend_draining gauge\n\
             ringlb_backend_draining{network=\"net.a\",service=\"api\",backend=\"10.1.0.3\"} 1\n\
             ringlb_backend_draining{network=\"net.a\",service=\"api\",backend=\"10.1.0.9\"} 0\n",
        ] {
            assert!(text.contains(expected), "{expected}\n is not in \n{text}");
        }
    }

    #[test]
    fn a_proxy_that_said_nothing_is_down_where_one_is_needed() {
        let status = |name: &str| {
            let proxy = Some(ProxyStatus { restarts: 4, ..ProxyStatus::default() }).filter(|_| name == "net.a");
            (Some(NetworkStatus { acknowledged_generation: 9, proxy, ..NetworkStatus::default() }), None)
        };
        let text = render(round(TWO, status)).unwrap();
        let samples: Vec<_> = text.lines().filter(|line| line.starts_with("ringlb_proxy_")).collect();
        assert_eq!(
            samples,
            ["ringlb_proxy_up{network=\"net.a\"} 0", "ringlb_proxy_restarts_total{network=\"net.a\"} 4"]
        );
        assert!(text.contains("ringlb_network_acknowledged_generation{network=\"net.b\"} 9\n"), "{text}");
        assert!(!text.contains("ringlb_ring_"), "{text}");
    }
}
