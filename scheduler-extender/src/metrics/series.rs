//! How series are made.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Makes series and registers them.
pub(super) struct Series<'a> {
    pub(super) registry: &'a Registry,
}

impl Series<'_> {
    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<HistogramVec> {
        let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.registry.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    pub(super) fn build_info(&self) -> prometheus::Result<()> {
        let labels = ["version", "revision", "rustversion"];
        let info = IntGaugeVec::new(Opts::new("spillway_build_info", "The build that runs; always 1."), &labels)?;
        let revision = option_env!("SPILLWAY_REVISION").unwrap_or("unknown");
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision, env!("SPILLWAY_RUSTC")]).set(1);
        self.registry.register(Box::new(info))
    }
}
