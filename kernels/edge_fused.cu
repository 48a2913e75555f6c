// φe on the edges of a large graph, from the features straight to sums over the edges of each receiver:
// what lies between stays in shared memory and registers. For predictions, in bf16.
// Argument structs in Rust, launches and tests: src/ops/edge/; design: notes/edge.md.
//
// Edges go through in tiles of FUSED. A block has a warp for each 64 units of a hidden layer, whose
// width is `hidden`, a multiple of 64. Weights lie in the order in which they are used, in chunks of
// FUSED_DEPTH along the summed index, [unit][FUSED_DEPTH]: a chunk of a hidden layer has all its units,
// a chunk of the last layer `hidden` / 4 of them, which make a pass.
#include "common/device.cuh"
#include "common/gemm.cuh"

constexpr int FUSED = 64, FUSED_DEPTH = 32;
// A row of weights in shared memory; rows are an odd number of 16 bytes apart, for ldmatrix.
constexpr int FUSED_ROW = FUSED_DEPTH + 8;
constexpr int FUSED_THREADS = 256;
// Fragments of 8 units of a warp in a hidden layer, and in a pass of the last one.
constexpr int FUSED_WIDE = 8, FUSED_PASS = 2;

struct EdgeFusedWeightsArgs {
    const float* parameters;  // of the arena, from the layer's first weight and bias on
    const float* bias;
    Bf16* weights;            // [passes, chunks, units, FUSED_DEPTH]
    float* padded_bias;       // [passes, units]
    unsigned out_width;       // units that count
    unsigned in_width, passes, chunks, units;
    unsigned n_features, dim;  // dim > 0: coordinates in φe's first layer, as in EdgeOperandsArgs
    unsigned split;            // the first layer: columns [high, high, low], each in_width wide
};
LAYOUT(EdgeFusedWeightsArgs, parameters, bias, weights, padded_bias, out_width, in_width, passes, chunks,
       units, n_features, dim, split)

// A layer's parameters in the order of `edge_fused`, with zeros around them. Any grid.
KERNEL void edge_fused_weights(EdgeFusedWeightsArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t count = size_t(args.passes) * args.chunks * args.units * FUSED_DEPTH;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        const size_t row = i / FUSED_DEPTH, chunk = row / args.units % args.chunks;
        const size_t unit = row / args.units / args.chunks * args.units + row % args.units;
        const size_t place = chunk * FUSED_DEPTH + i % FUSED_DEPTH;
        const size_t part = args.split ? place / args.in_width : 0;
        const size_t column = place - part * args.in_width;
        float w = 0;
        if (unit < args.out_width && column < args.in_width && part < 3) {
            const float* from = args.parameters + unit * args.in_width + column;
            w = *from;
            if (column < args.dim) w += from[args.n_features];
            if (part == 2) w -= __bfloat162float(__float2bfloat16_rn(w));
        }
        narrow(w, args.weights[i]);
        if (place == 0) args.padded_bias[unit] = unit < args.out_width ? args.bias[unit] : 0.0f;
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
    float* sums;                // [receivers, width]
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
    unsigned hidden, layers;    // hidden layers
    unsigned first_chunks;      // of the first layer
    unsigned passes;            // of the last layer; 0: sums are those of the last hidden layer
    unsigned width;             // of what is summed
    unsigned row;               // of the activations in shared memory
};
LAYOUT(EdgeFusedArgs, features, receivers, starts, senders, ranges, weights, biases, sums, shift, period,
       n_features, dim, hidden, layers, first_chunks, passes, width, row)

// Some whole stars on their way through one block.
struct Fused {
    const EdgeFusedArgs& args;
    Shared<Bf16> activations;  // [FUSED, row]
    Shared<Bf16> stages;       // [2][hidden, FUSED_ROW]
    Shared<float> running;     // [width, at least]: the sums of a receiver that goes on in the next tile
    Shared<unsigned> places;   // [2][FUSED]: receiver and sender of each edge of a tile
    unsigned wide_chunks, chunks;  // of the weights: of the hidden layers, of all
    unsigned chunk;                // that is fetched next
    unsigned stage;                // where it goes
};

