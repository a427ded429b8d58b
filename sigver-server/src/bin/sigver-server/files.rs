//! The files that SIGHUP reloads.

use std::{fmt::Display, sync::Arc};

use sigver_server::{IceUrls, Tokens};

/// What the server has read from files.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) ice: Option<Arc<IceUrls>>,
}

impl Files {
    /// Reads every file again and logs the outcome. A file that is not valid changes nothing.
    pub(crate) fn reload(&self) {
        if self.tokens.is_none() && self.ice.is_none() {
            log::info!("nothing to reload: no --token-file, no --turn-secret-file");
        }
        if let Some(tokens) = &self.tokens {
            let count = tokens.reload().map(|count| match count {
                1 => "1 token".to_owned(),
                count => format!("{count} tokens"),
            });
            report("tokens", count);
        }
        if let Some(ice) = &self.ice {
            report("the TURN secret", ice.reload().map(|()| "the TURN secret".to_owned()));
        }
    }
}

fn report(what: &str, reloaded: Result<String, impl Display>) {
    match reloaded {
        Ok(what) => log::info!("reloaded {what}"),
        Err(error) => log::error!("cannot reload {what}, keeping what was read before: {error}"),
    }
}
