// The way back through φe for sm_90a, with warpgroup products: does the same as edge_fused_backward.cu, from and to the
// same places in device memory. Other architectures have none of this.
// Argument structs in Rust, launches and tests: src/ops/edge/; design: notes/hopper.md.
//
// A block has two warpgroups that multiply, each 64 edges of a tile, and one that feeds them, as in edge_hopper.cu. The
// two are independent: each has its own sums.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/fused.cuh"
#include "common/hopper.cuh"

#if HOPPER_ONLY
#include "common/hopper_tiles.cuh"
#include "common/hopper_back.cuh"

LAYOUT(EdgeFusedBackwardArgs, features, receivers, senders, owners, masks, signs, d_outputs, passed, weights,
       bias, sums, biases, shift, period, n_features, dim, edges, hidden, inputs, first_chunks, words, tiles,
       outputs, unused)

// Inputs of the next tile are made while those of this one are multiplied.
constexpr unsigned HOPPER_BUFFERS = 2;

// N: units of a part of a hidden layer.
template <int N>
struct HopperFirst {
    const EdgeFusedBackwardArgs& args;
    Shared<Bf16> activations;  // [2][room][64, SWIZZLED]
    Shared<Bf16> inputs;       // [HOPPER_BUFFERS][2][first_chunks][64, SWIZZLED]
    HopperRing ring;
    Shared<uint64_t> arrivals;  // of each buffer: its inputs have arrived; then: their users are done
    unsigned parts, blocks;     // of a hidden layer
    unsigned room;              // blocks of it, or of the signs
    unsigned begin, tiles;      // the block's first edge

    __device__ __forceinline__ uint64_t* full(unsigned buffer) const { return arrivals.at(buffer, 1); }
    __device__ __forceinline__ uint64_t* empty(unsigned buffer) const {
        return arrivals.at(HOPPER_BUFFERS + buffer, 1);
    }
    // Inputs of a warpgroup's edges.
    __device__ __forceinline__ Shared<Bf16> inputs_of(unsigned buffer, unsigned group) const {
        return inputs + (buffer * HOPPER_GROUPS + group) * args.first_chunks * HOPPER_BLOCK;
    }
};

// ---------------------------------------------------------------- bringing

// Streams the weights of all tiles. For one thread.
template <int N>
DEVICE void hopper_first_stream(const HopperFirst<N>& it) {
    const unsigned pieces = it.parts * (it.args.first_chunks + it.args.words + it.blocks);
    HopperRing ring = it.ring;
    for (unsigned tile = 0; tile < it.tiles; tile++)
        for (unsigned piece = 0; piece < pieces; piece++)
            hopper_fill(ring, it.args.weights + size_t(piece) * N * SWIZZLED, N * SWIZZLED);
}

// φe's inputs on an edge as row `row` of a warpgroup's inputs `to`: [receiver's features, sender's, 1] followed by
// zeros, high and low parts as in HOPPER_MIXED, then high parts again; zeros beyond the last edge.
DEVICE void hopper_first_input(const EdgeFusedBackwardArgs& args, Shared<Bf16> to, int row, unsigned edge) {
    const auto put = [&](unsigned place, Bf16 value) {
        to[place / SWIZZLED * HOPPER_BLOCK + swizzled(row, int(place % SWIZZLED))] = value;
    };
    const unsigned width = args.n_features;
    const float *receiver = nullptr, *sender = nullptr;
    if (edge < args.edges) {
        receiver = args.features + size_t(args.receivers[args.owners[edge]]) * width;
        sender = args.features + size_t(args.senders[edge]) * width;
    }
    ROLLED
    for (unsigned column = 0; column < args.inputs; column++) {
        float value = receiver && column == 2 * width ? 1 : 0;
        if (column < 2 * width) value = hopper_feature(args, receiver, sender, column);
        const Bf16 high = __float2bfloat16_rn(value);
        const unsigned place = column / HOPPER_MIXED * SWIZZLED + column % HOPPER_MIXED;
        put(place, high);
        put(place + HOPPER_MIXED, __float2bfloat16_rn(value - __bfloat162float(high)));
        put(2 * args.inputs + column, high);
    }
    for (unsigned place = 3 * args.inputs; place < args.first_chunks * SWIZZLED; place++)
        put(place, __float2bfloat16_rn(0));
}

// Makes the inputs of all tiles. HOPPER_GATHERERS threads, of which this is number `thread`.
template <int N>
DEVICE void hopper_first_gather(const HopperFirst<N>& it, unsigned thread) {
    for (unsigned tile = 0; tile < it.tiles; tile++) {
        const unsigned buffer = tile % HOPPER_BUFFERS;
        mbarrier_wait(it.empty(buffer), tile / HOPPER_BUFFERS % 2 ^ 1);
        for (unsigned row = thread; row < HOPPER_TILE; row += HOPPER_GATHERERS)
            hopper_first_input(it.args, it.inputs_of(buffer, row / HOPPER_ROWS), int(row % HOPPER_ROWS),
                               it.begin + tile * HOPPER_TILE + row);
        proxy_fence();
        mbarrier_arrive(it.full(buffer));
    }
}

