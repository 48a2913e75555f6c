//! The operators of formulas.

use serde::{Deserialize, Serialize};

/// A function of one, two or three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Op {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// a ^ b; NaN for a negative base under a fractional power
    Pow,
    /// 1 where a > b, else 0
    Greater,
    /// 1 where a < b, else 0
    Less,
    /// the smaller of two
    Min,
    /// the larger of two
    Max,
    /// e^a
    Exp,
    /// natural logarithm; NaN for a ≤ 0
    Log,
    /// square root; NaN for a < 0
    Sqrt,
    /// |a|
    Abs,
    /// a²
    Square,
    /// a³
    Cube,
    /// −a
    Neg,
    /// sine
    Sin,
    /// cosine
    Cos,
    /// hyperbolic tangent
    Tanh,
    /// inverse sine; NaN outside [−1, 1]
    Asin,
    /// inverse cosine; NaN outside [−1, 1]
    Acos,
    /// inverse tangent
    Atan,
    /// IF(c, a, b): a where c > 0, b elsewhere
    If,
}

impl Op {
    /// Every operator, in the order of their numbers.
    pub const ALL: [Op; 23] = [
        Op::Add,
        Op::Sub,
        Op::Mul,
        Op::Div,
        Op::Pow,
        Op::Greater,
        Op::Less,
        Op::Min,
        Op::Max,
        Op::Exp,
        Op::Log,
        Op::Sqrt,
        Op::Abs,
        Op::Square,
        Op::Cube,
        Op::Neg,
        Op::Sin,
        Op::Cos,
        Op::Tanh,
        Op::Asin,
        Op::Acos,
        Op::Atan,
        Op::If,
    ];

    /// Number of operands.
    pub fn arity(self) -> usize {
        match self {
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Pow => 2,
            Op::Greater | Op::Less | Op::Min | Op::Max => 2,
            Op::If => 3,
            _ => 1,
        }
    }

    /// The name in texts and in `--operators`: a sign, or a function.
    pub fn name(self) -> &'static str {
        match self {
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
            Op::Div => "/",
            Op::Pow => "^",
            Op::Greater => ">",
            Op::Less => "<",
            Op::Min => "min",
            Op::Max => "max",
            Op::Exp => "exp",
            Op::Log => "log",
            Op::Sqrt => "sqrt",
            Op::Abs => "abs",
            Op::Square => "square",
            Op::Cube => "cube",
            Op::Neg => "neg",
            Op::Sin => "sin",
            Op::Cos => "cos",
            Op::Tanh => "tanh",
            Op::Asin => "asin",
            Op::Acos => "acos",
            Op::Atan => "atan",
            Op::If => "IF",
        }
    }

    /// The operator called `name`.
    pub fn from_name(name: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.name() == name)
    }

    /// The value for operands `[a]`, `[a, b]` or `[c, a, b]`.
    pub fn apply(self, values: &[f64]) -> f64 {
        let a = values[0];
        let b = values.get(1).copied().unwrap_or(f64::NAN);
        match self {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            Op::Pow => a.powf(b),
            Op::Greater => f64::from(u8::from(a > b)),
            Op::Less => f64::from(u8::from(a < b)),
            Op::Min => a.min(b),
            Op::Max => a.max(b),
            Op::Exp => a.exp(),
            Op::Log => a.ln(),
            Op::Sqrt => a.sqrt(),
            Op::Abs => a.abs(),
            Op::Square => a * a,
            Op::Cube => a * a * a,
            Op::Neg => -a,
            Op::Sin => a.sin(),
            Op::Cos => a.cos(),
            Op::Tanh => a.tanh(),
            Op::Asin => a.asin(),
            Op::Acos => a.acos(),
            Op::Atan => a.atan(),
            Op::If => [values[2], b][usize::from(a > 0.0)],
        }
    }
}
