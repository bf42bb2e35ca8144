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

/// A text that somebody else wrote, in one line that steers no terminal: what
/// [shows nothing](locule_config::is_unprintable) is escaped.
///
/// ```
/// assert_eq!(locule_component::one_line("it's\n\x1b[2J\u{202e}no"), r"it's\n\u{1b}[2J\u{202e}no");
/// ```
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if locule_config::is_unprintable(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The text that a panic was raised with.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
