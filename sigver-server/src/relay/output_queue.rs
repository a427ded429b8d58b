//! The order in which outputs are carried out: a fan-out to many recipients does not delay the outputs of other events.
//!
//! The first outputs of an event are carried out at once, the rest is deferred. Invariants: the outputs of a recipient are carried out in the
//! order in which they were added, and none is lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem, vec,
};

use sigver_core::ConnId;

/// How many outputs of one event are carried out at once, and how many that were deferred for the same recipients. Most events have one or
/// two. The end of a key with many joiners has more, its beginning if they have waited, and a time-out of many connections.
pub(super) const AT_ONCE: usize = 8;

/// Outputs that are not carried out yet. `C` is what caused an output.
pub(super) struct OutputQueue<T, C> {
    /// The outputs of the event that is being handled, and its cause.
    current: vec::IntoIter<(ConnId, T)>,
    cause: C,
    /// The outputs that follow from carrying these out.
    following: VecDeque<(ConnId, T)>,
    /// How many of them are still carried out at once, and how many deferred ones before them.
    left: usize,
    left_deferred: usize,
    /// The deferred outputs in order, by number.
    deferred: BTreeMap<u64, (ConnId, T, C)>,
    /// The numbers of the deferred outputs of each recipient.
    by_recipient: BTreeSet<(ConnId, u64)>,
    next_number: u64,
}

impl<T, C: Copy + Default> OutputQueue<T, C> {
    pub(super) fn new() -> Self {
        Self {
            current: vec::IntoIter::default(),
            cause: C::default(),
            following: VecDeque::new(),
            left: 0,
            left_deferred: 0,
            deferred: BTreeMap::new(),
            by_recipient: BTreeSet::new(),
            next_number: 0,
        }
    }

    /// Adds the outputs of an event. [`next_at_once`](Self::next_at_once) must have returned `None` before.
    pub(super) fn add(&mut self, outputs: Vec<(ConnId, T)>, cause: C) {
        debug_assert_eq!(
            self.current.len(),
            0,
            "the outputs of an event are neither carried out nor deferred"
        );
        self.current = outputs.into_iter();
        self.cause = cause;
        self.left = AT_ONCE;
        self.left_deferred = AT_ONCE;
    }

    /// Returns the next output to carry out at once: one of the event, or one that was deferred for the same recipient before. Otherwise
    /// defers the rest of the event's outputs and returns `None`. Outputs of a recipient for which much is deferred are deferred as well.
    pub(super) fn next_at_once(&mut self) -> Option<(ConnId, T, C)> {
        while self.left > 0 {
            let (recipient, _) = self.current.as_slice().first().or(self.following.front())?;
            let recipient = *recipient;
            let is_behind = self.first_for(recipient).is_some();
            if is_behind && self.left_deferred > 0 {
                self.left_deferred -= 1;
                return self.pop_for(recipient);
            }
            self.left -= 1;
            let (output, cause) = match self.current.next() {
                Some((_, output)) => (output, self.cause),
                None => (self.following.pop_front()?.1, C::default()),
            };
            if !is_behind {
                return Some((recipient, output, cause));
            }
            self.push(recipient, output, cause);
        }
        self.defer();
        None
    }

    /// Adds outputs that follow from carrying out another one, behind those that are there.
    pub(super) fn append(&mut self, outputs: Vec<(ConnId, T)>) {
        self.following.extend(outputs);
    }

    /// Defers what was neither carried out nor deferred.
    pub(super) fn defer(&mut self) {
        for (recipient, output) in mem::take(&mut self.current) {
            self.push(recipient, output, self.cause);
        }
        while let Some((recipient, output)) = self.following.pop_front() {
            self.push(recipient, output, C::default());
        }
    }

    fn push(&mut self, recipient: ConnId, output: T, cause: C) {
        self.deferred.insert(self.next_number, (recipient, output, cause));
        self.by_recipient.insert((recipient, self.next_number));
        self.next_number += 1;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.deferred.len()
    }

    /// Whether no output is deferred.
    pub(super) fn is_empty(&self) -> bool {
        self.deferred.is_empty()
    }

    /// Removes and returns the oldest deferred output.
    pub(super) fn pop(&mut self) -> Option<(ConnId, T, C)> {
        let (number, deferred) = self.deferred.pop_first()?;
        self.by_recipient.remove(&(deferred.0, number));
        Some(deferred)
    }

    /// Removes and returns the oldest deferred output of this recipient.
    pub(super) fn pop_for(&mut self, recipient: ConnId) -> Option<(ConnId, T, C)> {
        let number = self.first_for(recipient)?;
        self.by_recipient.remove(&(recipient, number));
        self.deferred.remove(&number)
    }

