// One training step of a stack of graph networks on small, fully connected graphs (run = blockIdx.z). Mathematics, CPU
// twin and tests: src/ops/tiny/. Plain layers are those of mlp.cu; this file has what is specific to graphs, messages
// and the loss.
//
// Edges are sorted by receiver, those of a receiver by sender. Without a penalty on messages φe's last layer acts on
// the sum over a receiver's edges; with one there is a message for each edge. A node receives the sum of `terms` rows
// of messages: 1 if they are already summed, else bodies − 1.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/noise.cuh"

#include <type_traits>

// ---------------------------------------------------------------- the batch

struct GatherArgs {
    const float* positions;                // [data runs, frames, bodies, dim]
    const float* velocities;               // the same
    const float* accelerations;            // the same
    const float* masses;                   // [data runs, bodies]
    const float* charges;                  // the same
    const unsigned* parts;                 // [runs, part_runs] the data runs that are drawn from
    const unsigned long long* seeds;       // [runs]
    const unsigned long long* step;
    float* features;                       // [runs, graphs, bodies, 2 dim + 2]
    float* targets;                        // [runs, graphs, bodies, dim]
    double translation;                    // standard deviation
    unsigned part_runs, frames;
    unsigned first_frame, drawn_frames, stride;  // frames that are drawn from
    unsigned graphs, bodies, dim;
};
LAYOUT(GatherArgs, positions, velocities, accelerations, masses, charges, parts, seeds, step, features,
       targets, translation, part_runs, frames, first_frame, drawn_frames, stride, graphs, bodies, dim)

// The random graphs of a step: the words of `Random::new(seed, step)` that src/network/batches.rs
// draws. Grid: a thread for each node, 1, runs.
KERNEL void tiny_gather(GatherArgs args) {
    const unsigned node = blockIdx.x * blockDim.x + threadIdx.x, run = blockIdx.z;
    if (node >= args.graphs * args.bodies) return;
    const unsigned graph = node / args.bodies, body = node % args.bodies, dim = args.dim;
    // Two words for run and frame, four for the normal number of each axis.
    const uint64_t word = uint64_t(graph) * (2 + 4 * dim);
    Random random = random_new(args.seeds[run], *args.step);
    random.counter = word / 4;
    for (unsigned skipped = 0; skipped < word % 4; skipped++) random_word(random);

    const size_t part_run = random_below(random, args.part_runs);
    const size_t data_run = args.parts[run * size_t(args.part_runs) + part_run];
    const size_t frame = args.first_frame + args.stride * random_below(random, args.drawn_frames);
    const size_t from = ((data_run * args.frames + frame) * args.bodies + body) * dim;
    const size_t to = size_t(run) * args.graphs * args.bodies + node;
    float* feature = args.features + to * (2 * dim + 2);
    for (unsigned axis = 0; axis < dim; axis++) {
        const float shift = float(args.translation * random_normal(random));
        feature[axis] = args.positions[from + axis] + shift;
        feature[dim + axis] = args.velocities[from + axis];
        args.targets[to * dim + axis] = args.accelerations[from + axis];
    }
    feature[2 * dim] = args.charges[data_run * args.bodies + body];
    feature[2 * dim + 1] = args.masses[data_run * args.bodies + body];
}
EXPORT(tiny_gather)

// ---------------------------------------------------------------- edges

// Feature `k` of an edge: those of the receiver, then those of the sender.
DEVICE float edge_feature(const float* features, unsigned n_features, unsigned bodies, unsigned edge,
                          unsigned k) {
    const unsigned receiver = edge / (bodies - 1), slot = edge % (bodies - 1);
    const unsigned body = receiver % bodies;
    const unsigned sender = receiver - body + slot + (slot >= body ? 1 : 0);
    return k < n_features ? features[size_t(receiver) * n_features + k]
                          : features[size_t(sender) * n_features + k - n_features];
}

