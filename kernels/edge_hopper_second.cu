// The way back through φe's second layer for sm_90a, with warpgroup products: does the same as edge_fused_second, from
// and to the same places in device memory. Other architectures have none of this.
// Argument structs in Rust, launches and tests: src/ops/edge/; design: notes/hopper.md.
//
// A block has a slice of the gradient, 128 units of the second hidden layer × 256 of the first, in registers of two
// warpgroups. Two others compute the slices of h1 and dz2 from which it is summed, each on every second tile of 64
// edges.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/fused.cuh"
#include "common/hopper.cuh"

#if HOPPER_ONLY
#include "common/hopper_tiles.cuh"
#include "common/hopper_back.cuh"

// ---------------------------------------------------------------- φe's inputs

struct EdgeHopperInputsArgs {
    const float* features;      // [nodes, n_features]
    const unsigned* receivers;  // [receivers]
    const unsigned* senders;    // [edges]
    const unsigned* owners;     // [edges] among the receivers
    Bf16* inputs;               // [edges / 64][blocks][64, SWIZZLED], swizzled
    float shift[3];
    float period;               // 0 in open space
    unsigned n_features, dim;
    unsigned edges;
    unsigned width;             // of a part of the inputs, a multiple of 8
    unsigned blocks;            // of all parts
    unsigned unused;
};
LAYOUT(EdgeHopperInputsArgs, features, receivers, senders, owners, inputs, shift, period, n_features, dim,
       edges, width, blocks, unused)

// High and low parts of all edges: columns [high, low, high], each of [receiver's features, sender's, whose coordinates
// are relative to the receiver]; zeros after them, and for missing edges. Any grid; eight columns per thread.
KERNEL void edge_hopper_inputs(EdgeHopperInputsArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t rows = size_t(args.edges + HOPPER_ROWS - 1) / HOPPER_ROWS * args.blocks * HOPPER_ROWS;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * (SWIZZLED / 8); i += threads) {
        const size_t block = i / (SWIZZLED / 8) / HOPPER_ROWS;
        const int row = int(i / (SWIZZLED / 8) % HOPPER_ROWS), piece = int(i % (SWIZZLED / 8)) * 8;
        const size_t edge = block / args.blocks * HOPPER_ROWS + row;
        const unsigned place = unsigned(block % args.blocks) * SWIZZLED + piece;
        const unsigned part = place / args.width, first = place % args.width;
        float values[8] = {};
        if (edge < args.edges && part < 3) {
            const float* receiver = args.features + size_t(args.receivers[args.owners[edge]]) * args.n_features;
            const float* sender = args.features + size_t(args.senders[edge]) * args.n_features;
            UNROLL
            for (unsigned k = 0; k < 8; k++) {
                if (first + k >= 2 * args.n_features) continue;
                values[k] = hopper_feature(args, receiver, sender, first + k);
                if (part == 1) values[k] -= __bfloat162float(__float2bfloat16_rn(values[k]));
            }
        }
        *reinterpret_cast<uint4*>(args.inputs + block * HOPPER_BLOCK + swizzled(row, piece)) =
            make_uint4(bf16x2(values[0], values[1]), bf16x2(values[2], values[3]), bf16x2(values[4], values[5]),
                       bf16x2(values[6], values[7]));
    }
}
EXPORT(edge_hopper_inputs)

// ---------------------------------------------------------------- a block

struct EdgeHopperSecondArgs {
    const Bf16* inputs;         // as edge_hopper_inputs leaves them
    const unsigned* owners;     // these four as in EdgeFusedBackwardArgs
    const uint16_t* masks;
    const unsigned* signs;
    const float* passed;
    const Bf16* first_weights;  // of W1: [slices][first_blocks][SLICE_IN, SWIZZLED], swizzled
    const Bf16* last_weights;   // of the penalty's weight · W3ᵀ: [slices][words][SLICE_OUT, SWIZZLED]
    const float* bias;          // of the first layer: [slices, SLICE_IN]
    float* sums;                // [splits, slices]: fused_accumulate
    float* biases;              // [splits, hidden]
    unsigned edges, hidden;
    unsigned first_blocks;      // of the inputs
    unsigned first_steps;       // of 16 columns that are not all zeros
    unsigned words;             // of the signs; 0: no penalty
    unsigned tiles;             // of a split
};
LAYOUT(EdgeHopperSecondArgs, inputs, owners, masks, signs, passed, first_weights, last_weights, bias, sums,
       biases, edges, hidden, first_blocks, first_steps, words, tiles)

