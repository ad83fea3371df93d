//! Which container gets what of the group.
//!
//! Azure bills the sum of the containers' requests, and wants them in hundredths of a vCPU and tenths of a gigabyte. The
//! shape that was priced is divided without a remainder, so that the bill is the quote.

use super::wire::{Amounts, Resources};
use crate::{Container, PodRequest};

/// Thousandths of a vCPU.
const CPU_STEP: i64 = 10;
/// Bytes.
const MEMORY_STEP: i64 = GB / 10;
const GB: i64 = 1_000_000_000;
/// What a container without requests counts for, as in the shape that was priced.
const CPU_DEFAULT: i64 = 1000;
const MEMORY_DEFAULT: i64 = GB * 3 / 2;

/// The part of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    request: Amount,
    limit: Amount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amount {
    cpu_millis: i64,
    memory_bytes: i64,
}

/// One share for each container; `None` if there are more containers than steps to give away.
pub(super) fn of(request: &PodRequest) -> Option<Vec<Share>> {
    let or = |asked: i64, default: i64| if asked > 0 { asked } else { default };
    let containers = &request.containers;
    let cpu: Vec<i64> = containers.iter().map(|container| or(container.requests.cpu_millis, CPU_DEFAULT)).collect();
    let memory: Vec<i64> = containers.iter().map(|container| or(container.requests.memory_bytes, MEMORY_DEFAULT)).collect();
    let cpu = divide(request.shape.cpu_millis / CPU_STEP, &cpu)?;
    let memory = divide(request.shape.memory_bytes / MEMORY_STEP, &memory)?;
    let whole = Amount { cpu_millis: request.shape.cpu_millis, memory_bytes: request.shape.memory_bytes };
    let shares = containers.iter().zip(cpu.iter().zip(&memory)).map(|(container, (cpu, memory))| {
        let request = Amount { cpu_millis: cpu * CPU_STEP, memory_bytes: memory * MEMORY_STEP };
        Share { request, limit: limit(container, request, whole) }
    });
    Some(shares.collect())
}

/// A container without a limit may use what the group has, as it may use a node. Azure takes no limit above the whole and none
/// below the container's own share.
fn limit(container: &Container, request: Amount, whole: Amount) -> Amount {
    let within = |limit: i64, step: i64, request: i64, whole: i64| {
        if limit <= 0 {
            return whole;
        }
        let rounded = limit.saturating_add(step - 1) / step * step;
        rounded.clamp(request, whole.max(request))
    };
    Amount {
        cpu_millis: within(container.limits.cpu_millis, CPU_STEP, request.cpu_millis, whole.cpu_millis),
        memory_bytes: within(container.limits.memory_bytes, MEMORY_STEP, request.memory_bytes, whole.memory_bytes),
    }
}

/// `steps` in proportion to the weights, at least one each, by largest remainders.
fn divide(steps: i64, weights: &[i64]) -> Option<Vec<i64>> {
    let spare = steps.checked_sub(i64::try_from(weights.len()).ok()?).filter(|spare| *spare >= 0)?;
    let total: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    // What each is entitled to beyond its first step, in parts of the whole.
    let entitled: Vec<i128> = weights.iter().map(|weight| (i128::from(*weight) * i128::from(steps) - total).max(0)).collect();
    let sum: i128 = entitled.iter().sum();
    let mut parts: Vec<(i64, i128)> = entitled
        .iter()
        .map(|part| {
            let product = part * i128::from(spare);
            let (whole, rest) = product.checked_div(sum).map_or((0, 0), |whole| (whole, product % sum));
            (1 + i64::try_from(whole).unwrap_or(0), rest)
        })
        .collect();
    let given: i64 = parts.iter().map(|(part, _)| part).sum();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|place| (std::cmp::Reverse(parts[*place].1), *place));
    for place in order.into_iter().cycle().take(usize::try_from(steps - given).ok()?) {
        parts[place].0 += 1;
    }
    Some(parts.into_iter().map(|(part, _)| part).collect())
}

// === impl Share ===

