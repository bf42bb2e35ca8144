//! Mistakes in files, shown the way a compiler shows them.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use crate::node::{Node, Origin, Place, Source, Span};

/// One mistake, or something worth a look.
///
/// ```text
/// error[E0104]: unknown argument `delat`
///   ┌─ config_fed_client.json:7:32   at executors.#1.executor.args.delat
///   │  "args": {"delta": 1, "delat": 3}
///   │                       ^^^^^^^ did you mean `delta`?
///   = arguments: delta, sleep_time
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Whether the document can be used all the same.
    pub severity: Severity,
    /// Stable name of the mistake.
    pub code: &'static str,
    /// What is wrong, without control characters.
    pub message: String,
    /// The file, as the reader of it called it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The path in the document; empty for the root or when there is no document yet.
    pub path: String,
    /// The offending text.
    pub snippet: Snippet,
    /// Another place that has to do with it.
    pub related: Option<Box<Related>>,
    /// What would help.
    pub help: Option<String>,
}

/// A second place of a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Related {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The text there.
    pub snippet: Snippet,
}

/// One line of a file, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snippet {
    /// The line without its indentation, shortened if it is long, without control characters.
    pub text: String,
    /// How many characters of `text` stand in front of what is meant.
    pub start: usize,
    /// How many characters are meant, at least one.
    pub length: usize,
    /// What to write behind the carets.
    pub label: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// It can, but is probably not what was meant.
    Warning,
}

impl Diagnostic {
    /// A mistake in a value.
    pub fn at(node: &Node, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, message, &node.origin, node.path())
    }

    /// A mistake in the key of an entry; in the value where there is no key.
    pub fn at_key(node: &Node, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, message, node.key_origin(), node.path())
    }

    /// A mistake in a text that is no document, at these bytes of it; what lies outside of it, or between two bytes
    /// of a character, is moved to where the text goes on.
    pub fn in_text(
        code: &'static str,
        message: impl Into<String>,
        file: &str,
        text: &str,
        bytes: Range<usize>,
    ) -> Diagnostic {
        let start = text.floor_char_boundary(bytes.start);
        let end = text.ceil_char_boundary(bytes.end).max(start);
        let origin = Origin { source: Arc::new(Source::new(file, text)), span: Span { start, end } };
        Diagnostic::new(code, message, &origin, String::new())
    }

    /// Writes something behind the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.snippet.label = printable(&label.into(), MESSAGE_CHARS);
        self
    }

    /// Says what would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(printable(&help.into(), MESSAGE_CHARS));
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn related(mut self, node: &Node, label: impl Into<String>) -> Diagnostic {
        let Place { line, column } = node.place();
        let mut snippet = Snippet::of(&node.origin);
        snippet.label = printable(&label.into(), MESSAGE_CHARS);
        self.related =
            Some(Box::new(Related { file: printable(node.file(), FILE_CHARS), line, column, snippet }));
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub fn warning(mut self) -> Diagnostic {
        self.severity = Severity::Warning;
        self
    }

    pub(crate) fn new(
        code: &'static str,
        message: impl Into<String>,
        origin: &Origin,
        path: String,
    ) -> Diagnostic {
        let Place { line, column } = origin.place();
        Diagnostic {
            severity: Severity::Error,
            code,
            message: printable(&message.into(), MESSAGE_CHARS),
            file: printable(&origin.source.name, FILE_CHARS),
            line,
            column,
            path: printable(&path, PATH_CHARS),
            snippet: Snippet::of(origin),
            related: None,
            help: None,
        }
    }
}

