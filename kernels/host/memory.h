// Device memory of the stand-in driver.
//
// Every allocation lies at the end of pages of its own, between pages that cannot be touched, at
// addresses that are never used again: a kernel that reads or writes far beside a buffer, or in a
// freed one, faults. The bytes of those pages that belong to no buffer carry a pattern, by which a
// write close to a buffer is found (AddressSanitizer finds the reads too). Contents begin as 0xff
// bytes: NaN, -1.
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

    // Bytes that can be allocated in all.
    size_t limit = size_t(4) << 30;
    size_t used() const { return used_; }

    // Null where the limit or the machine does not allow it.
    Buffer* allocate(size_t size);
    void release(Buffer* buffer);
    void release_all();

    // The buffer that holds `address` or ends there, null where there is none.
    Buffer* find(uintptr_t address);
    // Whether `address` is one that device memory could have.
    bool is_device(uintptr_t address) const { return address - region_ < SIZE; }
    // Whether `size` bytes at `address` lie in one buffer that is not freed.
    bool holds(uintptr_t address, size_t size);
    // What was written beside a buffer, "" where nothing was; repairs the pattern.
    std::string overrun();
    // Where `address` is, for reports.
    std::string describe(uintptr_t address);

    // The addresses that it could have.
    static constexpr size_t SIZE = size_t(1) << 40;
    uintptr_t region() const { return region_; }

private:
    uintptr_t region_ = 0, next_ = 0;
    size_t used_ = 0;
    std::map<uintptr_t, Buffer> buffers_;  // by begin
};
