// φe on the edges of a large graph, from the features straight to sums over the edges of each receiver:
// what lies between stays in shared memory and registers. In bf16, for predictions and for the way
// forward of a training step, which leaves for the way back (edge_fused_backward.cu) one bit for each
// unit of the last hidden layer, and where messages have an L1 penalty their signs. Where messages are
// sampled, φe's outputs go to memory, and edge.cu does the rest.
// Argument structs in Rust, launches and tests: src/ops/edge/; design: notes/edge.md.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/fused.cuh"

struct EdgeFusedWeightsArgs {
    const float* parameters;  // of the arena, from the layer's first weight and bias on
    const float* bias;
    Bf16* weights;            // [passes, chunks, units, FUSED_DEPTH]
    float* padded_bias;       // [passes, units], or null
    unsigned rows, columns;   // units that count, and summed indices
    unsigned row_step, column_step;  // from one of them to the next in the arena
    unsigned passes, chunks, units;
    unsigned n_features, dim;  // dim > 0: coordinates in φe's first layer, as in EdgeOperandsArgs
    unsigned split;            // > 0: the first layer, columns [high, high, low], each so wide
    float scale;
    unsigned unused;
};
LAYOUT(EdgeFusedWeightsArgs, parameters, bias, weights, padded_bias, rows, columns, row_step, column_step,
       passes, chunks, units, n_features, dim, split, scale, unused)

// A layer's parameters in the order in which they are used, with zeros around them. Any grid.
KERNEL void edge_fused_weights(EdgeFusedWeightsArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t count = size_t(args.passes) * args.chunks * args.units * FUSED_DEPTH;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        const size_t row = i / FUSED_DEPTH, chunk = row / args.units % args.chunks;
        const size_t unit = row / args.units / args.chunks * args.units + row % args.units;
        const size_t place = chunk * FUSED_DEPTH + i % FUSED_DEPTH;
        const size_t part = args.split ? place / args.split : 0;
        const size_t column = place - part * args.split;
        float w = 0;
        if (unit < args.rows && column < args.columns && part < 3) {
            const float* from = args.parameters + unit * args.row_step + column * args.column_step;
            w = *from;
            if (column < args.dim) w += from[args.n_features];
            w *= args.scale;
            if (part == 2) w -= __bfloat162float(__float2bfloat16_rn(w));
        }
        narrow(w, args.weights[i]);
        if (args.padded_bias && place == 0)
            args.padded_bias[unit] = unit < args.rows ? args.bias[unit] : 0.0f;
    }
}
EXPORT(edge_fused_weights)

struct EdgeFusedArgs {
    const float* features;      // [nodes, n_features]
    const unsigned* receivers;  // [receivers]
    const unsigned* starts;     // [receivers + 1]
    const unsigned* senders;    // [edges]
    const unsigned* ranges;     // [blocks + 1]: block b has the receivers ranges[b] … ranges[b + 1]
    const Bf16* weights;        // of all layers: [layer][pass][chunk][unit][FUSED_DEPTH]
    const float* biases;        // [layers, hidden], [passes, hidden / 4]
    float* sums;                // [receivers, width]; edge_fused_sampled: φe's outputs, [edges, width]
    const Bf16* d_outputs;      // edge_fused_last: their gradients, [edges, sign_columns]
    // For the way back; null for predictions.
    unsigned* owners;           // [edges] among the receivers
    uint16_t* masks;            // [edges, hidden / 16]: [64 units][thread of four], bits 2 n + i
    unsigned* signs;            // [edges, words, 2]: messages that are positive, negative; or null
    float* shares;              // [blocks, hidden · sign_columns] Σ sign(message) · unit, or
                                // Σ d_output · unit: fused_accumulate
    float* counts;              // [blocks, sign_columns] Σ sign(message), or Σ d_output
    double* penalties;          // [blocks, warps] Σ |message|
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
    unsigned hidden, layers;    // hidden layers
    unsigned inputs;            // width of a part of the inputs
    unsigned first_chunks;      // of the first layer
    unsigned passes;            // of the last layer; 0: sums are those of the last hidden layer
    unsigned width;             // of what is summed
    unsigned row;               // of the activations in shared memory
    unsigned sign_columns;      // messages, or, where these are sampled, φe's outputs, to a multiple of 16
};
LAYOUT(EdgeFusedArgs, features, receivers, starts, senders, ranges, weights, biases, sums, d_outputs,
       owners, masks, signs, shares, counts, penalties, shift, period, n_features, dim, hidden, layers,
       inputs, first_chunks, passes, width, row, sign_columns)

