//! The types that the API server gives to the parts of an expression.
//!
//! It refuses an expression whose parts cannot fit together before it ever sees a pod: `1 == 1.0`, or `'a' + 1`. The
//! evaluator would find an answer for some of these, so the check is done here. The pod itself is of type [`Type::Any`],
//! about which nothing is known beforehand.

use std::fmt;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::VISIT;

/// What is known of a value before it is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    /// What `type(x)` yields.
    Kind,
    Quantity,
    List(Box<Type>),
    Map(Box<(Type, Type)>),
}

use Type::{Any, Bool, Bytes, Double, Int, Kind, List, Map, Null, Quantity, String as Text, Uint};

/// Whether an expression that has passed `check` fits together and yields a boolean. The error is the rest of a sentence.
pub(super) fn yields_boolean(tree: &IdedExpr) -> Result<(), String> {
    match Checker::default().infer(tree)? {
        Bool => Ok(()),
        Any => Err("must yield a boolean: compare the value with something, as in `.. == true`".to_owned()),
        other => Err(format!("must yield a boolean, and yields {other}")),
    }
}

/// Variables of the comprehensions around the present place, innermost last.
#[derive(Default)]
struct Checker {
    scope: Vec<(String, Type)>,
}

impl Checker {
    fn infer(&mut self, node: &IdedExpr) -> Result<Type, String> {
        match &node.expr {
            Expr::Literal(literal) => Ok(literal_type(literal)),
            Expr::Ident(name) => Ok(self.variable(name)),
            Expr::Select(select) => {
                let operand = self.infer(&select.operand)?;
                match (operand, select.test) {
                    (Any | Map(_), true) => Ok(Bool),
                    (Any, false) => Ok(Any),
                    (Map(entry), false) => Ok(entry.1),
                    (other, _) => Err(format!("{other} has no field {}", select.field)),
                }
            }
            Expr::List(list) => Ok(List(Box::new(self.common(&list.elements)?))),
            Expr::Map(map) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        keys.push(self.infer(&entry.key)?);
                        values.push(self.infer(&entry.value)?);
                    }
                }
                Ok(Map(Box::new((common(keys), common(values)))))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) | Expr::Unspecified => Ok(Any),
        }
    }

    fn variable(&self, name: &str) -> Type {
        if let Some((_, bound)) = self.scope.iter().rev().find(|(bound, _)| bound == name) {
            return bound.clone();
        }
        if super::check::TYPES.contains(&name) { Kind } else { Any }
    }

    fn common(&mut self, nodes: &[IdedExpr]) -> Result<Type, String> {
        Ok(common(nodes.iter().map(|node| self.infer(node)).collect::<Result<Vec<_>, _>>()?))
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Result<Type, String> {
        let ComprehensionExpr { iter_range, iter_var, iter_var2: _, accu_var, accu_init, loop_cond, loop_step, result } =
            comprehension;
        let element = match self.infer(iter_range)? {
            Any => Any,
            List(element) => *element,
            Map(entry) => entry.0,
            other => return Err(format!("{other} has no elements")),
        };
        let accumulated = self.infer(accu_init)?;
        let outside = self.scope.len();
        self.scope.extend([(iter_var.clone(), element), (accu_var.clone(), accumulated)]);
        self.infer(loop_cond)?;
        let step = self.infer(loop_step)?;
        // After the first step the accumulator may be more precise than `[]`, which is a list of anything.
        if let Some((_, accumulated)) = self.scope.last_mut()
            && matches!(accumulated, List(_))
        {
            *accumulated = step;
        }
        let result = self.infer(result);
        self.scope.truncate(outside);
        result
    }

    fn call(&mut self, call: &CallExpr) -> Result<Type, String> {
        let operands = call.target.iter().map(|target| &**target).chain(&call.args);
        let operands = operands.map(|node| self.infer(node)).collect::<Result<Vec<_>, _>>()?;
        let name = call.func_name.as_str();
        let found = match operands.as_slice() {
            [only] => unary(name, only),
            [left, right] => binary(name, left, right),
            [condition, yes, no] if name == operators::CONDITIONAL && condition.may_be(&Bool) && yes.may_be(no) => {
                Some(match (yes, no) {
                    // Both are what a comprehension has gathered, or not yet.
                    (List(_), List(_)) => precise(yes, no),
                    _ if yes == no => yes.clone(),
                    _ => Any,
                })
            }
            _ => None,
        };
        found.ok_or_else(|| {
            let operands: Vec<String> = operands.iter().map(ToString::to_string).collect();
            format!("{} is not defined for {}", shown(name), operands.join(" and "))
        })
    }
}

