//! A connection takes over the role of an opener, with its token.

use alloc::vec::Vec;
use core::mem;

use crate::{
    hub::{Conn, Hub, NewOpener, Outputs, State},
    id::ConnId,
    message::{OutboundMessage, PresentJoiner},
    profile::RoleLifetime,
    reason::RoleEnd,
    token::Token,
};

impl<P> Hub<P> {
    /// Whether this is the token of the opener.
    pub(super) fn is_token_of(&self, opener: ConnId, token: &Token) -> bool {
        matches!(self.state(opener), Some(State::Opener(opener)) if opener.token.as_ref() == Some(token))
    }

    /// Moves the role of `previous` to a connection without a role. Joiners keep their indexes. Those that cannot be told that messages may be
    /// lost are closed.
    pub(super) fn take_over(&mut self, previous: ConnId, from: ConnId, new: NewOpener, outputs: &mut Outputs<P>) {
        let Some(State::Opener(mut opener)) = self.replace_state(previous, State::Idle { deadline: None }) else {
            return;
        };
        // Only a connection with reusable roles has a token.
        outputs.push((previous, OutboundMessage::RoleEnded(RoleEnd::TakenOver)));
        opener.id = new.id;
        opener.token = new.token;
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
        self.keys.insert(opener.key.clone(), from);
        self.replace_state(from, State::Opener(opener));
        outputs.push((from, opened));
    }
}
