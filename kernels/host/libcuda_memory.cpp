// Memory of the stand-in's driver, on the device and pinned, copies and fills.
#include "libcuda.h"

using namespace driver;

// ---------------------------------------------------------------- memory

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    READY
    *free = memory.limit - memory.used() - pool.unused();
    *total = memory.limit;
    return CUDA_SUCCESS;
}

// Null if there is no room; what the pool holds is available only to the pool.
static DeviceMemory::Buffer* allocate(size_t size, bool pooled) {
    const size_t held = pooled ? 0 : pool.unused();
    if (size > memory.limit - memory.used() - held) return nullptr;
    DeviceMemory::Buffer* buffer = memory.allocate(size);
    if (!buffer) return nullptr;
    buffer->pooled = pooled;
    if (pooled) {
        pool.used += size;
        pool.reserved = std::max(pool.reserved, pool.used);
    }
    return buffer;
}

CUresult driver::allocate(Lock& lock, DeviceMemory::Buffer** buffer, size_t size, bool pooled) {
    if (!size) return error(CUDA_ERROR_INVALID_VALUE, "an allocation of 0 bytes");
    *buffer = ::allocate(size, pooled);
    if (!*buffer) {  // what is to be freed in a stream may make room
        run_all(lock);
        CHECK(dead);
        *buffer = ::allocate(size, pooled);
    }
    if (!*buffer)
        return error(CUDA_ERROR_OUT_OF_MEMORY,
                     "out of memory: %zu bytes asked for, %zu of %zu free, %zu unused in the pool",
                     size, memory.limit - memory.used() - pool.unused(), memory.limit,
                     pool.unused());
    return CUDA_SUCCESS;
}

void driver::release(DeviceMemory::Buffer* buffer) {
    if (buffer->pooled) pool.used -= buffer->size;
    memory.release(buffer);
}

// The buffer that starts at `pointer`, or null (with an error) if there is none or it has been freed.
static DeviceMemory::Buffer* freeable(CUdeviceptr pointer) {
    DeviceMemory::Buffer* buffer = memory.find(pointer);
    if (buffer && buffer->begin == pointer && !buffer->freed) return buffer;
    error(CUDA_ERROR_INVALID_VALUE, "cannot free device address 0x%llx, which is %s", pointer,
          buffer && buffer->freed ? "in a buffer that has been freed"
                                  : memory.describe(pointer).c_str());
    return nullptr;
}

API cuMemAlloc_v2(CUdeviceptr* pointer, size_t size) {
    READY
    CHECK(no_strict_capture("cuMemAlloc"));
    DeviceMemory::Buffer* buffer;
    CHECK(allocate(lock, &buffer, size, false));
    *pointer = buffer->begin;
    return CUDA_SUCCESS;
}

// Waits for the device, as the real one does.
API cuMemFree_v2(CUdeviceptr pointer) {
    READY
    if (!pointer) return CUDA_SUCCESS;
    CHECK(no_strict_capture("cuMemFree"));
    if (!freeable(pointer)) return CUDA_ERROR_INVALID_VALUE;
    run_all(lock);
    CHECK(dead);
    DeviceMemory::Buffer* buffer = freeable(pointer);
    if (!buffer) return CUDA_ERROR_INVALID_VALUE;
    release(buffer);
    return CUDA_SUCCESS;
}

// The buffer exists from now on; until the stream gets here its contents are undefined, and that shows.
API cuMemAllocAsync(CUdeviceptr* pointer, size_t size, void* handle) {
    READY
    STREAM(handle)
    if (stream->capture)
        return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "an allocation in a capture");
    DeviceMemory::Buffer* buffer;
    CHECK(allocate(lock, &buffer, size, true));
    const CUdeviceptr begin = *pointer = buffer->begin;
    return submit(lock, stream, [=](Lock&) {
        if (memory.find(begin)) memset(bytes(begin), 0xff, size);
    });
}

