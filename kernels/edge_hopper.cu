// The forward pass of edge_fused.cu for sm_90a, with warpgroup products: φe from the features straight to sums over the
// edges of each receiver, in bf16, for predictions and for the forward pass of a training step, which stores what
// edge_fused_training stores. Other architectures have none of this.
// Argument structs in Rust, launches and tests: src/ops/edge/; design: notes/hopper.md.
//
// A block has two warpgroups that multiply, each 64 edges, and one that feeds them: a thread streams the weights, in
// the order in which they are used, through a ring of stages; three warps make φe's inputs. Each of the eight
// multiplying warps has its own receivers, and in a tile 16 of their edges, so sums at receivers need no other warp.
// The penalty's share of the last layer's gradient is summed over all edges of a tile.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/fused.cuh"
#include "common/hopper.cuh"

#if HOPPER_ONLY
#include "common/hopper_tiles.cuh"

// Columns summed at a time.
constexpr int HOPPER_SLICE = 64;
// Units of a pass of the last layer. In a training step they are all messages, whose signs, of 64 edges, fill a
// stage of the ring.
constexpr int HOPPER_PASS = 128;
static_assert(HOPPER_ROWS * HOPPER_PASS == HOPPER_STAGE);

struct EdgeHopperWeightsArgs {
    const float* parameters;  // of the arena, from the layer's first weight and bias on
    const float* bias;
    Bf16* weights;            // [parts][blocks][units, SWIZZLED], swizzled
    float* padded_bias;       // [parts, units], or null
    unsigned rows, columns;   // units that count, and summed indices
    unsigned row_step, column_step;  // from one of them to the next in the arena
    unsigned parts, blocks, units;
    unsigned n_features, dim;  // dim > 0: coordinates in φe's first layer, as in EdgeOperandsArgs
    unsigned split;            // > 0: the first layer, columns [high, high, low], each so wide
    unsigned mixed;            // of these the first two lie as hopper_mixed has them
    float scale;
};
LAYOUT(EdgeHopperWeightsArgs, parameters, bias, weights, padded_bias, rows, columns, row_step, column_step,
       parts, blocks, units, n_features, dim, split, mixed, scale)

// A layer's parameters in the order of `edge_hopper_*`, padded with zeros. Any grid.
KERNEL void edge_hopper_weights(EdgeHopperWeightsArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t count = size_t(args.parts) * args.blocks * args.units * SWIZZLED;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        const size_t row = i / SWIZZLED, block = row / args.units % args.blocks;
        const unsigned own = unsigned(row % args.units);
        const size_t unit = row / args.units / args.blocks * args.units + own;
        const size_t place = block * SWIZZLED + i % SWIZZLED;
        const size_t part = args.split ? place / args.split : 0;
        const bool mixed = args.mixed && part < 2;
        const size_t column =
            mixed ? place / SWIZZLED * HOPPER_MIXED + place % HOPPER_MIXED : place - part * args.split;
        float w = 0;
        if (unit < args.rows && column < args.columns && part < 3) {
            const float* from = args.parameters + unit * args.row_step + column * args.column_step;
            w = *from;
            if (column < args.dim) w += from[args.n_features];
            w *= args.scale;
            if (part == 2) w -= __bfloat162float(__float2bfloat16_rn(w));
        }
        const size_t first = (row - own) * SWIZZLED;
        narrow(w, args.weights[first + swizzled(int(own), int(i % SWIZZLED))]);
        if (args.padded_bias && place == 0)
            args.padded_bias[unit] = unit < args.rows ? args.bias[unit] : 0.0f;
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
    unsigned* signs;            // [edges, words, 2]: messages that are positive, negative
    float* shares;              // [blocks, units · sign_columns] Σ sign(message) · unit: hopper_accumulate
    float* counts;              // [blocks, sign_columns] Σ sign(message)
    double* penalties;          // [blocks, HOPPER_WARPS] Σ |message|
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
    unsigned parts, layers;     // of a hidden layer, 1 or 2; hidden layers
    unsigned first_blocks;      // of the first layer's inputs
    unsigned passes;            // of the last layer
    unsigned width;             // of what is summed: in predictions with passes messages, or else hidden units
    unsigned mask_row;          // a sixteenth of the units that the way back has
    unsigned sign_columns;      // messages, to a multiple of 16, where a training step needs signs
    unsigned unused;
};
LAYOUT(EdgeHopperArgs, features, receivers, starts, senders, ranges, weights, biases, sums, owners, masks,
       signs, shares, counts, penalties, shift, period, n_features, dim, parts, layers, first_blocks, passes,
       width, mask_row, sign_columns, unused)

