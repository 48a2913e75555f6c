// The state of the stand-in's driver: see libcuda.h.
#include "libcuda.h"

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <set>

namespace driver {

std::mutex mutex;
std::condition_variable changed;
bool initialized = false;
bool late = false;
unsigned capability = 80;
int devices = 1;
Fault fault{"", CUDA_SUCCESS, Fault::NONE};

unsigned retained = 0;
CUresult dead = CUDA_SUCCESS;
CUresult last_death = CUDA_SUCCESS;
std::string cause_of_death;
DeviceMemory memory;
Pool pool;
std::unordered_map<uintptr_t, size_t> pinned;
std::shared_ptr<Stream> null_stream = std::make_shared<Stream>();
std::vector<std::shared_ptr<Stream>> streams;
std::vector<std::shared_ptr<Capture>> captures;
Handles<Stream> stream_handles;
Handles<Event> events;
Handles<Graph> graphs;
Handles<Executable> executables;
Handles<Module> modules;
Handles<Function> functions;

char context;
thread_local void* current = nullptr;
thread_local bool in_host_function = false;

// ---------------------------------------------------------------- errors

const char* kept(const std::string& text) {
    static std::set<std::string> texts;
    return texts.insert(text).first->c_str();
}

thread_local CUresult explained = CUDA_SUCCESS;
thread_local const char* explanation = nullptr;

CUresult error(CUresult code, const char* format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    explained = code;
    explanation = kept(text);
    return code;
}

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

// The queue of a stream on a GPU is finite, too: a call waits when it is full.
constexpr uint64_t QUEUE = 1024;

void enqueue(const std::shared_ptr<Stream>& stream, Operation operation) {
    stream->queue.push_back(std::move(operation));
    stream->submitted++;
}

void order_with_null(const std::shared_ptr<Stream>& stream) {
    if (stream == null_stream) {
        for (const auto& other : streams)
            if (other->blocking && other->done < other->submitted)
                enqueue(stream, {{}, {other, other->submitted}});
    } else if (stream->blocking && null_stream->done < null_stream->submitted) {
        enqueue(stream, {{}, {null_stream, null_stream->submitted}});
    }
}

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

CUresult ready() {
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (in_host_function)
        return error(CUDA_ERROR_NOT_PERMITTED, "a host function calls the driver");
    if (!current || !retained)
        return error(CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context");
    return dead;
}

std::shared_ptr<Stream> stream_of(const void* handle) {
    return handle == nullptr || handle == reinterpret_cast<void*>(1) ? null_stream
                                                                     : stream_handles.get(handle);
}

CUresult no_capture(const char* what) {
    if (captures.empty()) return CUDA_SUCCESS;
    for (const auto& capture : captures) capture->invalid = true;
    return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s while a stream captures", what);
}

CUresult no_strict_capture(const char* what) {
    for (const auto& capture : captures)
        if (capture->mode == GLOBAL ||
            (capture->mode == THREAD_LOCAL && capture->owner == std::this_thread::get_id())) {
            capture->invalid = true;
            return error(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s while a stream captures", what);
        }
    return CUDA_SUCCESS;
}

CUresult check_range(const char* what, CUdeviceptr address, size_t size) {
    if (memory.holds(address, size)) return CUDA_SUCCESS;
    return error(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes of device memory at 0x%llx, which is %s",
                 what, size, address, memory.describe(address).c_str());
}

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

}  // namespace driver
