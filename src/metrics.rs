//! Counters that any thread adds to, and their form for Prometheus.
//!
//! What belongs here: counters and histograms without locks ([`histogram`]), and the writer of families, which knows
//! each by its [`Family`]; those with very many samples have a writer of their own ([`bulk`]). What is counted is
//! decided where it happens: `source::metrics`, `dns::metrics` and `reconcile::metrics` each keep what they know, and
//! implement [`Collect`]. The exporter puts them together.
//!
//! A family is declared once, as a constant: name, type, labels and meaning are what is exported, and what
//! l4lbd-metrics(7) says. Names follow the guide of Prometheus: base units, `_total` for counters only.

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub mod bulk;
mod counter;
mod family;
pub mod histogram;

use bulk::{Bulk, LabelText};
pub use counter::Counter;
pub use family::{Family, Format, Kind};

/// Something that has metrics to tell.
pub trait Collect: Send + Sync {
    /// Writes all families, those without samples too.
    ///
    /// # Errors
    /// When the writer fails.
    fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result;
}

/// Writer of families.
pub struct Writer<'w, 'e> {
    encoder: &'w mut DescriptorEncoder<'e>,
    written: &'w mut Written,
}

/// Text and families beside those that the library writes.
#[derive(Debug)]
struct Written {
    /// Families in their order.
    seen: Vec<Family>,
    bulk: Bulk,
}

/// Writer of the samples of a family.
pub struct Samples<'s> {
    encoder: MetricEncoder<'s>,
    labels: &'static [&'static str],
}

impl Writer<'_, '_> {
    /// Writes a family with the samples that `write` adds.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn family(
        &mut self,
        family: Family,
        write: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.written.seen.push(family);
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let (name, unit) = family.parts();
        let help = format!("{}.", family.help);
        let encoder = self.encoder.encode_descriptor(name, &help, unit.as_ref(), kind)?;
        write(&mut Samples { encoder, labels: family.labels })
    }

    /// Writes a family of counters or gauges with very many samples, after all other families.
    pub fn bulk<'l>(&mut self, family: Family, samples: impl Iterator<Item = (&'l LabelText, u64)>) {
        self.written.seen.push(family);
        self.written.bulk.family(family, samples);
    }

    /// Writes a counter without labels.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn counter(&mut self, family: Family, value: u64) -> fmt::Result {
        self.family(family, |samples| samples.counter([], value))
    }

    /// Writes a gauge without labels; without a value it has no sample.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn gauge(&mut self, family: Family, value: Option<f64>) -> fmt::Result {
        self.family(family, |samples| value.map_or(Ok(()), |value| samples.gauge([], value)))
    }
}

/// Values of the labels of a family, which have the names in the same order.
struct Labels<'l, const N: usize>(&'static [&'static str], [&'l str; N]);

impl<const N: usize> EncodeLabelSet for Labels<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        debug_assert_eq!(self.0.len(), N, "a sample has all labels of its family");
        for (name, value) in self.0.iter().zip(self.1) {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(name)?;
            let mut text = key.encode_label_value()?;
            text.write_str(value)?;
            text.finish()?;
        }
        Ok(())
    }
}

impl Samples<'_> {
    /// Adds a sample of a counter.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn counter<const N: usize>(&mut self, labels: [&str; N], value: u64) -> fmt::Result {
        let labels = Labels(self.labels, labels);
        self.encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    /// Adds a sample of a counter of fractions.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn fraction<const N: usize>(&mut self, labels: [&str; N], value: f64) -> fmt::Result {
        let labels = Labels(self.labels, labels);
        self.encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    /// Adds a sample of a gauge.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn gauge<const N: usize>(&mut self, labels: [&str; N], value: f64) -> fmt::Result {
        let labels = Labels(self.labels, labels);
        // A whole number is written as one.
        let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
        match is_whole {
            true => self.encoder.encode_family(&labels)?.encode_gauge(&(value as i64)),
            false => self.encoder.encode_family(&labels)?.encode_gauge(&value),
        }
    }

    /// Adds a sample of a gauge that is a whole number, which costs less to write.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn number<const N: usize>(&mut self, labels: [&str; N], value: u64) -> fmt::Result {
        let labels = Labels(self.labels, labels);
        self.encoder.encode_family(&labels)?.encode_gauge(&value)
    }

    /// Adds texts.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn info<const N: usize>(&mut self, labels: [&str; N]) -> fmt::Result {
        self.encoder.encode_info(&Labels(self.labels, labels))
    }

    /// Adds a histogram.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn histogram<const N: usize>(
        &mut self,
        labels: [&str; N],
        counts: &histogram::Counts,
    ) -> fmt::Result {
        let labels = Labels(self.labels, labels);
        let histogram::Counts { sum, buckets } = counts;
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
    }
}

/// Parts of an exposition, with the families that were written.
struct Parts {
    collect: Vec<Arc<dyn Collect>>,
    written: Mutex<Written>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("number", &self.collect.len()).finish()
    }
}

