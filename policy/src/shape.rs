//! From a pod to the size that a cloud bills.
//!
//! Kubernetes asks in fractions, clouds sell in steps: Fargate has a table of vCPU and memory pairs, ACI rounds to 0.01 vCPU
//! and 0.1 GB and starts at 1 vCPU and 1 GB, Nomad takes what is asked. Whoever prices and whoever creates must agree, so
//! both use this one function.

use std::fmt;

use crate::virtual_node::{Limits, Prices, Provider, Usage};
use crate::workload::Feature;
use crate::{Quantity, Rate, VirtualNode, Workload};

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// ACI counts memory in gigabytes of 10⁹ bytes and sells tenths of them.
const ACI_GB: i64 = 1_000_000_000;
const ACI_MEMORY_STEP: i64 = ACI_GB / 10;
const ACI_CPU_STEP_MILLIS: i64 = 10;

/// What is bought for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Thousandths of a vCPU.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of ephemeral storage in all; zero = what the cloud gives with every pod.
    pub ephemeral_bytes: i64,
}

/// A pod larger than anything that the backend sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeTooLarge {
    /// What the pod needs.
    pub asked: Shape,
    /// The most that can be had of each resource.
    pub largest: Shape,
}

/// One line of Fargate's size table: memory from `first` to `last` MiB in steps.
struct Row {
    cpu_millis: i64,
    first: i64,
    last: i64,
    step: i64,
    windows: bool,
}

/// Sizes of ECS tasks on Fargate (ECS API model 1.44). 0.25 vCPU comes with 0.5, 1 or 2 GiB, hence two lines. 8 and 16 vCPU
/// exist for Linux only, less than one vCPU does not for Windows.
#[rustfmt::skip]
const FARGATE: [Row; 8] = [
    Row { cpu_millis:    250, first:    512, last:   1_024, step:   512, windows: false },
    Row { cpu_millis:    250, first:  2_048, last:   2_048, step: 1_024, windows: false },
    Row { cpu_millis:    500, first:  1_024, last:   4_096, step: 1_024, windows: false },
    Row { cpu_millis:  1_000, first:  2_048, last:   8_192, step: 1_024, windows: true },
    Row { cpu_millis:  2_000, first:  4_096, last:  16_384, step: 1_024, windows: true },
    Row { cpu_millis:  4_000, first:  8_192, last:  30_720, step: 1_024, windows: true },
    Row { cpu_millis:  8_000, first: 16_384, last:  61_440, step: 4_096, windows: false },
    Row { cpu_millis: 16_000, first: 32_768, last: 122_880, step: 8_192, windows: false },
];
const FARGATE_EPHEMERAL_LARGEST: i64 = 200 * GIB;

// === impl Shape ===

impl Shape {
    /// The smallest price for which the backend runs the pod: its cheapest size that covers the requests.
    ///
    /// Without prices Fargate's smallest vCPU count wins.
    pub fn choose(workload: &Workload, node: &VirtualNode) -> Result<Shape, ShapeTooLarge> {
        let asked = Shape::asked(workload, node);
        let shape = match node.provider {
            Provider::Fargate => fargate(asked, workload.features.contains(Feature::Windows), node.prices.as_ref())?,
            Provider::Aci => aci(asked, workload.features.contains(Feature::Windows), &node.largest_pod)?,
            Provider::Nomad => nomad(asked, node),
            Provider::InMemory => asked,
        };
        shape.within(&node.largest_pod)
    }

    /// The requests, with the provider's defaults for containers that have none.
    ///
    /// ACI and Nomad give every container a size of its own, so an omission has a price: 1 vCPU and 1.5 GB, or 100 MHz and
    /// 300 MB each. Fargate sizes the task: containers without requests share it, and the smallest task is 0.25 vCPU and
    /// 0.5 GiB.
    fn asked(workload: &Workload, node: &VirtualNode) -> Shape {
        let (cpu_default, memory_default) = match node.provider {
            Provider::Aci => (1000, ACI_GB * 3 / 2),
            Provider::Nomad => (millis_of_mhz(100, node.mhz_per_core), 300 * MIB),
            Provider::Fargate | Provider::InMemory => (0, 0),
        };
        let with = |request: i64, default: i64, containers: u16| {
            request.max(0).saturating_add(default.saturating_mul(i64::from(containers)))
        };
        Shape {
            cpu_millis: with(workload.requests.cpu_millis, cpu_default, workload.containers_without_cpu),
            memory_bytes: with(workload.requests.memory_bytes, memory_default, workload.containers_without_memory),
            ephemeral_bytes: workload.requests.ephemeral_bytes.max(0),
        }
    }

