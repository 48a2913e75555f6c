// A program on four rows per thread: values, and derivatives with respect to its constants. All threads go through the
// instructions in the same order, so control flow never diverges, and reading an instruction costs once for four rows.
// Results wait in shared memory in a column for each thread; the one that the next instruction needs stays in
// registers.
//
// Rules for infinities and NaN, functions and derivatives are those of src/ops/expression/{cpu,normal}.rs, operation by
// operation: a row gives the same bits as in a vector of the CPU. Must be called by whole warps.
#pragma once

#include "functions.cuh"
#include "program.cuh"

// The first words of a program, as encoded by src/ops/expression/gpu.rs.
struct Program {
    unsigned code;          // its first instruction, in units of four words of all programs
    unsigned instructions;
    unsigned constant;      // its first constant, in words
    unsigned constants;
    unsigned root;          // the operand that is the value
    unsigned slots;         // results that wait at a time, at most
    unsigned reserved[2];
};

// ---------------------------------------------------------------- four rows

template <class F>
DEVICE float4 each(float4 x, F f) {
    return make_float4(f(x.x), f(x.y), f(x.z), f(x.w));
}
template <class F>
DEVICE float4 each(float4 x, float4 y, F f) {
    return make_float4(f(x.x, y.x), f(x.y, y.y), f(x.z, y.z), f(x.w, y.w));
}
template <class F>
DEVICE float4 each(float4 x, float4 y, float4 z, F f) {
    return make_float4(f(x.x, y.x, z.x), f(x.y, y.y, z.y), f(x.z, y.z, z.z), f(x.w, y.w, z.w));
}
template <class F>
DEVICE float4 each(float4 d, float4 v, float4 x, float4 y, F f) {
    return make_float4(f(d.x, v.x, x.x, y.x), f(d.y, v.y, x.y, y.y), f(d.z, v.z, x.z, y.z),
                       f(d.w, v.w, x.w, y.w));
}
DEVICE float4 all(float x) { return make_float4(x, x, x, x); }

// NaN if one of the four is not finite, else `flag`.
DEVICE float tested(float flag, float4 x) {
    return fmaf(x.x, 0.0f, fmaf(x.y, 0.0f, fmaf(x.z, 0.0f, fmaf(x.w, 0.0f, flag))));
}

// ---------------------------------------------------------------- a program

// The next `count` elements of shared memory, aligned to 16 bytes.
template <class T>
DEVICE Shared<T> take(size_t& at, size_t count) {
    const Shared<T> room = shared<T>(at, count);
    at += (count * sizeof(T) + 15) / 16 * 16;
    return room;
}

DEVICE float4& quad_at(Shared<float> column, unsigned place) {
    return *reinterpret_cast<float4*>(column.at(place, 4));
}

// A program, and the places of this thread's operands.
struct Evaluator {
    Program program;
    Shared<uint4> code;         // [instructions]
    Shared<float> constants;    // [constants]
    Shared<float> results;      // [places, length]; a thread's four rows are neighbours
    const float* columns;       // this thread's rows in column 0
    size_t rows;                // from one column to the next
    unsigned length, place;     // of a column in shared memory; of this thread's rows in it

    // `last` is the value of the result in `last_place`.
    __device__ __forceinline__ float4 operand(unsigned operand, float4 last, unsigned last_place) const {
        const unsigned number = operand & 0xffff, kind = operand >> 16;
        if (kind == CONSTANT) return all(constants[number]);
        if (kind == VARIABLE) return *reinterpret_cast<const float4*>(columns + number * rows);
        return number == last_place ? last : quad_at(results, number * length + place);
    }
    __device__ __forceinline__ float4 operand(unsigned operand) const {
        return this->operand(operand, all(0.0f), ~0u);
    }
};

// sin(x + quarters · π/2). One large angle in a line sends all of it through f64.
DEVICE float4 sines(float4 x, int quarters) {
    const bool large = is_large_angle(x.x) || is_large_angle(x.y) || is_large_angle(x.z) ||
                       is_large_angle(x.w);
    if (__any_sync(0xfu << (threadIdx.x % 32 & ~3u), large))
        return each(x, [=](float a) { return sine_of_large(a, quarters); });
    return each(x, [=](float a) { return sine(a, quarters); });
}

// The columns of operators.cuh: the lambdas also take variables that an expression does not use.
#define EACH(VALUE)                                                                                       \
    each(x, y, z, []([[maybe_unused]] float x, [[maybe_unused]] float y, [[maybe_unused]] float z) {      \
        return VALUE;                                                                                     \
    })
#define SLOPE(VALUE)                                                                                      \
    each(d, v, x, y, []([[maybe_unused]] float d, [[maybe_unused]] float v, [[maybe_unused]] float x,     \
                        [[maybe_unused]] float y) { return VALUE; })