// Some whole stars on their way through one block.
struct Fused {
    const EdgeFusedArgs& args;
    Shared<Bf16> activations;  // [FUSED, row]
    Shared<float> running;     // [width, at least]: the sums of a receiver that goes on in the next tile
    Shared<unsigned> places;   // [2][FUSED]: receiver and sender of each edge of a tile
    FusedWeights weights;
};

// The units of a fragment row that a lane has at last, when sums over all edges are formed by halves:
// lanes exchange half of what they have, then half of that.
template <int N>
struct FusedSums {
    float value[2 * N];  // of units first, first + 1 …: the first `COUNT`
    int first;
    bool mine;  // no other lane has the same
    static constexpr int COUNT = N >= 4 ? N / 4 : 1;
};

// Sums of the edges `begin` … `end` of the tile, for all units of the warp.
template <int N>
DEVICE FusedSums<N> fused_sum(const FusedTile<N>& tile, int begin, int end) {
    const int lane = int(threadIdx.x) % 32;
    FusedSums<N> sums = {};
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        if (begin >= 16 * (m + 1) || end <= 16 * m) continue;
        UNROLL
        for (int i = 0; i < 4; i++) {
            const int edge = 16 * m + accumulator_element(lane, i).row;
            const bool counts = edge >= begin && edge < end;
            UNROLL
            for (int n = 0; n < N; n++)
                sums.value[2 * n + i % 2] += counts ? tile.results[m][n][i] : 0.0f;
        }
    }
    sums.mine = true;
    int left = 2 * N;
    UNROLL
    for (int bit = 16; bit >= 4; bit /= 2) {
        const bool upper = lane & bit;
        if (left == 1) {
            sums.value[0] += __shfl_xor_sync(~0u, sums.value[0], bit);
            sums.mine = sums.mine && !upper;
            continue;
        }
        left /= 2;
        UNROLL
        for (int j = 0; j < N; j++) {
            if (j >= left) continue;
            const float low = sums.value[j], high = sums.value[j + left];
            const float other = __shfl_xor_sync(~0u, upper ? low : high, bit);
            sums.value[j] = (upper ? high : low) + other;
        }
        sums.first += upper ? left : 0;
    }
    return sums;
}

// Adds the results of a tile, edges `begin` … `end` of the chunk, to the sums of their receivers from
// `receiver` on, in columns `column` …; stores those that are complete. Returns the receiver that goes on
// in the next tile, or `last`.
template <int N>
DEVICE unsigned fused_add(const Fused& it, const FusedTile<N>& tile, unsigned begin, unsigned end,
                          unsigned receiver, unsigned last, unsigned column) {
    const EdgeFusedArgs& args = it.args;
    unsigned start = max(args.starts[receiver], begin);
    for (; receiver < last; receiver++) {
        const unsigned stop = args.starts[receiver + 1];
        const bool complete = stop <= end;
        const FusedSums<N> sums = fused_sum(tile, int(start - begin), int(min(stop, end) - begin));
        UNROLL
        for (int j = 0; j < sums.COUNT; j++) {
            const int pair = (sums.first + j) / 2, odd = (sums.first + j) % 2;
            const unsigned unit = column + fused_corner<N>() + 8 * pair +
                                  accumulator_element(int(threadIdx.x) % 32, odd).column;
            if (!sums.mine || unit >= args.width) continue;
            const float sum = it.running[unit] + sums.value[j];
            it.running[unit] = complete ? 0.0f : sum;
            if (complete) args.sums[size_t(receiver) * args.width + unit] = sum;
        }
        if (!complete) break;
        start = stop;
    }
    return receiver;
}

// φe's inputs on the edges `begin` … `end`. Every thread of the block calls.
DEVICE void fused_gather(const Fused& it, unsigned begin, unsigned end, unsigned receiver,
                         unsigned last) {
    const EdgeFusedArgs& args = it.args;
    for (unsigned row = threadIdx.x; row < end - begin; row += blockDim.x) {
        // The last receiver that starts at this edge or before it.
        unsigned low = receiver, high = last;
        while (high - low > 1) {
            const unsigned middle = (low + high) / 2;
            if (args.starts[middle] <= begin + row)
                low = middle;
            else
                high = middle;
        }
        if (args.owners) args.owners[begin + row] = low;
        it.places[row] = args.receivers[low];
        it.places[FUSED + row] = args.senders[begin + row];
    }
    // Also: everyone is done with the activations of the tile before.
    __syncthreads();
    const FusedInputs inputs = {args.features,   {args.shift[0], args.shift[1], args.shift[2]},
                                args.period,     args.n_features,
                                args.dim,        args.inputs,
                                args.first_chunks * FUSED_DEPTH};
    fused_inputs(inputs, it.activations, int(args.row), FUSED, threadIdx.x, blockDim.x,
                 [&](unsigned row, unsigned& receiver, unsigned& sender) {
                     if (row >= end - begin) return false;
                     receiver = it.places[row];
                     sender = it.places[FUSED + row];
                     return true;
                 });
}

