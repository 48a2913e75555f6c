// Kernels with one defect each, and some with none, on which `scripts/sass --selfcheck` tries its checks of code for
// sm_90a. They are never run.
#include "../common/device.cuh"
#include "../common/ptx.cuh"

#include "../common/hopper.cuh"

// More live values than a thread of such a large block has registers.
KERNEL void __launch_bounds__(1024) defect_spill(float* values) {
    float kept[96];
    UNROLL for (int i = 0; i < 96; i++) kept[i] = values[i * 1024 + threadIdx.x];
    __syncthreads();
    UNROLL for (int i = 0; i < 96; i++) values[(95 - i) * 1024 + threadIdx.x] = kept[i] * kept[(i + 1) % 96];
}

// Sums in device memory, each loaded only when the one before is stored.
KERNEL void defect_serial(float4* sums, float add, int pieces) {
    UNROLL for (int i = 0; i < 4; i++) {
        if (i >= pieces) continue;
        float4 sum = sums[i * 128 + threadIdx.x];
        sum.x += add;
        sums[i * 128 + threadIdx.x] = sum;
    }
}

// The same, all loaded first.
KERNEL void sound_sums(float4* sums, float add) {
    float4 old[4];
    UNROLL for (int i = 0; i < 4; i++) old[i] = sums[i * 128 + threadIdx.x];
    UNROLL for (int i = 0; i < 4; i++) {
        old[i].x += add;
        sums[i * 128 + threadIdx.x] = old[i];
    }
}

template <bool EARLY>
DEVICE void product(float* d, uint64_t a, uint64_t b) {
    float sums[32];
    UNROLL for (int i = 0; i < 32; i++) sums[i] = d[i * 128 + threadIdx.x];
    accumulators(sums);
    wgmma_fence();
    wgmma<64>(sums, a, b);
    wgmma_commit();
    if (!EARLY) wgmma_wait<0>(sums);
    UNROLL for (int i = 0; i < 32; i++) d[i * 128 + threadIdx.x] = sums[i];
    if (EARLY) wgmma_wait<0>(sums);
}
KERNEL void __launch_bounds__(128) sound_product(float* d, uint64_t a, uint64_t b) { product<false>(d, a, b); }
// Its sums are used before the wait for them.
KERNEL void __launch_bounds__(128) defect_early(float* d, uint64_t a, uint64_t b) { product<true>(d, a, b); }

// A warpgroup that needs most of the registers that it keeps.
KERNEL void __launch_bounds__(256, 1) defect_registers(float* values) {
    if (threadIdx.x < WARPGROUP) {
        give_registers<40>();
        float kept[28];
        UNROLL for (int i = 0; i < 28; i++) kept[i] = values[i * 1024 + threadIdx.x];
        named_barrier(1, WARPGROUP);
        UNROLL for (int i = 0; i < 28; i++) values[i * 1024 + threadIdx.x] = kept[i] * kept[(i + 1) % 28];
    } else {
        take_registers<200>();
        values[threadIdx.x] = 1;
    }
}

// The last bit depends on whether the product is rounded before the sum.
KERNEL void defect_contracted(float* values, float factor) {
    values[threadIdx.x] = values[threadIdx.x] * factor + 1;
}
