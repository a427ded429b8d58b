//! Requests of other threads to the relay, and its answers.

use std::sync::{
    Mutex, PoisonError,
    mpsc::{Sender, SyncSender, sync_channel},
};

use crate::conn::event::{Control, Event};

/// The way to the relay, while there is one.
#[derive(Default)]
pub(crate) struct Controller(Mutex<Option<Sender<Event>>>);

impl Controller {
    /// Begins or, with `None`, ends to accept requests.
    pub(crate) fn set_channel(&self, events: Option<Sender<Event>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }

    /// Asks the relay and waits for its answer; `None` if there is no relay, or it ends.
    pub(crate) fn ask<T>(&self, request: impl FnOnce(SyncSender<T>) -> Control) -> Option<T> {
        // The lock is not held while this waits.
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (sender, answer) = sync_channel(1);
        events.send(Event::Control(Box::new(request(sender)))).ok()?;
        // The sender is part of the request, which is dropped with the relay's side of the channel.
        answer.recv().ok()
    }
}
