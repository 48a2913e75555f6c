//! The operators of formulas, one row each. The rest of the program knows of them only what `operators!` below says;
//! the kernels have their own arms (`kernels/common/operators.cuh`). How to add one: docs/adding.md.

use serde::{Deserialize, Serialize};

/// The rows, passed to the named macro, which takes the columns it needs.
///
/// | column | |
/// | --- | --- |
/// | `Name { … }` | the other fields of a [`Row`]: name, spellings, units, complexity |
/// | `value(a, b)` | in f64 |
/// | `derivative(a da, b db)` | as an expression, from the operands and their derivatives (`derivative.rs`) |
/// | `vector(x, y) tests(y)` | in vectors `L` of f32 (`simd/f32s.rs`), and the operands whose infinity or NaN may not show in the value |
/// | `partial(d, x, y, v)` | the adjoint d times the derivative with respect to operand 0, 1, …; v is the value |
///
/// Operators are numbered in the order of the rows, here and in the kernels.
macro_rules! operators {
    ($take:ident) => {
        $take! {
            /// a + b
            Add { commutative: true, ..sign("+", "#a+ + #b*", SUM, Rule::Equal) }
                value(a, b) { a + b }
                derivative(_ da, _ db) { da + db }
                vector(x, y) tests() { x.add(y) }
                partial(d, x, y, v) { _ => d }
            /// a − b
            Sub { ..sign("-", "#a+ - #b*", SUM, Rule::Equal) }
                value(a, b) { a - b }
                derivative(_ da, _ db) { da - db }
                vector(x, y) tests() { x.sub(y) }
                partial(d, x, y, v) { 0 => d, _ => L::splat(0.0).sub(d) }
            /// a · b
            Mul {
                commutative: true,
                latex: Form(r"#a* \, #b^", PRODUCT),
                ..sign("*", "#a* * #b-", PRODUCT, Rule::Product(1.0))
            }
                value(a, b) { a * b }
                derivative(a da, b db) { da * b + a * db }
                vector(x, y) tests() { x.mul(y) }
                partial(d, x, y, v) { 0 => d.mul(y), _ => d.mul(x) }
            /// a / b
            Div {
                latex: Form(r"\frac{#a}{#b}", PRODUCT),
                ..sign("/", "#a* / #b-", PRODUCT, Rule::Product(-1.0))
            }
                value(a, b) { a / b }
                derivative(a da, b db) { da / b - a * db / (b * b) }
                vector(x, y) tests(y) { x.div(y) }
                partial(d, x, y, v) { 0 => d.div(y), _ => L::splat(0.0).sub(d.mul(v).div(y)) }
            /// a ^ b; NaN for a negative base under a fractional power
            Pow {
                complexity: 3,
                latex: Form("#a.^{#b}", POWER),
                // NumPy refuses negative powers of integer arrays.
                numpy: Form("np.power(1.0 * #a-, #b)", ATOM),
                sympy: Form("#a.**#b-", POWER),
                rust: Call("powf"),
                c: Call("pow"),
                ..sign("^", "#a.^#b-", POWER, Rule::Exponent)
            }
                value(a, b) { a.powf(b) }
                // (a^b)' = a^b (b' log a + b a'/a)
                derivative(a da, b db) {
                    if db.is(0.0) {
                        b * pow(a, b - number(1.0)) * da
                    } else {
                        pow(a, b) * (db * of(Op::Log, a) + b * da / a)
                    }
                }
                vector(x, y) tests(x, y) { x.pow(y) }
                partial(d, x, y, v) {
                    // b a^(b−1) = b a^b / a; taken as flat at a = 0.
                    0 => {
                        let slope = d.mul(y).mul(v).div(x);
                        x.abs().where_greater(L::splat(0.0), slope, L::splat(0.0))
                    },
                    // a^b log a; taken as flat at a ≤ 0.
                    _ => x.where_greater(L::splat(0.0), d.mul(v).mul(x.log()), L::splat(0.0))
                }
            /// 1 where a > b, else 0
            Greater {
                latex: Form(r"\left[#a+ > #b+\right]", ATOM),
                numpy: Form("np.where(#a+ > #b+, 1.0, 0.0)", ATOM),
                sympy: Form("sp.Piecewise((1, #a+ > #b+), (0, True))", ATOM),
                rust: Form("f64::from(u8::from(#a+ > #b+))", ATOM),
                c: Form("(#a+ > #b+ ? 1.0 : 0.0)", ATOM),
                // Always in brackets, so that Python's chaining of comparisons never applies.
                ..sign(">", "(#a+ > #b+)", ATOM, Rule::Comparison)
            }
                value(a, b) { f64::from(u8::from(a > b)) }
                derivative(_ _, _ _) { number(0.0) }
                vector(x, y) tests(x, y) { x.where_greater(y, L::splat(1.0), L::splat(0.0)) }
                partial(d, x, y, v) { _ => L::splat(0.0) }
            /// 1 where a < b, else 0
            Less {
                latex: Form(r"\left[#a+ < #b+\right]", ATOM),
                numpy: Form("np.where(#a+ < #b+, 1.0, 0.0)", ATOM),
                sympy: Form("sp.Piecewise((1, #a+ < #b+), (0, True))", ATOM),
                rust: Form("f64::from(u8::from(#a+ < #b+))", ATOM),
                c: Form("(#a+ < #b+ ? 1.0 : 0.0)", ATOM),
                ..sign("<", "(#a+ < #b+)", ATOM, Rule::Comparison)
            }
                value(a, b) { f64::from(u8::from(a < b)) }
                derivative(_ _, _ _) { number(0.0) }
                vector(x, y) tests(x, y) { y.where_greater(x, L::splat(1.0), L::splat(0.0)) }
                partial(d, x, y, v) { _ => L::splat(0.0) }
            /// the smaller of two
            Min {
                commutative: true,
                units: Rule::Equal,
                numpy: Call("minimum"),
                sympy: Call("Min"),
                c: Call("fmin"),
                ..call("min")
            }
                value(a, b) { a.min(b) }
                derivative(a da, b db) { choose(b - a, da, db) }
                vector(x, y) tests(x, y) { x.min(y) }
                partial(d, x, y, v) {
                    0 => y.where_greater(x, d, L::splat(0.0)),
                    _ => y.where_greater(x, L::splat(0.0), d)
                }
            /// the larger of two
            Max {
                commutative: true,
                units: Rule::Equal,
                numpy: Call("maximum"),
                sympy: Call("Max"),
                c: Call("fmax"),
                ..call("max")
            }
                value(a, b) { a.max(b) }
                derivative(a da, b db) { choose(a - b, da, db) }
                vector(x, y) tests(x, y) { x.max(y) }
                partial(d, x, y, v) {
                    0 => x.where_greater(y, d, L::splat(0.0)),
                    _ => x.where_greater(y, L::splat(0.0), d)
                }
            /// e^a
            Exp {
                complexity: 3,
                undoes: Some(Op::Log),
                inverse: Some(Inverse { value: f64::ln, within: POSITIVE }),
                latex: Form("e^{#a}", POWER),
                ..call("exp")
            }
                value(a) { a.exp() }
                derivative(a da) { of(Op::Exp, a) * da }
                vector(x) tests(x) { x.exp() }
                partial(d, x, y, v) { _ => d.mul(v) }
            /// natural logarithm; NaN for a ≤ 0
            Log {
                complexity: 3,
                undoes: Some(Op::Exp),
                inverse: Some(Inverse { value: f64::exp, within: [-19.999_999, 19.999_999] }),
                rust: Call("ln"),
                ..call("log")
            }
                value(a) { a.ln() }
                derivative(a da) { da / a }
                vector(x) tests() { x.log() }
                partial(d, x, y, v) { _ => d.div(x) }
            /// square root; NaN for a < 0
            Sqrt { units: Rule::Power(0.5), latex: Form(r"\sqrt{#a}", ATOM), ..call("sqrt") }
                value(a) { a.sqrt() }
                derivative(a da) { da / (number(2.0) * of(Op::Sqrt, a)) }
                vector(x) tests() { x.sqrt() }
                partial(d, x, y, v) {
                    _ => v.where_greater(L::splat(0.0), d.div(v.add(v)), L::splat(0.0))
                }
            /// |a|
            Abs {
                units: Rule::Power(1.0),
                latex: Form(r"\left|#a\right|", ATOM),
                sympy: Call("Abs"),
                c: Call("fabs"),
                ..call("abs")
            }
                value(a) { a.abs() }
                derivative(a da) {
                    let sign = |op| of_two(op, a, number(0.0));
                    (sign(Op::Greater) - sign(Op::Less)) * da
                }
                vector(x) tests() { x.abs() }
                partial(d, x, y, v) {
                    _ => x.where_greater(L::splat(0.0), d, L::splat(0.0).sub(d))
                }
            /// a²
            Square {
                units: Rule::Power(2.0),
                inverse: Some(Inverse { value: f64::sqrt, within: POSITIVE }),
                latex: Form("#a.^{2}", POWER),
                sympy: Form("#a.**2", POWER),
                rust: Form("#a..powi(2)", ATOM),
                c: Form("pow(#a, 2.0)", ATOM),
                ..call("square")
            }
                value(a) { a * a }
                derivative(a da) { number(2.0) * a * da }
                vector(x) tests() { x.mul(x) }
                partial(d, x, y, v) { _ => d.mul(x.add(x)) }
            /// a³
            Cube {
                units: Rule::Power(3.0),
                latex: Form("#a.^{3}", POWER),
                numpy: Form("#a.**3", POWER),
                sympy: Form("#a.**3", POWER),
                rust: Form("#a..powi(3)", ATOM),
                c: Form("pow(#a, 3.0)", ATOM),
                ..call("cube")
            }
                value(a) { a * a * a }
                derivative(a da) { number(3.0) * of(Op::Square, a) * da }
                vector(x) tests() { x.mul(x).mul(x) }
                partial(d, x, y, v) { _ => d.mul(L::splat(3.0)).mul(x.mul(x)) }
            /// −a
            Neg {
                latex: Form("-#a^", MINUS),
                ..sign("neg", "-#a-", MINUS, Rule::Power(1.0))
            }
                value(a) { -a }
                derivative(_ da) { -da }
                vector(x) tests() { L::splat(0.0).sub(x) }
                partial(d, x, y, v) { _ => L::splat(0.0).sub(d) }
            /// sine
            Sin { undoes: Some(Op::Asin), ..call("sin") }
                value(a) { a.sin() }
                derivative(a da) { of(Op::Cos, a) * da }
                vector(x) tests() { x.sin() }
                partial(d, x, y, v) { _ => d.mul(x.cos()) }
            /// cosine
            Cos { undoes: Some(Op::Acos), ..call("cos") }
                value(a) { a.cos() }
                derivative(a da) { -(of(Op::Sin, a) * da) }
                vector(x) tests() { x.cos() }
                partial(d, x, y, v) { _ => L::splat(0.0).sub(d.mul(x.sin())) }
            /// inverse sine; NaN outside [−1, 1]
            Asin {
                inverse: Some(Inverse { value: f64::sin, within: [-QUARTER, QUARTER] }),
                latex: Call("arcsin"),
                numpy: Call("arcsin"),
                ..call("asin")
            }
                value(a) { a.asin() }
                derivative(a da) { da / of(Op::Sqrt, number(1.0) - of(Op::Square, a)) }
                vector(x) tests() { x.asin() }
                // Taken as flat at the ends of the range.
                partial(d, x, y, v) {
                    _ => {
                        let square = L::splat(1.0).sub(x).mul(L::splat(1.0).add(x));
                        square.where_greater(L::splat(0.0), d.div(square.sqrt()), L::splat(0.0))
                    }
                }
            /// inverse cosine; NaN outside [−1, 1]
            Acos {
                inverse: Some(Inverse { value: f64::cos, within: [0.0, 2.0 * QUARTER] }),
                latex: Call("arccos"),
                numpy: Call("arccos"),
                ..call("acos")
            }
                value(a) { a.acos() }
                derivative(a da) { -(da / of(Op::Sqrt, number(1.0) - of(Op::Square, a))) }
                vector(x) tests() { x.acos() }
                partial(d, x, y, v) {
                    _ => {
                        let square = L::splat(1.0).sub(x).mul(L::splat(1.0).add(x));
                        let slope = L::splat(0.0).sub(d.div(square.sqrt()));
                        square.where_greater(L::splat(0.0), slope, L::splat(0.0))
                    }
                }
            /// inverse tangent
            Atan {
                inverse: Some(Inverse { value: f64::tan, within: [-1.57, 1.57] }),
                latex: Call("arctan"),
                numpy: Call("arctan"),
                ..call("atan")
            }
                value(a) { a.atan() }
                derivative(a da) { da / (number(1.0) + of(Op::Square, a)) }
                vector(x) tests(x) { x.atan() }
                partial(d, x, y, v) { _ => d.div(x.fma(x, L::splat(1.0))) }
            /// hyperbolic tangent
            Tanh {
                inverse: Some(Inverse { value: f64::atanh, within: [-0.999_999, 0.999_999] }),
                ..call("tanh")
            }
                value(a) { a.tanh() }
                derivative(a da) { (number(1.0) - of(Op::Square, of(Op::Tanh, a))) * da }
                vector(x) tests(x) { x.tanh() }
                partial(d, x, y, v) { _ => d.mul(L::splat(1.0).sub(v.mul(v))) }
            /// IF(c, a, b): a where c > 0, b elsewhere
            If {
                complexity: 3,
                units: Rule::Choice,
                latex: Form(r"\begin{cases}#b & #a+ > 0\\#c & \text{else}\end{cases}", COMPARISON),
                numpy: Form("np.where(#a+ > 0, #b, #c)", ATOM),
                sympy: Form("sp.Piecewise((#b, #a+ > 0), (#c, True))", ATOM),
                rust: Form("(if #a+ > 0.0 { #b } else { #c })", ATOM),
                c: Form("(#a+ > 0.0 ? #b : #c)", ATOM),
                ..call("IF")
            }
                value(c, a, b) { [b, a][usize::from(c > 0.0)] }
                derivative(c _, _ da, _ db) { choose(c, da, db) }
                vector(x, y, z) tests(x, y, z) { x.where_greater(L::splat(0.0), y, z) }
                partial(d, x, y, v) {
                    0 => L::splat(0.0),
                    1 => x.where_greater(L::splat(0.0), d, L::splat(0.0)),
                    _ => x.where_greater(L::splat(0.0), L::splat(0.0), d)
                }
            /// the largest whole number not above a
            Floor {
                latex: Form(r"\left\lfloor #a\right\rfloor", ATOM),
                rust: Form("#a..floor()", ATOM),
                ..call("floor")
            }
                value(a) { a.floor() }
                derivative(_ _) { number(0.0) }
                vector(x) tests() { x.lane_by_lane(f64::floor) }
                partial(d, x, y, v) { _ => L::splat(0.0) }
            /// the nearest whole number; halves go up
            Round {
                latex: Form(r"\left\lfloor #a+ + 0.5\right\rfloor", ATOM),
                // Their own round takes halves to even numbers, or away from zero.
                numpy: Form("np.floor(#a+ + 0.5)", ATOM),
                sympy: Form("sp.floor(#a+ + 0.5)", ATOM),
                rust: Form("(#a+ + 0.5).floor()", ATOM),
                c: Form("floor(#a+ + 0.5)", ATOM),
                ..call("round")
            }
                value(a) { (a + 0.5).floor() }
                derivative(_ _) { number(0.0) }
                vector(x) tests() { x.add(L::splat(0.5)).lane_by_lane(f64::floor) }
                partial(d, x, y, v) { _ => L::splat(0.0) }
            /// the remainder a − b ⌊a/b⌋, with the sign of b
            Mod {
                units: Rule::Equal,
                latex: Form(r"\left(#a* \,\mathrm{mod}\, #b-\right)", ATOM),
                sympy: Call("Mod"),
                rust: Form("(#a+ - #b^ * (#a* / #b-).floor())", ATOM),
                c: Form("(#a+ - #b^ * floor(#a* / #b-))", ATOM),
                ..call("mod")
            }
                value(a, b) { a - b * (a / b).floor() }
                derivative(a da, b db) { da - of(Op::Floor, a / b) * db }
                vector(x, y) tests() { x.sub(y.mul(x.div(y).lane_by_lane(f64::floor))) }
                partial(d, x, y, v) {
                    0 => d,
                    // ⌊x/y⌋ = (x − v)/y.
                    _ => L::splat(0.0).sub(d.mul(x.sub(v).div(y)))
                }
        }
    };
}
pub(crate) use operators;