const MESSAGE_CHARS: usize = 400;
const FILE_CHARS: usize = 200;
const PATH_CHARS: usize = 200;
const LINE_CHARS: usize = 96;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{word}[{}]: {}\n  ┌─ {}:{}:{}",
            self.code, self.message, self.file, self.line, self.column
        )?;
        if !self.path.is_empty() {
            write!(f, "   at {}", self.path)?;
        }
        write!(f, "{}", self.snippet)?;
        if let Some(related) = &self.related {
            write!(f, "\n  ├─ {}:{}:{}{}", related.file, related.line, related.column, related.snippet)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  = {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            return Ok(());
        }
        write!(f, "\n  │  {}\n  │  {}{}", self.text, " ".repeat(self.start), "^".repeat(self.length))?;
        if self.label.is_empty() { Ok(()) } else { write!(f, " {}", self.label) }
    }
}

impl Snippet {
    /// Looks at no more of a line than it shows: a document of one line may be long, and wrong everywhere.
    fn of(origin: &Origin) -> Snippet {
        let text = &origin.source.text;
        let span = origin.span;
        let (line_start, line_end) = origin.source.line_around(span.start);
        let line = &text[line_start..line_end];
        let indent = line.len() - line.trim_start().len();
        let from = (line_start + indent).min(span.start);
        let mut before: Vec<char> =
            text[from..span.start].chars().rev().take(LINE_CHARS / 2 + 1).map(shown).collect();
        let is_cut = before.len() > LINE_CHARS / 2;
        before.truncate(LINE_CHARS / 2);
        before.reverse();
        let meant = text[span.start..span.end.clamp(span.start, line_end)].chars();
        let meant: Vec<char> = meant.take(LINE_CHARS).map(shown).collect();
        let behind = text[span.start..line_end].trim_end().chars().skip(meant.len()).map(shown);

        let mut shown_line: String = if is_cut { "…".into() } else { String::new() };
        shown_line.extend(&before);
        let start = shown_line.chars().count();
        let length = meant.len().clamp(1, LINE_CHARS.saturating_sub(start).max(1));
        let room = LINE_CHARS - start.min(LINE_CHARS);
        let rest: Vec<char> = meant.iter().copied().chain(behind.take(LINE_CHARS)).collect();
        shown_line.extend(rest.iter().take(room));
        if rest.len() > room {
            shown_line.push('…');
        }
        Snippet { text: shown_line.trim_end().to_owned(), start, length, label: String::new() }
    }
}

/// The mistakes of one pass, in the order of discovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    left_out: usize,
}

impl Diagnostics {
    /// How many are kept; of more only the number is known.
    pub const MAX: usize = 100;

    /// No mistakes.
    pub fn new() -> Self {
        Diagnostics::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < Self::MAX {
            self.list.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds those of another pass.
    pub fn append(&mut self, other: Diagnostics) {
        self.left_out += other.left_out;
        other.list.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Orders them by file, as the files were first met, and by place in it.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for diagnostic in &self.list {
            if !files.contains(&diagnostic.file) {
                files.push(diagnostic.file.clone());
            }
        }
        let file = |diagnostic: &Diagnostic| files.iter().position(|file| *file == diagnostic.file);
        self.list.sort_by_key(|diagnostic| (file(diagnostic), diagnostic.line, diagnostic.column));
    }

    /// Those that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many there are, those left out included.
    pub fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there is one that forbids the use of the document.
    pub fn has_errors(&self) -> bool {
        self.left_out > 0 || self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics { list: vec![diagnostic], left_out: 0 }
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.left_out > 0 { write!(f, "\n\nand {} more", self.left_out) } else { Ok(()) }
    }
}

impl std::error::Error for Diagnostics {}

/// The text with control characters escaped, and shortened: files come from people that a site need not trust,
/// and their words end up in terminals and logs.
fn printable(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == limit {
            out.push('…');
            break;
        }
        if is_unprintable(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// One character for one character, so that carets stay under what they mean.
fn shown(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_unprintable(c) => '\u{fffd}',
        c => c,
    }
}

/// Control characters, and those that show nothing but turn or join the text around them: what must not reach a
/// terminal or a log out of a text that somebody else wrote.
///
/// # Source
/// Unicode 16, general categories Cc, Cf, Zl and Zp, and all of the block of tags.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}
