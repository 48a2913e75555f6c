// What the fused kernels of `edge` share: tiles of FUSED edges, whose activations lie in shared memory
// and whose results are in registers, a warp for each 64 units of a hidden layer, whose width is
// `hidden`, a multiple of 64.
//
// Weights lie in the order in which they are used, in chunks of FUSED_DEPTH along the summed index,
// [unit][FUSED_DEPTH]: a wide chunk has a row for each hidden unit, one of φe's last layer `hidden` / 4.
#pragma once

constexpr int FUSED = 64, FUSED_DEPTH = 32;
// A row of weights in shared memory; rows are an odd number of 16 bytes apart, for ldmatrix.
constexpr int FUSED_ROW = FUSED_DEPTH + 8;
constexpr int FUSED_THREADS = 256;
// Fragments of 8 units of a warp in a hidden layer, and in a pass of the last one.
constexpr int FUSED_WIDE = 8, FUSED_PASS = 2;

// ---------------------------------------------------------------- products

// A thread's share of a tile: results[m][n] is the fragment of rows 16 m … and columns 8 n …; rows are
// the tile's edges, or units of a hidden layer.
template <int N>
struct FusedTile {
    float results[FUSED / 16][N][4];
};

// First unit of this warp.
template <int N>
DEVICE int fused_corner() {
    return int(threadIdx.x) / 32 * 8 * N;
}

// Calls `use(row, column, first, second)` for the results of this thread in columns `column`, which is
// even, and `column` + 1.
template <int N, class Use>
DEVICE void fused_each(FusedTile<N>& tile, Use use) {
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        UNROLL
        for (int n = 0; n < N; n++) {
            UNROLL
            for (int i = 0; i < 4; i += 2) {
                const Element e = accumulator_element(int(threadIdx.x) % 32, i);
                use(16 * m + e.row, 8 * n + e.column, tile.results[m][n][i],
                    tile.results[m][n][i + 1]);
            }
        }
    }
}

// results(edge, unit) += Σ x(edge, k) · y(unit, k) for 16 k, which lie side by side.
template <int N>
DEVICE void fused_multiply(FusedTile<N>& tile, Shared<Bf16> x_at, int x_row, Shared<Bf16> y_at,
                           int y_row) {
    // Of the four 8×8 matrices of an ldmatrix: row `l` of matrix `high`, `low`.
    const int lane = int(threadIdx.x) % 32, l = lane % 8, low = lane / 8 % 2, high = lane / 16;
    uint32_t y[N][2];
    UNROLL
    for (int n = 0; n < N; n += 2) {
        // Two fragments: units 0… with k 0…, with k 8…, then units 8….
        uint32_t pair[4];
        ldmatrix_x4<false>(pair, y_at.at((8 * n + 8 * high + l) * y_row + 8 * low, 8));
        y[n][0] = pair[0], y[n][1] = pair[1], y[n + 1][0] = pair[2], y[n + 1][1] = pair[3];
    }
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        // Matrices in the order of the fragment's registers: edges 0…, edges 8…, then k 8….
        uint32_t x[4];
        ldmatrix_x4<false>(x, x_at.at((16 * m + 8 * low + l) * x_row + 8 * high, 8));
        UNROLL
        for (int n = 0; n < N; n++) mma_m16n8k16_bf16(tile.results[m][n], x, y[n]);
    }
}

// results(unit, column) += Σ x(edge, unit) · y(edge, column) over the edges of a tile.
template <int N>
DEVICE void fused_outer(FusedTile<N>& tile, Shared<Bf16> x_at, int x_row, Shared<Bf16> y_at, int y_row) {
    const int lane = int(threadIdx.x) % 32, l = lane % 8, low = lane / 8 % 2, high = lane / 16;
    UNROLL
    for (int k = 0; k < FUSED; k += 16) {
        uint32_t y[N][2];
        UNROLL
        for (int n = 0; n < N; n += 2) {
            uint32_t pair[4];
            ldmatrix_x4<true>(pair, y_at.at((k + 8 * low + l) * y_row + 8 * n + 8 * high, 8));
            y[n][0] = pair[0], y[n][1] = pair[1], y[n + 1][0] = pair[2], y[n + 1][1] = pair[3];
        }
        UNROLL
        for (int m = 0; m < FUSED / 16; m++) {
            uint32_t x[4];
            ldmatrix_x4<true>(x, x_at.at((k + 8 * high + l) * x_row + 16 * m + 8 * low, 8));
            UNROLL
            for (int n = 0; n < N; n++) mma_m16n8k16_bf16(tile.results[m][n], x, y[n]);
        }
    }
}

