// The one header that a kernel file includes. nvcc sees CUDA's own headers; g++ sees host/simt.h, which runs every CUDA
// thread as a fiber on the CPU. ../README.md has the rules for code that must build both ways.
#pragma once
#include <stddef.h>
#include <stdint.h>

// KERNEL void name(Args args) { … }   a kernel; nvcc and the stand-in know it by its plain name
// EXPORT(name)                        after it: makes it known to the stand-in
// LAYOUT(Struct, field, …)            all fields of an argument struct, at most 40: the build makes
//                                     its twin in Rust of them, and a test compares the layouts
// DEVICE                              a function called from kernels
// UNROLL                              before a loop with a constant number of rounds

#if defined(__CUDACC__)

#include <cuda_bf16.h>

#define KERNEL extern "C" __global__
#define EXPORT(kernel)
#define LAYOUT(...)
#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")

// `count` elements of the block's single dynamic shared buffer. The stand-in checks every access.
template <class T>
struct Shared {
    T* pointer;
    template <class I>
    __device__ __forceinline__ T& operator[](I index) const {
        return pointer[index];
    }
    // The elements from `index` on.
    template <class I>
    __device__ __forceinline__ Shared operator+(I index) const {
        return {pointer + index};
    }
    // A plain pointer to `length` elements from `index` on, for wide loads and PTX.
    template <class I>
    __device__ __forceinline__ T* at(I index, size_t) const {
        return pointer + index;
    }
};

// Elements `byte_offset / sizeof(T)` … + `count` of the dynamic shared buffer.
template <class T>
DEVICE Shared<T> shared(size_t byte_offset, size_t) {
    extern __shared__ __align__(1024) unsigned char dynamic_shared_buffer[];
    return {reinterpret_cast<T*>(dynamic_shared_buffer + byte_offset)};
}

#else

#include "../host/simt.h"

#define KERNEL extern "C"
#define EXPORT(kernel) static const ::simt::Registrar<kernel> kernel##_registrar{#kernel};
#define LAYOUT(type, ...)                      \
    static const ::simt::Layout type##_layout{ \
        #type, sizeof(type), {SIMT_EACH_FIELD(type, __VA_ARGS__)}};
#define DEVICE [[maybe_unused]] static inline
#define UNROLL

#endif

#include "philox.cuh"
#include "ptx.cuh"
