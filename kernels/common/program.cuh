// Expressions as kernels read them, encoded by src/ops/expression/gpu.rs. An instruction is four words: the operator
// with its flags, and three operands.
#pragma once

#include "operators.cuh"

// The kind of an operand: kind << 16 | number. A result carries a gradient if constants occur below.
enum Kind : unsigned { CONSTANT, VARIABLE, RESULT, RESULT_WITH_GRADIENT };

// The first word: operator, flags, and the slot of the result. A result that is not kept is used by the next
// instruction at once.
constexpr unsigned OP = 0xff, HAS_CONSTANT = 1 << 8, IS_KEPT = 1 << 9, SLOT = 16;

// Checks an instruction on its way to where it is read from. An operator without a row traps here, once, and not where
// that would cost registers at each evaluation.
DEVICE uint4 known(uint4 code, unsigned operators = WHOLE_POWER) {
    if ((code.x & OP) >= operators) __trap();
    return code;
}
