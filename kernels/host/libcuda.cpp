// A libcuda.so.1 without a GPU: the part of the driver API that lawsmith uses through cudarc, on
// device memory of memory.cpp and kernels that simt.cpp runs. Signatures and results as in NVIDIA's
// driver API reference; what differs is said where it differs. A function that is not here is
// missing, and cudarc panics with its name.
//
// An operation (kernel, copy, fill, free, host function, event) goes into the queue of its stream.
// With LAWSMITH_EMULATED_STREAMS=eager the call performs it, with `late` it is performed when
// something waits for it. Errors of a call are returned by the call, with a text; errors of an
// operation kill the context as on a GPU: from then on every call returns that error, until the
// last owner of the primary context releases it (a GPU would want a new process).
#include "driver.h"
#include "memory.h"
#include "simt.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>

#define API extern "C" __attribute__((visibility("default"))) CUresult

namespace {

using Lock = std::unique_lock<std::mutex>;

// ---------------------------------------------------------------- objects

struct Stream;
struct Capture;

// The moment when `number` operations of `stream` are done.
struct Point {
    std::shared_ptr<Stream> stream;
    uint64_t number = 0;
};

struct Operation {
    std::function<void(Lock&)> perform;  // may be empty
    Point after;                         // first; none where its stream is null
};

struct Stream {
    bool blocking = true;  // ordered with the null stream
    std::deque<Operation> queue;
    uint64_t submitted = 0, done = 0;
    bool running = false;  // an OS thread is at its front operation
    std::shared_ptr<Capture> capture;
    size_t lane = 0;  // of the capture
};

struct Event {
    bool timed = true;
    Point recorded;  // none before the first record
    double seconds = 0;
    // Where it was recorded in a capture, else null.
    std::shared_ptr<Capture> capture;
    size_t lane = 0, number = 0;
};

// What a stream captured; after the lane and number of another node, where it waits for one.
struct Node {
    std::function<void(Lock&)> perform;
    size_t after_lane = 0, after_number = 0;
};
struct Graph {
    std::vector<std::vector<Node>> lanes;  // one for each stream that took part, the first began it
};
struct Executable {
    std::shared_ptr<const Graph> graph;
    Point last;  // launch; launches of one executable follow each other
};
enum CaptureMode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };
struct Capture {
    int mode;
    std::thread::id owner;
    bool invalid = false;
    Graph graph;
    std::vector<std::shared_ptr<Stream>> streams;
};

struct Function {
    const simt::Function* code;
    unsigned max_shared = 48 << 10;
};
struct Module {
    std::unordered_map<std::string, std::shared_ptr<Function>> functions;
};

// Objects by the pointer that the program holds.
template <class T>
struct Handles {
    std::unordered_map<const void*, std::shared_ptr<T>> objects;
    void* add(std::shared_ptr<T> object) {
        void* handle = object.get();
        objects[handle] = std::move(object);
        return handle;
    }
    std::shared_ptr<T> get(const void* handle) const {
        const auto found = objects.find(handle);
        return found == objects.end() ? nullptr : found->second;
    }
};

// ---------------------------------------------------------------- state

std::mutex mutex;
std::condition_variable changed;  // a stream stopped running
bool initialized = false;
bool late = false;
unsigned capability = 80;  // ten times that of the device: which kernels are chosen; it runs all

unsigned retained = 0;  // owners of the primary context
CUresult dead = CUDA_SUCCESS;
CUresult last_death = CUDA_SUCCESS;  // of this context or an earlier one
std::string cause_of_death;
DeviceMemory memory;
std::unordered_map<uintptr_t, size_t> pinned;
std::shared_ptr<Stream> null_stream = std::make_shared<Stream>();
std::vector<std::shared_ptr<Stream>> streams;  // with work, whether destroyed or not
std::vector<std::shared_ptr<Capture>> captures;
Handles<Stream> stream_handles;
Handles<Event> events;
Handles<Graph> graphs;
Handles<Executable> executables;
Handles<Module> modules;
Handles<Function> functions;

char context;  // its address is the primary context
thread_local void* current = nullptr;
thread_local bool in_host_function = false;

