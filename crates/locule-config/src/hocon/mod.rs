//! Reads HOCON, the language of `.conf` files: first its grammar, then what stands for what ([`resolve`]).
//!
//! The files that are read were written for pyhocon 0.3.63, so what unquoted text may hold is what that takes. Where
//! it departs from the language's specification the specification counts, but for `+=` with a list, which joins.

mod resolve;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Number;

use crate::json::{self, exact_number};
use crate::node::{Document, Node, Origin, Source, Span, Value};
use crate::{Diagnostic, Diagnostics, code};

/// The outermost value of a text.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    let mut parser = Parser { source, text: &source.text, at: 0, depth: 0, mistakes: Diagnostics::new() };
    if parser.text.starts_with('\u{feff}') {
        parser.at = '\u{feff}'.len_utf8();
    }
    match parser.document() {
        Ok(root) if parser.mistakes.is_empty() => resolve::resolve(source, &root),
        Ok(_) | Err(Stop) => Err(parser.mistakes),
    }
}

/// A value as written: pieces on one line, which are joined.
struct Expr {
    pieces: Vec<Piece>,
    span: Span,
    /// Whether `+=` stands in front of it.
    appends: bool,
}

struct Piece {
    part: Part,
    span: Span,
    /// How many bytes of white space stand in front of it, behind another piece.
    space: usize,
}

enum Part {
    Scalar(Value),
    List(Vec<Expr>),
    Object(Fields),
    Reference(Reference),
}

/// `${a.b}`, `${?a.b}`.
#[derive(Clone)]
struct Reference {
    path: Vec<String>,
    optional: bool,
}

/// The fields of an object; each with everything that the text says of it, in that order.
#[derive(Default)]
struct Fields {
    list: Vec<Field>,
    by_key: HashMap<String, usize>,
}

struct Field {
    key: String,
    key_span: Span,
    values: Vec<Expr>,
}

impl Fields {
    fn get(&self, key: &str) -> Option<&Field> {
        self.by_key.get(key).map(|index| &self.list[*index])
    }

    fn insert(&mut self, path: &[String], key_span: Span, value: Expr) {
        let [key, rest @ ..] = path else { return };
        let index = *self.by_key.entry(key.clone()).or_insert_with(|| {
            self.list.push(Field { key: key.clone(), key_span, values: Vec::new() });
            self.list.len() - 1
        });
        let values = &mut self.list[index].values;
        let last = values.last_mut().and_then(Expr::as_object_mut);
        match (last, rest.is_empty()) {
            (Some(object), false) => object.insert(rest, key_span, value),
            (None, false) => {
                let span = value.span;
                let mut object = Fields::default();
                object.insert(rest, key_span, value);
                values.push(Expr::of(Part::Object(object), span));
            }
            (Some(object), true) => match value.into_fields() {
                Ok(fields) => object.absorb(fields),
                Err(value) => values.push(value),
            },
            (None, true) => values.push(value),
        }
    }

    /// Adds the fields of an object that the text writes later under the same key.
    fn absorb(&mut self, later: Fields) {
        for Field { key, key_span, values } in later.list {
            for value in values {
                self.insert(std::slice::from_ref(&key), key_span, value);
            }
        }
    }
}

impl Expr {
    fn of(part: Part, span: Span) -> Expr {
        Expr { pieces: vec![Piece { part, span, space: 0 }], span, appends: false }
    }

    fn as_object_mut(&mut self) -> Option<&mut Fields> {
        match self.pieces.as_mut_slice() {
            [Piece { part: Part::Object(fields), .. }] if !self.appends => Some(fields),
            _ => None,
        }
    }

    fn into_fields(mut self) -> Result<Fields, Expr> {
        if self.as_object_mut().is_none() {
            return Err(self);
        }
        match self.pieces.pop().map(|piece| piece.part) {
            Some(Part::Object(fields)) => Ok(fields),
            Some(Part::Scalar(_) | Part::List(_) | Part::Reference(_)) | None => Ok(Fields::default()),
        }
    }
}

/// A mistake was reported that leaves nothing to go on with.
struct Stop;

