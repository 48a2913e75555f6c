// The way back through φe on the edges of a large graph, from what its last layer passes to each receiver
// to the gradients of its two hidden layers: activations are formed again from the features, and stay in
// shared memory and registers. Argument structs in Rust, launches and tests: src/ops/edge/; design:
// notes/edge.md.
//
// With x an edge's inputs, h1 and h2 the hidden layers, dz2 = [h2 > 0] · (what the receiver gets + the
// penalty's part from the signs of the messages), dz1 = [h1 > 0] · W2ᵀ dz2: one kernel sums dz1 xᵀ, another
// dz2 h1ᵀ. Where messages are sampled, what is in the brackets comes from the gradients of φe's outputs.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/fused.cuh"

LAYOUT(EdgeFusedBackwardArgs, features, receivers, senders, owners, masks, signs, d_outputs, passed, weights,
       bias, sums, biases, shift, period, n_features, dim, edges, hidden, inputs, first_chunks, words, tiles,
       outputs, unused)

DEVICE FusedInputs fused_inputs_of(const EdgeFusedBackwardArgs& args, unsigned columns) {
    return {args.features, {args.shift[0], args.shift[1], args.shift[2]},
            args.period,   args.n_features,
            args.dim,      args.inputs,
            columns};
}

// Of the tile of edges from `begin` on, inputs of rows `first` … + `rows`; 0 where there is none. Thread
// `thread` of `threads` calls.
DEVICE void fused_gather(const EdgeFusedBackwardArgs& args, unsigned begin, unsigned end, unsigned first,
                         unsigned rows, unsigned thread, unsigned threads, const FusedInputs& inputs,
                         Shared<Bf16> to, int row_size) {
    fused_inputs(inputs, to + first * row_size, row_size, rows, thread, threads,
                 [&](unsigned row, unsigned& receiver, unsigned& sender) {
                     const unsigned edge = begin + first + row;
                     if (edge >= end) return false;
                     receiver = args.receivers[args.owners[edge]];
                     sender = args.senders[edge];
                     return true;
                 });
}

// The receivers of the same rows.
DEVICE void fused_owners(const EdgeFusedBackwardArgs& args, unsigned begin, unsigned end, unsigned first,
                         unsigned rows, unsigned thread, unsigned threads, Shared<unsigned> owners) {
    for (unsigned row = first + thread; row < first + rows; row += threads)
        owners[row] = begin + row < end ? args.owners[begin + row] : 0;
}

// The gradients of φe's outputs of the same rows, `columns` of them.
DEVICE void fused_d_outputs(const EdgeFusedBackwardArgs& args, unsigned begin, unsigned end, unsigned first,
                            unsigned rows, unsigned thread, unsigned threads, unsigned columns,
                            Shared<Bf16> to, int row_size) {
    for (unsigned i = thread; i < rows * (columns / 8); i += threads) {
        const unsigned row = first + i / (columns / 8), column = i % (columns / 8) * 8, edge = begin + row;
        uint4 numbers = make_uint4(0, 0, 0, 0);
        if (edge < end && column < args.outputs)
            numbers =
                *reinterpret_cast<const uint4*>(args.d_outputs + size_t(edge) * args.outputs + column);
        *reinterpret_cast<uint4*>(to.at(row * row_size + column, 8)) = numbers;
    }
}

// The signs of the messages of the same rows, as numbers.
DEVICE void fused_signs(const EdgeFusedBackwardArgs& args, unsigned begin, unsigned end, unsigned first,
                        unsigned rows, unsigned thread, unsigned threads, Shared<Bf16> to, int row_size) {
    for (unsigned i = thread; i < rows * args.words; i += threads) {
        const unsigned row = first + i / args.words, word = i % args.words, edge = begin + row;
        uint2 bits = make_uint2(0, 0);
        if (edge < end)
            bits = *reinterpret_cast<const uint2*>(args.signs + (size_t(edge) * args.words + word) * 2);
        UNROLL
        for (unsigned k = 0; k < 32; k += 8)
            *reinterpret_cast<uint4*>(to.at(row * row_size + 32 * word + k, 8)) = sign_numbers(bits, k);
    }
}

