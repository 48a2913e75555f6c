// A program on four rows a thread: values, and derivatives with respect to its constants. Every thread goes
// through the instructions in the same order as all others, so control flow never diverges, and reading an
// instruction costs once for four rows. Results wait in shared memory in a column for each thread; the one that
// the next instruction takes stays in registers.
//
// Rules for infinities and NaN, functions and derivatives are those of src/ops/expression/{cpu,normal}.rs,
// operation by operation: a row has the same bits as in a vector of the processor. Whole warps call.
#pragma once

#include "functions.cuh"
#include "program.cuh"

// The first words of a program, as src/ops/expression/gpu.rs encodes it.
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
DEVICE float4 all(float x) { return make_float4(x, x, x, x); }

// NaN where one of four is not finite, else `flag`.
DEVICE float tested(float flag, float4 x) {
    return fmaf(x.x, 0.0f, fmaf(x.y, 0.0f, fmaf(x.z, 0.0f, fmaf(x.w, 0.0f, flag))));
}

// ---------------------------------------------------------------- a program

// The next `count` elements of shared memory, on 16 bytes.
template <class T>
DEVICE Shared<T> take(size_t& at, size_t count) {
    const Shared<T> room = shared<T>(at, count);
    at += (count * sizeof(T) + 15) / 16 * 16;
    return room;
}

DEVICE float4& quad_at(Shared<float> column, unsigned place) {
    return *reinterpret_cast<float4*>(column.at(place, 4));
}

// A program, and where the operands of this thread are.
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

// sin(x + quarters · π/2). One large angle in a line takes all of it through f64.
DEVICE float4 sines(float4 x, int quarters) {
    const bool large = is_large_angle(x.x) || is_large_angle(x.y) || is_large_angle(x.z) ||
                       is_large_angle(x.w);
    if (__any_sync(0xfu << (threadIdx.x % 32 & ~3u), large))
        return each(x, [=](float a) { return sine_of_large(a, quarters); });
    return each(x, [=](float a) { return sine(a, quarters); });
}

