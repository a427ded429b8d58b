//! The admissions in progress. Each blocks the thread of its connection, so the accept loop rejects a client whose admission takes too long.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The admissions in progress, and their clients `P`.
pub(crate) struct Admissions<P> {
    timeout: Duration,
    state: Mutex<State<P>>,
}

struct State<P> {
    /// By deadline and number.
    pending: BTreeMap<(Instant, u64), Arc<P>>,
    count: u64,
    /// When the accept loop looks next. Not before the first deadline, and not changed by the end of an admission: usually the accept loop is
    /// not woken for one.
    next_check: Option<Instant>,
}

/// An admission in progress, which ends on drop.
pub(crate) struct Pending<'a, P> {
    admissions: &'a Admissions<P>,
    key: Option<(Instant, u64)>,
}

impl<P> Admissions<P> {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            state: Mutex::new(State {
                pending: BTreeMap::new(),
                count: 0,
                next_check: None,
            }),
        }
    }

    /// Begins an admission. Calls `wake` if the accept loop must learn of its deadline.
    pub(crate) fn begin(&self, client: &Arc<P>, now: Instant, wake: impl FnOnce()) -> Pending<'_, P> {
        let deadline = now.checked_add(self.timeout);
        let key = deadline.map(|deadline| {
            let mut state = self.state();
            state.count += 1;
            let key = (deadline, state.count);
            state.pending.insert(key, Arc::clone(client));
            if state.next_check.is_none() {
                state.next_check = Some(deadline);
                drop(state);
                wake();
            }
            key
        });
        Pending { admissions: self, key }
    }

    /// Returns when [`take_late`](Self::take_late) must be called next.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.state().next_check
    }

    /// Removes and returns the clients whose deadline has passed.
    pub(crate) fn take_late(&self, now: Instant) -> impl Iterator<Item = Arc<P>> + use<P> {
        let mut state = self.state();
        let mut late = BTreeMap::new();
        if state.next_check.is_some_and(|at| at <= now) {
            // No number is the largest.
            let others = state.pending.split_off(&(now, u64::MAX));
            late = mem::replace(&mut state.pending, others);
            state.next_check = state.pending.keys().next().map(|(deadline, _)| *deadline);
        }
        late.into_values()
    }

    /// The state is valid after a panic: no call leaves it half changed.
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Drop for Pending<'_, P> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.admissions.state().pending.remove(&key);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn client_is_late_from_its_deadline_on_and_once() {
        let admissions = Admissions::new(TIMEOUT);
        let start = Instant::now();
        let late = |seconds| {
            let now = start + Duration::from_secs(seconds);
            admissions.take_late(now).map(|client| *client).collect::<Vec<u8>>()
        };
        let at = |client, seconds| admissions.begin(&Arc::new(client), start + Duration::from_secs(seconds), || {});
        let (_one, two, _three) = (at(1, 0), at(2, 0), at(3, 4));
        assert!(late(9).is_empty());
        drop(two);
        assert_eq!(late(10), [1]);
        assert!(late(13).is_empty());
        assert_eq!(late(14), [3]);
        assert!(late(100).is_empty());
    }

    #[test]
    fn accept_loop_is_woken_once_for_admissions_that_end_in_time() {
        let admissions = Admissions::new(TIMEOUT);
        let start = Instant::now();
        let wakes = Cell::new(0);
        let admit = |now| drop(admissions.begin(&Arc::new(()), now, || wakes.set(wakes.get() + 1)));
        (0..1000).for_each(|millis| admit(start + Duration::from_millis(millis)));
        assert_eq!(wakes.get(), 1);
        assert!(admissions.state().pending.is_empty(), "an admission leaves nothing");
        assert_eq!(admissions.next_check(), Some(start + TIMEOUT));
        assert_eq!(admissions.take_late(start + TIMEOUT).count(), 0);
        assert_eq!(admissions.next_check(), None);
        admit(start + TIMEOUT);
        assert_eq!(wakes.get(), 2);
    }

    #[test]
    fn endless_timeout_is_none() {
        let admissions = Admissions::new(Duration::MAX);
        let _pending = admissions.begin(&Arc::new(()), Instant::now(), || panic!("nothing to wake for"));
        assert_eq!(admissions.next_check(), None);
    }
}
