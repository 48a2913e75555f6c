// The forward pass of edge_fused.cu for sm_90a, with products of whole warpgroups: φe from the features straight to
// sums over the edges of each receiver, for predictions in bf16. Other architectures have none of this.
// Argument structs in Rust, launches and tests: src/ops/edge/; design: notes/hopper.md.
//
// A block has two warpgroups that multiply, each 64 edges, and one that brings what they need: a thread streams the
// weights, in the order in which they are used, through a ring of stages; three warps make φe's inputs. Each of
// the eight multiplying warps has receivers of its own, and in a tile 16 of their edges. So nothing is summed across
// warps.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/hopper.cuh"

#if HOPPER_ONLY

constexpr int HOPPER_GROUPS = 2;                       // warpgroups that multiply
constexpr int HOPPER_WARPS = 4 * HOPPER_GROUPS;
constexpr int HOPPER_THREADS = WARPGROUP * (HOPPER_GROUPS + 1);
constexpr int HOPPER_ROWS = 64, HOPPER_STRIP = 16;     // edges of a warpgroup, of a warp
constexpr int HOPPER_STAGES = 4;
// Activations of a warpgroup are blocks of SWIZZLED columns.
constexpr int HOPPER_BLOCK = HOPPER_ROWS * SWIZZLED;
// Columns that are summed at a time.
constexpr int HOPPER_SLICE = 64;
// Threads that make inputs: of the last warpgroup all but the first warp.
constexpr int HOPPER_GATHERERS = WARPGROUP - 32;

struct EdgeHopperWeightsArgs {
    const float* parameters;  // of the arena, from the layer's first weight and bias on
    const float* bias;
    Bf16* weights;            // [parts][blocks][units, SWIZZLED], swizzled
    float* padded_bias;       // [parts, units]
    unsigned out_width;       // units that count
    unsigned in_width, parts, blocks, units;
    unsigned n_features, dim;  // dim > 0: coordinates in φe's first layer, as in EdgeOperandsArgs
    unsigned split;            // the first layer: columns [high, high, low], each in_width wide
};
LAYOUT(EdgeHopperWeightsArgs, parameters, bias, weights, padded_bias, out_width, in_width, parts, blocks,
       units, n_features, dim, split)

// A layer's parameters in the order of `edge_hopper_*`, with zeros around them. Any grid.
KERNEL void edge_hopper_weights(EdgeHopperWeightsArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t count = size_t(args.parts) * args.blocks * args.units * SWIZZLED;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        const size_t row = i / SWIZZLED, block = row / args.units % args.blocks;
        const unsigned own = unsigned(row % args.units);
        const size_t unit = row / args.units / args.blocks * args.units + own;
        const size_t place = block * SWIZZLED + i % SWIZZLED;
        const size_t part = args.split ? place / args.in_width : 0;
        const size_t column = place - part * args.in_width;
        float w = 0;
        if (unit < args.out_width && column < args.in_width && part < 3) {
            const float* from = args.parameters + unit * args.in_width + column;
            w = *from;
            if (column < args.dim) w += from[args.n_features];
            if (part == 2) w -= __bfloat162float(__float2bfloat16_rn(w));
        }
        const size_t first = (row - own) * SWIZZLED;
        narrow(w, args.weights[first + swizzled(int(own), int(i % SWIZZLED))]);
        if (place == 0) args.padded_bias[unit] = unit < args.out_width ? args.bias[unit] : 0.0f;
    }
}
EXPORT(edge_hopper_weights)

