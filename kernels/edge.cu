// A training step on stars of a large graph: everything between the layers, which are those of mlp.cu. Mathematics, CPU
// twin and tests: src/ops/edge/.
//
// The edges of a chunk of receivers are in order: those of receiver r are starts[r] … starts[r + 1]. Kernels with a
// block for each receiver have TILE_THREADS threads.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/large.cuh"
#include "common/noise.cuh"

struct EdgeOperandsArgs {
    const float* parameters;  // of the arena, from the layer's first weight and bias on
    const float* bias;
    float* wide;              // [padded_out, padded_in]
    Bf16* rounded;            // the same in bf16, or null
    float* padded_bias;       // [padded_out]
    unsigned out_width, in_width, padded_out, padded_in;
    unsigned n_features, dim;  // dim > 0: φe's first layer, for relative coordinates
};
LAYOUT(EdgeOperandsArgs, parameters, bias, wide, rounded, padded_bias, out_width, in_width, padded_out,
       padded_in, n_features, dim)

// A layer's parameters padded with zeros, so that products find whole pieces. In φe's first layer A_x + B_x replaces
// A_x: then the sender's coordinates are those relative to the receiver. Any grid.
KERNEL void edge_operands(EdgeOperandsArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x, in = args.padded_in;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.padded_out * in;
         i += threads) {
        const size_t row = i / in, column = i % in;
        float w = 0;
        if (row < args.out_width && column < args.in_width) {
            w = args.parameters[row * args.in_width + column];
            if (column < args.dim) w += args.parameters[row * args.in_width + column + args.n_features];
        }
        args.wide[i] = w;
        if (args.rounded) narrow(w, args.rounded[i]);
        if (column == 0) args.padded_bias[row] = row < args.out_width ? args.bias[row] : 0.0f;
    }
}
EXPORT(edge_operands)

struct EdgeGatherArgs {
    const float* features;      // [nodes, n_features]
    const unsigned* receivers;  // [receivers]
    const unsigned* starts;     // [receivers + 1]
    const unsigned* senders;    // [edges]
    float* inputs;              // [edges, 2 · n_features]
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
};
LAYOUT(EdgeGatherArgs, features, receivers, starts, senders, inputs, shift, period, n_features, dim)

// φe's inputs: the receiver's features, and the sender's with coordinates relative to the receiver.
// Grid: receivers.
KERNEL void __launch_bounds__(TILE_THREADS) edge_gather(EdgeGatherArgs args) {
    const unsigned width = args.n_features, first = args.starts[blockIdx.x];
    const unsigned count = args.starts[blockIdx.x + 1] - first;
    const float* own = args.features + size_t(args.receivers[blockIdx.x]) * width;
    for (size_t i = threadIdx.x; i < size_t(count) * 2 * width; i += blockDim.x) {
        const unsigned edge = first + unsigned(i / (2 * width)), column = unsigned(i % (2 * width));
        const unsigned k = column % width;
        float value;
        if (column < width) {
            value = own[k];
            UNROLL
            for (unsigned d = 0; d < 3; d++)
                if (k == d && d < args.dim) value += args.shift[d];
        } else {
            value = args.features[size_t(args.senders[edge]) * width + k];
            if (k < args.dim) {
                value -= own[k];
                // A quotient of half a period rounds as on the CPU: away from zero.
                if (args.period > 0) value -= args.period * roundf(value / args.period);
            }
        }
        args.inputs[size_t(edge) * 2 * width + column] = value;
    }
}
EXPORT(edge_gather)

struct EdgeSumHiddenArgs {
    const void* hidden;        // [edges, width], f32 or bf16
    const unsigned* starts;    // [receivers + 1]
    float* sums;               // [receivers, width]
    unsigned long long width;
};
LAYOUT(EdgeSumHiddenArgs, hidden, starts, sums, width)