// As in edge_fused_second: a slice, and the tiles whose sums stay in registers.
constexpr int SLICE_OUT = 128, SLICE_IN = 256;
constexpr unsigned SLICE_TILES = 64;
// Units that a warpgroup computes at a time, and columns of a product: blocks of four warpgroups are compiled for 128
// registers, too few for 256 columns.
constexpr int HOPPER_FORMED = 128;
constexpr int HOPPER_SECOND_THREADS = 2 * HOPPER_GROUPS * WARPGROUP;

struct HopperSecond {
    const EdgeHopperSecondArgs& args;
    Shared<uint64_t> barriers;
    // For each computing warpgroup, blocks of its tile: h1 and dz2.
    Shared<Bf16> hidden;         // [2][SLICE_IN / SWIZZLED]
    Shared<Bf16> d_hidden;       // [2][SLICE_OUT / SWIZZLED]
    Shared<Bf16> first_weights;  // slices of the weights
    Shared<Bf16> last_weights;
    // Likewise, the data they are computed from.
    Shared<Bf16> inputs;         // [2][first_blocks]
    Shared<Bf16> signs;          // [2][words]
    unsigned in, out;            // the first units of the slice
    unsigned begin, tiles;       // the block's first edge

    __device__ __forceinline__ uint64_t* weights() const { return barriers.at(0, 1); }
    // For a computing warpgroup: its inputs have arrived; its slices are ready; the summing warpgroups are done with
    // them.
    __device__ __forceinline__ uint64_t* arrived(unsigned group) const { return barriers.at(1 + group, 1); }
    __device__ __forceinline__ uint64_t* formed(unsigned group) const {
        return barriers.at(1 + HOPPER_GROUPS + group, 1);
    }
    __device__ __forceinline__ uint64_t* used(unsigned group) const {
        return barriers.at(1 + 2 * HOPPER_GROUPS + group, 1);
    }
    __device__ __forceinline__ Shared<Bf16> hidden_of(unsigned group) const {
        return hidden + group * (SLICE_IN / SWIZZLED) * HOPPER_BLOCK;
    }
    __device__ __forceinline__ Shared<Bf16> d_hidden_of(unsigned group) const {
        return d_hidden + group * (SLICE_OUT / SWIZZLED) * HOPPER_BLOCK;
    }
};
constexpr unsigned HOPPER_SECOND_BARRIERS = 1 + 3 * HOPPER_GROUPS;

// ---------------------------------------------------------------- forming

// sums += left × right over 16 `steps` columns: 64 edges × HOPPER_FORMED units, which lie in blocks of `units`.
DEVICE void hopper_form(float (&sums)[HOPPER_FORMED / 2], Shared<Bf16> left, Shared<Bf16> right, int units,
                        unsigned steps) {
    accumulators(sums);
    unsigned step = 0;
    ROLLED
    do {
        const Bf16* a = left.at(step / 2 * HOPPER_BLOCK, HOPPER_BLOCK);
        const Bf16* b = right.at(step / 2 * units * SWIZZLED, HOPPER_FORMED * SWIZZLED);
        wgmma_fence();
        wgmma<HOPPER_FORMED>(sums, swizzled_operand(a, step % 2), swizzled_operand(b, step % 2));
        wgmma_commit();
        wgmma_wait<1>(sums);
    } while (++step < steps);
    wgmma_wait<0>(sums);
}

