//! The protocol of service managers such as systemd: inherited sockets and notifications. Without a service manager, it does nothing.

use std::{io, os::fd::OwnedFd};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Returns the listeners that the process has inherited: `sd_listen_fds(3)`.
///
/// # Errors
///
/// An inherited descriptor is not a TCP or Unix stream socket.
pub(crate) fn listeners() -> io::Result<Vec<OwnedFd>> {
    let mut fds = ListenFd::from_env();
    let count = fds.len();
    let mut take = |index| match fds.take_tcp_listener(index) {
        Ok(listener) => Ok(listener.map(OwnedFd::from)),
        // A descriptor of another type is left in its place.
        Err(_) => Ok(fds.take_unix_listener(index)?.map(OwnedFd::from)),
    };
    (0..count).filter_map(|index| take(index).transpose()).collect()
}

/// Reports that the server is ready, or has finished reloading: `sd_notify(3)`.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the server is reloading its configuration. [`ready`] must follow.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Reports that the server is shutting down.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot notify the service manager: {error}");
    }
}
