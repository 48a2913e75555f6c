// Instructions of sm_90a: barriers in shared memory, bulk copies, warpgroup products. Wrappers and twins as in ptx.cuh,
// which has everything else; the twins are in ../host/async.cpp. The sections of the PTX ISA behind them:
// ../../notes/hopper.md.
#pragma once

#if defined(__CUDACC__)
#define WHERE
#define NOWHERE
// Put before a loop that would need too many registers if unrolled, in a warpgroup with few of them.
#define ROLLED _Pragma("unroll 1")
// For code that other architectures do not have.
#define HOPPER_ONLY (!defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL))
#else
#include "../host/async.h"
#define WHERE , const simt::Where& where = simt::Where::current()
#define NOWHERE const simt::Where& where = simt::Where::current()
#define ROLLED
#define HOPPER_ONLY 1
#endif

constexpr int WARPGROUP = 128;

// Where element `i` of a thread's accumulators is in the 64 × N results of its warpgroup.
FRAGMENT Element wgmma_element(int thread, int i) {
    const Element e = accumulator_element(thread % 32, i % 4);
    return {thread / 32 * 16 + e.row, i / 4 * 8 + e.column};
}

// Operands in shared memory: rows of 32 bf16, 64 bytes, in patterns of eight rows. The four 16-byte pieces of a row are
// permuted, so that the same piece of eight rows lies in different banks ("64-byte swizzle"). An operand starts at a
// multiple of SWIZZLED_PATTERN bytes.
constexpr int SWIZZLED = 32, SWIZZLED_PATTERN = 512;
// Index of an element of such an operand.
FRAGMENT int swizzled(int row, int column) {
    return row * SWIZZLED + ((column / 8 ^ row / 2 % 4) * 8 | column % 8);
}

DEVICE uint32_t shared_address(const void* pointer) {
#if defined(__CUDACC__)
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#else
    return uint32_t(static_cast<const unsigned char*>(pointer) - simt::block.shared);
#endif
}

// The matrix descriptor of such an operand, starting at its columns 16 `k` ….
DEVICE uint64_t swizzled_operand(const void* pointer, int k) {
    constexpr uint64_t SWIZZLE_64 = 2;
    // In units of 16 bytes. The leading dimension is within the rows: its offset is not used, and set to 1.
    const uint64_t start = (shared_address(pointer) + 32 * k) >> 4;
    return start | uint64_t(1) << 16 | uint64_t(SWIZZLED_PATTERN >> 4) << 32 | SWIZZLE_64 << 62;
}

// The same for an operand whose rows lie across the sum, starting at rows 16 `k` …: it has as many columns as the
// product needs, in blocks of SWIZZLED columns that are `block` bytes apart.
DEVICE uint64_t transposed_operand(const void* pointer, int block, int k) {
    const uint64_t operand = swizzled_operand(pointer, 0) + (2 * SWIZZLED_PATTERN * k >> 4);
    return (operand & ~(uint64_t(0x3fff) << 16)) | uint64_t(block >> 4) << 16;
}

// ---------------------------------------------------------------- barriers in shared memory

// A barrier for `count` arrivals; `proxy_fence` and a block barrier follow before others use it.
DEVICE void mbarrier_init(uint64_t* barrier, unsigned count WHERE) {
#if defined(__CUDACC__)
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(count)
                 : "memory");
#else
    simt::mbarrier_init(barrier, count, where);
#endif
}

DEVICE void mbarrier_arrive(uint64_t* barrier WHERE) {
#if defined(__CUDACC__)
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
#else
    simt::mbarrier_arrive(barrier, 0, "mbarrier.arrive", where);
#endif
}

// An arrival that also makes the phase wait for `bytes` of bulk copies.
DEVICE void mbarrier_expect(uint64_t* barrier, unsigned bytes WHERE) {
#if defined(__CUDACC__)
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
#else
    simt::mbarrier_arrive(barrier, bytes, "mbarrier.arrive.expect_tx", where);
#endif
}

// Waits for the end of the phase of parity `parity`; the first phase has parity 0. Before the first phase has ended,
// that of parity 1 counts as ended. With LAWSMITH_BOUNDED_WAITS (build.rs: GPU_TRAP_WAITS) a wait that takes too long
// ends the launch with an error.
DEVICE void mbarrier_wait(uint64_t* barrier, unsigned parity WHERE) {
#if defined(__CUDACC__)
#if defined(LAWSMITH_BOUNDED_WAITS)
    // By the clock, not by the number of polls: the device decides how long a poll takes.
    const uint32_t begin = uint32_t(clock64());
#endif
    uint32_t done = 0;
    while (!done) {
        asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n"
            "}\n"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
#if defined(LAWSMITH_BOUNDED_WAITS)
        // 1.2 s at 1.75 GHz. The instruction is that of __trap(), but after __trap() the compiler assumes an end, and
        // spills.
        if (uint32_t(clock64()) - begin > 1u << 31) __brkpt();
#endif
    }
#else
    simt::mbarrier_wait(barrier, parity, where);
#endif
}

