// CUDA device code on the CPU, for g++ with -std=c++20: the part of the language that kernels use, and the interface to
// simt.cpp, which runs the threads of a block as fibers of one OS thread, switched only in barriers and warp
// collectives. Made for correctness, not for speed.
//
// Anything missing here does not compile, on purpose: static __shared__ arrays (they could not be poisoned between
// blocks; use `shared<T>()` of device.cuh), __activemask, half-precision arithmetic.
#pragma once
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// ---------------------------------------------------------------- vector types

#define SIMT_VECTORS(T, name, align2, align4)                          \
    struct alignas(align2) name##2 { T x, y; };                        \
    struct name##3 { T x, y, z; };                                     \
    struct alignas(align4) name##4 { T x, y, z, w; };                  \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTORS(float, float, 8, 16)
SIMT_VECTORS(double, double, 16, 16)
SIMT_VECTORS(int, int, 8, 16)
SIMT_VECTORS(unsigned, uint, 8, 16)
SIMT_VECTORS(unsigned short, ushort, 4, 8)
#undef SIMT_VECTORS
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// ---------------------------------------------------------------- what simt.cpp offers

namespace simt {

// A place in a kernel's source.
using Where = std::source_location;

struct Warp;

// An asynchronous copy that has been started but not yet made.
struct Copy {
    void* target;
    const void* source;
    size_t bytes;
    unsigned group;
};

// A CUDA thread.
struct Thread {
    uint3 index;
    unsigned linear, lane;
    Warp* warp;
    void* stack_pointer;   // where it goes on, while it waits
    const char* waits_in;  // null while it runs
    Where waits_at;
    std::vector<Copy> copies;
    unsigned open_group;
};

struct Block {
    uint3 index;
    dim3 size, grid;
    unsigned char* shared;  // the dynamic buffer
    size_t shared_bytes;
    bool watched;  // `touched` wants to know what is addressed of it
};

extern thread_local constinit Thread* thread;  // that runs now on this OS thread
extern thread_local constinit Block block;

// Ends the kernel with an error that names kernel, block, thread and `where`.
[[noreturn, gnu::format(printf, 2, 3)]] void fail(const Where& where, const char* format, ...);
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// Blocks until every live lane of `mask` has called; the last one runs `perform` on what all passed (indexed by lane,
// null for lanes that are not in it).
using Perform = void (*)(void** lanes);
void collective(unsigned mask, void* mine, const char* what, const Where& where, Perform perform);
void sync_warp(unsigned mask, const Where& where);

// The same for instructions that need all 32 lanes.
void warp_collective(void* mine, const char* what, const Where& where, Perform perform);

enum class Vote { count, any, all };
int block_barrier(bool predicate, Vote vote, const char* what, const Where& where);

// Lets other threads run, for loops that poll a flag in shared memory.
void yield();

// Blocks until another thread calls `wake`.
void sleep(const char* what, const Where& where);
void wake(const Thread& sleeper);

// Depends on the seed: sometimes true under the random order, false under the others.
bool chance();

// ---- async.cpp, by simt.cpp

void begin_units();
// Makes one pending operation happen, since no thread can continue; false if there is none.
bool finish_something();
// What is wrong with the end of this thread, or of this block; null if nothing is.
const char* end_of_thread();
const char* end_of_block();
// Records that the running thread addresses a piece of shared memory.
void touched(const volatile void* pointer, size_t bytes);

// Checks that `bytes` at `pointer` are within the shared buffer and aligned to `bytes`.
void check_shared(const void* pointer, size_t bytes, const char* what, const Where& where);

// cp.async. The target is poisoned at once and filled by a wait at the latest (under a seed perhaps at once), so that a
// missing wait and a buffer that is refilled too early both show up.
void copy_async(void* target, const void* source, size_t bytes, const Where& where);
inline void copy_commit() { thread->open_group++; }
void copy_wait(unsigned youngest);

// ---- kernels and argument structs by name

struct Function {
    const char* name;
    void (*run)(void* const* arguments);
    const size_t* argument_sizes;
    unsigned arguments;
    Function* next;
};
extern constinit Function* functions;

template <auto Kernel>
struct Registrar;
template <class... A, void (*Kernel)(A...)>
struct Registrar<Kernel> {
    static constexpr size_t sizes[] = {sizeof(A)..., 0};
    static_assert((sizeof(A) + ... + 0) <= 4096, "a kernel has at most 4 KiB of arguments");
    template <size_t... I>
    static void call(void* const* arguments, std::index_sequence<I...>) {
        Kernel(*static_cast<const A*>(arguments[I])...);
    }
    Function function;
    explicit Registrar(const char* name)
        : function{name,
                   [](void* const* arguments) { call(arguments, std::index_sequence_for<A...>{}); },
                   sizes, sizeof...(A), functions} {
        functions = &function;
    }
};

struct Field {
    const char* name;
    size_t offset, size;
};
struct Layout {
    const char* name;
    size_t size;
    std::vector<Field> fields;
    const Layout* next;
    Layout(const char* name, size_t size, std::vector<Field> fields);
};
extern constinit const Layout* layouts;

#define SIMT_AGAIN(...) SIMT_AGAIN1(SIMT_AGAIN1(SIMT_AGAIN1(SIMT_AGAIN1(__VA_ARGS__))))
#define SIMT_AGAIN1(...) SIMT_AGAIN2(SIMT_AGAIN2(SIMT_AGAIN2(__VA_ARGS__)))
#define SIMT_AGAIN2(...) SIMT_AGAIN3(SIMT_AGAIN3(SIMT_AGAIN3(__VA_ARGS__)))
#define SIMT_AGAIN3(...) __VA_ARGS__
#define SIMT_PARENTHESES ()
#define SIMT_FIELD(type, field, ...)                      \
    {#field, offsetof(type, field), sizeof(type::field)}, \
        __VA_OPT__(SIMT_FIELD_AGAIN SIMT_PARENTHESES(type, __VA_ARGS__))
#define SIMT_FIELD_AGAIN() SIMT_FIELD
#define SIMT_EACH_FIELD(...) SIMT_AGAIN(SIMT_FIELD(__VA_ARGS__))

}  // namespace simt

#define threadIdx (::simt::thread->index)
#define blockIdx (::simt::block.index)
#define blockDim (::simt::block.size)
#define gridDim (::simt::block.grid)
constexpr int warpSize = 32;

// ---------------------------------------------------------------- shared memory

namespace simt {
// An index that knows where in the source it was written.
struct Index {
    size_t value;  // a negative index is huge
    Where where;
    template <std::integral I>
    Index(I value, const Where& where = Where::current()) : value(size_t(value)), where(where) {}
};
}  // namespace simt

template <class T>
struct Shared {
    T* pointer;
    size_t count;
    T& operator[](simt::Index index) const {
        if (index.value >= count)
            simt::fail(index.where, "element %zd of %zu in shared memory", ssize_t(index.value),
                       count);
        if (simt::block.watched) simt::touched(pointer + index.value, sizeof(T));
        return pointer[index.value];
    }
    Shared operator+(simt::Index index) const {
        if (index.value > count)
            simt::fail(index.where, "element %zd of %zu in shared memory", ssize_t(index.value),
                       count);
        return {pointer + index.value, count - index.value};
    }
    T* at(simt::Index index, size_t length) const {
        if (index.value > count || length > count - index.value)
            simt::fail(index.where, "%zu elements from %zd on of %zu in shared memory", length,
                       ssize_t(index.value), count);
        if (simt::block.watched) simt::touched(pointer + index.value, length * sizeof(T));
        return pointer + index.value;
    }
};

template <class T>
Shared<T> shared(size_t byte_offset, size_t count,
                 const simt::Where& where = simt::Where::current()) {
    const size_t available = simt::block.shared_bytes;
    if (byte_offset > available || count > (available - byte_offset) / sizeof(T))
        simt::fail(where,
                   "%zu elements of %zu bytes from byte %zu on of %zu bytes of shared memory",
                   count, sizeof(T), byte_offset, available);
    if (byte_offset % alignof(T))
        simt::fail(where, "byte %zu of shared memory is not aligned to %zu", byte_offset,
                   alignof(T));
    return {reinterpret_cast<T*>(simt::block.shared + byte_offset), count};
}

// ---------------------------------------------------------------- barriers and warp primitives

#define SIMT_WHERE const simt::Where& where = simt::Where::current()
[[noreturn]] inline void __trap(SIMT_WHERE) { simt::fail(where, "__trap"); }
inline void __syncthreads(SIMT_WHERE) {
    simt::block_barrier(false, simt::Vote::any, "__syncthreads", where);
}
inline int __syncthreads_count(int p, SIMT_WHERE) {
    return simt::block_barrier(p != 0, simt::Vote::count, "__syncthreads_count", where);
}
inline int __syncthreads_or(int p, SIMT_WHERE) {
    return simt::block_barrier(p != 0, simt::Vote::any, "__syncthreads_or", where);
}
inline int __syncthreads_and(int p, SIMT_WHERE) {
    return simt::block_barrier(p != 0, simt::Vote::all, "__syncthreads_and", where);
}
inline void __nanosleep(unsigned) { simt::yield(); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __syncwarp(unsigned mask = ~0u, SIMT_WHERE) {
    simt::sync_warp(mask, where);
}

namespace simt {
template <class T>
struct Shuffle {
    T value, result;
    int source;  // -1: the own value
};
template <class T>
void shuffle(void** lanes) {
    for (int l = 0; l < 32; l++) {
        if (!lanes[l]) continue;
        auto& lane = *static_cast<Shuffle<T>*>(lanes[l]);
        if (lane.source < 0)
            lane.result = lane.value;
        else if (lanes[lane.source])
            lane.result = static_cast<Shuffle<T>*>(lanes[lane.source])->value;
        else
            memset(&lane.result, 0xff, sizeof(T));  // undefined on a GPU
    }
}
template <class T>
T shuffled(unsigned mask, T value, int source, const char* what, const Where& where) {
    static_assert(std::is_arithmetic_v<T>, "shuffles take numbers");
    Shuffle<T> mine{value, value, source};
    collective(mask, &mine, what, where, shuffle<T>);
    return mine.result;
}
struct Ballot {
    bool predicate;
    unsigned result;
};
inline unsigned ballot(unsigned mask, bool predicate, const char* what, const Where& where) {
    Ballot mine{predicate, 0};
    collective(mask, &mine, what, where, [](void** lanes) {
        unsigned result = 0;
        for (int l = 0; l < 32; l++)
            if (lanes[l]) result |= unsigned(static_cast<Ballot*>(lanes[l])->predicate) << l;
        for (int l = 0; l < 32; l++)
            if (lanes[l]) static_cast<Ballot*>(lanes[l])->result = result;
    });
    return mine.result;
}
}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_WHERE) {
    const int first = int(simt::thread->lane) & ~(width - 1);
    return simt::shuffled(mask, value, first + (source & (width - 1)), "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_WHERE) {
    const int lane = int(simt::thread->lane), source = lane ^ bits;
    const int last = lane | (width - 1);
    return simt::shuffled(mask, value, source > last ? -1 : source, "__shfl_xor_sync", where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
    const int lane = int(simt::thread->lane), source = lane - int(delta);
    const int first = lane & ~(width - 1);
    return simt::shuffled(mask, value, source < first ? -1 : source, "__shfl_up_sync", where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
    const int lane = int(simt::thread->lane), source = lane + int(delta);
    const int last = lane | (width - 1);
    return simt::shuffled(mask, value, source > last ? -1 : source, "__shfl_down_sync", where);
}
inline unsigned __ballot_sync(unsigned mask, int p, SIMT_WHERE) {
    return simt::ballot(mask, p != 0, "__ballot_sync", where);
}
inline int __any_sync(unsigned mask, int p, SIMT_WHERE) {
    return simt::ballot(mask, p != 0, "__any_sync", where) != 0;
}
inline int __all_sync(unsigned mask, int p, SIMT_WHERE) {
    return simt::ballot(mask, p == 0, "__all_sync", where) == 0;
}
#undef SIMT_WHERE

// ---------------------------------------------------------------- atomics
// Real ones: blocks may run on several OS threads.

namespace simt {
template <class T, class F>
T exchange(T* target, F next) {
    T old;
    __atomic_load(target, &old, __ATOMIC_RELAXED);
    for (;;) {
        T value = next(old);
        if (__atomic_compare_exchange(target, &old, &value, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED))
            return old;
    }
}
}  // namespace simt
template <class T>
T atomicAdd(T* target, std::type_identity_t<T> value) {
    return simt::exchange(target, [=](T old) { return T(old + value); });
}
template <class T>
T atomicMax(T* target, std::type_identity_t<T> value) {
    return simt::exchange(target, [=](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T* target, std::type_identity_t<T> value) {
    return simt::exchange(target, [=](T old) { return old < value ? old : value; });
}
template <class T>
T atomicOr(T* target, std::type_identity_t<T> value) {
    return simt::exchange(target, [=](T old) { return T(old | value); });
}
template <class T>
T atomicExch(T* target, std::type_identity_t<T> value) {
    return simt::exchange(target, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* target, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    return simt::exchange(target, [=](T old) { return old == expected ? value : old; });
}

// ---------------------------------------------------------------- loads, arithmetic, bits

template <class T>
T __ldg(const T* source) {
    return *source;
}
template <class T>
T __ldcg(const T* source) {
    return *source;
}
template <class T>
T __ldcs(const T* source) {
    return *source;
}
template <class T>
void __stcs(T* target, T value) {
    *target = value;
}
template <class T, class U>
auto min(T a, U b) {
    using C = std::common_type_t<T, U>;
    if constexpr (std::is_floating_point_v<C>)
        return std::fmin(C(a), C(b));
    else
        return C(a) < C(b) ? C(a) : C(b);
}
template <class T, class U>
auto max(T a, U b) {
    using C = std::common_type_t<T, U>;
    if constexpr (std::is_floating_point_v<C>)
        return std::fmax(C(a), C(b));
    else
        return C(a) < C(b) ? C(b) : C(a);
}

// The fast functions are the exact ones here. Macros, since the C library declares these names.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define rsqrtf(x) (1.0f / sqrtf(x))
#define rsqrt(x) (1.0 / sqrt(x))
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
// Rounded separately: g++ fuses a product with a following sum, as nvcc does.
inline float __fmul_rn(float a, float b) {
    float product = a * b;
    asm("" : "+m"(product));
    return product;
}
inline double __dmul_rn(double a, double b) {
    double product = a * b;
    asm("" : "+m"(product));
    return product;
}
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }

// A type for storage: without arithmetic and with explicit conversions only, since a GPU rounds each operation on it
// and this would not. Kernels convert to float, compute, convert back.

namespace simt {
inline float float_of_bf16(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }
inline uint16_t bf16_of_float(float x) {  // to nearest even
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the NaN that the hardware makes
    return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
}  // namespace simt
struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 x) { return simt::float_of_bf16(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {simt::bf16_of_float(x)}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return {x}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 x) {
    return {__bfloat162float(x.x), __bfloat162float(x.y)};
}

// ---------------------------------------------------------------- for the driver

namespace simt {

// The order in which threads run. A round-robin order gives each ready thread its turn; a greedy one lets a warp run as
// far as it can before the next, which finds missing barriers that turns hide.
enum class Policy { forward, reverse, random, greedy, greedy_reverse, greedy_random };

struct Options {
    Policy policy = Policy::forward;
    unsigned seed = 1;
    unsigned workers = 1;  // OS threads that share the blocks
};
extern Options options;
// Reads `policy:seed` or `policy`; false if there is no such policy.
bool parse_schedule(const char* text, Options& options);

struct Failure {
    int code;           // a CUresult
    uintptr_t address;  // with CUDA_ERROR_ILLEGAL_ADDRESS
    char text[2000];
};
// Runs all blocks of a launch; false if one failed.
bool run(const Function& function, dim3 grid, dim3 block, size_t shared_bytes,
         void* const* arguments, Failure& failure);

}  // namespace simt
