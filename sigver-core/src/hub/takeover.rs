//! A connection takes over the role of an opener, or a reserved key, with its token.

use alloc::vec::Vec;
use core::mem;

use crate::{
    hub::{Conn, Holder, Hub, NewOpener, Outputs, State},
    id::{ConnId, Key},
    message::{OutboundMessage, PresentJoiner},
    profile::RoleLifetime,
    reason::RoleEnd,
    token::Token,
};

impl<P> Hub<P> {
    /// Whether this is the token for a key that has an opener or is reserved.
    pub(super) fn is_token_of(&self, holder: &Holder, shown: &Token) -> bool {
        let token = match holder {
            Holder::Opener(opener) => match self.state(*opener) {
                Some(State::Opener(opener)) => opener.token.as_ref(),
                Some(State::Idle { .. } | State::Joiner { .. } | State::Waiting(_)) | None => None,
            },
            Holder::Reserved { token, .. } => Some(token),
        };
        token == Some(shown)
    }

    /// Gives a key that is not free to a connection without a role that has shown its token.
    pub(super) fn take_over(&mut self, key: Key, from: ConnId, new: NewOpener, outputs: &mut Outputs<P>) {
        match self.keys.get(&key) {
            Some(Holder::Opener(previous)) => self.move_role(*previous, from, new, outputs),
            Some(Holder::Reserved { reservation, .. }) => {
                self.reservations.remove(*reservation);
                self.become_opener(from, key, new, outputs);
            }
            None => {}
        }
    }

    /// Moves the role of `previous` to a connection without a role. Joiners keep their indexes. Those that cannot be told that messages may be
    /// lost are closed.
    fn move_role(&mut self, previous: ConnId, from: ConnId, new: NewOpener, outputs: &mut Outputs<P>) {
        let Some(State::Opener(mut opener)) = self.replace_state(previous, State::Idle { deadline: None }) else {
            return;
        };
        // Only a connection with reusable roles has a token.
        outputs.push((previous, OutboundMessage::RoleEnded(RoleEnd::TakenOver)));
        opener.id = new.id;
        opener.token = new.token;
        opener.reservable = new.reservable;
        let mut present = Vec::new();
        for (index, joiner) in mem::take(&mut opener.joiners) {
            match self.conns.get_mut(joiner) {
                Some(Conn {
                    profile,
                    state: State::Joiner { opener: its, id, .. },
                }) if profile.role_lifetime == RoleLifetime::Reusable => {
                    *its = from;
                    present.push(PresentJoiner { index, id: id.clone() });
                    opener.joiners.insert(index, joiner);
                    let id = opener.id.clone();
                    outputs.push((joiner, OutboundMessage::Reopened { id }));
                }
                _ => self.release(joiner, RoleEnd::OpenerLeft, outputs),
            }
        }
        let opened = OutboundMessage::Opened {
            key: opener.key.clone(),
            token: opener.token.clone(),
            joiners: present,
        };
        self.keys.insert(opener.key.clone(), Holder::Opener(from));
        self.replace_state(from, State::Opener(opener));
        outputs.push((from, opened));
    }
}
