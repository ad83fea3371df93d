//! What was seen lately, with a bound.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map that forgets the oldest beyond its bound.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    pub(super) fn new(most: usize) -> Recent<K, V> {
        Recent { entries: HashMap::new(), order: VecDeque::new(), most }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        // What was removed still stands in the order; it goes with the oldest.
        while self.order.len() > self.most {
            let Some(oldest) = self.order.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_nothing_grows() {
        let mut recent = Recent::new(100);
        for number in 0..100_000_u32 {
            recent.insert(number, number);
            if number % 2 == 0 {
                recent.remove(&number);
            }
        }
        assert!(recent.entries.len() <= 100 && recent.order.len() <= 100);
        assert_eq!((recent.get(&99_999), recent.get(&99_998), recent.get(&1)), (Some(&99_999), None, None));
    }
}