struct EdgeHopperArgs {
    const float* features;      // [nodes, n_features]
    const unsigned* receivers;  // [receivers]
    const unsigned* starts;     // [receivers + 1]
    const unsigned* senders;    // [edges]
    const unsigned* ranges;     // [8 blocks + 1]: warp w has the receivers ranges[w] … ranges[w + 1]
    const Bf16* weights;        // of all layers: [layer][part][block][unit][SWIZZLED]
    const float* biases;        // [layers, hidden], [passes, units of a pass]
    float* sums;                // [receivers, width]
    // For the way back, as edge_fused_training leaves it; null for predictions.
    unsigned* owners;           // [edges] among the receivers
    uint16_t* masks;            // [edges, mask_row]: [64 units][thread of four], bits 2 n + i
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
    unsigned parts, layers;     // of a hidden layer, 1 or 2; hidden layers
    unsigned first_blocks;      // of the first layer's inputs
    unsigned passes;            // of the last layer; 0: sums are those of the last hidden layer
    unsigned width;             // of what is summed
    unsigned mask_row;          // a sixteenth of the units that the way back has
};
LAYOUT(EdgeHopperArgs, features, receivers, starts, senders, ranges, weights, biases, sums, owners, masks,
       shift, period, n_features, dim, parts, layers, first_blocks, passes, width, mask_row)

// A ring of stages as one of its users sees it: the stage that is next, and the parity of its phase.
struct HopperRing {
    unsigned stage, parity;
    __device__ __forceinline__ void advance() {
        if (++stage == HOPPER_STAGES) stage = 0, parity ^= 1;
    }
};

// N: units of a part of a hidden layer, P: of a pass of the last layer.
template <int N, int P>
struct Hopper {
    static_assert(P <= N);
    static constexpr int STAGE = N * SWIZZLED;

    const EdgeHopperArgs& args;
    Shared<Bf16> activations;  // [2][hidden / SWIZZLED][64, SWIZZLED]
    Shared<Bf16> inputs;       // [2][first_blocks][64, SWIZZLED]
    Shared<Bf16> stages;       // [HOPPER_STAGES][N, SWIZZLED]
    // Of each stage: its weights have arrived, its users are done. Then the same of the inputs.
    Shared<uint64_t> barriers;
    unsigned blocks;           // of a hidden layer
    unsigned tiles;

    __device__ __forceinline__ uint64_t* full(unsigned stage) const { return barriers.at(stage, 1); }
    __device__ __forceinline__ uint64_t* empty(unsigned stage) const {
        return barriers.at(HOPPER_STAGES + stage, 1);
    }
    __device__ __forceinline__ uint64_t* inputs_full() const { return barriers.at(2 * HOPPER_STAGES, 1); }
    __device__ __forceinline__ uint64_t* inputs_empty() const {
        return barriers.at(2 * HOPPER_STAGES + 1, 1);
    }
};

// Receivers of multiplying warp `warp` of this block: from range[0] to range[1].
DEVICE const unsigned* hopper_range(const EdgeHopperArgs& args, unsigned warp) {
    return args.ranges + blockIdx.x * HOPPER_WARPS + warp;
}

// ---------------------------------------------------------------- bringing

// Streams the weights of all tiles. One thread.
template <int N, int P>
DEVICE void hopper_stream(const Hopper<N, P>& it) {
    const EdgeHopperArgs& args = it.args;
    const unsigned wide = args.parts * (args.first_blocks + (args.layers - 1) * it.blocks);
    const unsigned narrow_ones = args.passes * it.blocks;
    HopperRing ring = {0, 0};
    for (unsigned tile = 0; tile < it.tiles; tile++) {
        const Bf16* from = args.weights;
        for (unsigned piece = 0; piece < wide + narrow_ones; piece++) {
            const unsigned count = (piece < wide ? N : P) * SWIZZLED, bytes = count * sizeof(Bf16);
            mbarrier_wait(it.empty(ring.stage), ring.parity ^ 1);
            mbarrier_expect(it.full(ring.stage), bytes);
            bulk_copy(it.stages.at(ring.stage * it.STAGE, count), from, bytes, it.full(ring.stage));
            from += count;
            ring.advance();
        }
    }
}

