//! The protocol of service managers such as systemd: inherited sockets and notifications. Without a service manager, it does nothing.

use std::{io, net::TcpListener};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Returns the listeners that the process has inherited: `sd_listen_fds(3)`.
///
/// # Errors
///
/// An inherited descriptor is not a TCP listener.
pub(crate) fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut fds = ListenFd::from_env();
    (0..fds.len())
        .filter_map(|index| fds.take_tcp_listener(index).transpose())
        .collect()
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
