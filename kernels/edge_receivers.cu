// Layers on many receivers (φv's, and φe's last one if it acts on sums over edges) in f32: like those of mlp.cu, but
// with tiles of 128 × 128 results, and with the same bits, since the terms of a sum come in the same order. Argument
// structs in Rust, launches and tests: src/ops/edge/.
#include "common/device.cuh"
#include "common/gemm.cuh"

// ---------------------------------------------------------------- the product

constexpr int WIDE = 128, WIDE_DEPTH = 8, WIDE_THREADS = 256;
// Tiles lie [summed index][result index]; 4 more words than columns spread the banks.
constexpr int WIDE_ROW = WIDE + 4, WIDE_SIZE = WIDE_DEPTH * WIDE_ROW;
// Dynamic shared memory: two buffers of both operands. Must match the Rust that launches it.
constexpr size_t WIDE_SHARED = 16896;
static_assert(2 * 2 * WIDE_SIZE * sizeof(float) == WIDE_SHARED);

// Matrices have less than 2³² numbers: indices have 32 bits, or there would not be enough registers.

// An operand: element (index of the results, summed index) is at[index · row + sum] if its neighbours along the sum lie
// side by side (Inner::sum), else at[sum · row + index].
struct WideOperand {
    const float* at;
    unsigned row;
    int count;  // indices of the results
};

// What a thread fetches of a tile, and its element number `i`.
constexpr int WIDE_FETCHED = WIDE * WIDE_DEPTH / WIDE_THREADS;
template <Inner I>
DEVICE Place wide_fetched(int i) {
    const int t = int(threadIdx.x);
    if constexpr (I == Inner::sum)
        return {t / WIDE_DEPTH + WIDE_THREADS / WIDE_DEPTH * i, t % WIDE_DEPTH};
    else
        return {t % WIDE, t / WIDE + WIDE_THREADS / WIDE * i};
}

template <Inner I>
DEVICE void wide_fetch(float (&held)[WIDE_FETCHED], const WideOperand& from, int outer, int k, int end) {
    UNROLL
    for (int i = 0; i < WIDE_FETCHED; i++) {
        const Place place = wide_fetched<I>(i);
        const int o = outer + place.outer, s = k + place.k;
        const unsigned at = I == Inner::sum ? o * from.row + s : s * from.row + o;
        held[i] = o < from.count && s < end ? from.at[at] : 0.0f;
    }
}

// 8×8 results per thread, in groups of four rows and columns.
struct WideTile {
    float results[8][8];
    float sums[8];  // of the first operand's rows, in threads of the first columns

    // Row and column of results[i][j].
    static __device__ __forceinline__ Element element(int i, int j) {
        const int t = int(threadIdx.x);
        return {4 * (t / 16) + i % 4 + WIDE / 2 * (i / 4), 4 * (t % 16) + j % 4 + WIDE / 2 * (j / 4)};
    }
};

// The numbers of 8 rows or columns, starting at `first`.
DEVICE void wide_load(float (&x)[8], Shared<float> from, int first, int k) {
    UNROLL
    for (int half = 0; half < 2; half++) {
        const float4 four =
            *reinterpret_cast<const float4*>(from.at(k * WIDE_ROW + first + WIDE / 2 * half, 4));
        x[4 * half] = four.x, x[4 * half + 1] = four.y, x[4 * half + 2] = four.z, x[4 * half + 3] = four.w;
    }
}

// This thread's results of Σ a(row, k) · b(column, k) for k in begin … end, with SUMS also Σ a(row, k). For every
// thread of the block.
template <Inner A, Inner B, bool SUMS>
DEVICE WideTile wide_product(const WideOperand& a, const WideOperand& b, int row, int column, int begin,
                             int end) {
    const Shared<float> a_at = shared<float>(0, 2 * WIDE_SIZE);
    const Shared<float> b_at = shared<float>(2 * WIDE_SIZE * sizeof(float), 2 * WIDE_SIZE);
    WideTile tile = {};
    const Element first = WideTile::element(0, 0);
    float next_a[WIDE_FETCHED], next_b[WIDE_FETCHED];
    const auto fetch = [&](int k) {
        wide_fetch<A>(next_a, a, row, k, end);
        wide_fetch<B>(next_b, b, column, k, end);
    };
    fetch(begin);
    // Two buffers and one barrier per round: what is overwritten was read before the last barrier.
    int buffer = 0;
    for (int k = begin; k < end; k += WIDE_DEPTH) {
        const Shared<float> a_now = a_at + buffer * WIDE_SIZE, b_now = b_at + buffer * WIDE_SIZE;
        UNROLL
        for (int i = 0; i < WIDE_FETCHED; i++) {
            const Place x = wide_fetched<A>(i), y = wide_fetched<B>(i);
            a_now[x.k * WIDE_ROW + x.outer] = next_a[i];
            b_now[y.k * WIDE_ROW + y.outer] = next_b[i];
        }
        __syncthreads();
        // In flight while the tile is multiplied.
        if (k + WIDE_DEPTH < end) fetch(k + WIDE_DEPTH);
        UNROLL
        for (int s = 0; s < WIDE_DEPTH; s++) {
            float x[8], y[8];
            wide_load(x, a_now, first.row, s);
            wide_load(y, b_now, first.column, s);
            UNROLL
            for (int i = 0; i < 8; i++) {
                UNROLL
                for (int j = 0; j < 8; j++) tile.results[i][j] += x[i] * y[j];
                if (SUMS) tile.sums[i] += x[i];
            }
        }
        buffer ^= 1;
    }
    return tile;
}

