//! Which carriers this program has.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{DialError, Endpoint, Link, ListenError, Listener, Transport};

/// The carriers that are compiled in, by URL scheme.
#[derive(Clone, Debug, Default)]
pub struct Transports {
    by_scheme: BTreeMap<&'static str, Arc<dyn Transport>>,
}

impl Transports {
    /// No carriers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a carrier under each of its schemes; a later one replaces an earlier one.
    #[must_use]
    pub fn with(mut self, transport: impl Transport + 'static) -> Self {
        self.insert(Arc::new(transport));
        self
    }

    /// Adds a carrier under each of its schemes; a later one replaces an earlier one.
    pub fn insert(&mut self, transport: Arc<dyn Transport>) {
        for scheme in transport.schemes() {
            self.by_scheme.insert(scheme, Arc::clone(&transport));
        }
    }

    /// The carrier of an endpoint's scheme.
    ///
    /// # Errors
    /// [`UnknownScheme`] lists what there is.
    pub fn find(&self, endpoint: &Endpoint) -> Result<&Arc<dyn Transport>, UnknownScheme> {
        self.by_scheme.get(endpoint.scheme()).ok_or_else(|| UnknownScheme {
            scheme: endpoint.scheme().to_owned(),
            known: self.schemes().collect(),
        })
    }

    /// The carrier of a scheme.
    pub fn get(&self, scheme: &str) -> Option<Arc<dyn Transport>> {
        self.by_scheme.get(scheme).map(Arc::clone)
    }

    /// Every scheme there is a carrier for, sorted.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.by_scheme.keys().copied()
    }

    /// [`Transport::dial`] of the endpoint's carrier.
    ///
    /// # Errors
    /// [`DialError::UnknownScheme`], or the carrier's.
    pub async fn dial(&self, to: &Endpoint) -> Result<Link, DialError> {
        self.find(to)?.dial(to).await
    }

    /// [`Transport::listen`] of the endpoint's carrier.
    ///
    /// # Errors
    /// [`ListenError::UnknownScheme`], or the carrier's.
    pub async fn listen(&self, on: &Endpoint) -> Result<Box<dyn Listener>, ListenError> {
        self.find(on)?.listen(on).await
    }
}

/// No carrier answers to a scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no transport for scheme \"{scheme}\"; compiled in: {}", list(.known))]
pub struct UnknownScheme {
    /// The scheme asked for.
    pub scheme: String,
    /// The schemes there are, sorted.
    pub known: Vec<&'static str>,
}

fn list(known: &[&str]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