impl Share {
    /// As Azure writes it.
    pub(super) fn resources(self) -> Resources {
        Resources { requests: self.request.amounts(), limits: self.limit.amounts() }
    }
}

impl Amount {
    /// Hundredths and tenths are small whole numbers, so the division gives the double that prints as that decimal.
    fn amounts(self) -> Amounts {
        let decimal = |whole: i64, steps: f64| f64::from(i32::try_from(whole).unwrap_or(i32::MAX)) / steps;
        Amounts { cpu: decimal(self.cpu_millis / CPU_STEP, 100.0), memory_gb: decimal(self.memory_bytes / MEMORY_STEP, 10.0) }
    }
}

#[cfg(test)]
mod tests {
    use policy::Shape;
    use proptest::prelude::*;

    use super::*;
    use crate::{ContainerResources, PodUid};

    fn pod(shape: (i64, i64), containers: &[(i64, i64)]) -> PodRequest {
        let shape = Shape { cpu_millis: shape.0, memory_bytes: shape.1, ephemeral_bytes: 0 };
        let mut pod = PodRequest::new(PodUid::new("u"), "n", "p", shape);
        pod.containers = containers
            .iter()
            .enumerate()
            .map(|(place, (cpu_millis, memory_bytes))| {
                let mut container = Container::new(format!("c{place}"), "image");
                container.requests = ContainerResources { cpu_millis: *cpu_millis, memory_bytes: *memory_bytes, gpus: 0 };
                container
            })
            .collect();
        pod
    }

    fn requests(pod: &PodRequest) -> Vec<(f64, f64)> {
        let shares = of(pod).expect("enough steps");
        shares.into_iter().map(|share| share.resources().requests).map(|amounts| (amounts.cpu, amounts.memory_gb)).collect()
    }

    #[test]
    fn whole_shares_stay_as_they_were_asked() {
        assert_eq!(requests(&pod((3000, 4 * GB), &[(2000, 3 * GB), (1000, GB)])), [(2.0, 3.0), (1.0, 1.0)]);
        assert_eq!(requests(&pod((1000, GB), &[(100, GB / 10)])), [(1.0, 1.0)]);
    }

    #[test]
    fn what_was_rounded_up_for_the_group_is_divided() {
        // 3 × 0.45 GB are 1.35, sold as 1.4.
        let shares = requests(&pod((1000, GB * 14 / 10), &[(100, GB * 45 / 100); 3]));
        assert_eq!(shares, [(0.34, 0.5), (0.33, 0.5), (0.33, 0.4)]);
    }

    #[test]
    fn a_container_that_asks_for_nothing_counts_as_it_was_priced() {
        assert_eq!(requests(&pod((1500, GB * 2), &[(500, GB / 2), (0, 0)])), [(0.5, 0.5), (1.0, 1.5)]);
    }

    #[test]
    fn more_containers_than_tenths_of_a_gigabyte_cannot_be_written() {
        assert_eq!(of(&pod((1000, GB), &[(10, 1 << 20); 11])), None);
    }

    #[test]
    fn limits_are_between_the_share_and_the_whole() {
        let mut pod = pod((2000, 2 * GB), &[(1000, GB), (1000, GB)]);
        pod.containers[0].limits = ContainerResources { cpu_millis: 1205, memory_bytes: 64 * GB, gpus: 0 };
        let limits: Vec<_> = of(&pod).expect("enough").into_iter().map(|share| share.resources().limits).collect();
        assert_eq!((limits[0].cpu, limits[0].memory_gb), (1.21, 2.0));
        assert_eq!((limits[1].cpu, limits[1].memory_gb), (2.0, 2.0));
    }

    proptest! {
        #[test]
        fn the_sum_is_the_shape_and_nobody_gets_nothing(
            steps in 60_i64..40_000,
            weights in proptest::collection::vec(1_i64..200_000_000_000, 1..60),
        ) {
            let parts = divide(steps, &weights).expect("enough steps");
            prop_assert_eq!(parts.iter().sum::<i64>(), steps);
            prop_assert!(parts.iter().all(|part| *part >= 1));
        }
    }
}