// ---------------------------------------------------------------- weights on their way

struct FusedWeights {
    const Bf16* from;
    Shared<Bf16> stages;  // [2][hidden, FUSED_ROW]
    unsigned hidden;
    unsigned wide_chunks, chunks;  // of hidden layers, of all
    unsigned chunk;                // that is fetched next
    unsigned stage;                // where it goes
};

// Starts to copy the next chunk, after the last one the first.
DEVICE void fused_fetch(FusedWeights& it) {
    const bool wide = it.chunk < it.wide_chunks;
    const size_t quarters = 3 * size_t(wide ? it.chunk : it.wide_chunks) + it.chunk;
    const Bf16* from = it.from + quarters * (it.hidden / 4 * FUSED_DEPTH);
    const Shared<Bf16> to = it.stages + it.stage * it.hidden * FUSED_ROW;
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

// Adds activations × the next `chunks` chunks. Every thread of the block calls, and sees what others
// have written to the activations. `more`: weights are needed after the last chunk, too.
template <int N>
DEVICE void fused_product(FusedWeights& it, FusedTile<N>& tile, Shared<Bf16> activations, int row,
                          unsigned chunks, bool more) {
    for (unsigned k = 0; k < chunks; k++) {
        cp_async_wait<0>();
        // Everyone's copies have arrived, and everyone is done with the stage that is filled next.
        __syncthreads();
        const Shared<Bf16> weights =
            it.stages + (it.stage ^ 1) * it.hidden * FUSED_ROW + fused_corner<N>() * FUSED_ROW;
        if (it.chunk != 0 || more) fused_fetch(it);
        UNROLL
        for (int step = 0; step < FUSED_DEPTH; step += 16)
            fused_multiply(tile, activations + (int(k) * FUSED_DEPTH + step), row, weights + step,
                           FUSED_ROW);
    }
}

// The bias of the warp's units on every edge.
template <int N>
DEVICE FusedTile<N> fused_bias(const float* bias) {
    FusedTile<N> tile = {};
    fused_each(tile, [&](int, int column, float& first, float& second) {
        first = bias[column];
        second = bias[column + 1];
    });
    return tile;
}

// ---------------------------------------------------------------- activations

// Two numbers as bf16, side by side.
DEVICE uint32_t bf16x2(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// The warp's units, which begin at `to`, as activations; RELU: zeros for what is negative.
template <bool RELU, int N>
DEVICE void fused_put(FusedTile<N>& tile, Shared<Bf16> to, int row) {
    fused_each(tile, [&](int edge, int unit, float first, float second) {
        *reinterpret_cast<uint32_t*>(to.at(edge * row + unit, 2)) =
            RELU ? relu_bf16x2(first, second) : bf16x2(first, second);
    });
}

// What the inputs of φe are made of.
struct FusedInputs {
    const float* features;  // [nodes, n_features]
    float shift[3];
    float period;           // 0 in open space
    unsigned n_features, dim;
    unsigned width;         // of a row of high or of low parts: more than 2 · n_features
    unsigned columns;       // of all parts
};

// Some rows of φe's inputs as [high, low, high] parts, each of [receiver's features, sender's, whose
// coordinates are relative to the receiver, 1]; zeros around them. Thread `thread` of `threads` calls.
// `edge(row, receiver, sender)`: the nodes of an edge, or false where there is none.
template <class Edge>
DEVICE void fused_inputs(const FusedInputs& it, Shared<Bf16> to, int row_size, unsigned rows,
                         unsigned thread, unsigned threads, Edge edge) {
    const unsigned features = it.n_features, width = it.width, columns = it.columns - 2 * width;
    for (unsigned i = thread; i < rows * columns; i += threads) {
        // Column: of the high parts, then of what lies behind the second copy of them.
        const unsigned row = i / columns, column = i % columns;
        const Shared<Bf16> at = to + row * row_size;
        if (column >= width) {
            narrow(0, at[2 * width + column]);
            continue;
        }
        float value = 0;
        unsigned receiver = 0, sender = 0;
        if (column <= 2 * features && edge(row, receiver, sender)) {
            const unsigned k = column % features;
            const float own = column < 2 * features ? it.features[size_t(receiver) * features + k] : 1;
            value = own;
            if (column < features) {
                UNROLL
                for (unsigned d = 0; d < 3; d++)
                    if (k == d && d < it.dim) value += it.shift[d];
            } else if (column < 2 * features) {
                value = it.features[size_t(sender) * features + k];
                if (k < it.dim) {
                    value -= own;
                    if (it.period > 0) value -= it.period * roundf(value / it.period);
                }
            }
        }
        const Bf16 high = __float2bfloat16_rn(value);
        at[column] = high;
        narrow(value - __bfloat162float(high), at[width + column]);
        at[2 * width + column] = high;
    }
}

// ---------------------------------------------------------------- the way back

// What the kernels of edge_fused_backward.cu and edge_hopper_backward.cu take.
struct EdgeFusedBackwardArgs {
    const float* features;      // [nodes, n_features]
    const unsigned* receivers;  // [receivers]
    const unsigned* senders;    // [edges]
    const unsigned* owners;     // [edges] among the receivers
    const uint16_t* masks;      // [edges, hidden / 16], as in EdgeFusedArgs
    const unsigned* signs;      // [edges, words, 2], as there; or null
    const Bf16* d_outputs;      // [edges, outputs] of φe, where messages are sampled; or null
    const float* passed;        // [receivers, hidden]: what φe's last layer passes back; or null
    const Bf16* weights;        // chunks of W1, of the penalty's weight · W3ᵀ or of W3ᵀ (words), of W2ᵀ
    const float* bias;          // of the first layer, of all units of the weights
    float* sums;                // first layer: [blocks, hidden · inputs], warpgroups instead of blocks in
                                // edge_hopper_first; second: [splits, slices]: fused_accumulate
    float* biases;              // [splits, hidden] of the second layer
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
    unsigned edges, hidden;
    unsigned inputs;            // width of a part of the inputs
    unsigned first_chunks;      // of the first layer
    unsigned words;             // of the signs, or 32 outputs each; 0: no penalty
    unsigned tiles;             // of a block, or of a split
    unsigned outputs;           // of φe where messages are sampled, to a multiple of 16
    unsigned unused;
};

// Signs first … first + 8 of 32, of which x has the positive ones and y the negative ones, as bf16.
DEVICE uint4 sign_numbers(uint2 bits, unsigned first) {
    uint32_t x[4];
    UNROLL
    for (unsigned j = 0; j < 4; j++) {
        const auto number = [&](unsigned bit) {
            return (bits.x >> bit & 1) * 0x3f80u + (bits.y >> bit & 1) * 0xbf80u;
        };
        x[j] = number(first + 2 * j) | number(first + 2 * j + 1) << 16;
    }
    return make_uint4(x[0], x[1], x[2], x[3]);
}

// ---------------------------------------------------------------- sums of many tiles

// Sums of outer products lie as the fragments do: [tile of 64 units × 8 N columns][m][n][lane][4].
// Adds a tile, N fragments of `fragments`, to its sums, which begin at `to`.
template <int N>
DEVICE void fused_accumulate(const FusedTile<N>& tile, float* to, unsigned fragments) {
    UNROLL
    for (int m = 0; m < FUSED / 16; m++) {
        UNROLL
        for (int n = 0; n < N; n++) {
            float4* const at =
                reinterpret_cast<float4*>(to) + (m * fragments + n) * 32 + threadIdx.x % 32;
            const float (&x)[4] = tile.results[m][n];
            const float4 old = *at;
            *at = make_float4(old.x + x[0], old.y + x[1], old.z + x[2], old.w + x[3]);
        }
    }
}
