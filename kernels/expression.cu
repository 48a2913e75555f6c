// Losses of a population of expressions on a table, and their constants fitted. Mathematics, argument
// struct in Rust, processor twin and tests: src/ops/expression/.
//
// A block works on one program. Every thread evaluates four neighbouring rows at a time, in the same
// order of instructions as all others: control flow never diverges, and reading an instruction costs
// once for four rows. Results wait in shared memory in a column for each thread; the one that the
// next instruction takes stays in registers. Columns of the table come through the first-level cache,
// which blocks of one multiprocessor share, as they could not share a copy in shared memory.
//
// Rules for infinities and NaN, functions, and the steps of the fit are those of cpu.rs and normal.rs
// there, and sums are taken in the order of its vectors of sixteen: f32 for each of sixteen lanes over
// the lines of a block of rows, then over the lanes, f64 over blocks. So a search takes the same path
// on a GPU as on a processor with AVX-512, bit for bit.
#include "common/device.cuh"
#include "common/functions.cuh"
#include "common/program.cuh"

struct ExpressionArgs {
    const float* table;        // [variables + 2, rows]: the columns, the target, the weights
    const unsigned* programs;  // [programs, 8] a `Program` each, then what they point to
    double* results;           // [programs, stride]: loss, evaluations, parameters
    unsigned rows;             // with the padding: whole lines of 16
    unsigned variables;
    unsigned tile;             // lines that a block takes at a time, at most 64; four threads each
    unsigned stride;
    unsigned squared;          // the loss is MSE, not MAE
    // Of fits only.
    unsigned scaled;           // fits scale and offset too
    unsigned steps;
    unsigned reserved;
    double tolerance;
    double median;             // of the target
    double deviation;          // its mean absolute deviation from the median
};
LAYOUT(ExpressionArgs, table, programs, results, rows, variables, tile, stride, squared, scaled, steps,
       reserved, tolerance, median, deviation)