// Starts to copy the next chunk of the weights, after the last one the first.
DEVICE void fused_fetch(Fused& it) {
    const bool wide = it.chunk < it.wide_chunks;
    const size_t quarters = 3 * size_t(wide ? it.chunk : it.wide_chunks) + it.chunk;
    const Bf16* from = it.args.weights + quarters * (it.args.hidden / 4 * FUSED_DEPTH);
    const Shared<Bf16> to = it.stages + it.stage * it.args.hidden * FUSED_ROW;
    UNROLL
    for (int i = 0; i < FUSED_WIDE; i++) {
        const unsigned piece = threadIdx.x + blockDim.x * i;
        if (wide || i < FUSED_PASS)
            cp_async_16(to.at(piece / (FUSED_DEPTH / 8) * FUSED_ROW + piece % (FUSED_DEPTH / 8) * 8, 8),
                        from + size_t(piece) * 8);
    }
    cp_async_commit();
    it.chunk = it.chunk + 1 < it.chunks ? it.chunk + 1 : 0;
    it.stage ^= 1;
}

// A thread's share of a tile: its warp has 64 edges × 8 N units, results[m][n] the fragment of edges
// 16 m … and units 8 n ….
template <int N>
struct FusedTile {
    float results[FUSED / 16][N][4];
};

// First unit of this warp.
template <int N>
DEVICE int fused_corner() {
    return int(threadIdx.x) / 32 * 8 * N;
}

// results += activations (columns `column` …) × a chunk of the weights.
template <int N>
DEVICE void fused_multiply(const Fused& it, FusedTile<N>& tile, int column, Shared<Bf16> weights) {
    // Of the four 8×8 matrices of an ldmatrix: row `l` of matrix `high`, `low`.
    const int lane = int(threadIdx.x) % 32, l = lane % 8, low = lane / 8 % 2, high = lane / 16;
    UNROLL
    for (int k = 0; k < FUSED_DEPTH; k += 16) {
        uint32_t y[N][2];
        UNROLL
        for (int n = 0; n < N; n += 2) {
            // Two fragments: units 0… with k 0…, with k 8…, then units 8….
            uint32_t pair[4];
            const int unit = fused_corner<N>() + 8 * n + 8 * high + l;
            ldmatrix_x4<false>(pair, weights.at(unit * FUSED_ROW + k + 8 * low, 8));
            y[n][0] = pair[0], y[n][1] = pair[1], y[n + 1][0] = pair[2], y[n + 1][1] = pair[3];
        }
        UNROLL
        for (int m = 0; m < FUSED / 16; m++) {
            // Matrices in the order of the fragment's registers: edges 0…, edges 8…, then k 8….
            uint32_t x[4];
            const int edge = 16 * m + 8 * low + l;
            ldmatrix_x4<false>(
                x, it.activations.at(edge * int(it.args.row) + column + k + 8 * high, 8));
            UNROLL
            for (int n = 0; n < N; n++) mma_m16n8k16_bf16(tile.results[m][n], x, y[n]);
        }
    }
}

// activations × the next `chunks` chunks + bias. Every thread of the block calls, and sees what others
// have written to the activations. `more`: weights are needed after those of the last layer, too.
template <int N>
DEVICE FusedTile<N> fused_product(Fused& it, unsigned chunks, const float* bias, bool more) {
    FusedTile<N> tile;
    UNROLL
    for (int n = 0; n < N; n++) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const Element e = accumulator_element(int(threadIdx.x) % 32, i);
            const float b = bias[fused_corner<N>() + 8 * n + e.column];
            UNROLL
            for (int m = 0; m < FUSED / 16; m++) tile.results[m][n][i] = b;
        }
    }
    for (unsigned k = 0; k < chunks; k++) {
        cp_async_wait<0>();
        // Everyone's copies have arrived, and everyone is done with the stage that is filled next.
        __syncthreads();
        const Shared<Bf16> weights = it.stages + (it.stage ^ 1) * it.args.hidden * FUSED_ROW;
        if (it.chunk != 0 || more) fused_fetch(it);
        fused_multiply(it, tile, int(k) * FUSED_DEPTH, weights);
    }
    return tile;
}

// A ReLU's outputs as activations. Every thread of the block calls.
DEVICE void fused_store(const Fused& it, const FusedTile<FUSED_WIDE>& tile) {
    // Everyone is done with the old ones.
    __syncthreads();
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        UNROLL
        for (int n = 0; n < FUSED_WIDE; n++) {
            UNROLL
            for (int i = 0; i < 4; i += 2) {
                const Element e = accumulator_element(int(threadIdx.x) % 32, i);
                const int unit = fused_corner<FUSED_WIDE>() + 8 * n + e.column;
                Bf16* const to = it.activations.at((16 * m + e.row) * int(it.args.row) + unit, 2);
                *reinterpret_cast<uint32_t*>(to) =
                    relu_bf16x2(tile.results[m][n][i], tile.results[m][n][i + 1]);
            }
        }
    }
}

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

