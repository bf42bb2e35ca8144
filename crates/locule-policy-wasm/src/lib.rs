//! Checkers that are WebAssembly components: one call with a whole plan, and nothing to reach out with.
//!
//! [`WORLD`] is what a component must export. With the feature `runtime`, a `Guest` runs one: compiled once, each
//! review in a fresh instance with its own fuel, deadline and memory. There is no WASI and no other import, so
//! that a component is a function of the review document. The crate opens no files, and it is no wall of its own:
//! a site runs it in a process that is limited from outside, by `locule-checker`, as `WasmBackend`.
//!
//! Without the feature there is only the world, for those who write checkers: the runtime compiles a compiler, which
//! a build that does not use it need not pay.
//!
//! ```
//! assert!(locule_policy_wasm::WORLD.contains("export review: func(plan: string) -> result<list<verdict>, string>"));
//! ```
#![cfg_attr(
    feature = "runtime",
    doc = r##"
A component that refuses one name, and one that asks for more than there is:

```
use locule_policy_wasm::{Guest, GuestLimits};

let text = include_str!("../tests/guests/comp_auth.wat");
let mut guest = Guest::open(&wat::parse_str(text)?, GuestLimits::default())?;
assert_eq!(guest.review("{}")?, []);

let text = r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#;
let refused = Guest::open(&wat::parse_str(text)?, GuestLimits::default());
assert!(refused.unwrap_err().to_string().contains("wasi:cli/environment"));
# Ok::<(), Box<dyn std::error::Error>>(())
```
"##
)]

#[cfg(feature = "runtime")]
mod backend;
#[cfg(feature = "runtime")]
mod guest;

#[cfg(feature = "runtime")]
pub use backend::WasmBackend;
#[cfg(feature = "runtime")]
pub use guest::{Guest, GuestLimits, OpenError, ReviewError};

/// The WIT world of a checker, for `wit-bindgen` and its like.
pub const WORLD: &str = include_str!("../wit/checker.wit");
