//! What a pod asks for, as kube-scheduler adds it up.
//!
//! Containers are summed; a restartable init container counts beside them and beside the init containers after it; the
//! other init containers run one at a time, so only the largest moment counts. What the pod as a whole asks for replaces the
//! sum, and its overhead comes on top. A missing request is the limit, where there is one. All of it in exact quantities,
//! rounded up at the very end.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use policy::{Quantity, Resources};

use crate::api::Invalid;

type List = BTreeMap<String, Wire>;

/// How many containers there are of each kind.
pub(super) struct Containers {
    pub(super) running: u16,
    pub(super) initialising: u16,
    pub(super) without_cpu: u16,
    pub(super) without_memory: u16,
}

/// When a container runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From the start to the end of the pod.
    Container,
    /// The same, and already before the init containers after it.
    Sidecar,
    /// Until it ends, before the containers start.
    Init,
}

/// Which of a container's requests counts: of a pod that is being resized the node holds the largest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Allocated,
    Actual,
}

/// An exact sum, by names that are borrowed until it is rounded.
#[derive(Clone, Default)]
struct Sum<'a> {
    amounts: Vec<(&'a str, i128)>,
}

/// Reads a quantity; nothing in a cluster comes in negative amounts.
pub fn quantity(field: &str, wire: &Wire) -> Result<Quantity, Invalid> {
    match wire.0.parse::<Quantity>() {
        Ok(quantity) if quantity >= Quantity::ZERO => Ok(quantity),
        Ok(_) => Err(Invalid::new(field, &wire.0, "must not be negative")),
        Err(error) => Err(Invalid::new(field, &wire.0, format!("must be {}", error.allowed()))),
    }
}

/// A list of resources, such as a node's `allocatable`.
pub fn resources(list: &BTreeMap<String, Wire>) -> Result<Resources, Invalid> {
    Ok(Sum::read(list)?.rounded())
}

/// What a bound or pending pod takes of a node. Amounts that cannot be read, which the API server does not store, count as
/// nothing.
pub fn requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().and_then(|spec| effective(pod, spec).ok()).unwrap_or_default()
}

/// What a pod takes of a node, or the field that cannot be read.
pub(super) fn effective(pod: &Pod, spec: &PodSpec) -> Result<Resources, Invalid> {
    let statuses = || {
        let status = pod.status.as_ref();
        let running = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        running.iter().chain(status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default())
    };
    let resized = statuses().any(|status| status.allocated_resources.is_some() || status.resources.is_some());
    let mut sum = if resized {
        let infeasible = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"));
        let of = |container: &Container| statuses().find(|status| status.name == container.name);
        let mut most = aggregate(spec, |container| in_version(container, of(container), Version::Actual, infeasible))?;
        most.raise_to(&aggregate(spec, |container| in_version(container, of(container), Version::Allocated, infeasible))?);
        if !infeasible {
            most.raise_to(&aggregate(spec, specified)?);
        }
        most
    } else {
        aggregate(spec, specified)?
    };
    let whole = spec.resources.as_ref();
    let within = |field: &'static str| move |invalid: Invalid| invalid.within(field);
    let asked = Sum::of(whole.and_then(|whole| whole.requests.as_ref())).map_err(within("spec.resources.requests"))?;
    let allowed = Sum::of(whole.and_then(|whole| whole.limits.as_ref())).map_err(within("spec.resources.limits"))?;
    for (name, amount) in asked.amounts.iter().filter(|(name, _)| of_the_pod(name)) {
        sum.set(name, *amount);
    }
    for (name, amount) in allowed.amounts.iter().filter(|(name, _)| of_the_pod(name)) {
        if !sum.contains(name) {
            sum.set(name, *amount);
        }
    }
    sum.add(&Sum::of(spec.overhead.as_ref()).map_err(within("spec.overhead"))?);
    Ok(sum.rounded())
}

/// Sum of the limits of all containers that run to the end; what the pod as a whole may use replaces it.
pub(super) fn limits(spec: &PodSpec) -> Result<Resources, Invalid> {
    let mut sum = Sum::default();
    for (kind, place, container) in all(spec).filter(|(kind, _, _)| *kind != Kind::Init) {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let within = |invalid: Invalid| invalid.within(&format!("spec.{}[{place}].resources.limits", kind.field()));
        sum.add(&Sum::of(limits).map_err(within)?);
    }
    let whole = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let whole = Sum::of(whole).map_err(|invalid| invalid.within("spec.resources.limits"))?;
    for (name, amount) in whole.amounts.iter().filter(|(name, _)| of_the_pod(name)) {
        sum.set(name, *amount);
    }
    Ok(sum.rounded())
}

/// Counts containers by kind, and those that leave their size to somebody else.
pub(super) fn containers(spec: &PodSpec) -> Containers {
    let mut counts = Containers { running: 0, initialising: 0, without_cpu: 0, without_memory: 0 };
    let asks = |resources: Option<&ResourceRequirements>, name: &str| {
        let has = |list: Option<&List>| list.is_some_and(|list| list.contains_key(name));
        resources.is_some_and(|resources| has(resources.requests.as_ref()) || has(resources.limits.as_ref()))
    };
    for (kind, _, container) in all(spec) {
        if kind == Kind::Init {
            counts.initialising = counts.initialising.saturating_add(1);
            continue;
        }
        counts.running = counts.running.saturating_add(1);
        counts.without_cpu = counts.without_cpu.saturating_add(u16::from(!asks(container.resources.as_ref(), "cpu")));
        counts.without_memory = counts.without_memory.saturating_add(u16::from(!asks(container.resources.as_ref(), "memory")));
    }
    if asks(spec.resources.as_ref(), "cpu") {
        counts.without_cpu = 0;
    }
    if asks(spec.resources.as_ref(), "memory") {
        counts.without_memory = 0;
    }
    counts
}

