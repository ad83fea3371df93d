//! What an expression may contain, and the small changes that make it safe to evaluate.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::Regex;

use super::{NAMESPACE, OBJECT, VISIT, pattern, types};

/// Deepest nesting of comprehensions: a list of lists can be searched, and no more.
const NESTING_MAX: usize = 2;

/// Deepest tree: evaluation recurses once per level, on whatever stack it is called.
const DEPTH_MAX: usize = 32;

/// Names of types, which an expression may compare with `type(..)`.
pub(super) const TYPES: [&str; 9] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// Functions called as `f(x)`, with the number of their arguments.
const GLOBAL: [(&str, usize); 11] = [
    ("bool", 1),
    ("bytes", 1),
    ("double", 1),
    ("dyn", 1),
    ("int", 1),
    ("quantity", 1),
    // Documented as a member, and declared as a global function by the API server.
    ("sign", 1),
    ("size", 1),
    ("string", 1),
    ("type", 1),
    ("uint", 1),
];

/// Functions called as `x.f(y)`, with the number of their arguments.
const MEMBER: [(&str, usize); 12] = [
    ("add", 1),
    ("asApproximateFloat", 0),
    ("asInteger", 0),
    ("compareTo", 1),
    ("contains", 1),
    ("endsWith", 1),
    ("isGreaterThan", 1),
    ("isInteger", 0),
    ("isLessThan", 1),
    ("size", 0),
    ("startsWith", 1),
    ("sub", 1),
];

/// Operators, by the names that the parser gives them.
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// The name under which the evaluator finds the compiled pattern with this index.
pub(super) fn pattern_function(index: usize) -> String {
    format!("@matches{index}")
}

/// Refuses what may not be in an expression, and prepares the rest: ranges of comprehensions are charged for, and
/// `matches` gets its pattern compiled. Yields the patterns.
pub(super) fn check(tree: &mut IdedExpr) -> Result<Vec<Regex>, String> {
    let mut checker = Checker { scope: Vec::new(), nesting: 0, depth: 0, patterns: Vec::new() };
    checker.expression(tree)?;
    types::yields_boolean(tree)?;
    Ok(checker.patterns)
}

struct Checker {
    /// Variables of the comprehensions around the present place.
    scope: Vec<String>,
    nesting: usize,
    depth: usize,
    patterns: Vec<Regex>,
}

impl Checker {
    fn expression(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("is more than {DEPTH_MAX} operations deep"));
        }
        self.node(node)?;
        self.depth -= 1;
        Ok(())
    }

    fn node(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.expression(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.expression(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&mut entry.key)?;
                    self.expression(&mut entry.value)
                }
                EntryExpr::StructField(_) => Err(no_structures("of a field")),
            }),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(structure) => Err(no_structures(&structure.type_name)),
            Expr::Unspecified => Err("is empty".to_owned()),
        }
    }

    fn variable(&self, name: &str) -> Result<(), String> {
        if name == OBJECT || name == NAMESPACE || TYPES.contains(&name) || self.scope.iter().any(|bound| bound == name) {
            return Ok(());
        }
        Err(format!("variable {name} is not available; available are {OBJECT} (the pod) and {NAMESPACE}"))
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        if let Some(target) = &mut call.target {
            self.expression(target)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.expression(argument))?;
        let name = call.func_name.as_str();
        let arguments = call.args.len();
        if name == "matches" {
            return self.matches(call);
        }
        if call.target.is_none() && (OPERATORS.contains(&name) || name == operators::NOT_STRICTLY_FALSE) {
            return equality_of_quantities(call);
        }
        let known: &[(&str, usize)] = if call.target.is_some() { &MEMBER } else { &GLOBAL };
        match known.iter().find(|(known, _)| *known == name) {
            Some((_, expected)) if *expected == arguments => Ok(()),
            Some((_, expected)) => Err(format!("function {name} takes {expected} argument(s), and gets {arguments}")),
            None => Err(unavailable(name)),
        }
    }

    /// The pattern must be known now, so that it is compiled once, and with the API server's meaning.
    fn matches(&mut self, call: &mut CallExpr) -> Result<(), String> {
        let pattern = call.args.pop();
        let target = call.target.take().or_else(|| call.args.pop().map(Box::new));
        let (Some(pattern), Some(target), true) = (pattern, target, call.args.is_empty()) else {
            return Err("function matches takes a string and a pattern".to_owned());
        };
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            return Err("the pattern of matches must be a literal string".to_owned());
        };
        let compiled = pattern::compile(text.inner()).map_err(|error| format!("the pattern of matches {error}"))?;
        call.func_name = pattern_function(self.patterns.len());
        call.target = Some(target);
        self.patterns.push(compiled);
        Ok(())
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) -> Result<(), String> {
        let ComprehensionExpr { iter_range, iter_var, iter_var2, accu_var, accu_init, loop_cond, loop_step, result } =
            comprehension;
        if iter_var2.is_some() {
            return Err("comprehensions have one variable".to_owned());
        }
        // The range is evaluated before the loop, so a comprehension in it stands beside this one.
        self.expression(iter_range)?;
        charge(iter_range);
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("comprehensions may be nested {NESTING_MAX} deep"));
        }
        self.expression(accu_init)?;
        let outside = self.scope.len();
        self.scope.extend([iter_var.clone(), accu_var.clone()]);
        self.expression(loop_cond)?;
        self.expression(loop_step)?;
        self.expression(result)?;
        self.scope.truncate(outside);
        self.nesting -= 1;
        Ok(())
    }
}

/// `range` becomes `@visit(range)`.
fn charge(range: &mut IdedExpr) {
    let inner = std::mem::take(range);
    range.id = inner.id;
    range.expr = Expr::Call(CallExpr { func_name: VISIT.to_owned(), target: None, args: vec![inner] });
}

fn no_structures(name: &str) -> String {
    format!("structure {name} cannot be made here")
}

fn unavailable(name: &str) -> String {
    let mut known: Vec<&str> = GLOBAL.iter().chain(&MEMBER).map(|(name, _)| *name).chain(["matches"]).collect();
    known.sort_unstable();
    known.dedup();
    format!("function {name} is not available; available are the standard macros and {}", known.join(", "))
}

/// In the API server `a == b.add(c)` between quantities is an error, and `b.add(c) == a` is not. Neither is needed.
fn equality_of_quantities(call: &CallExpr) -> Result<(), String> {
    let computed = |node: &IdedExpr| matches!(&node.expr, Expr::Call(call) if call.func_name == "add" || call.func_name == "sub");
    let equality = call.func_name == operators::EQUALS || call.func_name == operators::NOT_EQUALS;
    if equality && call.args.iter().any(computed) {
        return Err("quantities that were added or subtracted are compared with compareTo".to_owned());
    }
    Ok(())
}
