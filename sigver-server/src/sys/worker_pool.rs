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

/// Threads that may wait although every other thread may be busy: the pool has at most this many more threads than jobs at the same time.
pub(crate) const SPARE_THREADS: usize = 64;

/// Threads that run one job of type `J` after the other.
pub(crate) struct WorkerPool<J> {
    run: Box<dyn Fn(J) + Send + Sync>,
    /// The most jobs at the same time.
    jobs: usize,
    idle_timeout: Duration,
    threads: Mutex<Threads<J>>,
}

struct Threads<J> {
    /// The idle ones, in the order in which they became idle. The last one gets the next job, so that surplus threads end.
    idle: VecDeque<Arc<Slot<J>>>,
    /// The number of all, idle or not.
    count: usize,
    is_shut_down: bool,
}

/// Where an idle thread receives its next job.
struct Slot<J> {
    job: Mutex<Option<J>>,
    thread: Thread,
}

impl<J: Send + 'static> WorkerPool<J> {
    /// Returns a pool for at most `jobs` jobs at the same time.
    pub(crate) fn new(jobs: usize, run: impl Fn(J) + Send + Sync + 'static) -> Arc<Self> {
        Self::with_idle_timeout(jobs, IDLE_TIMEOUT, run)
    }

    fn with_idle_timeout(jobs: usize, idle_timeout: Duration, run: impl Fn(J) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            run: Box::new(run),
            jobs,
            idle_timeout,
            threads: Mutex::new(Threads {
                idle: VecDeque::new(),
                count: 0,
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
        let mut threads = lock(&self.threads);
        if let Some(slot) = threads.idle.pop_back() {
            // Under the lock, so that the thread cannot time out in between.
            *lock(&slot.job) = Some(job);
            drop(threads);
            slot.thread.unpark();
            return Ok(());
        }
        threads.count += 1;
        drop(threads);
        let worker = Worker(Arc::clone(self));
        let thread = thread::Builder::new().name("sigver-conn".into()).stack_size(STACK);
        // On an error, the worker is dropped.
        thread.spawn(move || worker.work(job)).map(drop)
    }

    /// Ends idle threads now, and others after their job.
    pub(crate) fn shut_down(&self) {
        let mut threads = lock(&self.threads);
        threads.is_shut_down = true;
        for slot in mem::take(&mut threads.idle) {
            slot.thread.unpark();
        }
    }
}

/// A thread of the pool. Dropping this removes it from the count.
struct Worker<J>(Arc<WorkerPool<J>>);

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        lock(&self.0.threads).count -= 1;
    }
}

impl<J> Worker<J> {
    /// Runs jobs until none comes in time. A panic in a job ends the thread and nothing else.
    fn work(&self, first: J) {
        sched::run_as_batch();
        let slot = Arc::new(Slot {
            job: Mutex::new(None),
            thread: thread::current(),
        });
        let mut next = Some(first);
        while let Some(job) = next {
            (self.0.run)(job);
            next = self.wait(&slot);
        }
    }

    /// Waits for the next job. `None` after the time-out, or if the thread is not needed.
    fn wait(&self, slot: &Arc<Slot<J>>) -> Option<J> {
        let pool = &self.0;
        let mut threads = lock(&pool.threads);
        let is_surplus = threads.idle.len() >= SPARE_THREADS && threads.count > pool.jobs;
        if threads.is_shut_down || is_surplus {
            return None;
        }
        threads.idle.push_back(Arc::clone(slot));
        drop(threads);
        let deadline = Instant::now() + pool.idle_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::park_timeout(left);
            if let Some(job) = lock(&slot.job).take() {
                return Some(job);
            }
            let mut threads = lock(&pool.threads);
            // Those that time out are the first ones.
            match threads.idle.iter().position(|other| Arc::ptr_eq(other, slot)) {
                // The slot was taken, and a job put into it, unless the pool was shut down.
                None => return lock(&slot.job).take(),
                Some(index) if left.is_zero() => {
                    threads.idle.remove(index);
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
        WorkerPool::with_idle_timeout(8, idle_timeout, |report: Report| {
            let _ = report.send(thread::current().id());
        })
    }

    /// Waits until this many threads are idle.
    fn wait_for_idle<J>(pool: &WorkerPool<J>, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while lock(&pool.threads).idle.len() != count {
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
        let pool = WorkerPool::new(8, move |report: Report| {
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

    /// All threads of a burst wait for the next one. Beyond the number of jobs at the same time, only some do.
    #[test]
    fn threads_wait_as_long_as_they_do_not_exceed_the_jobs() -> io::Result<()> {
        for (jobs, waiting) in [(100, 100), (10, SPARE_THREADS)] {
            let barrier = Arc::new(std::sync::Barrier::new(101));
            let inside = Arc::clone(&barrier);
            let pool = WorkerPool::with_idle_timeout(jobs, LONG, move |()| {
                inside.wait();
            });
            for _ in 0..100 {
                pool.execute(())?;
            }
            barrier.wait();
            wait_for_idle(&pool, waiting);
            let deadline = Instant::now() + Duration::from_secs(20);
            while lock(&pool.threads).count != waiting {
                assert!(Instant::now() < deadline, "more than {waiting} threads are left");
                thread::sleep(Duration::from_millis(1));
            }
            pool.shut_down();
            wait_for_end(&pool);
            assert_eq!(lock(&pool.threads).count, 0);
        }
        Ok(())
    }

    #[test]
    fn panic_ends_only_its_thread() -> io::Result<()> {
        let (report, reports) = channel();
        let pool = WorkerPool::with_idle_timeout(8, LONG, |(report, is_bad): (Sender<u8>, bool)| {
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
