//! Each public crate is of use alone, and stays as small as its consumer's manifest says.

use piecemeal::{Consumer, Shipped, members};

/// What a crate without I/O must not bring along.
const RUNTIME: [&str; 5] = ["tokio", "tonic", "prost", "rustls", "openssl"];

#[test]
fn every_public_crate_has_one_consumer() {
    let (shipped, consumers) = members();
    let mut wanted: Vec<String> = shipped.iter().map(|one| one.name.clone()).collect();
    let mut taken: Vec<String> = consumers.iter().map(Consumer::takes).collect();
    wanted.sort();
    taken.sort();
    assert_eq!(taken, wanted);
    for consumer in &consumers {
        assert!(consumer.names.contains(&consumer.takes()), "{} does not use its crate", consumer.package);
    }
}

#[test]
fn the_lowest_crates_need_no_other_crate_of_ours() {
    for (_, consumer) in pairs().iter().filter(|(shipped, _)| shipped.layer == 0) {
        let others: Vec<&str> = consumer.beside().filter(|name| name.starts_with("locule-")).collect();
        assert!(others.is_empty(), "{} names {others:?}", consumer.package);
    }
}

#[test]
fn each_pulls_in_no_more_than_its_budget() {
    let mut table = format!("{:<24} {:>5} {:>6} {:>6}  beside it\n", "crate", "layer", "linked", "built");
    let mut mistakes = Vec::new();
    for (shipped, consumer) in pairs() {
        let (links, builds) = (consumer.links(), consumer.builds());
        let beside: Vec<&str> = consumer.beside().collect();
        let (name, layer) = (&shipped.name, shipped.layer);
        table +=
            &format!("{name:<24} {layer:>5} {:>6} {:>6}  {}\n", links.len(), builds.len(), beside.join(" "));
        if links.len() as u64 > consumer.at_most {
            mistakes.push(format!(
                "{name} links {} crates, at most {} were agreed",
                links.len(),
                consumer.at_most
            ));
        }
        let reached =
            RUNTIME.iter().filter(|runtime| links.iter().any(|one| one.starts_with(&format!("{runtime} "))));
        mistakes.extend(
            reached.filter(|_| shipped.pure).map(|one| format!("{name} performs no I/O, yet pulls in {one}")),
        );
    }
    show(&table);
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn each_runs_alone() {
    let mut failures = String::new();
    for (shipped, consumer) in pairs() {
        let output = consumer.run();
        if !output.status.success() {
            failures += &format!("{}: {}\n", shipped.name, String::from_utf8_lossy(&output.stderr));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Each crate with its consumer, lowest layer first.
fn pairs() -> Vec<(Shipped, Consumer)> {
    let (shipped, mut consumers) = members();
    let with_consumer = |one: Shipped| {
        let at = consumers.iter().position(|consumer| consumer.takes() == one.name)?;
        Some((one, consumers.swap_remove(at)))
    };
    shipped.into_iter().filter_map(with_consumer).collect()
}

#[expect(clippy::print_stdout, reason = "the table is for whoever runs this with --nocapture")]
fn show(table: &str) {
    println!("{table}");
}
