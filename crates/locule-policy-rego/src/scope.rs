//! Finds references to what no review document has, and comparisons that can never hold: following what is known
//! of variables, and silent where nothing is.

use std::collections::BTreeMap;

use locule_config::{Diagnostic, Diagnostics, suggest};
use regorus::unstable::{
    AssignOp, BoolOp, Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead, Span,
};
use serde_json::Value as Json;

use crate::code;
use crate::policy::PACKAGE;
use crate::shape::Shape;

/// Every mistake of this sort in a module.
pub(crate) fn never_there(module: &Ref<Module>, name: &str, text: &str) -> Diagnostics {
    let rules = crate::reach::names(module).into_iter().map(|rule| (rule, Shape::Any));
    let data = Shape::entries([(PACKAGE.to_owned(), Shape::entries(rules))]);
    let mut known = BTreeMap::from([("input".to_owned(), Shape::input()), ("data".to_owned(), data)]);
    let mut reader = Reader { name, text, mistakes: Diagnostics::new() };
    for import in &module.imports {
        let shape = reader.shape(&import.refr, &known);
        let alias = import.r#as.as_ref().map(|alias| alias.text().to_owned());
        let last = import.refr.span().text().rsplit('.').next().unwrap_or_default().to_owned();
        known.insert(alias.unwrap_or(last), shape);
    }
    // A rule that is no more than another name for a part of the document.
    for rule in &module.policy {
        if let Some((rule_name, value)) = alias(rule)
            && module.policy.iter().filter(|other| crate::reach::name(other) == rule_name).count() == 1
        {
            let mut silent = Reader { name, text, mistakes: Diagnostics::new() };
            let shape = silent.shape(value, &known);
            known.insert(rule_name, shape);
        }
    }
    module.policy.iter().for_each(|rule| reader.rule(rule, &known));
    reader.mistakes
}

fn alias(rule: &Rule) -> Option<(String, &Ref<Expr>)> {
    let Rule::Spec { head: RuleHead::Compr { assign: Some(assign), .. }, bodies, .. } = rule else {
        return None;
    };
    let is_plain = bodies.iter().all(|body| body.query.stmts.is_empty());
    is_plain.then(|| (crate::reach::name(rule), &assign.value))
}

type Known = BTreeMap<String, Shape>;

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    mistakes: Diagnostics,
}

