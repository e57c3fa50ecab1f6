//! Keeps histograms in words of memory: a count for each bucket, one for observations above all bounds, and the sum.

/// Counts an observation in `words`, which has a word for each bound and two more. Bounds and values are in one unit.
pub(super) fn observe(words: &mut [u64], bounds: &[u64], value: u64) {
    let bucket = bounds.partition_point(|bound| *bound < value);
    if let Some(count) = words.get_mut(bucket) {
        *count += 1;
    }
    if let Some(sum) = words.get_mut(bounds.len() + 1) {
        *sum = sum.saturating_add(value);
    }
}

/// Returns the number of words of a histogram with these bounds.
pub(super) const fn len(bounds: &[u64]) -> usize {
    bounds.len() + 2
}

/// A histogram in Prometheus' form, in seconds.
#[derive(Debug, PartialEq)]
pub(super) struct Observed {
    pub sum: f64,
    pub count: u64,
    /// The upper bound and the count of each bucket.
    pub buckets: Vec<(f64, u64)>,
}

/// Reads a histogram. `unit`: the unit of the bounds, in seconds.
pub(super) fn read(words: &[u64], bounds: &[u64], unit: f64) -> Observed {
    let (counts, sum) = words.split_at(bounds.len() + 1);
    let bounds = bounds.iter().map(|bound| *bound as f64 / unit);
    let buckets = bounds.chain([f64::INFINITY]).zip(counts.iter().copied());
    Observed {
        sum: sum.first().copied().unwrap_or_default() as f64 / unit,
        count: counts.iter().sum(),
        buckets: buckets.collect(),
    }
}

#[cfg(test)]
mod tests;
