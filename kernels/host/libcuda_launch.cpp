// Modules, kernels and their launches in the stand-in's driver.
#include "libcuda.h"

#include <algorithm>

#include "races.h"

using namespace driver;

// ---------------------------------------------------------------- modules and kernels

// Accepts any image: the kernels are in this library. The memory for code is outside the pool.
API cuModuleLoadData(void** handle, const void* image) {
    READY
    if (!image) return error(CUDA_ERROR_INVALID_VALUE, "a module image that is null");
    if (fault.call == Fault::LOAD) return fault.code;
    const auto module = std::make_shared<Module>();
    CHECK(allocate(lock, &module->code, 256, false));
    *handle = modules.add(module);
    return CUDA_SUCCESS;
}

API cuModuleUnload(void* handle) {
    READY
    const std::shared_ptr<Module> module = modules.get(handle);
    if (!module) return error(CUDA_ERROR_INVALID_HANDLE, "not a module: %p", handle);
    for (const auto& [_, function] : module->functions) functions.objects.erase(function.get());
    release(module->code);
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
// A launch with its arguments, copied by the call.
struct Launch {
    std::shared_ptr<Function> function;
    dim3 grid, block;
    unsigned shared;
    std::vector<std::vector<uint64_t>> arguments;

    const char* name() const { return function->code->name; }

    // A pointer among the arguments to device memory that does not exist, "" if there is none. Every word that is a
    // device address counts; other data have such bits only by a rare accident.
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
        simt::races::device_begin = memory.region();
        simt::races::device_bytes = DeviceMemory::SIZE;
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
