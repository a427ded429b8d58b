//! The backlogs of the naive endpoint: what each client has not read, and the limit on all of them together.

use core::{cmp::Reverse, num::NonZeroU64};

use sigver_core::CloseReason;

use super::{Client, EndpointModel, Outputs, State};

impl Client {
    /// Returns the total cost of its unwritten frames, unless they were discarded.
    fn backlog(&self) -> usize {
        match self.state {
            State::Open | State::Closing(_) if !self.is_discarded => self.unwritten,
            State::Open | State::Closing(_) | State::Gone => 0,
        }
    }
}

impl EndpointModel {
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.clients.values().map(|client| client.backlog() as u64).sum()
    }

    pub(super) fn written(&mut self, who: usize, bytes: usize) {
        if let Some(client) = self.clients.get_mut(&who) {
            client.has_progressed |= client.unwritten.min(bytes) > 0;
            client.unwritten = client.unwritten.saturating_sub(bytes);
        }
    }

    pub(super) fn begin_close(&mut self, who: usize, last: String, outputs: &mut Outputs) {
        let check_at = self.after(self.config.close_timeout);
        let client = self.client(who);
        client.is_discarded = last.ends_with("TooSlow");
        outputs.push((who, last));
        client.state = State::Closing(check_at);
        client.has_progressed = false;
    }

    /// Ends the clients with the largest backlogs until those of the others are within the limit.
    pub(super) fn limit_backlogs(&mut self, outputs: &mut Outputs) {
        let limit = self.config.backlog_total_bytes.map_or(u64::MAX, NonZeroU64::get);
        let mut kept = self.backlog_bytes();
        while kept > limit {
            let clients = self.clients.iter();
            let largest = clients.max_by_key(|(who, client)| (client.backlog(), Reverse((client.slot, **who))));
            let (&who, client) = largest.expect("a client has a backlog");
            // Notices of the clients that were closed may have been added to it.
            kept = kept.saturating_sub(client.backlog() as u64);
            self.evicted += 1;
            if self.is_open(who) {
                self.close(who, CloseReason::TooSlow, outputs);
            } else {
                self.client(who).state = State::Gone;
                outputs.push((who, "abort".to_owned()));
            }
        }
    }
}

/// Returns the cost of a frame with this payload in a write buffer.
pub(crate) fn cost(bytes: usize) -> usize {
    let header = if bytes < 126 { 2 } else { 4 };
    header + bytes + 4
}