// What the receivers of a tile's edges get, in the warp's units, which begin at `passed`.
template <int N>
DEVICE FusedTile<N> fused_passed(const float* passed, unsigned hidden, Shared<unsigned> owners) {
    FusedTile<N> tile = {};
    fused_each(tile, [&](int edge, int unit, float& first, float& second) {
        const float2 pair = *reinterpret_cast<const float2*>(passed + owners[edge] * hidden + unit);
        first = pair.x;
        second = pair.y;
    });
    return tile;
}

// Zeros where a bit is not set: `row(m, half)` has those of row m of the fragments and of its lower half,
// 2 n + i.
template <int N, class Row>
DEVICE void fused_mask(FusedTile<N>& tile, Row row) {
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            UNROLL
            for (int n = 0; n < N; n++)
                if (!(row(m, i / 2) >> (2 * n + i % 2) & 1)) tile.results[m][n][i] = 0;
        }
    }
}

// Such bits of the second hidden layer, of 64 units from 64 `group` on and the edges from `begin` on.
DEVICE unsigned fused_bits(const EdgeFusedBackwardArgs& args, unsigned begin, unsigned group, int m,
                           int half) {
    const int lane = int(threadIdx.x) % 32;
    const unsigned edge = begin + 16 * m + accumulator_element(lane, 2 * half).row;
    const size_t at = size_t(edge) * (args.hidden / 16) + 4 * group + lane % 4;
    return edge < args.edges ? args.masks[at] : 0;
}

// ---------------------------------------------------------------- the first layer

// Σ dz1 xᵀ, to which the bias adds a column.
template <bool SAMPLED>
DEVICE void fused_first(const EdgeFusedBackwardArgs& args) {
    const unsigned hidden = args.hidden, depth = hidden / FUSED_DEPTH, columns = args.first_chunks * FUSED_DEPTH;
    const unsigned chunks = args.first_chunks + args.words + depth;
    const int row = int(max(hidden, 32 * args.words)) + 8, input_row = int(columns) + 8;
    const unsigned corner = fused_corner<FUSED_WIDE>();
    size_t at = 0;
    const auto bytes = [&](size_t count) {
        const size_t from = at;
        at += count;
        return from;
    };
    const Shared<Bf16> activations = shared<Bf16>(bytes(FUSED * row * sizeof(Bf16)), FUSED * row);
    const Shared<Bf16> stages =
        shared<Bf16>(bytes(2 * hidden * FUSED_ROW * sizeof(Bf16)), 2 * hidden * FUSED_ROW);
    const Shared<Bf16> inputs = shared<Bf16>(bytes(FUSED * input_row * sizeof(Bf16)), FUSED * input_row);
    const Shared<unsigned> owners = shared<unsigned>(bytes(FUSED * sizeof(unsigned)), FUSED);
    // Bits of the first hidden layer: in registers they would tempt the compiler to keep the layer.
    const unsigned threads = blockDim.x;
    const Shared<unsigned> positive =
        shared<unsigned>(bytes(FUSED / 16 * threads * sizeof(unsigned)), FUSED / 16 * threads);
    FusedWeights weights = {args.weights, stages, hidden, chunks, chunks, 0, 0};
    float* const sums = args.sums + (size_t(blockIdx.x) * hidden + corner) * args.inputs;

    const unsigned first = blockIdx.x * args.tiles * FUSED;
    const unsigned end = min(first + args.tiles * FUSED, args.edges);
    if (first < end) fused_fetch(weights);
    for (unsigned begin = first; begin < end; begin += FUSED) {
        const bool more = begin + FUSED < end;
        // Everyone is done with the tile before.
        __syncthreads();
        fused_gather(args, begin, end, 0, FUSED, threadIdx.x, blockDim.x, fused_inputs_of(args, columns), inputs,
                     input_row);
        if (SAMPLED) {
            fused_d_outputs(args, begin, end, 0, FUSED, threadIdx.x, blockDim.x, 32 * args.words, activations,
                            row);
        } else {
            fused_owners(args, begin, end, 0, FUSED, threadIdx.x, blockDim.x, owners);
            fused_signs(args, begin, end, 0, FUSED, threadIdx.x, blockDim.x, activations, row);
        }
        {
            FusedTile<FUSED_WIDE> tile = fused_bias<FUSED_WIDE>(args.bias + corner);
            fused_product(weights, tile, inputs, input_row, args.first_chunks, more);
            UNROLL
            for (int m = 0; m < FUSED / 16; m++) {
                unsigned bits = 0;
                UNROLL
                for (int n = 0; n < FUSED_WIDE; n++) {
                    UNROLL
                    for (int i = 0; i < 4; i++)
                        bits |= unsigned(tile.results[m][n][i] > 0) << (16 * (i / 2) + 2 * n + i % 2);
                }
                positive[m * threads + threadIdx.x] = bits;
            }
        }
        {
            FusedTile<FUSED_WIDE> tile = {};
            if (!SAMPLED) tile = fused_passed<FUSED_WIDE>(args.passed + corner, hidden, owners);
            fused_product(weights, tile, activations, row, args.words, more);
            fused_mask(tile, [&](int m, int half) {
                return fused_bits(args, begin, threadIdx.x / 32, m, half);
            });
            // Everyone is done with the signs or gradients.
            __syncthreads();
            fused_put<false>(tile, activations + corner, row);
        }
        FusedTile<FUSED_WIDE> tile = {};
        fused_product(weights, tile, activations, row, depth, more);
        fused_mask(tile, [&](int m, int half) {
            return positive[m * threads + threadIdx.x] >> 16 * half;
        });
        // Everyone is done with dz2.
        __syncthreads();
        fused_put<false>(tile, activations + corner, row);
        // A warp needs its own units only.
        __syncwarp();
        for (unsigned n = 0; n < args.inputs / 8; n += 2) {
            FusedTile<2> part = {};
            // High and low parts of the inputs.
            fused_outer(part, activations + corner, row, inputs + 8 * n, input_row);
            fused_outer(part, activations + corner, row, inputs + (args.inputs + 8 * n), input_row);
            fused_accumulate(part, sums + n * 128, args.inputs / 8);
        }
    }
}
// Grid: blocks of `tiles` tiles of edges; a warp for each 64 hidden units.
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_first(EdgeFusedBackwardArgs args) {
    fused_first<false>(args);
}
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_first_sampled(EdgeFusedBackwardArgs args) {
    fused_first<true>(args);
}
EXPORT(edge_fused_first)
EXPORT(edge_fused_first_sampled)