// Sums over the edges of each receiver. Grid: receivers.
template <class T>
DEVICE void sum_hidden(const EdgeSumHiddenArgs& args) {
    const size_t width = args.width;
    const unsigned first = args.starts[blockIdx.x], end = args.starts[blockIdx.x + 1];
    const T* hidden = static_cast<const T*>(args.hidden);
    for (size_t unit = threadIdx.x; unit < width; unit += blockDim.x) {
        float sum = 0;
        // In parts, since the rounding of a sum of hundreds of terms of one sign would show.
        for (unsigned part = first; part < end; part += 32) {
            float terms = 0;
            const unsigned last = min(part + 32, end);
            for (unsigned edge = part; edge < last; edge++) terms += widened(hidden[edge * width + unit]);
            sum += terms;
        }
        args.sums[blockIdx.x * width + unit] = sum;
    }
}
KERNEL void __launch_bounds__(TILE_THREADS) edge_sum_hidden_f32(EdgeSumHiddenArgs args) {
    sum_hidden<float>(args);
}
KERNEL void __launch_bounds__(TILE_THREADS) edge_sum_hidden_bf16(EdgeSumHiddenArgs args) {
    sum_hidden<Bf16>(args);
}
EXPORT(edge_sum_hidden_f32)
EXPORT(edge_sum_hidden_bf16)

struct EdgeSumMessagesArgs {
    const float* outputs;    // [edges, row]: φe's outputs, then zeros
    const unsigned* starts;  // [receivers + 1]
    const unsigned* edges;   // [edges] numbers in the graph, of the noise; or null: means, no noise
    float* sums;             // [receivers, message_dim]
    float* deviations;       // [edges, message_dim]; null unless sampled
    double* penalties;       // [receivers] sums, not weighted
    unsigned long long seed, step;
    unsigned row, message_dim, sampled;
    unsigned unused;
};
LAYOUT(EdgeSumMessagesArgs, outputs, starts, edges, sums, deviations, penalties, seed, step, row,
       message_dim, sampled, unused)

// Messages (sampled: means and random parts) summed at each receiver, and their penalty. Grid:
// receivers.
KERNEL void __launch_bounds__(TILE_THREADS) edge_sum_messages(EdgeSumMessagesArgs args) {
    const size_t dim = args.message_dim;
    const unsigned first = args.starts[blockIdx.x], end = args.starts[blockIdx.x + 1];
    double penalty = 0;
    for (size_t unit = threadIdx.x; unit < dim; unit += blockDim.x) {
        float sum = 0;
        for (unsigned edge = first; edge < end; edge++) {
            const float* row = args.outputs + size_t(edge) * args.row;
            const float mean = row[unit];
            sum += mean;
            if (!args.sampled) {
                penalty += fabsf(mean);
                continue;
            }
            const float log = row[dim + unit], sigma = expf(0.5f * log);
            penalty += 0.5f * (mean * mean + sigma * sigma - log - 1);
            if (args.edges) {
                const float deviation =
                    sigma * noise(args.seed, args.step, args.edges[edge], unsigned(unit));
                args.deviations[edge * dim + unit] = deviation;
                sum += deviation;
            }
        }
        args.sums[blockIdx.x * dim + unit] = sum;
    }
    const double total = block_sum(penalty);
    if (threadIdx.x == 0) args.penalties[blockIdx.x] = total;
}
EXPORT(edge_sum_messages)

struct EdgeNodeInputsArgs {
    const float* features;      // [nodes, n_features]
    const unsigned* receivers;  // [receivers]
    const unsigned* starts;     // [receivers + 1]
    const float* sums;          // [receivers, message_dim]
    const float* bias;          // [message_dim] of φe's last layer, if that acted on sums over edges
    float* inputs;              // [receivers, n_features + message_dim]
    float shift[3];
    unsigned count, n_features, message_dim, dim;
    unsigned unused;
};
LAYOUT(EdgeNodeInputsArgs, features, receivers, starts, sums, bias, inputs, shift, count, n_features,
       message_dim, dim, unused)

// φv's inputs: a node's features and the messages it received. Any grid.
KERNEL void edge_node_inputs(EdgeNodeInputsArgs args) {
    const size_t width = args.n_features + args.message_dim, threads = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.count * width; i += threads) {
        const size_t row = i / width;
        const unsigned column = unsigned(i % width);
        float value;
        if (column < args.n_features) {
            value = args.features[size_t(args.receivers[row]) * args.n_features + column];
            UNROLL
            for (unsigned d = 0; d < 3; d++)
                if (column == d && d < args.dim) value += args.shift[d];
        } else {
            const unsigned unit = column - args.n_features;
            value = args.sums[row * args.message_dim + unit];
            // The layer has added one bias; a sum over edges needs one for each.
            const float degree = float(args.starts[row + 1] - args.starts[row]);
            if (args.bias) value += (degree - 1) * args.bias[unit];
        }
        args.inputs[i] = value;
    }
}
EXPORT(edge_node_inputs)

