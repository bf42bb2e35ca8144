//! Stamps, gate, ledger and link policy against each other. (`cfg(test)` tells clippy that helpers are tests.)

#[cfg(test)]
mod forgeries;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod link;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod stamp;
#[cfg(test)]
#[path = "../../../locule-identity/tests/suite/toy.rs"]
mod toy;