// ---------------------------------------------------------------- errors

struct Description {
    CUresult code;
    const char *name, *text;
};
constexpr Description DESCRIPTIONS[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS",
     "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
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

// Texts that were handed out stay, since nobody says when they are read.
const char* kept(const std::string& text) {
    static std::set<std::string> texts;
    return texts.insert(text).first->c_str();
}

thread_local CUresult explained = CUDA_SUCCESS;  // the last error that `error` explained here
thread_local const char* explanation = nullptr;

// `code`, with a text for cuGetErrorString. Under the lock.
[[gnu::format(printf, 2, 3)]] CUresult error(CUresult code, const char* format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    explained = code;
    explanation = kept(text);
    return code;
}

// An operation failed.
void die(CUresult code, const std::string& text) {
    if (dead) return;
    dead = last_death = code;
    cause_of_death = text;
}

// ---------------------------------------------------------------- streams

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Performs operations of `stream` until `number` of them are done.
void run_until(Lock& lock, const std::shared_ptr<Stream>& stream, uint64_t number) {
    while (stream->done < number) {
        if (stream->running) {
            changed.wait(lock);
            continue;
        }
        stream->running = true;
        const Operation operation = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (operation.after.stream) run_until(lock, operation.after.stream, operation.after.number);
        if (operation.perform && !dead) operation.perform(lock);
        stream->running = false;
        stream->done++;
        changed.notify_all();
    }
}

void run_all(Lock& lock) {
    // `streams` may grow while the lock is released.
    for (size_t i = 0; i < streams.size(); i++) {
        const std::shared_ptr<Stream> stream = streams[i];
        run_until(lock, stream, stream->submitted);
    }
    run_until(lock, null_stream, null_stream->submitted);
    // Only destroyed streams are not among the handles.
    std::erase_if(streams, [](const auto& stream) {
        return stream->done == stream->submitted && !stream_handles.get(stream.get());
    });
}

// The queue of a stream on a GPU is finite too: a call waits when it is full.
constexpr uint64_t QUEUE = 1024;

void enqueue(const std::shared_ptr<Stream>& stream, Operation operation) {
    stream->queue.push_back(std::move(operation));
    stream->submitted++;
}

// What is added to a stream next comes after what the null stream has, and the other way round.
void order_with_null(const std::shared_ptr<Stream>& stream) {
    if (stream == null_stream) {
        for (const auto& other : streams)
            if (other->blocking && other->done < other->submitted)
                enqueue(stream, {{}, {other, other->submitted}});
    } else if (stream->blocking && null_stream->done < null_stream->submitted) {
        enqueue(stream, {{}, {null_stream, null_stream->submitted}});
    }
}

// Adds work to a stream, or to what it captures.
CUresult submit(Lock& lock, const std::shared_ptr<Stream>& stream,
                std::function<void(Lock&)> perform) {
    if (stream->capture) {
        stream->capture->graph.lanes[stream->lane].push_back({std::move(perform)});
        return CUDA_SUCCESS;
    }
    order_with_null(stream);
    enqueue(stream, {std::move(perform), {}});
    if (!late)
        run_until(lock, stream, stream->submitted);
    else if (stream->submitted - stream->done > QUEUE)
        run_until(lock, stream, stream->submitted - QUEUE);
    return dead;
}

// ---------------------------------------------------------------- checks of a call

// What nearly every call asks first.
CUresult ready() {
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (in_host_function)
        return error(CUDA_ERROR_NOT_PERMITTED, "a host function calls the driver");
    if (!current || !retained)
        return error(CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context");
    return dead;
}
#define READY         \
    Lock lock(mutex); \
    if (const CUresult result = ready()) return result;

std::shared_ptr<Stream> stream_of(const void* handle) {
    return handle == nullptr || handle == reinterpret_cast<void*>(1) ? null_stream
                                                                     : stream_handles.get(handle);
}
#define STREAM(handle)                                                                \
    const std::shared_ptr<Stream> stream = stream_of(handle);                         \
    if (!stream) return error(CUDA_ERROR_INVALID_HANDLE, "not a stream: %p", handle); \
    if (stream->capture && stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;

// Calls that would wait for a stream that captures are errors and end the capture.
CUresult no_capture(const char* what) {
    if (captures.empty()) return CUDA_SUCCESS;
    for (const auto& capture : captures) capture->invalid = true;
    return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s while a stream captures", what);
}
// Calls that may wait for the device are errors under a capture that is not relaxed.
CUresult no_strict_capture(const char* what) {
    for (const auto& capture : captures)
        if (capture->mode == GLOBAL ||
            (capture->mode == THREAD_LOCAL && capture->owner == std::this_thread::get_id())) {
            capture->invalid = true;
            return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s while a stream captures", what);
        }
    return CUDA_SUCCESS;
}
#define CHECK(...) \
    if (const CUresult result = (__VA_ARGS__)) return result;

CUresult check_range(const char* what, CUdeviceptr address, size_t size) {
    if (memory.holds(address, size)) return CUDA_SUCCESS;
    return error(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes of device memory at 0x%llx, which is %s",
                 what, size, address, memory.describe(address).c_str());
}

// Whether the bytes still exist when an operation is performed.
bool exists(const char* what, CUdeviceptr address, size_t size) {
    const DeviceMemory::Buffer* buffer = memory.find(address);
    if (buffer && size <= buffer->begin + buffer->size - address) return true;
    die(CUDA_ERROR_ILLEGAL_ADDRESS,
        std::string(what) + " performed after its buffer was freed in another stream");
    return false;
}

bool is_pinned(const void* pointer, size_t size) {
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    for (const auto& [begin, length] : pinned)
        if (address - begin < length && size <= length - (address - begin)) return true;
    return false;
}

unsigned char* bytes(CUdeviceptr address) { return reinterpret_cast<unsigned char*>(address); }

}  // namespace

// ---------------------------------------------------------------- initialisation, errors, device

API cuInit(unsigned flags) {
    const Lock lock(mutex);
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    if (initialized) return CUDA_SUCCESS;
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
    const auto number = [](const char* name, unsigned long long from, auto& into) {
        const char* text = getenv(name);
        if (!text) return CUDA_SUCCESS;
        char* end;
        const unsigned long long value = strtoull(text, &end, 10);
        if (end == text || *end || value < from)
            return error(CUDA_ERROR_INVALID_VALUE, "%s=%s: not a number from %llu on", name, text,
                         from);
        into = std::remove_reference_t<decltype(into)>(value);
        return CUDA_SUCCESS;
    };
    CHECK(number("LAWSMITH_EMULATED_MEMORY", 0, memory.limit));
    CHECK(number("LAWSMITH_EMULATED_WORKERS", 1, simt::options.workers));
    CHECK(number("LAWSMITH_EMULATED_CAPABILITY", 80, capability));
    initialized = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int* version) {
    *version = 13000;
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

// The text is that of the last such error in this thread, or of the last context's death.
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
    *count = 1;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice* device, int ordinal) {
    const Lock lock(mutex);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (ordinal) return error(CUDA_ERROR_INVALID_DEVICE, "device %d of 1 emulated device", ordinal);
    *device = 0;
    return CUDA_SUCCESS;
}

API cuDeviceGetName(char* name, int size, CUdevice device) {
    if (device) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, size_t(size), "emulated");
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid_v2(void* uuid, CUdevice device) {
    if (device) return CUDA_ERROR_INVALID_DEVICE;
    memcpy(uuid, "lawsmithemulated", 16);
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    if (device) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = memory.limit;
    return CUDA_SUCCESS;
}

API cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    if (device) return CUDA_ERROR_INVALID_DEVICE;
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
    if (device) return CUDA_ERROR_INVALID_DEVICE;
    retained++;
    *handle = &context;
    return CUDA_SUCCESS;
}

// The last one takes everything with it, a death as well.
API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    Lock lock(mutex);
    if (device) return CUDA_ERROR_INVALID_DEVICE;
    if (!retained) return error(CUDA_ERROR_INVALID_CONTEXT, "the primary context has no owner");
    if (--retained) return CUDA_SUCCESS;
    run_all(lock);
    if (retained) return CUDA_SUCCESS;  // again, while the lock was released
    memory.release_all();
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
    return dead;
}

