//! Makes the text that Prometheus reads (OpenMetrics 1.0).

use std::fmt;

use outlast_smb::command_name;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::counts::COMMANDS;
use super::histogram::Observed;
use super::returns::Returns;
use super::{Cause, Counts, Eviction, Gauges, Page};

/// Encodes the page for Prometheus.
#[must_use]
pub fn text(page: &Page) -> String {
    let mut registry = Registry::with_prefix("outlast");
    registry.register_collector(Box::new(Collected {
        counts: page.counts(),
        gauges: page.gauges(),
        returns: page.returns(),
    }));
    let mut text = String::new();
    // Writes to a String do not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// One reading.
#[derive(Debug)]
struct Collected {
    counts: Counts,
    gauges: Gauges,
    returns: Returns,
}

/// The name of a label and its value.
type Label<'a> = [(&'a str, &'a str); 1];

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.gauges(&mut encoder)?;
        self.machine(&mut encoder)?;
        self.commands(&mut encoder)?;
        self.gaps(&mut encoder)
    }
}

impl Collected {
    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, value) in self.gauges.all() {
            let help = help.trim_end_matches('.');
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn machine(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let points = self.counts.points();
        let points = ["1", "2", "3", "4"].into_iter().zip(points);
        let help = "How often state was saved at each of the four points";
        counters(encoder, "points", help, None, "point", points)?;
        let mut one = |name, help, unit, value: u64| {
            let unit: Option<&Unit> = unit;
            let mut counter = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(&value, None)
        };
        one(
            "commits",
            "Commits of the checkpoint log",
            None,
            self.counts.commits(),
        )?;
        let ((frames_in, bytes_in), (frames_out, bytes_out)) =
            (self.counts.received(), self.counts.sent());
        let bytes = Some(&Unit::Bytes);
        one(
            "received_frames",
            "Ethernet frames that were received",
            None,
            frames_in,
        )?;
        one("received", "Bytes of these frames", bytes, bytes_in)?;
        one(
            "sent_frames",
            "Ethernet frames that were sent",
            None,
            frames_out,
        )?;
        one("sent", "Bytes of these frames", bytes, bytes_out)?;
        let evicted = Eviction::ALL.map(|why| (why.name(), self.counts.evictions(why)));
        let help = "Clients that were dropped";
        counters(
            encoder,
            "evictions",
            help,
            None,
            "reason",
            evicted.into_iter(),
        )
    }

    fn commands(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let bytes = Some(&Unit::Bytes);
        let families = [
            ("answers", "Requests that were answered", None),
            ("errors", "Requests that were answered with an error", None),
            ("requests", "Bytes of requests", bytes),
            ("replies", "Bytes of answers", bytes),
        ];
        for (n, (name, help, unit)) in families.into_iter().enumerate() {
            let values = names().map(|(code, name)| (name, self.counts.answers(code)[n]));
            counters(encoder, name, help, unit, "command", values)?;
        }
        let help = "Time that the server worked on a message, by its last command: without the time in which it \
                    waited for its turn, for a lock or for another client";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("request", help, unit, MetricType::Histogram)?;
        for (code, name) in names() {
            let label: Label<'_> = [("command", name)];
            observed(family.encode_family(&label)?, &self.counts.latencies(code))?;
        }
        Ok(())
    }

    fn gaps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Time from the end of a worker until the next one served, by how the first one ended";
        let unit = Some(&Unit::Seconds);
        let mut family =
            encoder.encode_descriptor("return_gap", help, unit, MetricType::Histogram)?;
        for cause in Cause::ALL {
            let label: Label<'_> = [("cause", cause.name())];
            observed(family.encode_family(&label)?, &self.returns.gaps(cause))?;
        }
        Ok(())
    }
}

/// Iterates over code and name of each command; the last one stands for all unknown codes.
fn names() -> impl Iterator<Item = (u16, &'static str)> {
    let codes = 0..u16::try_from(COMMANDS).unwrap_or_default();
    codes.map(|code| (code, command_name(code).unwrap_or("OTHER")))
}

fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
    for (value_of_label, value) in values {
        let label: Label<'_> = [(label, value_of_label)];
        let mut counter = family.encode_family(&label)?;
        counter.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

fn observed(mut encoder: MetricEncoder<'_>, observed: &Observed) -> fmt::Result {
    let Observed {
        sum,
        count,
        buckets,
    } = observed;
    encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
}

#[cfg(test)]
mod tests;
