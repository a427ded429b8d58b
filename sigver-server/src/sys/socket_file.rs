//! The files of Unix sockets.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a Unix socket. Dropping this removes it, unless another server has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    /// Returns a listening socket whose file has the permissions `mode`. A socket on which nobody listens is replaced: its server was killed.
    ///
    /// # Errors
    ///
    /// Somebody listens on it, a file has this path that is not a socket, or the system rejects the path.
    pub(crate) fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(Socket, Self)> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a Unix socket");
        let addr = SockAddr::unix(path).map_err(too_long)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Another server could replace the socket before it listens, or find the same stale one.
        let lock = lock_folder(path);
        match socket.bind(&addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &addr)? => {
                fs::remove_file(path)?;
                socket.bind(&addr)?;
            }
            bound => bound?,
        }
        let file = Self {
            path: path.to_owned(),
            id: id(path)?,
        };
        // Nobody connects before the file has its permissions.
        let listens = fs::set_permissions(path, Permissions::from_mode(mode)).and_then(|()| socket.listen(backlog));
        // On an error, the drop of the file locks again.
        drop(lock);
        listens.map(|()| (socket, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = lock_folder(&self.path);
        if id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Excludes other servers from replacing and removing sockets of the folder, until the returned file is dropped. Servers hold the lock for
/// microseconds. Returns `None` if somebody holds it longer: everyone who may read the folder can, and must not stop the server.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..10 {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(Duration::from_millis(10)),
            // Some file systems have no locks.
            Err(_) => return None,
        }
    }
    None
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Returns whether nobody listens on a socket.
fn is_stale(path: &Path, addr: &SockAddr) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket has this path",
        ));
    }
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server that does not accept would block this one.
    client.set_nonblocking(true)?;
    let connected = client.connect(addr);
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        os::unix::net::{UnixListener, UnixStream},
        process,
        sync::Barrier,
    };

    use super::*;

    fn free_path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sigver-{name}-{}", process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn file_has_its_mode_and_lives_as_long_as_the_socket() -> io::Result<()> {
        let path = free_path("mode");
        for mode in [0o600, 0o666] {
            let (_socket, file) = SocketFile::listen(&path, mode, 1)?;
            assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o7777, mode);
            drop(file);
            assert!(!path.exists());
        }
        Ok(())
    }

    #[test]
    fn stale_socket_is_replaced() -> io::Result<()> {
        let path = free_path("stale");
        drop(UnixListener::bind(&path)?);
        assert!(path.exists(), "the kernel leaves it");
        let (_socket, _file) = SocketFile::listen(&path, 0o600, 8)?;
        Ok(())
    }

    #[test]
    fn socket_in_use_and_other_files_stay() -> io::Result<()> {
        let path = free_path("used");
        let listener = UnixListener::bind(&path)?;
        let error = SocketFile::listen(&path, 0o600, 8).expect_err("somebody listens");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(listener);

        fs::remove_file(&path)?;
        fs::write(&path, "a letter")?;
        let error = SocketFile::listen(&path, 0o600, 8).expect_err("not a socket");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path)?, "a letter");
        fs::remove_file(&path)
    }

    #[test]
    fn file_of_another_server_stays() -> io::Result<()> {
        let path = free_path("successor");
        let (_socket, file) = SocketFile::listen(&path, 0o600, 8)?;
        fs::remove_file(&path)?;
        let _successor = UnixListener::bind(&path)?;
        drop(file);
        assert!(path.exists());
        fs::remove_file(&path)
    }

    #[test]
    fn one_of_the_servers_that_start_at_once_replaces_a_stale_socket() -> io::Result<()> {
        let path = free_path("race");
        for _ in 0..50 {
            drop(UnixListener::bind(&path)?);
            let start = Barrier::new(4);
            let started = thread::scope(|scope| {
                let server = || {
                    start.wait();
                    SocketFile::listen(&path, 0o600, 8)
                };
                let servers: Vec<_> = (0..4).map(|_| scope.spawn(server)).collect();
                let started = servers.into_iter().map(|server| server.join().expect("no panic"));
                started.filter_map(Result::ok).collect::<Vec<_>>()
            });
            assert_eq!(started.len(), 1);
            UnixStream::connect(&path)?;
        }
        Ok(())
    }

    #[test]
    fn lock_of_somebody_else_delays_the_socket_only() -> io::Result<()> {
        let folder = free_path("locked");
        fs::create_dir_all(&folder)?;
        let path = folder.join("socket");
        let lock = lock_folder(&path).expect("nobody else knows the folder");
        let (_socket, file) = SocketFile::listen(&path, 0o600, 8)?;
        drop(file);
        assert!(!path.exists());
        drop(lock);
        fs::remove_dir(&folder)
    }

    #[test]
    fn path_that_is_too_long_is_an_error() {
        let path = std::env::temp_dir().join("x".repeat(200));
        let error = SocketFile::listen(&path, 0o600, 8).expect_err("too long");
        assert_eq!(error.to_string(), "the path is too long for a Unix socket");
    }
}