// φe's inputs on edge `edge` as row `row` of a tile, as high and low parts: columns [high, low, high], each
// of [receiver's features, sender's, whose coordinates are relative to the receiver]; zeros behind them, and
// everywhere beyond `end`. `receiver` … `last`: those of the warp that multiplies the row.
template <int N, int P>
DEVICE void hopper_input(const Hopper<N, P>& it, unsigned row, unsigned edge, unsigned end,
                         unsigned receiver, unsigned last) {
    const EdgeHopperArgs& args = it.args;
    const Shared<Bf16> to = it.inputs + row / HOPPER_ROWS * args.first_blocks * HOPPER_BLOCK;
    const int own_row = int(row % HOPPER_ROWS);
    const auto put = [&](unsigned column, Bf16 value) {
        to[column / SWIZZLED * HOPPER_BLOCK + swizzled(own_row, int(column % SWIZZLED))] = value;
    };
    const unsigned width = args.n_features, columns = args.first_blocks * SWIZZLED;
    const bool counts = edge < end;
    size_t own_at = 0, other_at = 0;
    if (counts) {
        // The last receiver that starts at this edge or before it.
        while (last - receiver > 1) {
            const unsigned middle = (receiver + last) / 2;
            if (args.starts[middle] <= edge)
                receiver = middle;
            else
                last = middle;
        }
        if (args.owners) args.owners[edge] = receiver;
        own_at = size_t(args.receivers[receiver]) * width;
        other_at = size_t(args.senders[edge]) * width;
    }
    for (unsigned k = 0; k < width; k++) {
        float own = 0, other = 0;
        if (counts) {
            own = args.features[own_at + k], other = args.features[other_at + k];
            if (k < args.dim) {
                other -= own;
                if (args.period > 0) other -= args.period * roundf(other / args.period);
                UNROLL
                for (unsigned d = 0; d < 3; d++)
                    if (k == d) own += args.shift[d];
            }
        }
        const auto split = [&](unsigned column, float value) {
            const Bf16 high = __float2bfloat16_rn(value);
            put(column, high);
            put(2 * width + column, __float2bfloat16_rn(value - __bfloat162float(high)));
            put(4 * width + column, high);
        };
        split(k, own);
        split(width + k, other);
    }
    for (unsigned column = 6 * width; column < columns; column++) put(column, __float2bfloat16_rn(0));
}

// The inputs of all tiles. HOPPER_GATHERERS threads, `thread` of them this one.
template <int N, int P>
DEVICE void hopper_gather(const Hopper<N, P>& it, unsigned thread) {
    const EdgeHopperArgs& args = it.args;
    for (unsigned tile = 0; tile < it.tiles; tile++) {
        mbarrier_wait(it.inputs_empty(), tile % 2 ^ 1);
        for (unsigned row = thread; row < HOPPER_GROUPS * HOPPER_ROWS; row += HOPPER_GATHERERS) {
            const unsigned* range = hopper_range(args, row / HOPPER_STRIP);
            const unsigned edge =
                args.starts[range[0]] + tile * HOPPER_STRIP + row % HOPPER_STRIP;
            hopper_input(it, row, edge, args.starts[range[1]], range[0], range[1]);
        }
        proxy_fence();
        mbarrier_arrive(it.inputs_full());
    }
}

// ---------------------------------------------------------------- multiplying

