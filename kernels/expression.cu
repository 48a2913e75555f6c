// Losses of a population of expressions on a table, and their constants fitted. Mathematics, CPU twin and tests:
// src/ops/expression/.
//
// A block works on one program, whose values come from common/evaluate.cuh. Columns of the table come through the
// first-level cache, which blocks of one multiprocessor share, as they could not share a copy in shared memory.
//
// The steps of the fit are those of normal.rs there, and sums are taken in the order of cpu.rs's vectors of sixteen:
// f32 for each of sixteen lanes over the lines of a block of rows, then over the lanes, f64 over blocks. So a search
// takes the same path on a GPU as on a CPU with AVX-512, bit for bit.
#include "common/device.cuh"
#include "common/evaluate.cuh"

// A request about some of the programs. One launch serves several callers, each with its own table: a block reads the
// task of its program, and no block depends on another's.
struct ExpressionTask {
    const float* table;        // [variables + 2, rows]: the columns, the target, the weights
    unsigned rows;             // with the padding: whole lines of 16
    unsigned variables;
    unsigned tile;             // lines that a block takes at a time, at most 64; four threads each
    unsigned squared;          // the loss is MSE, not MAE
    // For fits only.
    unsigned scaled;           // fits scale and offset too
    unsigned steps;
    double tolerance;
    double median;             // of the target
    double deviation;          // its mean absolute deviation from the median
    uint64_t reserved;
};
LAYOUT(ExpressionTask, table, rows, variables, tile, squared, scaled, steps, tolerance, median, deviation,
       reserved)

struct ExpressionArgs {
    const ExpressionTask* tasks;
    const unsigned* programs;  // [programs, 8] a `Program` each, then what they point to
    double* results;           // [programs, stride]: loss, evaluations, parameters
    unsigned stride;
    unsigned reserved;
};
LAYOUT(ExpressionArgs, tasks, programs, results, stride, reserved)