    /// Returns the number of the oldest deferred output of this recipient.
    fn first_for(&self, recipient: ConnId) -> Option<u64> {
        let all = (recipient, 0)..=(recipient, u64::MAX);
        self.by_recipient.range(all).next().map(|(_, number)| *number)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Queue = OutputQueue<usize, usize>;

    fn id(number: u64) -> ConnId {
        ConnId::from_bits(number)
    }

    fn outputs(recipients: impl IntoIterator<Item = u64>) -> Vec<(ConnId, usize)> {
        recipients.into_iter().map(id).zip(0..).collect()
    }

    /// Adds the outputs of an event and returns what is carried out at once.
    fn add(queue: &mut Queue, outputs: Vec<(ConnId, usize)>, event: usize) -> Vec<(ConnId, usize, usize)> {
        queue.add(outputs, event);
        std::iter::from_fn(|| queue.next_at_once()).collect()
    }

    #[test]
    fn output_of_a_bystander_does_not_wait_for_a_fan_out() {
        let mut queue = Queue::new();
        let first = add(&mut queue, outputs(0..1000), 0);
        assert_eq!(first.len(), AT_ONCE);
        assert_eq!(add(&mut queue, outputs([5_000]), 1), [(id(5_000), 0, 1)]);
        for number in AT_ONCE..1000 {
            assert_eq!(queue.pop(), Some((id(number as u64), number, 0)));
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn output_follows_what_was_deferred_for_its_recipient() {
        let mut queue = Queue::new();
        let fan_out = (0..100).chain([99]);
        let _ = add(&mut queue, outputs(fan_out), 0);
        let sent = add(&mut queue, outputs([98, 99]), 1);
        let expected = [
            (id(98), 98, 0),
            (id(98), 0, 1),
            (id(99), 99, 0),
            (id(99), 100, 0),
            (id(99), 1, 1),
        ];
        assert_eq!(sent, expected);
        assert_eq!(queue.pop_for(id(50)), Some((id(50), 50, 0)));
        assert_eq!(queue.pop_for(id(50)), None);
        let deferred: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|(_, output, _)| output)
            .collect();
        let expected: Vec<_> = (AT_ONCE..98).filter(|number| *number != 50).collect();
        assert_eq!(deferred, expected);
    }

    #[test]
    fn event_carries_out_a_bounded_number_of_outputs() {
        let mut queue = Queue::new();
        // One recipient that gets much, and two others.
        let _ = add(&mut queue, outputs([1; 100]), 0);
        let sent = add(&mut queue, outputs([2, 1, 3]), 1);
        let earlier = (AT_ONCE..2 * AT_ONCE).map(|number| (id(1), number, 0));
        let expected: Vec<_> = [(id(2), 0, 1)]
            .into_iter()
            .chain(earlier)
            .chain([(id(3), 2, 1)])
            .collect();
        assert_eq!(sent, expected);
        let deferred: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(deferred.len(), 100 - 2 * AT_ONCE + 1);
        assert_eq!(deferred.last(), Some(&(id(1), 1, 1)));
    }

    #[test]
    fn what_follows_from_an_output_is_behind_the_rest_of_its_event() {
        let mut queue = Queue::new();
        queue.add(outputs([1, 1]), 7);
        assert_eq!(queue.next_at_once(), Some((id(1), 0, 7)));
        queue.append(vec![(id(1), 10), (id(2), 11)]);
        assert_eq!(queue.next_at_once(), Some((id(1), 1, 7)));
        assert_eq!(queue.next_at_once(), Some((id(1), 10, 0)));
        queue.append(vec![(id(1), 12)]);
        queue.defer();
        let deferred: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(deferred, [(id(2), 11, 0), (id(1), 12, 0)]);
    }

    #[test]
    fn memory_of_a_fan_out_is_released() {
        let mut queue = Queue::new();
        let _ = add(&mut queue, outputs(0..1000), 0);
        while queue.pop().is_some() {}
        assert!(queue.deferred.is_empty() && queue.by_recipient.is_empty());
        assert_eq!(queue.current.len(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(Vec<u64>),
        Slice(usize),
        Flush(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => prop::collection::vec(0..12_u64, 0..3 * AT_ONCE).prop_map(Step::Add),
            1 => (0..2 * AT_ONCE).prop_map(Step::Slice),
            1 => (0..12_u64).prop_map(Step::Flush),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The naive queues: a list for each recipient.
        #[test]
        fn outputs_of_each_recipient_are_carried_out_in_order_and_once(steps in steps()) {
            let mut queue = Queue::new();
            let mut naive: BTreeMap<ConnId, Vec<(usize, usize)>> = BTreeMap::new();
            let mut carried_out: BTreeMap<ConnId, Vec<(usize, usize)>> = BTreeMap::new();
            let mut carry_out = |(id, output, event): (ConnId, usize, usize)| carried_out.entry(id).or_default().push((event, output));
            for (event, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add(recipients) => {
                        let outputs = outputs(recipients);
                        for (id, output) in &outputs {
                            naive.entry(*id).or_default().push((event, *output));
                        }
                        let first = &outputs[..outputs.len().min(AT_ONCE)];
                        let nothing_deferred = |id: &ConnId| queue.first_for(*id).is_none();
                        let expected: Vec<_> = first.iter().filter(|(id, _)| nothing_deferred(id)).copied().collect();
                        let at_once = add(&mut queue, outputs, event);
                        prop_assert!(at_once.len() <= 2 * AT_ONCE);
                        for (id, output) in expected {
                            prop_assert!(at_once.contains(&(id, output, event)), "{id:?} has waited");
                        }
                        at_once.into_iter().for_each(&mut carry_out);
                    }
                    Step::Slice(count) => (0..count).map_while(|_| queue.pop()).for_each(&mut carry_out),
                    Step::Flush(recipient) => {
                        std::iter::from_fn(|| queue.pop_for(id(recipient))).for_each(&mut carry_out);
                    }
                }
            }
            std::iter::from_fn(|| queue.pop()).for_each(&mut carry_out);
            prop_assert!(queue.is_empty());
            prop_assert_eq!(carried_out, naive);
        }
    }
}