// From global to shared memory, all aligned to 16 bytes; completes `bytes` of the barrier's phase.
DEVICE void bulk_copy(void* target, const void* source, unsigned bytes, uint64_t* barrier WHERE) {
#if defined(__CUDACC__)
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
            shared_address(target)),
        "l"(source), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
#else
    simt::bulk_copy(target, source, bytes, barrier, where);
#endif
}

// Makes what this thread has written to shared memory visible to bulk copies and wgmma of threads it meets afterwards.
DEVICE void proxy_fence() {
#if defined(__CUDACC__)
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#else
    simt::proxy_fence();
#endif
}

// Waits for the `count` threads of whole warps that name barrier `id`, 1 … 15.
DEVICE void named_barrier(unsigned id, unsigned count WHERE) {
#if defined(__CUDACC__)
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(count) : "memory");
#else
    simt::named_barrier(id, count, where);
#endif
}

// ---------------------------------------------------------------- registers of a warpgroup

// Changes the registers per thread, down or up, to COUNT; for all threads of the warpgroup.
template <int COUNT>
DEVICE void give_registers(NOWHERE) {
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256);
#if defined(__CUDACC__)
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(COUNT));
#else
    simt::set_registers(COUNT, where);
#endif
}
template <int COUNT>
DEVICE void take_registers(NOWHERE) {
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256);
#if defined(__CUDACC__)
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(COUNT));
#else
    simt::set_registers(COUNT, where);
#endif
}

// ---------------------------------------------------------------- products of a warpgroup

// Between other uses of accumulators and the next wgmma on them.
DEVICE void wgmma_fence() {
#if defined(__CUDACC__)
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#else
    simt::wgmma_fence();
#endif
}

// The compiler must have these ready before what follows: otherwise it would delay them to the product that needs them,
// after the fence.
template <int COUNT>
DEVICE void accumulators(float (&d)[COUNT]) {
#if defined(__CUDACC__)
    UNROLL
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
#else
    (void)d;
#endif
}

// Closes a group of products.
DEVICE void wgmma_commit() {
#if defined(__CUDACC__)
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#else
    simt::wgmma_commit();
#endif
}

// Waits until at most N of the latest groups are still in flight. `d`: the accumulators, which the compiler must not
// use before.
template <int N, int COUNT>
DEVICE void wgmma_wait(float (&d)[COUNT] WHERE) {
#if defined(__CUDACC__)
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
    if constexpr (N == 0) accumulators(d);
#else
    (void)d;
    simt::wgmma_wait(N, where);
#endif
}

// d[64 × N] += a[64 × 16] · b[N × 16]ᵀ, bf16 operands in shared memory, described by swizzled_operand, f32 sums; or
// with TRANSPOSED a[16 × 64]ᵀ · b[16 × N], described by transposed_operand. After `wgmma_wait` d may be used and the
// operands overwritten.
template <int N, bool TRANSPOSED = false>
DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b WHERE) {
#if defined(__CUDACC__)
#define WGMMA_16(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7]), "+f"(d[i + 8]), "+f"(d[i + 9]), "+f"(d[i + 10]), \
        "+f"(d[i + 11]), "+f"(d[i + 12]), "+f"(d[i + 13]), "+f"(d[i + 14]), "+f"(d[i + 15])
    if constexpr (N == 32)
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
            "}, %16, %17, 1, 1, 1, %18, %18;\n"
            : WGMMA_16(0)
            : "l"(a), "l"(b), "n"(int(TRANSPOSED)));
    else if constexpr (N == 64)
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
            "}, %32, %33, 1, 1, 1, %34, %34;\n"
            : WGMMA_16(0), WGMMA_16(16)
            : "l"(a), "l"(b), "n"(int(TRANSPOSED)));
    else if constexpr (N == 128)
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
            "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
            "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
            "}, %64, %65, 1, 1, 1, %66, %66;\n"
            : WGMMA_16(0), WGMMA_16(16), WGMMA_16(32), WGMMA_16(48)
            : "l"(a), "l"(b), "n"(int(TRANSPOSED)));
    else if constexpr (N == 192)
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
            "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
            "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
            "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
            "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
            "}, %96, %97, 1, 1, 1, %98, %98;\n"
            : WGMMA_16(0), WGMMA_16(16), WGMMA_16(32), WGMMA_16(48), WGMMA_16(64), WGMMA_16(80)
            : "l"(a), "l"(b), "n"(int(TRANSPOSED)));
    else if constexpr (N == 256)
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
            "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
            "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
            "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
            "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
            "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
            "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
            "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
            "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
            "}, %128, %129, 1, 1, 1, %130, %130;\n"
            : WGMMA_16(0), WGMMA_16(16), WGMMA_16(32), WGMMA_16(48), WGMMA_16(64), WGMMA_16(80), WGMMA_16(96), WGMMA_16(112)
            : "l"(a), "l"(b), "n"(int(TRANSPOSED)));
    else
        static_assert(N == 64, "no such wgmma here");
#undef WGMMA_16
#else
    simt::wgmma(d, N, a, b, TRANSPOSED, [](int thread, int i) {
        const Element e = wgmma_element(thread, i);
        return simt::Place{e.row, e.column};
    }, where);
#endif
}

#undef WHERE
#undef NOWHERE
