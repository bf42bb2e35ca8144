use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::excerpt::Excerpt;

/// Fully qualified name of a cell: segments joined by dots, such as `site-1` or `relay-a.site-1`.
///
/// The first segment is the *root*; a name with one segment more is a *child*. A job's cell is a
/// child of the cell that started it: `site-1.<job id>`, `server.<job id>`. Cloning is cheap.
///
/// ```
/// use locule_message::Fqcn;
///
/// let job: Fqcn = "site-1.9fd1".parse()?;
/// assert_eq!(job.parent(), Some("site-1".parse()?));
/// assert_eq!(job.generation(), 2);
/// assert!(!job.is_on_server());
/// # Ok::<(), locule_message::FqcnError>(())
/// ```
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.fqcn`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fqcn(Arc<str>);

impl Fqcn {
    /// Longest name, in bytes. The peer has no bound.
    pub const MAX_LEN: usize = 255;
    /// Most segments in a name. The peer has no bound.
    pub const MAX_SEGMENTS: usize = 16;

    /// Reads a name; white space around it is dropped, as the peer does in a handshake.
    ///
    /// # Errors
    /// [`FqcnError`] when the name breaks the grammar: segments of `A–Z a–z 0–9 _ ~ -`, none empty,
    /// none twice, within [`MAX_LEN`](Self::MAX_LEN) and [`MAX_SEGMENTS`](Self::MAX_SEGMENTS).
    pub fn parse(text: &str) -> Result<Self, FqcnError> {
        let name = text.trim();
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The root cell of the server, `server`.
    #[must_use]
    pub fn server() -> Self {
        Self("server".into())
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments from root to leaf.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The first segment.
    #[must_use]
    pub fn root(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(root, _)| root)
    }

    /// The last segment.
    #[must_use]
    pub fn leaf(&self) -> &str {
        self.0.rsplit_once('.').map_or(&*self.0, |(_, leaf)| leaf)
    }

    /// The number of segments, at least 1.
    #[must_use]
    pub fn generation(&self) -> usize {
        self.segments().count()
    }

    /// The name without its last segment; `None` for a root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('.').map(|(parent, _)| Self(parent.into()))
    }

    /// This name with one more segment.
    ///
    /// # Errors
    /// [`FqcnError`] when the result is no valid name; `segment` may not contain a dot.
    pub fn child(&self, segment: &str) -> Result<Self, FqcnError> {
        if segment.contains('.') {
            return Err(FqcnError::InvalidCharacter { character: '.', name: Excerpt::new(segment).into() });
        }
        let name = format!("{self}.{segment}");
        check(&name)?;
        Ok(Self(name.into()))
    }

    /// Whether `other` lies strictly below this name.
    #[must_use]
    pub fn is_ancestor_of(&self, other: &Self) -> bool {
        other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Whether `other` is this name or lies below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self == other || self.is_ancestor_of(other)
    }

    /// Whether the root is `server`: the server itself and its jobs.
    #[must_use]
    pub fn is_on_server(&self) -> bool {
        self.root() == "server"
    }

    /// Whether both names have the same root.
    #[must_use]
    pub fn same_family(&self, other: &Self) -> bool {
        self.root() == other.root()
    }
}

fn check(name: &str) -> Result<(), FqcnError> {
    if name.is_empty() {
        return Err(FqcnError::Empty);
    }
    if name.len() > Fqcn::MAX_LEN {
        return Err(FqcnError::TooLong { len: name.len() });
    }
    if let Some(character) = name.chars().find(|&c| !c.is_ascii_alphanumeric() && !"_.~-".contains(c)) {
        return Err(FqcnError::InvalidCharacter { character, name: Excerpt::new(name).into() });
    }
    for (index, segment) in name.split('.').enumerate() {
        if index == Fqcn::MAX_SEGMENTS {
            return Err(FqcnError::TooManySegments);
        }
        if segment.is_empty() {
            return Err(FqcnError::EmptySegment { name: Excerpt::new(name).into() });
        }
        if name.split('.').take(index).any(|earlier| earlier == segment) {
            return Err(FqcnError::RepeatedSegment { segment: Excerpt::new(segment).into() });
        }
    }
    Ok(())
}

/// Why a text is not the name of a cell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FqcnError {
    /// Nothing but white space.
    #[error("cell name is empty")]
    Empty,
    /// More than [`Fqcn::MAX_LEN`] bytes.
    #[error("cell name has {len} bytes, at most {} are allowed", Fqcn::MAX_LEN)]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// More than [`Fqcn::MAX_SEGMENTS`] segments.
    #[error("cell name has more than {} segments", Fqcn::MAX_SEGMENTS)]
    TooManySegments,
    /// Two dots in a row, or one at an end.
    #[error("cell name \"{name}\" has an empty segment")]
    EmptySegment {
        /// The name, shortened and escaped.
        name: String,
    },
    /// The same segment twice, which would make routes ambiguous.
    #[error("cell name has the segment \"{segment}\" twice")]
    RepeatedSegment {
        /// The segment, shortened and escaped.
        segment: String,
    },
    /// A character outside `A–Z a–z 0–9 _ . ~ -`.
    #[error("cell name \"{name}\" contains {character:?}")]
    InvalidCharacter {
        /// The first such character.
        character: char,
        /// The name, shortened and escaped.
        name: String,
    },
}

impl FromStr for Fqcn {
    type Err = FqcnError;

    fn from_str(text: &str) -> Result<Self, FqcnError> {
        Self::parse(text)
    }
}

impl AsRef<str> for Fqcn {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Fqcn {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Fqcn {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Fqcn {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for Fqcn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Fqcn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
