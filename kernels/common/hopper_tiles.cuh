// Shared by the sm_90a kernels that take tiles of edges through layers: HOPPER_GROUPS warpgroups multiply, each
// HOPPER_ROWS edges, whose activations lie in shared memory as swizzled operands; weights arrive through a ring of
// stages, in the order in which they are used.
#pragma once

constexpr int HOPPER_GROUPS = 2;                       // warpgroups that multiply
constexpr int HOPPER_WARPS = 4 * HOPPER_GROUPS;
constexpr int HOPPER_THREADS = WARPGROUP * (HOPPER_GROUPS + 1);
constexpr int HOPPER_ROWS = 64, HOPPER_STRIP = 16;     // edges of a warpgroup, of a warp
constexpr int HOPPER_TILE = HOPPER_GROUPS * HOPPER_ROWS;
// Activations of a warpgroup are blocks of SWIZZLED columns, with this many numbers and bytes.
constexpr int HOPPER_BLOCK = HOPPER_ROWS * SWIZZLED, HOPPER_BLOCK_BYTES = HOPPER_BLOCK * 2;
constexpr int HOPPER_STAGES = 4, HOPPER_STAGE = 256 * SWIZZLED;
// Barriers of a ring.
constexpr int HOPPER_RING = 2 * HOPPER_STAGES;
// Threads that make inputs: the warpgroup that feeds the others, except its first warp.
constexpr int HOPPER_GATHERERS = WARPGROUP - 32;
// On the way back high and low parts of inputs alternate, this many columns of each: a block has both parts of some.
constexpr int HOPPER_MIXED = SWIZZLED / 2;

// ---------------------------------------------------------------- weights on their way

// A ring of stages as seen by one of its users: the next stage, and the parity of its phase.
struct HopperRing {
    Shared<Bf16> stages;        // [HOPPER_STAGES][HOPPER_STAGE]
    Shared<uint64_t> barriers;  // of each stage: its weights have arrived; then: its users are done
    unsigned stage, parity;

    __device__ __forceinline__ uint64_t* full() const { return barriers.at(stage, 1); }
    __device__ __forceinline__ uint64_t* empty(unsigned of) const {
        return barriers.at(HOPPER_STAGES + of, 1);
    }
    __device__ __forceinline__ Shared<Bf16> place(unsigned of) const { return stages + of * HOPPER_STAGE; }
    __device__ __forceinline__ void advance() {
        if (++stage == HOPPER_STAGES) stage = 0, parity ^= 1;
    }
};

// For one thread; a proxy fence and a barrier must follow.
DEVICE void hopper_init(const HopperRing& ring) {
    for (unsigned stage = 0; stage < HOPPER_STAGES; stage++) {
        mbarrier_init(ring.barriers.at(stage, 1), 1);
        mbarrier_init(ring.empty(stage), HOPPER_WARPS);
    }
}

// Fills the next stage with `count` numbers, once it is empty. For one thread.
DEVICE void hopper_fill(HopperRing& ring, const Bf16* from, unsigned count) {
    const unsigned bytes = count * sizeof(Bf16);
    mbarrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    mbarrier_expect(ring.full(), bytes);
    bulk_copy(ring.place(ring.stage).at(0, count), from, bytes, ring.full());
    ring.advance();
}

// Lends the next stage to the multiplying threads, once it is empty. For the same thread.
DEVICE void hopper_lend(HopperRing& ring) {
    mbarrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    mbarrier_arrive(ring.full());
    ring.advance();
}

// ---------------------------------------------------------------- inputs

// Column `column` of an edge's [receiver's features, sender's, whose coordinates are relative to the receiver]. 0 if
// there is no receiver.
template <class Args>
DEVICE float hopper_feature(const Args& args, const float* receiver, const float* sender, unsigned column) {
    if (!receiver) return 0;
    const bool other = column >= args.n_features;
    const unsigned k = other ? column - args.n_features : column;
    float value = other ? sender[k] : receiver[k];
    if (k >= args.dim) return value;
    if (other) {
        value -= receiver[k];
        if (args.period > 0) value -= args.period * roundf(value / args.period);
    } else {
        UNROLL
        for (unsigned d = 0; d < 3; d++)
            if (k == d) value += args.shift[d];
    }
    return value;
}