// sums = left × the next `blocks` stages + bias, where a stage has COUNT units. Every thread of the warpgroup.
template <int COUNT, int N, int P>
DEVICE void hopper_product(const Hopper<N, P>& it, float (&sums)[COUNT / 2], HopperRing& ring,
                           Shared<Bf16> left, unsigned blocks, const float* bias) {
    const int lane = int(threadIdx.x) % 32;
    UNROLL
    for (int j = 0; j < COUNT / 8; j++) {
        const float2 b =
            *reinterpret_cast<const float2*>(bias + 8 * j + accumulator_element(lane, 0).column);
        UNROLL
        for (int i = 0; i < 4; i++) sums[4 * j + i] = i % 2 ? b.y : b.x;
    }
    unsigned block = 0, before = 0;
    do {
        mbarrier_wait(it.full(ring.stage), ring.parity);
        const Bf16* a = left.at(block * HOPPER_BLOCK, HOPPER_BLOCK);
        const Bf16* b = it.stages.at(ring.stage * it.STAGE, COUNT * SWIZZLED);
        wgmma_fence();
        wgmma<COUNT>(sums, swizzled_operand(a, 0), swizzled_operand(b, 0));
        wgmma<COUNT>(sums, swizzled_operand(a, 1), swizzled_operand(b, 1));
        wgmma_commit();
        // The stage before is done with.
        wgmma_wait<1>(sums);
        if (block > 0 && lane == 0) mbarrier_arrive(it.empty(before));
        before = ring.stage;
        ring.advance();
    } while (++block < blocks);
    wgmma_wait<0>(sums);
    if (lane == 0) mbarrier_arrive(it.empty(before));
}

// Pairs of neighbours in a row of the results, as bf16 of their ReLU.
template <int N>
DEVICE void hopper_pack(uint32_t (&pairs)[N / 4], const float (&sums)[N / 2]) {
    UNROLL
    for (int i = 0; i < N / 4; i++) pairs[i] = relu_bf16x2(sums[2 * i], sums[2 * i + 1]);
}

// These as activations, from column `column` on, a multiple of SWIZZLED.
template <int N>
DEVICE void hopper_store(Shared<Bf16> to, unsigned column, const uint32_t (&pairs)[N / 4]) {
    const Element e = wgmma_element(int(threadIdx.x) % WARPGROUP, 0);
    UNROLL
    for (int j = 0; j < N / 8; j++) {
        // Rows r and r + 8 are swizzled in the same way.
        const int place = swizzled(e.row, j % 4 * 8 + e.column);
        const Shared<Bf16> block = to + (column / SWIZZLED + j / 4) * HOPPER_BLOCK;
        UNROLL
        for (int low = 0; low < 2; low++) {
            Bf16* const at = block.at(place + low * 8 * SWIZZLED, 2);
            *reinterpret_cast<uint32_t*>(at) = pairs[2 * j + low];
        }
    }
}

// Adds HOPPER_SLICE columns of this warp's results, of which a thread has `sums`, to the sums of a receiver in columns
// `column` …. Its two rows count or not; `fresh`: nothing has been added before.
DEVICE void hopper_add_slice(const EdgeHopperArgs& args, const float* sums, bool upper_counts,
                             bool lower_counts, unsigned receiver, bool fresh, unsigned column) {
    const int lane = int(threadIdx.x) % 32;
    float value[HOPPER_SLICE / 4];
    UNROLL
    for (int i = 0; i < HOPPER_SLICE / 4; i++) {
        const int at = i / 2 * 4 + i % 2;
        value[i] = (upper_counts ? sums[at] : 0.0f) + (lower_counts ? sums[at + 2] : 0.0f);
    }
    // Lanes with the same columns exchange half of what they have, then half of that: each ends with the sums of some.
    int left = HOPPER_SLICE / 4, first = 0;
    UNROLL
    for (int bit = 16; bit >= 4; bit /= 2) {
        const bool upper = lane & bit;
        left /= 2;
        UNROLL
        for (int i = 0; i < HOPPER_SLICE / 8; i++) {
            if (i >= left) continue;
            const float low = value[i], high = value[i + left];
            const float other = __shfl_xor_sync(~0u, upper ? low : high, bit);
            value[i] = (upper ? high : low) + other;
        }
        first += upper ? left : 0;
    }
    UNROLL
    for (int i = 0; i < HOPPER_SLICE / 32; i++) {
        const int pair = (first + i) / 2, odd = (first + i) % 2;
        const unsigned unit = column + 8 * pair + accumulator_element(lane, odd).column;
        if (unit >= args.width) continue;
        // The same lane in each tile.
        float& to = args.sums[size_t(receiver) * args.width + unit];
        to = fresh ? value[i] : to + value[i];
    }
}

