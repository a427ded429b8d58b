//! Owns what the program says to a service manager, and takes from it: readiness, and sockets that outlive it. Never needs one: without a
//! service manager it does nothing.

use std::{io, net::TcpListener};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The listeners that the service manager has opened for this program: `sd_listen_fds(3)`.
pub(crate) fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut fds = ListenFd::from_env();
    let places = 0..fds.len();
    places
        .filter_map(|place| fds.take_tcp_listener(place).transpose())
        .collect()
}

/// The program serves, or does so again: `sd_notify(3)`.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The program reads its files again. [`ready`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The program is about to end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}