// A ReLU's outputs as activations. Every thread of the block calls.
DEVICE void fused_store(const Fused& it, FusedTile<FUSED_WIDE>& tile) {
    // Everyone is done with the old ones.
    __syncthreads();
    fused_put<true>(tile, it.activations + fused_corner<FUSED_WIDE>(), int(it.args.row));
}

// Which units of the last hidden layer are positive, on the edges from `begin` on.
DEVICE void fused_masks(const EdgeFusedArgs& args, const FusedTile<FUSED_WIDE>& tile, unsigned begin,
                        unsigned end) {
    const int lane = int(threadIdx.x) % 32;
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            unsigned bits = 0;
            UNROLL
            for (int bit = 0; bit < 2 * FUSED_WIDE; bit++)
                if (tile.results[m][bit / 2][2 * half + bit % 2] > 0) bits |= 1u << bit;
            const unsigned edge = begin + 16 * m + accumulator_element(lane, 2 * half).row;
            if (edge < end)
                args.masks[size_t(edge) * (args.hidden / 16) + threadIdx.x / 32 * 4 + lane % 4] =
                    uint16_t(bits);
        }
    }
}

// What a tile of messages leaves: their penalty, and their signs in shared memory, [FUSED, sign_columns +
// 8], in columns `column` …, with the sums of these over the edges. There are `rows` edges.
DEVICE void fused_messages(const EdgeFusedArgs& args, FusedTile<FUSED_PASS>& tile, Shared<Bf16> signs,
                           Shared<float> counts, int column, int rows, double& penalty) {
    const int corner = column + fused_corner<FUSED_PASS>();
    float sum = 0;
    fused_each(tile, [&](int edge, int unit, float& first, float& second) {
        const bool counted = edge < rows;
        sum += counted ? fabsf(first) + fabsf(second) : 0.0f;
        first = counted ? sign(first) : 0.0f;
        second = counted ? sign(second) : 0.0f;
        if (corner + unit < int(args.sign_columns))
            *reinterpret_cast<uint32_t*>(
                signs.at(edge * int(args.sign_columns + 8) + corner + unit, 2)) = bf16x2(first, second);
    });
    penalty += sum;
    const FusedSums<FUSED_PASS> sums = fused_sum(tile, 0, FUSED);
    const int unit = corner + 8 * (sums.first / 2) +
                     accumulator_element(int(threadIdx.x) % 32, sums.first % 2).column;
    if (sums.mine) counts[unit] += sums.value[0];
}

// Adds the products of the last hidden layer, which lies in the activations, with `count` columns of a
// tile to those from `column` on of the sums of the block.
DEVICE void fused_products(const Fused& it, Shared<Bf16> tile, unsigned row, unsigned column,
                           unsigned count) {
    const EdgeFusedArgs& args = it.args;
    const unsigned warp = threadIdx.x / 32, fragments = args.sign_columns / 8;
    float* const sums =
        args.shares + (size_t(blockIdx.x) * args.hidden + 64 * warp) * args.sign_columns;
    for (unsigned n = 0; n < count / 8; n += 2) {
        FusedTile<2> part = {};
        fused_outer(part, it.activations + 64 * warp, int(args.row), tile + 8 * n, int(row));
        fused_accumulate(part, sums + (column / 8 + n) * 128, fragments);
    }
}

