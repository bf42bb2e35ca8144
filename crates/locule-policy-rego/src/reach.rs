//! Finds rules that `review` does not lead to, and names that nothing stands for.

use std::collections::{BTreeMap, BTreeSet};

use locule_config::{Diagnostic, Diagnostics, suggest};
use regorus::unstable::{BUILTINS, Expr, Literal, Module, Query, Ref, Rule, RuleHead, Span};

use crate::code;

/// A mistake for each of them.
pub(crate) fn unreached(module: &Ref<Module>, name: &str, text: &str) -> Diagnostics {
    let mut reached = BTreeSet::new();
    let mut open = vec!["review".to_owned()];
    while let Some(next) = open.pop() {
        if reached.insert(next.clone()) {
            for rule in module.policy.iter().filter(|rule| self::name(rule) == next) {
                let mut used = Used::default();
                used.rule(rule);
                let called = used.functions.iter().map(|span| rule_called(span.text()).to_owned());
                open.extend(called.chain(used.names.into_keys()).filter(|used| !reached.contains(used)));
            }
        }
    }
    let mut mistakes = Diagnostics::new();
    let mut told = BTreeSet::new();
    for rule in &module.policy {
        let rule_name = self::name(rule);
        if reached.contains(&rule_name) || rule_name.starts_with("test_") || !told.insert(rule_name.clone()) {
            continue;
        }
        let span = head(rule).span();
        let message = format!("the rule `{rule_name}` never counts: `review` does not lead to it");
        let bytes = span.start as usize..span.end as usize;
        let help = "use it in `review`, or in a rule that `review` uses, or take it out";
        mistakes.push(Diagnostic::in_text(code::NEVER_COUNTS, message, name, text, bytes).help(help));
    }
    mistakes
}

/// The name of the rule that a call may mean.
fn rule_called(function: &str) -> &str {
    let own = function.strip_prefix("data.locule.").unwrap_or(function);
    own.split(['.', '[']).next().unwrap_or(own)
}

/// The names of all rules.
pub(crate) fn names(module: &Ref<Module>) -> BTreeSet<String> {
    module.policy.iter().map(|rule| name(rule)).collect()
}

/// The name of a rule, without what follows a dot or bracket.
pub(crate) fn name(rule: &Rule) -> String {
    let mut refr = head(rule);
    while let Expr::RefDot { refr: inner, .. } | Expr::RefBrack { refr: inner, .. } = &**refr {
        refr = inner;
    }
    refr.span().text().to_owned()
}

pub(crate) fn head(rule: &Rule) -> &Ref<Expr> {
    match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
        },
        Rule::Default { refr, .. } => refr,
    }
}