API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    READY
    *least = 0;
    *greatest = -5;
    return CUDA_SUCCESS;
}

// ---------------------------------------------------------------- memory

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    READY
    *free = memory.limit - memory.used();
    *total = memory.limit;
    return CUDA_SUCCESS;
}

static CUresult allocate(Lock& lock, CUdeviceptr* pointer, size_t size) {
    if (!size) return error(CUDA_ERROR_INVALID_VALUE, "an allocation of 0 bytes");
    DeviceMemory::Buffer* buffer = memory.allocate(size);
    if (!buffer) {  // what is to be freed in a stream may make room
        run_all(lock);
        CHECK(dead);
        buffer = memory.allocate(size);
    }
    if (!buffer)
        return error(CUDA_ERROR_OUT_OF_MEMORY,
                     "out of memory: %zu bytes asked for, %zu of %zu free", size,
                     memory.limit - memory.used(), memory.limit);
    *pointer = buffer->begin;
    return CUDA_SUCCESS;
}

// The buffer that begins at `pointer`, null (with an error) where there is none or it was freed.
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
    return allocate(lock, pointer, size);
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
    memory.release(buffer);
    return CUDA_SUCCESS;
}

// The buffer exists from now on; that its contents are undefined until the stream gets here shows.
API cuMemAllocAsync(CUdeviceptr* pointer, size_t size, void* handle) {
    READY
    STREAM(handle)
    if (stream->capture)
        return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "an allocation in a capture");
    CHECK(allocate(lock, pointer, size));
    const CUdeviceptr begin = *pointer;
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
    return submit(lock, stream, [=](Lock&) { memory.release(buffer); });
}

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