API cuMemFreeAsync(CUdeviceptr pointer, void* handle) {
    READY
    STREAM(handle)
    if (stream->capture) return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a free in a capture");
    DeviceMemory::Buffer* buffer = freeable(pointer);
    if (!buffer) return CUDA_ERROR_INVALID_VALUE;
    buffer->freed = true;
    return submit(lock, stream, [=](Lock&) { release(buffer); });
}

// ---------------------------------------------------------------- the pool

#define POOL(handle)  \
    Lock lock(mutex); \
    if (handle != &pool) return error(CUDA_ERROR_INVALID_VALUE, "not a memory pool: %p", handle);

API cuDeviceGetMemPool(void** handle, CUdevice device) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    *handle = &pool;
    return CUDA_SUCCESS;
}

API cuMemPoolSetAttribute(void* handle, int attribute, void* value) {
    POOL(handle)
    if (attribute != 4)
        return error(CUDA_ERROR_INVALID_VALUE, "pool attribute %d cannot be set", attribute);
    pool.threshold = *static_cast<uint64_t*>(value);
    return CUDA_SUCCESS;
}

API cuMemPoolGetAttribute(void* handle, int attribute, void* value) {
    POOL(handle)
    auto& number = *static_cast<uint64_t*>(value);
    switch (attribute) {
    case 4: number = pool.threshold; break;
    case 5: number = pool.reserved; break;
    case 7: number = pool.used; break;
    default: return error(CUDA_ERROR_INVALID_VALUE, "pool attribute %d", attribute);
    }
    return CUDA_SUCCESS;
}

API cuMemPoolTrimTo(void* handle, size_t keep) {
    POOL(handle)
    pool.keep(keep);
    return CUDA_SUCCESS;
}

// ---------------------------------------------------------------- pinned memory

API cuMemHostAlloc(void** pointer, size_t size, unsigned flags) {
    READY
    CHECK(no_strict_capture("cuMemHostAlloc"));
    if (!size || flags > 7)
        return error(CUDA_ERROR_INVALID_VALUE, "%zu bytes, flags %u", size, flags);
    *pointer = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    if (!*pointer) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*pointer, 0xff, size);
    pinned[reinterpret_cast<uintptr_t>(*pointer)] = size;
    return CUDA_SUCCESS;
}

// Waits for the device, as the real one does.
API cuMemFreeHost(void* pointer) {
    READY
    CHECK(no_strict_capture("cuMemFreeHost"));
    if (!pinned.contains(reinterpret_cast<uintptr_t>(pointer)))
        return error(CUDA_ERROR_INVALID_VALUE, "%p is not the begin of pinned memory", pointer);
    run_all(lock);
    pinned.erase(reinterpret_cast<uintptr_t>(pointer));
    free(pointer);
    return dead;
}

// ---------------------------------------------------------------- copies and fills

// During a capture only from and to pinned memory, which a graph can read and write later.
static CUresult check_host(const std::shared_ptr<Stream>& stream, const void* pointer,
                           size_t size) {
    if (!pointer) return error(CUDA_ERROR_INVALID_VALUE, "a copy with a null pointer");
    if (!stream->capture || is_pinned(pointer, size)) return CUDA_SUCCESS;
    stream->capture->invalid = true;
    return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                 "a copy of %zu bytes from or to pageable host memory in a capture", size);
}

static CUresult copy_to_device(Lock& lock, const std::shared_ptr<Stream>& stream,
                               CUdeviceptr target, const void* source, size_t size) {
    if (!size) return CUDA_SUCCESS;
    CHECK(check_range("a copy to the device", target, size));
    CHECK(check_host(stream, source, size));
    const auto copy = [=](const void* from) {
        if (exists("a copy to the device was", target, size)) memcpy(bytes(target), from, size);
    };
    if (is_pinned(source, size)) return submit(lock, stream, [=](Lock&) { copy(source); });
    // Pageable memory is read by the call.
    const auto* from = static_cast<const unsigned char*>(source);
    const auto staged = std::make_shared<std::vector<unsigned char>>(from, from + size);
    return submit(lock, stream, [=](Lock&) { copy(staged->data()); });
}