// ---------------------------------------------------------------- the second layer

// A block has a slice of the gradient: units of the second hidden layer × units of the first.
constexpr int SLICE_OUT = 128, SLICE_IN = 256;
// Tiles whose sums stay in registers, where longer chains of sums would lose digits.
constexpr unsigned SLICE_TILES = 64;

// Rows `first` … + `rows` and columns `begin` … + `columns` of a layer's weights in chunks; zeros beyond
// `hidden`.
DEVICE void fused_slice(Shared<Bf16> to, int row_size, const Bf16* from, unsigned hidden, unsigned first,
                        unsigned rows, unsigned begin, unsigned columns) {
    for (unsigned i = threadIdx.x; i < rows * columns; i += blockDim.x) {
        const unsigned row = i / columns, column = i % columns, unit = first + row;
        const size_t chunk = (begin + column) / FUSED_DEPTH;
        if (unit < hidden)
            to[row * row_size + column] =
                from[(chunk * hidden + unit) * FUSED_DEPTH + (begin + column) % FUSED_DEPTH];
        else
            narrow(0, to[row * row_size + column]);
    }
}

// Σ dz2 h1ᵀ and Σ dz2.
template <bool SAMPLED>
DEVICE void fused_second(const EdgeFusedBackwardArgs& args) {
    const unsigned hidden = args.hidden, columns = 3 * args.inputs;
    const unsigned messages = SAMPLED ? args.outputs : 32 * args.words;
    const unsigned in = blockIdx.x * SLICE_IN, out = blockIdx.y * SLICE_OUT;
    const int input_row = int(columns) + 8, sign_row = int(messages) + 8;
    // Of the first layer's weights there are high and low parts, each once.
    const int high = int(args.inputs), weight_row = 2 * high + 8;
    const int in_row = SLICE_IN + 8, out_row = SLICE_OUT + 8;
    size_t at = 0;
    const auto numbers = [&](size_t count) {
        const size_t from = at;
        at += count * sizeof(Bf16);
        return shared<Bf16>(from, count);
    };
    const Shared<Bf16> first_weights = numbers(size_t(SLICE_IN) * weight_row);
    const Shared<Bf16> last_weights = numbers(size_t(SLICE_OUT) * sign_row);
    const Shared<Bf16> inputs = numbers(size_t(FUSED) * input_row);
    const Shared<Bf16> signs = numbers(size_t(FUSED) * sign_row);
    const Shared<Bf16> hidden_at = numbers(size_t(FUSED) * in_row);
    const Shared<Bf16> d_hidden = numbers(size_t(FUSED) * out_row);
    const Shared<float> bias = shared<float>(at, SLICE_IN);
    at += SLICE_IN * sizeof(float);
    // Sums of dz2, of each thread its own: registers are scarce.
    const Shared<float> sums = shared<float>(at, 2 * FUSED_PASS * FUSED_THREADS) + threadIdx.x;
    at += 2 * FUSED_PASS * FUSED_THREADS * sizeof(float);
    const Shared<unsigned> owners = shared<unsigned>(at, SAMPLED ? 0 : FUSED);

    const unsigned warp = threadIdx.x / 32;
    const unsigned begin = blockIdx.z * args.tiles * FUSED;
    const unsigned end = min(begin + args.tiles * FUSED, args.edges);
    if (begin < end) {
        fused_slice(first_weights, weight_row, args.weights, hidden, in, SLICE_IN, args.inputs,
                    2 * args.inputs);
        fused_slice(last_weights, sign_row,
                    args.weights + size_t(args.first_chunks) * hidden * FUSED_DEPTH, hidden, out,
                    SLICE_OUT, 0, messages);
        for (unsigned unit = threadIdx.x; unit < SLICE_IN; unit += blockDim.x)
            bias[unit] = in + unit < hidden ? args.bias[in + unit] : 0.0f;
    }
    // Units of dz2 that this warp forms, 16 of them, and the bits that say which count.
    const unsigned own = out + 16 * warp;
    unsigned bits = 0;
    const auto gather = [&](unsigned tile) {
        if (tile >= end) return;
        // Half of the block has half of the rows.
        const unsigned half = blockDim.x / 2, first = threadIdx.x / half * (FUSED / 2);
        const unsigned thread = threadIdx.x % half;
        fused_gather(args, tile, end, first, FUSED / 2, thread, half, fused_inputs_of(args, columns), inputs,
                     input_row);
        if (SAMPLED) {
            fused_d_outputs(args, tile, end, first, FUSED / 2, thread, half, messages, signs, sign_row);
        } else {
            fused_owners(args, tile, end, first, FUSED / 2, thread, half, owners);
            fused_signs(args, tile, end, first, FUSED / 2, thread, half, signs, sign_row);
        }
        bits = 0;
        UNROLL
        for (int row = 0; own < hidden && row < FUSED / 8; row++)
            bits |= (fused_bits(args, tile, own / 64, row / 2, row % 2) >> own % 64 / 4 & 15) << 4 * row;
    };
    gather(begin);
    FusedTile<FUSED_WIDE> tile = {};
    UNROLL
    for (int i = 0; i < 2 * FUSED_PASS; i++) sums[i * FUSED_THREADS] = 0;
    unsigned count = 0;
    for (unsigned now = begin; now < end; now += FUSED) {
        // The tile's inputs are there, and everyone is done with the hidden layers of the one before.
        __syncthreads();
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int unit = 32 * int(warp) + 16 * half;
            FusedTile<FUSED_PASS> part = {};
            fused_each(part, [&](int, int column, float& first, float& second) {
                first = bias[unit + column];
                second = bias[unit + column + 1];
            });
            // High parts of the weights with both parts of the inputs, low ones with high ones.
            for (int k = 0; k < 2 * high; k += 16)
                fused_multiply(part, inputs + k, input_row,
                               first_weights + (unit * weight_row + (k < high ? k : k - high)), weight_row);
            for (int k = 0; k < high; k += 16)
                fused_multiply(part, inputs + k, input_row,
                               first_weights + (unit * weight_row + high + k), weight_row);
            fused_put<true>(part, hidden_at + unit, in_row);
        }
        FusedTile<FUSED_PASS> part = {};
        if (!SAMPLED && own < hidden)
            part = fused_passed<FUSED_PASS>(args.passed + own, hidden, owners);
        for (int k = 0; k < int(messages); k += 16)
            fused_multiply(part, signs + k, sign_row, last_weights + (16 * int(warp) * sign_row + k),
                           sign_row);
        fused_mask(part, [&](int m, int half) { return bits >> (8 * m + 4 * half); });
        UNROLL
        for (int i = 0; i < 2 * FUSED_PASS; i++) {
            float sum = 0;
            UNROLL
            for (int m = 0; m < FUSED / 16; m++)
                sum += part.results[m][i / 2][i % 2] + part.results[m][i / 2][2 + i % 2];
            sums[i * FUSED_THREADS] += sum;
        }
        fused_put<false>(part, d_hidden + 16 * int(warp), out_row);
        // Everyone has formed its part of the hidden layers, and is done with what they are made of.
        __syncthreads();
        // Of two warps that share a scheduler one fetches while the other multiplies.
        for (unsigned turn = 0; turn < 2; turn++) {
            if (turn == warp / 4)
                gather(now + FUSED);
            else
                fused_outer(tile, d_hidden + 64 * (warp / 4), out_row, hidden_at + 64 * (warp % 4), in_row);
        }
        if (++count < SLICE_TILES && now + FUSED < end) continue;
        count = 0;
        const size_t across = gridDim.x * (SLICE_IN / 64), down = gridDim.y * (SLICE_OUT / 64);
        const size_t place = (blockIdx.z * down + out / 64 + warp / 4) * across + in / 64 + warp % 4;
        fused_accumulate(tile, args.sums + place * 64 * 64, FUSED_WIDE);
        tile = {};
        UNROLL
        for (int i = 0; i < 2 * FUSED_PASS; i++) {
            float sum = sums[i * FUSED_THREADS];
            sums[i * FUSED_THREADS] = 0;
            UNROLL
            for (int bit = 4; bit <= 16; bit *= 2) sum += __shfl_xor_sync(~0u, sum, bit);
            const unsigned unit =
                own + 8 * (i / 2) + accumulator_element(int(threadIdx.x) % 32, i % 2).column;
            if (blockIdx.x == 0 && threadIdx.x % 32 < 4 && unit < hidden)
                args.biases[size_t(blockIdx.z) * hidden + unit] += sum;
        }
    }
}
// Grid: slices of the first layer's units, of the second's, splits of `tiles` tiles.
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_second(EdgeFusedBackwardArgs args) {
    fused_second<false>(args);
}
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_second_sampled(EdgeFusedBackwardArgs args) {
    fused_second<true>(args);
}
EXPORT(edge_fused_second)
EXPORT(edge_fused_second_sampled)

