//! The files that SIGHUP reloads.

use std::{fmt::Display, sync::Arc};

use sigver_server::{Admission, AnyOf, IceUrls, JwtKeys, Tokens};

/// What the server has read from files.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) jwt_keys: Option<Arc<JwtKeys>>,
    pub(crate) ice: Option<Arc<IceUrls>>,
}

impl Files {
    /// Returns the admission by token. With both kinds of tokens, a client needs one; one of `--token-file` allows everything.
    pub(crate) fn admission(&self) -> Option<Arc<dyn Admission>> {
        let tokens = self.tokens.clone().map(|tokens| tokens as Arc<dyn Admission>);
        let jwt_keys = self.jwt_keys.clone().map(|keys| keys as Arc<dyn Admission>);
        match (tokens, jwt_keys) {
            (Some(tokens), Some(jwt_keys)) => Some(Arc::new(AnyOf::new([tokens, jwt_keys]))),
            (tokens, jwt_keys) => tokens.or(jwt_keys),
        }
    }

    /// Returns a line for each part of a file that is not used.
    pub(crate) fn notices(&self) -> Vec<String> {
        let ignored = self.jwt_keys.iter().flat_map(|keys| keys.ignored());
        ignored.map(|line| format!("--jwt-keys: {line}")).collect()
    }

    /// Logs the [`notices`](Self::notices).
    pub(crate) fn log_notices(&self) {
        for line in self.notices() {
            log::info!("{line}");
        }
    }

    /// Reads every file again and logs the outcome. A file that is not valid changes nothing.
    pub(crate) fn reload(&self) {
        let Self { tokens, jwt_keys, ice } = self;
        if tokens.is_none() && jwt_keys.is_none() && ice.is_none() {
            log::info!("nothing to reload: no --token-file, no --jwt-keys, no --turn-secret-file");
        }
        if let Some(tokens) = tokens {
            report("tokens", tokens.reload().map(|count| counted(count, "token")));
        }
        if let Some(keys) = jwt_keys {
            let reloaded = keys.reload().map(|count| counted(count, "JSON Web Key"));
            let is_reloaded = reloaded.is_ok();
            report("JSON Web Keys", reloaded);
            if is_reloaded {
                self.log_notices();
            }
        }
        if let Some(ice) = ice {
            report("the TURN secret", ice.reload().map(|()| "the TURN secret".to_owned()));
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn report(what: &str, reloaded: Result<String, impl Display>) {
    match reloaded {
        Ok(what) => log::info!("reloaded {what}"),
        Err(error) => log::error!("cannot reload {what}, keeping what was read before: {error}"),
    }
}