struct Parser<'a> {
    source: &'a Arc<Source>,
    text: &'a str,
    at: usize,
    depth: usize,
    mistakes: Diagnostics,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Expr, Stop> {
        self.blank();
        let start = self.at;
        let part = match self.peek() {
            Some('{') => self.object()?,
            Some('[') => self.list()?,
            Some(_) | None => Part::Object(self.fields(None)?),
        };
        let end = self.at;
        self.blank();
        if self.at < self.text.len() {
            return Err(self.stop("the document ends here, and something follows"));
        }
        Ok(Expr::of(part, Span { start, end }))
    }

    fn object(&mut self) -> Result<Part, Stop> {
        let open = self.enter()?;
        let fields = self.fields(Some(open))?;
        self.leave();
        Ok(Part::Object(fields))
    }

    /// Fields up to the brace that closes what is open; of the whole document if nothing is.
    fn fields(&mut self, open: Option<usize>) -> Result<Fields, Stop> {
        let mut fields = Fields::default();
        self.blank();
        loop {
            match (self.peek(), open) {
                (Some('}'), Some(_)) | (None, None) => return Ok(fields),
                (None, Some(open)) => return Err(self.unclosed(open, '}')),
                (Some('}'), None) => return Err(self.stop("nothing is open that this could close")),
                (Some(_), _) => {}
            }
            let (path, key_span) = self.key()?;
            let appends = self.text[self.at..].starts_with("+=");
            match self.peek() {
                Some('=' | ':') => self.at += 1,
                Some('+') if appends => self.at += 2,
                Some('{') => {}
                Some(_) | None => return Err(self.stop("`=`, `:` or `{` is expected behind a key")),
            }
            self.blank();
            self.depth += path.len() - 1;
            if self.depth > Document::MAX_DEPTH {
                return Err(self.too_deep(key_span));
            }
            let value = self.value()?;
            self.depth -= path.len() - 1;
            fields.insert(&path, key_span, Expr { appends, ..value });
            self.separator(open, '}')?;
        }
    }

    fn list(&mut self) -> Result<Part, Stop> {
        let open = self.enter()?;
        let mut items = Vec::new();
        self.blank();
        loop {
            match self.peek() {
                Some(']') => break,
                Some(_) => items.push(self.value()?),
                None => return Err(self.unclosed(open, ']')),
            }
            self.separator(Some(open), ']')?;
        }
        self.leave();
        Ok(Part::List(items))
    }

    /// Steps over what separates two entries: line breaks, and one comma at most.
    fn separator(&mut self, open: Option<usize>, close: char) -> Result<(), Stop> {
        self.inline_space();
        let begin = self.at;
        self.blank();
        let broke = self.text[begin..self.at].contains('\n');
        match self.peek() {
            Some(',') => {
                self.at += 1;
                self.blank();
                if self.peek() == Some(',') {
                    return Err(self.stop("a value is missing between two commas"));
                }
                Ok(())
            }
            Some(c) if c == close && open.is_some() => Ok(()),
            Some(_) if broke => Ok(()),
            Some(_) => Err(self.stop("a comma or the end of the line is expected here")),
            None => match open {
                Some(open) => Err(self.unclosed(open, close)),
                None => Ok(()),
            },
        }
    }

    /// The parts of a dotted key. Dots in quotes separate nothing.
    fn key(&mut self) -> Result<(Vec<String>, Span), Stop> {
        let start = self.at;
        let (mut path, mut part, mut space) = (Vec::new(), None::<String>, 0);
        loop {
            let before = self.at;
            self.inline_space();
            space += self.at - before;
            match self.peek() {
                Some('"') => {
                    if path.is_empty() && part.as_deref() == Some("include") {
                        return Err(self.refuse_include(start));
                    }
                    let text = self.quoted()?;
                    self.extend(&mut part, &mut space, &text);
                }
                Some('.') => {
                    let Some(part) = part.take() else {
                        return Err(self.stop("a part of the key is missing"));
                    };
                    path.push(part);
                    (self.at, space) = (self.at + 1, 0);
                }
                None | Some('=' | ':' | '{' | '\n' | ',' | '}' | ']') => break,
                Some('+') if self.text[self.at..].starts_with("+=") => break,
                Some(c) if FORBIDDEN.contains(c) || c == '(' => {
                    if path.is_empty() && part.as_deref() == Some("include") {
                        return Err(self.refuse_include(start));
                    }
                    return Err(self.stop(format!("a key with `{}` stands in quotes", c.escape_default())));
                }
                Some(_) => {
                    let rest = &self.text[self.at..];
                    let ends = |c: char| is_space(c) || ".=:\n(".contains(c) || FORBIDDEN.contains(c);
                    let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
                    const KINDS: [&str; 4] = ["file", "url", "classpath", "required"];
                    let calls = KINDS.contains(&word) && rest[word.len()..].starts_with('(');
                    if path.is_empty() && part.as_deref() == Some("include") && calls {
                        return Err(self.refuse_include(start));
                    }
                    self.at += word.len();
                    self.extend(&mut part, &mut space, word);
                }
            }
        }
        let Some(part) = part else { return Err(self.stop("a key is expected here")) };
        path.push(part);
        let end = start + self.text[start..self.at].trim_end().len();
        let span = Span { start, end };
        if path.len() > Document::MAX_DEPTH { Err(self.too_deep(span)) } else { Ok((path, span)) }
    }

    /// Adds text to a part of a key, with the white space in front of it if it does not begin the part.
    fn extend(&self, part: &mut Option<String>, space: &mut usize, text: &str) {
        match part {
            Some(part) => part.extend([&" ".repeat(*space), text]),
            None => *part = Some(text.to_owned()),
        }
        *space = 0;
    }

    fn refuse_include(&mut self, start: usize) -> Stop {
        let span = Span { start, end: self.at };
        let mistake = self.mistake(code::NOT_PROVIDED, "`include` is not followed", span);
        self.mistakes
            .push(mistake.help("write what it includes into this file: one file is reviewed, whole"));
        Stop
    }

    /// Pieces up to the end of the entry.
    fn value(&mut self) -> Result<Expr, Stop> {
        let start = self.at;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut end = start;
        loop {
            let space = self.inline_space();
            let from = self.at;
            let rest = &self.text[from..];
            let part = match self.peek() {
                None | Some('\n' | ',' | '}' | ']' | '#') => break,
                Some('/') if rest.starts_with("//") && (space > 0 || pieces.is_empty()) => break,
                Some('{') => self.object()?,
                Some('[') => self.list()?,
                Some('"') if rest.starts_with(TRIPLE) => Part::Scalar(Value::Text(self.multi_line()?)),
                Some('"') => Part::Scalar(Value::Text(self.quoted()?)),
                Some('$') if rest.starts_with("${") => self.reference()?,
                Some(_) => Part::Scalar(self.word()?),
            };
            let space = if pieces.is_empty() { 0 } else { space };
            pieces.push(Piece { part, span: Span { start: from, end: self.at }, space });
            end = self.at;
        }
        if pieces.is_empty() {
            return Err(self.stop("a value is expected here"));
        }
        Ok(Expr { pieces, span: Span { start, end }, appends: false })
    }

    /// Text without quotes up to white space, or a number, or a word with a meaning.
    fn word(&mut self) -> Result<Value, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        let number = &rest[..number_length(rest)];
        if !number.is_empty() && ends_word(&rest[number.len()..]) {
            self.at += number.len();
            let Some(number) = number_of(number) else {
                let span = Span { start, end: self.at };
                let mistake = self.mistake(code::SYNTAX, "this is too large a number", span);
                self.mistakes.push(mistake);
                return Ok(Value::Null);
            };
            return Ok(Value::Number(number));
        }
        let length = rest.find(|c: char| is_space(c) || c == '\n' || FORBIDDEN.contains(c));
        let word = &rest[..length.unwrap_or(rest.len())];
        self.at += word.len();
        match self.peek() {
            Some(c)
                if !is_space(c) && !"\n,}]#\"{[".contains(c) && !self.text[self.at..].starts_with("${") =>
            {
                let message = format!("text with `{}` stands in quotes", c.escape_default());
                return Err(self.stop(message));
            }
            Some(_) | None => {}
        }
        Ok(match word {
            word if word.eq_ignore_ascii_case("true") => Value::Bool(true),
            word if word.eq_ignore_ascii_case("false") => Value::Bool(false),
            word if word.eq_ignore_ascii_case("null") => Value::Null,
            word => Value::Text(word.to_owned()),
        })
    }

    fn reference(&mut self) -> Result<Part, Stop> {
        let start = self.at;
        self.at += 2;
        let optional = self.peek() == Some('?');
        self.at += usize::from(optional);
        if self.text[self.at..].starts_with("secret:") {
            self.at = start;
            return Err(self.stop("a reference to a secret stands in quotes"));
        }
        let (path, _) = self.key()?;
        if self.peek() != Some('}') {
            let span = Span { start, end: self.at };
            let mistake = self.mistake(code::SYNTAX, "`}` is expected behind the name", span);
            self.mistakes.push(mistake);
            return Err(Stop);
        }
        self.at += 1;
        Ok(Part::Reference(Reference { path, optional }))
    }

    /// Text in three quotes: as it stands, over as many lines as it has; more quotes at its end belong to it.
    fn multi_line(&mut self) -> Result<String, Stop> {
        let start = self.at;
        let inner = &self.text[start + TRIPLE.len()..];
        let Some(length) = inner.find(TRIPLE) else {
            return Err(self.fail(start, start + TRIPLE.len(), "the text in three quotes is not closed"));
        };
        let behind = &inner[length + TRIPLE.len()..];
        let more = behind.len() - behind.trim_start_matches('"').len();
        self.at = start + 2 * TRIPLE.len() + length + more;
        Ok(inner[..length + more].to_owned())
    }

    /// Text in quotes, as JSON has it.
    fn quoted(&mut self) -> Result<String, Stop> {
        match json::string(self.source, self.at) {
            Ok((text, end)) => {
                self.at = end;
                Ok(text)
            }
            Err(mistakes) => {
                self.mistakes.append(mistakes);
                Err(Stop)
            }
        }
    }

    /// Steps over white space within the line; says how much there was.
    fn inline_space(&mut self) -> usize {
        let rest = &self.text[self.at..];
        let length = rest.len() - rest.trim_start_matches(is_space).len();
        self.at += length;
        length
    }

    /// Steps over white space, line breaks and comments.
    fn blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.len() - rest.trim_start_matches(|c| is_space(c) || c == '\n').len();
            let rest = &self.text[self.at..];
            if !rest.starts_with('#') && !rest.starts_with("//") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn enter(&mut self) -> Result<usize, Stop> {
        let open = self.at;
        self.depth += 1;
        if self.depth > Document::MAX_DEPTH {
            return Err(self.too_deep(Span { start: open, end: open + 1 }));
        }
        self.at += 1;
        Ok(open)
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn too_deep(&mut self, span: Span) -> Stop {
        let message = format!("more than {} lists and objects inside one another", Document::MAX_DEPTH);
        let mistake = self.mistake(code::TOO_DEEP, message, span);
        self.mistakes.push(mistake);
        Stop
    }

    fn unclosed(&mut self, open: usize, close: char) -> Stop {
        self.fail(open, open + 1, &format!("the file ends without the `{close}` for this"))
    }

    fn stop(&mut self, message: impl Into<String>) -> Stop {
        let end = self.at + self.peek().map_or(0, char::len_utf8);
        self.fail(self.at, end, &message.into())
    }

    fn fail(&mut self, start: usize, end: usize, message: &str) -> Stop {
        let mistake = self.mistake(code::SYNTAX, message, Span { start, end });
        self.mistakes.push(mistake);
        Stop
    }

    fn mistake(&self, code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        let origin = Origin { source: Arc::clone(self.source), span };
        Diagnostic::new(code, message, &origin, String::new())
    }
}