struct EdgeLossArgs {
    const float* outputs;       // [receivers, width]
    const float* targets;       // [nodes, width]
    const unsigned* receivers;  // [receivers]
    float* d_outputs;           // [receivers, width]
    double* losses;             // [receivers] sums of |output − target|
    unsigned count, width;
    float scale;                // 1 / receivers of the batch
    unsigned unused;
};
LAYOUT(EdgeLossArgs, outputs, targets, receivers, d_outputs, losses, count, width, scale, unused)

// The loss of each receiver, and its gradient. Any grid.
KERNEL void edge_loss(EdgeLossArgs args) {
    const unsigned threads = gridDim.x * blockDim.x;
    for (unsigned row = blockIdx.x * blockDim.x + threadIdx.x; row < args.count; row += threads) {
        const float* target = args.targets + size_t(args.receivers[row]) * args.width;
        double loss = 0;
        for (unsigned k = 0; k < args.width; k++) {
            const size_t i = size_t(row) * args.width + k;
            const float difference = args.outputs[i] - target[k];
            loss += fabsf(difference);
            args.d_outputs[i] = args.scale * sign(difference);
        }
        args.losses[row] = loss;
    }
}
EXPORT(edge_loss)

struct EdgeMessageGradientsArgs {
    const float* d_inputs;    // [receivers, n_features + message_dim], of φv
    const unsigned* starts;   // [receivers + 1]
    const float* outputs;     // [edges, row]: φe's outputs, then zeros
    const float* deviations;  // [edges, message_dim]; null unless sampled
    float* d_outputs;         // [edges, row], or null
    Bf16* rounded;            // the same in bf16, or null
    unsigned n_features, row, message_dim;
    float weight;             // of the penalty of an edge
    unsigned sampled;
    unsigned unused;
};
LAYOUT(EdgeMessageGradientsArgs, d_inputs, starts, outputs, deviations, d_outputs, rounded, n_features,
       row, message_dim, weight, sampled, unused)

// Gradients of φe's outputs if the messages have a penalty. Grid: receivers.
KERNEL void __launch_bounds__(TILE_THREADS) edge_message_gradients(EdgeMessageGradientsArgs args) {
    const size_t dim = args.message_dim, outputs = args.sampled ? 2 * dim : dim;
    const unsigned first = args.starts[blockIdx.x], end = args.starts[blockIdx.x + 1];
    const unsigned beyond = args.row - unsigned(outputs);
    for (unsigned i = threadIdx.x; i < (end - first) * beyond; i += blockDim.x)
        put(args.d_outputs, args.rounded,
            size_t(first + i / beyond) * args.row + outputs + i % beyond, 0);
    const float* d_sums = args.d_inputs + blockIdx.x * (args.n_features + dim) + args.n_features;
    for (size_t unit = threadIdx.x; unit < dim; unit += blockDim.x) {
        const float d = d_sums[unit];
        for (unsigned edge = first; edge < end; edge++) {
            const size_t at = size_t(edge) * args.row + unit;
            const float value = args.outputs[at];
            if (!args.sampled) {
                put(args.d_outputs, args.rounded, at, d + args.weight * sign(value));
                continue;
            }
            const float log = args.outputs[at + dim], deviation = args.deviations[edge * dim + unit];
            put(args.d_outputs, args.rounded, at, d + args.weight * value);
            put(args.d_outputs, args.rounded, at + dim,
                0.5f * (d * deviation + args.weight * (expf(log) - 1)));
        }
    }
}
EXPORT(edge_message_gradients)

struct EdgeLastArgs {
    const float* d_inputs;   // [receivers, n_features + message_dim], of φv
    const unsigned* starts;  // [receivers + 1]
    float* d_sums;           // [receivers, message_dim]
    float* bias;             // [message_dim]: gradient of φe's last bias, of which this adds a part
    unsigned count, n_features, message_dim;
    unsigned unused;
};
LAYOUT(EdgeLastArgs, d_inputs, starts, d_sums, bias, count, n_features, message_dim, unused)