#define FLAT all(0.0f)

// The value. Sets `flag` to NaN where something not finite was hidden. On a tape every instruction has its own place
// for the result, otherwise each slot has one.
template <bool TAPE>
DEVICE float4 forward(const Evaluator& e, float& flag) {
    [[maybe_unused]] constexpr unsigned NONE = 0, X = 1, Y = 2, Z = 4;
    float4 v = all(0.0f);
    unsigned place = ~0u;
    for (unsigned i = 0; i < e.program.instructions; i++) {
        const uint4 code = e.code[i];
        const unsigned op = code.x & OP;
        const float4 x = e.operand(code.y, v, place);
        const float4 y = is_binary(op) ? e.operand(code.z, v, place) : x;
        switch (op) {
#define ARM(LAST, NAME, TESTS, VALUE, ...)       \
    case NAME: {                                 \
        [[maybe_unused]] const float4 z = LAST;  \
        if ((TESTS) & X) flag = tested(flag, x); \
        if ((TESTS) & Y) flag = tested(flag, y); \
        if ((TESTS) & Z) flag = tested(flag, z); \
        v = VALUE;                               \
        break;                                   \
    }
#define ARM_WITHOUT_Z(...) ARM(x, __VA_ARGS__)
#define ARM_WITH_Z(...) ARM(e.operand(code.w, v, place), __VA_ARGS__)
            OPERATORS(ARM_WITHOUT_Z, ARM_WITHOUT_Z, ARM_WITH_Z)
#undef ARM_WITH_Z
#undef ARM_WITHOUT_Z
#undef ARM
        }
        place = TAPE ? i : code.x >> SLOT;
        if (TAPE || code.x & IS_KEPT) quad_at(e.results, place * e.length + e.place) = v;
    }
    return e.operand(e.program.root, v, place);
}

// Columns of the Jacobian of scale · f with respect to the constants, by a sweep from the root to the
// leaves over the tape. An adjoint waits in the slot of its result: [slots, length].
DEVICE void reverse(const Evaluator& e, Shared<float> adjoints, Shared<float> jacobian, float scale) {
    const auto put = [&](unsigned operand, unsigned slot, float4 value) {
        if (operand >> 16 == CONSTANT)
            quad_at(jacobian, (operand & 0xffff) * e.length + e.place) = value;
        else
            quad_at(adjoints, slot * e.length + e.place) = value;
    };
    const auto carries = [](unsigned operand) {
        return operand >> 16 == CONSTANT || operand >> 16 == RESULT_WITH_GRADIENT;
    };
    const auto is_result = [](unsigned operand) { return operand >> 16 >= RESULT; };

    if (carries(e.program.root)) put(e.program.root, 0, all(scale));
    for (unsigned i = e.program.instructions; i-- > 0;) {
        const uint4 code = e.code[i];
        if (!(code.x & HAS_CONSTANT)) continue;
        const unsigned op = code.x & OP, slot = code.x >> SLOT;
        const float4 d = quad_at(adjoints, slot * e.length + e.place);
        const float4 v = quad_at(e.results, i * e.length + e.place);
        const float4 x = e.operand(code.y);
        const float4 y = is_binary(op) ? e.operand(code.z) : x;
        // Results among the operands have the slots from that of this instruction on.
        const unsigned slot_y = slot + is_result(code.y);
#define NO_ARM(...)
#define BY_X(NAME, TESTS, VALUE, VALUE_IN_F64, SLOPE_X, ...) \
    case NAME:                                               \
        g = SLOPE_X;                                         \
        break;
#define BY_Y(NAME, TESTS, VALUE, VALUE_IN_F64, SLOPE_X, SLOPE_Y, ...) \
    case NAME:                                                        \
        g = SLOPE_Y;                                                  \
        break;
#define BY_Z(NAME, TESTS, VALUE, VALUE_IN_F64, SLOPE_X, SLOPE_Y, SLOPE_Z) \
    case NAME:                                                            \
        g = SLOPE_Z;                                                      \
        break;
        if (is_binary(op) && carries(code.z)) {
            float4 g = all(0.0f);
            switch (op) { OPERATORS(NO_ARM, BY_Y, BY_Y) }
            put(code.z, slot_y, g);
        }
        if (is_ternary(op) && carries(code.w)) {
            float4 g = all(0.0f);
            switch (op) { OPERATORS(NO_ARM, NO_ARM, BY_Z) }
            put(code.w, slot_y + is_result(code.z), g);
        }
        if (!carries(code.y)) continue;
        float4 g = all(0.0f);
        switch (op) { OPERATORS(BY_X, BY_X, BY_X) }
#undef NO_ARM
#undef BY_X
#undef BY_Y
#undef BY_Z
        put(code.y, slot, g);
    }
}

#undef EACH
#undef SLOPE
#undef FLAT