const TRIPLE: &str = "\"\"\"";

/// What text without quotes may not hold.
const FORBIDDEN: &str = "$\"{}[]=,+#`^?!@*&\\";

fn is_space(c: char) -> bool {
    (c.is_whitespace() || c == '\u{feff}') && c != '\n'
}

/// Whether text behind a number ends it, so that `1.2.3` and `10MB` are text.
fn ends_word(rest: &str) -> bool {
    rest.chars().next().is_none_or(|c| is_space(c) || "\n,}]#".contains(c)) || rest.starts_with("${")
}

/// How many bytes at the beginning look like a number.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let sign = usize::from(text.starts_with(['-', '+']));
    let whole = digits(&text[sign..]);
    let mut end = sign + whole;
    let part = text[end..].strip_prefix('.').map_or(0, digits);
    if part > 0 {
        end += 1 + part;
    }
    if whole + part == 0 {
        return 0;
    }
    if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['-', '+']));
        match digits(&exponent[sign..]) {
            0 => {}
            length => end += 1 + sign + length,
        }
    }
    end
}

/// The number, with what pyhocon takes and JSON does not: a plus, leading zeros, nothing in front of the point.
fn number_of(text: &str) -> Option<Number> {
    let unsigned = text.trim_start_matches(['-', '+']);
    let bare = unsigned.trim_start_matches('0');
    let zero = if bare.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
    let minus = if text.starts_with('-') { "-" } else { "" };
    exact_number(&format!("{minus}{zero}{bare}"))
}
