//! What a test can do to the links of a namespace.

use std::sync::{Arc, Weak};
use std::time::Duration;

use locule_transport::{Link, PeerInfo};

use crate::Network;
use crate::wire::{Bounds, Rules, Wire};

/// Cuts, holds, delays and refuses the links of a [`MemTransport`](crate::MemTransport).
///
/// A handle acts on every link of the namespace, or with [`Faults::at`] on those of one listener, both
/// on the links there are and on those that are dialled later.
#[derive(Clone)]
pub struct Faults {
    network: Arc<Network>,
    listener: Option<String>,
}

impl Faults {
    pub(crate) fn everywhere(network: Arc<Network>) -> Self {
        Self { network, listener: None }
    }

    /// The faults of the links of one listener, `hospital` for `mem://hospital`.
    #[must_use]
    pub fn at(&self, listener: &str) -> Self {
        Self { network: Arc::clone(&self.network), listener: Some(listener.to_owned()) }
    }

    /// Breaks the links there are now; what they carried is lost. Later links are not concerned.
    pub fn cut(&self) {
        self.each_wire(Wire::cut);
    }

    /// Breaks each link after it carried this many more frames, counted over both directions.
    pub fn cut_after(&self, frames: usize) {
        self.rule(|rules| rules.frames_left = Some(frames));
    }

    /// Delivers frames that are sent from now on this much later, by tokio's clock.
    ///
    /// In a test whose clock is paused, no time passes. Order is kept.
    pub fn delay(&self, delay: Duration) {
        self.rule(|rules| rules.delay = delay);
    }

    /// Stops delivery: frames are taken until the queues are full, and stay there.
    pub fn hold(&self) {
        self.rule(|rules| rules.held = true);
    }

    /// Delivers again what was held, and what comes.
    pub fn release(&self) {
        self.rule(|rules| rules.held = false);
    }

    /// Refuses to dial from now on.
    pub fn refuse(&self) {
        self.rule(|rules| rules.unreachable = true);
    }

    /// Ends all of these: links dialled before and later are healthy. What was cut stays cut.
    pub fn heal(&self) {
        self.rule(|rules| *rules = Rules::default());
    }

    fn rule(&self, change: impl Fn(&mut Rules)) {
        self.network.lock().script.change(self.listener.as_deref(), &change);
        self.each_wire(|wire| wire.change_rules(&change));
    }

    fn each_wire(&self, act: impl Fn(&Wire)) {
        let wires = self.network.lock().script.wires(self.listener.as_deref());
        wires.iter().for_each(|wire| act(wire));
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// The links that are up and the rules for those to come.
#[derive(Default)]
pub(crate) struct Script {
    wires: Vec<(String, Weak<Wire>)>,
    everywhere: Rules,
    by_listener: std::collections::HashMap<String, Rules>,
}

impl Script {
    pub(crate) fn connect(
        &mut self,
        listener: String,
        bounds: Bounds,
        listening: PeerInfo,
        dialling: PeerInfo,
    ) -> (Link, Link) {
        let wire = Wire::new(bounds, self.rules(&listener).clone());
        self.wires.retain(|(_, wire)| wire.strong_count() > 0);
        self.wires.push((listener, Arc::downgrade(&wire)));
        wire.ends(listening, dialling)
    }

    pub(crate) fn is_unreachable(&self, listener: &str) -> bool {
        self.rules(listener).unreachable
    }

    fn rules(&self, listener: &str) -> &Rules {
        self.by_listener.get(listener).unwrap_or(&self.everywhere)
    }

    fn change(&mut self, listener: Option<&str>, change: &impl Fn(&mut Rules)) {
        match listener {
            Some(name) => {
                change(self.by_listener.entry(name.to_owned()).or_insert_with(|| self.everywhere.clone()))
            }
            None => {
                change(&mut self.everywhere);
                self.by_listener.values_mut().for_each(change);
            }
        }
    }

    fn wires(&self, listener: Option<&str>) -> Vec<Arc<Wire>> {
        let concerned = self.wires.iter().filter(|(name, _)| listener.is_none_or(|only| only == name));
        concerned.filter_map(|(_, wire)| wire.upgrade()).collect()
    }
}
