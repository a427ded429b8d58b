//! Which core the server and the generator run on.
//!
//! A child inherits the affinity of the thread that starts it, so the generator goes to the server's core for that
//! moment. On systems without affinity both functions refuse.

use sigver_benches::error::Error;

/// Two cores: one to be measured, one to make the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    server: usize,
    generator: usize,
}

#[cfg(target_os = "linux")]
impl Cores {
    /// The first two cores that this process may use.
    pub(crate) fn choose() -> Result<Self, Error> {
        use rustix::thread::{CpuSet, sched_getaffinity};
        use sigver_benches::error::Context;

        let allowed = sched_getaffinity(None).context("cannot read the affinity")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        match (cores.next(), cores.next()) {
            (Some(server), Some(generator)) => Ok(Self { server, generator }),
            _ => Err(Error::new("pinning needs two cores: use --no-pin")),
        }
    }

    /// Makes what is started next run on the server's core.
    pub(crate) fn enter_server(self) -> Result<(), Error> {
        run_on(self.server)
    }

    /// Makes this thread, and what it starts next, run on the generator's core.
    pub(crate) fn enter_generator(self) -> Result<(), Error> {
        run_on(self.generator)
    }
}

#[cfg(target_os = "linux")]
fn run_on(core: usize) -> Result<(), Error> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    use sigver_benches::error::Context;

    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context(format!("cannot run on core {core}"))
}

#[cfg(not(target_os = "linux"))]
impl Cores {
    pub(crate) fn choose() -> Result<Self, Error> {
        Err(Error::new("pinning works on Linux only: use --no-pin"))
    }

    pub(crate) fn enter_server(self) -> Result<(), Error> {
        Err(Error::new(format!("no core {}", self.server)))
    }

    pub(crate) fn enter_generator(self) -> Result<(), Error> {
        Err(Error::new(format!("no core {}", self.generator)))
    }
}
