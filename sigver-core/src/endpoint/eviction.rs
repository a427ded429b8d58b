//! The limit on all backlogs together.

use core::cmp::Reverse;

use crate::{
    endpoint::{Endpoint, Outputs, io::Output},
    id::ConnId,
    reason::CloseReason,
    time::Time,
};

impl Endpoint {
    /// Ends the connections with the largest backlogs until the others fit into the limit. Called before a call adds frames: those of the
    /// call before may go to clients that read, and are reported as written by now.
    ///
    /// Each scan of the connections ends one of them, so there is at most one for each connection that was accepted.
    pub(super) fn limit_backlogs(&mut self, now: Time, outputs: &mut Outputs) {
        let mut excess = self.backlogs.excess();
        while excess > 0 {
            let Some((id, backlog)) = self.largest_backlog() else {
                break;
            };
            excess = excess.saturating_sub(backlog as u64);
            self.counters.evicted += 1;
            if self.conns.get(id).is_some() {
                self.close_into(now, id, CloseReason::TooSlow, outputs);
            } else {
                let backlog = self.closing.remove(id);
                self.backlogs.subtract(backlog);
                outputs.push((id, Output::Abort));
            }
        }
    }

    /// Returns the connection with the largest backlog, and of several the one with the lowest id; `None` if there is no backlog.
    fn largest_backlog(&self) -> Option<(ConnId, usize)> {
        let open = self.conns.iter().map(|(id, conn)| (id, conn.memory()));
        open.chain(self.closing.backlogs())
            .filter(|(_, backlog)| *backlog > 0)
            .min_by_key(|(id, backlog)| (Reverse(*backlog), *id))
    }
}
