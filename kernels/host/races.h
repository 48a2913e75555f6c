// Finds accesses by the threads of a block that nothing orders, for kernels compiled with -fsanitize=thread
// (scripts/emulated --races): simt.cpp and async.cpp report what orders threads and what instructions access; the
// compiler calls races.cpp at every other access.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt.h"

namespace simt::races {

// Whether kernels are compiled that way; otherwise the functions below do nothing.
extern bool on;
// Where device memory lies.
extern uintptr_t device_begin, device_bytes;

// For each thread: everything it did before this is known. Holds nothing from later intervals between block barriers.
struct Clock {
    uint64_t interval = 0;
    std::vector<uint32_t> of;
};

// A block starts, with threads that know nothing; or its threads meet, and know everything.
void next_interval();
// The running thread publishes what it has done, in a clock that others take.
void release(Clock& to);
void acquire(const Clock& from);
// `to` also knows what `from` does.
void join(Clock& to, const Clock& from);
// Everything the threads have done is known to all of them, as after __syncwarp. By lane, null for missing ones.
void meet(void** threads);
// The running thread reads or writes shared memory with an instruction that the compiler does not see.
void read(const void* address, size_t bytes, const Where& where);
void write(const void* address, size_t bytes, const Where& where);
// Product number `product` of a warpgroup, started by the running thread, reads shared memory; products before number
// `end` have read, and the running thread knows it.
void read(unsigned group, size_t product, const void* address, size_t bytes, const Where& where);
void have_read(unsigned group, size_t end);

}  // namespace simt::races
