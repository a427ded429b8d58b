//! Owns the threads of connections: each runs one connection at a time, and then waits a moment for the next before it ends, since making
//! a thread is a tenth of what a session of signaling costs. Never knows what a connection is.

use std::{
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::sys::sched;

/// The stack that a connection's thread may use. Only touched pages cost memory; a panic that prints a backtrace needs room.
pub(crate) const STACK: usize = 256 * 1024;

/// How long a thread waits for its next connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Threads that wait at the same time. One more ends at once: where so many connections have ended, few come.
const WAITING: usize = 64;

/// Threads that run one `J` after the other.
pub(crate) struct Workers<J> {
    run: Box<dyn Fn(J) + Send + Sync>,
    waiting: Mutex<Waiting<J>>,
}

struct Waiting<J> {
    /// The last that came is the first that goes, so that those who are not needed end.
    places: Vec<Arc<Place<J>>>,
    is_over: bool,
}

/// Where a thread that waits finds what it is given.
struct Place<J> {
    job: Mutex<Option<J>>,
    thread: Thread,
}

impl<J: Send + 'static> Workers<J> {
    pub(crate) fn new(run: impl Fn(J) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            run: Box::new(run),
            waiting: Mutex::new(Waiting {
                places: Vec::new(),
                is_over: false,
            }),
        })
    }

    /// Has a thread run this: one that waits, or a new one.
    ///
    /// # Errors
    ///
    /// No thread waits, and none can be started.
    pub(crate) fn run(self: &Arc<Self>, job: J) -> io::Result<()> {
        let mut waiting = lock(&self.waiting);
        if let Some(place) = waiting.places.pop() {
            // While nobody can look whether the place is still among those that wait.
            *lock(&place.job) = Some(job);
            drop(waiting);
            place.thread.unpark();
            return Ok(());
        }
        drop(waiting);
        let workers = Arc::clone(self);
        let thread = thread::Builder::new().name("sigver-conn".into()).stack_size(STACK);
        thread.spawn(move || workers.work(job)).map(drop)
    }

    /// Ends every thread that waits, and others as soon as they would.
    pub(crate) fn end(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.is_over = true;
        for place in mem::take(&mut waiting.places) {
            place.thread.unpark();
        }
    }

    /// A thread's life. A job that panics ends it, which is all that it takes along.
    fn work(&self, first: J) {
        sched::run_as_batch();
        let place = Arc::new(Place {
            job: Mutex::new(None),
            thread: thread::current(),
        });
        let mut next = Some(first);
        while let Some(job) = next {
            (self.run)(job);
            next = self.wait(&place);
        }
    }

    /// Waits to be given something; `None` where nothing comes.
    fn wait(&self, place: &Arc<Place<J>>) -> Option<J> {
        let mut waiting = lock(&self.waiting);
        if waiting.is_over || waiting.places.len() >= WAITING {
            return None;
        }
        waiting.places.push(Arc::clone(place));
        drop(waiting);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::park_timeout(left);
            let mut waiting = lock(&self.waiting);
            match waiting.places.iter().position(|other| Arc::ptr_eq(other, place)) {
                // Somebody has taken the place, and put something there, unless it is over.
                None => return lock(&place.job).take(),
                Some(index) if left.is_zero() => {
                    waiting.places.remove(index);
                    return None;
                }
                Some(_) => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        collections::HashSet,
        sync::mpsc::{Sender, channel},
        thread::ThreadId,
    };

    use super::*;

    type Report = Sender<ThreadId>;

    fn reporting() -> Arc<Workers<Report>> {
        Workers::new(|report: Report| {
            let _ = report.send(thread::current().id());
        })
    }

    /// Until as many threads wait.
    fn until_waiting<J>(workers: &Workers<J>, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while lock(&workers.waiting).places.len() != count {
            assert!(Instant::now() < deadline, "{count} threads do not wait");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Until every thread has ended.
    fn until_alone<J>(workers: &Arc<Workers<J>>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(workers) > 1 {
            assert!(Instant::now() < deadline, "a thread is left");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_thread_that_waits_is_used_again() -> io::Result<()> {
        let (workers, (report, reports)) = (reporting(), channel());
        for _ in 0..20 {
            workers.run(report.clone())?;
            until_waiting(&workers, 1);
        }
        drop(report);
        assert_eq!(reports.iter().collect::<HashSet<_>>().len(), 1);
        Ok(())
    }

    #[test]
    fn those_who_wait_in_vain_end() -> io::Result<()> {
        let (workers, (report, reports)) = (reporting(), channel());
        workers.run(report)?;
        assert_eq!(reports.iter().count(), 1);
        until_waiting(&workers, 1);
        until_waiting(&workers, 0);
        until_alone(&workers);
        Ok(())
    }

    #[test]
    fn what_comes_when_all_are_busy_has_a_thread_of_its_own() -> io::Result<()> {
        let (done, (report, reports)) = (Arc::new(std::sync::Barrier::new(9)), channel());
        let barrier = Arc::clone(&done);
        let workers = Workers::new(move |report: Report| {
            let _ = report.send(thread::current().id());
            barrier.wait();
        });
        for _ in 0..8 {
            workers.run(report.clone())?;
        }
        done.wait();
        drop(report);
        assert_eq!(reports.iter().collect::<HashSet<_>>().len(), 8);
        Ok(())
    }

    #[test]
    fn a_panic_takes_nobody_along() -> io::Result<()> {
        let (report, reports) = channel();
        let workers = Workers::new(|(report, is_bad): (Sender<u8>, bool)| {
            assert!(!is_bad, "a job that panics, as the test wants it");
            let _ = report.send(1);
        });
        workers.run((report.clone(), false))?;
        until_waiting(&workers, 1);
        workers.run((report.clone(), true))?;
        until_waiting(&workers, 0);
        workers.run((report, false))?;
        assert_eq!(reports.iter().count(), 2);
        Ok(())
    }

    #[test]
    fn at_the_end_nobody_waits() -> io::Result<()> {
        let (workers, (report, reports)) = (reporting(), channel());
        workers.run(report.clone())?;
        until_waiting(&workers, 1);
        workers.end();
        until_waiting(&workers, 0);
        // What comes all the same is done, by a thread that does not wait.
        workers.run(report)?;
        assert_eq!(reports.iter().count(), 2);
        until_alone(&workers);
        Ok(())
    }

    /// Thousands of short jobs from several sides, with ends of patience in between: each is done once.
    #[test]
    fn nothing_is_lost() -> io::Result<()> {
        let (workers, (report, reports)) = (reporting(), channel());
        for turn in 0..3_000 {
            workers.run(report.clone())?;
            if turn % 100 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        drop(report);
        assert_eq!(reports.iter().count(), 3_000);
        Ok(())
    }
}