impl Reader<'_> {
    fn rule(&mut self, rule: &Rule, known: &Known) {
        let (head, bodies) = match rule {
            Rule::Spec { head, bodies, .. } => (head, bodies),
            Rule::Default { value, .. } => {
                self.shape(value, known);
                return;
            }
        };
        let mut known = known.clone();
        let (value, key) = match head {
            RuleHead::Compr { assign, .. } => (assign.as_ref(), None),
            RuleHead::Set { key, .. } => (None, key.as_ref()),
            RuleHead::Func { args, assign, .. } => {
                args.iter().for_each(|arg| forget(arg, &mut known));
                (assign.as_ref(), None)
            }
        };
        // What the first body binds, the head sees; further ones (`else`) have values of their own.
        for (number, body) in bodies.iter().enumerate() {
            let mut inner = known.clone();
            self.query(&body.query, &mut inner);
            if let Some(assign) = &body.assign {
                self.shape(&assign.value, &inner);
            }
            if number == 0 {
                value.map(|assign| self.shape(&assign.value, &inner));
                key.map(|key| self.shape(key, &inner));
            }
        }
        if bodies.is_empty() {
            value.map(|assign| self.shape(&assign.value, &known));
            key.map(|key| self.shape(key, &known));
        }
    }

    fn query(&mut self, query: &Query, known: &mut Known) {
        // Statements may stand in any order: what later ones bind counts in earlier ones, so bind first.
        for _ in 0..2 {
            let mut silent = Reader { name: self.name, text: self.text, mistakes: Diagnostics::new() };
            query.stmts.iter().for_each(|statement| silent.bind(statement, known));
        }
        query.stmts.iter().for_each(|statement| self.statement(statement, known));
    }

    fn bind(&mut self, statement: &LiteralStmt, known: &mut Known) {
        match &statement.literal {
            Literal::SomeIn { key, value, collection, .. } => {
                let shape = self.shape(collection, known).inside();
                if let Some(key) = key {
                    forget(key, known);
                }
                learn(value, shape, known);
            }
            Literal::SomeVars { vars, .. } => {
                for var in vars {
                    // Unless something binds it, nothing is known of it; and it hides what had its name.
                    known.entry(var.text().to_owned()).or_insert(Shape::Any);
                }
            }
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { op, lhs, rhs, .. } = &**expr {
                    let shape = self.shape(rhs, known);
                    match (op, variable(lhs)) {
                        (AssignOp::ColEq, Some(_)) => learn(lhs, shape, known),
                        (AssignOp::Eq, Some(name)) if !known.contains_key(name) => learn(lhs, shape, known),
                        (AssignOp::ColEq, None) => forget(lhs, known),
                        (AssignOp::Eq, _) => {}
                    }
                }
            }
            Literal::NotExpr { .. } | Literal::Every { .. } => {}
        }
    }

    fn statement(&mut self, statement: &LiteralStmt, known: &Known) {
        // Under `with`, `input` is another one.
        let mut without = known.clone();
        for change in &statement.with_mods {
            self.shape(&change.r#as, known);
            if root(&change.refr) == Some("input") {
                without.insert("input".to_owned(), Shape::Any);
            }
        }
        let known = &without;
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { collection, .. } => {
                self.shape(collection, known);
            }
            Literal::Expr { expr, .. } => {
                if let Expr::Bool { value, span, .. } = &**expr
                    && *value == regorus::Value::Bool(false)
                {
                    self.report(code::NEVER_COUNTS, "with `false` in it, this can never hold", span);
                }
                self.shape(expr, known);
            }
            Literal::NotExpr { expr, .. } => {
                self.shape(expr, known);
            }
            Literal::Every { key, value, domain, query, .. } => {
                let mut inner = known.clone();
                let shape = self.shape(domain, known).inside();
                if let Some(key) = key {
                    inner.insert(key.text().to_owned(), Shape::Any);
                }
                inner.insert(value.text().to_owned(), shape);
                self.query(query, &mut inner);
            }
        }
    }

    /// What an expression yields; what is wrong in it is reported.
    fn shape(&mut self, expr: &Ref<Expr>, known: &Known) -> Shape {
        match &**expr {
            Expr::Var { span, .. } => known.get(span.text()).cloned().unwrap_or(Shape::Any),
            Expr::RefDot { refr, field, .. } => {
                let from = self.shape(refr, known);
                self.step(&from, refr, field.0.text(), &field.0)
            }
            Expr::RefBrack { refr, index, .. } => {
                let from = self.shape(refr, known);
                self.shape(index, known);
                match literal(index) {
                    Some(Json::String(key)) => self.step(&from, refr, &key, index.span()),
                    Some(_) | None => from.inside(),
                }
            }
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                self.compare(*op == BoolOp::Eq, lhs, rhs, known);
                Shape::Any
            }
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                self.compare(*op == AssignOp::Eq, lhs, rhs, known);
                Shape::Any
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().for_each(|item| drop(self.shape(item, known)));
                Shape::Any
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.shape(key, known);
                    self.shape(value, known);
                }
                Shape::Any
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                let mut inner = known.clone();
                self.query(query, &mut inner);
                self.shape(term, &inner);
                Shape::Any
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                let mut inner = known.clone();
                self.query(query, &mut inner);
                self.shape(key, &inner);
                self.shape(value, &inner);
                Shape::Any
            }
            Expr::Call { fcn, params, .. } => {
                if fcn.span().text() == "rand.intn" {
                    let message = "a policy judges a plan alike each time, and `rand.intn` does not";
                    self.report(code::CONTRACT, message, fcn.span());
                }
                params.iter().for_each(|param| drop(self.shape(param, known)));
                Shape::Any
            }
            Expr::UnaryExpr { expr, .. } => {
                self.shape(expr, known);
                Shape::Any
            }
            Expr::BinExpr { lhs, rhs, .. } | Expr::ArithExpr { lhs, rhs, .. } => {
                self.shape(lhs, known);
                self.shape(rhs, known);
                Shape::Any
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().chain([value]).for_each(|one| drop(self.shape(one, known)));
                let items = self.shape(collection, known).inside();
                self.compare_to(value, &items);
                Shape::Any
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => Shape::Any,
        }
    }

    fn step(&mut self, from: &Shape, owner: &Ref<Expr>, key: &str, span: &Span) -> Shape {
        let owner = owner.span().text();
        match from {
            Shape::Any => Shape::Any,
            Shape::Entries(entries) => entries.get(key).cloned().unwrap_or_else(|| {
                let mistake =
                    self.mistake(code::NEVER_THERE, format!("`{owner}` has no `{key}`, ever"), span);
                let known: Vec<&str> = entries.keys().map(String::as_str).collect();
                let mistake = match suggest(key, known.iter().copied()) {
                    Some(near) => mistake.label(format!("did you mean `{near}`?")),
                    None => mistake,
                };
                self.mistakes.push(mistake.help(format!("it has {}", known.join(", "))));
                Shape::Any
            }),
            Shape::List(_) => {
                let message = format!("`{owner}` is a list, and its items have numbers, no `{key}`");
                let help = format!("write `some item in {owner}`, or `{owner}[_].{key}`");
                let mistake = self.mistake(code::NEVER_THERE, message, span).help(help);
                self.mistakes.push(mistake);
                Shape::Any
            }
            Shape::Plain(_) => {
                let message = format!("`{owner}` is {}, which has no `{key}`", from.sort());
                self.report(code::NEVER_THERE, &message, span);
                Shape::Any
            }
        }
    }

    fn compare(&mut self, is_equality: bool, lhs: &Ref<Expr>, rhs: &Ref<Expr>, known: &Known) {
        let (left, right) = (self.shape(lhs, known), self.shape(rhs, known));
        if is_equality {
            self.compare_to(rhs, &left);
            self.compare_to(lhs, &right);
        }
    }

    /// Reports a literal that can never be what it is compared with.
    fn compare_to(&mut self, expr: &Ref<Expr>, shape: &Shape) {
        let Some(value) = literal(expr).filter(|value| !shape.may_be(value)) else { return };
        let words = match shape {
            Shape::Plain(plain) => plain.words.as_deref(),
            Shape::Any | Shape::Entries(_) | Shape::List(_) => None,
        };
        let mut mistake = self.mistake(
            code::NEVER_EQUAL,
            format!("{value} never stands there, so this can never hold"),
            expr.span(),
        );
        mistake = match words {
            Some(words) => {
                let texts: Vec<&str> = words.iter().filter_map(Json::as_str).collect();
                let near = value.as_str().and_then(|word| suggest(word, texts.iter().copied()));
                if let Some(near) = near {
                    mistake = mistake.label(format!("did you mean \"{near}\"?"));
                }
                let known: Vec<String> = words.iter().map(Json::to_string).collect();
                mistake.help(format!("there stands {}", known.join(", ")))
            }
            None => mistake.help(format!("there stands {}", shape.sort())),
        };
        self.mistakes.push(mistake);
    }

    fn report(&mut self, code: &'static str, message: &str, span: &Span) {
        let mistake = self.mistake(code, message.to_owned(), span);
        self.mistakes.push(mistake);
    }

    fn mistake(&self, code: &'static str, message: String, span: &Span) -> Diagnostic {
        Diagnostic::in_text(code, message, self.name, self.text, span.start as usize..span.end as usize)
    }
}