// ---------------------------------------------------------------- multiplying

// Both parts of a layer as activations, replacing those they are made from: `make(part, sums)` has the results.
template <int N, class Make>
DEVICE void hopper_parts(unsigned parts, Shared<Bf16> activations, Make make) {
    uint32_t held[N / 4] = {};
    for (unsigned part = 0; part < parts; part++) {
        float sums[N / 2];
        make(part, sums);
        if (part > 0) hopper_store<N>(activations, 0, held);
        hopper_pack<false, N>(held, sums);
    }
    hopper_store<N>(activations, (parts - 1) * N, held);
    hopper_written();
}

// Adds Σ dz1 xᵀ over 64 edges to the sums of a warpgroup, in the layout of fused_accumulate.
template <int N>
DEVICE void hopper_first_sums(const HopperFirst<N>& it, Shared<Bf16> activations, Shared<Bf16> inputs,
                              float* sums) {
    const EdgeFusedBackwardArgs& args = it.args;
    const unsigned fragments = args.inputs / 8;
    float4* const lane = reinterpret_cast<float4*>(sums) + threadIdx.x / 32 % 4 * fragments * 32 + threadIdx.x % 32;
    for (unsigned block = 0; block < args.inputs / HOPPER_MIXED; block++) {
        for (unsigned part = 0; part < it.parts; part++) {
            // All at once: one latency of the tensor cores and of the sums.
            float4 old[N / 64][2];
            float results[N / 64][SWIZZLED / 2];
            const auto at = [&](int tile, int n) {
                return lane + (part * (N / 64) + tile) * 4 * fragments * 32 + (2 * block + n) * 32;
            };
            UNROLL
            for (int tile = 0; tile < N / 64; tile++) {
                const bool counts = part * N + 64 * tile < args.hidden;
                UNROLL
                for (int n = 0; n < 2; n++) old[tile][n] = counts ? *at(tile, n) : make_float4(0, 0, 0, 0);
                UNROLL
                for (int i = 0; i < SWIZZLED / 2; i++) results[tile][i] = 0;
            }
            UNROLL
            for (int tile = 0; tile < N / 64; tile++) accumulators(results[tile]);
            UNROLL
            for (int tile = 0; tile < N / 64; tile++)
                hopper_outer<SWIZZLED>(results[tile],
                                       activations + (part * (N / SWIZZLED) + 2 * tile) * HOPPER_BLOCK,
                                       inputs + block * HOPPER_BLOCK);
            UNROLL
            for (int tile = 0; tile < N / 64; tile++) {
                const float(&x)[SWIZZLED / 2] = results[tile];
                wgmma_wait<0>(results[tile]);
                if (part * N + 64 * tile >= args.hidden) continue;
                UNROLL
                for (int n = 0; n < 2; n++) {
                    // High and low parts of the inputs.
                    const float4 sum = old[tile][n];
                    const int high = 4 * n, low = 4 * n + 8;
                    *at(tile, n) = make_float4(sum.x + (x[high] + x[low]), sum.y + (x[high + 1] + x[low + 1]),
                                               sum.z + (x[high + 2] + x[low + 2]),
                                               sum.w + (x[high + 3] + x[low + 3]));
                }
            }
        }
    }
}

