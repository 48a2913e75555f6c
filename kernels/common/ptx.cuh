// Every PTX instruction that kernels use, each as a thin wrapper: inline assembly on the GPU, a twin with the
// documented effect on the host. Kernels contain no other assembly.
//
// Collective instructions need all 32 lanes of the warp. In the twins the last lane to arrive does the work for all,
// directly on the registers (stack slots) of the waiting lanes.
#pragma once

// ---------------------------------------------------------------- which lane holds which element
// Fragments of m16n8k16 (16-bit operands) and m16n8k8 (32-bit operands), as the PTX ISA lays them
// out. `i` counts the elements that a lane holds.

struct Element {
    int row, column;
};

#if defined(__CUDACC__)
#define FRAGMENT __host__ __device__ __forceinline__ constexpr
#else
#define FRAGMENT constexpr
#endif

// Accumulator 16×8 of both shapes: i in 0..4.
FRAGMENT Element accumulator_element(int lane, int i) {
    return {(lane >> 2) + 8 * (i >> 1), 2 * (lane & 3) + (i & 1)};
}
// A 16×16 of m16n8k16: i in 0..8, two to a register.
FRAGMENT Element a16_element(int lane, int i) {
    return {(lane >> 2) + 8 * (i >> 1 & 1), 2 * (lane & 3) + (i & 1) + 8 * (i >> 2)};
}
// B 16×8 (row k, column n) of m16n8k16: i in 0..4, two to a register.
FRAGMENT Element b16_element(int lane, int i) {
    return {2 * (lane & 3) + (i & 1) + 8 * (i >> 1), lane >> 2};
}
// A 16×8 of m16n8k8: i in 0..4, one to a register.
FRAGMENT Element a8_element(int lane, int i) {
    return {(lane >> 2) + 8 * (i & 1), (lane & 3) + 4 * (i >> 1)};
}
// B 8×8 (row k, column n) of m16n8k8: i in 0..2, one to a register.
FRAGMENT Element b8_element(int lane, int i) { return {(lane & 3) + 4 * i, lane >> 2}; }

// The place in the kernel, for the reports of the twins.
#if defined(__CUDACC__)
#define WHERE
#else
#define WHERE , const simt::Where& where = simt::Where::current()
#endif

// ---------------------------------------------------------------- matrix products

// d[16×8] += a[16×16] · b[16×8], bf16 operands, f32 sums.
DEVICE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] WHERE) {
#if defined(__CUDACC__)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    struct Lane {
        float* d;
        const uint32_t *a, *b;
    } mine{d, a, b};
    simt::warp_collective(&mine, "mma.m16n8k16", where, [](void** lanes) {
        const auto bf16 = [](const uint32_t* registers, int i) {
            return simt::float_of_bf16(uint16_t(registers[i >> 1] >> (16 * (i & 1))));
        };
        float left[16][16], right[16][8];
        for (int l = 0; l < 32; l++) {
            const Lane& lane = *static_cast<Lane*>(lanes[l]);
            for (int i = 0; i < 8; i++) {
                const Element e = a16_element(l, i);
                left[e.row][e.column] = bf16(lane.a, i);
            }
            for (int i = 0; i < 4; i++) {
                const Element e = b16_element(l, i);
                right[e.row][e.column] = bf16(lane.b, i);
            }
        }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) {
                const Element e = accumulator_element(l, i);
                float& sum = static_cast<Lane*>(lanes[l])->d[i];
                // In this order, which is not the order of the hardware.
                for (int k = 0; k < 16; k++) sum += left[e.row][k] * right[k][e.column];
            }
    });
#endif
}