// In a capture only from and to pinned memory, which a graph can read and write later.
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
    // Into pageable memory the call itself copies.
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

// ---------------------------------------------------------------- streams and events

static CUresult create_stream(void** handle, unsigned flags) {
    if (flags > 1) return error(CUDA_ERROR_INVALID_VALUE, "a stream with flags %u", flags);
    const auto stream = std::make_shared<Stream>();
    stream->blocking = flags == 0;
    streams.push_back(stream);
    *handle = stream_handles.add(stream);
    return CUDA_SUCCESS;
}

API cuStreamCreate(void** handle, unsigned flags) {
    READY
    return create_stream(handle, flags);
}

API cuStreamCreateWithPriority(void** handle, unsigned flags, int) {
    READY
    return create_stream(handle, flags);
}

// Its work is still done.
API cuStreamDestroy_v2(void* handle) {
    READY
    if (!stream_handles.objects.erase(handle))
        return error(CUDA_ERROR_INVALID_HANDLE, "not a stream: %p", handle);
    return CUDA_SUCCESS;
}

API cuStreamSynchronize(void* handle) {
    READY
    STREAM(handle)
    if (stream->capture) return no_capture("cuStreamSynchronize");
    run_until(lock, stream, stream->submitted);
    return dead;
}

API cuEventCreate(void** handle, unsigned flags) {
    READY
    if (flags > 7) return error(CUDA_ERROR_INVALID_VALUE, "an event with flags %u", flags);
    const auto event = std::make_shared<Event>();
    event->timed = !(flags & 2);
    *handle = events.add(event);
    return CUDA_SUCCESS;
}

#define EVENT(handle)                                        \
    const std::shared_ptr<Event> event = events.get(handle); \
    if (!event) return error(CUDA_ERROR_INVALID_HANDLE, "not an event: %p", handle);

API cuEventDestroy_v2(void* handle) {
    READY
    EVENT(handle)
    events.objects.erase(handle);
    return CUDA_SUCCESS;
}

API cuEventRecord(void* event_handle, void* handle) {
    READY
    STREAM(handle)
    EVENT(event_handle)
    if (stream->capture) {
        event->capture = stream->capture;
        event->lane = stream->lane;
        event->number = stream->capture->graph.lanes[stream->lane].size();
        return CUDA_SUCCESS;
    }
    event->capture = nullptr;
    const CUresult result = submit(lock, stream, [=](Lock&) { event->seconds = now(); });
    event->recorded = {stream, stream->submitted};
    return result;
}

