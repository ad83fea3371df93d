//! `matchConditions`: conditions on a pod in Kubernetes CEL.
//!
//! An expression must mean the same here and in the API server, because generated admission policies carry it too. So
//! only the standard macros and functions are let through, and `quantity` with its methods; what the crate `cel` would
//! do differently is done here (patterns of `matches`) or refused.
//!
//! The crate has no evaluation budget, so cost is bounded in four ways: length of the source, nesting of
//! comprehensions, length and memory of compiled patterns, and the number of elements that one evaluation may visit.
//! The author of an expression is an administrator; the bounds are there for pods that make an innocent expression
//! expensive.

mod check;
mod pattern;
mod quantity;
mod types;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::functions::FunctionContext;
use cel::{Context, Env, ExecutionError, Value as CelValue};
use regex::Regex;
use serde_json::Value;

use crate::api::Invalid;

/// Longest source of an expression, in characters; the same bound stands in the schema.
pub const SOURCE_CHARACTERS_MAX: usize = 2048;

/// Elements of lists and maps that one evaluation may visit: 100 containers with 100 variables each, twice over. At
/// about a microsecond per element an evaluation stays far below the pace of the watch that it serves.
pub const VISITS_MAX: usize = 20_000;

/// Deepest nesting of brackets.
const BRACKETS_MAX: u16 = 40;

/// Stack of the thread that parses. Measured without optimisation, a pair of brackets takes 0.1 MB and an operator in a
/// chain 10 kB, and there is room for 1,000 operators in an expression; most of it is never touched.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// Name of the pod in an expression.
const OBJECT: &str = "object";
/// Name of the pod's namespace in an expression.
const NAMESPACE: &str = "namespaceObject";
/// Function that charges the elements of a comprehension's range; it cannot be written in CEL.
const VISIT: &str = "@visit";

/// The functions that expressions may use. Immutable, and the same for every expression.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    quantity::declare(&mut env).expect("the standard library declares no quantities");
    Arc::new(env)
});

/// A compiled condition.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    tree: Arc<IdedExpr>,
    /// Compiled patterns of `matches`, in the order in which they stand in `tree`.
    patterns: Arc<[Regex]>,
}

/// A pod and its namespace, prepared once for many expressions.
pub struct Subject<'v> {
    context: Context<'v, 'v>,
    visits: Arc<AtomicUsize>,
}

/// Why an expression gave no answer. The pod then counts as not selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvaluationError {
    /// It would have visited more than [`VISITS_MAX`] elements.
    TooCostly,
    /// It yielded something that is no boolean.
    NotBoolean,
    /// It failed, for example because a field is absent.
    Failed {
        /// The evaluator's words.
        message: String,
    },
}

// === impl Expression ===

impl Expression {
    /// Reads an expression. The error has an empty field, as only the caller knows where the expression stands.
    pub fn compile(source: &str) -> Result<Expression, Invalid> {
        let refuse = |allowed: String| Invalid::new("", source, allowed);
        let length = source.chars().count();
        if length > SOURCE_CHARACTERS_MAX {
            return Err(refuse(format!("must have at most {SOURCE_CHARACTERS_MAX} characters, and has {length}")));
        }
        let mut tree = parse(source).map_err(refuse)?;
        let patterns = check::check(&mut tree).map_err(refuse)?;
        Ok(Expression { source: Arc::from(source), tree: Arc::new(tree), patterns: Arc::from(patterns) })
    }