// N: units of a part of a hidden layer.
template <int N>
struct Hopper {
    const EdgeHopperArgs& args;
    Shared<Bf16> activations;  // [2][hidden / SWIZZLED][64, SWIZZLED]
    Shared<Bf16> inputs;       // [2][first_blocks][64, SWIZZLED]
    HopperRing ring;
    Shared<uint64_t> arrivals;  // the inputs have arrived, their users are done
    unsigned blocks;            // of a hidden layer
    unsigned tiles;

    __device__ __forceinline__ uint64_t* inputs_full() const { return arrivals.at(0, 1); }
    __device__ __forceinline__ uint64_t* inputs_empty() const { return arrivals.at(1, 1); }
};

// Receivers of multiplying warp `warp` of this block: from range[0] to range[1].
DEVICE const unsigned* hopper_range(const EdgeHopperArgs& args, unsigned warp) {
    return args.ranges + blockIdx.x * HOPPER_WARPS + warp;
}

// ---------------------------------------------------------------- bringing

// Streams the weights of all tiles, and lends stages for signs. For one thread.
template <int N>
DEVICE void hopper_stream(const Hopper<N>& it) {
    const EdgeHopperArgs& args = it.args;
    const unsigned wide = args.parts * (args.first_blocks + (args.layers - 1) * it.blocks);
    const unsigned all = wide + args.passes * it.blocks;
    HopperRing ring = it.ring;
    for (unsigned tile = 0; tile < it.tiles; tile++) {
        const Bf16* from = args.weights;
        for (unsigned piece = 0; piece < all; piece++) {
            const unsigned count = (piece < wide ? N : HOPPER_PASS) * SWIZZLED;
            hopper_fill(ring, from, count);
            from += count;
        }
        for (int group = 0; args.sign_columns && group < HOPPER_GROUPS; group++) hopper_lend(ring);
    }
}

// φe's inputs on edge `edge` as row `row` of a tile, as high and low parts: columns [high, low, high], each of
// [receiver's features, sender's, whose coordinates are relative to the receiver]; zeros after them, and everywhere
// beyond `end`. `receiver` … `last`: those of the warp that multiplies the row.
template <int N>
DEVICE void hopper_input(const Hopper<N>& it, unsigned row, unsigned edge, unsigned end,
                         unsigned receiver, unsigned last) {
    const EdgeHopperArgs& args = it.args;
    const Shared<Bf16> to = it.inputs + row / HOPPER_ROWS * args.first_blocks * HOPPER_BLOCK;
    const int own_row = int(row % HOPPER_ROWS);
    const auto put = [&](unsigned column, Bf16 value) {
        to[column / SWIZZLED * HOPPER_BLOCK + swizzled(own_row, int(column % SWIZZLED))] = value;
    };
    const unsigned width = args.n_features, columns = args.first_blocks * SWIZZLED;
    const float *own_at = nullptr, *other_at = nullptr;
    if (edge < end) {
        // The last receiver that starts at or before this edge.
        while (last - receiver > 1) {
            const unsigned middle = (receiver + last) / 2;
            if (args.starts[middle] <= edge)
                receiver = middle;
            else
                last = middle;
        }
        if (args.owners) args.owners[edge] = receiver;
        own_at = args.features + size_t(args.receivers[receiver]) * width;
        other_at = args.features + size_t(args.senders[edge]) * width;
    }
    ROLLED
    for (unsigned column = 0; column < 2 * width; column++) {
        const float value = hopper_feature(args, own_at, other_at, column);
        const Bf16 high = __float2bfloat16_rn(value);
        put(column, high);
        put(2 * width + column, __float2bfloat16_rn(value - __bfloat162float(high)));
        put(4 * width + column, high);
    }
    for (unsigned column = 6 * width; column < columns; column++) put(column, __float2bfloat16_rn(0));
}