    /// Refuses what is beyond the largest pod of the backend.
    fn within(self, largest: &Limits) -> Result<Shape, ShapeTooLarge> {
        let most = Shape {
            cpu_millis: largest.cpu_millis.unwrap_or(i64::MAX),
            memory_bytes: largest.memory_bytes.unwrap_or(i64::MAX),
            ephemeral_bytes: i64::MAX,
        };
        if self.covered_by(&most) { Ok(self) } else { Err(ShapeTooLarge { asked: self, largest: most }) }
    }

    /// Whether `other` is at least as large in every respect.
    pub fn covered_by(&self, other: &Shape) -> bool {
        self.cpu_millis <= other.cpu_millis
            && self.memory_bytes <= other.memory_bytes
            && self.ephemeral_bytes <= other.ephemeral_bytes
    }

    /// What one pod of this shape takes of limits and quotas.
    pub fn usage(&self) -> Usage {
        Usage { pods: 1, cpu_millis: self.cpu_millis, memory_bytes: self.memory_bytes }
    }

    /// Bytes of ephemeral storage that cost extra.
    pub fn billed_ephemeral_bytes(&self, provider: Provider) -> i64 {
        (self.ephemeral_bytes - provider.free_ephemeral_bytes()).max(0)
    }
}

/// `0.25 vCPU, 0.5 GiB`, with the disk where one is bought.
impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} vCPU, {}", decimal(self.cpu_millis), bytes(self.memory_bytes))?;
        if self.ephemeral_bytes > 0 {
            write!(out, ", {} of disk", bytes(self.ephemeral_bytes))?;
        }
        Ok(())
    }
}

// === impl ShapeTooLarge ===

impl ShapeTooLarge {
    /// Constant name of the rule; never reworded.
    pub const LABEL: &str = "shapeTooLarge";
}

/// A sentence that names the resource that is too large, with both numbers.
impl fmt::Display for ShapeTooLarge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShapeTooLarge { asked, largest } = self;
        if asked.cpu_millis > largest.cpu_millis {
            let (asked, largest) = (decimal(asked.cpu_millis), decimal(largest.cpu_millis));
            write!(out, "the pod needs {asked} vCPU and the largest size has {largest}")
        } else if asked.memory_bytes > largest.memory_bytes {
            let (asked, largest) = (bytes(asked.memory_bytes), bytes(largest.memory_bytes));
            write!(out, "the pod needs {asked} of memory and the largest size has {largest}")
        } else {
            let (asked, largest) = (bytes(asked.ephemeral_bytes), bytes(largest.ephemeral_bytes));
            write!(out, "the pod needs {asked} of ephemeral storage and the most is {largest}")
        }
    }
}

impl std::error::Error for ShapeTooLarge {}

// === impl Provider ===

impl Provider {
    /// Bytes of ephemeral storage that come with every pod at no extra price.
    pub const fn free_ephemeral_bytes(self) -> i64 {
        match self {
            Provider::Fargate => 20 * GIB,
            Provider::Aci => 50 * ACI_GB,
            Provider::Nomad | Provider::InMemory => 0,
        }
    }
}

