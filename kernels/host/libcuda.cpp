// A libcuda.so.1 without a GPU: the part of the driver API that lawsmith uses through cudarc, with device memory from
// memory.cpp and kernels run by simt.cpp. Signatures and results as in NVIDIA's driver API reference; differences are
// noted where they occur. Functions not implemented here are missing, and cudarc panics with their name.
//
// An operation (kernel, copy, fill, free, host function, event) goes into the queue of its stream. With
// LAWSMITH_EMULATED_STREAMS=eager the call performs it; with `late` it is performed when something waits for it. Errors
// of a call are returned by the call, with a text; errors of an operation kill the context as on a GPU: from then on
// every call returns that error, until the last owner of the primary context releases it (a GPU would need a new
// process).
//
// This file: errors, the device, the context. Memory, streams and launches have their own files; what they share is in
// libcuda.h.
#include "libcuda.h"

#include <cstdlib>

using namespace driver;

namespace {

struct Description {
    CUresult code;
    const char *name, *text;
};
constexpr Description DESCRIPTIONS[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_STUB_LIBRARY, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE",
     "CUDA-capable device(s) is/are busy or unavailable"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {CUDA_ERROR_OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM",
     "OS call failed or operation not supported on this OS"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS",
     "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {CUDA_ERROR_SYSTEM_NOT_READY, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
     "forward compatibility was attempted on non supported HW"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "operation would result in a merge of separate capture sequences"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not ended in the same stream as it began"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capturing stream has unjoined work"},
    {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

// Sets `into` if the variable exists.
template <class T>
CUresult number(const char* name, unsigned long long from, T& into) {
    const char* text = getenv(name);
    if (!text) return CUDA_SUCCESS;
    char* end;
    const unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || value < from)
        return error(CUDA_ERROR_INVALID_VALUE, "%s=%s: not a number from %llu on", name, text,
                     from);
    into = T(value);
    return CUDA_SUCCESS;
}

int version = 13000;

// How many devices of a list a program sees: those before the first that does not exist. A name that is not a number
// identifies a device (GPU-…, MIG-…).
int visible(const char* list, int there) {
    int count = 0;
    while (*list) {
        const bool named = !strncmp(list, "GPU-", 4) || !strncmp(list, "MIG-", 4);
        char* end;
        const long ordinal = named ? 0 : strtol(list, &end, 10);
        if (!named && (end == list || ordinal < 0 || ordinal >= there)) break;
        count++;
        list = strchr(list, ',');
        if (!list++) break;
    }
    return count;
}

constexpr Fault FAULTS[] = {
    {"stub", CUDA_ERROR_STUB_LIBRARY, Fault::VERSION},
    {"no-device", CUDA_ERROR_NO_DEVICE, Fault::INIT},
    {"no-permission", CUDA_ERROR_OPERATING_SYSTEM, Fault::INIT},
    {"not-ready", CUDA_ERROR_SYSTEM_NOT_READY, Fault::INIT},
    {"mismatch", CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, Fault::INIT},
    {"compat", CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, Fault::INIT},
    {"exclusive", CUDA_ERROR_DEVICE_UNAVAILABLE, Fault::RETAIN},
    {"prohibited", CUDA_ERROR_DEVICE_UNAVAILABLE, Fault::RETAIN},
    {"old-ptx", CUDA_ERROR_UNSUPPORTED_PTX_VERSION, Fault::LOAD},
};

// The settings in the environment; read on first use, which is before cuInit.
CUresult set_up() {
    static bool done = false;
    if (done) return CUDA_SUCCESS;
    if (const char* text = getenv("LAWSMITH_EMULATED_DRIVER")) {
        const Fault* found = std::find_if(std::begin(FAULTS), std::end(FAULTS),
                                          [&](const Fault& f) { return !strcmp(f.name, text); });
        if (found == std::end(FAULTS))
            return error(CUDA_ERROR_INVALID_VALUE, "LAWSMITH_EMULATED_DRIVER=%s: no such fault",
                         text);
        fault = *found;
    }
    CHECK(number("LAWSMITH_EMULATED_VERSION", 1000, version));
    CHECK(number("LAWSMITH_EMULATED_DEVICES", 1, devices));
    if (const char* text = getenv("CUDA_VISIBLE_DEVICES")) devices = visible(text, devices);
    done = true;
    return CUDA_SUCCESS;
}

}  // namespace

// ---------------------------------------------------------------- initialisation, errors, device

API cuInit(unsigned flags) {
    const Lock lock(mutex);
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    if (initialized) return CUDA_SUCCESS;
    CHECK(set_up());
    if (fault.call == Fault::VERSION || fault.call == Fault::INIT) return fault.code;
    if (!devices) return CUDA_ERROR_NO_DEVICE;
    if (const char* text = getenv("LAWSMITH_EMULATED_SCHEDULE"))
        if (!simt::parse_schedule(text, simt::options))
            return error(CUDA_ERROR_INVALID_VALUE,
                         "LAWSMITH_EMULATED_SCHEDULE=%s: not forward, reverse, random, greedy, "
                         "greedy-reverse or greedy-random, with or without :seed",
                         text);
    if (const char* text = getenv("LAWSMITH_EMULATED_STREAMS")) {
        if (strcmp(text, "eager") && strcmp(text, "late"))
            return error(CUDA_ERROR_INVALID_VALUE,
                         "LAWSMITH_EMULATED_STREAMS=%s: neither eager nor late", text);
        late = !strcmp(text, "late");
    }
    CHECK(number("LAWSMITH_EMULATED_MEMORY", 0, memory.limit));
    CHECK(number("LAWSMITH_EMULATED_WORKERS", 1, simt::options.workers));
    CHECK(number("LAWSMITH_EMULATED_CAPABILITY", 50, capability));
    initialized = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int* number) {
    const Lock lock(mutex);
    CHECK(set_up());
    if (fault.call == Fault::VERSION) return fault.code;
    *number = version;
    return CUDA_SUCCESS;
}

API cuGetErrorName(CUresult code, const char** name) {
    for (const Description& description : DESCRIPTIONS)
        if (description.code == code) {
            *name = description.name;
            return CUDA_SUCCESS;
        }
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

// The text of the last such error in this thread, or of the last context's death.
API cuGetErrorString(CUresult code, const char** text) {
    const Lock lock(mutex);
    if (code && code == last_death) {
        *text = kept(cause_of_death);
        return CUDA_SUCCESS;
    }
    if (code && code == explained) {
        *text = explanation;
        return CUDA_SUCCESS;
    }
    for (const Description& description : DESCRIPTIONS)
        if (description.code == code) {
            *text = description.text;
            return CUDA_SUCCESS;
        }
    *text = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

API cuDeviceGetCount(int* count) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    *count = devices;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice* device, int ordinal) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= devices)
        return error(CUDA_ERROR_INVALID_DEVICE, "device %d of %d emulated", ordinal, devices);
    *device = ordinal;
    return CUDA_SUCCESS;
}