struct EdgeArgs {
    const float* features;    // [runs, nodes, n_features]
    const float* parameters;  // [runs, arena]
    float* outputs;           // [runs, edges, hidden], or null
    Bf16* rounded;            // the same in bf16, or null
    unsigned long long arena, weight, bias;
    unsigned nodes, bodies, n_features, hidden;
};
LAYOUT(EdgeArgs, features, parameters, outputs, rounded, arena, weight, bias, nodes, bodies, n_features,
       hidden)

// Blocks per multiprocessor for whose shared memory there is room on compute capability 8.0; the compiler, unaware of
// that limit, would aim for more at the price of spilled registers.
constexpr int TINY_BLOCKS = 5;

// φe's first layer, in f32: features may be absolute coordinates. Grid: tiles of edges, of units, runs.
KERNEL void __launch_bounds__(TILE_THREADS, TINY_BLOCKS) tiny_edges(EdgeArgs args) {
    const size_t run = blockIdx.z, edges = size_t(args.nodes) * (args.bodies - 1);
    const float* features = args.features + run * args.nodes * args.n_features;
    const float* w = args.parameters + run * args.arena + args.weight;
    const float* bias = args.parameters + run * args.arena + args.bias;
    const unsigned width = 2 * args.n_features;
    const Part part = tile_of(unsigned(edges), args.hidden, width);
    const Tile<float> tile = product<float, Inner::sum, Inner::sum>(
        part, false,
        [&](int m, int k) {
            return edge_feature(features, args.n_features, args.bodies, unsigned(m), unsigned(k));
        },
        [&](int n, int k) { return w[size_t(n) * width + k]; });
    each(tile, part, [&](int m, int n, float value) {
        value += bias[n];
        if (value < 0) value = 0;  // a NaN stays one
        put(args.outputs, args.rounded, (run * edges + m) * args.hidden + n, value);
    });
}
EXPORT(tiny_edges)

// ---------------------------------------------------------------- messages with a penalty

struct MessagesArgs {
    const void* hidden;                    // [runs, edges, width], f32 or bf16
    const float* parameters;               // [runs, arena]
    float* messages;                       // [runs, edges, φe's outputs]
    float* deviations;                     // [runs, edges, message_dim]; null unless sampled
    double* penalties;                     // [runs, tiles] sums, not weighted
    const unsigned long long* seeds;       // [runs] of the noise
    const unsigned long long* step;
    unsigned long long arena, weight, bias;
    unsigned edges, width, message_dim;
    unsigned sampled;                      // 1: means and log-variances
};
LAYOUT(MessagesArgs, hidden, parameters, messages, deviations, penalties, seeds, step, arena, weight,
       bias, edges, width, message_dim, sampled)

