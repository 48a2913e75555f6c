// Sums over the edges of a graph. Mathematics, CPU twin and tests: src/ops/scatter/.
#include "common/device.cuh"

struct ScatterArgs {
    const unsigned* receivers;            // [edge], for scatter_edges
    const unsigned long long* row_start;  // [node + 1], for scatter_rows
    const float* values;                  // [edge, width]
    float* out;                           // [node, width]
    unsigned long long edges, nodes, width;
};
LAYOUT(ScatterArgs, receivers, row_start, values, out, edges, nodes, width)

constexpr unsigned WARP = 32, ALL = 0xffffffffu;

// Lanes for the columns of an edge: a power of two, so that the other lanes of a warp take other edges.
DEVICE unsigned lanes_across(unsigned long long width) {
    unsigned across = 1;
    while (across < width && across < WARP) across *= 2;
    return across;
}

// The edges of each node, one warp for each: no atomics, and a fixed order.
KERNEL void scatter_rows(ScatterArgs args) {
    const size_t node = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (node >= args.nodes) return;
    const unsigned lane = threadIdx.x % WARP, across = lanes_across(args.width);
    const size_t begin = args.row_start[node], end = args.row_start[node + 1];
    for (size_t first = 0; first < args.width; first += across) {
        const size_t column = first + lane % across;
        float sum = 0;
        if (column < args.width)
            for (size_t edge = begin + lane / across; edge < end; edge += WARP / across)
                sum += args.values[edge * args.width + column];
        for (unsigned bits = across; bits < WARP; bits *= 2)
            sum += __shfl_xor_sync(ALL, sum, bits);
        if (lane < across && column < args.width) args.out[node * args.width + column] += sum;
    }
}
EXPORT(scatter_rows)

// Edges in any order, each with the number of lanes given by `lanes_across`: atomic additions.
KERNEL void scatter_edges(ScatterArgs args) {
    const size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const unsigned across = lanes_across(args.width);
    const size_t edge = thread / across;
    if (edge >= args.edges) return;
    float* sums = args.out + args.receivers[edge] * args.width;
    for (size_t column = thread % across; column < args.width; column += across)
        atomicAdd(&sums[column], args.values[edge * args.width + column]);
}
EXPORT(scatter_edges)
