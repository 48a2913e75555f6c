// The most that a device can do: operations on registers, copies that stay in its cache; for sm_90a also products from
// shared memory, and copies into it. Argument structs in Rust, launches and tests: src/bench/ceilings/gpu.rs.
#include "common/device.cuh"
#include "common/gemm.cuh"
#include "common/hopper.cuh"

struct FlopArgs {
    float* sums;  // [threads] the sum of a thread's chains
    unsigned long long rounds;
    float factor, addend;
};
LAYOUT(FlopArgs, sums, rounds, factor, addend)

// Chains of dependent operations that run side by side: enough to hide their latency. They start differently, so that
// no compiler merges them.
constexpr int CHAINS = 16;
// Operations of a chain in a round: the loop itself should not count.
constexpr int LINKS = 8;

template <class T>
DEVICE void multiply_add(const FlopArgs& args) {
    const T factor = args.factor, addend = args.addend;
    T chains[CHAINS];
    UNROLL for (int c = 0; c < CHAINS; c++) chains[c] = T(c);
    for (unsigned long long round = 0; round < args.rounds; round++) {
        UNROLL for (int k = 0; k < LINKS; k++) {
            UNROLL for (int c = 0; c < CHAINS; c++) chains[c] = fma(factor, chains[c], addend);
        }
    }
    T sum = 0;
    UNROLL for (int c = 0; c < CHAINS; c++) sum += chains[c];
    args.sums[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = float(sum);
}
KERNEL void ceilings_f32(FlopArgs args) { multiply_add<float>(args); }
KERNEL void ceilings_f64(FlopArgs args) { multiply_add<double>(args); }
EXPORT(ceilings_f32)
EXPORT(ceilings_f64)

// Tensor cores: an operand full of `factor` by one full of `addend`, added to 16 × 8 sums.
constexpr int TILES = 8;

KERNEL void ceilings_bf16(FlopArgs args) {
    const auto pair = [](float x) {
        return 0x10001u * uint32_t(__bfloat16_as_ushort(__float2bfloat16_rn(x)));
    };
    const uint32_t f = pair(args.factor), g = pair(args.addend);
    const uint32_t a[4] = {f, f, f, f}, b[2] = {g, g};
    float sums[TILES][4];
    UNROLL for (int t = 0; t < TILES; t++) {
        UNROLL for (int i = 0; i < 4; i++) sums[t][i] = float(t);
    }
    for (unsigned long long round = 0; round < args.rounds; round++) {
        UNROLL for (int t = 0; t < TILES; t++) mma_m16n8k16_bf16(sums[t], a, b);
    }
    float sum = 0;
    UNROLL for (int t = 0; t < TILES; t++) {
        UNROLL for (int i = 0; i < 4; i++) sum += sums[t][i];
    }
    args.sums[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}
EXPORT(ceilings_bf16)

struct CopyArgs {
    const float4* from;
    float4* to;
    unsigned long long len, rounds;
};
LAYOUT(CopyArgs, from, to, len, rounds)

// `rounds` copies one after another, bypassing the multiprocessors' own caches. Any grid.
KERNEL void ceilings_copy(CopyArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    for (unsigned long long round = 0; round < args.rounds; round++)
        for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.len; i += threads)
            args.to[i] = __ldcg(args.from + i);
}
EXPORT(ceilings_copy)

#if HOPPER_ONLY
// ---------------------------------------------------------------- sm_90a

constexpr int GROUPS = 2;  // warpgroups of a block, which take turns at the tensor cores
constexpr int ROWS = 64, COLUMNS = 256;
// Products of a warpgroup in a round: the wait for the previous round should not count.
constexpr int PRODUCTS = 16;

struct WgmmaArgs {
    const Bf16* operands;  // [GROUPS · ROWS + COLUMNS, SWIZZLED], swizzled: of each warpgroup its own, then that of all
    float* sums;           // [threads] the sum of a thread's accumulators
    unsigned long long rounds;
};
LAYOUT(WgmmaArgs, operands, sums, rounds)

// Both operands in shared memory, as in the kernels of φe. Their values are given, since toggling bits draw power,
// which lowers the clocks.
KERNEL void __launch_bounds__(GROUPS* WARPGROUP, 1) ceilings_wgmma(WgmmaArgs args) {
    constexpr int COUNT = (GROUPS * ROWS + COLUMNS) * SWIZZLED;
    const Shared<Bf16> operands = shared<Bf16>(0, COUNT);
    const Shared<uint64_t> arrived = shared<uint64_t>(COUNT * sizeof(Bf16), 1);
    if (threadIdx.x == 0) {
        mbarrier_init(arrived.at(0, 1), 1);
        proxy_fence();
        mbarrier_expect(arrived.at(0, 1), COUNT * sizeof(Bf16));
        bulk_copy(operands.at(0, COUNT), args.operands, COUNT * sizeof(Bf16), arrived.at(0, 1));
    }
    __syncthreads();
    mbarrier_wait(arrived.at(0, 1), 0);
    const Bf16* a = operands.at(threadIdx.x / WARPGROUP * ROWS * SWIZZLED, ROWS * SWIZZLED);
    const Bf16* b = operands.at(GROUPS * ROWS * SWIZZLED, COLUMNS * SWIZZLED);
    float sums[COLUMNS / 2];
    UNROLL for (int i = 0; i < COLUMNS / 2; i++) sums[i] = 0;
    accumulators(sums);
    for (unsigned long long round = 0; round < args.rounds; round++) {
        wgmma_fence();
        UNROLL for (int k = 0; k < PRODUCTS; k++)
            wgmma<COLUMNS>(sums, swizzled_operand(a, k % 2), swizzled_operand(b, k % 2));
        wgmma_commit();
        wgmma_wait<1>(sums);
    }
    wgmma_wait<0>(sums);
    float sum = 0;
    UNROLL for (int i = 0; i < COLUMNS / 2; i++) sum += sums[i];
    args.sums[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}
EXPORT(ceilings_wgmma)

// Bulk copies in flight, and numbers in each: 128 KiB hide more than a microsecond.
constexpr int STAGES = 8, PIECE = 4096;

struct BulkArgs {
    const float* from;  // [pieces, PIECE]
    float* sums;        // [threads] of what the last copies brought, its share
    unsigned long long pieces, rounds;
};
LAYOUT(BulkArgs, from, sums, pieces, rounds)

// Pieces one after another into a ring of stages, by one thread; block k starts at piece k. At least one round, which
// is a copy into every stage.
KERNEL void ceilings_bulk(BulkArgs args) {
    const Shared<float> ring = shared<float>(0, STAGES * PIECE);
    const Shared<uint64_t> arrived = shared<uint64_t>(STAGES * PIECE * sizeof(float), STAGES);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) mbarrier_init(arrived.at(stage, 1), 1);
        proxy_fence();
        size_t piece = blockIdx.x % args.pieces;
        for (unsigned long long round = 0; round < args.rounds; round++) {
            for (int stage = 0; stage < STAGES; stage++) {
                if (round > 0) mbarrier_wait(arrived.at(stage, 1), unsigned(round - 1) % 2);
                mbarrier_expect(arrived.at(stage, 1), PIECE * sizeof(float));
                bulk_copy(ring.at(stage * PIECE, PIECE), args.from + piece * PIECE, PIECE * sizeof(float),
                          arrived.at(stage, 1));
                if (++piece == args.pieces) piece = 0;
            }
        }
    }
    __syncthreads();
    float sum = 0;
    for (int stage = 0; stage < STAGES; stage++) {
        mbarrier_wait(arrived.at(stage, 1), unsigned(args.rounds - 1) % 2);
        for (int i = threadIdx.x; i < PIECE; i += blockDim.x) sum += ring[stage * PIECE + i];
    }
    args.sums[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}
EXPORT(ceilings_bulk)
#endif