// The signs of a tile as bits, and their products with the last hidden layer, which lies in the
// activations. Every thread of the block calls.
DEVICE void fused_shares(const Fused& it, Shared<Bf16> signs, unsigned begin, unsigned end) {
    const EdgeFusedArgs& args = it.args;
    const unsigned columns = args.sign_columns, words = (columns + 31) / 32, row = columns + 8;
    // Everyone has written its signs.
    __syncthreads();
    for (unsigned i = threadIdx.x; i < (end - begin) * words; i += blockDim.x) {
        const unsigned edge = i / words, word = i % words;
        unsigned positive = 0, negative = 0;
        for (unsigned bit = 0; bit < min(32u, columns - 32 * word); bit++) {
            const float x = widened(signs[edge * row + 32 * word + bit]);
            positive |= unsigned(x > 0) << bit;
            negative |= unsigned(x < 0) << bit;
        }
        unsigned* to = args.signs + (size_t(begin + edge) * words + word) * 2;
        *reinterpret_cast<uint2*>(to) = make_uint2(positive, negative);
    }
    fused_products(it, signs, row, 0, columns);
}

// φe's outputs on the edges from `begin` on, in columns `column` ….
DEVICE void fused_outputs(const EdgeFusedArgs& args, FusedTile<FUSED_PASS>& tile, unsigned begin,
                          unsigned end, unsigned column) {
    fused_each(tile, [&](int row, int unit, float first, float second) {
        const unsigned edge = begin + row, at = column + fused_corner<FUSED_PASS>() + unit;
        if (edge < end && at < args.width)
            *reinterpret_cast<float2*>(args.sums + size_t(edge) * args.width + at) =
                make_float2(first, second);
    });
}

// Sums of the gradients of φe's outputs on the edges from `begin` on, and of their products with the last
// hidden layer. Every thread of the block calls.
DEVICE void fused_last(const Fused& it, unsigned begin, unsigned end) {
    const EdgeFusedArgs& args = it.args;
    const unsigned columns = args.sign_columns, most = args.hidden / 4, row = most + 8;
    // Where the weights were that were used last: what is on its way goes to the other stage.
    const Shared<Bf16> tile = it.weights.stages + it.weights.stage * args.hidden * FUSED_ROW;
    for (unsigned column = 0; column < columns; column += most) {
        const unsigned count = min(most, columns - column);
        // Everyone is done with the columns before.
        __syncthreads();
        for (unsigned i = threadIdx.x; i < FUSED * (count / 8); i += blockDim.x) {
            const unsigned edge = i / (count / 8), unit = i % (count / 8) * 8;
            uint4 numbers = make_uint4(0, 0, 0, 0);
            if (begin + edge < end)
                numbers = *reinterpret_cast<const uint4*>(
                    args.d_outputs + size_t(begin + edge) * columns + column + unit);
            *reinterpret_cast<uint4*>(tile.at(edge * row + unit, 8)) = numbers;
        }
        // Everyone has written these columns, and its part of the hidden layer.
        __syncthreads();
        for (unsigned unit = threadIdx.x; unit < count; unit += blockDim.x) {
            float sum = 0;
            for (unsigned edge = 0; edge < FUSED; edge++) sum += widened(tile[edge * row + unit]);
            args.counts[size_t(blockIdx.x) * columns + column + unit] += sum;
        }
        fused_products(it, tile, row, column, count);
    }
}

// What a way forward is for.
enum class Forward {
    predictions,
    training,  // sums are those of the last hidden layer, and what the way back needs is kept; messages
               // only for their penalty
    sampled,   // φe's outputs in place of sums, and what the way back needs
    last,      // once more, for the gradient of φe's last layer
};

