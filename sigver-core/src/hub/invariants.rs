//! The agreement of the hub's tables, for tests.

use alloc::vec::Vec;

use crate::hub::{Holder, Hub, State};

impl<P> Hub<P> {
    /// Panics if the tables disagree. Tests call it after every step.
    #[doc(hidden)]
    pub fn assert_invariants(&self) {
        let mut openers = 0;
        let mut joined = 0;
        let mut deadlines = 0;
        let mut waiting = 0;
        for (id, conn) in self.conns.iter() {
            match &conn.state {
                State::Idle { deadline: None } => {}
                State::Idle {
                    deadline: Some(deadline),
                } => {
                    deadlines += 1;
                    assert!(self.deadlines.contains(&(*deadline, id)));
                }
                State::Waiting(its) => {
                    waiting += 1;
                    let holder = self.keys.get(&its.key);
                    assert!(
                        !matches!(holder, Some(Holder::Opener(_))),
                        "nobody waits for an open key"
                    );
                    assert!(self.waiters.count(&its.key) <= self.limits.joiners_per_key as usize);
                    if let Some(deadline) = its.deadline {
                        deadlines += 1;
                        assert!(self.deadlines.contains(&(deadline, id)));
                    }
                }
                State::Opener(opener) => {
                    openers += 1;
                    let holder = self.keys.get(&opener.key);
                    assert!(
                        matches!(holder, Some(Holder::Opener(its)) if *its == id),
                        "a key points at its opener"
                    );
                    for (index, joiner) in &opener.joiners {
                        assert!(index.get() < opener.next);
                        assert!(
                            matches!(self.state(*joiner), Some(State::Joiner { opener, index: i, .. }) if *opener == id && i == index),
                            "a joiner refers to its opener and its index"
                        );
                    }
                }
                State::Joiner { opener, index, .. } => {
                    joined += 1;
                    assert!(
                        matches!(self.state(*opener), Some(State::Opener(opener)) if opener.joiners.get(index) == Some(&id)),
                        "an opener refers to its joiners"
                    );
                }
            }
        }
        let reserved = self.keys.iter().filter_map(|(key, holder)| match holder {
            Holder::Opener(_) => None,
            Holder::Reserved { reservation, .. } => Some((key, *reservation)),
        });
        let reserved: Vec<_> = reserved.collect();
        for (key, reservation) in &reserved {
            assert_eq!(self.reservations.key(*reservation), Some(*key));
        }
        assert_eq!(
            self.reservations.len() as usize,
            reserved.len(),
            "no reservation is stale"
        );
        assert_eq!(
            self.keys.len(),
            openers + reserved.len(),
            "no key outlives its opener or reservation"
        );
        assert_eq!(self.joiners, joined, "the gauge of joiners is correct");
        assert_eq!(self.deadlines.len(), deadlines, "no deadline is stale");
        assert_eq!(self.waiters.len(), waiting, "the gauge of waiters is correct");
        assert_eq!(self.waiters.iter().count(), waiting as usize, "no entry is stale");
        for (key, arrival, waiter) in self.waiters.iter() {
            assert!(
                matches!(self.state(waiter), Some(State::Waiting(its)) if its.key == *key && its.arrival == arrival),
                "an entry refers to a waiter of its key"
            );
        }
    }
}