API cuEventSynchronize(void* handle) {
    READY
    EVENT(handle)
    if (event->capture) return error(CUDA_ERROR_CAPTURED_EVENT, "a wait for an event of a capture");
    const Point point = event->recorded;
    if (point.stream) run_until(lock, point.stream, point.number);
    return dead;
}

// A late stream makes one step for each question, so that a loop that asks comes to an end.
API cuEventQuery(void* handle) {
    READY
    EVENT(handle)
    if (event->capture)
        return error(CUDA_ERROR_CAPTURED_EVENT, "a question to an event of a capture");
    const Point point = event->recorded;
    if (!point.stream || point.stream->done >= point.number) return CUDA_SUCCESS;
    run_until(lock, point.stream, point.stream->done + 1);
    return dead ? dead : CUDA_ERROR_NOT_READY;
}

API cuEventElapsedTime_v2(float* milliseconds, void* begin, void* end) {
    READY
    const std::shared_ptr<Event> from = events.get(begin), to = events.get(end);
    if (!from || !to || !from->timed || !to->timed || !from->recorded.stream ||
        !to->recorded.stream)
        return error(CUDA_ERROR_INVALID_HANDLE,
                     "the time between events that were not recorded with timing");
    for (const auto& event : {from, to})
        if (event->recorded.stream->done < event->recorded.number) return CUDA_ERROR_NOT_READY;
    *milliseconds = float(1e3 * (to->seconds - from->seconds));
    return CUDA_SUCCESS;
}

// A stream that waits for an event of a capture takes part in it.
API cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
    READY
    STREAM(handle)
    EVENT(event_handle)
    if (event->capture) {
        const std::shared_ptr<Capture> capture = event->capture;
        const bool active = std::find(captures.begin(), captures.end(), capture) != captures.end();
        if (!active || stream == null_stream)
            return error(CUDA_ERROR_CAPTURED_EVENT, "a wait for an event of a capture");
        if (stream->capture && stream->capture != capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
        if (!stream->capture) {
            stream->capture = capture;
            stream->lane = capture->graph.lanes.size();
            capture->graph.lanes.emplace_back();
            capture->streams.push_back(stream);
        }
        capture->graph.lanes[stream->lane].push_back({{}, event->lane, event->number});
        return CUDA_SUCCESS;
    }
    if (!event->recorded.stream) return CUDA_SUCCESS;
    if (stream->capture) {
        stream->capture->invalid = true;
        return error(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                     "a capture waits for an event that was recorded outside of it");
    }
    enqueue(stream, {{}, event->recorded});
    if (!late) run_until(lock, stream, stream->submitted);
    return dead;
}

API cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
    READY
    STREAM(handle)
    if (!function) return error(CUDA_ERROR_INVALID_VALUE, "a host function that is null");
    return submit(lock, stream, [=](Lock& lock) {
        lock.unlock();
        in_host_function = true;
        function(data);
        in_host_function = false;
        lock.lock();
    });
}

// ---------------------------------------------------------------- modules and kernels

// Any image: the kernels are in this library.
API cuModuleLoadData(void** handle, const void* image) {
    READY
    if (!image) return error(CUDA_ERROR_INVALID_VALUE, "a module image that is null");
    *handle = modules.add(std::make_shared<Module>());
    return CUDA_SUCCESS;
}

API cuModuleUnload(void* handle) {
    READY
    const std::shared_ptr<Module> module = modules.get(handle);
    if (!module) return error(CUDA_ERROR_INVALID_HANDLE, "not a module: %p", handle);
    for (const auto& [_, function] : module->functions) functions.objects.erase(function.get());
    modules.objects.erase(handle);
    return CUDA_SUCCESS;
}

API cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
    READY
    const std::shared_ptr<Module> module = modules.get(module_handle);
    if (!module) return error(CUDA_ERROR_INVALID_HANDLE, "not a module: %p", module_handle);
    std::shared_ptr<Function>& function = module->functions[name];
    if (!function) {
        const simt::Function* code = simt::functions;
        while (code && strcmp(code->name, name)) code = code->next;
        if (!code) {
            module->functions.erase(name);
            return error(CUDA_ERROR_NOT_FOUND, "no kernel %s (is it exported by EXPORT?)", name);
        }
        function = std::make_shared<Function>(Function{code});
        functions.add(function);
    }
    *handle = function.get();
    return CUDA_SUCCESS;
}

#define FUNCTION(handle)                                              \
    const std::shared_ptr<Function> function = functions.get(handle); \
    if (!function) return error(CUDA_ERROR_INVALID_HANDLE, "not a kernel: %p", handle);

API cuFuncSetAttribute(void* handle, int attribute, int value) {
    READY
    FUNCTION(handle)
    switch (attribute) {
    case 8:  // dynamic shared memory, at most
        if (value < 0 || value > 227 << 10)
            return error(CUDA_ERROR_INVALID_VALUE, "kernel %s: %d bytes of dynamic shared memory",
                         function->code->name, value);
        function->max_shared = unsigned(value);
        return CUDA_SUCCESS;
    case 9:  // how the first cache is split
        return CUDA_SUCCESS;
    default:
        return error(CUDA_ERROR_INVALID_VALUE, "function attribute %d cannot be set", attribute);
    }
}

API cuFuncGetAttribute(int* value, int attribute, void* handle) {
    READY
    FUNCTION(handle)
    switch (attribute) {
    case 0: *value = 1024; break;  // threads of a block, at most
    case 1:
    case 2:
    case 3: *value = 0; break;   // static shared, constant, local memory
    case 4: *value = 32; break;  // registers
    case 5:
    case 6: *value = 80; break;                         // version of PTX and of the code
    case 8: *value = int(function->max_shared); break;  // dynamic shared memory, at most
    default: return error(CUDA_ERROR_INVALID_VALUE, "function attribute %d", attribute);
    }
    return CUDA_SUCCESS;
}

// By threads and shared memory; registers do not exist here.
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* handle, int threads,
                                                size_t shared) {
    READY
    FUNCTION(handle)
    if (threads <= 0 || threads > 1024)
        return error(CUDA_ERROR_INVALID_VALUE, "blocks of %d threads", threads);
    const size_t by_threads = 2048 / (size_t(threads + 31) / 32 * 32);
    const size_t by_shared = (228u << 10) / (shared + 1024);
    *blocks =
        shared > function->max_shared ? 0 : int(std::min<size_t>({32, by_threads, by_shared}));
    return CUDA_SUCCESS;
}

namespace {
// A launch with its arguments, which the call copies.
struct Launch {
    std::shared_ptr<Function> function;
    dim3 grid, block;
    unsigned shared;
    std::vector<std::vector<uint64_t>> arguments;

    const char* name() const { return function->code->name; }

    // A pointer among the arguments to device memory that is not there, "" where there is none.
    // Every word that has a device address counts; nothing else has such bits but by a rare
    // accident.
    std::string stray_pointer(bool freed_counts) const {
        for (unsigned i = 0; i < function->code->arguments; i++)
            for (size_t word = 0; word < function->code->argument_sizes[i] / 8; word++) {
                const uint64_t address = arguments[i][word];
                if (!memory.is_device(address)) continue;
                const DeviceMemory::Buffer* buffer = memory.find(address);
                if (buffer && !(freed_counts && buffer->freed)) continue;
                return "kernel " + std::string(name()) + ": the pointer at byte " +
                       std::to_string(8 * word) + " of argument " + std::to_string(i) + " is " +
                       (buffer ? "in a buffer that has been freed" : memory.describe(address));
            }
        return "";
    }

