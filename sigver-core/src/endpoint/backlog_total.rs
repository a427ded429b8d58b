//! The sum of the backlogs of all connections, and the limit on it.

use core::num::NonZeroU64;

/// What all connections together have not read. It changes with the backlog of every connection, open or closing.
pub(super) struct BacklogTotal {
    bytes: u64,
    limit: u64,
}

impl BacklogTotal {
    pub(super) fn new(limit: Option<NonZeroU64>) -> Self {
        Self {
            bytes: 0,
            limit: limit.map_or(u64::MAX, NonZeroU64::get),
        }
    }

    pub(super) fn add(&mut self, cost: usize) {
        self.bytes = self.bytes.saturating_add(cost as u64);
    }

    pub(super) fn subtract(&mut self, cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost as u64);
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns by how much the backlogs exceed their limit.
    pub(super) const fn excess(&self) -> u64 {
        self.bytes.saturating_sub(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_begins_one_byte_over_the_limit() {
        let mut total = BacklogTotal::new(NonZeroU64::new(10));
        total.add(10);
        assert_eq!((total.bytes(), total.excess()), (10, 0));
        total.add(3);
        assert_eq!((total.bytes(), total.excess()), (13, 3));
        total.subtract(4);
        assert_eq!((total.bytes(), total.excess()), (9, 0));
    }

    #[test]
    fn without_a_limit_there_is_no_excess() {
        let mut total = BacklogTotal::new(None);
        total.add(usize::MAX);
        total.add(usize::MAX);
        assert_eq!(total.excess(), 0);
    }
}