// Makes the inputs of all tiles. HOPPER_GATHERERS threads, of which this is number `thread`.
template <int N>
DEVICE void hopper_gather(const Hopper<N>& it, unsigned thread) {
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
    // Lanes with the same columns exchange half of what they have, then half of that: each ends up with the sums of
    // some.
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
        // It is the same lane in each tile.
        float& to = args.sums[size_t(receiver) * args.width + unit];
        to = fresh ? value[i] : to + value[i];
    }
}

// Adds this warp's results, for the edges from `begin` on, to the sums of their receivers from `receiver` on, in
// columns `column` …. Returns the receiver that continues in the next tile, or the one after the last.
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

// Which of this warp's results are positive, for the edges from `begin` on, units `column` ….
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

// A hidden layer: left × weights + bias. KEEP: stored as activations; SUM: added to the sums of receivers, with its
// masks. Returns the receiver that continues. For every thread of the warpgroup.
template <bool KEEP, bool SUM, int N>
DEVICE unsigned hopper_layer(const Hopper<N>& it, HopperRing& ring, Shared<Bf16> left, unsigned blocks,
                             const float* bias, Shared<Bf16> activations, unsigned begin,
                             unsigned receiver) {
    const EdgeHopperArgs& args = it.args;
    unsigned next = receiver;
    // From the previous part: the activations are needed as long as a part is missing.
    uint32_t held[N / 4] = {};
    for (unsigned part = 0; part < args.parts; part++) {
        float sums[N / 2];
        hopper_bias<N>(sums, bias + part * N);
        hopper_product<N>(sums, ring, left, blocks);
        if (KEEP && part > 0) hopper_store<N>(activations, 0, held);
        if (SUM) {
            UNROLL
            for (int i = 0; i < N / 2; i++) {
                // NaN stays NaN: the comparison is false for it.
                sums[i] = sums[i] <= 0 ? 0.0f : sums[i];
            }
            if (args.masks) hopper_masks<N>(args, begin, sums, part * N);
            next = hopper_add<N>(args, begin, receiver, sums, part * N);
        }
        if (KEEP) hopper_pack<true, N>(held, sums);
    }
    if (KEEP) {
        hopper_store<N>(activations, (args.parts - 1) * N, held);
        proxy_fence();
        // All activations are in place.
        named_barrier(1 + threadIdx.x / WARPGROUP, WARPGROUP);
    }
    return next;
}

// The signs of a tile of messages as bits, and as bf16 at `to`, in blocks like activations. Returns Σ |message| of this
// thread.
DEVICE float hopper_signs(const EdgeHopperArgs& args, unsigned begin, const float (&messages)[HOPPER_PASS / 2],
                          Shared<Bf16> to) {
    const int lane = int(threadIdx.x) % 32;
    const unsigned end = args.starts[hopper_range(args, threadIdx.x / 32)[1]];
    const unsigned words = (args.sign_columns + 31) / 32;
    float sum = 0;
    UNROLL
    for (int half = 0; half < 2; half++) {
        const Element e = wgmma_element(int(threadIdx.x) % WARPGROUP, 2 * half);
        const unsigned edge = begin + e.row % HOPPER_STRIP;
        const bool counts = edge < end;
        UNROLL
        for (int word = 0; word < HOPPER_PASS / 32; word++) {
            unsigned positive = 0, negative = 0;
            UNROLL
            for (int n = 0; n < 4; n++) {
                const float* pair = messages + 16 * word + 4 * n + 2 * half;
                const float first = counts ? pair[0] : 0.0f, second = counts ? pair[1] : 0.0f;
                sum += fabsf(first) + fabsf(second);
                const int bit = 8 * n + e.column;
                positive |= unsigned(first > 0) << bit | unsigned(second > 0) << (bit + 1);
                negative |= unsigned(first < 0) << bit | unsigned(second < 0) << (bit + 1);
                const int place = word * HOPPER_BLOCK + swizzled(e.row, 8 * n + e.column);
                *reinterpret_cast<uint32_t*>(to.at(place, 2)) = bf16x2(sign(first), sign(second));
            }
            // The other lanes of the row.
            UNROLL
            for (int other = 1; other < 4; other *= 2) {
                positive |= __shfl_xor_sync(~0u, positive, other);
                negative |= __shfl_xor_sync(~0u, negative, other);
            }
            if (lane % 4 == 0 && counts && word < int(words))
                *reinterpret_cast<uint2*>(args.signs + (size_t(edge) * words + word) * 2) =
                    make_uint2(positive, negative);
        }
    }
    return sum;
}

