//! CPU affinity of servers and generator.
//!
//! A child process inherits the affinity of the thread that starts it, so the generator moves to the server core before it
//! starts a server. Pinning works on Linux only.

use sigver_benches::error::Error;

/// The core of the servers and the core of the generator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    server: usize,
    generator: usize,
}

#[cfg(target_os = "linux")]
impl Cores {
    /// Chooses the first two cores that this process may use.
    pub(crate) fn choose() -> Result<Self, Error> {
        use rustix::thread::{CpuSet, sched_getaffinity};
        use sigver_benches::error::Context;

        let allowed = sched_getaffinity(None).context("cannot read CPU affinity")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        match (cores.next(), cores.next()) {
            (Some(server), Some(generator)) => Ok(Self { server, generator }),
            _ => Err(Error::new("pinning needs two cores: use --no-pin")),
        }
    }

    /// Moves this thread, and the processes that it starts, to the server core.
    pub(crate) fn move_to_server_core(self) -> Result<(), Error> {
        pin_to(self.server)
    }

    /// Moves this thread, and the processes that it starts, to the generator core.
    pub(crate) fn move_to_generator_core(self) -> Result<(), Error> {
        pin_to(self.generator)
    }
}

#[cfg(target_os = "linux")]
fn pin_to(core: usize) -> Result<(), Error> {
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

    pub(crate) fn move_to_server_core(self) -> Result<(), Error> {
        Err(Error::new(format!("no core {}", self.server)))
    }

    pub(crate) fn move_to_generator_core(self) -> Result<(), Error> {
        Err(Error::new(format!("no core {}", self.generator)))
    }
}