// Calls `use(row, column, result)` for this thread's results inside `rows` × `columns`.
template <class Use>
DEVICE void wide_each(const WideTile& tile, int row, int rows, int column, int columns, Use use) {
    UNROLL
    for (int i = 0; i < 8; i++) {
        UNROLL
        for (int j = 0; j < 8; j++) {
            const Element e = WideTile::element(i, j);
            if (row + e.row < rows && column + e.column < columns)
                use(row + e.row, column + e.column, tile.results[i][j]);
        }
    }
}

// ---------------------------------------------------------------- the layers

struct EdgeReceiversLayerArgs {
    const float* inputs;   // [rows, in]
    const float* weights;  // [out, in]
    const float* bias;     // [out]
    float* outputs;        // [rows, out]
    unsigned rows, in_width, out_width;
    unsigned relu;         // 1: negative outputs become 0
};
LAYOUT(EdgeReceiversLayerArgs, inputs, weights, bias, outputs, rows, in_width, out_width, relu)

// inputs · weightsᵀ + bias. Grid: tiles of rows, of outputs.
KERNEL void __launch_bounds__(WIDE_THREADS, 2) edge_receivers_layer(EdgeReceiversLayerArgs args) {
    const int rows = int(args.rows), in = int(args.in_width), out = int(args.out_width);
    const int row = int(blockIdx.x) * WIDE, column = int(blockIdx.y) * WIDE;
    const WideOperand x = {args.inputs, args.in_width, rows}, w = {args.weights, args.in_width, out};
    const WideTile tile = wide_product<Inner::sum, Inner::sum, false>(x, w, row, column, 0, in);
    wide_each(tile, row, rows, column, out, [&](int r, int c, float value) {
        value += args.bias[c];
        // NaN stays NaN.
        if (args.relu && value < 0) value = 0;
        args.outputs[unsigned(r) * args.out_width + c] = value;
    });
}
EXPORT(edge_receivers_layer)

struct EdgeReceiversInputGradientArgs {
    const float* d_outputs;  // [rows, out]
    const float* weights;    // [out, in]
    const float* inputs;     // [rows, in]: a ReLU's outputs; or null
    float* d_inputs;         // [rows, in]
    unsigned rows, in_width, out_width;
    unsigned unused;
};
LAYOUT(EdgeReceiversInputGradientArgs, d_outputs, weights, inputs, d_inputs, rows, in_width, out_width, unused)

// d_outputs · weights, and 0 where the input is a ReLU's output that is not positive. Grid: tiles of rows, of inputs.
KERNEL void __launch_bounds__(WIDE_THREADS, 2) edge_receivers_input_gradient(EdgeReceiversInputGradientArgs args) {
    const int rows = int(args.rows), in = int(args.in_width), out = int(args.out_width);
    const int row = int(blockIdx.x) * WIDE, column = int(blockIdx.y) * WIDE;
    const WideOperand d = {args.d_outputs, args.out_width, rows}, w = {args.weights, args.in_width, in};
    const WideTile tile = wide_product<Inner::sum, Inner::result, false>(d, w, row, column, 0, out);
    wide_each(tile, row, rows, column, in, [&](int r, int c, float value) {
        const unsigned at = unsigned(r) * args.in_width + c;
        args.d_inputs[at] = !args.inputs || args.inputs[at] > 0 ? value : 0.0f;
    });
}
EXPORT(edge_receivers_input_gradient)

struct EdgeReceiversWeightGradientArgs {
    const float* d_outputs;  // [rows, out]
    const float* inputs;     // [rows, in]
    float* partials;         // [splits, stride], from the layer's first weight on
    float* biases;           // [splits, stride], from its first bias on
    unsigned long long stride;
    unsigned rows, in_width, out_width;
    unsigned rows_per_split;
};
LAYOUT(EdgeReceiversWeightGradientArgs, d_outputs, inputs, partials, biases, stride, rows, in_width, out_width,
       rows_per_split)

// Adds d_outputsᵀ · inputs and Σ d_outputs, with separate sums for each range of rows. Grid: tiles of outputs, of
// inputs, splits.
KERNEL void __launch_bounds__(WIDE_THREADS, 2)
    edge_receivers_weight_gradient(EdgeReceiversWeightGradientArgs args) {
    const int in = int(args.in_width), out = int(args.out_width);
    const int row = int(blockIdx.x) * WIDE, column = int(blockIdx.y) * WIDE;
    const unsigned begin = min(blockIdx.z * args.rows_per_split, args.rows);
    const unsigned end = min(begin + args.rows_per_split, args.rows);
    const WideOperand d = {args.d_outputs, args.out_width, out}, x = {args.inputs, args.in_width, in};
    const WideTile tile = wide_product<Inner::result, Inner::result, true>(d, x, row, column, int(begin), int(end));
    float* to = args.partials + blockIdx.z * args.stride;
    wide_each(tile, row, out, column, in,
                [&](int r, int c, float value) { to[size_t(r) * args.in_width + c] += value; });
    if (column > 0 || WideTile::element(0, 0).column > 0) return;
    UNROLL
    for (int i = 0; i < 8; i++) {
        const int r = row + WideTile::element(i, 0).row;
        if (r < out) args.biases[blockIdx.z * args.stride + r] += tile.sums[i];
    }
}
EXPORT(edge_receivers_weight_gradient)
