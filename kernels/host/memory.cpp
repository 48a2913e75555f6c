#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_poison_memory_region(const volatile void* address, size_t size);
extern "C" void __asan_unpoison_memory_region(const volatile void* address, size_t size);
#endif

static constexpr size_t PAGE = 4096, ALIGNMENT = 256;
static constexpr unsigned char PATTERN = 0xa5;

static size_t rounded_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static unsigned char* bytes_at(uintptr_t address) {
    return reinterpret_cast<unsigned char*>(address);
}

DeviceMemory::Buffer* DeviceMemory::allocate(size_t size) {
    if (size > limit || used_ > limit - size) return nullptr;
    if (!region_) {
        void* region =
            mmap(nullptr, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (region == MAP_FAILED) return nullptr;
        region_ = next_ = reinterpret_cast<uintptr_t>(region);
    }
    const size_t pages = rounded_up(size, PAGE);
    if (next_ + PAGE + pages + PAGE > region_ + SIZE) return nullptr;
    Buffer buffer{};
    buffer.size = size;
    buffer.pages_begin = next_ + PAGE;
    buffer.pages_end = buffer.pages_begin + pages;
    buffer.begin = buffer.pages_end - rounded_up(size, ALIGNMENT);
    if (mprotect(bytes_at(buffer.pages_begin), pages, PROT_READ | PROT_WRITE)) return nullptr;
    next_ = buffer.pages_end;
    used_ += size;
    const uintptr_t end = buffer.begin + size;
    memset(bytes_at(buffer.begin), 0xff, size);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(bytes_at(buffer.pages_begin), buffer.begin - buffer.pages_begin);
    __asan_poison_memory_region(bytes_at(end), buffer.pages_end - end);
#else
    memset(bytes_at(buffer.pages_begin), PATTERN, buffer.begin - buffer.pages_begin);
    memset(bytes_at(end), PATTERN, buffer.pages_end - end);
#endif
    return &(buffers_[buffer.begin] = buffer);
}

void DeviceMemory::release(Buffer* buffer) {
    const size_t pages = buffer->pages_end - buffer->pages_begin;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(bytes_at(buffer->pages_begin), pages);
#endif
    mmap(bytes_at(buffer->pages_begin), pages, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    used_ -= buffer->size;
    buffers_.erase(buffer->begin);
}

void DeviceMemory::release_all() {
    while (!buffers_.empty()) release(&buffers_.begin()->second);
}

DeviceMemory::Buffer* DeviceMemory::find(uintptr_t address) {
    auto after = buffers_.upper_bound(address);
    if (after == buffers_.begin()) return nullptr;
    Buffer& buffer = std::prev(after)->second;
    return address <= buffer.begin + buffer.size ? &buffer : nullptr;
}

bool DeviceMemory::holds(uintptr_t address, size_t size) {
    const Buffer* buffer = find(address);
    return buffer && !buffer->freed && size <= buffer->begin + buffer->size - address;
}

std::string DeviceMemory::overrun() {
#if !defined(__SANITIZE_ADDRESS__)
    static const std::vector<unsigned char> untouched(PAGE, PATTERN);
    for (auto& [_, buffer] : buffers_) {
        const uintptr_t end = buffer.begin + buffer.size;
        const auto changed = [](uintptr_t from, uintptr_t to) -> unsigned char* {
            if (!memcmp(bytes_at(from), untouched.data(), to - from)) return nullptr;
            return std::find_if(bytes_at(from), bytes_at(to),
                                [](unsigned char c) { return c != PATTERN; });
        };
        unsigned char* place = changed(buffer.pages_begin, buffer.begin);
        if (!place) place = changed(end, buffer.pages_end);
        if (!place) continue;
        const std::string text = describe(reinterpret_cast<uintptr_t>(place));
        memset(bytes_at(buffer.pages_begin), PATTERN, buffer.begin - buffer.pages_begin);
        memset(bytes_at(end), PATTERN, buffer.pages_end - end);
        return text;
    }
#endif
    return "";
}

std::string DeviceMemory::describe(uintptr_t address) {
    if (!is_device(address)) return "not in device memory";
    // The next buffer above, and the one below.
    const auto above = buffers_.upper_bound(address);
    if (above != buffers_.begin()) {
        const Buffer& buffer = std::prev(above)->second;
        const size_t offset = address - buffer.begin, size = buffer.size;
        if (address < buffer.pages_end + PAGE)
            return "byte " + std::to_string(offset) + " of a buffer of " + std::to_string(size) +
                   " bytes";
    }
    if (above != buffers_.end() && address + PAGE >= above->second.pages_begin)
        return std::to_string(above->second.begin - address) + " bytes before a buffer of " +
               std::to_string(above->second.size) + " bytes";
    return address < next_ ? "in a buffer that has been freed"
                           : "in device memory that was never allocated";
}