namespace {

// Rows of a line, and lines over which a sum is f32, when scoring and when fitting.
constexpr unsigned LINE = 16, SCORE_LINES = 32, FIT_LINES = 16;

struct Program {
    unsigned code;          // its first instruction, in units of four words of `programs`
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

// ---------------------------------------------------------------- a program on a tile

// A column in shared memory with four rows for each thread: [tile, LINE]. Blocks of lines that are
// added up side by side are apart by half of the memory's banks.
DEVICE unsigned place_of(unsigned row) { return row + row / (LINE * FIT_LINES) * LINE; }
DEVICE unsigned length_of(unsigned tile) { return place_of(tile * LINE - 1) + 1; }

DEVICE float4& quad_at(Shared<float> column, unsigned place) {
    return *reinterpret_cast<float4*>(column.at(place, 4));
}

// The program of a block, and where the operands of this thread are.
struct Evaluator {
    Program program;
    Shared<uint4> code;         // [instructions]
    Shared<float> constants;    // [constants]
    Shared<float> results;      // [places, length]
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
            v = each(x, y, [](float a, float b) { return fminf(a, b); });
            break;
        case MAX:
            flag = tested(tested(flag, x), y);
            v = each(x, y, [](float a, float b) { return fmaxf(a, b); });
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

// ---------------------------------------------------------------- sums

DEVICE bool is_finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

constexpr double INFINITE = INFINITY;

// Adds to `total` what `add` gives for each element of a tile: add(row, sum) is the sum with the
// element of a row of the tile. By one warp, two blocks of lines at a time.
template <class F>
DEVICE void add_up(double& total, unsigned lines, unsigned block, F add) {
    const unsigned thread = threadIdx.x % 32, lane = thread % LINE;
    for (unsigned first = 0; first < lines; first += 2 * block) {
        const unsigned begin = first + thread / LINE * block, end = min(begin + block, lines);
        float sum = 0.0f;
        for (unsigned line = begin; line < end; line++) sum = add(line * LINE + lane, sum);
        UNROLL
        for (int bits = 8; bits > 0; bits >>= 1) sum += __shfl_xor_sync(~0u, sum, bits);
        const float other = __shfl_xor_sync(~0u, sum, 16);
        if (thread == 0) total = (total + double(sum)) + double(other);
    }
}

// |r| or r² of four rows.
DEVICE float4 size_of(float4 r, bool squared) {
    return squared ? each(r, [](float r) { return r * r; }) : each(r, [](float r) { return fabsf(r); });
}

DEVICE const float4& quad_at(const float* column, size_t row) {
    return *reinterpret_cast<const float4*>(column + row);
}

// The next `count` elements of shared memory, on 16 bytes.
template <class T>
DEVICE Shared<T> take(size_t& at, size_t count) {
    const Shared<T> room = shared<T>(at, count);
    at += (count * sizeof(T) + 15) / 16 * 16;
    return room;
}

// The block's program, copied into shared memory from byte `at` on.
template <bool TAPE>
DEVICE Evaluator load(const ExpressionArgs& args, size_t& at) {
    const uint4* words = reinterpret_cast<const uint4*>(args.programs);
    const uint4 first = words[2 * blockIdx.x], second = words[2 * blockIdx.x + 1];
    const Program program{first.x, first.y, first.z, first.w, second.x, second.y, {0, 0}};
    const Shared<uint4> code = take<uint4>(at, program.instructions);
    for (unsigned i = threadIdx.x; i < program.instructions; i += blockDim.x)
        code[i] = words[program.code + i];
    const Shared<float> constants = take<float>(at, program.constants);
    for (unsigned i = threadIdx.x; i < program.constants; i += blockDim.x)
        constants[i] = __uint_as_float(args.programs[program.constant + i]);
    const size_t places = TAPE ? program.instructions : program.slots;
    const unsigned length = length_of(args.tile);
    const Shared<float> results = take<float>(at, places * length);
    __syncthreads();
    return {program, code, constants, results, args.table, args.rows, length, place_of(4 * threadIdx.x)};
}

// ---------------------------------------------------------------- the fit

// Reweighting for MAE: residuals below this part of the loss count as that large.
constexpr double SMALL = 0.01;

// The normal equations: row j has the lower half of Jᵀ Ω J up to the diagonal, then (Jᵀ Ω r)_j.
DEVICE unsigned row_of(unsigned j) { return j * (j + 3) / 2; }

// The step s of (A + damping · diag A) s = g by Cholesky; `factor` has n (n + 1) / 2 elements. A
// parameter without any effect keeps its value. False where A is not finite.
DEVICE bool solve(unsigned n, Shared<double> equations, double damping, Shared<double> factor,
                  Shared<double> s) {
    const auto l = [&](unsigned i, unsigned j) -> double& { return factor[i * (i + 1) / 2 + j]; };
    for (unsigned j = 0; j < n; j++) {
        const double diagonal = __dmul_rn(equations[row_of(j) + j], 1.0 + damping);
        double rest = diagonal;
        for (unsigned k = 0; k < j; k++) rest -= __dmul_rn(l(j, k), l(j, k));
        if (!is_finite(rest)) return false;
        // Dependent on the parameters before it, to rounding: held where it is.
        const bool held = rest <= 1e-10 * diagonal;
        const double root = held ? 0.0 : sqrt(rest);
        l(j, j) = root;
        for (unsigned i = j + 1; i < n; i++) {
            double rest = equations[row_of(i) + j];
            for (unsigned k = 0; k < j; k++) rest -= __dmul_rn(l(i, k), l(j, k));
            l(i, j) = held ? 0.0 : rest / root;
        }
        double value = equations[row_of(j) + j + 1];
        for (unsigned k = 0; k < j; k++) value -= __dmul_rn(l(j, k), s[k]);
        s[j] = held ? 0.0 : value / root;
    }
    bool finite = true;
    for (unsigned j = n; j-- > 0;) {
        double value = s[j];
        for (unsigned k = j + 1; k < n; k++) value -= __dmul_rn(l(k, j), s[k]);
        s[j] = l(j, j) > 0.0 ? value / l(j, j) : 0.0;
        finite &= is_finite(s[j]);
    }
    return finite;
}

// What a fit has beside its program: [parameters] and [equations], the present ones and the best, and
// in columns the adjoints, the Jacobian and what the rows count.
struct Fit {
    unsigned thetas, parameters, equations;
    Shared<double> present, best, step, sums, kept, factor;
    Shared<float> adjoints, jacobian, omega, omega_r, size;
};

// The loss at e.constants, scale and offset, infinite where the program is invalid; the normal
// equations in fit.sums.
DEVICE double evaluate(const ExpressionArgs& args, Evaluator& e, const Fit& fit, float scale,
                       float offset, float smallest) {
    const float* target = args.table + size_t(args.variables) * args.rows;
    const float* weights = target + args.rows;
    const unsigned all_lines = args.rows / LINE, thread = threadIdx.x;
    const unsigned warp = thread / 32, warps = blockDim.x / 32;
    for (unsigned i = thread; i <= fit.equations; i += blockDim.x) fit.sums[i] = 0.0;
    for (unsigned first = 0; first < all_lines; first += args.tile) {
        const unsigned lines = min(args.tile, all_lines - first);
        const size_t row = size_t(first) * LINE + 4 * thread;
        float flag = 0.0f;
        if (thread < 4 * lines) {
            e.columns = args.table + row;
            const float4 value = forward<true>(e, flag);
            const float4 r = each(quad_at(target, row), value, [=](float y, float v) {
                return y - fmaf(v, scale, offset);
            });
            const float4 weight = quad_at(weights, row), size = size_of(r, args.squared);
            const float4 w = args.squared ? weight : each(weight, size, [=](float w, float size) {
                return w / fmaxf(size, smallest);
            });
            flag = tested(flag, size);
            quad_at(fit.size, e.place) = size;
            quad_at(fit.omega, e.place) = w;
            quad_at(fit.omega_r, e.place) = each(w, r, [](float w, float r) { return w * r; });
            if (args.scaled) {
                quad_at(fit.jacobian, fit.thetas * e.length + e.place) = value;
                quad_at(fit.jacobian, (fit.thetas + 1) * e.length + e.place) = all(1.0f);
            }
            reverse(e, fit.adjoints, fit.jacobian, scale);
        }
        if (__syncthreads_or(flag != 0.0f)) return INFINITE;
        // Each warp adds up some of the sums over the tile.
        unsigned sum = 0;
        for (unsigned j = 0; j < fit.parameters; j++) {
            const Shared<float> left = fit.jacobian + j * e.length;
            for (unsigned k = 0; k <= j; k++, sum++)
                if (sum % warps == warp) {
                    const Shared<float> right = fit.jacobian + k * e.length;
                    add_up(fit.sums[sum], lines, FIT_LINES, [=](unsigned row, float sum) {
                        const unsigned i = place_of(row);
                        return fmaf(__fmul_rn(left[i], fit.omega[i]), right[i], sum);
                    });
                }
            if (sum % warps == warp)
                add_up(fit.sums[sum], lines, FIT_LINES, [=](unsigned row, float sum) {
                    const unsigned i = place_of(row);
                    return fmaf(left[i], fit.omega_r[i], sum);
                });
            sum++;
        }
        if (sum % warps == warp)
            add_up(fit.sums[sum], lines, FIT_LINES, [=](unsigned row, float sum) {
                const float weight = weights[size_t(first) * LINE + row];
                return fmaf(fit.size[place_of(row)], weight, sum);
            });
        __syncthreads();
    }
    const double loss = fit.sums[fit.equations];
    return is_finite(loss) ? loss : INFINITE;
}

}  // namespace

// Losses: results[program, 0].
KERNEL void __launch_bounds__(256, 4) expression_score(ExpressionArgs args) {
    size_t at = 0;
    const Shared<double> loss = take<double>(at, 1);
    const Shared<float> size = take<float>(at, length_of(args.tile));
    Evaluator e = load<false>(args, at);
    const float* target = args.table + size_t(args.variables) * args.rows;
    const float* weights = target + args.rows;
    const unsigned all_lines = args.rows / LINE, thread = threadIdx.x;
    if (thread == 0) loss[0] = 0.0;
    for (unsigned first = 0; first < all_lines; first += args.tile) {
        const unsigned lines = min(args.tile, all_lines - first);
        const size_t row = size_t(first) * LINE + 4 * thread;
        float flag = 0.0f;
        if (thread < 4 * lines) {
            e.columns = args.table + row;
            const float4 value = forward<false>(e, flag);
            const float4 r = each(quad_at(target, row), value, [](float y, float v) { return y - v; });
            const float4 sizes = size_of(r, args.squared);
            flag = tested(flag, sizes);
            quad_at(size, e.place) = sizes;
        }
        if (__syncthreads_or(flag != 0.0f)) {
            if (thread == 0) loss[0] = INFINITE;
            break;
        }
        if (thread < 32)
            add_up(loss[0], lines, SCORE_LINES, [=](unsigned row, float sum) {
                return fmaf(size[place_of(row)], weights[size_t(first) * LINE + row], sum);
            });
        __syncthreads();
    }
    if (thread == 0)
        args.results[size_t(blockIdx.x) * args.stride] = is_finite(loss[0]) ? loss[0] : INFINITE;
}
EXPORT(expression_score)

// Levenberg–Marquardt from the program's constants, with a free scale from scale 0 and the median of
// the target, so that the first step is a linear fit: results[program, ..].
KERNEL void __launch_bounds__(256, 2) expression_fit(ExpressionArgs args) {
    size_t at = 0;
    Evaluator e = load<true>(args, at);
    const unsigned thetas = e.program.constants, n = thetas + (args.scaled ? 2 : 0);
    Fit fit;
    fit.thetas = thetas;
    fit.parameters = n;
    fit.equations = row_of(n);
    fit.present = take<double>(at, n);
    fit.best = take<double>(at, n);
    fit.step = take<double>(at, n);
    fit.sums = take<double>(at, fit.equations + 1);
    fit.kept = take<double>(at, fit.equations);
    fit.factor = take<double>(at, n * (n + 1) / 2);
    fit.adjoints = take<float>(at, size_t(e.program.slots) * e.length);
    fit.jacobian = take<float>(at, size_t(n) * e.length);
    fit.omega = take<float>(at, e.length);
    fit.omega_r = take<float>(at, e.length);
    fit.size = take<float>(at, e.length);

    const unsigned thread = threadIdx.x, threads = blockDim.x;
    for (unsigned i = thread; i < n; i += threads)
        fit.present[i] = i < thetas ? double(e.constants[i]) : i == thetas ? 0.0 : args.median;
    // Every thread follows the fit; the first solves the equations.
    double best_loss = INFINITE, damping = 1e-3, smallest = SMALL * fmax(args.deviation, 1e-30);
    unsigned evaluations = 0;
    for (;;) {
        __syncthreads();
        for (unsigned i = thread; i < thetas; i += threads) e.constants[i] = float(fit.present[i]);
        const float scale = args.scaled ? float(fit.present[thetas]) : 1.0f;
        const float offset = args.scaled ? float(fit.present[thetas + 1]) : 0.0f;
        __syncthreads();
        const double loss = evaluate(args, e, fit, scale, offset, float(smallest));
        evaluations++;
        bool stop = false;
        if (evaluations == 1 || loss < best_loss) {
            if (evaluations > 1) {
                stop = 1.0 - loss / best_loss < args.tolerance;
                damping = fmax(damping * 0.1, 1e-9);
                smallest = fmax(SMALL * loss, 1e-30);
            }
            best_loss = loss;
            for (unsigned i = thread; i < n; i += threads) fit.best[i] = fit.present[i];
            for (unsigned i = thread; i < fit.equations; i += threads) fit.kept[i] = fit.sums[i];
        } else if (damping > 1e3) {
            stop = true;
        } else {
            damping *= 30.0;
        }
        if (stop || evaluations > args.steps || !is_finite(best_loss) || !(best_loss > 0.0)) break;
        __syncthreads();
        bool solved = true;
        if (thread == 0) solved = solve(n, fit.kept, damping, fit.factor, fit.step);
        if (!__syncthreads_and(solved)) break;
        for (unsigned i = thread; i < n; i += threads) fit.present[i] = fit.best[i] + fit.step[i];
    }
    double* results = args.results + size_t(blockIdx.x) * args.stride;
    if (thread == 0) {
        results[0] = best_loss;
        results[1] = double(evaluations);
    }
    for (unsigned i = thread; i < n; i += threads) results[2 + i] = fit.best[i];
}
EXPORT(expression_fit)