// Adds this warp's results, of the edges from `begin` on, to the sums of their receivers from `receiver` on, in columns
// `column` …. Returns the receiver that goes on in the next tile, or the one behind the last.
template <int N>
DEVICE unsigned hopper_add(const EdgeHopperArgs& args, unsigned begin, unsigned receiver,
                           const float (&sums)[N / 2], unsigned column) {
    const int lane = int(threadIdx.x) % 32;
    const unsigned row = begin + accumulator_element(lane, 0).row;
    const unsigned last = hopper_range(args, threadIdx.x / 32)[1];
    const unsigned end = min(begin + HOPPER_STRIP, args.starts[last]);
    for (; receiver < last; receiver++) {
        const unsigned start = args.starts[receiver], stop = args.starts[receiver + 1];
        const auto counts = [&](unsigned edge) {
            return edge >= max(start, begin) && edge < min(stop, end);
        };
        const bool upper_counts = counts(row), lower_counts = counts(row + 8);
        UNROLL
        for (int slice = 0; slice < N / HOPPER_SLICE; slice++)
            hopper_add_slice(args, sums + slice * HOPPER_SLICE / 2, upper_counts, lower_counts, receiver,
                             start >= begin, column + slice * HOPPER_SLICE);
        if (stop > end) break;
    }
    return receiver;
}

// Which of this warp's results are positive, on the edges from `begin` on, units `column` ….
template <int N>
DEVICE void hopper_masks(const EdgeHopperArgs& args, unsigned begin, const float (&sums)[N / 2],
                         unsigned column) {
    const int lane = int(threadIdx.x) % 32;
    const unsigned end = args.starts[hopper_range(args, threadIdx.x / 32)[1]];
    UNROLL
    for (int block = 0; block < N / 64; block++) {
        const unsigned place = column / 16 + 4 * block + lane % 4;
        UNROLL
        for (int half = 0; half < 2; half++) {
            unsigned bits = 0;
            UNROLL
            for (int n = 0; n < 8; n++) {
                const int at = 32 * block + 4 * n + 2 * half;
                bits |= unsigned(sums[at] > 0) << 2 * n | unsigned(sums[at + 1] > 0) << (2 * n + 1);
            }
            const unsigned edge = begin + accumulator_element(lane, 2 * half).row;
            if (edge < end && place < args.mask_row)
                args.masks[size_t(edge) * args.mask_row + place] = uint16_t(bits);
        }
    }
}

// All tiles of a warpgroup.
template <int N, int P>
DEVICE void hopper_multiply(const Hopper<N, P>& it) {
    const EdgeHopperArgs& args = it.args;
    const unsigned group = threadIdx.x / WARPGROUP;
    const int lane = int(threadIdx.x) % 32;
    const Shared<Bf16> inputs = it.inputs + group * args.first_blocks * HOPPER_BLOCK;
    const Shared<Bf16> activations = it.activations + group * it.blocks * HOPPER_BLOCK;
    unsigned receiver = hopper_range(args, threadIdx.x / 32)[0], begin = args.starts[receiver];
    HopperRing ring = {0, 0};
    for (unsigned tile = 0; tile < it.tiles; tile++, begin += HOPPER_STRIP) {
        unsigned next = receiver;
        mbarrier_wait(it.inputs_full(), tile % 2);
        const float* bias = args.biases;
        for (unsigned layer = 0; layer < args.layers; layer++) {
            const Shared<Bf16> left = layer == 0 ? inputs : activations;
            const unsigned blocks = layer == 0 ? args.first_blocks : it.blocks;
            if (layer + 1 < args.layers || args.passes > 0) {
                // Of the part before: the activations are needed as long as a part is missing.
                uint32_t held[N / 4] = {};
                for (unsigned part = 0; part < args.parts; part++, bias += N) {
                    float sums[N / 2];
                    hopper_product<N>(it, sums, ring, left, blocks, bias);
                    if (part > 0) hopper_store<N>(activations, 0, held);
                    hopper_pack<N>(held, sums);
                }
                hopper_store<N>(activations, (args.parts - 1) * N, held);
                proxy_fence();
                // Everyone's activations are there.
                named_barrier(1 + group, WARPGROUP);
            } else {
                for (unsigned part = 0; part < args.parts; part++, bias += N) {
                    float sums[N / 2];
                    hopper_product<N>(it, sums, ring, left, blocks, bias);
                    UNROLL
                    for (int i = 0; i < N / 2; i++) {
                        // A NaN stays one: the comparison is false for it.
                        sums[i] = sums[i] <= 0 ? 0.0f : sums[i];
                    }
                    if (args.masks) hopper_masks<N>(args, begin, sums, part * N);
                    next = hopper_add<N>(args, begin, receiver, sums, part * N);
                }
            }
            if (layer == 0 && lane == 0) mbarrier_arrive(it.inputs_empty());
        }
        for (unsigned pass = 0; pass < args.passes; pass++, bias += P) {
            float sums[P / 2];
            hopper_product<P>(it, sums, ring, activations, it.blocks, bias);
            next = hopper_add<P>(args, begin, receiver, sums, pass * P);
        }
        receiver = next;
    }
}

