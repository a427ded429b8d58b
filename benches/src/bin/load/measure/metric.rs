//! Metrics of one measurement.

/// A named value.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Whether the report shows the ratio of two servers.
    pub(crate) comparable: bool,
}

impl Metric {
    /// Creates a metric that is compared between servers.
    pub(crate) fn new(name: impl Into<String>, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
            comparable: true,
        }
    }

    /// Creates a metric without ratios.
    pub(crate) fn absolute(name: impl Into<String>, value: f64) -> Self {
        Self {
            comparable: false,
            ..Self::new(name, value)
        }
    }
}

/// The metrics of one server in one round, in the order of the report.
pub(crate) type Sample = Vec<Metric>;