// φe's inputs on the edges `begin` … `end`, as high and low parts: columns [high, low, high], each of
// [receiver's features, sender's, whose coordinates are relative to the receiver]; zeros around them.
// Every thread of the block calls.
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
        it.places[row] = args.receivers[low];
        it.places[FUSED + row] = args.senders[begin + row];
    }
    // Also: everyone is done with the activations of the tile before.
    __syncthreads();
    const unsigned width = args.n_features, columns = args.first_chunks * FUSED_DEPTH - 4 * width;
    for (unsigned i = threadIdx.x; i < FUSED * columns; i += blockDim.x) {
        // Column: of the high parts, then of what lies behind the second copy of them.
        const unsigned row = i / columns, column = i % columns;
        const Shared<Bf16> to = it.activations + row * args.row;
        if (column >= 2 * width) {
            narrow(0, to[4 * width + column]);
            continue;
        }
        float value = 0;
        if (row < end - begin) {
            const unsigned k = column % width;
            const float own = args.features[size_t(it.places[row]) * width + k];
            if (column < width) {
                value = own;
                UNROLL
                for (unsigned d = 0; d < 3; d++)
                    if (k == d && d < args.dim) value += args.shift[d];
            } else {
                value = args.features[size_t(it.places[FUSED + row]) * width + k];
                if (k < args.dim) {
                    value -= own;
                    if (args.period > 0) value -= args.period * roundf(value / args.period);
                }
            }
        }
        const Bf16 high = __float2bfloat16_rn(value);
        to[column] = high;
        narrow(value - __bfloat162float(high), to[2 * width + column]);
        to[4 * width + column] = high;
    }
}

// Grid: ranges; a warp for each 64 hidden units.
KERNEL void __launch_bounds__(FUSED_THREADS) edge_fused(EdgeFusedArgs args) {
    const unsigned hidden = args.hidden, last = args.ranges[blockIdx.x + 1];
    unsigned receiver = args.ranges[blockIdx.x];
    const unsigned first = args.starts[receiver], end = args.starts[last];
    const unsigned pass = hidden / 4, depth = hidden / FUSED_DEPTH;
    const unsigned sums = max(hidden, args.passes * pass);
    const unsigned wide_chunks = args.first_chunks + (args.layers - 1) * depth;
    size_t at = 0;
    const auto bytes = [&](size_t count) {
        const size_t from = at;
        at += count;
        return from;
    };
    Fused it = {args,
                shared<Bf16>(bytes(FUSED * args.row * sizeof(Bf16)), FUSED * args.row),
                shared<Bf16>(bytes(2 * hidden * FUSED_ROW * sizeof(Bf16)), 2 * hidden * FUSED_ROW),
                shared<float>(bytes(sums * sizeof(float)), sums),
                shared<unsigned>(bytes(2 * FUSED * sizeof(unsigned)), 2 * FUSED),
                wide_chunks, wide_chunks + args.passes * depth, 0, 0};

    for (unsigned unit = threadIdx.x; unit < sums; unit += blockDim.x) it.running[unit] = 0;
    if (first == end) {
        const size_t stop = size_t(last) * args.width;
        for (size_t i = size_t(receiver) * args.width + threadIdx.x; i < stop; i += blockDim.x)
            args.sums[i] = 0;
    } else {
        fused_fetch(it);
    }
    for (unsigned begin = first; begin < end; begin += FUSED) {
        const unsigned stop = min(begin + FUSED, end), from = receiver;
        const bool more = stop < end;
        fused_gather(it, begin, stop, from, last);
        for (unsigned layer = 0; layer < args.layers; layer++) {
            FusedTile<FUSED_WIDE> tile = fused_product<FUSED_WIDE>(
                it, layer == 0 ? args.first_chunks : depth, args.biases + layer * hidden, more);
            if (layer + 1 < args.layers || args.passes > 0) {
                fused_store(it, tile);
                continue;
            }
            UNROLL
            for (int m = 0; m < FUSED / 16; m++) {
                UNROLL
                for (int n = 0; n < FUSED_WIDE; n++) {
                    UNROLL
                    for (int i = 0; i < 4; i++) {
                        // A NaN stays one: the comparison is false for it.
                        float& x = tile.results[m][n][i];
                        x = x <= 0 ? 0.0f : x;
                    }
                }
            }
            receiver = fused_add(it, tile, begin, stop, from, last, 0);
        }
        for (unsigned p = 0; p < args.passes; p++) {
            const float* bias = args.biases + args.layers * hidden + p * pass;
            const FusedTile<FUSED_PASS> tile = fused_product<FUSED_PASS>(it, depth, bias, more);
            receiver = fused_add(it, tile, begin, stop, from, last, p * pass);
        }
    }
}
EXPORT(edge_fused)
