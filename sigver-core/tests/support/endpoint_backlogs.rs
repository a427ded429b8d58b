//! The backlogs of the naive endpoint: what each client has not read, and the limit on all of them together.

use core::{cmp::Reverse, num::NonZeroU64};

use sigver_core::CloseReason;

use super::{Client, EndpointModel, Outputs, State, endpoint_queue::Blocked};

impl Client {
    /// Returns the total cost of its unwritten frames, unless they were discarded, and the size of what it has sent that waits.
    fn memory(&self) -> usize {
        let waiting = |blocked: &Blocked| blocked.events.iter().map(|event| event.size(self.dialect)).sum();
        match self.state {
            State::Open => self.backlog() + self.blocked.as_ref().map_or(0, waiting),
            State::Closing(_) if !self.is_discarded => self.unwritten,
            State::Closing(_) | State::Gone => 0,
        }
    }
}

impl EndpointModel {
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.clients.values().map(|client| client.memory() as u64).sum()
    }

    pub(super) fn begin_close(&mut self, who: usize, last: String, outputs: &mut Outputs) {
        if self.client(who).blocked.is_some() {
            outputs.push((who, "resume reading".to_owned()));
        }
        self.leave_queues(who);
        let check_at = self.after(self.config.close_timeout);
        let client = self.client(who);
        client.is_discarded = last.ends_with("TooSlow");
        for frame in core::mem::take(&mut client.queue).frames {
            if !client.is_discarded {
                client.unwritten += frame.cost;
                outputs.push((who, frame.text));
            }
        }
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
            let largest = clients.max_by_key(|(who, client)| (client.memory(), Reverse((client.slot, **who))));
            // What a client had sent that waited for one that was closed may have been handled meanwhile.
            let Some((&who, client)) = largest.filter(|(_, client)| client.memory() > 0) else {
                return;
            };
            // Notices of the clients that were closed may have been added to it.
            kept = kept.saturating_sub(client.memory() as u64);
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
