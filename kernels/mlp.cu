// Linear layers with ReLU, forward and backward, for a stack of networks (run = blockIdx.z). Mathematics, CPU twin and
// tests: src/ops/mlp/.
//
// A row of a layer's input may be the sum of `group` rows in memory, summed at a node before the layer, since a linear
// layer may act on the sum. Its bias then counts `group` times.
#include "common/device.cuh"
#include "common/gemm.cuh"

struct LayerArgs {
    const void* inputs;              // [runs, rows, group, in], f32 or bf16
    const float* parameters;         // [runs, arena]
    float* outputs;                  // [runs, rows, out], or null
    Bf16* rounded;                   // the same in bf16, or null
    unsigned long long arena, weight, bias;  // parameters of a run; where the layer's are
    unsigned rows, group, in_width, out_width;
    unsigned long long relu;         // 1: negative outputs become 0
};
LAYOUT(LayerArgs, inputs, parameters, outputs, rounded, arena, weight, bias, rows, group, in_width,
       out_width, relu)

// outputs = inputs · Wᵀ + group · bias. Grid: tiles of rows, of outputs, runs.
template <class T>
DEVICE void layer(const LayerArgs& args) {
    const size_t run = blockIdx.z, in = args.in_width, inputs = in * args.group;
    const Stored<T>* x = static_cast<const Stored<T>*>(args.inputs) + run * args.rows * inputs;
    const float* w = args.parameters + run * args.arena + args.weight;
    const float* bias = args.parameters + run * args.arena + args.bias;
    const Part part = tile_of(args.rows, args.out_width, args.in_width);
    const Tile<T> tile = product<T, Inner::sum, Inner::sum>(
        part, false, [&](int m, int k) { return summed(x + m * inputs, args.group, in, k); },
        [&](int n, int k) { return w[n * in + k]; });
    each(tile, part, [&](int m, int n, float value) {
        value += float(args.group) * bias[n];
        // NaN stays NaN.
        if (args.relu && value < 0) value = 0;
        put(args.outputs, args.rounded, (run * args.rows + m) * args.out_width + n, value);
    });
}
EACH_PRECISION(mlp_layer, LayerArgs, layer, __launch_bounds__(TILE_THREADS))

struct InputGradientArgs {
    const void* d_outputs;    // [runs, rows, out], f32 or bf16
    const float* parameters;  // [runs, arena]
    const void* inputs;       // [runs, rows, group, in], as d_outputs: the ReLU's outputs; or null
    float* d_inputs;          // [runs, rows, group, in], or null
    Bf16* rounded;            // the same in bf16, or null
    unsigned long long arena, weight;
    unsigned rows, group, in_width, out_width;
};
LAYOUT(InputGradientArgs, d_outputs, parameters, inputs, d_inputs, rounded, arena, weight, rows, group,
       in_width, out_width)

// d_inputs = d_outputs · W, and 0 where the input is a ReLU's output that is not positive. Grid: tiles
// of rows, of inputs, runs.
template <class T>
DEVICE void input_gradient(const InputGradientArgs& args) {
    const size_t run = blockIdx.z, in = args.in_width, out = args.out_width;
    const Stored<T>* d = static_cast<const Stored<T>*>(args.d_outputs) + run * args.rows * out;
    const Stored<T>* x = static_cast<const Stored<T>*>(args.inputs);
    const float* w = args.parameters + run * args.arena + args.weight;
    const Part part = tile_of(args.rows, args.in_width, args.out_width);
    const Tile<T> tile = product<T, Inner::sum, Inner::result>(
        part, false, [&](int m, int k) { return widened(d[m * out + k]); },
        [&](int n, int k) { return w[k * in + n]; });
    each(tile, part, [&](int m, int n, float value) {
        for (unsigned g = 0; g < args.group; g++) {
            const size_t at = ((run * args.rows + m) * args.group + g) * in + n;
            const bool passes = !x || widened(x[at]) > 0;
            put(args.d_inputs, args.rounded, at, passes ? value : 0.0f);
        }
    });
}
EACH_PRECISION(mlp_input_gradient, InputGradientArgs, input_gradient, __launch_bounds__(TILE_THREADS))

struct WeightGradientArgs {
    const void* d_outputs;  // [runs, rows, out], f32 or bf16
    const void* inputs;     // [runs, rows, in], as d_outputs
    float* partials;        // [runs, splits, arena]
    unsigned long long arena, weight, bias;
    unsigned rows, in_width, out_width;
    unsigned rows_per_split;
};
LAYOUT(WeightGradientArgs, d_outputs, inputs, partials, arena, weight, bias, rows, in_width, out_width,
       rows_per_split)

// dW += d_outputsᵀ · inputs and db += Σ d_outputs, with separate sums for each range of rows. Grid: tiles of outputs ×
// tiles of inputs, splits, runs.
template <class T>
DEVICE void weight_gradient(const WeightGradientArgs& args) {
    const size_t run = blockIdx.z, in = args.in_width, out = args.out_width;
    const Stored<T>* d = static_cast<const Stored<T>*>(args.d_outputs) + run * args.rows * out;
    const Stored<T>* x = static_cast<const Stored<T>*>(args.inputs) + run * args.rows * in;
    float* to = args.partials + (run * gridDim.y + blockIdx.y) * args.arena;
    const unsigned begin = blockIdx.y * args.rows_per_split;
    const unsigned column_tiles = (args.in_width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const unsigned column = blockIdx.x % column_tiles;
    const Part part = {int(blockIdx.x / column_tiles) * TILE_ROWS,
                       int(args.out_width),
                       int(column) * TILE_COLUMNS,
                       int(args.in_width),
                       int(begin),
                       int(min(begin + args.rows_per_split, args.rows))};
    const Tile<T> tile = product<T, Inner::result, Inner::result>(
        part, column == 0, [&](int m, int k) { return widened(d[k * out + m]); },
        [&](int n, int k) { return widened(x[k * in + n]); });
    each(tile, part, [&](int m, int n, float value) { to[args.weight + m * in + n] += value; });
    if (column == 0)
        each_sum(tile, part, [&](int m, float sum) { to[args.bias + m] += sum; });
}
EACH_PRECISION(mlp_weight_gradient, WeightGradientArgs, weight_gradient, __launch_bounds__(TILE_THREADS))

struct SumArgs {
    const float* partials;    // [runs, count, len]
    float* sums;              // [runs, len]
    unsigned long long len, count;
};
LAYOUT(SumArgs, partials, sums, len, count)

// sums = Σ partials, in order. Grid: any number of blocks, 1, runs.
KERNEL void mlp_sum(SumArgs args) {
    const size_t run = blockIdx.z, threads = size_t(gridDim.x) * blockDim.x;
    const float* from = args.partials + run * args.count * args.len;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.len; i += threads) {
        float sum = 0;
        for (size_t k = 0; k < args.count; k++) sum += from[k * args.len + i];
        args.sums[run * args.len + i] = sum;
    }
}
EXPORT(mlp_sum)