API cuDeviceGetName(char* name, int size, CUdevice device) {
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    const char* text = getenv("LAWSMITH_EMULATED_NAME");
    snprintf(name, size_t(size), "%s", text ? text : "emulated");
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid_v2(void* uuid, CUdevice device) {
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    memcpy(uuid, "lawsmithemulated", 16);
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = memory.limit;
    return CUDA_SUCCESS;
}

API cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
    case 1: *value = 1024; break;  // threads of a block
    case 2:
    case 3: *value = 1024; break;        // its x, y
    case 4: *value = 64; break;          // its z
    case 5: *value = 0x7fffffff; break;  // blocks of a grid, x
    case 6:
    case 7: *value = 65535; break;      // y, z
    case 8: *value = 48 << 10; break;   // shared memory of a block
    case 10: *value = 32; break;        // threads of a warp
    case 12: *value = 65536; break;     // registers of a block
    case 16: *value = 132; break;       // multiprocessors
    case 19: *value = 1; break;         // can map host memory
    case 20:                            // compute mode
        *value = strcmp(fault.name, "exclusive") ? strcmp(fault.name, "prohibited") ? 0 : 2 : 3;
        break;
    case 38: *value = 50 << 20; break;  // bytes of the second cache
    case 39: *value = 2048; break;      // threads of a multiprocessor
    case 40: *value = 2; break;         // copies at the same time
    case 41: *value = 1; break;         // one address space
    case 75: *value = int(capability / 10); break;  // compute capability
    case 76: *value = int(capability % 10); break;
    case 81: *value = 228 << 10; break;  // shared memory of a multiprocessor
    case 97: *value = 227 << 10; break;  // of a block, on request
    case 106: *value = 32; break;        // blocks of a multiprocessor
    case 111: *value = 1 << 10; break;   // shared memory that each block loses
    case 115: *value = 1; break;         // cuMemAllocAsync
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

// ---------------------------------------------------------------- context

API cuDevicePrimaryCtxRetain(void** handle, CUdevice device) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    if (fault.call == Fault::RETAIN) return fault.code;
    retained++;
    *handle = &context;
    return CUDA_SUCCESS;
}

// The last release destroys everything, and also clears a death.
API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    Lock lock(mutex);
    if (device < 0 || device >= devices) return CUDA_ERROR_INVALID_DEVICE;
    if (!retained) return error(CUDA_ERROR_INVALID_CONTEXT, "the primary context has no owner");
    if (--retained) return CUDA_SUCCESS;
    run_all(lock);
    if (retained) return CUDA_SUCCESS;  // again, while the lock was released
    memory.release_all();
    pool = {};
    for (const auto& [address, _] : pinned) free(reinterpret_cast<void*>(address));
    pinned.clear();
    streams.clear();
    captures.clear();
    stream_handles.objects.clear();
    events.objects.clear();
    graphs.objects.clear();
    executables.objects.clear();
    modules.objects.clear();
    functions.objects.clear();
    dead = CUDA_SUCCESS;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(void** handle) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    *handle = current;
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(void* handle) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (handle && (handle != &context || !retained))
        return error(CUDA_ERROR_INVALID_CONTEXT, "not the primary context: %p", handle);
    current = handle;
    return CUDA_SUCCESS;
}

API cuCtxSetFlags(unsigned) {
    READY
    return CUDA_SUCCESS;
}

API cuCtxSynchronize() {
    READY
    CHECK(no_capture("cuCtxSynchronize"));
    run_all(lock);
    pool.settle();
    return dead;
}

API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    READY
    *least = 0;
    *greatest = -5;
    return CUDA_SUCCESS;
}