// ---------------------------------------------------------------- products

// The bias of each column, for accumulators of 64 edges.
template <int COUNT>
DEVICE void hopper_bias(float (&sums)[COUNT / 2], const float* bias) {
    UNROLL
    for (int j = 0; j < COUNT / 8; j++) {
        const float2 b = *reinterpret_cast<const float2*>(
            bias + 8 * j + accumulator_element(int(threadIdx.x) % 32, 0).column);
        UNROLL
        for (int i = 0; i < 4; i++) sums[4 * j + i] = i % 2 ? b.y : b.x;
    }
}

// sums += left × the next `blocks` stages, where a stage has COUNT units. For every thread of the warpgroup.
template <int COUNT>
DEVICE void hopper_product(float (&sums)[COUNT / 2], HopperRing& ring, Shared<Bf16> left, unsigned blocks) {
    const int lane = int(threadIdx.x) % 32;
    unsigned block = 0, before = 0;
    do {
        mbarrier_wait(ring.full(), ring.parity);
        const Bf16* a = left.at(block * HOPPER_BLOCK, HOPPER_BLOCK);
        const Bf16* b = ring.place(ring.stage).at(0, COUNT * SWIZZLED);
        wgmma_fence();
        wgmma<COUNT>(sums, swizzled_operand(a, 0), swizzled_operand(b, 0));
        wgmma<COUNT>(sums, swizzled_operand(a, 1), swizzled_operand(b, 1));
        wgmma_commit();
        // The previous stage is no longer needed.
        wgmma_wait<1>(sums);
        if (block > 0 && lane == 0) mbarrier_arrive(ring.empty(before));
        before = ring.stage;
        ring.advance();
    } while (++block < blocks);
    wgmma_wait<0>(sums);
    if (lane == 0) mbarrier_arrive(ring.empty(before));
}

// Pairs of neighbours in a row of the results, as bf16; with RELU negative values become zero.
template <bool RELU, int N>
DEVICE void hopper_pack(uint32_t (&pairs)[N / 4], const float (&sums)[N / 2]) {
    UNROLL
    for (int i = 0; i < N / 4; i++)
        pairs[i] = RELU ? relu_bf16x2(sums[2 * i], sums[2 * i + 1]) : bf16x2(sums[2 * i], sums[2 * i + 1]);
}

// Stores these as activations, from column `column` on, a multiple of SWIZZLED.
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

// sums += Σ left(edge, unit) · right(edge, column) over the edges of a warpgroup: 64 units × COUNT columns, both in
// blocks as activations are. A group of products that is not waited for.
template <int COUNT>
DEVICE void hopper_outer(float (&sums)[COUNT / 2], Shared<Bf16> left, Shared<Bf16> right) {
    const Bf16* a = left.at(0, 2 * HOPPER_BLOCK);
    const Bf16* b = right.at(0, COUNT / SWIZZLED * HOPPER_BLOCK);
    wgmma_fence();
    UNROLL
    for (int k = 0; k < HOPPER_ROWS / 16; k++)
        wgmma<COUNT, true>(sums, transposed_operand(a, HOPPER_BLOCK_BYTES, k),
                           transposed_operand(b, HOPPER_BLOCK_BYTES, k));
    wgmma_commit();
}

// Adds 64 units × 8 `fragments` columns, at most COUNT, to sums that start at `to`, in the layout of fused_accumulate.
// L2 does the addition, so nothing waits for the old values. Each sum belongs to one thread, so the order is that of
// its tiles.
template <int COUNT>
DEVICE void hopper_accumulate(const float (&sums)[COUNT / 2], float* to, unsigned fragments) {
    float4* const at = reinterpret_cast<float4*>(to) + threadIdx.x / 32 % 4 * fragments * 32 + threadIdx.x % 32;
    UNROLL
    for (int n = 0; n < COUNT / 8; n++) {
        if (n < int(fragments))
            atomicAdd(at + n * 32, make_float4(sums[4 * n], sums[4 * n + 1], sums[4 * n + 2], sums[4 * n + 3]));
    }
}
