//! Named figures.

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Whether a ratio of two servers' figures says anything.
    pub(crate) comparable: bool,
}

impl Metric {
    pub(crate) fn new(name: impl Into<String>, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
            comparable: true,
        }
    }

    pub(crate) fn absolute(name: impl Into<String>, value: f64) -> Self {
        Self {
            comparable: false,
            ..Self::new(name, value)
        }
    }
}

/// The figures of one server in one round, in the order in which they are shown.
pub(crate) type Sample = Vec<Metric>;