fn variable(expr: &Ref<Expr>) -> Option<&str> {
    if let Expr::Var { span, .. } = &**expr { Some(span.text()) } else { None }
}

/// The variable that a reference begins with.
fn root(expr: &Ref<Expr>) -> Option<&str> {
    if let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = &**expr {
        root(refr)
    } else {
        variable(expr)
    }
}

fn literal(expr: &Ref<Expr>) -> Option<Json> {
    if let Expr::String { value, .. }
    | Expr::RawString { value, .. }
    | Expr::Number { value, .. }
    | Expr::Bool { value, .. }
    | Expr::Null { value, .. } = &**expr
    {
        serde_json::to_value(value).ok()
    } else {
        None
    }
}

/// A variable has a shape from here on; of those in a pattern nothing is known.
fn learn(pattern: &Ref<Expr>, shape: Shape, known: &mut Known) {
    match variable(pattern) {
        Some(name) => {
            known.insert(name.to_owned(), shape);
        }
        None => forget(pattern, known),
    }
}

fn forget(pattern: &Ref<Expr>, known: &mut Known) {
    if let Expr::Var { span, .. } = &**pattern {
        known.insert(span.text().to_owned(), Shape::Any);
    } else if let Expr::Array { items, .. } = &**pattern {
        items.iter().for_each(|item| forget(item, known));
    } else if let Expr::Object { fields, .. } = &**pattern {
        fields.iter().for_each(|(_, _, value)| forget(value, known));
    }
}