// The value. Turns `flag` into NaN where something not finite was swallowed. On a tape every
// instruction has a place of its own for its result, else there is one for each slot.
template <bool TAPE>
DEVICE float4 forward(const Evaluator& e, float& flag) {
    float4 v = all(0.0f);
    unsigned place = ~0u;
    for (unsigned i = 0; i < e.program.instructions; i++) {
        const uint4 code = e.code[i];
        const unsigned op = code.x & OP;
        const float4 x = e.operand(code.y, v, place);
        const float4 y = is_binary(op) ? e.operand(code.z, v, place) : x;
        switch (op) {
        case ADD:
            v = each(x, y, [](float a, float b) { return a + b; });
            break;
        case SUB:
            v = each(x, y, [](float a, float b) { return a - b; });
            break;
        case MUL:
            v = each(x, y, [](float a, float b) { return a * b; });
            break;
        case DIV:
            flag = tested(flag, y);
            v = each(x, y, [](float a, float b) { return a / b; });
            break;
        case POW:
            flag = tested(tested(flag, x), y);
            v = each(x, y, [](float a, float b) { return power(a, b); });
            break;
        case GREATER:
            flag = tested(tested(flag, x), y);
            v = each(x, y, [](float a, float b) { return a > b ? 1.0f : 0.0f; });
            break;
        case LESS:
            flag = tested(tested(flag, x), y);
            v = each(x, y, [](float a, float b) { return a < b ? 1.0f : 0.0f; });
            break;
        case MIN:
            flag = tested(tested(flag, x), y);
            v = each(x, y, [](float a, float b) { return smaller(a, b); });
            break;
        case MAX:
            flag = tested(tested(flag, x), y);
            v = each(x, y, [](float a, float b) { return larger(a, b); });
            break;
        case EXP:
            flag = tested(flag, x);
            v = each(x, [](float a) { return exponential(a); });
            break;
        case LOG:
            v = each(x, [](float a) { return logarithm(a); });
            break;
        case SQRT:
            v = each(x, [](float a) { return sqrtf(a); });
            break;
        case ABS:
            v = each(x, [](float a) { return fabsf(a); });
            break;
        case SQUARE:
            v = each(x, [](float a) { return a * a; });
            break;
        case CUBE:
            v = each(x, [](float a) { return a * a * a; });
            break;
        case NEG:
            v = each(x, [](float a) { return 0.0f - a; });
            break;
        case SIN:
            v = sines(x, 0);
            break;
        case COS:
            v = sines(x, 1);
            break;
        case TANH:
            flag = tested(flag, x);
            v = each(x, [](float a) { return hyperbolic_tangent(a); });
            break;
        case ASIN:
            v = each(x, [](float a) { return arcsine(a); });
            break;
        case ACOS:
            v = each(x, [](float a) { return arccosine(a); });
            break;
        case ATAN:
            flag = tested(flag, x);
            v = each(x, [](float a) { return arctangent(a); });
            break;
        default: {
            const float4 z = e.operand(code.w, v, place);
            flag = tested(tested(tested(flag, x), y), z);
            v = each(x, y, z, [](float c, float a, float b) { return c > 0 ? a : b; });
        }
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
        if (is_binary(op) && carries(code.z)) {
            float4 g;
            switch (op) {
            case ADD:
                g = d;
                break;
            case SUB:
                g = each(d, [](float d) { return 0.0f - d; });
                break;
            case MUL:
                g = each(d, x, [](float d, float x) { return d * x; });
                break;
            case DIV:
                g = each(d, v, y, [](float d, float v, float y) { return 0.0f - d * v / y; });
                break;
            case POW:  // a^b log a; at a ≤ 0 taken as flat
                g = each(d, v, x, [](float d, float v, float x) {
                    return x > 0 ? d * v * logarithm(x) : 0.0f;
                });
                break;
            case MIN:
                g = each(d, x, y, [](float d, float x, float y) { return y > x ? 0.0f : d; });
                break;
            case MAX:
                g = each(d, x, y, [](float d, float x, float y) { return x > y ? 0.0f : d; });
                break;
            case IF:
                g = each(d, x, [](float d, float x) { return x > 0 ? d : 0.0f; });
                break;
            default:  // comparisons
                g = all(0.0f);
            }
            put(code.z, slot_y, g);
        }
        if (op == IF && carries(code.w))
            put(code.w, slot_y + is_result(code.z),
                each(d, x, [](float d, float x) { return x > 0 ? 0.0f : d; }));
        if (!carries(code.y)) continue;
        float4 g;
        switch (op) {
        case ADD:
        case SUB:
            g = d;
            break;
        case MUL:
            g = each(d, y, [](float d, float y) { return d * y; });
            break;
        case DIV:
            g = each(d, y, [](float d, float y) { return d / y; });
            break;
        case POW: {  // b a^(b−1) = b a^b / a; at a = 0 taken as flat
            const float4 dy = each(d, y, [](float d, float y) { return d * y; });
            g = each(dy, v, x, [](float dy, float v, float x) { return x != 0 ? dy * v / x : 0.0f; });
            break;
        }
        case MIN:
            g = each(d, x, y, [](float d, float x, float y) { return y > x ? d : 0.0f; });
            break;
        case MAX:
            g = each(d, x, y, [](float d, float x, float y) { return x > y ? d : 0.0f; });
            break;
        case EXP:
            g = each(d, v, [](float d, float v) { return d * v; });
            break;
        case LOG:
            g = each(d, x, [](float d, float x) { return d / x; });
            break;
        case SQRT:
            g = each(d, v, [](float d, float v) { return v > 0 ? d / (v + v) : 0.0f; });
            break;
        case ABS:
            g = each(d, x, [](float d, float x) { return x > 0 ? d : 0.0f - d; });
            break;
        case SQUARE:
            g = each(d, x, [](float d, float x) { return d * (x + x); });
            break;
        case CUBE:
            g = each(d, x, [](float d, float x) { return d * 3.0f * (x * x); });
            break;
        case NEG:
            g = each(d, [](float d) { return 0.0f - d; });
            break;
        case SIN:
            g = each(d, sines(x, 1), [](float d, float cos) { return d * cos; });
            break;
        case COS:
            g = each(d, sines(x, 0), [](float d, float sin) { return 0.0f - __fmul_rn(d, sin); });
            break;
        case TANH:
            g = each(d, v, [](float d, float v) { return d * (1.0f - __fmul_rn(v, v)); });
            break;
        case ASIN:  // at the ends of the range taken as flat
            g = each(d, x, [](float d, float x) {
                const float square = (1.0f - x) * (1.0f + x);
                return square > 0 ? d / sqrtf(square) : 0.0f;
            });
            break;
        case ACOS:
            g = each(d, x, [](float d, float x) {
                const float square = (1.0f - x) * (1.0f + x);
                return square > 0 ? 0.0f - d / sqrtf(square) : 0.0f;
            });
            break;
        case ATAN:
            g = each(d, x, [](float d, float x) { return d / fmaf(x, x, 1.0f); });
            break;
        default:  // comparisons, the condition of IF
            g = all(0.0f);
        }
        put(code.y, slot, g);
    }
}