namespace {

// Rows of a line, and lines over which a sum is f32, when scoring and when fitting.
constexpr unsigned LINE = 16, SCORE_LINES = 32, FIT_LINES = 16;

// ---------------------------------------------------------------- a program on a tile

// A column in shared memory with four rows for each thread: [tile, LINE]. Blocks of lines that are summed side by side
// are half the memory's banks apart.
DEVICE unsigned place_of(unsigned row) { return row + row / (LINE * FIT_LINES) * LINE; }
DEVICE unsigned length_of(unsigned tile) { return place_of(tile * LINE - 1) + 1; }

// ---------------------------------------------------------------- sums

DEVICE bool is_finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

constexpr double INFINITE = INFINITY;

// Adds to `total` the value of `add` for each element of a tile: add(row, sum) is the sum plus the element in a row of
// the tile. For one warp, two blocks of lines at a time.
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

// The block's program and its task, copied into shared memory from byte `at` on.
template <bool TAPE>
DEVICE Evaluator load(const ExpressionArgs& args, size_t& at, Shared<ExpressionTask>& task) {
    const uint4* words = reinterpret_cast<const uint4*>(args.programs);
    const uint4 first = words[2 * blockIdx.x], second = words[2 * blockIdx.x + 1];
    const Program program{first.x, first.y, first.z, first.w, second.x, second.y, {second.z, 0}};
    // The word that is otherwise reserved holds the number of the task.
    const ExpressionTask& asked = args.tasks[second.z];
    task = take<ExpressionTask>(at, 1);
    if (threadIdx.x == 0) task[0] = asked;
    const Shared<uint4> code = take<uint4>(at, program.instructions);
    for (unsigned i = threadIdx.x; i < program.instructions; i += blockDim.x)
        code[i] = known(words[program.code + i]);
    const Shared<float> constants = take<float>(at, program.constants);
    for (unsigned i = threadIdx.x; i < program.constants; i += blockDim.x)
        constants[i] = __uint_as_float(args.programs[program.constant + i]);
    const size_t places = TAPE ? program.instructions : program.slots;
    const unsigned length = length_of(asked.tile);
    const Shared<float> results = take<float>(at, places * length);
    __syncthreads();
    return {program, code, constants, results, asked.table, asked.rows, length, place_of(4 * threadIdx.x)};
}

// ---------------------------------------------------------------- the fit

// Reweighting for MAE: residuals below this fraction of the loss count as that large.
constexpr double SMALL = 0.01;

// The normal equations: row j has the lower triangle of Jᵀ Ω J up to the diagonal, then (Jᵀ Ω r)_j.
DEVICE unsigned row_of(unsigned j) { return j * (j + 3) / 2; }

// The step s of (A + damping · diag A) s = g by Cholesky; `factor` has n (n + 1) / 2 elements. A parameter without any
// effect keeps its value. False if A is not finite.
DEVICE bool solve(unsigned n, Shared<double> equations, double damping, Shared<double> factor,
                  Shared<double> s) {
    const auto l = [&](unsigned i, unsigned j) -> double& { return factor[i * (i + 1) / 2 + j]; };
    for (unsigned j = 0; j < n; j++) {
        const double diagonal = __dmul_rn(equations[row_of(j) + j], 1.0 + damping);
        double rest = diagonal;
        for (unsigned k = 0; k < j; k++) rest -= __dmul_rn(l(j, k), l(j, k));
        if (!is_finite(rest)) return false;
        // Dependent on earlier parameters, to rounding: held at its value.
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

// What a fit needs besides its program: [parameters] and [equations], the current ones and the best, and in columns the
// adjoints, the Jacobian and the weights of the rows.
struct Fit {
    unsigned thetas, parameters, equations;
    Shared<double> present, best, step, sums, kept, factor;
    Shared<float> adjoints, jacobian, omega, omega_r, size;
};

// The loss at e.constants, scale and offset, infinite if the program is invalid; the normal equations in fit.sums.
DEVICE double evaluate(const ExpressionTask& task, Evaluator& e, const Fit& fit, float scale,
                       float offset, float smallest) {
    const float* target = task.table + size_t(task.variables) * task.rows;
    const float* weights = target + task.rows;
    const unsigned all_lines = task.rows / LINE, thread = threadIdx.x;
    const unsigned warp = thread / 32, warps = blockDim.x / 32;
    for (unsigned i = thread; i <= fit.equations; i += blockDim.x) fit.sums[i] = 0.0;
    for (unsigned first = 0; first < all_lines; first += task.tile) {
        const unsigned lines = min(task.tile, all_lines - first);
        const size_t row = size_t(first) * LINE + 4 * thread;
        float flag = 0.0f;
        if (thread < 4 * lines) {
            e.columns = task.table + row;
            const float4 value = forward<true>(e, flag);
            const float4 r = each(quad_at(target, row), value, [=](float y, float v) {
                return y - fmaf(v, scale, offset);
            });
            const float4 weight = quad_at(weights, row), size = size_of(r, task.squared);
            const float4 w = task.squared ? weight : each(weight, size, [=](float w, float size) {
                return w / fmaxf(size, smallest);
            });
            flag = tested(flag, size);
            quad_at(fit.size, e.place) = size;
            quad_at(fit.omega, e.place) = w;
            quad_at(fit.omega_r, e.place) = each(w, r, [](float w, float r) { return w * r; });
            if (task.scaled) {
                quad_at(fit.jacobian, fit.thetas * e.length + e.place) = value;
                quad_at(fit.jacobian, (fit.thetas + 1) * e.length + e.place) = all(1.0f);
            }
            reverse(e, fit.adjoints, fit.jacobian, scale);
        }
        if (__syncthreads_or(flag != 0.0f)) return INFINITE;
        // Each warp does some of the sums over the tile.
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
    Shared<ExpressionTask> shared_task;
    Evaluator e = load<false>(args, at, shared_task);
    const ExpressionTask& task = shared_task[0];
    const Shared<double> loss = take<double>(at, 1);
    const Shared<float> size = take<float>(at, e.length);
    const float* target = task.table + size_t(task.variables) * task.rows;
    const float* weights = target + task.rows;
    const unsigned all_lines = task.rows / LINE, thread = threadIdx.x;
    if (thread == 0) loss[0] = 0.0;
    for (unsigned first = 0; first < all_lines; first += task.tile) {
        const unsigned lines = min(task.tile, all_lines - first);
        const size_t row = size_t(first) * LINE + 4 * thread;
        float flag = 0.0f;
        if (thread < 4 * lines) {
            e.columns = task.table + row;
            const float4 value = forward<false>(e, flag);
            const float4 r = each(quad_at(target, row), value, [](float y, float v) { return y - v; });
            const float4 sizes = size_of(r, task.squared);
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

// Levenberg–Marquardt from the program's constants, with a free scale from scale 0 and the median of the target, so
// that the first step is a linear fit: results[program, ..].
KERNEL void __launch_bounds__(256, 2) expression_fit(ExpressionArgs args) {
    size_t at = 0;
    Shared<ExpressionTask> shared_task;
    Evaluator e = load<true>(args, at, shared_task);
    const ExpressionTask& task = shared_task[0];
    const unsigned thetas = e.program.constants, n = thetas + (task.scaled ? 2 : 0);
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
        fit.present[i] = i < thetas ? double(e.constants[i]) : i == thetas ? 0.0 : task.median;
    // All threads follow the fit; the first solves the equations.
    double best_loss = INFINITE, damping = 1e-3, smallest = SMALL * fmax(task.deviation, 1e-30);
    unsigned evaluations = 0;
    for (;;) {
        __syncthreads();
        for (unsigned i = thread; i < thetas; i += threads) e.constants[i] = float(fit.present[i]);
        const float scale = task.scaled ? float(fit.present[thetas]) : 1.0f;
        const float offset = task.scaled ? float(fit.present[thetas + 1]) : 0.0f;
        __syncthreads();
        const double loss = evaluate(task, e, fit, scale, offset, float(smallest));
        evaluations++;
        bool stop = false;
        if (evaluations == 1 || loss < best_loss) {
            if (evaluations > 1) {
                stop = 1.0 - loss / best_loss < task.tolerance;
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
        if (stop || evaluations > task.steps || !is_finite(best_loss) || !(best_loss > 0.0)) break;
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