// ---------------------------------------------------------------- the kernel

template <int N, int P>
DEVICE void hopper(const EdgeHopperArgs& args) {
    const unsigned blocks = args.parts * N / SWIZZLED;
    const unsigned count = HOPPER_GROUPS * blocks * HOPPER_BLOCK;
    const unsigned inputs = HOPPER_GROUPS * args.first_blocks * HOPPER_BLOCK;
    constexpr unsigned STAGES = HOPPER_STAGES * N * SWIZZLED;
    // At least one tile: receivers without edges have sums too.
    unsigned tiles = 1;
    for (unsigned warp = 0; warp < HOPPER_WARPS; warp++) {
        const unsigned* range = hopper_range(args, warp);
        const unsigned edges = args.starts[range[1]] - args.starts[range[0]];
        tiles = max(tiles, (edges + HOPPER_STRIP - 1) / HOPPER_STRIP);
    }
    const Hopper<N, P> it = {
        args,
        shared<Bf16>(0, count),
        shared<Bf16>(count * sizeof(Bf16), inputs),
        shared<Bf16>((count + inputs) * sizeof(Bf16), STAGES),
        shared<uint64_t>((count + inputs + STAGES) * sizeof(Bf16), 2 * HOPPER_STAGES + 2),
        blocks,
        tiles,
    };
    if (threadIdx.x == 0) {
        for (unsigned stage = 0; stage < HOPPER_STAGES; stage++) {
            mbarrier_init(it.full(stage), 1);
            mbarrier_init(it.empty(stage), HOPPER_WARPS);
        }
        mbarrier_init(it.inputs_full(), HOPPER_GATHERERS);
        mbarrier_init(it.inputs_empty(), HOPPER_WARPS);
        proxy_fence();
    }
    __syncthreads();
    // 2 · 232 + 40 registers of 3 · 168.
    if (threadIdx.x < HOPPER_GROUPS * WARPGROUP) {
        take_registers<232>();
        hopper_multiply(it);
    } else {
        give_registers<40>();
        const unsigned thread = threadIdx.x - HOPPER_GROUPS * WARPGROUP;
        if (thread == 0) hopper_stream(it);
        if (thread >= 32) hopper_gather(it, thread - 32);
    }
}

// Grid: ranges / 8; HOPPER_THREADS. By the units of a part of a hidden layer.
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_64(EdgeHopperArgs args) {
    hopper<64, 64>(args);
}
EXPORT(edge_hopper_64)
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_192(EdgeHopperArgs args) {
    hopper<192, 128>(args);
}
EXPORT(edge_hopper_192)
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_256(EdgeHopperArgs args) {
    hopper<256, 128>(args);
}
EXPORT(edge_hopper_256)

#endif
