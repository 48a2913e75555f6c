// Instructions of common/hopper.cuh next to those of CUTLASS, NVIDIA's own library, in pairs of kernels that must
// compile to the same code on sm_90a. Compiled and compared by scripts/witness; never run.
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <cute/numeric/integer_sequence.hpp>
#include <cutlass/arch/barrier.h>
#include <cutlass/arch/reg_reconfig.h>

#include "../common/device.cuh"
#include "../common/hopper.cuh"

using cute::SM90::GMMA::Major;

template <class Product, int... I>
DEVICE void cutlass_product(float* d, uint64_t a, uint64_t b, cute::integer_sequence<int, I...>) {
    Product::fma(a, b, d[I]...);
}

// d += two products, in registers.
#define PRODUCT(N, KIND, MAJOR, TRANSPOSED)                                                            \
    KERNEL void __launch_bounds__(128) ours_product_##N##_##KIND(float* d, uint64_t a, uint64_t b) {   \
        float sums[N / 2];                                                                             \
        UNROLL for (int i = 0; i < N / 2; i++) sums[i] = d[i * 128 + threadIdx.x];                     \
        accumulators(sums);                                                                            \
        wgmma_fence();                                                                                 \
        wgmma<N, TRANSPOSED>(sums, a, b);                                                              \
        wgmma<N, TRANSPOSED>(sums, a + 2, b + 2);                                                      \
        wgmma_commit();                                                                                \
        wgmma_wait<0>(sums);                                                                           \
        UNROLL for (int i = 0; i < N / 2; i++) d[i * 128 + threadIdx.x] = sums[i];                     \
    }                                                                                                  \
    KERNEL void __launch_bounds__(128) cutlass_product_##N##_##KIND(float* d, uint64_t a, uint64_t b) { \
        using Product = cute::SM90::GMMA::MMA_64x##N##x16_F32BF16BF16_SS<Major::MAJOR, Major::MAJOR>;  \
        float sums[N / 2];                                                                             \
        UNROLL for (int i = 0; i < N / 2; i++) sums[i] = d[i * 128 + threadIdx.x];                     \
        UNROLL for (int i = 0; i < N / 2; i++) cute::warpgroup_fence_operand(sums[i]);                 \
        cute::warpgroup_arrive();                                                                      \
        cutlass_product<Product>(sums, a, b, cute::make_integer_sequence<int, N / 2>{});               \
        cutlass_product<Product>(sums, a + 2, b + 2, cute::make_integer_sequence<int, N / 2>{});       \
        cute::warpgroup_commit_batch();                                                                \
        cute::warpgroup_wait<0>();                                                                     \
        UNROLL for (int i = 0; i < N / 2; i++) cute::warpgroup_fence_operand(sums[i]);                 \
        UNROLL for (int i = 0; i < N / 2; i++) d[i * 128 + threadIdx.x] = sums[i];                     \
    }
#define PRODUCTS(N) PRODUCT(N, along, K, false) PRODUCT(N, across, MN, true)
PRODUCTS(32) PRODUCTS(64) PRODUCTS(128) PRODUCTS(192) PRODUCTS(256)

#define PAIR(name, ours, theirs)                                                     \
    KERNEL void __launch_bounds__(384, 1) ours_##name(const float* from, unsigned x) {                         \
        const Shared<uint64_t> bar = shared<uint64_t>(0, 16);                        \
        uint64_t* const barrier = bar.at(x, 1);                                      \
        ours;                                                                        \
        if (x == 1) bar[0] = uint64_t(from) + *barrier;                              \
    }                                                                                \
    KERNEL void __launch_bounds__(384, 1) cutlass_##name(const float* from, unsigned x) {                      \
        const Shared<uint64_t> bar = shared<uint64_t>(0, 16);                        \
        uint64_t* const barrier = bar.at(x, 1);                                      \
        theirs;                                                                      \
        if (x == 1) bar[0] = uint64_t(from) + *barrier;                              \
    }
using cutlass::arch::ClusterBarrier;
using cutlass::arch::ClusterTransactionBarrier;
using cutlass::arch::NamedBarrier;
PAIR(mbarrier_init, mbarrier_init(barrier, 3), ClusterBarrier::init(barrier, 3))
PAIR(mbarrier_arrive, mbarrier_arrive(barrier), ClusterBarrier::arrive(barrier))
PAIR(mbarrier_expect, mbarrier_expect(barrier, x), ClusterTransactionBarrier::arrive_and_expect_tx(barrier, x))
PAIR(mbarrier_wait, mbarrier_wait(barrier, x), while (!ClusterBarrier::try_wait(barrier, x)))
PAIR(bulk_copy, bulk_copy(barrier + 2, from, x, barrier),
     cute::SM90_BULK_COPY_G2S::copy(from, barrier, barrier + 2, int(x)))
PAIR(proxy_fence, proxy_fence(), cutlass::arch::fence_view_async_shared())
PAIR(named_barrier, named_barrier(x + NamedBarrier::ReservedNamedBarrierCount, 128), NamedBarrier::sync(128, x))
PAIR(registers, (take_registers<232>(), give_registers<40>()),
     (cutlass::arch::warpgroup_reg_alloc<232>(), cutlass::arch::warpgroup_reg_dealloc<40>()))
