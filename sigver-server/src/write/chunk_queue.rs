//! A queue in small chunks.
//!
//! glibc's malloc serves an allocation of 128 KiB or more with a memory map of its own, and the number of maps of a process is limited
//! (`vm.max_map_count`). With chunks, the backlogs of thousands of slow consumers need no maps, and a growing backlog needs no copy.

use std::collections::VecDeque;

/// The most bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;

/// A first-in, first-out queue. An empty queue takes no memory on the heap.
pub(crate) struct ChunkQueue<T> {
    /// None is empty, and only the last may have room.
    chunks: VecDeque<Vec<T>>,
    /// Items of the first chunk that were removed.
    removed: usize,
    len: usize,
}

impl<T: Copy> ChunkQueue<T> {
    const CHUNK: usize = CHUNK_BYTES / size_of::<T>();

    pub(crate) const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            removed: 0,
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the items at the front that are in one chunk.
    pub(crate) fn front(&self) -> &[T] {
        self.chunks.front().map_or(&[], |chunk| &chunk[self.removed..])
    }

    /// Returns the first item.
    pub(crate) fn first_mut(&mut self) -> Option<&mut T> {
        self.chunks.front_mut()?.get_mut(self.removed)
    }

    /// Appends items.
    pub(crate) fn extend(&mut self, mut items: &[T]) {
        self.len += items.len();
        while !items.is_empty() {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == Self::CHUNK) {
                self.chunks.push_back(Vec::new());
            }
            let Some(chunk) = self.chunks.back_mut() else { return };
            let (now, later) = items.split_at(items.len().min(Self::CHUNK - chunk.len()));
            if chunk.capacity() - chunk.len() < now.len() {
                // Doubles like a `Vec`, but never beyond a chunk.
                let target = (2 * chunk.capacity()).max(chunk.len() + now.len()).min(Self::CHUNK);
                chunk.reserve_exact(target - chunk.len());
            }
            chunk.extend_from_slice(now);
            items = later;
        }
    }

    /// Removes items from the front, at most all of them.
    pub(crate) fn consume(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while let Some(chunk) = self.chunks.front() {
            let rest = chunk.len() - self.removed;
            if left < rest {
                self.removed += left;
                return;
            }
            left -= rest;
            self.removed = 0;
            self.chunks.pop_front();
        }
    }

    /// Removes items from the back, so that at most `len` are left.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len > len {
            let surplus = self.len - len;
            let is_only = self.chunks.len() == 1;
            let Some(chunk) = self.chunks.back_mut() else { return };
            let present = if is_only {
                chunk.len() - self.removed
            } else {
                chunk.len()
            };
            if surplus < present {
                chunk.truncate(chunk.len() - surplus);
                self.len = len;
            } else {
                self.len -= present;
                self.chunks.pop_back();
                if is_only {
                    self.removed = 0;
                }
            }
        }
    }

    /// Removes all items and frees their memory.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::ChunkQueue;

    #[derive(Clone, Debug)]
    enum Step {
        Extend(usize),
        Consume(usize),
        Truncate(usize),
        ChangeFirst,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let chunk = ChunkQueue::<u32>::CHUNK;
        let size = prop_oneof![0..10_usize, 0..3 * chunk, Just(chunk), Just(2 * chunk)];
        let step = prop_oneof![
            3 => size.clone().prop_map(Step::Extend),
            2 => size.clone().prop_map(Step::Consume),
            1 => size.prop_map(Step::Truncate),
            1 => Just(Step::ChangeFirst),
        ];
        prop::collection::vec(step, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn queue_agrees_with_a_deque(steps in steps()) {
            let (mut queue, mut deque, mut next) = (ChunkQueue::new(), VecDeque::new(), 0_u32);
            for step in steps {
                match step {
                    Step::Extend(count) => {
                        let items: Vec<u32> = (next..next + count as u32).collect();
                        next += count as u32;
                        queue.extend(&items);
                        deque.extend(items);
                    }
                    Step::Consume(count) => {
                        queue.consume(count);
                        deque.drain(..count.min(deque.len()));
                    }
                    Step::Truncate(len) => {
                        queue.truncate(len);
                        deque.truncate(len);
                    }
                    Step::ChangeFirst => {
                        if let Some(first) = queue.first_mut() {
                            *first = 7;
                        }
                        if let Some(first) = deque.front_mut() {
                            *first = 7;
                        }
                    }
                }
                prop_assert_eq!(queue.len(), deque.len());
                prop_assert_eq!(queue.is_empty(), deque.is_empty());
                prop_assert_eq!(queue.front().first(), deque.front());
                prop_assert!(queue.chunks.iter().all(|chunk| chunk.capacity() <= ChunkQueue::<u32>::CHUNK));
                prop_assert!(!deque.is_empty() || queue.chunks.is_empty(), "an empty queue keeps no chunk");
            }
            let mut left = Vec::new();
            while !queue.is_empty() {
                let count = queue.front().len();
                left.extend_from_slice(queue.front());
                queue.consume(count);
            }
            prop_assert_eq!(left, Vec::from(deque));
        }
    }
}