    /// The source it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the condition holds for this pod in this namespace. For several conditions on one pod, use [`Subject`].
    pub fn matches(&self, object: &Value, namespace: &Value) -> Result<bool, EvaluationError> {
        Subject::new(object, namespace).matches(self)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// Two expressions are equal if their sources are.
impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

// === impl Subject ===

impl<'v> Subject<'v> {
    /// Prepares a pod and its namespace; strings are borrowed.
    pub fn new(object: &'v Value, namespace: &'v Value) -> Subject<'v> {
        let mut context = Context::with_env(Arc::clone(&LANGUAGE));
        context.add_variable_as_val(OBJECT, value(object));
        context.add_variable_as_val(NAMESPACE, value(namespace));
        let visits = Arc::new(AtomicUsize::new(0));
        let charged = Arc::clone(&visits);
        add(&mut context, VISIT, Box::new(move |call| visit(call, &charged)));
        Subject { context, visits }
    }

    /// Whether the condition holds.
    pub fn matches(&mut self, expression: &Expression) -> Result<bool, EvaluationError> {
        self.visits.store(0, Ordering::Relaxed);
        for (index, pattern) in expression.patterns.iter().enumerate() {
            let pattern = pattern.clone();
            add(&mut self.context, &check::pattern_function(index), Box::new(move |call| find(call, &pattern)));
        }
        let result = CelValue::resolve_val(&expression.tree, &self.context);
        if self.visits.load(Ordering::Relaxed) > VISITS_MAX {
            return Err(EvaluationError::TooCostly);
        }
        match result {
            Ok(value) => value.downcast_ref::<CelBool>().map(|value| *value.inner()).ok_or(EvaluationError::NotBoolean),
            Err(error) => Err(EvaluationError::Failed { message: one_line(&error.to_string()) }),
        }
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Subject").finish_non_exhaustive()
    }
}

// === impl EvaluationError ===

impl EvaluationError {
    /// Stable label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            EvaluationError::TooCostly => "too_costly",
            EvaluationError::NotBoolean => "not_boolean",
            EvaluationError::Failed { .. } => "failed",
        }
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvaluationError::TooCostly => write!(out, "the expression visits more than {VISITS_MAX} elements of this pod"),
            EvaluationError::NotBoolean => out.write_str("the expression yields no boolean"),
            EvaluationError::Failed { message } => write!(out, "the expression fails: {message}"),
        }
    }
}

impl std::error::Error for EvaluationError {}

/// Parses on a thread of its own, because the generated parser takes much stack for every pair of brackets, and may be
/// called from a worker thread that has little. The error is the rest of a sentence.
fn parse(source: &str) -> Result<IdedExpr, String> {
    let parsing = || LANGUAGE.parser().max_recursion_depth(BRACKETS_MAX).parse(source);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, parsing);
        let parsed = thread.map_err(|error| format!("cannot be parsed now: {error}"))?.join();
        let tree = parsed.map_err(|_| "makes the parser fail".to_owned())?;
        tree.map_err(|errors| format!("is not CEL: {}", one_line(&errors.to_string())))
    })
}

// === functions of the evaluator ===

/// A function as the evaluator stores it: it may hand an argument back without copying it.
type Function = Box<
    dyn for<'context, 'call> Fn(&mut FunctionContext<'context, 'call>) -> Result<CowVal<'context, 'call>, ExecutionError>
        + Send
        + Sync,
>;

fn add(context: &mut Context<'_, '_>, name: &str, function: Function) {
    context.add_function(name, function).expect("names with an @ are no overloads of the language");
}

/// Charges for every element of a range before it is visited, and hands the range on.
fn visit<'context, 'call>(
    call: &mut FunctionContext<'context, 'call>,
    visits: &AtomicUsize,
) -> Result<CowVal<'context, 'call>, ExecutionError> {
    let range = call.args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    let length = range.as_sizer().map_or(0, |sizer| usize::try_from(*sizer.size().inner()).unwrap_or(usize::MAX));
    let total = visits.load(Ordering::Relaxed).saturating_add(length);
    visits.store(total, Ordering::Relaxed);
    if total > VISITS_MAX { Err(call.error("too many elements")) } else { Ok(range) }
}

fn find<'context, 'call>(
    call: &mut FunctionContext<'context, 'call>,
    pattern: &Regex,
) -> Result<CowVal<'context, 'call>, ExecutionError> {
    let text = call.this.as_ref().ok_or_else(ExecutionError::missing_argument_or_target)?;
    match text.downcast_ref::<CelString<'_>>() {
        Some(text) => Ok(CowVal::owned(CelBool::from(pattern.is_match(text.inner())))),
        None => Err(ExecutionError::no_such_member_overload("matches", vec![text.get_type().name().to_owned()])),
    }
}

/// JSON as the API server's CEL sees it: every whole number is an `int`.
fn value(json: &Value) -> Box<dyn Val + '_> {
    match json {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Box::new(CelInt::from(whole)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(value).collect::<Vec<_>>())),
        Value::Object(fields) => {
            let entry = |(name, field)| (CelMapKey::String(CelString::from(String::as_str(name))), value(field));
            Box::new(CelMap::from(fields.iter().map(entry).collect::<HashMap<_, _>>()))
        }
    }
}

/// Messages of the evaluator draw the place with several lines; conditions and Events have one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
