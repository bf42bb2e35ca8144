//! The world of a checker, for a generator of bindings: a package, one function to export, nothing to import.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let world = locule_policy_wasm::WORLD;
    assert!(world.contains("package locule:checker@1.0.0;"));
    assert!(world.contains("export review:") && !world.contains("import "));
    Ok(())
}
