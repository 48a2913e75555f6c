// What a device can do at most: operations from registers, copies that stay in its cache. Argument
// structs in Rust, launches and tests: src/bench/ceilings/gpu.rs.
#include "common/device.cuh"

struct FlopArgs {
    float* sums;  // [threads] the sum of a thread's chains
    unsigned long long rounds;
    float factor, addend;
};
LAYOUT(FlopArgs, sums, rounds, factor, addend)

// Chains of dependent operations that run side by side: enough to hide their latency. They begin
// differently, so that no compiler makes one of them.
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

// `rounds` copies one after the other, past the multiprocessors' own caches. Any grid.
KERNEL void ceilings_copy(CopyArgs args) {
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    for (unsigned long long round = 0; round < args.rounds; round++)
        for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < args.len; i += threads)
            args.to[i] = __ldcg(args.from + i);
}
EXPORT(ceilings_copy)
