//! Networks with faults, and what holds in them.

use std::time::Duration;

use simulation::{Faults, Network};

const SECOND: Duration = Duration::from_secs(1);

/// A server with a job, two sites with jobs, and two sites behind a relay, one of them two deep.
fn federation(seed: u64) -> Network {
    Network::new(seed)
        .link("server.job", "server")
        .link("site-1", "server")
        .link("site-1.job", "site-1")
        .link("site-1.job", "server")
        .link("site-2", "server")
        .link("relay", "server")
        .link("relay.site-3", "relay")
        .link("relay.inner", "relay")
        .link("relay.inner.site-4", "relay.inner")
}

const CELLS: [&str; 9] = [
    "server",
    "server.job",
    "site-1",
    "site-1.job",
    "site-2",
    "relay",
    "relay.site-3",
    "relay.inner",
    "relay.inner.site-4",
];

#[test]
fn everybody_reaches_everybody_in_a_healthy_network() {
    let mut network = federation(1);
    network.run_for(SECOND);
    for from in CELLS {
        network.ask(from, &CELLS, 1000, 10 * SECOND);
        network.ask(from, &CELLS, 100_000, 10 * SECOND);
    }
    network.run_for(10 * SECOND);
    let tally = network.tally();
    assert_eq!((tally.replied, tally.failed), (2 * 81, 0));
    assert_eq!(tally.handled, tally.replied);
}

/// Ten minutes of faults; the network itself checks what must hold all along.
#[test]
fn promises_hold_through_losses_repeats_cuts_and_restarts() {
    for seed in 0..8 {
        let mut network = federation(seed).faults(Faults::MANY);
        network.chatter(4 * SECOND, 600 * SECOND);
        network.run_for(20 * SECOND);
        assert_eq!(network.open(), 0, "all has settled");
        let tally = network.tally();
        assert_eq!(tally.asked, tally.replied + tally.failed + tally.forgotten);
        assert!(tally.cuts > 30 && tally.restarts > 5 && tally.replied > 100, "{tally:?}");
    }
}

#[test]
fn after_healing_every_request_succeeds() {
    for seed in 100..106 {
        let mut network = federation(seed).faults(Faults::MANY);
        network.chatter(2 * SECOND, 100 * SECOND);
        network.heal();
        network.run_for(60 * SECOND);
        let before = network.tally();
        for from in CELLS {
            network.ask(from, &CELLS, 500, 10 * SECOND);
        }
        network.run_for(10 * SECOND);
        let after = network.tally();
        assert_eq!((after.replied - before.replied, after.failed - before.failed), (81, 0), "{after:?}");
    }
}

/// Full queues on every link, in both directions: the links that fill them are read no more, and all
/// arrives nevertheless.
#[test]
fn two_relays_saturated_both_ways_do_not_lock() {
    for seed in 0..4 {
        let mut network = Network::new(seed)
            .link("relay", "server")
            .link("relay.inner", "relay")
            .link("relay.inner.site-1", "relay.inner")
            .link("relay.inner.site-2", "relay.inner")
            .link("relay.site-3", "relay");
        let sites = ["relay.inner.site-1", "relay.inner.site-2", "relay.site-3"];
        network.run_for(SECOND);
        for _ in 0..40 {
            network.ask("server", &sites, 150_000, 600 * SECOND);
            for site in sites {
                network.ask(site, &["server", "relay.site-3"], 150_000, 600 * SECOND);
            }
        }
        network.run_for(100 * SECOND);
        let tally = network.tally();
        assert_eq!((network.open(), tally.failed), (0, 0), "{tally:?}");
        let relays = ["relay", "relay.inner"].map(|relay| network.stats(relay));
        assert!(relays.iter().all(|stats| stats.congested > 0 && stats.overflowed == 0), "{relays:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut network = federation(7).faults(Faults::MANY);
        network.chatter(3 * SECOND, 100 * SECOND);
        network.tally()
    };
    assert_eq!(run(), run());
}
