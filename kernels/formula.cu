// Sums of expressions over the edges of a large graph, with their derivatives. Mathematics, CPU twin and tests:
// src/ops/formula/.
//
// A warp has its own receivers, and goes over their edges 128 at a time, four neighbouring edges per lane, across the
// borders between receivers. It computes the variables of these edges, evaluates one program after another on them
// (common/evaluate.cuh), and then each lane adds up one column of one receiver, edge after edge and in f64: no atomics,
// and the same sums as on the CPU, bit for bit.
#include "common/device.cuh"
#include "common/evaluate.cuh"

struct FormulaArgs {
    const unsigned long long* row_start;  // [receivers + 1], of the chunk
    const unsigned* receivers;            // [receivers]: their nodes
    const unsigned* sender;               // [edge]
    const float* nodes;                   // [node, 8]: position, velocity, mass, speed
    const unsigned* programs;             // [words]: [programs, 8] a `Program` each, then what they point to
    double* sums;                         // [receivers, width], 0 before
    unsigned* invalid;                    // becomes 1 where a value is not finite
    unsigned count;                       // programs
    unsigned words;                       // a multiple of four
    unsigned width;
    unsigned used;                        // bit k: variable k has a column, in the order of the bits
    unsigned columns;                     // of a warp: variables, then what the longest program needs
    unsigned receivers_each;              // receivers of a warp
    unsigned receiver_count;
    float period;
};
LAYOUT(FormulaArgs, row_start, receivers, sender, nodes, programs, sums, invalid, count, words, width, used,
       columns, receivers_each, receiver_count, period)