// What the messages of a tile contribute to their penalty: adds to Σ |message| of this thread, and to Σ sign(message)
// of its column. For every multiplying thread.
template <int N>
DEVICE void hopper_penalty(const Hopper<N>& it, HopperRing& ring, unsigned begin,
                           const float (&messages)[HOPPER_PASS / 2], double& penalty, float& count) {
    const EdgeHopperArgs& args = it.args;
    const unsigned group = threadIdx.x / WARPGROUP, column = threadIdx.x % WARPGROUP;
    unsigned lent[HOPPER_GROUPS];
    UNROLL
    for (int g = 0; g < HOPPER_GROUPS; g++) {
        mbarrier_wait(ring.full(), ring.parity);
        lent[g] = ring.stage;
        ring.advance();
    }
    const Shared<Bf16> own = ring.place(group ? lent[1] : lent[0]);
    penalty += hopper_signs(args, begin, messages, own);
    proxy_fence();
    // All signs are in place.
    named_barrier(1 + HOPPER_GROUPS, HOPPER_WARPS * 32);
    // Each warpgroup takes every second 64 units, with the edges of both.
    for (unsigned tile = group; tile < args.mask_row / 4; tile += HOPPER_GROUPS) {
        float sums[HOPPER_PASS / 2] = {};
        UNROLL
        for (int g = 0; g < HOPPER_GROUPS; g++)
            hopper_outer<HOPPER_PASS>(sums, it.activations + (g * it.blocks + 2 * tile) * HOPPER_BLOCK,
                                      ring.place(lent[g]));
        wgmma_wait<0>(sums);
        hopper_accumulate<HOPPER_PASS>(
            sums, args.shares + (size_t(blockIdx.x) * args.mask_row / 4 + tile) * 64 * args.sign_columns,
            args.sign_columns / 8);
    }
    for (int row = 0; row < HOPPER_ROWS; row++)
        count += widened(own[column / SWIZZLED * HOPPER_BLOCK + swizzled(row, int(column % SWIZZLED))]);
    // All lanes have counted.
    __syncwarp();
    UNROLL
    for (int g = 0; g < HOPPER_GROUPS; g++)
        if (threadIdx.x % 32 == 0) mbarrier_arrive(ring.empty(lent[g]));
    // All are done with the activations of the other warpgroup.
    named_barrier(1 + HOPPER_GROUPS, HOPPER_WARPS * 32);
}

