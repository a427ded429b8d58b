//! Admission by one of several admissions.

use std::sync::Arc;

use crate::access::{Admission, Denied, Handshake, permit::Permit};

/// Admits a client that one of these admits. The first that does decides what the client may do.
///
/// They are asked in order, up to the first that admits the client. If none does, the response is that of the last. Without any, no client is
/// admitted.
///
/// ```no_run
/// use std::sync::Arc;
/// use sigver_server::{Admission, AnyOf, Config, Tokens};
///
/// let guests: Arc<dyn Admission> = Arc::new(Tokens::from_file("/etc/sigver/guests")?);
/// let staff: Arc<dyn Admission> = Arc::new(Tokens::from_file("/etc/sigver/staff")?);
/// let mut config = Config::default();
/// config.admission.push(Arc::new(AnyOf::new([guests, staff])));
/// # Ok::<(), sigver_server::TokensError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AnyOf(Vec<Arc<dyn Admission>>);

impl AnyOf {
    /// Creates an admission from others.
    pub fn new(admissions: impl IntoIterator<Item = Arc<dyn Admission>>) -> Self {
        Self(admissions.into_iter().collect())
    }
}

impl Admission for AnyOf {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let mut outcome = Err(Denied::new(403, "no client is admitted"));
        for admission in &self.0 {
            outcome = admission.admit(handshake);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}