// Gradients of the summed messages, in their own rows, and of the bias, which each sum contains once for each edge of
// the receiver. Grid: messages.
KERNEL void __launch_bounds__(TILE_THREADS) edge_last(EdgeLastArgs args) {
    const unsigned unit = blockIdx.x;
    double bias = 0;
    for (size_t row = threadIdx.x; row < args.count; row += blockDim.x) {
        const float d = args.d_inputs[row * (args.n_features + args.message_dim) + args.n_features + unit];
        args.d_sums[row * args.message_dim + unit] = d;
        bias += float(args.starts[row + 1] - args.starts[row]) * d;
    }
    const double total = block_sum(bias);
    if (threadIdx.x == 0) args.bias[unit] += float(total);
}
EXPORT(edge_last)

struct EdgeSpreadArgs {
    const float* passed;     // [receivers, width]
    const unsigned* starts;  // [receivers + 1]
    const void* hidden;      // [edges, width], f32 or bf16: a ReLU's outputs
    float* d_hidden;         // [edges, width], or null
    Bf16* rounded;           // the same in bf16, or null
    unsigned long long width;
};
LAYOUT(EdgeSpreadArgs, passed, starts, hidden, d_hidden, rounded, width)

// The gradient that the last layer passes back to all edges of a receiver, through the ReLU before it. Grid: receivers.
template <class T>
DEVICE void spread(const EdgeSpreadArgs& args) {
    const size_t width = args.width;
    const unsigned first = args.starts[blockIdx.x], end = args.starts[blockIdx.x + 1];
    const T* hidden = static_cast<const T*>(args.hidden);
    for (size_t unit = threadIdx.x; unit < width; unit += blockDim.x) {
        const float value = args.passed[blockIdx.x * width + unit];
        for (unsigned edge = first; edge < end; edge++) {
            const size_t at = edge * width + unit;
            put(args.d_hidden, args.rounded, at, widened(hidden[at]) > 0 ? value : 0.0f);
        }
    }
}
KERNEL void __launch_bounds__(TILE_THREADS) edge_spread_f32(EdgeSpreadArgs args) { spread<float>(args); }
KERNEL void __launch_bounds__(TILE_THREADS) edge_spread_bf16(EdgeSpreadArgs args) { spread<Bf16>(args); }
EXPORT(edge_spread_f32)
EXPORT(edge_spread_bf16)

struct EdgeFinishArgs {
    const float* partials;    // [count, stride], from the layer's first weight on
    const float* biases;      // [count, stride], from its first bias on
    const float* parameters;  // of the arena, from the layer's first weight and bias on
    const float* bias;
    float* gradients;         // of the arena, from the same places on
    float* d_bias;
    unsigned long long stride, count;
    unsigned out_width, in_width, padded_in;
    unsigned n_features, dim;  // as in EdgeOperandsArgs
    float decay;               // 2 · weight_decay
};
LAYOUT(EdgeFinishArgs, partials, biases, parameters, bias, gradients, d_bias, stride, count,
       out_width, in_width, padded_in, n_features, dim, decay)

// The gradient of a layer: the sum of its parts in order, converted to the plain coordinates, plus the weight decay.
// Any grid.
KERNEL void edge_finish(EdgeFinishArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size_t(args.out_width) * args.in_width;
         i += threads) {
        const size_t row = i / args.in_width, column = i % args.in_width;
        // The gradient for the receiver's coordinates belongs to A_x + B_x.
        const bool sender = column >= args.n_features && column < args.n_features + args.dim;
        float sum = 0, other = 0, bias = 0;
        for (size_t k = 0; k < args.count; k++) {
            const float* part = args.partials + k * args.stride + row * args.padded_in + column;
            sum += *part;
            if (sender) other += part[-int(args.n_features)];
            if (column == 0) bias += args.biases[k * args.stride + row];
        }
        args.gradients[i] = sum + other + args.decay * args.parameters[i];
        if (column == 0) args.d_bias[row] = bias + args.decay * args.bias[row];
    }
}
EXPORT(edge_finish)

// ---------------------------------------------------------------- φe's layers in bf16

struct EdgeLayerArgs {
    const Bf16* inputs;   // [rows, in]
    const Bf16* weights;  // [out, in]
    const float* bias;    // [out]
    float* outputs;       // [rows, out] as they are, or null
    Bf16* rounded;        // [rows, out] after a ReLU, or null
    unsigned rows, in_width, out_width;
    unsigned unused;
};
LAYOUT(EdgeLayerArgs, inputs, weights, bias, outputs, rounded, rows, in_width,
       out_width, unused)

