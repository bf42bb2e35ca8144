//! Reads YAML and keeps every place. Plain words are taken as PyYAML takes them (YAML 1.1), since the files
//! that are read were written for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};
use serde_json::Number;

use crate::node::{Document, Node, NodeKind, Origin, Source, Span, Value};
use crate::{Diagnostic, Diagnostics, code};

/// How many values aliases may add to a document.
const MAX_FROM_ALIASES: usize = 10_000;

/// The outermost value of a text that holds one document.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    let events = Parser::new_from_str(&source.text).peekable();
    let mut reader = Reader {
        source,
        events,
        places: Places::of(&source.text),
        anchors: HashMap::new(),
        from_aliases: 0,
        path: Vec::new(),
        mistakes: Diagnostics::new(),
    };
    match reader.document() {
        Ok(root) if reader.mistakes.is_empty() => Ok(root),
        Ok(_) | Err(Stop) => Err(reader.mistakes),
    }
}

/// A mistake was reported that leaves nothing to go on with.
struct Stop;

struct Reader<'a> {
    source: &'a Arc<Source>,
    events: Peekable<Parser<'a, StrInput<'a>>>,
    places: Places,
    /// Values that have an anchor, and how many values each holds, itself included.
    anchors: HashMap<usize, (Node, usize)>,
    from_aliases: usize,
    path: Vec<String>,
    mistakes: Diagnostics,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.stop(code::SYNTAX, "a second document begins here; one is read", span));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.value(event, span)?.0);
                }
                Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {
                    return Err(self.stop(code::SYNTAX, "this stands outside of the document", span));
                }
            }
        }
        let empty = Span { start: 0, end: 0 };
        Ok(root.unwrap_or_else(|| Node::new(Value::Null, self.source, empty)))
    }

    /// The value that an event begins, and how many values it holds, itself included.
    fn value(&mut self, event: Event<'a>, span: Span) -> Result<(Node, usize), Stop> {
        let (value, end, size, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref(), span);
                (value, span.end, 1, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], span);
                let (value, end, size) = self.list(span)?;
                (value, end, size, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], span);
                let (value, end, size) = self.object(span)?;
                (value, end, size, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(self.stop(code::SYNTAX, "a value is expected here", span)),
        };
        let node = Node::new(value, self.source, Span { start: span.start, end: end.max(span.start) });
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok((node, size))
    }

    fn list(&mut self, begin: Span) -> Result<(Value, usize, usize), Stop> {
        self.check_depth(begin)?;
        let (mut items, mut size) = (Vec::new(), 1);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((Value::List(items), span.end, size));
            }
            self.path.push(format!("#{}", items.len() + 1));
            let (item, of_item) = self.value(event, span)?;
            self.path.pop();
            items.push(item);
            size += of_item;
        }
    }

    fn object(&mut self, begin: Span) -> Result<(Value, usize, usize), Stop> {
        self.check_depth(begin)?;
        let (mut entries, mut size) = (Vec::<(String, Node)>::new(), 1);
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_span) = self.next()?;
            if event == Event::MappingEnd {
                self.merge(&mut entries, &seen, merged);
                return Ok((Value::Object(entries), key_span.end, size));
            }
            let Event::Scalar(key, style, _, None) = event else {
                return Err(self.stop(code::SYNTAX, "a key must be text", key_span));
            };
            let (key, is_plain) = (key.into_owned(), style == ScalarStyle::Plain);
            self.path.push(key.clone());
            let (event, span) = self.next()?;
            let (mut node, of_node) = self.value(event, span)?;
            size += of_node;
            if key == "<<" && is_plain {
                merged.push(node);
            } else if let Some(first) = seen.get(&key) {
                let message = format!("the key `{key}` is written twice");
                let mistake = self.mistake(code::DUPLICATE_KEY, message, key_span);
                self.mistakes.push(mistake.related(&entries[*first].1, "first value"));
            } else {
                node.key = Some(Origin { source: Arc::clone(self.source), span: key_span });
                seen.insert(key.clone(), entries.len());
                entries.push((key, node));
            }
            self.path.pop();
        }
    }

    /// Adds what `<<` brings and the object does not have itself.
    fn merge(&mut self, entries: &mut Vec<(String, Node)>, seen: &HashMap<String, usize>, from: Vec<Node>) {
        let mut known: HashMap<String, ()> = seen.keys().map(|key| (key.clone(), ())).collect();
        for node in from {
            let sources = if node.kind() == NodeKind::List { node.items().to_vec() } else { vec![node] };
            for source in sources {
                if source.kind() != NodeKind::Object {
                    let message = format!("`<<` takes an object, and this is {}", source.kind());
                    let mistake = self.mistake(code::SYNTAX, message, source.span());
                    self.mistakes.push(mistake);
                }
                for (key, value) in source.entries() {
                    if known.insert(key.to_owned(), ()).is_none() {
                        entries.push((key.to_owned(), value.clone()));
                    }
                }
            }
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(Node, usize), Stop> {
        let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
            return Err(self.stop(code::SYNTAX, "this refers to a value that it is part of", span));
        };
        self.from_aliases = self.from_aliases.saturating_add(size);
        if self.from_aliases > MAX_FROM_ALIASES {
            let message = format!("aliases add more than {MAX_FROM_ALIASES} values to the document");
            return Err(self.stop(code::TOO_LARGE, message, span));
        }
        Ok((node, size))
    }

    fn scalar(&mut self, text: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Value {
        self.check_tag(tag, &["str", "int", "float", "bool", "null"], span);
        let is_text = match tag {
            Some(tag) => tag.suffix == "str",
            None => style != ScalarStyle::Plain,
        };
        if is_text {
            return Value::Text(text.into_owned());
        }
        match plain(&text) {
            Ok(Some(value)) => value,
            Ok(None) => Value::Text(text.into_owned()),
            Err(TooLarge) => {
                let mistake = self.mistake(code::SYNTAX, "this number is too large", span);
                self.mistakes.push(mistake);
                Value::Null
            }
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], span: Span) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() || !known.contains(&&*tag.suffix)) {
            let message = format!("the tag `{tag}` is not known here");
            let mistake = self.mistake(code::SYNTAX, message, span).help("write the value without a tag");
            self.mistakes.push(mistake);
        }
    }

    fn check_depth(&mut self, span: Span) -> Result<(), Stop> {
        if self.path.len() < Document::MAX_DEPTH {
            return Ok(());
        }
        let message = format!("more than {} lists and objects inside one another", Document::MAX_DEPTH);
        Err(self.stop(code::TOO_DEEP, message, span))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.events.next() {
            Some(Ok((event, span))) => {
                let (start, end) = (self.places.byte(span.start.index()), self.places.byte(span.end.index()));
                Ok((event, Span { start, end: end.max(start) }))
            }
            Some(Err(error)) => Err(self.grammar(&error)),
            None => {
                let end = self.source.text.len();
                Err(self.stop(code::SYNTAX, "the file ends inside a document", Span { start: end, end }))
            }
        }
    }

    fn grammar(&mut self, error: &ScanError) -> Stop {
        let start = self.places.byte(error.marker().index());
        let message = format!("this is not YAML: {}", error.info());
        self.stop(code::SYNTAX, message, Span { start, end: start })
    }

    fn stop(&mut self, code: &'static str, message: impl Into<String>, span: Span) -> Stop {
        let mistake = self.mistake(code, message, span);
        self.mistakes.push(mistake);
        Stop
    }

    fn mistake(&self, code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        let origin = Origin { source: Arc::clone(self.source), span };
        Diagnostic::new(code, message, &origin, self.path.join("."))
    }
}

