//! Sends lines on a thread of its own, while there is a role to send them with.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{messages::Sent, socket::Writer};

/// The thread that sends lines, seen from the thread that reads from the server.
#[derive(Clone, Default)]
pub(crate) struct Input(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Not in `state`, which is locked while a line is sent.
    recipients: Mutex<Recipients>,
}

#[derive(Default)]
struct State {
    /// The current connection.
    writer: Option<Writer>,
    has_role: bool,
    /// Whether all lines were sent.
    is_done: bool,
}

/// The recipients of a line.
#[derive(Clone, Default)]
pub(crate) enum Recipients {
    /// A joiner sends to its opener.
    #[default]
    Opener,
    /// An opener sends to its current joiners.
    Joiners(BTreeSet<u32>),
}

impl Input {
    /// Starts the thread, unless it is running. It ends with the process: reading from a terminal cannot be interrupted.
    pub(crate) fn start(&self, lines: &mut Option<Receiver<String>>) {
        if let Some(lines) = lines.take() {
            let input = self.clone();
            thread::spawn(move || input.send_lines(&lines));
        }
    }

    /// Changes the connection. Returns whether all lines were sent, so that it is not needed.
    pub(crate) fn set_writer(&self, writer: Option<Writer>) -> bool {
        let mut state = self.state();
        (state.writer, state.has_role) = (writer, false);
        state.is_done
    }

    /// Records whether the connection has a role. Without one, lines wait.
    pub(crate) fn set_role(&self, has_role: bool) {
        self.state().has_role = has_role;
        self.0.changed.notify_all();
    }

    /// Changes the recipients of further lines.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Recipients)) {
        change(&mut self.0.recipients.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for this time, or until all lines were sent. Returns whether they were.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_done || left.is_zero() {
                return state.is_done;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state().is_done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_lines(&self, lines: &Receiver<String>) {
        for line in lines {
            self.send_line(&line);
        }
        let mut state = self.state();
        state.is_done = true;
        self.0.changed.notify_all();
        if let Some(writer) = &mut state.writer {
            let close = CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            };
            // Fails if the connection is lost, which reading reports.
            let _ = writer.close(Some(close));
        }
    }

    /// Sends a line, on the next connection if this one is lost meanwhile.
    fn send_line(&self, line: &str) {
        let mut messages = None;
        let mut state = self.state();
        loop {
            let State { writer, has_role, .. } = &mut *state;
            let (true, Some(writer)) = (*has_role, writer) else {
                let waited = self.0.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let messages = messages.get_or_insert_with(|| self.messages(line));
            let Some(message) = messages.last() else { return };
            if writer.send(Message::text(message.to_text())).is_ok() {
                messages.pop();
            } else {
                state.writer = None;
            }
        }
    }

    /// Returns the messages to send for a line, the last one first.
    fn messages(&self, line: &str) -> Vec<Sent> {
        let recipients = self.0.recipients.lock().unwrap_or_else(PoisonError::into_inner);
        let Recipients::Joiners(joiners) = recipients.clone() else {
            return vec![Sent::Send {
                index: None,
                data: data(line),
            }];
        };
        let addressed = line
            .split_once(':')
            .and_then(|(index, rest)| Some((index.parse().ok()?, rest.trim_start())));
        let (indexes, line) = match addressed {
            Some((index, rest)) => (BTreeSet::from([index]), rest),
            None => (joiners, line),
        };
        let to = |index| Sent::Send {
            index: Some(index),
            data: data(line),
        };
        indexes.into_iter().rev().map(to).collect()
    }
}

fn data(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| line.into())
}
