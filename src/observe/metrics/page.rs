//! What a scrape brings, one metric after the other.

use super::catalogue::Named;
use super::native::Buckets;
use hdrhistogram::Histogram;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// The page being written.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    /// Goes on where the encoder is.
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A counter's series, each with its labels.
    pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        metric: Named,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.begin(metric, MetricType::Counter)?;
        for (labels, value) in series {
            let mut one = metric.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    /// A gauge's series, each with its labels.
    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        metric: Named,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.begin(metric, MetricType::Gauge)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, metric: Named, value: impl EncodeCounterValue) -> fmt::Result {
        let mut metric = self.begin(metric, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, metric: Named, value: impl EncodeGaugeValue) -> fmt::Result {
        self.begin(metric, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// What never changes, as labels.
    pub(super) fn info(&mut self, metric: Named, labels: impl EncodeLabelSet) -> fmt::Result {
        self.begin(metric, MetricType::Info)?.encode_info(&labels)
    }

    /// The recorded values in buckets, without labels: in classic ones, and where the form has them in native ones.
    /// Bounds are in the histogram's unit, and `scale` turns that into the metric's. A bound is as exact as the histogram's
    /// values, which have three digits.
    pub(super) fn histogram(
        &mut self,
        metric: Named,
        histogram: &Histogram<u64>,
        bounds: &[u64],
        scale: fn(u64) -> f64,
    ) -> fmt::Result {
        let bounds_scaled = bounds.iter().map(|bound| scale(*bound));
        let mut buckets = bounds_scaled
            .chain([f64::INFINITY])
            .map(|bound| (bound, 0))
            .collect::<Vec<_>>();
        let mut sum = 0_u64;
        for step in histogram.iter_recorded() {
            let (value, count) = (step.value_iterated_to(), step.count_since_last_iteration());
            let least = histogram.lowest_equivalent(value);
            buckets[bounds.partition_point(|bound| *bound < least)].1 += count;
            let typical = histogram.median_equivalent(value);
            sum = sum.saturating_add(typical.saturating_mul(count));
        }
        let native = Buckets::of(histogram, scale);
        let mut metric = self.begin(metric, MetricType::Histogram)?;
        metric.encode_histogram_with_native::<NoLabelSet>(
            scale(sum),
            histogram.len(),
            &buckets,
            None,
            native.native(),
        )
    }

    fn begin(
        &mut self,
        (name, meaning): Named,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, meaning, None, kind)
    }
}