/// A mistake for each function that there is not, and for each variable in a rule's head that nothing binds. Of
/// other variables the library says so itself.
pub(crate) fn undefined(module: &Ref<Module>, name: &str, text: &str) -> Diagnostics {
    let mut known = names(module);
    known.extend(["input".to_owned(), "data".to_owned()]);
    for import in &module.imports {
        let path = import.refr.span().text();
        let last = path.rsplit('.').next().unwrap_or(path);
        known.insert(import.r#as.as_ref().map_or(last, Span::text).to_owned());
    }
    let mut mistakes = Diagnostics::new();
    let mut report = |message: String, span: &Span, near: Option<&str>| {
        let bytes = span.start as usize..span.end as usize;
        let mistake = Diagnostic::in_text(code::UNDEFINED, message, name, text, bytes);
        mistakes.push(match near {
            Some(near) => mistake.label(format!("did you mean `{near}`?")),
            None => mistake,
        });
    };
    for rule in &module.policy {
        let mut used = Used::default();
        used.rule(rule);
        for span in &used.functions {
            let function = span.text();
            if !known.contains(rule_called(function))
                && !BUILTINS.contains_key(function)
                && function != "print"
            {
                let functions = BUILTINS.keys().copied().chain(known.iter().map(String::as_str));
                report(format!("there is no function `{function}`"), span, suggest(function, functions));
            }
        }
        let Rule::Spec { head, bodies, .. } = &**rule else { continue };
        let (mut of_head, mut bound) = (Used::default(), Used::default());
        match head {
            RuleHead::Compr { assign, .. } => assign.iter().for_each(|assign| of_head.expr(&assign.value)),
            RuleHead::Set { key, .. } => key.iter().for_each(|key| of_head.expr(key)),
            RuleHead::Func { args, assign, .. } => {
                args.iter().for_each(|arg| bound.expr(arg));
                assign.iter().for_each(|assign| of_head.expr(&assign.value));
            }
        }
        bodies.iter().for_each(|body| bound.query(&body.query));
        for (variable, span) in &of_head.names {
            if !known.contains(variable)
                && !bound.names.contains_key(variable)
                && !of_head.local.contains(variable)
            {
                let near = suggest(variable, bound.names.keys().map(String::as_str));
                report(format!("nothing gives `{variable}` a value"), span, near);
            }
        }
    }
    mistakes
}

/// Names that may be those of rules, each with a place of it.
#[derive(Default)]
struct Used {
    names: BTreeMap<String, Span>,
    functions: Vec<Span>,
    /// Those that occur in queries of comprehensions, which bind them for themselves.
    local: BTreeSet<String>,
}

impl Used {
    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { assign, refr, .. } => {
                        self.index(refr);
                        assign.iter().for_each(|assign| self.expr(&assign.value));
                    }
                    RuleHead::Set { key, refr, .. } => {
                        self.index(refr);
                        key.iter().for_each(|key| self.expr(key));
                    }
                    RuleHead::Func { args, assign, .. } => {
                        args.iter().for_each(|arg| self.expr(arg));
                        assign.iter().for_each(|assign| self.expr(&assign.value));
                    }
                }
                for body in bodies {
                    body.assign.iter().for_each(|assign| self.expr(&assign.value));
                    self.query(&body.query);
                }
            }
            Rule::Default { value, .. } => self.expr(value),
        }
    }

    /// What stands in the brackets of a head.
    fn index(&mut self, refr: &Ref<Expr>) {
        if let Expr::RefBrack { refr, index, .. } = &**refr {
            self.expr(index);
            self.index(refr);
        } else if let Expr::RefDot { refr, .. } = &**refr {
            self.index(refr);
        }
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            statement.with_mods.iter().for_each(|change| self.expr(&change.r#as));
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    self.names.extend(vars.iter().map(|var| (var.text().to_owned(), var.clone())));
                }
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().chain([value, collection]).for_each(|one| self.expr(one));
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.query(query);
                }
            }
        }
    }

    fn inner_query(&mut self, query: &Query) {
        let mut inner = Used::default();
        inner.query(query);
        self.functions.append(&mut inner.functions);
        self.local.extend(inner.names.keys().cloned());
        self.local.append(&mut inner.local);
        self.names.append(&mut inner.names);
    }

    fn expr(&mut self, expr: &Ref<Expr>) {
        match &**expr {
            Expr::Var { span, .. } => {
                self.names.insert(span.text().to_owned(), span.clone());
            }
            Expr::RefDot { refr, .. } => {
                if let Some(rule) = expr.span().text().strip_prefix("data.locule.") {
                    self.names.insert(rule_called(rule).to_owned(), expr.span().clone());
                }
                self.expr(refr);
            }
            Expr::RefBrack { refr, index, .. } => {
                self.expr(refr);
                self.expr(index);
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().for_each(|item| self.expr(item));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key);
                    self.expr(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expr(term);
                self.inner_query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expr(key);
                self.expr(value);
                self.inner_query(query);
            }
            Expr::Call { fcn, params, .. } => {
                self.functions.push(fcn.span().clone());
                params.iter().for_each(|param| self.expr(param));
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(lhs);
                self.expr(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().chain([value, collection]).for_each(|one| self.expr(one));
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
        }
    }
}
