//! What errors and panics say, as text.

use std::any::Any;
use std::error::Error;

/// An error and what lies behind it, in one line.
///
/// ```
/// let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
/// assert_eq!(locule_component::with_causes(&missing), "entity not found");
/// ```
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The text that a panic was raised with.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
