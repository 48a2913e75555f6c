// What a training that stays on the device needs besides the step of edge.cu: the senders of a batch from those of the
// graph, weights transformed by a symmetry of the cube and gradients transformed back, the sums of the loss.
// Mathematics, CPU twin and tests: src/ops/edge/ (symmetry.rs, gpu/resident.rs).
#include "common/device.cuh"
#include "common/gemm.cuh"

struct EdgeSendersArgs {
    const unsigned* all;     // [edges of the graph]
    const unsigned* firsts;  // [receivers] where those of each begin in the graph
    const unsigned* starts;  // [receivers + 1] and in the chunk
    unsigned* senders;       // [edges of the chunk]
    unsigned* edges;         // [edges of the chunk] their numbers in the graph, or null
};
LAYOUT(EdgeSendersArgs, all, firsts, starts, senders, edges)

// The senders of a chunk. Grid: receivers.
KERNEL void edge_senders(EdgeSendersArgs args) {
    const unsigned first = args.firsts[blockIdx.x], start = args.starts[blockIdx.x];
    const unsigned count = args.starts[blockIdx.x + 1] - start;
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
        args.senders[start + i] = args.all[first + i];
        if (args.edges) args.edges[start + i] = first + i;
    }
}
EXPORT(edge_senders)

struct EdgeTurnArgs {
    const float* from;              // [arena]
    float* to;                      // [arena]; edge_turn_back: the same
    unsigned long long edge, node;  // where the weights of φe's and φv's first layers begin
    unsigned rows;                  // units of either layer
    unsigned n_features, message_dim;
    unsigned axis[3];               // x'[k] = sign[k] · x[axis[k]]
    float sign[3];
    unsigned unused;
};
LAYOUT(EdgeTurnArgs, from, to, edge, node, rows, n_features, message_dim, axis, sign, unused)

// Position and velocity are the first two vectors of a node's features.
constexpr unsigned VECTORS = 2, DIM = 3;

struct Vector {
    float x[DIM];
};

DEVICE void turn(const EdgeTurnArgs& args, const float* from, float* to) {
    UNROLL
    for (unsigned k = 0; k < DIM; k++) to[args.axis[k]] = args.sign[k] * from[k];
}

DEVICE Vector turned_back(const EdgeTurnArgs& args, const float* from) {
    Vector vector;
    UNROLL
    for (unsigned k = 0; k < DIM; k++) vector.x[k] = args.sign[k] * from[args.axis[k]];
    return vector;
}

DEVICE void put_back(const EdgeTurnArgs& args, float* at) {
    const Vector vector = turned_back(args, at);
    UNROLL
    for (unsigned k = 0; k < DIM; k++) at[k] = vector.x[k];
}

// Weights that do to plain features what those of `from` do to transformed ones; all else is already in `to`. Any grid.
KERNEL void edge_turn(EdgeTurnArgs args) {
    const unsigned threads = gridDim.x * blockDim.x, n = args.n_features;
    for (size_t row = blockIdx.x * blockDim.x + threadIdx.x; row < args.rows; row += threads) {
        const size_t edge = args.edge + row * (2 * n), node = args.node + row * (n + args.message_dim);
        for (unsigned first = 0; first < VECTORS * DIM; first += DIM) {
            turn(args, args.from + edge + first, args.to + edge + first);
            turn(args, args.from + edge + n + first, args.to + edge + n + first);
            turn(args, args.from + node + first, args.to + node + first);
        }
    }
}
EXPORT(edge_turn)

// The inverse for gradients, projected so that the network keeps depending on displacements only. Any grid.
KERNEL void edge_turn_back(EdgeTurnArgs args) {
    const unsigned threads = gridDim.x * blockDim.x, n = args.n_features;
    for (size_t row = blockIdx.x * blockDim.x + threadIdx.x; row < args.rows; row += threads) {
        float* edge = args.to + args.edge + row * (2 * n);
        float* node = args.to + args.node + row * (n + args.message_dim);
        const Vector receiver = turned_back(args, edge), sender = turned_back(args, edge + n);
        UNROLL
        for (unsigned k = 0; k < DIM; k++) {
            const float along = 0.5f * (sender.x[k] - receiver.x[k]);
            edge[n + k] = along;
            edge[k] = -along;
            node[k] = 0;
        }
        put_back(args, edge + DIM);
        put_back(args, edge + n + DIM);
        put_back(args, node + DIM);
    }
}
EXPORT(edge_turn_back)

struct EdgeTotalsArgs {
    const double* losses;
    const double* penalties;
    double* totals;  // [2] their sums
    unsigned n_losses, n_penalties;
};
LAYOUT(EdgeTotalsArgs, losses, penalties, totals, n_losses, n_penalties)

DEVICE double part(const double* values, unsigned count) {
    double sum = 0;
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sum += values[i];
    return sum;
}

// One block.
KERNEL void __launch_bounds__(TILE_THREADS) edge_totals(EdgeTotalsArgs args) {
    const double loss = block_sum(part(args.losses, args.n_losses));
    const double penalty = block_sum(part(args.penalties, args.n_penalties));
    if (threadIdx.x == 0) {
        args.totals[0] = loss;
        args.totals[1] = penalty;
    }
}
EXPORT(edge_totals)
