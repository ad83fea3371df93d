//! How fast, how big and how faulty the simulated cluster is.

use std::ops::RangeInclusive;
use std::time::Duration;

use policy::Timestamp;

/// Knobs of a simulation. The defaults are a small self-managed cluster as measured, with the client limits that stock
/// clusters have.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything random comes from here.
    pub seed: u64,
    /// Virtual time at the beginning.
    pub start: Timestamp,
    /// From a write's sender to the API server.
    pub write_latency: RangeInclusive<Duration>,
    /// From the API server back to the sender.
    pub answer_latency: RangeInclusive<Duration>,
    /// From a write to the driver's watch.
    pub driver_watch_latency: RangeInclusive<Duration>,
    /// From a write to kube-scheduler's watch.
    pub scheduler_watch_latency: RangeInclusive<Duration>,
    /// From a write to a controller's or kubelet's reaction.
    pub controller_latency: RangeInclusive<Duration>,
    /// Every n-th answer to a Binding of the driver is lost on average, after the Binding was done or refused; zero is never.
    pub lost_binding_answers_one_in: u32,
    /// The limit that sends a pod to the extender; `None` is a kube-scheduler without extender.
    pub managed_resource: Option<String>,
    /// kube-scheduler's time for one pod, in microseconds.
    pub cycle_micros: u64,
    /// What a thousand nodes add to it.
    pub cycle_micros_per_1000_nodes: u64,
    /// kube-scheduler's own client limit, writes per second.
    pub scheduler_writes_per_second: u32,
    /// Writes that it may make at once before the limit bites.
    pub scheduler_writes_burst: u32,
    /// Pods that the Job controller creates per second.
    pub job_pods_per_second: u32,
    /// First pull of an image on a dedicated node.
    pub image_pull: Duration,
    /// From there to running containers.
    pub container_start: RangeInclusive<Duration>,
    /// Run time of pods that say nothing; `None` is for ever.
    pub run_time: Option<Duration>,
    /// A pod on a virtual node that does not run by then is failed.
    pub start_deadline: Duration,
    /// How long a virtual kubelet waits before it repeats a call that failed.
    pub backend_retry: Duration,
}

/// Midnight of 2026-11-21 UTC; any fixed day would do.
const START: Timestamp = Timestamp::from_millis(1_795_219_200_000);

impl Settings {
    /// The defaults with a seed.
    pub fn new(seed: u64) -> Settings {
        let millis = Duration::from_millis;
        Settings {
            seed,
            start: START,
            write_latency: millis(2)..=millis(6),
            answer_latency: millis(1)..=millis(4),
            driver_watch_latency: millis(1)..=millis(4),
            scheduler_watch_latency: millis(1)..=millis(4),
            controller_latency: millis(5)..=millis(25),
            lost_binding_answers_one_in: 0,
            managed_resource: Some("spillway.dev/burst".to_owned()),
            cycle_micros: 900,
            cycle_micros_per_1000_nodes: 550,
            scheduler_writes_per_second: 50,
            scheduler_writes_burst: 100,
            job_pods_per_second: 500,
            image_pull: Duration::from_secs(3),
            container_start: millis(500)..=millis(1500),
            run_time: Some(Duration::from_secs(60)),
            start_deadline: Duration::from_secs(300),
            backend_retry: Duration::from_secs(1),
        }
    }
}
