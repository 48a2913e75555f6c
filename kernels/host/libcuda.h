// Shared by the files of the stand-in's driver (libcuda*.cpp): its objects, its state under one lock, and how
// operations get into streams and out of them.
#pragma once
#include "driver.h"
#include "memory.h"
#include "simt.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) CUresult

namespace driver {

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
    // The capture in which it was recorded, or null.
    std::shared_ptr<Capture> capture;
    size_t lane = 0, number = 0;
};

// What a stream captured; it follows the lane and number of another node, if it waits for one.
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
    DeviceMemory::Buffer* code;
};

// Memory for stream-ordered allocations. Its unused part is released when the pool is trimmed, and beyond the threshold
// whenever somebody waits for the device.
struct Pool {
    size_t threshold = 0, reserved = 0, used = 0;

    size_t unused() const { return reserved - used; }
    void keep(size_t bytes) { reserved = std::max(used, std::min(reserved, bytes)); }
    void settle() { keep(threshold); }
};

// A fault of the driver, named by LAWSMITH_EMULATED_DRIVER, and the call that has it.
struct Fault {
    enum Call { NONE, VERSION, INIT, RETAIN, LOAD };
    const char* name;
    CUresult code;
    Call call;
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

extern std::mutex mutex;
extern std::condition_variable changed;  // a stream stopped running
extern bool initialized;
extern bool late;
extern unsigned capability;  // ten times that of the device: which kernels are chosen; it runs all
extern int devices;          // that programs see; all are one, under several numbers
extern Fault fault;

extern unsigned retained;  // owners of the primary context
extern CUresult dead;
extern CUresult last_death;  // of this context or an earlier one
extern std::string cause_of_death;
extern DeviceMemory memory;
extern Pool pool;
extern std::unordered_map<uintptr_t, size_t> pinned;
extern std::shared_ptr<Stream> null_stream;
extern std::vector<std::shared_ptr<Stream>> streams;  // with work, whether destroyed or not
extern std::vector<std::shared_ptr<Capture>> captures;
extern Handles<Stream> stream_handles;
extern Handles<Event> events;
extern Handles<Graph> graphs;
extern Handles<Executable> executables;
extern Handles<Module> modules;
extern Handles<Function> functions;

extern char context;  // its address is the primary context
extern thread_local void* current;
extern thread_local bool in_host_function;

// ---------------------------------------------------------------- errors

// Keeps `text` for good: nobody says when a returned text has been read.
const char* kept(const std::string& text);

// `code`, with a text for cuGetErrorString. Under the lock.
[[gnu::format(printf, 2, 3)]] CUresult error(CUresult code, const char* format, ...);
extern thread_local CUresult explained;  // the last error that `error` explained in this thread
extern thread_local const char* explanation;

// An operation failed.
void die(CUresult code, const std::string& text);

// ---------------------------------------------------------------- streams

double now();  // in seconds

// Performs operations of `stream` until `number` of them are done.
void run_until(Lock& lock, const std::shared_ptr<Stream>& stream, uint64_t number);
void run_all(Lock& lock);

void enqueue(const std::shared_ptr<Stream>& stream, Operation operation);
// What is added to a stream next comes after what the null stream has, and vice versa.
void order_with_null(const std::shared_ptr<Stream>& stream);
// Adds work to a stream, or to what it captures.
CUresult submit(Lock& lock, const std::shared_ptr<Stream>& stream,
                std::function<void(Lock&)> perform);

// ---------------------------------------------------------------- checks of a call

// The checks that nearly every call starts with.
CUresult ready();
std::shared_ptr<Stream> stream_of(const void* handle);
// Calls that would wait for a capturing stream are errors and end the capture.
CUresult no_capture(const char* what);
// Calls that may wait for the device are errors during a capture that is not relaxed.
CUresult no_strict_capture(const char* what);
CUresult check_range(const char* what, CUdeviceptr address, size_t size);
// Whether the bytes still exist when an operation is performed.
bool exists(const char* what, CUdeviceptr address, size_t size);
bool is_pinned(const void* pointer, size_t size);

// Device memory, from the pool or outside it.
CUresult allocate(Lock& lock, DeviceMemory::Buffer** buffer, size_t size, bool pooled);
void release(DeviceMemory::Buffer* buffer);
inline unsigned char* bytes(CUdeviceptr address) { return reinterpret_cast<unsigned char*>(address); }

#define READY         \
    Lock lock(mutex); \
    if (const CUresult result = ready()) return result;
#define STREAM(handle)                                                                \
    const std::shared_ptr<Stream> stream = stream_of(handle);                         \
    if (!stream) return error(CUDA_ERROR_INVALID_HANDLE, "not a stream: %p", handle); \
    if (stream->capture && stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
#define CHECK(...) \
    if (const CUresult result = (__VA_ARGS__)) return result;

}  // namespace driver
