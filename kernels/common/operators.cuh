// The operators of formulas, a row each, in the order of src/formula/operator.rs (a test compares the names and numbers
// of operands). Kernels take everything about an operator from here; an operator without a row traps (program.cuh).
//
//   UNARY(NAME, TESTS, VALUE, VALUE_IN_F64, BY_X)
//   BINARY(NAME, TESTS, VALUE, VALUE_IN_F64, BY_X, BY_Y)
//   TERNARY(NAME, TESTS, VALUE, VALUE_IN_F64, BY_X, BY_Y, BY_Z)
//
// NAME            as a number, the place of the row
// TESTS           the operands whose infinity or NaN the value may hide: NONE, or X | Y | Z
// VALUE           of four rows at a time (evaluate.cuh), bit for bit what a vector of the CPU has:
//                 EACH(…) is an expression in the x, y, z of each row
// VALUE_IN_F64    of x, y, z, for a user's potential (rk4.cu)
// BY_X, BY_Y, …   the adjoint times the derivative by an operand, of four rows: SLOPE(…) is an expression in the
//                 adjoint d, the value v and the operands x, y of each; FLAT is 0
#pragma once

#define OPERATORS(UNARY, BINARY, TERNARY)                                                                      \
    BINARY(ADD, NONE, EACH(x + y), x + y, d, d)                                                                \
    BINARY(SUB, NONE, EACH(x - y), x - y, d, SLOPE(0.0f - d))                                                  \
    BINARY(MUL, NONE, EACH(x * y), x * y, SLOPE(d * y), SLOPE(d * x))                                          \
    BINARY(DIV, Y, EACH(x / y), x * (1.0 / y), SLOPE(d / y), SLOPE(0.0f - d * v / y))                          \
    /* b a^(b−1) = b a^b / a, at a = 0 taken as flat; a^b log a, at a ≤ 0 taken as flat */                     \
    BINARY(POW, X | Y, EACH(power(x, y)), pow(x, y), SLOPE(x != 0 ? d * y * v / x : 0.0f),                     \
           SLOPE(x > 0 ? d * v * logarithm(x) : 0.0f))                                                         \
    BINARY(GREATER, X | Y, EACH(x > y ? 1.0f : 0.0f), x > y ? 1.0 : 0.0, FLAT, FLAT)                           \
    BINARY(LESS, X | Y, EACH(x < y ? 1.0f : 0.0f), x < y ? 1.0 : 0.0, FLAT, FLAT)                              \
    BINARY(MIN, X | Y, EACH(smaller(x, y)), fmin(x, y), SLOPE(y > x ? d : 0.0f), SLOPE(y > x ? 0.0f : d))        \
    BINARY(MAX, X | Y, EACH(larger(x, y)), fmax(x, y), SLOPE(x > y ? d : 0.0f), SLOPE(x > y ? 0.0f : d))        \
    UNARY(EXP, X, EACH(exponential(x)), exp(x), SLOPE(d * v))                                                  \
    UNARY(LOG, NONE, EACH(logarithm(x)), log(x), SLOPE(d / x))                                                 \
    UNARY(SQRT, NONE, EACH(sqrtf(x)), sqrt(x), SLOPE(v > 0 ? d / (v + v) : 0.0f))                              \
    UNARY(ABS, NONE, EACH(fabsf(x)), fabs(x), SLOPE(x > 0 ? d : 0.0f - d))                                     \
    UNARY(SQUARE, NONE, EACH(x * x), x * x, SLOPE(d * (x + x)))                                                \
    UNARY(CUBE, NONE, EACH(x * x * x), x * x * x, SLOPE(d * 3.0f * (x * x)))                                   \
    UNARY(NEG, NONE, EACH(0.0f - x), 0.0 - x, SLOPE(0.0f - d))                                                 \
    UNARY(SIN, NONE, sines(x, 0), sin(x), each(d, sines(x, 1), [](float d, float cos) { return d * cos; }))    \
    UNARY(COS, NONE, sines(x, 1), cos(x),                                                                      \
          each(d, sines(x, 0), [](float d, float sin) { return 0.0f - __fmul_rn(d, sin); }))                   \
    /* at the ends of the range taken as flat */                                                               \
    UNARY(ASIN, NONE, EACH(arcsine(x)), asin(x),                                                               \
          SLOPE((1.0f - x) * (1.0f + x) > 0 ? d / sqrtf((1.0f - x) * (1.0f + x)) : 0.0f))                      \
    UNARY(ACOS, NONE, EACH(arccosine(x)), acos(x),                                                             \
          SLOPE((1.0f - x) * (1.0f + x) > 0 ? 0.0f - d / sqrtf((1.0f - x) * (1.0f + x)) : 0.0f))               \
    UNARY(ATAN, X, EACH(arctangent(x)), atan(x), SLOPE(d / fmaf(x, x, 1.0f)))                                  \
    UNARY(TANH, X, EACH(hyperbolic_tangent(x)), tanh(x), SLOPE(d * (1.0f - __fmul_rn(v, v))))                  \
    TERNARY(IF, X | Y | Z, EACH(x > 0 ? y : z), x > 0.0 ? y : z, FLAT, SLOPE(x > 0 ? d : 0.0f),                \
            SLOPE(x > 0 ? 0.0f : d))                                                                           \
    UNARY(FLOOR, NONE, EACH(floorf(x)), floor(x), FLAT)                                                        \
    UNARY(ROUND, NONE, EACH(floorf(x + 0.5f)), floor(x + 0.5), FLAT)                                           \
    BINARY(MOD, NONE, EACH(x - __fmul_rn(y, floorf(x / y))), x - __dmul_rn(y, floor(x / y)), d,                \
           SLOPE(0.0f - __fmul_rn(d, (x - v) / y)))

// The operators' numbers, and a power with a small whole exponent, in f64 only.
enum Op : unsigned {
#define NUMBER(NAME, ...) NAME,
    OPERATORS(NUMBER, NUMBER, NUMBER)
#undef NUMBER
    WHOLE_POWER
};
static_assert(WHOLE_POWER < 32, "a bit for each");

// True if there is a second operand; and a third.
DEVICE bool is_binary(unsigned op) {
#define NONE_OF(...)
#define BIT(NAME, ...) | 1u << NAME
    constexpr unsigned BITS = 1u << WHOLE_POWER OPERATORS(NONE_OF, BIT, BIT);
    return BITS >> (op & 31) & 1;
}
DEVICE bool is_ternary(unsigned op) {
    constexpr unsigned BITS = 0u OPERATORS(NONE_OF, NONE_OF, BIT);
    return BITS >> (op & 31) & 1;
}
#undef NONE_OF
#undef BIT