// Processes all tiles of a warpgroup.
template <int N>
DEVICE void hopper_first_multiply(const HopperFirst<N>& it) {
    const EdgeFusedBackwardArgs& args = it.args;
    const unsigned group = threadIdx.x / WARPGROUP;
    const unsigned row = group * HOPPER_ROWS + wgmma_element(int(threadIdx.x) % WARPGROUP, 0).row;
    const Shared<Bf16> activations = it.activations + group * it.room * HOPPER_BLOCK;
    float* const sums = args.sums + size_t(blockIdx.x * HOPPER_GROUPS + group) * args.hidden * args.inputs;
    HopperRing ring = it.ring;
    for (unsigned tile = 0; tile < it.tiles; tile++) {
        const unsigned begin = it.begin + tile * HOPPER_TILE, edge = begin + row;
        const unsigned buffer = tile % HOPPER_BUFFERS;
        const Shared<Bf16> inputs = it.inputs_of(buffer, group);
        const HopperSigns signs = hopper_load_signs(args, begin + group * HOPPER_ROWS);
        unsigned owners[2];
        UNROLL
        for (int half = 0; half < 2; half++)
            owners[half] = edge + 8 * half < args.edges ? args.owners[edge + 8 * half] : 0;
        mbarrier_wait(it.full(buffer), tile / HOPPER_BUFFERS % 2);

        // Bits of the first hidden layer, for the latest part and the one before.
        uint32_t positive[N / 64] = {}, before[N / 64] = {};
        for (unsigned part = 0; part < it.parts; part++) {
            float layer[N / 2];
            hopper_bias<N>(layer, args.bias + part * N);
            hopper_product<N>(layer, ring, inputs, args.first_chunks);
            UNROLL
            for (int word = 0; word < N / 64; word++) {
                before[word] = positive[word];
                positive[word] = 0;
                UNROLL
                for (int i = 0; i < 32; i++) positive[word] |= uint32_t(layer[32 * word + i] > 0) << i;
            }
        }
        if (args.words > 0) hopper_spread_signs(args, signs, activations);
        // dz2.
        hopper_parts<N>(it.parts, activations, [&](unsigned part, float(&layer)[N / 2]) {
            const HopperMask<N> mask = hopper_mask<N>(args, edge, part * N);
            hopper_passed<N>(args, owners, part * N, layer);
            if (args.words > 0) hopper_product<N>(layer, ring, activations, args.words);
            UNROLL
            for (int i = 0; i < N / 2; i++)
                if (!(mask.bits[i / 2 % 2][i / 32] >> (i % 32 / 4 * 2 + i % 2) & 1)) layer[i] = 0;
        });
        // dz1.
        hopper_parts<N>(it.parts, activations, [&](unsigned part, float(&layer)[N / 2]) {
            UNROLL
            for (int i = 0; i < N / 2; i++) layer[i] = 0;
            hopper_product<N>(layer, ring, activations, it.blocks);
            UNROLL
            for (int i = 0; i < N / 2; i++) {
                const uint32_t bits = part + 1 < it.parts ? before[i / 32] : positive[i / 32];
                if (!(bits >> i % 32 & 1)) layer[i] = 0;
            }
        });
        hopper_first_sums(it, activations, inputs, sums);
        if (threadIdx.x % 32 == 0) mbarrier_arrive(it.empty(buffer));
        // All are done with dz1, in case a wait covers its own warp only.
        named_barrier(1 + group, WARPGROUP);
    }
}

// ---------------------------------------------------------------- the kernel

template <int N>
DEVICE void hopper_first(const EdgeFusedBackwardArgs& args) {
    const unsigned parts = (args.hidden + N - 1) / N, blocks = parts * N / SWIZZLED;
    const unsigned room = max(blocks, args.words);
    const unsigned count = HOPPER_GROUPS * room * HOPPER_BLOCK;
    const unsigned inputs = HOPPER_BUFFERS * HOPPER_GROUPS * args.first_chunks * HOPPER_BLOCK;
    constexpr unsigned STAGES = HOPPER_STAGES * HOPPER_STAGE;
    const size_t barriers = (count + inputs + STAGES) * sizeof(Bf16);
    const unsigned begin = min(blockIdx.x * args.tiles * HOPPER_TILE, args.edges);
    const unsigned end = min(begin + args.tiles * HOPPER_TILE, args.edges);
    const HopperFirst<N> it = {
        args,
        shared<Bf16>(0, count),
        shared<Bf16>(count * sizeof(Bf16), inputs),
        {shared<Bf16>((count + inputs) * sizeof(Bf16), STAGES), shared<uint64_t>(barriers, HOPPER_RING), 0, 0},
        shared<uint64_t>(barriers + HOPPER_RING * sizeof(uint64_t), 2 * HOPPER_BUFFERS),
        parts,
        blocks,
        room,
        begin,
        (end - begin + HOPPER_TILE - 1) / HOPPER_TILE,
    };
    if (threadIdx.x == 0) {
        hopper_init(it.ring);
        for (unsigned buffer = 0; buffer < HOPPER_BUFFERS; buffer++) {
            mbarrier_init(it.full(buffer), HOPPER_GATHERERS);
            mbarrier_init(it.empty(buffer), HOPPER_WARPS);
        }
        proxy_fence();
    }
    __syncthreads();
    // 2 · 232 + 40 registers of 3 · 168.
    if (threadIdx.x < HOPPER_GROUPS * WARPGROUP) {
        take_registers<232>();
        hopper_first_multiply(it);
    } else {
        give_registers<40>();
        const unsigned thread = threadIdx.x - HOPPER_GROUPS * WARPGROUP;
        if (thread == 0) hopper_first_stream(it);
        if (thread >= 32) hopper_first_gather(it, thread - 32);
    }
}

// Σ dz1 xᵀ, with a column for the bias: sums of each warpgroup that multiplies. Grid: blocks of `tiles` tiles of edges;
// HOPPER_THREADS. One kernel for each number of units of a part of a hidden layer.
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_first_64(EdgeFusedBackwardArgs args) {
    hopper_first<64>(args);
}
EXPORT(edge_hopper_first_64)
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_first_192(EdgeFusedBackwardArgs args) {
    hopper_first<192>(args);
}
EXPORT(edge_hopper_first_192)
KERNEL void __launch_bounds__(HOPPER_THREADS, 1) edge_hopper_first_256(EdgeFusedBackwardArgs args) {
    hopper_first<256>(args);
}
EXPORT(edge_hopper_first_256)

#endif
