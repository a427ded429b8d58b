//! The threads of connections. Each runs one connection at a time and then waits [`IDLE_TIMEOUT`] for the next: starting a thread is a tenth
//! of the cost of a session.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::{sys::sched, tuning::STACK};

/// How long a thread waits for its next job.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// More threads than jobs at the same time: those between a job, which has counted as ended, and the next. A thread starts only if none is idle.
pub(crate) const SPARE_THREADS: usize = 64;

/// Threads that run one job of type `J` after the other.
pub(crate) struct WorkerPool<J> {
    run: Box<dyn Fn(J) + Send + Sync>,
    idle_timeout: Duration,
    idle: Mutex<Idle<J>>,
}

struct Idle<J> {
    /// In the order in which they became idle. The last one gets the next job, so that surplus threads end.
    slots: VecDeque<Arc<Slot<J>>>,
    is_shut_down: bool,
}

/// Where an idle thread receives its next job.
struct Slot<J> {
    job: Mutex<Option<J>>,
    thread: Thread,
}

impl<J: Send + 'static> WorkerPool<J> {
    pub(crate) fn new(run: impl Fn(J) + Send + Sync + 'static) -> Arc<Self> {
        Self::with_idle_timeout(IDLE_TIMEOUT, run)
    }

    fn with_idle_timeout(idle_timeout: Duration, run: impl Fn(J) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            run: Box::new(run),
            idle_timeout,
            idle: Mutex::new(Idle {
                slots: VecDeque::new(),
                is_shut_down: false,
            }),
        })
    }

    /// Runs a job on an idle thread or a new one.
    ///
    /// # Errors
    ///
    /// No thread is idle, and none can be started.
    pub(crate) fn execute(self: &Arc<Self>, job: J) -> io::Result<()> {
        let mut idle = lock(&self.idle);
        if let Some(slot) = idle.slots.pop_back() {
            // Under the lock, so that the thread cannot time out in between.
            *lock(&slot.job) = Some(job);
            drop(idle);
            slot.thread.unpark();
            return Ok(());
        }
        drop(idle);
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("sigver-conn".into()).stack_size(STACK);
        thread.spawn(move || pool.work(job)).map(drop)
    }

    /// Ends idle threads now, and others after their job.
    pub(crate) fn shut_down(&self) {
        let mut idle = lock(&self.idle);
        idle.is_shut_down = true;
        for slot in mem::take(&mut idle.slots) {
            slot.thread.unpark();
        }
    }

    /// Runs jobs until none comes in time. A panic in a job ends the thread and nothing else.
    fn work(&self, first: J) {
        sched::run_as_batch();
        let slot = Arc::new(Slot {
            job: Mutex::new(None),
            thread: thread::current(),
        });
        let mut next = Some(first);
        while let Some(job) = next {
            (self.run)(job);
            next = self.wait(&slot);
        }
    }

    /// Waits for the next job. `None` after the time-out, and after the shutdown.
    fn wait(&self, slot: &Arc<Slot<J>>) -> Option<J> {
        let mut idle = lock(&self.idle);
        if idle.is_shut_down {
            return None;
        }
        idle.slots.push_back(Arc::clone(slot));
        drop(idle);
        let deadline = Instant::now() + self.idle_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::park_timeout(left);
            if let Some(job) = lock(&slot.job).take() {
                return Some(job);
            }
            let mut idle = lock(&self.idle);
            // Those that time out are the first ones.
            match idle.slots.iter().position(|other| Arc::ptr_eq(other, slot)) {
                // The slot was taken, and a job put into it, unless the pool was shut down.
                None => return lock(&slot.job).take(),
                Some(index) if left.is_zero() => {
                    idle.slots.remove(index);
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

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(10);

    fn reporting(idle_timeout: Duration) -> Arc<WorkerPool<Report>> {
        WorkerPool::with_idle_timeout(idle_timeout, |report: Report| {
            let _ = report.send(thread::current().id());
        })
    }

    /// Waits until this many threads are idle.
    fn wait_for_idle<J>(pool: &WorkerPool<J>, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while lock(&pool.idle).slots.len() != count {
            assert!(Instant::now() < deadline, "there are not {count} idle threads");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until every thread has ended.
    fn wait_for_end<J>(pool: &Arc<WorkerPool<J>>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(pool) > 1 {
            assert!(Instant::now() < deadline, "a thread is left");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn idle_worker_runs_the_next_job() -> io::Result<()> {
        let (pool, (report, reports)) = (reporting(LONG), channel());
        for _ in 0..20 {
            pool.execute(report.clone())?;
            wait_for_idle(&pool, 1);
        }
        drop(report);
        assert_eq!(reports.iter().collect::<HashSet<_>>().len(), 1);
        Ok(())
    }

    #[test]
    fn idle_worker_exits_after_timeout() -> io::Result<()> {
        let (pool, (report, reports)) = (reporting(SHORT), channel());
        pool.execute(report)?;
        assert_eq!(reports.iter().count(), 1);
        wait_for_idle(&pool, 0);
        wait_for_end(&pool);
        Ok(())
    }

    #[test]
    fn job_gets_a_new_thread_when_all_are_busy() -> io::Result<()> {
        let (done, (report, reports)) = (Arc::new(std::sync::Barrier::new(9)), channel());
        let barrier = Arc::clone(&done);
        let pool = WorkerPool::new(move |report: Report| {
            let _ = report.send(thread::current().id());
            barrier.wait();
        });
        for _ in 0..8 {
            pool.execute(report.clone())?;
        }
        done.wait();
        drop(report);
        assert_eq!(reports.iter().collect::<HashSet<_>>().len(), 8);
        Ok(())
    }

    /// All threads of a burst wait, and run the next burst.
    #[test]
    fn second_burst_starts_no_thread() -> io::Result<()> {
        const BURST: usize = 100;

        let (report, reports) = channel();
        let barrier = Arc::new(std::sync::Barrier::new(BURST + 1));
        let inside = Arc::clone(&barrier);
        let pool = WorkerPool::with_idle_timeout(LONG, move |report: Report| {
            let _ = report.send(thread::current().id());
            inside.wait();
        });
        for _ in 0..2 {
            for _ in 0..BURST {
                pool.execute(report.clone())?;
            }
            barrier.wait();
            wait_for_idle(&pool, BURST);
        }
        drop(report);
        assert_eq!(reports.iter().collect::<HashSet<_>>().len(), BURST);
        pool.shut_down();
        wait_for_end(&pool);
        Ok(())
    }

    #[test]
    fn panic_ends_only_its_thread() -> io::Result<()> {
        let (report, reports) = channel();
        let pool = WorkerPool::with_idle_timeout(LONG, |(report, is_bad): (Sender<u8>, bool)| {
            assert!(!is_bad, "a job that panics, as the test wants it");
            let _ = report.send(1);
        });
        pool.execute((report.clone(), false))?;
        wait_for_idle(&pool, 1);
        pool.execute((report.clone(), true))?;
        wait_for_idle(&pool, 0);
        pool.execute((report, false))?;
        assert_eq!(reports.iter().count(), 2);
        Ok(())
    }

    #[test]
    fn shutdown_ends_idle_workers() -> io::Result<()> {
        let (pool, (report, reports)) = (reporting(LONG), channel());
        pool.execute(report.clone())?;
        wait_for_idle(&pool, 1);
        pool.shut_down();
        wait_for_idle(&pool, 0);
        // A later job still runs, on a thread that ends after it.
        pool.execute(report)?;
        assert_eq!(reports.iter().count(), 2);
        wait_for_end(&pool);
        Ok(())
    }

    /// Threads time out while jobs arrive.
    #[test]
    fn every_job_runs_once() -> io::Result<()> {
        let (pool, (report, reports)) = (reporting(Duration::from_millis(1)), channel());
        for turn in 0..3_000 {
            pool.execute(report.clone())?;
            if turn % 100 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        drop(report);
        assert_eq!(reports.iter().count(), 3_000);
        Ok(())
    }
}