// d[16×8] += a[16×8] · b[8×8], tf32 operands (f32 bits, of which the hardware reads the upper 19),
// f32 sums. `tf32` rounds a float to such an operand.
DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] WHERE) {
#if defined(__CUDACC__)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    struct Lane {
        float* d;
        const uint32_t *a, *b;
    } mine{d, a, b};
    simt::warp_collective(&mine, "mma.m16n8k8", where, [](void** lanes) {
        const auto truncated = [](uint32_t bits) { return __uint_as_float(bits & 0xffffe000u); };
        float left[16][8], right[8][8];
        for (int l = 0; l < 32; l++) {
            const Lane& lane = *static_cast<Lane*>(lanes[l]);
            for (int i = 0; i < 4; i++) {
                const Element e = a8_element(l, i);
                left[e.row][e.column] = truncated(lane.a[i]);
            }
            for (int i = 0; i < 2; i++) {
                const Element e = b8_element(l, i);
                right[e.row][e.column] = truncated(lane.b[i]);
            }
        }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) {
                const Element e = accumulator_element(l, i);
                float& sum = static_cast<Lane*>(lanes[l])->d[i];
                for (int k = 0; k < 8; k++) sum += left[e.row][k] * right[k][e.column];
            }
    });
#endif
}

// A float rounded to tf32 (nearest, ties away from zero), as bits.
DEVICE uint32_t tf32(float x) {
#if defined(__CUDACC__)
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
    return bits;
#else
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;  // infinity, NaN
    return (bits + 0x1000u) & 0xffffe000u;
#endif
}

// Two floats, negative ones replaced by zero, rounded to bf16 (nearest even): `low` in the low
// half.
DEVICE uint32_t relu_bf16x2(float low, float high) {
#if defined(__CUDACC__)
    uint32_t pair;
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    // NaN stays NaN: the comparison is false for it.
    const auto relu = [](float x) { return simt::bf16_of_float(x <= 0 ? 0.0f : x); };
    return uint32_t(relu(low)) | uint32_t(relu(high)) << 16;
#endif
}

// ---------------------------------------------------------------- shared memory to fragments

// Four 8×8 matrices of 16-bit elements; lane l passes the address of row l % 8 of matrix l / 8,
// eight elements, 16-byte aligned. Register m of a lane holds elements (lane / 4, 2 (lane % 4) +
// {0, 1}) of matrix m; with TRANSPOSED, of its transpose.
template <bool TRANSPOSED>
DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row WHERE) {
#if defined(__CUDACC__)
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address)
                     : "memory");
#else
    simt::check_shared(row, 16, "ldmatrix", where);
    struct Lane {
        uint32_t* r;
        const uint16_t* row;
    } mine{r, static_cast<const uint16_t*>(row)};
    simt::warp_collective(
        &mine, TRANSPOSED ? "ldmatrix.x4.trans" : "ldmatrix.x4", where, [](void** lanes) {
            const auto element = [&](int matrix, int row, int column) {
                return static_cast<Lane*>(lanes[8 * matrix + row])->row[column];
            };
            for (int l = 0; l < 32; l++)
                for (int m = 0; m < 4; m++) {
                    const int i = l >> 2, j = 2 * (l & 3);
                    const uint32_t low = TRANSPOSED ? element(m, j, i) : element(m, i, j);
                    const uint32_t high = TRANSPOSED ? element(m, j + 1, i) : element(m, i, j + 1);
                    static_cast<Lane*>(lanes[l])->r[m] = low | high << 16;
                }
        });
#endif
}

// ---------------------------------------------------------------- asynchronous copies

// 16 bytes from global to shared memory, both 16-byte aligned, in the group that the next
// `cp_async_commit` closes.
DEVICE void cp_async_16(void* target, const void* source WHERE) {
#if defined(__CUDACC__)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(
                     static_cast<uint32_t>(__cvta_generic_to_shared(target))),
                 "l"(source)
                 : "memory");
#else
    simt::copy_async(target, source, 16, where);
#endif
}

DEVICE void cp_async_commit() {
#if defined(__CUDACC__)
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
    simt::copy_commit();
#endif
}

// Waits until at most N of this thread's latest groups are still in flight.
template <int N>
DEVICE void cp_async_wait() {
#if defined(__CUDACC__)
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#else
    simt::copy_wait(N);
#endif
}

#undef WHERE