/// Every container with its kind and its place in the list that it stands in.
pub(super) fn all(spec: &PodSpec) -> impl Iterator<Item = (Kind, usize, &Container)> {
    let running = spec.containers.iter().enumerate().map(|(place, container)| (Kind::Container, place, container));
    let init = spec.init_containers.iter().flatten().enumerate();
    running.chain(init.map(|(place, container)| (Kind::of_init(container), place, container)))
}

/// Resources that a pod as a whole can ask for.
fn of_the_pod(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

/// Adds up the containers in the order in which they run.
fn aggregate<'a>(spec: &'a PodSpec, request: impl Fn(&'a Container) -> Result<Sum<'a>, Invalid>) -> Result<Sum<'a>, Invalid> {
    let request = |field: &str, place: usize, container: &'a Container| {
        request(container).map_err(|invalid| invalid.within(&format!("spec.{field}[{place}].resources")))
    };
    let mut sum = Sum::default();
    for (place, container) in spec.containers.iter().enumerate() {
        sum.add(&request("containers", place, container)?);
    }
    let (mut sidecars, mut initialising) = (Sum::default(), Sum::default());
    for (place, container) in spec.init_containers.iter().flatten().enumerate() {
        let mut moment = request("initContainers", place, container)?;
        if Kind::of_init(container) == Kind::Sidecar {
            sum.add(&moment);
            sidecars.add(&moment);
            initialising.raise_to(&sidecars);
        } else {
            moment.add(&sidecars);
            initialising.raise_to(&moment);
        }
    }
    sum.raise_to(&initialising);
    Ok(sum)
}

/// The requests as written, with the limit where a request is missing: the API server's own default.
fn specified(container: &Container) -> Result<Sum<'_>, Invalid> {
    let Some(resources) = &container.resources else { return Ok(Sum::default()) };
    let mut sum = Sum::of(resources.requests.as_ref()).map_err(|invalid| invalid.within("requests"))?;
    if let Some(limits) = &resources.limits {
        for (name, amount) in Sum::read(limits).map_err(|invalid| invalid.within("limits"))?.amounts {
            if !sum.contains(name) {
                sum.set(name, amount);
            }
        }
    }
    Ok(sum)
}

/// The requests that a status tells of; where it tells nothing, those of the specification, unless they can never be given.
fn in_version<'a>(
    container: &'a Container,
    status: Option<&'a ContainerStatus>,
    version: Version,
    infeasible: bool,
) -> Result<Sum<'a>, Invalid> {
    let allocated = status.and_then(|status| status.allocated_resources.as_ref());
    let actual = status.and_then(|status| status.resources.as_ref()).and_then(|resources| resources.requests.as_ref());
    match actual.filter(|_| version == Version::Actual).or(allocated) {
        Some(list) => Sum::read(list),
        None if infeasible => Ok(Sum::default()),
        None => specified(container),
    }
}

// === impl Kind ===

impl Kind {
    fn of_init(container: &Container) -> Kind {
        if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
    }

    /// The list in the specification.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Kind::Container => "containers",
            Kind::Sidecar | Kind::Init => "initContainers",
        }
    }
}

// === impl Sum ===

impl<'a> Sum<'a> {
    fn of(list: Option<&'a List>) -> Result<Sum<'a>, Invalid> {
        list.map_or(Ok(Sum::default()), Sum::read)
    }

    fn read(list: &'a List) -> Result<Sum<'a>, Invalid> {
        let amount = |(name, wire): (&'a String, &Wire)| Ok((name.as_str(), quantity(name, wire)?.nanos()));
        Ok(Sum { amounts: list.iter().map(amount).collect::<Result<_, Invalid>>()? })
    }

    fn contains(&self, name: &str) -> bool {
        self.amounts.iter().any(|(candidate, _)| *candidate == name)
    }

    fn set(&mut self, name: &'a str, amount: i128) {
        match self.amounts.iter_mut().find(|(candidate, _)| *candidate == name) {
            Some((_, old)) => *old = amount,
            None => self.amounts.push((name, amount)),
        }
    }

    fn add(&mut self, other: &Sum<'a>) {
        self.combine(other, i128::saturating_add);
    }

    fn raise_to(&mut self, other: &Sum<'a>) {
        self.combine(other, i128::max);
    }

    fn combine(&mut self, other: &Sum<'a>, operation: fn(i128, i128) -> i128) {
        // A pod names a handful of resources: looking through them is faster than any map.
        for (name, amount) in &other.amounts {
            match self.amounts.iter_mut().find(|(candidate, _)| candidate == name) {
                Some((_, old)) => *old = operation(*old, *amount),
                None => self.amounts.push((name, *amount)),
            }
        }
    }

    /// Whole units, rounded up. Of the rest only what a scheduler counts: names with a domain, huge pages, volumes.
    fn rounded(&self) -> Resources {
        let mut resources = Resources::default();
        for (name, amount) in &self.amounts {
            let quantity = Quantity::from_nanos(*amount);
            match *name {
                "cpu" => resources.cpu_millis = quantity.millis_up(),
                "memory" => resources.memory_bytes = quantity.units_up(),
                "ephemeral-storage" => resources.ephemeral_bytes = quantity.units_up(),
                other if other.contains('/') || other.starts_with("hugepages-") || other.starts_with("attachable-volumes-") => {
                    resources.set_extended(other, quantity.units_up());
                }
                _ => {}
            }
        }
        resources
    }
}

#[cfg(test)]
mod tests;