// ---------------------------------------------------------------- sums of all blocks

struct EdgeFusedCollectArgs {
    const float* sums;     // [count, size]: fused_accumulate, of tiles of 64 × 8 · fragments
    const float* biases;   // [count, rows or columns]; or null: they are column `columns`
    float* gradients;      // of which this adds a part
    float* d_bias;
    unsigned long long size;
    unsigned count, bias_stride;
    unsigned fragments, across;      // tiles side by side
    unsigned rows, columns;          // that count
    unsigned row_step, column_step;  // of the gradients
    unsigned bias_count;
    float scale;
};
LAYOUT(EdgeFusedCollectArgs, sums, biases, gradients, d_bias, size, count, bias_stride, fragments, across,
       rows, columns, row_step, column_step, bias_count, scale)

// Adds up, in order, what blocks have summed. Any grid.
KERNEL void edge_fused_collect(EdgeFusedCollectArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t begin = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const auto sum = [&](const float* from, size_t stride) {
        float total = 0;
        for (size_t k = 0; k < args.count; k++) total += from[k * stride];
        return args.scale * total;
    };
    for (size_t i = begin; i < args.size; i += threads) {
        const Element e = accumulator_element(int(i / 4 % 32), int(i % 4));
        const size_t fragment = i / 128, n = fragment % args.fragments;
        const size_t m = fragment / args.fragments % (FUSED / 16);
        const size_t tile = fragment / args.fragments / (FUSED / 16);
        const size_t row = tile / args.across * 64 + 16 * m + e.row;
        const size_t column = tile % args.across * 8 * args.fragments + 8 * n + e.column;
        if (row >= args.rows) continue;
        if (column < args.columns)
            args.gradients[row * args.row_step + column * args.column_step] += sum(args.sums + i, args.size);
        else if (column == args.columns && !args.biases)
            args.d_bias[row] += sum(args.sums + i, args.size);
    }
    if (!args.biases) return;
    for (size_t i = begin; i < args.bias_count; i += threads)
        args.d_bias[i] += sum(args.biases + i, args.bias_stride);
}
EXPORT(edge_fused_collect)