// inputs · weightsᵀ + bias. Grid: tiles of rows, of outputs.
KERNEL void __launch_bounds__(LARGE_THREADS, 2) edge_layer(EdgeLayerArgs args) {
    const int rows = int(args.rows), in = int(args.in_width), out = int(args.out_width);
    const int row = int(blockIdx.x) * LARGE, column = int(blockIdx.y) * LARGE;
    const LargeOperand x = {args.inputs, args.in_width, rows}, w = {args.weights, args.in_width, out};
    const LargeTile tile = large_product<Inner::sum, Inner::sum>(x, w, row, column, 0, in, false);
    large_each(tile, row, rows, column, out, [&](int r, int c, float first, float second) {
        const size_t at = size_t(r) * args.out_width + c;
        first += args.bias[c];
        second += args.bias[c + 1];
        if (args.rounded)
            *reinterpret_cast<uint32_t*>(args.rounded + at) = relu_bf16x2(first, second);
        else
            *reinterpret_cast<float2*>(args.outputs + at) = make_float2(first, second);
    });
}
EXPORT(edge_layer)

struct EdgeInputGradientArgs {
    const Bf16* d_outputs;  // [rows, out]
    const Bf16* weights;    // [out, in]
    const Bf16* inputs;     // [rows, in]: a ReLU's outputs
    float* d_inputs;        // [rows, in], or null
    Bf16* rounded;          // the same in bf16, or null
    unsigned rows, in_width, out_width;
    unsigned unused;
};
LAYOUT(EdgeInputGradientArgs, d_outputs, weights, inputs, d_inputs, rounded, rows, in_width,
       out_width, unused)

// d_outputs · weights, and 0 where the input is not positive. Grid: tiles of rows, of inputs.
KERNEL void __launch_bounds__(LARGE_THREADS, 2) edge_input_gradient(EdgeInputGradientArgs args) {
    const int rows = int(args.rows), in = int(args.in_width), out = int(args.out_width);
    const int row = int(blockIdx.x) * LARGE, column = int(blockIdx.y) * LARGE;
    const LargeOperand d = {args.d_outputs, args.out_width, rows}, w = {args.weights, args.in_width, in};
    const LargeTile tile = large_product<Inner::sum, Inner::result>(d, w, row, column, 0, out, false);
    large_each(tile, row, rows, column, in, [&](int r, int c, float first, float second) {
        const size_t at = size_t(r) * args.in_width + c;
        if (!(widened(args.inputs[at]) > 0)) first = 0;
        if (!(widened(args.inputs[at + 1]) > 0)) second = 0;
        put(args.d_inputs, args.rounded, at, first);
        put(args.d_inputs, args.rounded, at + 1, second);
    });
}
EXPORT(edge_input_gradient)

struct EdgeWeightGradientArgs {
    const Bf16* d_outputs;  // [rows, out]
    const Bf16* inputs;     // [rows, in]
    float* partials;        // [splits, stride], from the layer's first weight on
    float* biases;          // [splits, stride], from its first bias on
    unsigned long long stride;
    unsigned rows, in_width, out_width;
    unsigned rows_per_split;
};
LAYOUT(EdgeWeightGradientArgs, d_outputs, inputs, partials, biases, stride, rows,
       in_width, out_width, rows_per_split)

// Adds d_outputsᵀ · inputs and Σ d_outputs, a sum for each range of rows. Grid: tiles of outputs, of
// inputs, splits.
KERNEL void __launch_bounds__(LARGE_THREADS) edge_weight_gradient(EdgeWeightGradientArgs args) {
    const int in = int(args.in_width), out = int(args.out_width);
    const int row = int(blockIdx.x) * LARGE, column = int(blockIdx.y) * LARGE;
    const unsigned begin = min(blockIdx.z * args.rows_per_split, args.rows);
    const unsigned end = min(begin + args.rows_per_split, args.rows);
    const LargeOperand d = {args.d_outputs, args.out_width, out}, x = {args.inputs, args.in_width, in};
    const LargeTile tile = large_product<Inner::result, Inner::result>(
        d, x, row, column, int(begin), int(end), column == 0);
    float* to = args.partials + blockIdx.z * args.stride;
    large_each(tile, row, out, column, in, [&](int r, int c, float first, float second) {
        to[size_t(r) * args.in_width + c] += first;
        to[size_t(r) * args.in_width + c + 1] += second;
    });
    if (column == 0)
        large_each_sum(tile, row, out,
                       [&](int r, float sum) { args.biases[blockIdx.z * args.stride + r] += sum; });
}
EXPORT(edge_weight_gradient)