namespace {

constexpr unsigned WARP = 32, EDGES = 4 * WARP;
// From one column to the next: lanes that add up different columns use different banks.
constexpr unsigned LENGTH = EDGES + 4;
constexpr unsigned VARIABLES = 9;

struct Node {
    float x, y, z, vx, vy, vz, m, v;
};
DEVICE Node node_at(const float* nodes, unsigned node) {
    const float4* row = reinterpret_cast<const float4*>(nodes) + 2 * size_t(node);
    const float4 a = row[0], b = row[1];
    return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
}

// As in src/ops/formula/mod.rs: nothing is fused.
DEVICE float length(float x, float y, float z) {
    return sqrtf(__fmul_rn(x, x) + __fmul_rn(y, y) + __fmul_rn(z, z));
}
DEVICE float nearest(float d, float period) {
    return d > 0.5f * period ? d - period : d < -0.5f * period ? d + period : d;
}

// The last of rows `first` … `last` − 1 that starts at or before `edge`.
DEVICE unsigned row_of(const FormulaArgs& args, size_t edge, unsigned first, unsigned last) {
    while (last - first > 1) {
        const unsigned middle = first + (last - first) / 2;
        if (args.row_start[middle] <= edge)
            first = middle;
        else
            last = middle;
    }
    return first;
}

// The variables of four edges from `edge` on, with the last one before `end` repeated.
DEVICE void put_variables(const FormulaArgs& args, size_t edge, size_t end, unsigned row, unsigned last,
                          Shared<float> variables, unsigned place) {
    float v[VARIABLES][4];
    UNROLL
    for (unsigned i = 0; i < 4; i++) {
        const size_t at = edge + i < end ? edge + i : end - 1;
        while (row + 1 < last && args.row_start[row + 1] <= at) row++;
        const Node a = node_at(args.nodes, args.receivers[row]);
        const Node b = node_at(args.nodes, args.sender[at]);
        const float dx = nearest(b.x - a.x, args.period), dy = nearest(b.y - a.y, args.period);
        const float dz = nearest(b.z - a.z, args.period);
        const float dv = length(b.vx - a.vx, b.vy - a.vy, b.vz - a.vz);
        const float all[VARIABLES] = {a.m, b.m, dx, dy, dz, length(dx, dy, dz), dv, a.v, b.v};
        UNROLL
        for (unsigned k = 0; k < VARIABLES; k++) v[k][i] = all[k];
    }
    unsigned column = 0;
    UNROLL
    for (unsigned k = 0; k < VARIABLES; k++)
        if (args.used >> k & 1)
            quad_at(variables, column++ * LENGTH + place) = make_float4(v[k][0], v[k][1], v[k][2], v[k][3]);
}

template <bool GRADIENT>
DEVICE void add_up(const FormulaArgs& args) {
    size_t taken = 0;
    const Shared<uint4> words = take<uint4>(taken, args.words / 4);
    for (unsigned i = threadIdx.x; i < args.words / 4; i += blockDim.x)
        words[i] = reinterpret_cast<const uint4*>(args.programs)[i];
    __syncthreads();
    for (unsigned p = 0; p < args.count; p++)
        for (unsigned i = threadIdx.x; i < words[2 * p].y; i += blockDim.x) known(words[words[2 * p].x + i]);
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, place = 4 * lane;
    taken += size_t(warp) * args.columns * LENGTH * sizeof(float);
    const Shared<float> columns = take<float>(taken, args.columns * LENGTH);
    const unsigned variables = __popc(args.used);

    const size_t number = size_t(blockIdx.x) * (blockDim.x / WARP) + warp;
    const size_t first = number * args.receivers_each;
    if (first >= args.receiver_count) return;
    const unsigned rows = unsigned(min(size_t(args.receiver_count), first + args.receivers_each));
    const size_t end = args.row_start[rows];
    unsigned row = unsigned(first);
    float flag = 0.0f;
    for (size_t tile = args.row_start[first]; tile < end; tile += EDGES) {
        const size_t tile_end = tile + EDGES < end ? tile + EDGES : end;
        const size_t mine = tile + place < end ? tile + place : end - 1;
        row = row_of(args, tile, row, rows);
        put_variables(args, mine, end, row_of(args, mine, row, rows), rows, columns, place);
        const unsigned rows_here = row_of(args, tile_end - 1, row, rows) - row + 1;
        unsigned at = 0;
        for (unsigned p = 0; p < args.count; p++) {
            const uint4 head = words[2 * p], tail = words[2 * p + 1];
            const Program program{head.x, head.y, head.z, head.w, tail.x, tail.y, {0, 0}};
            // The value and the derivatives, then the waiting results.
            const unsigned wide = 1 + (GRADIENT ? program.constants : 0);
            const Shared<float> found = columns + variables * LENGTH, results = found + wide * LENGTH;
            const Shared<float> constants = shared<float>(program.constant * sizeof(float), program.constants);
            const float* from_columns = columns.at(place, args.columns * LENGTH - place);
            const Evaluator e{program, words + program.code, constants, results, from_columns, LENGTH, LENGTH, place};
            const float4 value = forward<GRADIENT>(e, flag);
            flag = tested(flag, value);
            quad_at(found, place) = value;
            if (GRADIENT) reverse(e, results + program.instructions * LENGTH, found + LENGTH, 1.0f);
            __syncwarp();
            for (unsigned item = lane; item < rows_here * wide; item += WARP) {
                const unsigned of = row + item / wide, column = item % wide;
                const size_t begins = args.row_start[of], ends = args.row_start[of + 1];
                const unsigned from = begins > tile ? unsigned(begins - tile) : 0;
                const unsigned to = unsigned((ends < tile_end ? ends : tile_end) - tile);
                double& total = args.sums[size_t(of) * args.width + at + column];
                double sum = total;
                for (unsigned i = from; i < to; i++) sum += double(found[column * LENGTH + i]);
                total = sum;
            }
            __syncwarp();
            at += wide;
        }
    }
    if (flag != 0.0f) *args.invalid = 1;
}

}  // namespace

// Sums of values.
KERNEL void __launch_bounds__(128, 4) formula_values(FormulaArgs args) { add_up<false>(args); }
EXPORT(formula_values)

// Sums of each program's values, then of its derivatives.
KERNEL void __launch_bounds__(128, 4) formula_gradients(FormulaArgs args) { add_up<true>(args); }
EXPORT(formula_gradients)
