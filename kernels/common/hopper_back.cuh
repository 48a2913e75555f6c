// What kernels of sm_90a on the way back through φe share: how a warpgroup forms dz2 on HOPPER_ROWS edges, from what
// their receivers get, the signs of their messages and the bits of the second hidden layer. `args` has the fields of
// EdgeFusedBackwardArgs that it needs.
#pragma once

// Words of the signs of 64 edges that a thread of a warpgroup spreads: of up to 128 messages.
constexpr int HOPPER_SIGNS = HOPPER_ROWS * 4 / WARPGROUP;

// What the threads of a warpgroup have written to its operands, for its products and for each other.
DEVICE void hopper_written() {
    proxy_fence();
    named_barrier(1 + threadIdx.x / WARPGROUP, WARPGROUP);
}

// The signs of the messages of 64 edges as a thread loads them, which spreads them later.
struct HopperSigns {
    uint2 bits[HOPPER_SIGNS];
};
template <class Args>
DEVICE HopperSigns hopper_load_signs(const Args& args, unsigned begin) {
    HopperSigns signs = {};
    UNROLL
    for (int i = 0; i < HOPPER_SIGNS; i++) {
        const unsigned index = threadIdx.x % WARPGROUP + i * WARPGROUP;
        const size_t at = size_t(begin) * args.words + index;
        if (index < HOPPER_ROWS * args.words && at < size_t(args.edges) * args.words)
            signs.bits[i] = *reinterpret_cast<const uint2*>(args.signs + 2 * at);
    }
    return signs;
}
template <class Args>
DEVICE void hopper_spread_signs(const Args& args, const HopperSigns& signs, Shared<Bf16> to) {
    UNROLL
    for (int i = 0; i < HOPPER_SIGNS; i++) {
        const unsigned index = threadIdx.x % WARPGROUP + i * WARPGROUP;
        if (index >= HOPPER_ROWS * args.words) continue;
        const Shared<Bf16> block = to + index % args.words * HOPPER_BLOCK;
        UNROLL
        for (int k = 0; k < SWIZZLED; k += 8)
            *reinterpret_cast<uint4*>(block.at(swizzled(int(index / args.words), k), 8)) =
                sign_numbers(signs.bits[i], unsigned(k));
    }
    hopper_written();
}

// What the receivers of the thread's two edges get, in units `first` ….
template <int N, class Args>
DEVICE void hopper_passed(const Args& args, const unsigned (&owners)[2], unsigned first,
                          float (&sums)[N / 2]) {
    const unsigned column = first + accumulator_element(int(threadIdx.x) % 32, 0).column;
    UNROLL
    for (int half = 0; half < 2; half++) {
        const float* from = args.passed + size_t(owners[half]) * args.hidden + column;
        UNROLL
        for (int j = 0; j < N / 8; j++) {
            float2 pair = make_float2(0, 0);
            // Units are padded to 64 there, and here to more.
            if (first + j / 8 * 64 < args.hidden) pair = *reinterpret_cast<const float2*>(from + 8 * j);
            sums[4 * j + 2 * half] = pair.x;
            sums[4 * j + 2 * half + 1] = pair.y;
        }
    }
}

// Bits of the second hidden layer on the same edges, from `begin` + `row` and + `row` + 8, in units `first` …: those of
// 64 units as in EdgeFusedArgs.
template <int N>
struct HopperMask {
    unsigned bits[2][N / 64];
};
template <int N, class Args>
DEVICE HopperMask<N> hopper_mask(const Args& args, unsigned edge, unsigned first) {
    HopperMask<N> mask = {};
    UNROLL
    for (int half = 0; half < 2; half++) {
        const size_t at = size_t(edge + 8 * half) * (args.hidden / 16) + threadIdx.x % 4;
        UNROLL
        for (int block = 0; block < N / 64; block++) {
            const unsigned unit = first + 64 * block;
            if (edge + 8 * half < args.edges && unit < args.hidden)
                mask.bits[half][block] = args.masks[at + unit / 16];
        }
    }
    return mask;
}