// φe's last layer, the penalty on its outputs, and the random part of sampled messages. Grid: tiles of edges, of
// outputs, runs.
template <class T>
DEVICE void messages(const MessagesArgs& args) {
    const size_t run = blockIdx.z, width = args.width, dim = args.message_dim;
    const size_t outputs = args.sampled ? 2 * dim : dim;
    const Stored<T>* x = static_cast<const Stored<T>*>(args.hidden) + run * args.edges * width;
    const float* w = args.parameters + run * args.arena + args.weight;
    const float* bias = args.parameters + run * args.arena + args.bias;
    // Sampled: mean and log-variance columns alternate, so that one thread has both.
    const auto output = [&](int n) { return args.sampled ? n % 2 * dim + n / 2 : size_t(n); };
    const Part part = tile_of(args.edges, unsigned(outputs), args.width);
    const Tile<T> tile = product<T, Inner::sum, Inner::sum>(
        part, false, [&](int m, int k) { return widened(x[m * width + k]); },
        [&](int n, int k) { return w[output(n) * width + k]; });
    float penalty = 0;
    if (args.sampled) {
        const uint64_t seed = args.seeds[run], step = *args.step;
        each_pair(tile, part, [&](int m, int n, float mean, float log) {
            const size_t unit = size_t(n) / 2, edge = run * args.edges + m;
            mean += bias[unit];
            log += bias[dim + unit];
            const float sigma = expf(0.5f * log);
            args.messages[edge * outputs + unit] = mean;
            args.messages[edge * outputs + dim + unit] = log;
            args.deviations[edge * dim + unit] =
                sigma * noise(seed, step, unsigned(m), unsigned(unit));
            penalty += 0.5f * (mean * mean + sigma * sigma - log - 1);
        });
    } else {
        each(tile, part, [&](int m, int n, float value) {
            value += bias[n];
            args.messages[(run * args.edges + m) * outputs + n] = value;
            penalty += fabsf(value);
        });
    }
    const double sum = block_sum(penalty);
    const size_t tiles = gridDim.x * gridDim.y;
    if (threadIdx.x == 0)
        args.penalties[run * tiles + blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
EACH_PRECISION(tiny_messages, MessagesArgs, messages, __launch_bounds__(TILE_THREADS))

// Sum number `unit` of the messages that a node receives.
DEVICE float received(const float* messages, const float* deviations, unsigned terms, size_t row,
                      size_t message_dim, size_t node, int unit) {
    float sum = summed(messages + node * terms * row, terms, row, unit);
    if (deviations)
        sum += summed(deviations + node * terms * message_dim, terms, message_dim, unit);
    return sum;
}

// ---------------------------------------------------------------- nodes

struct NodeArgs {
    const float* messages;    // [runs, nodes, terms, row]
    const float* deviations;  // [runs, nodes, terms, message_dim], or null
    const float* features;    // [runs, nodes, n_features]
    const float* parameters;  // [runs, arena]
    float* outputs;           // [runs, nodes, hidden], or null
    Bf16* rounded;            // the same in bf16, or null
    unsigned long long arena, weight, bias;
    unsigned nodes, terms, row, message_dim, n_features, hidden;
};
LAYOUT(NodeArgs, messages, deviations, features, parameters, outputs, rounded, arena, weight, bias,
       nodes, terms, row, message_dim, n_features, hidden)

// φv's first layer; the features' part of it in f32. Grid: tiles of nodes, of units, runs.
template <class T>
DEVICE void nodes(const NodeArgs& args) {
    const size_t run = blockIdx.z, n_features = args.n_features, dim = args.message_dim;
    const unsigned inputs = args.n_features + args.message_dim;
    const float* sent = args.messages + run * args.nodes * args.terms * args.row;
    const float* random =
        args.deviations ? args.deviations + run * args.nodes * args.terms * dim : nullptr;
    const float* features = args.features + run * args.nodes * n_features;
    const float* w = args.parameters + run * args.arena + args.weight;
    const float* bias = args.parameters + run * args.arena + args.bias;
    const Part part = tile_of(args.nodes, args.hidden, args.message_dim);
    const Tile<T> tile = product<T, Inner::sum, Inner::sum>(
        part, false,
        [&](int m, int k) { return received(sent, random, args.terms, args.row, dim, m, k); },
        [&](int n, int k) { return w[n * inputs + n_features + k]; });
    each(tile, part, [&](int m, int n, float value) {
        float own = bias[n];
        for (size_t f = 0; f < n_features; f++) own += features[m * n_features + f] * w[n * inputs + f];
        value += own;
        if (value < 0) value = 0;  // a NaN stays one
        put(args.outputs, args.rounded, (run * args.nodes + m) * args.hidden + n, value);
    });
}
EACH_PRECISION(tiny_nodes, NodeArgs, nodes, __launch_bounds__(TILE_THREADS))

struct LossArgs {
    const void* hidden;       // [runs, nodes, width], f32 or bf16
    const float* parameters;  // [runs, arena]
    const float* targets;     // [runs, nodes, outputs]
    float* d_outputs;         // [runs, nodes, outputs], or null
    Bf16* rounded;            // the same in bf16, or null
    double* losses;           // [runs, tiles] sums of |output − target|
    unsigned long long arena, weight, bias;
    unsigned nodes, width, outputs;
    float scale;              // 1 / nodes
};
LAYOUT(LossArgs, hidden, parameters, targets, d_outputs, rounded, losses, arena, weight, bias, nodes,
       width, outputs, scale)

// φv's last layer, the loss, and the loss's gradient. Grid: tiles of nodes, of outputs, runs.
template <class T>
DEVICE void loss(const LossArgs& args) {
    const size_t run = blockIdx.z, width = args.width;
    const Stored<T>* x = static_cast<const Stored<T>*>(args.hidden) + run * args.nodes * width;
    const float* w = args.parameters + run * args.arena + args.weight;
    const float* bias = args.parameters + run * args.arena + args.bias;
    const Part part = tile_of(args.nodes, args.outputs, args.width);
    const Tile<T> tile = product<T, Inner::sum, Inner::sum>(
        part, false, [&](int m, int k) { return widened(x[m * width + k]); },
        [&](int n, int k) { return w[n * width + k]; });
    float distance = 0;
    each(tile, part, [&](int m, int n, float value) {
        const size_t at = (run * args.nodes + m) * args.outputs + n;
        const float difference = value + bias[n] - args.targets[at];
        distance += fabsf(difference);
        put(args.d_outputs, args.rounded, at, args.scale * sign(difference));
    });
    const double sum = block_sum(distance);
    const size_t tiles = gridDim.x * gridDim.y;
    if (threadIdx.x == 0) args.losses[run * tiles + blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
EACH_PRECISION(tiny_loss, LossArgs, loss, __launch_bounds__(TILE_THREADS))

struct MessageGradientArgs {
    const void* d_hidden;     // [runs, nodes, hidden], f32 or bf16: φv's first layer, before its ReLU
    const float* parameters;  // [runs, arena]
    const float* messages;    // [runs, nodes, terms, row]
    const float* deviations;  // [runs, nodes, terms, message_dim], or null
    float* d_messages;        // [runs, nodes, terms, row], or null
    Bf16* rounded;            // the same in bf16, or null
    unsigned long long arena, weight;
    double penalty;           // weight of the penalty on one message
    unsigned nodes, terms, row, message_dim, n_features, hidden;
};
LAYOUT(MessageGradientArgs, d_hidden, parameters, messages, deviations, d_messages, rounded, arena,
       weight, penalty, nodes, terms, row, message_dim, n_features, hidden)

// The gradient of the messages: the part that comes back through φv is the same for all that a node receives, the
// penalty's part is not. Grid: tiles of nodes, of messages, runs.
template <class T>
DEVICE void message_gradients(const MessageGradientArgs& args) {
    const size_t run = blockIdx.z, dim = args.message_dim;
    // In 32 bits, which saves registers; in bf16 the compiler then spills, unless the other one has 64.
    const unsigned hidden = args.hidden;
    const std::conditional_t<std::is_same_v<T, Bf16>, size_t, unsigned> inputs = args.n_features + dim;
    const float penalty = float(args.penalty);
    const Stored<T>* d = static_cast<const Stored<T>*>(args.d_hidden) + run * args.nodes * hidden;
    const float* w = args.parameters + run * args.arena + args.weight + args.n_features;
    const Part part = tile_of(args.nodes, args.message_dim, args.hidden);
    const Tile<T> tile = product<T, Inner::sum, Inner::result>(
        part, false, [&](int m, int k) { return widened(d[m * hidden + k]); },
        [&](int n, int k) { return w[k * inputs + n]; });
    each(tile, part, [&](int m, int n, float value) {
        for (unsigned term = 0; term < args.terms; term++) {
            const size_t sent = (run * args.nodes + m) * args.terms + term, at = sent * args.row + n;
            const float message = args.messages[at];
            if (args.deviations) {
                const float log = args.messages[at + dim];
                const float deviation = args.deviations[sent * dim + n];
                put(args.d_messages, args.rounded, at, value + penalty * message);
                put(args.d_messages, args.rounded, at + dim,
                    0.5f * (value * deviation + penalty * (expf(log) - 1)));
            } else {
                put(args.d_messages, args.rounded, at, value + penalty * sign(message));
            }
        }
    });
}
EACH_PRECISION(tiny_message_gradients, MessageGradientArgs, message_gradients, __launch_bounds__(TILE_THREADS))

// ---------------------------------------------------------------- gradients of all parameters

// The kind of input of a layer, or of a part of one.
enum class Source : unsigned {
    rows,      // sums of `group` rows of operands
    messages,  // what nodes receive
    edges,     // the features of both ends, in f32
    nodes,     // the features, in f32
};

// One matrix of weights: d_outputsᵀ · inputs.
struct WeightTask {
    const void* d_outputs;  // [runs, rows, outputs]: as the step's operands, for `edges` f32
    const void* inputs;     // [runs, rows, group, inputs] of `rows`, else null
    unsigned long long weight, bias;  // in the arena; bias ~0: none
    Source source;
    unsigned rows, group, inputs_width, outputs_width;
    unsigned weight_row;    // from a row of the weights to the next
};
LAYOUT(WeightTask, d_outputs, inputs, weight, bias, source, rows, group, inputs_width, outputs_width,
       weight_row)

// One tile of a task.
struct WeightTile {
    unsigned task, row, column;
};
LAYOUT(WeightTile, task, row, column)

struct WeightsArgs {
    const WeightTask* tasks;
    const WeightTile* tiles;  // [tiles]
    const float* features;    // [runs, nodes, n_features]
    const float* messages;    // [runs, nodes, terms, row]
    const float* deviations;  // [runs, nodes, terms, message_dim], or null
    const float* parameters;  // [runs, arena]
    float* partials;          // [runs, splits, arena]
    double* squares;          // [runs, tiles] sums of w²
    unsigned long long arena;
    double weight_decay;
    unsigned nodes, bodies, n_features, terms, row, message_dim;
};
LAYOUT(WeightsArgs, tasks, tiles, features, messages, deviations, parameters, partials, squares, arena,
       weight_decay, nodes, bodies, n_features, terms, row, message_dim)

template <class T, class LoadA, class LoadB>
DEVICE void weight_tile(const WeightsArgs& args, const WeightTask& task, const WeightTile& at,
                        unsigned group, LoadA load_a, LoadB load_b) {
    const size_t run = blockIdx.z, split = blockIdx.y, splits = gridDim.y;
    const unsigned rows_per_split = (task.rows + splits - 1) / splits;
    const unsigned begin = min(unsigned(split) * rows_per_split, task.rows);
    const Part part = {int(at.row) * TILE_ROWS,
                       int(task.outputs_width),
                       int(at.column) * TILE_COLUMNS,
                       int(task.inputs_width),
                       int(begin),
                       int(min(begin + rows_per_split, task.rows))};
    const bool with_bias = at.column == 0 && ~task.bias != 0;
    const Tile<T> tile =
        product<T, Inner::result, Inner::result>(part, with_bias, load_a, load_b);
    float* to = args.partials + (run * splits + split) * args.arena;
    const float* w = args.parameters + run * args.arena;
    // The first split includes the weight decay and its gradient.
    const float decay = split == 0 ? float(2 * args.weight_decay) : 0;
    float squares = 0;
    const auto write = [&](size_t index, float gradient) {
        to[index] = gradient + decay * w[index];
        squares += w[index] * w[index];
    };
    each(tile, part, [&](int m, int n, float value) {
        write(task.weight + size_t(m) * task.weight_row + n, value);
    });
    if (with_bias)
        each_sum(tile, part, [&](int m, float sum) { write(task.bias + m, float(group) * sum); });
    const double sum = block_sum(squares);
    if (threadIdx.x == 0 && split == 0) args.squares[run * gridDim.x + blockIdx.x] = sum;
}

// Grid: tiles of all tasks, splits of the rows, runs.
template <class T>
DEVICE void weights(const WeightsArgs& args) {
    const WeightTile at = args.tiles[blockIdx.x];
    const WeightTask task = args.tasks[at.task];
    const size_t run = blockIdx.z, out = task.outputs_width, n_features = args.n_features;
    const Stored<T>* d = static_cast<const Stored<T>*>(task.d_outputs) + run * task.rows * out;
    const auto d_output = [&](int m, int k) { return widened(d[k * out + m]); };
    const float* features = args.features + run * args.nodes * n_features;
    switch (task.source) {
    case Source::rows: {
        const size_t width = task.inputs_width, inputs = width * task.group;
        const Stored<T>* x = static_cast<const Stored<T>*>(task.inputs) + run * task.rows * inputs;
        weight_tile<T>(args, task, at, task.group, d_output,
                       [&](int n, int k) { return summed(x + k * inputs, task.group, width, n); });
        break;
    }
    case Source::messages: {
        const size_t dim = args.message_dim, received_rows = run * args.nodes * args.terms;
        const float* sent = args.messages + received_rows * args.row;
        const float* random = args.deviations ? args.deviations + received_rows * dim : nullptr;
        weight_tile<T>(args, task, at, 1, d_output, [&](int n, int k) {
            return received(sent, random, args.terms, args.row, dim, k, n);
        });
        break;
    }
    case Source::edges: {
        const float* d = static_cast<const float*>(task.d_outputs) + run * task.rows * out;
        weight_tile<float>(
            args, task, at, 1, [&](int m, int k) { return d[k * out + m]; },
            [&](int n, int k) {
                return edge_feature(features, args.n_features, args.bodies, unsigned(k), unsigned(n));
            });
        break;
    }
    case Source::nodes:
        weight_tile<float>(args, task, at, 1, d_output,
                           [&](int n, int k) { return features[k * n_features + n]; });
        break;
    }
}
EACH_PRECISION(tiny_weights, WeightsArgs, weights, __launch_bounds__(TILE_THREADS, 4))

// ---------------------------------------------------------------- the losses

struct TotalsArgs {
    const double* losses;      // [runs, n_losses]
    const double* penalties;   // [runs, n_penalties]
    const double* squares;     // [runs, n_squares]
    float* totals;             // [ring, runs, 3]: prediction, penalty, decay
    unsigned long long* step;  // advanced at the end
    double loss_scale, penalty_scale, decay_scale;
    unsigned long long runs, ring, n_losses, n_penalties, n_squares;
};
LAYOUT(TotalsArgs, losses, penalties, squares, totals, step, loss_scale, penalty_scale, decay_scale,
       runs, ring, n_losses, n_penalties, n_squares)

// The sum of `count` numbers, in a fixed order, in every lane of the warp.
DEVICE double warp_sum(const double* from, size_t count) {
    double sum = 0;
    for (size_t i = threadIdx.x % 32; i < count; i += 32) sum += from[i];
    UNROLL
    for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(~0u, sum, bits);
    return sum;
}

// The losses of all runs go into the entry of this step, which then ends. One block: no other may still read the step's
// number when it changes.
KERNEL void tiny_totals(TotalsArgs args) {
    const size_t entry = *args.step % args.ring;
    for (size_t run = threadIdx.x / 32; run < args.runs; run += blockDim.x / 32) {
        const double loss = warp_sum(args.losses + run * args.n_losses, args.n_losses);
        const double penalty = warp_sum(args.penalties + run * args.n_penalties, args.n_penalties);
        const double squares = warp_sum(args.squares + run * args.n_squares, args.n_squares);
        if (threadIdx.x % 32 == 0) {
            float* to = args.totals + (entry * args.runs + run) * 3;
            to[0] = float(args.loss_scale * loss);
            to[1] = float(args.penalty_scale * penalty);
            to[2] = float(args.decay_scale * squares);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) *args.step += 1;
}
EXPORT(tiny_totals)