impl Collector for Parts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = Writer { encoder: &mut encoder, written: &mut written };
        self.collect.iter().try_for_each(|part| part.collect(&mut writer))
    }
}

/// Writes everything that `parts` have to tell, and returns the families besides.
///
/// # Errors
/// When a part fails.
pub fn write(parts: Vec<Arc<dyn Collect>>, format: Format) -> Result<(String, Vec<Family>), fmt::Error> {
    let written = || Written { seen: Vec::new(), bulk: Bulk::new(format) };
    let parts = Arc::new(Parts { collect: parts, written: Mutex::new(written()) });
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(&parts)));
    let mut text = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
        Format::OpenMetrics => text::encode_registry(&mut text, &registry)?,
    }
    let mut guard = parts.written.lock().unwrap_or_else(PoisonError::into_inner);
    let Written { seen, bulk } = std::mem::replace(&mut *guard, written());
    // The longer one takes the shorter one in.
    let mut whole = bulk.into_text();
    whole.insert_str(0, &text);
    if format == Format::OpenMetrics {
        text::encode_eof(&mut whole)?;
    }
    Ok((whole, seen))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Sample(histogram::Histogram);

    impl Collect for Sample {
        fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
            writer.counter(Family::counter("x_received_bytes", &[], "Bytes"), 7)?;
            writer.gauge(Family::gauge("x_age_seconds", &[], "Age"), None)?;
            writer.family(Family::gauge("x_used", &["name"], "Use"), |samples| {
                samples.number(["a\"\n\\"], 3)?;
                samples.gauge(["b"], 0.5)
            })?;
            let family = Family::histogram("x_took_seconds", &["kind"], "Time");
            writer.family(family, |samples| samples.histogram(["k"], &self.0.counts()))?;
            writer.family(Family::info("x_build", &["version"], "Version"), |samples| samples.info(["1"]))
        }
    }

    fn written(format: Format) -> (String, Vec<Family>) {
        let histogram = histogram::Histogram::new(&[0.001, 1.0]);
        for micros in [5, 999, 1_001, 3_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        write(vec![Arc::new(Sample(histogram))], format).unwrap()
    }

    #[test]
    fn both_forms_have_the_names_that_families_tell() {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let (text, seen) = written(format);
            for name in [
                "x_received_bytes_total 7",
                "x_used{name=\"a\\\"\\n\\\\\"} 3",
                "x_build_info{version=\"1\"} 1",
            ] {
                assert!(text.contains(name), "{name}: {text}");
            }
            let names: Vec<String> = seen.iter().map(Family::exposed).collect();
            assert_eq!(
                names,
                ["x_received_bytes_total", "x_age_seconds", "x_used", "x_took_seconds", "x_build_info"]
            );
            assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
        }
    }

    /// The same families by the library, or in bulk.
    struct Many(bool);

    impl Collect for Many {
        fn collect(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
            const VALUES: [&str; 4] = ["plain", "q\"uote", "line\nend", "back\\slash é"];
            for family in [
                Family::counter("x_sent_bytes", &["vip", "direction"], "Bytes"),
                Family::gauge("x_used", &["vip", "direction"], "Use"),
                Family::gauge("x_none", &["vip", "direction"], "Nothing"),
            ] {
                let values = VALUES.iter().filter(|_| family.name != "x_none").zip(0..);
                if self.0 {
                    let labels = |vip| LabelText::new([("vip", vip)]).with("direction", "in");
                    let samples: Vec<(LabelText, u64)> =
                        values.map(|(vip, number)| (labels(*vip), number * 1_000_000_007)).collect();
                    writer.bulk(family, samples.iter().map(|(labels, number)| (labels, *number)));
                } else {
                    writer.family(family, |samples| {
                        values.into_iter().try_for_each(|(vip, number)| match family.kind {
                            Kind::Counter => samples.counter([vip, "in"], number * 1_000_000_007),
                            _ => samples.number([vip, "in"], number * 1_000_000_007),
                        })
                    })?;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn bulk_is_what_the_library_writes() {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let [(by_library, seen), (in_bulk, same)] =
                [false, true].map(|is_bulk| write(vec![Arc::new(Many(is_bulk))], format).unwrap());
            assert_eq!((in_bulk, same), (by_library, seen));
        }
    }

    #[test]
    fn histogram_has_cumulative_buckets() {
        let (text, _) = written(Format::Prometheus);
        for sample in [
            "x_took_seconds_bucket{kind=\"k\",le=\"0.001\"} 2",
            "x_took_seconds_bucket{kind=\"k\",le=\"1\"} 3",
            "x_took_seconds_bucket{kind=\"k\",le=\"+Inf\"} 4",
            "x_took_seconds_count{kind=\"k\"} 4",
        ] {
            assert!(text.contains(sample), "{sample}: {text}");
        }
    }
}