// Slices of every second tile. For a warpgroup.
DEVICE void hopper_second_form(const HopperSecond& it) {
    const EdgeHopperSecondArgs& args = it.args;
    const unsigned group = threadIdx.x / WARPGROUP - HOPPER_GROUPS, thread = threadIdx.x % WARPGROUP;
    const unsigned row = wgmma_element(int(thread), 0).row;
    const unsigned columns = args.first_blocks * HOPPER_BLOCK;
    const Shared<Bf16> inputs = it.inputs + group * columns, hidden = it.hidden_of(group);
    const Shared<Bf16> signs = it.signs + group * args.words * HOPPER_BLOCK, d_hidden = it.d_hidden_of(group);
    const auto fetch = [&](unsigned tile) {
        if (thread != 0 || tile >= it.tiles) return;
        const size_t from = size_t(it.begin / HOPPER_ROWS + tile) * columns;
        mbarrier_expect(it.arrived(group), columns * sizeof(Bf16));
        bulk_copy(inputs.at(0, columns), args.inputs + from, columns * sizeof(Bf16), it.arrived(group));
    };
    fetch(group);
    mbarrier_wait(it.weights(), 0);
    for (unsigned tile = group; tile < it.tiles; tile += HOPPER_GROUPS) {
        const unsigned begin = it.begin + tile * HOPPER_ROWS, edge = begin + row;
        const unsigned parity = tile / HOPPER_GROUPS % 2;
        const HopperSigns bits = hopper_load_signs(args, begin);
        unsigned owners[2];
        UNROLL
        for (int half = 0; half < 2; half++)
            owners[half] = edge + 8 * half < args.edges ? args.owners[edge + 8 * half] : 0;
        mbarrier_wait(it.arrived(group), parity);
        // h1.
        for (int unit = 0; unit < SLICE_IN; unit += HOPPER_FORMED) {
            float sums[HOPPER_FORMED / 2];
            hopper_bias<HOPPER_FORMED>(sums, args.bias + it.in + unit);
            hopper_form(sums, inputs, it.first_weights + unit * SWIZZLED, SLICE_IN, args.first_steps);
            if (unit == 0) mbarrier_wait(it.used(group), parity ^ 1);
            uint32_t pairs[HOPPER_FORMED / 4];
            hopper_pack<true, HOPPER_FORMED>(pairs, sums);
            hopper_store<HOPPER_FORMED>(hidden, unit, pairs);
        }
        // All are done with the inputs, and with the signs of the previous tile.
        named_barrier(1 + threadIdx.x / WARPGROUP, WARPGROUP);
        fetch(tile + HOPPER_GROUPS);
        // dz2.
        float sums[HOPPER_FORMED / 2];
        hopper_passed<HOPPER_FORMED>(args, owners, it.out, sums);
        if (args.words > 0) hopper_spread_signs(args, bits, signs);
        const HopperMask<HOPPER_FORMED> mask = hopper_mask<HOPPER_FORMED>(args, edge, it.out);
        if (args.words > 0) hopper_form(sums, signs, it.last_weights, SLICE_OUT, 2 * args.words);
        UNROLL
        for (int i = 0; i < HOPPER_FORMED / 2; i++)
            if (!(mask.bits[i / 2 % 2][i / 32] >> (i % 32 / 4 * 2 + i % 2) & 1)) sums[i] = 0;
        uint32_t pairs[HOPPER_FORMED / 4];
        hopper_pack<false, HOPPER_FORMED>(pairs, sums);
        hopper_store<HOPPER_FORMED>(d_hidden, 0, pairs);
        proxy_fence();
        mbarrier_arrive(it.formed(group));
    }
}

// ---------------------------------------------------------------- summing

// Adds 64 units × HOPPER_FORMED columns to sums in tiles of 64 × 64, which start at `to`.
DEVICE void hopper_second_add(const float (&sums)[HOPPER_FORMED / 2], float* to) {
    UNROLL
    for (int i = 0; i < HOPPER_FORMED / 64; i++) {
        float part[32];
        UNROLL
        for (int k = 0; k < 32; k++) part[k] = sums[32 * i + k];
        hopper_accumulate<64>(part, to + i * 64 * 64, 8);
    }
}

// Σ dz2 h1ᵀ for 64 of the slice's units over all tiles, and, in slices of the first layer's first units, Σ dz2. For a
// warpgroup.
DEVICE void hopper_second_sum(const HopperSecond& it) {
    const EdgeHopperSecondArgs& args = it.args;
    const unsigned group = threadIdx.x / WARPGROUP, lane = threadIdx.x % 32;
    const size_t across = gridDim.x * (SLICE_IN / 64), down = gridDim.y * (SLICE_OUT / 64);
    float* const to = args.sums + ((blockIdx.z * down + it.out / 64 + group) * across + it.in / 64) * 64 * 64;
    // A unit of the warpgroup; this thread has every second edge of it.
    const unsigned unit = threadIdx.x / 32 % 4 * 16 + lane % 16, odd = lane / 16;
    for (unsigned first = 0; first < it.tiles; first += SLICE_TILES) {
        float left[HOPPER_FORMED / 2], right[HOPPER_FORMED / 2], bias = 0;
        UNROLL
        for (int i = 0; i < HOPPER_FORMED / 2; i++) left[i] = right[i] = 0;
        accumulators(left);
        accumulators(right);
        for (unsigned tile = first; tile < min(first + SLICE_TILES, it.tiles); tile++) {
            const unsigned from = tile % HOPPER_GROUPS;
            const Shared<Bf16> hidden = it.hidden_of(from);
            const Shared<Bf16> d_hidden = it.d_hidden_of(from) + group * (64 / SWIZZLED) * HOPPER_BLOCK;
            mbarrier_wait(it.formed(from), tile / HOPPER_GROUPS % 2);
            hopper_outer<HOPPER_FORMED>(left, d_hidden, hidden);
            hopper_outer<HOPPER_FORMED>(right, d_hidden, hidden + HOPPER_FORMED / SWIZZLED * HOPPER_BLOCK);
            if (it.in == 0) {
                const Shared<Bf16> block = d_hidden + unit / SWIZZLED * HOPPER_BLOCK;
                UNROLL
                for (int edge = 0; edge < HOPPER_ROWS; edge += 2)
                    bias += widened(block[swizzled(edge + int(odd), int(unit % SWIZZLED))]);
                // All lanes have added their own.
                __syncwarp();
            }
            wgmma_wait<0>(left);
            accumulators(right);
            if (lane == 0) mbarrier_arrive(it.used(from));
        }
        hopper_second_add(left, to);
        hopper_second_add(right, to + HOPPER_FORMED * 64);
        bias += __shfl_xor_sync(~0u, bias, 16);
        const unsigned of = it.out + 64 * group + unit;
        if (it.in == 0 && odd == 0 && of < args.hidden)
            args.biases[size_t(blockIdx.z) * args.hidden + of] += bias;
    }
}