/// The cheapest cell of the table: not the first row that has enough CPU, since memory may force a larger one, and not
/// always the smallest number of vCPUs, since prices are the region's.
fn fargate(asked: Shape, windows: bool, prices: Option<&Prices>) -> Result<Shape, ShapeTooLarge> {
    let rows = || FARGATE.iter().filter(|row| row.windows || !windows);
    let largest = || Shape {
        cpu_millis: rows().map(|row| row.cpu_millis).max().unwrap_or(0),
        memory_bytes: rows().map(|row| row.last * MIB).max().unwrap_or(0),
        ephemeral_bytes: FARGATE_EPHEMERAL_LARGEST,
    };
    let ephemeral_bytes = match asked.ephemeral_bytes {
        little if little <= Provider::Fargate.free_ephemeral_bytes() => 0,
        more if more <= FARGATE_EPHEMERAL_LARGEST => round_up(more, GIB),
        _ => return Err(ShapeTooLarge { asked, largest: largest() }),
    };
    let (vcpu, gb) = prices.map_or((Rate::FREE, Rate::FREE), |prices| (prices.vcpu, prices.gb));
    let price = |cpu_millis: i64, mib: i64| {
        // Per hour in nanos × 1000 × 1024: only compared, so nothing has to be divided.
        i128::from(vcpu.hourly().nanos()) * i128::from(cpu_millis * 1024)
            + i128::from(gb.hourly().nanos()) * i128::from(mib * 1000)
    };
    let asked_mib = round_up(asked.memory_bytes, MIB) / MIB;
    let mut best: Option<(i128, i64, i64)> = None;
    for row in rows().filter(|row| row.cpu_millis >= asked.cpu_millis && row.last >= asked_mib) {
        let mib = row.first + round_up((asked_mib - row.first).max(0), row.step);
        let price = price(row.cpu_millis, mib);
        // Rows ascend in CPU and memory, so of equal prices the smaller size stays.
        if best.is_none_or(|(least, _, _)| price < least) {
            best = Some((price, row.cpu_millis, mib));
        }
    }
    match best {
        Some((_, cpu_millis, mib)) => Ok(Shape { cpu_millis, memory_bytes: mib * MIB, ephemeral_bytes }),
        None => Err(ShapeTooLarge { asked, largest: largest() }),
    }
}

/// A container group: at least 1 vCPU and 1 GB, up to 4 and 16 unless the region gives more. Memory is rounded up; rounding
/// down, as the older kubelet for ACI does, kills pods that use what they asked for.
fn aci(asked: Shape, windows: bool, largest: &Limits) -> Result<Shape, ShapeTooLarge> {
    let largest = Shape {
        cpu_millis: largest.cpu_millis.unwrap_or(4000),
        memory_bytes: largest.memory_bytes.unwrap_or(16 * ACI_GB),
        ephemeral_bytes: if windows { 20 * ACI_GB } else { Provider::Aci.free_ephemeral_bytes() },
    };
    let shape = Shape {
        cpu_millis: round_up(asked.cpu_millis.max(1000), ACI_CPU_STEP_MILLIS),
        memory_bytes: round_up(asked.memory_bytes.max(ACI_GB), ACI_MEMORY_STEP),
        ephemeral_bytes: asked.ephemeral_bytes,
    };
    // The disk is part of every group and cannot be enlarged.
    if shape.covered_by(&largest) { Ok(Shape { ephemeral_bytes: 0, ..shape }) } else { Err(ShapeTooLarge { asked, largest }) }
}

/// Whole MHz and MiB, at least one and ten: what a Nomad job can say.
fn nomad(asked: Shape, node: &VirtualNode) -> Shape {
    Shape {
        cpu_millis: asked.cpu_millis.max(millis_of_mhz(1, node.mhz_per_core)),
        memory_bytes: round_up(asked.memory_bytes.max(10 * MIB), MIB),
        ephemeral_bytes: round_up(asked.ephemeral_bytes, MIB),
    }
}

/// Thousandths of a core that so many MHz are. A client whose speed nobody told counts for 1,000 MHz, so that Nomad's
/// default of 100 MHz is 100m.
fn millis_of_mhz(mhz: i64, mhz_per_core: u32) -> i64 {
    let core = if mhz_per_core == 0 { 1000 } else { i64::from(mhz_per_core) };
    (mhz * 1000).div_euclid(core) + i64::from((mhz * 1000).rem_euclid(core) != 0)
}

/// The next multiple of `step`, stopping at the largest number.
fn round_up(value: i64, step: i64) -> i64 {
    value.checked_add(step - 1).map_or(i64::MAX, |value| value / step * step)
}

/// Thousandths as a decimal without trailing zeros.
fn decimal(thousandths: i64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, (thousandths % 1000).abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes in the unit in which they were sold.
fn bytes(bytes: i64) -> String {
    let in_thousandths = |unit: i64| {
        let thousandths = i128::from(bytes) * 1000;
        (bytes >= unit / 2 && thousandths % i128::from(unit) == 0).then(|| thousandths / i128::from(unit))
    };
    for (unit, name) in [(GIB, "GiB"), (ACI_GB, "GB"), (MIB, "MiB")] {
        if let Some(Ok(amount)) = in_thousandths(unit).map(i64::try_from) {
            return format!("{} {name}", decimal(amount));
        }
    }
    format!("{} bytes", Quantity::from_units(bytes))
}

#[cfg(test)]
mod tests;