    void operator()(Lock& lock) const {
        if (const std::string text = stray_pointer(false); !text.empty())
            return die(CUDA_ERROR_ILLEGAL_ADDRESS, text);
        std::vector<void*> pointers;
        for (const auto& argument : arguments)
            pointers.push_back(const_cast<uint64_t*>(argument.data()));
        simt::Failure failure;
        lock.unlock();
        const bool good = simt::run(*function->code, grid, block, shared, pointers.data(), failure);
        lock.lock();
        if (!good) {
            std::string text = failure.text;
            if (failure.code == CUDA_ERROR_ILLEGAL_ADDRESS)
                text += ", " + memory.describe(failure.address);
            die(CUresult(failure.code), text);
        } else if (const std::string place = memory.overrun(); !place.empty()) {
            die(CUDA_ERROR_ILLEGAL_ADDRESS,
                "kernel " + std::string(name()) + " has written to " + place);
        }
    }
};
}  // namespace

API cuLaunchKernel(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   void* handle, void** arguments, void** extra) {
    READY
    STREAM(handle)
    FUNCTION(kernel)
    const char* name = function->code->name;
    if (!grid_x || !grid_y || !grid_z || grid_x > 0x7fffffff || grid_y > 65535 || grid_z > 65535)
        return error(CUDA_ERROR_INVALID_VALUE, "kernel %s: a grid of (%u,%u,%u) blocks", name,
                     grid_x, grid_y, grid_z);
    if (!block_x || !block_y || !block_z || block_x > 1024 || block_y > 1024 || block_z > 64 ||
        block_x * block_y * block_z > 1024)
        return error(CUDA_ERROR_INVALID_VALUE, "kernel %s: blocks of (%u,%u,%u) threads", name,
                     block_x, block_y, block_z);
    if (shared > function->max_shared)
        return error(
            CUDA_ERROR_INVALID_VALUE,
            "kernel %s: %u bytes of dynamic shared memory, more than the %u of its attribute", name,
            shared, function->max_shared);
    if (extra || (function->code->arguments && !arguments))
        return error(CUDA_ERROR_INVALID_VALUE, "kernel %s: arguments only by pointers to each",
                     name);
    Launch launch{function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, {}};
    for (unsigned i = 0; i < function->code->arguments; i++) {
        const size_t size = function->code->argument_sizes[i];
        launch.arguments.emplace_back((size + 15) / 16 * 2);
        memcpy(launch.arguments.back().data(), arguments[i], size);
    }
    if (const std::string text = launch.stray_pointer(true); !text.empty())
        return error(CUDA_ERROR_INVALID_VALUE, "%s", text.c_str());
    return submit(lock, stream, std::move(launch));
}

// ---------------------------------------------------------------- capture and graphs

API cuStreamBeginCapture_v2(void* handle, int mode) {
    READY
    STREAM(handle)
    if (mode < GLOBAL || mode > RELAXED)
        return error(CUDA_ERROR_INVALID_VALUE, "capture mode %d", mode);
    if (stream == null_stream)
        return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the null stream cannot be captured");
    if (stream->capture) return error(CUDA_ERROR_ILLEGAL_STATE, "the stream captures already");
    const auto capture = std::make_shared<Capture>();
    capture->mode = mode;
    capture->owner = std::this_thread::get_id();
    capture->graph.lanes.emplace_back();
    capture->streams.push_back(stream);
    stream->capture = capture;
    stream->lane = 0;
    captures.push_back(capture);
    return CUDA_SUCCESS;
}

API cuStreamIsCapturing(void* handle, int* status) {
    READY
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (!stream) return error(CUDA_ERROR_INVALID_HANDLE, "not a stream: %p", handle);
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return CUDA_SUCCESS;
}

// Whether the end of the first lane comes after everything in the others.
static bool joined(const Graph& graph) {
    std::vector<size_t> reached(graph.lanes.size(), 0), seen(graph.lanes.size(), 0);
    reached[0] = graph.lanes[0].size();
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t lane = 0; lane < graph.lanes.size(); lane++)
            for (; seen[lane] < reached[lane]; seen[lane]++, changed = true) {
                const Node& node = graph.lanes[lane][seen[lane]];
                reached[node.after_lane] = std::max(reached[node.after_lane], node.after_number);
            }
    }
    for (size_t lane = 0; lane < graph.lanes.size(); lane++)
        if (reached[lane] < graph.lanes[lane].size()) return false;
    return true;
}

