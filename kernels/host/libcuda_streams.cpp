// Streams and events of the stand-in's driver, and captures of streams.
#include "libcuda.h"

#include <algorithm>

using namespace driver;

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

// Its work is still completed.
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
    pool.settle();
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
    pool.settle();
    return dead;
}

// A late stream makes one step for each query, so that a polling loop terminates.
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

API cuEventElapsedTime(float* milliseconds, void* begin, void* end) {
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

// The first lane goes into the stream, every other into a stream that lives for this launch only.
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
