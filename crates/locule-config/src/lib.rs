//! Configuration documents that remember where everything was written.
//!
//! A [`Document`] is read from text, merged with others, and its variables are substituted; through all of it each
//! [`Node`] knows its file, line and column, and its path in the whole. Mistakes are reported the way a compiler
//! does it, all of a pass at once. The crate opens no files and reads no environment: it is given text and maps.
//! JSON and HOCON are read always, YAML with the feature `yaml`.
//! What a document means is not its business; see `locule-component` for job configurations.
//!
//! ```
//! use locule_config::{Document, Variables, merge};
//!
//! let shipped = Document::parse_json("resources.json", r#"{ "port": 8002, "components": [] }"#)?;
//! let own = Document::parse_json(
//!     "job_resources.json",
//!     r#"{ // one more component
//!          "components": [{ "id": "log", "args": { "file": "{SITE_NAME}.log" } }] }"#,
//! )?;
//! let site = merge(&[shipped, own])?.substitute(&Variables::new().set("SITE_NAME", "hospital-1"))?;
//!
//! let file = site.root().find(&["components", "#1", "args", "file"]).expect("it is written above");
//! assert_eq!(file.as_str(), Some("hospital-1.log"));
//! assert_eq!(file.path(), "components.#1.args.file");
//! assert_eq!((file.file(), file.place().line), ("job_resources.json", 2));
//! # Ok::<(), locule_config::Diagnostics>(())
//! ```

mod diagnostic;
mod format;
mod hocon;
mod json;
mod merge;
mod node;
mod substitute;
mod suggest;
#[cfg(feature = "yaml")]
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Related, Severity, Snippet, is_unprintable};
pub use format::Format;
pub use merge::merge;
pub use node::{Document, Node, NodeKind, Place, Span};
pub use substitute::Variables;
pub use suggest::suggest;

/// Mistakes that this crate reports, by code. Codes stay what they are once published.
pub mod code {
    /// The text does not follow the grammar.
    pub const SYNTAX: &str = "E0001";
    /// An object has one key twice.
    pub const DUPLICATE_KEY: &str = "E0002";
    /// Lists and objects are nested too deep.
    pub const TOO_DEEP: &str = "E0003";
    /// The document is too large.
    pub const TOO_LARGE: &str = "E0004";
    /// The outermost value is not an object.
    pub const NOT_AN_OBJECT: &str = "E0005";
    /// Something of the file's language that is not provided.
    pub const NOT_PROVIDED: &str = "E0006";
    /// Two files disagree.
    pub const MERGE_CONFLICT: &str = "E0201";
    /// A variable that nothing defines.
    pub const UNKNOWN_VARIABLE: &str = "E0301";
    /// Variables that need each other.
    pub const CYCLIC_VARIABLE: &str = "E0302";
    /// A list or object in the middle of a text.
    pub const NOT_TEXT: &str = "E0303";
    /// A reference with parameters or a format that makes no sense.
    pub const BAD_REFERENCE: &str = "E0304";
}
