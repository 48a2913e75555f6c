// The asynchronous units of an sm_90a multiprocessor: barriers in shared memory that count threads and bytes, bulk
// copies, and warpgroup products. Their work happens between the instruction that starts it and the one that waits for
// it, early or late depending on the schedule.
//
// They access shared memory through a proxy of their own: writes of threads are not visible to them until those threads
// execute a proxy fence. Here they have a copy of shared memory. Threads record which pieces of shared memory they
// address, and a fence brings these pieces to the copy; what is not fenced stays NaN, or keeps its old value.
#pragma once
#include "simt.h"

namespace simt {

// A barrier for `count` arrivals per phase. From a block's first one on, accesses are recorded.
void mbarrier_init(void* barrier, unsigned count, const Where& where);
// One arrival, which also makes the phase wait for `bytes` more.
void mbarrier_arrive(void* barrier, unsigned bytes, const char* what, const Where& where);
// Waits for the end of the phase with this parity.
void mbarrier_wait(void* barrier, unsigned parity, const Where& where);

// The target is NaN until the barrier's phase is complete.
void bulk_copy(void* target, const void* source, unsigned bytes, void* barrier, const Where& where);

void proxy_fence();

// The place of element `i` of a thread's accumulators in the 64 × n results of its warpgroup.
struct Place {
    int row, column;
};
using PlaceOf = Place (*)(int thread, int i);

// d[64 × n] += a[64 × 16] · b[n × 16]ᵀ by the 128 threads of a warpgroup, with bf16 from shared memory as given by the
// descriptors; transposed: a[16 × 64]ᵀ · b[16 × n]. The accumulators are NaN until a wait covers the product.
void wgmma(float* d, unsigned n, uint64_t a, uint64_t b, bool transposed, PlaceOf place, const Where& where);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(unsigned youngest, const Where& where);

// Waits for `count` threads of the block that name the same barrier.
void named_barrier(unsigned id, unsigned count, const Where& where);

void set_registers(unsigned count, const Where& where);

}  // namespace simt

// Four additions, each of them atomic, as on sm_90.
inline float4 atomicAdd(float4* target, float4 value) {
    return {atomicAdd(&target->x, value.x), atomicAdd(&target->y, value.y), atomicAdd(&target->z, value.z),
            atomicAdd(&target->w, value.w)};
}