static CUresult copy_to_host(Lock& lock, const std::shared_ptr<Stream>& stream, void* target,
                             CUdeviceptr source, size_t size) {
    if (!size) return CUDA_SUCCESS;
    CHECK(check_range("a copy from the device", source, size));
    CHECK(check_host(stream, target, size));
    CHECK(submit(lock, stream, [=](Lock&) {
        if (exists("a copy from the device was", source, size)) memcpy(target, bytes(source), size);
    }));
    // For pageable memory the call itself copies.
    if (!is_pinned(target, size)) run_until(lock, stream, stream->submitted);
    return dead;
}

static CUresult copy_on_device(Lock& lock, const std::shared_ptr<Stream>& stream,
                               CUdeviceptr target, CUdeviceptr source, size_t size) {
    if (!size) return CUDA_SUCCESS;
    CHECK(check_range("a copy on the device (target)", target, size));
    CHECK(check_range("a copy on the device (source)", source, size));
    return submit(lock, stream, [=](Lock&) {
        if (exists("a copy on the device was", target, size) &&
            exists("a copy on the device was", source, size))
            memmove(bytes(target), bytes(source), size);
    });
}

template <class T>
static CUresult fill(Lock& lock, const std::shared_ptr<Stream>& stream, CUdeviceptr target, T value,
                     size_t count) {
    if (!count) return CUDA_SUCCESS;
    if (target % sizeof(T)) return error(CUDA_ERROR_INVALID_VALUE, "a fill at 0x%llx", target);
    CHECK(check_range("a fill", target, count * sizeof(T)));
    return submit(lock, stream, [=](Lock&) {
        if (exists("a fill was", target, count * sizeof(T)))
            for (size_t i = 0; i < count; i++) reinterpret_cast<T*>(target)[i] = value;
    });
}

// Calls without a stream work in the null stream and wait for it.
static CUresult finish_null(Lock& lock, CUresult result) {
    if (result) return result;
    run_until(lock, null_stream, null_stream->submitted);
    return dead;
}

API cuMemcpyHtoD_v2(CUdeviceptr target, const void* source, size_t size) {
    READY
    CHECK(no_strict_capture("cuMemcpyHtoD"));
    return finish_null(lock, copy_to_device(lock, null_stream, target, source, size));
}
API cuMemcpyDtoH_v2(void* target, CUdeviceptr source, size_t size) {
    READY
    CHECK(no_strict_capture("cuMemcpyDtoH"));
    return finish_null(lock, copy_to_host(lock, null_stream, target, source, size));
}
API cuMemcpyDtoD_v2(CUdeviceptr target, CUdeviceptr source, size_t size) {
    READY
    CHECK(no_strict_capture("cuMemcpyDtoD"));
    return copy_on_device(lock, null_stream, target, source, size);
}
API cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* source, size_t size, void* handle) {
    READY
    STREAM(handle)
    return copy_to_device(lock, stream, target, source, size);
}
API cuMemcpyDtoHAsync_v2(void* target, CUdeviceptr source, size_t size, void* handle) {
    READY
    STREAM(handle)
    return copy_to_host(lock, stream, target, source, size);
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t size, void* handle) {
    READY
    STREAM(handle)
    return copy_on_device(lock, stream, target, source, size);
}
API cuMemsetD8_v2(CUdeviceptr target, unsigned char value, size_t count) {
    READY
    CHECK(no_strict_capture("cuMemsetD8"));
    return fill(lock, null_stream, target, value, count);
}
API cuMemsetD32_v2(CUdeviceptr target, unsigned value, size_t count) {
    READY
    CHECK(no_strict_capture("cuMemsetD32"));
    return fill(lock, null_stream, target, value, count);
}
API cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, void* handle) {
    READY
    STREAM(handle)
    return fill(lock, stream, target, value, count);
}
API cuMemsetD32Async(CUdeviceptr target, unsigned value, size_t count, void* handle) {
    READY
    STREAM(handle)
    return fill(lock, stream, target, value, count);
}
