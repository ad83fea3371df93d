//! Amounts of compute: what a pod asks for and what a node has.

use std::sync::Arc;

/// A vector of resources. The fields are public: every combination of non-negative values is legal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of ephemeral storage.
    pub ephemeral_bytes: i64,
    /// Everything else by name (`nvidia.com/gpu`, `hugepages-2Mi`), sorted by name, zero amounts left out.
    pub extended: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// CPU and memory only.
    pub fn new(cpu_millis: i64, memory_bytes: i64) -> Resources {
        Resources { cpu_millis, memory_bytes, ..Resources::default() }
    }

    /// The amount of an extended resource.
    pub fn extended(&self, name: &str) -> i64 {
        self.extended.binary_search_by(|(candidate, _)| (**candidate).cmp(name)).map_or(0, |place| self.extended[place].1)
    }

    /// Sets an extended resource; zero removes it.
    pub fn set_extended(&mut self, name: &str, amount: i64) {
        match (self.extended.binary_search_by(|(candidate, _)| (**candidate).cmp(name)), amount) {
            (Ok(place), 0) => drop(self.extended.remove(place)),
            (Ok(place), _) => self.extended[place].1 = amount,
            (Err(_), 0) => {}
            (Err(place), _) => self.extended.insert(place, (Arc::from(name), amount)),
        }
    }

    /// Adds `other`, stopping at the largest amounts.
    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes `other` away; an amount may become negative where a node is overcommitted.
    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises every amount to at least that of `other`.
    pub fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    /// How many times `request` fits, at most `most`. A resource that is not asked for does not limit.
    pub fn times(&self, request: &Resources, most: i64) -> i64 {
        let mut times = most.max(0);
        let mut limit = |free: i64, asked: i64| {
            if asked > 0 {
                times = times.min(free.max(0) / asked);
            }
        };
        limit(self.cpu_millis, request.cpu_millis);
        limit(self.memory_bytes, request.memory_bytes);
        limit(self.ephemeral_bytes, request.ephemeral_bytes);
        for (name, asked) in &request.extended {
            limit(self.extended(name), *asked);
        }
        times
    }

    fn combine(&mut self, other: &Resources, operation: fn(i64, i64) -> i64) {
        self.cpu_millis = operation(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = operation(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = operation(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.extended {
            let combined = operation(self.extended(name), *amount);
            self.set_extended(name, combined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_as_often_as_the_scarcest_resource_allows() {
        let mut node = Resources::new(4000, 8 << 30);
        node.set_extended("nvidia.com/gpu", 2);
        let mut pod = Resources::new(500, 1 << 30);
        assert_eq!(node.times(&pod, 110), 8);
        assert_eq!(node.times(&pod, 3), 3);
        pod.set_extended("nvidia.com/gpu", 1);
        assert_eq!(node.times(&pod, 110), 2);
        pod.set_extended("example.com/fpga", 1);
        assert_eq!(node.times(&pod, 110), 0);
        assert_eq!(node.times(&Resources::default(), 110), 110);
    }

    #[test]
    fn an_overcommitted_node_has_no_room() {
        let mut free = Resources::new(1000, 1 << 30);
        free.subtract(&Resources::new(1500, 0));
        assert_eq!(free.times(&Resources::new(100, 0), 110), 0);
        assert_eq!(free.times(&Resources::new(0, 1 << 20), 110), 110);
    }

    #[test]
    fn adding_and_taking_away_leaves_no_trace() {
        let mut sum = Resources::new(100, 200);
        let mut other = Resources::new(1, 2);
        other.set_extended("a/b", 3);
        sum.add(&other);
        assert_eq!(sum.extended("a/b"), 3);
        sum.subtract(&other);
        assert_eq!(sum, Resources::new(100, 200));
    }
}
