//! Metric families whose members are all made at the start and kept in an array.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Names and values of `N` labels.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

pub(super) fn counters<const N: usize, const L: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: [Labels<L>; N],
) -> [Counter; N] {
    let family = Family::<Labels<L>, Counter>::default();
    registry.register(name, help, family.clone());
    labels.map(|labels| family.get_or_create_owned(&labels))
}

pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

pub(super) fn histogram(
    registry: &mut Registry,
    name: &str,
    help: &str,
    buckets: impl IntoIterator<Item = f64>,
) -> Histogram {
    let histogram = Histogram::new(buckets);
    registry.register(name, help, histogram.clone());
    histogram
}

pub(super) fn gauges<const N: usize, const L: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: [Labels<L>; N],
) -> [Gauge; N] {
    let family = Family::<Labels<L>, Gauge>::default();
    registry.register(name, help, family.clone());
    labels.map(|labels| family.get_or_create_owned(&labels))
}

/// A constructor with a type that can be named.
#[derive(Clone)]
struct Buckets(Vec<f64>);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

pub(super) fn histograms<const N: usize, const L: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: [Labels<L>; N],
    buckets: impl IntoIterator<Item = f64>,
) -> [Histogram; N] {
    let family =
        Family::<Labels<L>, Histogram, Buckets>::new_with_constructor(Buckets(buckets.into_iter().collect()));
    registry.register(name, help, family.clone());
    labels.map(|labels| family.get_or_create_owned(&labels))
}