template <Forward WAY>
DEVICE void fused_forward(const EdgeFusedArgs& args) {
    constexpr bool TRAINING = WAY == Forward::training, SAMPLED = WAY == Forward::sampled;
    constexpr bool LAST = WAY == Forward::last, SUMS = !SAMPLED && !LAST;
    const unsigned hidden = args.hidden, last = args.ranges[blockIdx.x + 1];
    unsigned receiver = args.ranges[blockIdx.x];
    const unsigned first = args.starts[receiver], end = args.starts[last];
    const unsigned pass = hidden / 4, depth = hidden / FUSED_DEPTH, messages = args.passes * pass;
    const unsigned sums = !SUMS ? 0 : TRAINING ? hidden : max(hidden, messages);
    const unsigned wide_chunks = args.first_chunks + (args.layers - 1) * depth;
    size_t at = 0;
    const auto bytes = [&](size_t count) {
        const size_t from = at;
        at += count;
        return from;
    };
    const Shared<Bf16> activations =
        shared<Bf16>(bytes(FUSED * args.row * sizeof(Bf16)), FUSED * args.row);
    const Shared<Bf16> stages =
        shared<Bf16>(bytes(2 * hidden * FUSED_ROW * sizeof(Bf16)), 2 * hidden * FUSED_ROW);
    Fused it = {args, activations, shared<float>(bytes(sums * sizeof(float)), sums),
                shared<unsigned>(bytes(2 * FUSED * sizeof(unsigned)), 2 * FUSED),
                {args.weights, stages, hidden, wide_chunks,
                 wide_chunks + (LAST ? 0 : args.passes * depth), 0, 0}};
    // Of messages in training: sums of signs, and signs.
    const unsigned kept = TRAINING ? messages : 0, sign_row = kept > 0 ? args.sign_columns + 8 : 0;
    const Shared<float> counts = shared<float>(bytes(kept * sizeof(float)), kept);
    const Shared<Bf16> signs = shared<Bf16>(bytes(FUSED * sign_row * sizeof(Bf16)), FUSED * sign_row);
    double penalty = 0;

    for (unsigned unit = threadIdx.x; unit < sums; unit += blockDim.x) it.running[unit] = 0;
    if (TRAINING)
        for (unsigned unit = threadIdx.x; unit < messages; unit += blockDim.x) counts[unit] = 0;
    if (first < end) {
        fused_fetch(it.weights);
    } else if (SUMS) {
        const size_t stop = size_t(last) * args.width;
        for (size_t i = size_t(receiver) * args.width + threadIdx.x; i < stop; i += blockDim.x)
            args.sums[i] = 0;
    }
    for (unsigned begin = first; begin < end; begin += FUSED) {
        const unsigned stop = min(begin + FUSED, end), from = receiver;
        const bool more = stop < end;
        fused_gather(it, begin, stop, from, last);
        for (unsigned layer = 0; layer < args.layers; layer++) {
            FusedTile<FUSED_WIDE> tile = fused_bias<FUSED_WIDE>(args.biases + layer * hidden +
                                                                fused_corner<FUSED_WIDE>());
            fused_product(it.weights, tile, it.activations, int(args.row),
                          layer == 0 ? args.first_chunks : depth, more);
            if (layer + 1 < args.layers || LAST || (WAY == Forward::predictions && args.passes > 0)) {
                fused_store(it, tile);
                continue;
            }
            fused_each(tile, [&](int, int, float& one, float& other) {
                // A NaN stays one: the comparison is false for it.
                one = one <= 0 ? 0.0f : one;
                other = other <= 0 ? 0.0f : other;
            });
            if (TRAINING || SAMPLED) fused_masks(args, tile, begin, stop);
            if (SUMS) receiver = fused_add(it, tile, begin, stop, from, last, 0);
            if ((TRAINING && args.passes > 0) || SAMPLED) fused_store(it, tile);
        }
        if (LAST) {
            fused_last(it, begin, stop);
            continue;
        }
        for (unsigned p = 0; p < args.passes; p++) {
            FusedTile<FUSED_PASS> tile = fused_bias<FUSED_PASS>(
                args.biases + args.layers * hidden + p * pass + fused_corner<FUSED_PASS>());
            fused_product(it.weights, tile, it.activations, int(args.row), depth, more);
            if (TRAINING)
                fused_messages(args, tile, signs, counts, int(p * pass), int(stop - begin), penalty);
            else if (SAMPLED)
                fused_outputs(args, tile, begin, stop, p * pass);
            else
                receiver = fused_add(it, tile, begin, stop, from, last, p * pass);
        }
        if (TRAINING && args.passes > 0) fused_shares(it, signs, begin, stop);
    }
    if (TRAINING && args.passes > 0) {
        UNROLL
        for (int bits = 16; bits > 0; bits /= 2) penalty += __shfl_xor_sync(~0u, penalty, bits);
        if (threadIdx.x % 32 == 0)
            args.penalties[(blockIdx.x * blockDim.x + threadIdx.x) / 32] += penalty;
        __syncthreads();
        for (unsigned unit = threadIdx.x; unit < min(messages, args.sign_columns); unit += blockDim.x)
            args.counts[size_t(blockIdx.x) * args.sign_columns + unit] += counts[unit];
    }
}

// Grid: ranges; a warp for each 64 hidden units.
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused(EdgeFusedArgs args) {
    fused_forward<Forward::predictions>(args);
}
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_training(EdgeFusedArgs args) {
    fused_forward<Forward::training>(args);
}
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_sampled(EdgeFusedArgs args) {
    fused_forward<Forward::sampled>(args);
}
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused_last(EdgeFusedArgs args) {
    fused_forward<Forward::last>(args);
}
EXPORT(edge_fused)
EXPORT(edge_fused_training)
EXPORT(edge_fused_sampled)
EXPORT(edge_fused_last)
