// Expressions as kernels read them: what src/ops/expression/gpu.rs encodes. An instruction is four
// words: the operator with its flags, and three operands.
#pragma once

// As src/symbolic/expression.rs numbers them, and a power with a small whole number as exponent.
enum Op : unsigned {
    ADD, SUB, MUL, DIV, POW, GREATER, LESS, MIN, MAX,
    EXP, LOG, SQRT, ABS, SQUARE, CUBE, NEG, SIN, COS, TANH, ASIN, ACOS, ATAN, IF,
    WHOLE_POWER
};

// What an operand is: kind << 16 | number. A result carries a gradient where constants occur below.
enum Kind : unsigned { CONSTANT, VARIABLE, RESULT, RESULT_WITH_GRADIENT };

// The first word: operator, flags, and the slot of the result. A result that is not kept is taken by
// the next instruction at once.
constexpr unsigned OP = 0xff, HAS_CONSTANT = 1 << 8, IS_KEPT = 1 << 9, SLOT = 16;

// Whether the second operand is one.
DEVICE bool is_binary(unsigned op) { return op < EXP || op >= IF; }
