//! Expressions: what the search grows, what laws are written in, what `--potential` takes.
//!
//! An expression is a flat postfix list of nodes: children stand before their operator, so the last
//! node is the root, and a sub-tree is a contiguous range.

/// A function of one, two or three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// IF(c, a, b): a where c > 0, b elsewhere
    If,
}

/// One node of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// A number; the search fits it.
    Constant(f64),
    /// The value of a variable, by its position in the table's columns.
    Variable(u16),
    /// An operator on the 1–3 sub-trees before it.
    Op(Op),
}

/// An expression in postfix order. Never empty, always well-formed.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    nodes: Vec<Node>,
}

impl Expression {
    /// The nodes, children before their operator.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