/// Type of a function or operator with one operand; `None` where there is none.
fn unary(name: &str, operand: &Type) -> Option<Type> {
    let takes = |types: &[Type]| types.iter().any(|allowed| operand.may_be(allowed));
    let of = |types: &[Type], yields: Type| takes(types).then_some(yields);
    if name.starts_with("@matches") {
        return of(&[Text], Bool);
    }
    match name {
        VISIT => Some(operand.clone()),
        operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE => of(&[Bool], Bool),
        operators::NEGATE => of(&[Int, Double], operand.clone()),
        "size" => of(&[Text, Bytes, List(Box::new(Any)), Map(Box::new((Any, Any)))], Int),
        "int" => of(&[Int, Uint, Double, Text], Int),
        "uint" => of(&[Int, Uint, Double, Text], Uint),
        "double" => of(&[Int, Uint, Double, Text], Double),
        "string" => of(&[Int, Uint, Double, Text, Bool, Bytes], Text),
        "bytes" => of(&[Text, Bytes], Bytes),
        "bool" => of(&[Bool, Text], Bool),
        "dyn" => Some(Any),
        "type" => Some(Kind),
        "quantity" => of(&[Text], Quantity),
        "sign" | "asInteger" => of(&[Quantity], Int),
        "isInteger" => of(&[Quantity], Bool),
        "asApproximateFloat" => of(&[Quantity], Double),
        _ => None,
    }
}

/// Type of a function or operator with two operands.
fn binary(name: &str, left: &Type, right: &Type) -> Option<Type> {
    let numeric = |operand: &Type| [Int, Uint, Double].iter().any(|number| operand.may_be(number));
    let both = |types: &[Type]| types.iter().any(|allowed| left.may_be(allowed) && right.may_be(allowed));
    let precise = || precise(left, right);
    match name {
        operators::LOGICAL_AND | operators::LOGICAL_OR => both(&[Bool]).then_some(Bool),
        operators::EQUALS | operators::NOT_EQUALS => left.may_be(right).then_some(Bool),
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
            ((numeric(left) && numeric(right)) || both(&[Text, Bytes, Bool])).then_some(Bool)
        }
        operators::ADD => (both(&[Int, Uint, Double, Text, Bytes, List(Box::new(Any))]) && left.may_be(right)).then(precise),
        operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE => both(&[Int, Uint, Double]).then(precise),
        operators::MODULO => both(&[Int, Uint]).then(precise),
        operators::IN => match right {
            Any => Some(Bool),
            List(element) => left.may_be(element).then_some(Bool),
            Map(entry) => left.may_be(&entry.0).then_some(Bool),
            _ => None,
        },
        operators::INDEX => match left {
            Any => Some(Any),
            List(element) => right.may_be(&Int).then(|| (**element).clone()),
            Map(entry) => right.may_be(&entry.0).then(|| entry.1.clone()),
            _ => None,
        },
        "contains" | "startsWith" | "endsWith" => both(&[Text]).then_some(Bool),
        "compareTo" => both(&[Quantity]).then_some(Int),
        "isGreaterThan" | "isLessThan" => both(&[Quantity]).then_some(Bool),
        "add" | "sub" => (left.may_be(&Quantity) && (right.may_be(&Quantity) || right.may_be(&Int))).then_some(Quantity),
        _ => None,
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Bool,
        LiteralValue::Bytes(_) => Bytes,
        LiteralValue::Double(_) => Double,
        LiteralValue::Int(_) => Int,
        LiteralValue::Null => Null,
        LiteralValue::String(_) => Text,
        LiteralValue::UInt(_) => Uint,
    }
}

/// Of two types that may be the same the one of which more is known.
fn precise(left: &Type, right: &Type) -> Type {
    match (left, right) {
        (Any, known) => known.clone(),
        (List(element), known) if **element == Any => known.clone(),
        (known, _) => known.clone(),
    }
}

/// The type of all of them, or anything.
fn common(types: Vec<Type>) -> Type {
    let mut types = types.into_iter();
    let Some(first) = types.next() else { return Any };
    if types.all(|other| other == first) { first } else { Any }
}

/// An operator as it is written.
fn shown(name: &str) -> String {
    match name {
        operators::IN => "operator in".to_owned(),
        operators::CONDITIONAL => "operator ? :".to_owned(),
        operators::INDEX => "operator []".to_owned(),
        name if name.starts_with("@matches") => "function matches".to_owned(),
        name if name.contains('_') => format!("operator {}", name.replace('_', "")),
        name => format!("function {name}"),
    }
}

// === impl Type ===

impl Type {
    /// Whether a value of this type can be of the other type.
    fn may_be(&self, other: &Type) -> bool {
        match (self, other) {
            (Any, _) | (_, Any) => true,
            (List(this), List(other)) => this.may_be(other),
            (Map(this), Map(other)) => this.0.may_be(&other.0) && this.1.may_be(&other.1),
            (this, other) => this == other,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Any => "a value of any type",
            Bool => "a boolean",
            Int => "an int",
            Uint => "a uint",
            Double => "a double",
            Text => "a string",
            Bytes => "bytes",
            Null => "null",
            Kind => "a type",
            Quantity => "a quantity",
            List(_) => "a list",
            Map(_) => "a map",
        })
    }
}
