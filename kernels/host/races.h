// Which accesses of the threads of a block nothing orders, for kernels that are compiled with
// -fsanitize=thread (scripts/emulated --races): simt.cpp and async.cpp say what orders threads and what
// instructions access, the compiler calls races.cpp at each other access.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt.h"

namespace simt::races {

// Whether kernels are compiled like that; without it the functions below do nothing.
extern bool on;
// Where device memory lies.
extern uintptr_t device_begin, device_bytes;

// For each thread: what it did before this is known. Nothing in later intervals between block barriers.
struct Clock {
    uint64_t interval = 0;
    std::vector<uint32_t> of;
};

// A block begins, with threads that know nothing; or its threads meet, and know everything.
void next_interval();
// The running thread lets others know what it has done, by a clock that they take.
void release(Clock& to);
void acquire(const Clock& from);
// `to` knows what `from` does, too.
void join(Clock& to, const Clock& from);
// What threads have done is known to all of them, as after __syncwarp. By lane, null for those that are not there.
void meet(void** threads);
// The running thread reads or writes shared memory by an instruction that the compiler does not see.
void read(const void* address, size_t bytes, const Where& where);
void write(const void* address, size_t bytes, const Where& where);
// Product number `product` of a warpgroup, for which the running thread asks, reads shared memory; products before
// number `end` have read, and the running thread knows it.
void read(unsigned group, size_t product, const void* address, size_t bytes, const Where& where);
void have_read(unsigned group, size_t end);

}  // namespace simt::races
