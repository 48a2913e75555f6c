// Device memory of the stand-in driver.
//
// Every allocation lies at the end of its own pages, between pages that cannot be accessed, at addresses that are never
// reused: a kernel that reads or writes far outside a buffer, or in a freed one, faults. The bytes of those pages that
// belong to no buffer carry a pattern, by which a write close to a buffer is detected (AddressSanitizer also detects
// reads). Memory initially holds 0xff bytes: NaN, -1.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

class DeviceMemory {
public:
    struct Buffer {
        uintptr_t begin;
        size_t size;
        uintptr_t pages_begin, pages_end;
        bool freed;  // by a call; the memory goes when the stream gets there
        bool pooled;
    };

    // Total bytes that can be allocated.
    size_t limit = size_t(4) << 30;
    size_t used() const { return used_; }

    // Null if the limit or the machine does not allow it.
    Buffer* allocate(size_t size);
    void release(Buffer* buffer);
    void release_all();

    // The buffer that holds `address` or ends there, null if there is none.
    Buffer* find(uintptr_t address);
    // Whether `address` could be device memory.
    bool is_device(uintptr_t address) const { return address - region_ < SIZE; }
    // Whether `size` bytes at `address` lie in one buffer that has not been freed.
    bool holds(uintptr_t address, size_t size);
    // Describes what was written outside a buffer, "" if nothing was; repairs the pattern.
    std::string overrun();
    // Describes the place of `address`, for reports.
    std::string describe(uintptr_t address);

    // The size of the address range.
    static constexpr size_t SIZE = size_t(1) << 40;
    uintptr_t region() const { return region_; }

private:
    uintptr_t region_ = 0, next_ = 0;
    size_t used_ = 0;
    std::map<uintptr_t, Buffer> buffers_;  // by begin
};