API cuStreamEndCapture(void* handle, void** graph) {
    READY
    *graph = nullptr;
    const std::shared_ptr<Stream> stream = stream_of(handle);
    if (!stream) return error(CUDA_ERROR_INVALID_HANDLE, "not a stream: %p", handle);
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return error(CUDA_ERROR_ILLEGAL_STATE, "the stream does not capture");
    if (stream->lane) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (capture->mode != RELAXED && capture->owner != std::this_thread::get_id())
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    for (const auto& member : capture->streams) member->capture = nullptr;
    std::erase(captures, capture);
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (!joined(capture->graph)) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    *graph = graphs.add(std::make_shared<Graph>(std::move(capture->graph)));
    return CUDA_SUCCESS;
}

API cuGraphDestroy(void* handle) {
    READY
    return graphs.objects.erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long) {
    READY
    const std::shared_ptr<Graph> graph = graphs.get(handle);
    if (!graph) return error(CUDA_ERROR_INVALID_VALUE, "not a graph: %p", handle);
    *executable = executables.add(std::make_shared<Executable>(Executable{graph, {}}));
    return CUDA_SUCCESS;
}

API cuGraphExecDestroy(void* handle) {
    READY
    return executables.objects.erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

#define EXECUTABLE(handle)                                                  \
    const std::shared_ptr<Executable> executable = executables.get(handle); \
    if (!executable) return error(CUDA_ERROR_INVALID_VALUE, "not an executable graph: %p", handle);

API cuGraphUpload(void* handle, void* stream_handle) {
    READY
    STREAM(stream_handle)
    EXECUTABLE(handle)
    return CUDA_SUCCESS;
}

// The first lane goes into the stream, every other into a stream that lives for this launch.
API cuGraphLaunch(void* handle, void* stream_handle) {
    READY
    STREAM(stream_handle)
    EXECUTABLE(handle)
    if (stream->capture)
        return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the launch of a graph in a capture");
    order_with_null(stream);
    if (executable->last.stream) enqueue(stream, {{}, executable->last});
    const auto& lanes = executable->graph->lanes;
    std::vector<Point> begins{{stream, stream->submitted}};
    for (size_t lane = 1; lane < lanes.size(); lane++) {
        begins.push_back({std::make_shared<Stream>(), 0});
        begins.back().stream->blocking = false;
        streams.push_back(begins.back().stream);
    }
    for (size_t lane = 0; lane < lanes.size(); lane++)
        for (const Node& node : lanes[lane]) {
            const Point& other = begins[node.after_lane];
            enqueue(
                begins[lane].stream,
                {node.perform,
                 node.perform ? Point{} : Point{other.stream, other.number + node.after_number}});
        }
    executable->last = {stream, stream->submitted};
    if (!late) run_until(lock, stream, stream->submitted);
    return dead;
}

// ---------------------------------------------------------------- for tests

// The layout of an argument struct: field `index` - 1 of `name`, or with index 0 the struct itself.
// 0 when found, 2 when kernels disagree about the struct.
extern "C" __attribute__((visibility("default"))) int lawsmith_layout(
    const char* name, unsigned index, const char** field, size_t* offset, size_t* size) {
    const simt::Layout* found = nullptr;
    for (const simt::Layout* layout = simt::layouts; layout; layout = layout->next) {
        if (strcmp(layout->name, name)) continue;
        const auto same = [](const simt::Field& a, const simt::Field& b) {
            return !strcmp(a.name, b.name) && a.offset == b.offset && a.size == b.size;
        };
        if (found && (found->size != layout->size ||
                      !std::equal(found->fields.begin(), found->fields.end(),
                                  layout->fields.begin(), layout->fields.end(), same)))
            return 2;
        found = layout;
    }
    if (!found || index > found->fields.size()) return 1;
    const simt::Field whole{found->name, 0, found->size};
    const simt::Field& entry = index ? found->fields[index - 1] : whole;
    *field = entry.name;
    *offset = entry.offset;
    *size = entry.size;
    return 0;
}