/// Everything about an operator except what it computes.
pub struct Row {
    /// In text and in `--operators`: a sign or a function name.
    pub name: &'static str,
    /// Default complexity.
    pub complexity: u16,
    /// The operands may be exchanged.
    pub commutative: bool,
    /// How it combines units.
    pub units: Rule,
    /// The operator g for which f(g(x)) = x wherever g(x) has a value.
    pub undoes: Option<Op>,
    /// For a search for g in y = f(g(x)): the inverse of f, applied to the target.
    pub inverse: Option<Inverse>,
    /// In formulas that [`Expression::parse`](super::expression::Expression::parse) reads.
    pub text: Spelling,
    /// In LaTeX.
    pub latex: Spelling,
    /// In Python, for NumPy arrays.
    pub numpy: Spelling,
    /// In Python, for SymPy expressions.
    pub sympy: Spelling,
    /// In Rust.
    pub rust: Spelling,
    /// In C.
    pub c: Spelling,
}

/// How an operator combines units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The units of the operands, which must agree.
    Equal,
    /// No units, but those of the operands must agree.
    Comparison,
    /// The units of the second and third operands, which must agree.
    Choice,
    /// The units of the first, times those of the second to this power.
    Product(f64),
    /// The units of the first, to the power given by the second.
    Exponent,
    /// The units of the operand, to this power.
    Power(f64),
    /// No units; the operand must have none either.
    Number,
}

