//! Languages of configuration files, told apart by the endings of their names.

use crate::{Diagnostics, Document};

/// A language of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// With comments.
    Json,
    /// As far as [`Document::parse_hocon`] goes.
    Hocon,
    /// As far as [`Document::parse_yaml`] goes.
    #[cfg(feature = "yaml")]
    Yaml,
}

impl Format {
    /// Endings of names, in the order in which a configuration is looked for.
    ///
    /// # Source
    /// nvflare 2.9.0, `nvflare.fuel.utils.config`.
    pub const ENDINGS: &'static [(&'static str, Format)] = &[
        (".json", Format::Json),
        (".conf", Format::Hocon),
        #[cfg(feature = "yaml")]
        (".yml", Format::Yaml),
        #[cfg(feature = "yaml")]
        (".yaml", Format::Yaml),
        (".json.default", Format::Json),
        (".conf.default", Format::Hocon),
        #[cfg(feature = "yaml")]
        (".yml.default", Format::Yaml),
        #[cfg(feature = "yaml")]
        (".yaml.default", Format::Yaml),
    ];

    /// The language of a file with this name, if its ending tells.
    pub fn of_name(name: &str) -> Option<Format> {
        Self::ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| *format)
    }
}

impl Document {
    /// Reads a text in a language. `name` is how the file is called in messages.
    ///
    /// # Errors
    /// Those of that language.
    pub fn parse_as(format: Format, name: &str, text: &str) -> Result<Document, Diagnostics> {
        match format {
            Format::Json => Document::parse_json(name, text),
            Format::Hocon => Document::parse_hocon(name, text),
            #[cfg(feature = "yaml")]
            Format::Yaml => Document::parse_yaml(name, text),
        }
    }
}