// ---------------------------------------------------------------- the kernel

// Σ dz2 h1ᵀ and Σ dz2. Grid: slices of the first layer's units, of the second's, splits of `tiles` tiles;
// HOPPER_SECOND_THREADS.
KERNEL void __launch_bounds__(HOPPER_SECOND_THREADS, 1) edge_hopper_second(EdgeHopperSecondArgs args) {
    const unsigned begin = blockIdx.z * args.tiles * HOPPER_ROWS;
    // Holds for the whole block.
    if (begin >= args.edges) return;
    const unsigned left = (args.edges - begin + HOPPER_ROWS - 1) / HOPPER_ROWS;
    // Arrays of fixed size first: constant addresses need no registers.
    size_t at = 0;
    const auto numbers = [&](unsigned count) {
        const size_t from = at;
        at += count * sizeof(Bf16);
        return shared<Bf16>(from, count);
    };
    const Shared<Bf16> hidden = numbers(HOPPER_GROUPS * SLICE_IN / SWIZZLED * HOPPER_BLOCK);
    const Shared<Bf16> d_hidden = numbers(HOPPER_GROUPS * SLICE_OUT / SWIZZLED * HOPPER_BLOCK);
    const Shared<uint64_t> barriers = shared<uint64_t>(at, HOPPER_SECOND_BARRIERS);
    at += SWIZZLED_PATTERN;
    const unsigned first = args.first_blocks * SLICE_IN * SWIZZLED, last = args.words * SLICE_OUT * SWIZZLED;
    const HopperSecond it = {
        args,
        barriers,
        hidden,
        d_hidden,
        numbers(first),
        numbers(last),
        numbers(HOPPER_GROUPS * args.first_blocks * HOPPER_BLOCK),
        numbers(HOPPER_GROUPS * args.words * HOPPER_BLOCK),
        blockIdx.x * SLICE_IN,
        blockIdx.y * SLICE_OUT,
        begin,
        left < args.tiles ? left : args.tiles,
    };
    if (threadIdx.x == 0) {
        mbarrier_init(it.weights(), 1);
        for (unsigned group = 0; group < HOPPER_GROUPS; group++) {
            mbarrier_init(it.arrived(group), 1);
            mbarrier_init(it.formed(group), WARPGROUP);
            mbarrier_init(it.used(group), HOPPER_WARPS);
        }
        proxy_fence();
        mbarrier_expect(it.weights(), (first + last) * sizeof(Bf16));
        bulk_copy(it.first_weights.at(0, first), args.first_weights + size_t(blockIdx.x) * first,
                  first * sizeof(Bf16), it.weights());
        if (last > 0)
            bulk_copy(it.last_weights.at(0, last), args.last_weights + size_t(blockIdx.y) * last,
                      last * sizeof(Bf16), it.weights());
    }
    __syncthreads();
    // 2 · 160 + 2 · 96 registers of 4 · 128.
    if (threadIdx.x < HOPPER_GROUPS * WARPGROUP) {
        take_registers<160>();
        hopper_second_sum(it);
    } else {
        give_registers<96>();
        hopper_second_form(it);
    }
}
EXPORT(edge_hopper_second)

#endif