/// The inverse of a function.
pub struct Inverse {
    /// Its value.
    pub value: fn(f64) -> f64,
    /// The range in which it applies.
    pub within: [f64; 2],
}

/// How an operator is written in a language.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spelling {
    /// As a call of this function.
    Call(&'static str),
    /// As a text in which the operands are `#a`, `#b` and `#c`, and how tightly that binds. An operand is put in
    /// brackets if it binds less tightly than the sign behind it demands: `+` a sum, `*` a product, `-` what may follow
    /// a minus, `^` a power, `.` a name.
    Form(&'static str, u8),
}
use Spelling::{Call, Form};

/// How tightly a text binds, loosest first; a function call or a name is an `ATOM`.
pub(super) const COMPARISON: u8 = 0;
pub(super) const SUM: u8 = 1;
pub(super) const PRODUCT: u8 = 2;
pub(super) const MINUS: u8 = 3;
pub(super) const POWER: u8 = 4;
pub(super) const ATOM: u8 = 5;

const POSITIVE: [f64; 2] = [f64::MIN_POSITIVE, f64::INFINITY];
/// π/2, with room for rounding in a table.
const QUARTER: f64 = std::f64::consts::FRAC_PI_2 * (1.0 + 1e-6);

/// A function of pure numbers with the same name in every language.
const fn call(name: &'static str) -> Row {
    Row { name, ..row(Call(name), Rule::Number) }
}

/// A sign written the same way in every language.
const fn sign(name: &'static str, form: &'static str, binding: u8, units: Rule) -> Row {
    Row { name, ..row(Form(form, binding), units) }
}

const fn row(spelling: Spelling, units: Rule) -> Row {
    Row {
        name: "",
        complexity: 1,
        commutative: false,
        units,
        undoes: None,
        inverse: None,
        text: spelling,
        latex: spelling,
        numpy: spelling,
        sympy: spelling,
        rust: spelling,
        c: spelling,
    }
}

macro_rules! define {
    ($(
        $(#[$doc:meta])* $op:ident { $($row:tt)* }
        value($($a:ident),*) $value:block
        derivative $operands:tt $derivative:tt
        vector $vectors:tt tests $tests:tt $vector:tt
        partial $names:tt $partial:tt
    )*) => {
        /// An operator of one, two or three operands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Op {
            $($(#[$doc])* $op,)*
        }

        static ROWS: &[Row] = &[$(Row { $($row)* },)*];

        impl Op {
            /// All operators, in the order of their numbers.
            pub const ALL: [Op; [$(Op::$op),*].len()] = [$(Op::$op),*];

            /// Number of operands.
            #[inline]
            pub fn arity(self) -> usize {
                match self {
                    $(Op::$op => [$(stringify!($a)),*].len(),)*
                }
            }

            /// The value for operands `[a]`, `[a, b]` or `[c, a, b]`.
            #[inline]
            pub fn apply(self, values: &[f64]) -> f64 {
                match self {
                    $(Op::$op => {
                        let [$($a,)* ..] = *values else { unreachable!("operands of {self:?}") };
                        $value
                    })*
                }
            }
        }
    };
}
operators!(define);

impl Op {
    /// Everything about it except its value.
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The name in text and in `--operators`: a sign or a function name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The operator called `name`.
    pub fn from_name(name: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.name() == name)
    }

    /// The names of all operators, separated by spaces.
    pub fn names() -> String {
        Op::ALL.map(Op::name).join(" ")
    }
}
