//! Reads JSON with comments, keeps every place, and goes on after the mistakes that it can get past.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Number;

use crate::node::{Document, Node, Origin, Source, Span, Value};
use crate::{Diagnostic, Diagnostics, code};

/// The outermost value of a text.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    let mut parser =
        Parser { source, text: &source.text, at: 0, path: Vec::new(), mistakes: Diagnostics::new() };
    if parser.text.starts_with('\u{feff}') {
        parser.at = '\u{feff}'.len_utf8();
    }
    let root = parser.document();
    match root {
        Ok(root) if parser.mistakes.is_empty() => Ok(root),
        Ok(_) | Err(Stop) => Err(parser.mistakes),
    }
}

/// The text in quotes that begins at a byte, and the byte behind it.
pub(crate) fn string(source: &Arc<Source>, at: usize) -> Result<(String, usize), Diagnostics> {
    let mut parser =
        Parser { source, text: &source.text, at, path: Vec::new(), mistakes: Diagnostics::new() };
    match parser.string() {
        Ok(text) if parser.mistakes.is_empty() => Ok((text, parser.at)),
        Ok(_) | Err(Stop) => Err(parser.mistakes),
    }
}

/// A mistake was reported that leaves nothing to go on with.
struct Stop;

struct Parser<'a> {
    source: &'a Arc<Source>,
    text: &'a str,
    at: usize,
    path: Vec<String>,
    mistakes: Diagnostics,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Node, Stop> {
        self.blank()?;
        let root = self.value()?;
        self.blank()?;
        if self.at < self.text.len() {
            return Err(self.stop("the document ends here, and something follows"));
        }
        Ok(root)
    }

    fn value(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let value = match self.peek() {
            Some('{') => self.object()?,
            Some('[') => self.list()?,
            Some('"') => Value::Text(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some(c) if c.is_alphabetic() || c == '_' => self.word()?,
            Some('\'') => return Err(self.stop("text stands in double quotes")),
            Some(_) => return Err(self.stop("a value is expected here")),
            None => return Err(self.stop("the file ends where a value is expected")),
        };
        Ok(Node::new(value, self.source, Span { start, end: self.at }))
    }

    fn object(&mut self) -> Result<Value, Stop> {
        let open = self.enter()?;
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            self.blank()?;
            match self.peek() {
                Some('}') => break,
                Some('"') => {}
                Some('\'') => return Err(self.stop("keys stand in double quotes")),
                Some(c) if c.is_alphabetic() || c == '_' => {
                    return Err(self.stop("keys stand in double quotes"));
                }
                Some(_) => return Err(self.stop("a key or `}` is expected here")),
                None => return Err(self.unclosed(open, '}')),
            }
            let key_start = self.at;
            let key = self.string()?;
            let key_span = Span { start: key_start, end: self.at };
            self.blank()?;
            if self.peek() != Some(':') {
                return Err(self.stop("`:` is expected between a key and its value"));
            }
            self.at += 1;
            self.blank()?;
            self.path.push(key.clone());
            let mut node = self.value()?;
            if let Some(first) = seen.get(&key) {
                let message = format!("the key `{key}` is written twice");
                let first = &entries[*first].1;
                let mistake =
                    self.mistake(code::DUPLICATE_KEY, message, key_span).related(first, "first value");
                self.mistakes.push(mistake);
            } else {
                node.key = Some(Origin { source: Arc::clone(self.source), span: key_span });
                seen.insert(key.clone(), entries.len());
                entries.push((key, node));
            }
            self.path.pop();
            if !self.separator(open, '}')? {
                break;
            }
        }
        self.leave();
        Ok(Value::Object(entries))
    }

    fn list(&mut self) -> Result<Value, Stop> {
        let open = self.enter()?;
        let mut items = Vec::new();
        loop {
            self.blank()?;
            match self.peek() {
                Some(']') => break,
                None => return Err(self.unclosed(open, ']')),
                Some(_) => {}
            }
            self.path.push(format!("#{}", items.len() + 1));
            items.push(self.value()?);
            self.path.pop();
            if !self.separator(open, ']')? {
                break;
            }
        }
        self.leave();
        Ok(Value::List(items))
    }

    /// Steps over the comma behind an entry; says whether another entry follows. A missing comma and one too many
    /// are reported and got past.
    fn separator(&mut self, open: usize, close: char) -> Result<bool, Stop> {
        let end_of_entry = self.at;
        self.blank()?;
        match self.peek() {
            Some(',') => {
                let comma = Span { start: self.at, end: self.at + 1 };
                self.at += 1;
                self.blank()?;
                if self.peek() == Some(close) {
                    let message = format!("no comma may stand in front of `{close}`");
                    let mistake = self.mistake(code::SYNTAX, message, comma);
                    self.mistakes.push(mistake);
                }
                Ok(self.peek() != Some(close))
            }
            Some(c) if c == close => Ok(false),
            Some('"' | '{' | '[' | '-' | '0'..='9') => {
                let span = Span { start: end_of_entry, end: end_of_entry };
                let mistake = self.mistake(code::SYNTAX, "a comma is missing here", span);
                self.mistakes.push(mistake);
                Ok(true)
            }
            Some(_) => Err(self.stop(format!("`,` or `{close}` is expected here"))),
            None => Err(self.unclosed(open, close)),
        }
    }

    fn string(&mut self) -> Result<String, Stop> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(['"', '\\', '\n']).unwrap_or(rest.len());
            if let Some(bad) = rest[..plain].find(|c: char| c < ' ') {
                let at = self.at + bad;
                let message = "a control character in text is written with a backslash";
                let mistake = self.mistake(code::SYNTAX, message, Span { start: at, end: at + 1 });
                self.mistakes.push(mistake);
            }
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some('\\') => self.escape(&mut out)?,
                Some(_) | None => {
                    let span = Span { start, end: self.at };
                    let mistake = self.mistake(code::SYNTAX, "the text is not closed on its line", span);
                    self.mistakes.push(mistake);
                    return Err(Stop);
                }
            }
        }
    }

    /// Reads the escape at a backslash. An unknown one is reported and dropped.
    fn escape(&mut self, out: &mut String) -> Result<(), Stop> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek() else { return Err(self.stop("the file ends inside text")) };
        self.at += c.len_utf8();
        match c {
            '"' | '\\' | '/' => out.push(c),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => match self.unicode() {
                Some(c) => out.push(c),
                None => {
                    self.bad_escape(start, "`\\u` needs four hexadecimal digits of a character, or of a pair")
                }
            },
            c => self.bad_escape(start, &format!("`\\{c}` is not an escape")),
        }
        Ok(())
    }

    /// The character behind `\u`, taking both halves of a surrogate pair.
    fn unicode(&mut self) -> Option<char> {
        let high = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high);
        }
        self.text[self.at..].strip_prefix("\\u")?;
        self.at += 2;
        let low = self.four_digits()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn bad_escape(&mut self, start: usize, message: &str) {
        let mistake = self.mistake(code::SYNTAX, message, Span { start, end: self.at });
        self.mistakes.push(mistake);
    }

    fn number(&mut self) -> Result<Value, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        let length =
            rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        self.at += length;
        match exact_number(&rest[..length]) {
            Some(number) => Ok(Value::Number(number)),
            None => {
                let span = Span { start, end: self.at };
                let mistake = self.mistake(code::SYNTAX, "this is not a number, or too large a one", span);
                self.mistakes.push(mistake);
                Ok(Value::Null)
            }
        }
    }

    fn word(&mut self) -> Result<Value, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += length;
        let known = match &rest[..length] {
            "null" => return Ok(Value::Null),
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "True" => "JSON writes `true`",
            "False" => "JSON writes `false`",
            "None" => "JSON writes `null`",
            "NaN" | "Infinity" => "JSON has no such number",
            _ => "text stands in double quotes",
        };
        let mistake =
            self.mistake(code::SYNTAX, "this word means nothing here", Span { start, end: self.at });
        self.mistakes.push(mistake.help(known));
        Ok(Value::Null)
    }

    /// Steps over white space and comments.
    fn blank(&mut self) -> Result<(), Stop> {
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            let rest = &self.text[self.at..];
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                match rest.find("*/") {
                    Some(end) => self.at += end + 2,
                    None => return Err(self.stop("the comment is not closed")),
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Opens a list or object and answers where.
    fn enter(&mut self) -> Result<usize, Stop> {
        let open = self.at;
        if self.path.len() >= Document::MAX_DEPTH {
            let message = format!("more than {} lists and objects inside one another", Document::MAX_DEPTH);
            let mistake = self.mistake(code::TOO_DEEP, message, Span { start: open, end: open + 1 });
            self.mistakes.push(mistake);
            return Err(Stop);
        }
        self.at += 1;
        Ok(open)
    }

    fn leave(&mut self) {
        self.at += 1;
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn unclosed(&mut self, open: usize, close: char) -> Stop {
        let span = Span { start: open, end: open + 1 };
        let mistake =
            self.mistake(code::SYNTAX, format!("the file ends without the `{close}` for this"), span);
        self.mistakes.push(mistake);
        Stop
    }

    fn stop(&mut self, message: impl Into<String>) -> Stop {
        let end = self.at + self.peek().map_or(0, char::len_utf8);
        let mistake = self.mistake(code::SYNTAX, message, Span { start: self.at, end });
        self.mistakes.push(mistake);
        Stop
    }

    fn mistake(&self, code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        let origin = Origin { source: Arc::clone(self.source), span };
        Diagnostic::new(code, message, &origin, self.path.join("."))
    }
}

/// A number as JSON writes it: whole ones exactly or not at all, others as the nearest `f64`.
pub(crate) fn exact_number(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    if text.contains(['.', 'e', 'E']) {
        Number::from_f64(text.parse().ok()?)
    } else {
        (!number.is_f64() || text == "-0").then_some(number)
    }
}