// Processes all tiles of a warpgroup.
template <int N>
DEVICE void hopper_multiply(const Hopper<N>& it) {
    const EdgeHopperArgs& args = it.args;
    const unsigned group = threadIdx.x / WARPGROUP, column = threadIdx.x % WARPGROUP;
    const int lane = int(threadIdx.x) % 32;
    const Shared<Bf16> inputs = it.inputs + group * args.first_blocks * HOPPER_BLOCK;
    const Shared<Bf16> activations = it.activations + group * it.blocks * HOPPER_BLOCK;
    unsigned receiver = hopper_range(args, threadIdx.x / 32)[0], begin = args.starts[receiver];
    HopperRing ring = it.ring;
    double penalty = 0;
    float count = 0;
    for (unsigned tile = 0; tile < it.tiles; tile++, begin += HOPPER_STRIP) {
        unsigned next = receiver;
        mbarrier_wait(it.inputs_full(), tile % 2);
        const float* bias = args.biases;
        for (unsigned layer = 0; layer < args.layers; layer++, bias += args.parts * N) {
            const Shared<Bf16> left = layer == 0 ? inputs : activations;
            const unsigned blocks = layer == 0 ? args.first_blocks : it.blocks;
            if (layer + 1 < args.layers || (args.passes > 0 && !args.sign_columns))
                hopper_layer<true, false>(it, ring, left, blocks, bias, activations, begin, receiver);
            else if (args.sign_columns)
                next = hopper_layer<true, true>(it, ring, left, blocks, bias, activations, begin, receiver);
            else
                next = hopper_layer<false, true>(it, ring, left, blocks, bias, activations, begin, receiver);
            if (layer == 0 && lane == 0) mbarrier_arrive(it.inputs_empty());
        }
        for (unsigned pass = 0; pass < args.passes; pass++, bias += HOPPER_PASS) {
            float sums[HOPPER_PASS / 2];
            hopper_bias<HOPPER_PASS>(sums, bias);
            hopper_product<HOPPER_PASS>(sums, ring, activations, it.blocks);
            if (args.sign_columns)
                hopper_penalty(it, ring, begin, sums, penalty, count);
            else
                next = hopper_add<HOPPER_PASS>(args, begin, receiver, sums, pass * HOPPER_PASS);
        }
        receiver = next;
    }
    if (!args.sign_columns) return;
    UNROLL
    for (int bit = 16; bit > 0; bit /= 2) penalty += __shfl_xor_sync(~0u, penalty, bit);
    if (lane == 0) args.penalties[blockIdx.x * HOPPER_WARPS + threadIdx.x / 32] += penalty;
    // One warpgroup after the other.
    for (unsigned turn = 0; turn < HOPPER_GROUPS; turn++) {
        if (turn == group && column < args.sign_columns)
            args.counts[size_t(blockIdx.x) * args.sign_columns + column] += count;
        named_barrier(1 + HOPPER_GROUPS, HOPPER_WARPS * 32);
    }
}

// ---------------------------------------------------------------- the kernel

template <int N>
DEVICE void hopper(const EdgeHopperArgs& args) {
    const unsigned blocks = args.parts * N / SWIZZLED;
    const unsigned count = HOPPER_GROUPS * blocks * HOPPER_BLOCK;
    const unsigned inputs = HOPPER_GROUPS * args.first_blocks * HOPPER_BLOCK;
    constexpr unsigned STAGES = HOPPER_STAGES * HOPPER_STAGE;
    const size_t barriers = (count + inputs + STAGES) * sizeof(Bf16);
    // At least one tile: receivers without edges have sums, too.
    unsigned tiles = 1;
    for (unsigned warp = 0; warp < HOPPER_WARPS; warp++) {
        const unsigned* range = hopper_range(args, warp);
        const unsigned edges = args.starts[range[1]] - args.starts[range[0]];
        tiles = max(tiles, (edges + HOPPER_STRIP - 1) / HOPPER_STRIP);
    }
    const Hopper<N> it = {
        args,
        shared<Bf16>(0, count),
        shared<Bf16>(count * sizeof(Bf16), inputs),
        {shared<Bf16>((count + inputs) * sizeof(Bf16), STAGES), shared<uint64_t>(barriers, HOPPER_RING), 0, 0},
        shared<uint64_t>(barriers + HOPPER_RING * sizeof(uint64_t), 2),
        blocks,
        tiles,
    };
    if (threadIdx.x == 0) {
        hopper_init(it.ring);
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
    hopper<64>(args);
}
EXPORT(edge_hopper_64)
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_192(EdgeHopperArgs args) {
    hopper<192>(args);
}
EXPORT(edge_hopper_192)
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_256(EdgeHopperArgs args) {
    hopper<256>(args);
}
EXPORT(edge_hopper_256)

#endif
