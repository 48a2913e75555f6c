// The types and result codes of the driver API that the stand-in implements.
#pragma once
#include <cstddef>

using CUdeviceptr = unsigned long long;
using CUdevice = int;

enum CUresult : int {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_STUB_LIBRARY = 34,
    CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
    CUDA_ERROR_OPERATING_SYSTEM = 304,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_ILLEGAL_STATE = 401,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_NOT_PERMITTED = 800,
    CUDA_ERROR_SYSTEM_NOT_READY = 802,
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
    CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
    CUDA_ERROR_STREAM_CAPTURE_MERGE = 902,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
    CUDA_ERROR_CAPTURED_EVENT = 907,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
    CUDA_ERROR_UNKNOWN = 999,
};

// The functions that selfcheck.cpp calls; the rest of libcuda*.cpp is declared by its definition.
extern "C" {
CUresult cuInit(unsigned flags);
CUresult cuDriverGetVersion(int* version);
CUresult cuGetErrorString(CUresult code, const char** text);
CUresult cuDeviceGetCount(int* count);
CUresult cuDeviceGet(CUdevice* device, int ordinal);
CUresult cuDeviceGetName(char* name, int size, CUdevice device);
CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device);
CUresult cuDeviceGetMemPool(void** pool, CUdevice device);
CUresult cuDevicePrimaryCtxRetain(void** context, CUdevice device);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
CUresult cuCtxSetCurrent(void* context);
CUresult cuCtxSynchronize();
CUresult cuMemGetInfo_v2(size_t* free, size_t* total);
CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t size);
CUresult cuMemFree_v2(CUdeviceptr pointer);
CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t size, void* stream);
CUresult cuMemFreeAsync(CUdeviceptr pointer, void* stream);
CUresult cuMemPoolSetAttribute(void* pool, int attribute, void* value);
CUresult cuMemPoolGetAttribute(void* pool, int attribute, void* value);
CUresult cuMemPoolTrimTo(void* pool, size_t keep);
CUresult cuMemHostAlloc(void** pointer, size_t size, unsigned flags);
CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void* source, size_t size);
CUresult cuMemcpyDtoH_v2(void* target, CUdeviceptr source, size_t size);
CUresult cuMemcpyDtoD_v2(CUdeviceptr target, CUdeviceptr source, size_t size);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* source, size_t size, void* stream);
CUresult cuMemcpyDtoHAsync_v2(void* target, CUdeviceptr source, size_t size, void* stream);
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t size, void* stream);
CUresult cuMemsetD8_v2(CUdeviceptr target, unsigned char value, size_t count);
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, void* stream);
CUresult cuMemsetD32_v2(CUdeviceptr target, unsigned value, size_t count);
CUresult cuStreamCreate(void** stream, unsigned flags);
CUresult cuStreamDestroy_v2(void* stream);
CUresult cuStreamSynchronize(void* stream);
CUresult cuStreamWaitEvent(void* stream, void* event, unsigned flags);
CUresult cuStreamBeginCapture_v2(void* stream, int mode);
CUresult cuStreamIsCapturing(void* stream, int* status);
CUresult cuStreamEndCapture(void* stream, void** graph);
CUresult cuEventCreate(void** event, unsigned flags);
CUresult cuEventRecord(void* event, void* stream);
CUresult cuEventSynchronize(void* event);
CUresult cuEventQuery(void* event);
CUresult cuEventElapsedTime(float* milliseconds, void* begin, void* end);
CUresult cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);
CUresult cuModuleLoadData(void** module, const void* image);
CUresult cuModuleUnload(void* module);
CUresult cuModuleGetFunction(void** function, void* module, const char* name);
CUresult cuFuncSetAttribute(void* function, int attribute, int value);
CUresult cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        void* stream, void** arguments, void** extra);
CUresult cuGraphDestroy(void* graph);
CUresult cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags);
CUresult cuGraphExecDestroy(void* executable);
CUresult cuGraphUpload(void* executable, void* stream);
CUresult cuGraphLaunch(void* executable, void* stream);
int lawsmith_layout(const char* name, unsigned index, const char** field, size_t* offset,
                    size_t* size);
}