/// From a count of characters to a byte of the text.
enum Places {
    Ascii { len: usize },
    Other { starts: Vec<usize>, len: usize },
}

impl Places {
    fn of(text: &str) -> Places {
        let len = text.len();
        if text.is_ascii() {
            return Places::Ascii { len };
        }
        Places::Other { starts: text.char_indices().map(|(at, _)| at).collect(), len }
    }

    fn byte(&self, character: usize) -> usize {
        match self {
            Places::Ascii { len } => character.min(*len),
            Places::Other { starts, len } => starts.get(character).copied().unwrap_or(*len),
        }
    }
}

struct TooLarge;

/// What a plain word means; `None` if it is text.
fn plain(word: &str) -> Result<Option<Value>, TooLarge> {
    Ok(Some(match word {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => match whole_number(word)?.or_else(|| fraction(word)) {
            Some(number) => Value::Number(number),
            None => return Ok(None),
        },
    }))
}

fn whole_number(word: &str) -> Result<Option<Number>, TooLarge> {
    let (is_negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let digits =
        if digits.starts_with('_') && base == 10 { return Ok(None) } else { digits.replace('_', "") };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let magnitude = i128::from_str_radix(&digits, base).map_err(|_| TooLarge)?;
    let number = if is_negative { -magnitude } else { magnitude };
    let number = i64::try_from(number).map(Number::from).or_else(|_| u64::try_from(number).map(Number::from));
    number.map(Some).map_err(|_| TooLarge)
}

/// Digits with a point among them or in front; an exponent has its sign.
fn fraction(word: &str) -> Option<Number> {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['-', '+'])?),
        None => (unsigned, "0"),
    };
    let (whole, part) = mantissa.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let has_digit = [whole, part].iter().any(|text| text.bytes().any(|b| b.is_ascii_digit()));
    let good = digits(whole) && digits(part) && has_digit && !exponent.is_empty() && digits(exponent);
    good.then(|| word.replace('_', "").parse().ok().and_then(Number::from_f64)).flatten()
}
