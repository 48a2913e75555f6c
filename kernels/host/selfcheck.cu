// Kernels for the self-check of the stand-in driver: good ones, whose results selfcheck.cpp knows, and bad ones, each
// with one mistake that must be reported. They are built only by `scripts/emulated --selfcheck`.
#include "../common/device.cuh"
#include "../common/functions.cuh"
#include "../common/hopper.cuh"

// Literals from the figures of the PTX ISA: kernels and twins use the same maps, and would agree on wrong ones. Lane 5
// is thread 1 of group 1, lane 30 thread 2 of group 7.
constexpr bool at(Element element, int row, int column) {
    return element.row == row && element.column == column;
}
static_assert(at(accumulator_element(5, 1), 1, 3) && at(accumulator_element(30, 2), 15, 4));
static_assert(at(a16_element(5, 1), 1, 3) && at(a16_element(5, 2), 9, 2) &&
              at(a16_element(30, 4), 7, 12));
static_assert(at(a16_element(30, 7), 15, 13) && at(b16_element(5, 1), 3, 1) &&
              at(b16_element(30, 2), 12, 7));
static_assert(at(a8_element(5, 1), 9, 1) && at(a8_element(30, 2), 7, 6));
static_assert(at(b8_element(5, 0), 1, 1) && at(b8_element(30, 1), 6, 7));
// Thread 69 is lane 5 of warp 2.
static_assert(at(wgmma_element(69, 1), 33, 3) && at(wgmma_element(69, 10), 41, 18));
// 64-byte swizzle, K-major: bits 4 and 5 of the byte change with bits 7 and 8, that is with rows 2, 4 and 6.
static_assert(swizzled(1, 9) == 32 + 9 && swizzled(2, 9) == 64 + 1 && swizzled(5, 9) == 160 + 25 &&
              swizzled(6, 9) == 192 + 17 && swizzled(8, 9) == 256 + 9);

// ---------------------------------------------------------------- good kernels

// Without a barrier.
KERNEL void check_scale(const float* x, float* y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const float v = __ldg(x + i);
        y[i] = fmaf(v, rsqrtf(v * v + 1.0f), __expf(-fabsf(v)));
    }
}
EXPORT(check_scale)

DEVICE float warp_sum(float v) {
    UNROLL
    for (int bit = 16; bit > 0; bit >>= 1) v += __shfl_xor_sync(0xffffffffu, v, bit);
    return v;
}

// The sum of x by shuffles within a warp, shared memory between warps, an atomic between blocks.
KERNEL void __launch_bounds__(256) check_sum(const float* x, float* sum, int n) {
    const Shared<float> parts = shared<float>(0, blockDim.x / 32);
    float s = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        s += x[i];
    s = warp_sum(s);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) parts[warp] = s;
    __syncthreads();
    if (warp == 0) {
        s = warp_sum(lane < int(blockDim.x / 32) ? parts[lane] : 0.0f);
        if (lane == 0) atomicAdd(sum, s);
    }
}
EXPORT(check_sum)

// c[m,n] = a[m,k] b[k,n], in square tiles of blockDim.x.
KERNEL void check_matmul(const float* a, const float* b, float* c, int m, int n, int k) {
    const int tile = blockDim.x, x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * tile + y, column = blockIdx.x * tile + x;
    const Shared<float> left = shared<float>(0, tile * tile);
    const Shared<float> right = shared<float>(tile * tile * sizeof(float), tile * tile);
    float sum = 0;
    for (int k0 = 0; k0 < k; k0 += tile) {
        left[y * tile + x] = row < m && k0 + x < k ? a[row * k + k0 + x] : 0.0f;
        right[y * tile + x] = k0 + y < k && column < n ? b[(k0 + y) * n + column] : 0.0f;
        __syncthreads();
        for (int i = 0; i < tile; i++) sum = fmaf(left[y * tile + i], right[i * tile + x], sum);
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}
EXPORT(check_matmul)

// sums[segment[i]] += x[i], segments ascending: a scan within each warp, then one atomic per segment.
KERNEL void check_segments(const float* x, const int* segment, float* sums, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    const int mine = i < n ? segment[i] : -1;
    float v = i < n ? x[i] : 0.0f;
    const int left = __shfl_up_sync(0xffffffffu, mine, 1);
    const unsigned heads = __ballot_sync(0xffffffffu, lane == 0 || left != mine);
    const int head = 31 - __clz(int(heads & (0xffffffffu >> (31 - lane))));
    UNROLL
    for (int d = 1; d < 32; d <<= 1) {
        const float u = __shfl_up_sync(0xffffffffu, v, d);
        if (lane - d >= head) v += u;
    }
    const bool tail = lane == 31 || (heads >> (lane + 1) & 1);
    if (tail && mine >= 0) atomicAdd(sums + mine, v);
}
EXPORT(check_segments)

// c[m,n] f32 = a[m,k] b[k,n], bf16, row by row; m and n multiples of 64, k of 32; 128 threads;
// 19456 bytes of shared memory. Two stages of cp.async, ldmatrix, mma.
KERNEL void __launch_bounds__(128)
    check_gemm_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
    constexpr int M = 64, N = 64, K = 32, PAD = 8;
    constexpr int LEFT = M * (K + PAD), RIGHT = K * (N + PAD);
    const Shared<__nv_bfloat16> left = shared<__nv_bfloat16>(0, 2 * LEFT);
    const Shared<__nv_bfloat16> right = shared<__nv_bfloat16>(2 * LEFT * 2, 2 * RIGHT);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
    const int row0 = blockIdx.y * M, column0 = blockIdx.x * N;
    float sums[2][4][4] = {};
    const auto load = [&](int stage, int k0) {
        for (int i = thread; i < M * K / 8; i += 128) {
            const int r = i / (K / 8), q = i % (K / 8) * 8;
            cp_async_16(left.at(stage * LEFT + r * (K + PAD) + q, 8),
                        a + size_t(row0 + r) * k + k0 + q);
        }
        for (int i = thread; i < K * N / 8; i += 128) {
            const int r = i / (N / 8), q = i % (N / 8) * 8;
            cp_async_16(right.at(stage * RIGHT + r * (N + PAD) + q, 8),
                        b + size_t(k0 + r) * n + column0 + q);
        }
        cp_async_commit();
    };
    load(0, 0);
    for (int k0 = 0, stage = 0; k0 < k; k0 += K, stage ^= 1) {
        if (k0 + K < k) {
            load(stage ^ 1, k0 + K);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();
        UNROLL
        for (int kk = 0; kk < K; kk += 16) {
            uint32_t x[2][4], y[4][2];
            for (int i = 0; i < 2; i++) {
                const int r = warp_row + 16 * i + lane % 16, q = kk + lane / 16 * 8;
                ldmatrix_x4<false>(x[i], left.at(stage * LEFT + r * (K + PAD) + q, 8));
            }
            for (int j = 0; j < 2; j++) {
                const int r = kk + lane % 16, q = warp_column + 16 * j + lane / 16 * 8;
                uint32_t four[4];
                ldmatrix_x4<true>(four, right.at(stage * RIGHT + r * (N + PAD) + q, 8));
                y[2 * j][0] = four[0];
                y[2 * j][1] = four[1];
                y[2 * j + 1][0] = four[2];
                y[2 * j + 1][1] = four[3];
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) mma_m16n8k16_bf16(sums[i][j], x[i], y[j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++) {
                const Element at = accumulator_element(lane, e);
                const int r = row0 + warp_row + 16 * i + at.row,
                          q = column0 + warp_column + 8 * j + at.column;
                c[size_t(r) * n + q] = sums[i][j][e];
            }
}
EXPORT(check_gemm_bf16)

// c[16,8] = a[16,k] b[k,8] with tf32 operands; one warp.
KERNEL void check_gemm_tf32(const float* a, const float* b, float* c, int k) {
    const int lane = threadIdx.x;
    float sums[4] = {};
    for (int k0 = 0; k0 < k; k0 += 8) {
        uint32_t x[4], y[2];
        for (int i = 0; i < 4; i++) {
            const Element at = a8_element(lane, i);
            x[i] = tf32(a[at.row * k + k0 + at.column]);
        }
        for (int i = 0; i < 2; i++) {
            const Element at = b8_element(lane, i);
            y[i] = tf32(b[(k0 + at.row) * 8 + at.column]);
        }
        mma_m16n8k8_tf32(sums, x, y);
    }
    for (int i = 0; i < 4; i++) {
        const Element at = accumulator_element(lane, i);
        c[at.row * 8 + at.column] = sums[i];
    }
}
EXPORT(check_gemm_tf32)

// Pairs of x to bf16, negative ones as 0; each x to tf32.
KERNEL void check_conversions(const float* x, uint32_t* pairs, uint32_t* words) {
    const int i = threadIdx.x;
    pairs[i] = relu_bf16x2(x[2 * i], x[2 * i + 1]);
    words[2 * i] = tf32(x[2 * i]);
    words[2 * i + 1] = tf32(x[2 * i + 1]);
}
EXPORT(check_conversions)

// The smaller and the larger of each pair of x, as bits.
KERNEL void check_extremes(const float* x, uint32_t* words) {
    const int i = threadIdx.x;
    words[2 * i] = __float_as_uint(smaller(x[2 * i], x[2 * i + 1]));
    words[2 * i + 1] = __float_as_uint(larger(x[2 * i], x[2 * i + 1]));
}
EXPORT(check_extremes)

// The kinds of votes and shuffles, each lane's results in a row of 10.
KERNEL void check_votes(int* results) {
    const int lane = threadIdx.x % 32, thread = threadIdx.x;
    int* row = results + 10 * thread;
    row[0] = int(__ballot_sync(0xffffffffu, lane % 3 == 0));
    row[1] = __any_sync(0xffffffffu, lane == 7);
    row[2] = __all_sync(0xffffffffu, lane < 31);
    row[3] = __shfl_sync(0xffffffffu, thread, 5);
    row[4] = __shfl_down_sync(0xffffffffu, thread, 4, 8);
    row[5] = __syncthreads_count(thread % 5 == 0);
    row[6] = __syncthreads_or(thread == 40);
    row[7] = __syncthreads_and(thread != 40);
    // The two halves of a warp separately, for different numbers of rounds.
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    int sum = 0;
    for (int i = 0; i < (lane < 16 ? 2 : 3); i++)
        sum += __shfl_sync(half, lane, lane < 16 ? 1 : 17);
    const Shared<int> sums = shared<int>(0, blockDim.x);
    sums[thread] = sum;
    __syncwarp(half);
    row[8] = sums[thread ^ 15];
    row[9] = __shfl_xor_sync(0xffffffffu, thread, 3);
}
EXPORT(check_votes)

KERNEL void check_atomics(int* results) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(results, 1);
    atomicMax(results + 1, i);
    atomicMin(results + 2, -i);
    atomicOr(results + 3, 1 << (i % 20));
    if (atomicCAS(results + 4, 0, i + 1) == 0) atomicAdd(results + 5, 1);
    atomicExch(results + 6, 9);
}
EXPORT(check_atomics)

KERNEL void check_vector_add(float4* sums) {
    const float i = float(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(sums + threadIdx.x % 2, make_float4(1, i, -0.5f, 0));
}
EXPORT(check_vector_add)

// Warp 0 polls a flag that the last thread sets.
KERNEL void check_flag(int* results) {
    const Shared<volatile int> flag = shared<volatile int>(0, 1);
    if (threadIdx.x == 0) flag[0] = 0;
    __syncthreads();
    if (threadIdx.x < 32) {
        while (flag[0] == 0) __nanosleep(20);
        results[threadIdx.x] = flag[0];
    } else if (threadIdx.x == blockDim.x - 1) {
        flag[0] = 7;
    }
}
EXPORT(check_flag)

KERNEL void check_random(uint32_t* words, double* numbers) {
    Random random = random_new(0x123456789abcdef0u, 77);
    for (int i = 0; i < 6; i++) words[i] = random_word(random);
    numbers[0] = random_uniform(random);
    words[6] = random_below(random, 1000);
    numbers[1] = random_normal(random);
    numbers[2] = random_normal(random);
    const Philox zero = philox({{0, 0, 0, 0}}, 0, 0);
    for (int i = 0; i < 4; i++) words[7 + i] = zero.word[i];
}
EXPORT(check_random)

// For the checks of streams and graphs.
KERNEL void check_add(float* x, float value, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        x[i] += value;
}
EXPORT(check_add)

struct CheckArgs {
    const float* from;
    float* into;
    unsigned short small;
    unsigned n;
};
LAYOUT(CheckArgs, from, into, small, n)
KERNEL void check_struct(CheckArgs args) {
    for (unsigned i = threadIdx.x; i < args.n; i += blockDim.x)
        args.into[i] = args.from[i] + args.small;
}
EXPORT(check_struct)

// c[64,n] = a[64,k] b[n,k]ᵀ, bf16, k a multiple of 32, n = 64 units per block; 256 threads. The first warpgroup
// multiplies, the second feeds it: one thread copies b, with bulk copies of pieces [64,32] that are already swizzled;
// all others copy a, a piece at a time. Two stages; 16384 + 64 bytes of shared memory.
KERNEL void __launch_bounds__(256)
    check_warpgroup(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int k) {
    constexpr int PIECE = 64 * SWIZZLED;
    const Shared<__nv_bfloat16> left = shared<__nv_bfloat16>(0, 2 * PIECE);
    const Shared<__nv_bfloat16> right = shared<__nv_bfloat16>(4 * PIECE, 2 * PIECE);
    const Shared<uint64_t> full = shared<uint64_t>(8 * PIECE, 2);
    const Shared<uint64_t> empty = shared<uint64_t>(8 * PIECE + 16, 2);
    const int thread = threadIdx.x % WARPGROUP, pieces = k / SWIZZLED;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbarrier_init(full.at(i, 1), WARPGROUP);
            mbarrier_init(empty.at(i, 1), 4);
        }
        proxy_fence();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        take_registers<232>();
        float sums[32] = {};
        for (int p = 0; p < pieces; p++) {
            mbarrier_wait(full.at(p % 2, 1), p / 2 % 2);
            const __nv_bfloat16* x = left.at(p % 2 * PIECE, PIECE);
            const __nv_bfloat16* y = right.at(p % 2 * PIECE, PIECE);
            wgmma_fence();
            wgmma<64>(sums, swizzled_operand(x, 0), swizzled_operand(y, 0));
            wgmma<64>(sums, swizzled_operand(x, 1), swizzled_operand(y, 1));
            wgmma_commit();
            if (p + 1 < pieces) {
                // The previous piece may be overwritten.
                wgmma_wait<1>(sums);
                if (p > 0 && thread % 32 == 0) mbarrier_arrive(empty.at((p + 1) % 2, 1));
            }
        }
        wgmma_wait<0>(sums);
        for (int i = 0; i < 32; i++) {
            const Element at = wgmma_element(thread, i);
            c[(size_t(blockIdx.x) * 64 + at.row) * 64 + at.column] = sums[i];
        }
    } else {
        give_registers<40>();
        for (int p = 0; p < pieces; p++) {
            if (p > 1) mbarrier_wait(empty.at(p % 2, 1), (p / 2 + 1) % 2);
            if (thread == 0) {
                mbarrier_expect(full.at(p % 2, 1), PIECE * 2);
                bulk_copy(right.at(p % 2 * PIECE, PIECE), b + (size_t(blockIdx.x) * pieces + p) * PIECE,
                          PIECE * 2, full.at(p % 2, 1));
                continue;
            }
            for (int i = thread - 1; i < PIECE; i += WARPGROUP - 1) {
                const int row = i / SWIZZLED, column = i % SWIZZLED;
                left[p % 2 * PIECE + swizzled(row, column)] = a[row * k + p * SWIZZLED + column];
            }
            proxy_fence();
            mbarrier_arrive(full.at(p % 2, 1));
        }
    }
}
EXPORT(check_warpgroup)

// c[64,128] = a[32,64]ᵀ b[32,128], bf16. 128 threads, 12288 + 8 bytes of shared memory.
KERNEL void check_warpgroup_transposed(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c) {
    constexpr int K = 32, BLOCK = K * SWIZZLED;
    const Shared<__nv_bfloat16> left = shared<__nv_bfloat16>(0, 2 * BLOCK);
    const Shared<__nv_bfloat16> right = shared<__nv_bfloat16>(4 * BLOCK, 4 * BLOCK);
    const Shared<uint64_t> barrier = shared<uint64_t>(12 * BLOCK, 1);
    const int thread = threadIdx.x;
    // From here on the stand-in tracks what is fenced.
    if (thread == 0) mbarrier_init(barrier.at(0, 1), 1);
    __syncthreads();
    const auto put = [&](Shared<__nv_bfloat16> to, const __nv_bfloat16* from, int columns) {
        for (int i = thread; i < K * columns; i += WARPGROUP) {
            const int row = i / columns, column = i % columns;
            to[column / SWIZZLED * BLOCK + swizzled(row, column % SWIZZLED)] = from[i];
        }
    };
    put(left, a, 64);
    put(right, b, 128);
    proxy_fence();
    __syncthreads();
    float sums[64] = {};
    wgmma_fence();
    for (int k = 0; k < K / 16; k++)
        wgmma<128, true>(sums, transposed_operand(left.at(0, 2 * BLOCK), 2 * BLOCK, k),
                         transposed_operand(right.at(0, 4 * BLOCK), 2 * BLOCK, k));
    wgmma_commit();
    wgmma_wait<0>(sums);
    for (int i = 0; i < 64; i++) {
        const Element at = wgmma_element(thread, i);
        c[at.row * 128 + at.column] = sums[i];
    }
}
EXPORT(check_warpgroup_transposed)

// Each half of a block passes a value on with its own barrier.
KERNEL void check_named(int* results) {
    const Shared<int> s = shared<int>(0, blockDim.x);
    const int thread = threadIdx.x, half = int(blockDim.x) / 2;
    for (int round = 0; round < (thread < half ? 2 : 3); round++) {
        s[thread] = round ? results[thread] : thread;
        named_barrier(1 + thread / half, half);
        results[thread] = s[thread / half * half + (thread + 1) % half];
        named_barrier(1 + thread / half, half);
    }
}
EXPORT(check_named)

// Two threads add to y, one after the other if something orders them. 64 threads, 8 bytes.
enum Order { BY_BLOCK, BY_NAMED, BY_MBARRIER, BY_WARP, BY_SHUFFLE, BY_NOTHING };
KERNEL void check_order(int* y, int order) {
    const Shared<uint64_t> barrier = shared<uint64_t>(0, 1);
    if (threadIdx.x == 0) mbarrier_init(barrier.at(0, 1), 1);
    __syncthreads();
    const bool other = threadIdx.x == (order == BY_WARP || order == BY_SHUFFLE ? 1 : 32);
    if (threadIdx.x == 0) {
        y[0] += 1;
        if (order == BY_MBARRIER) mbarrier_arrive(barrier.at(0, 1));
    }
    if (order == BY_BLOCK) __syncthreads();
    if (order == BY_NAMED) named_barrier(1, 64);
    if (order == BY_WARP) __syncwarp();
    if (order == BY_SHUFFLE) y[1 + threadIdx.x] = __shfl_xor_sync(~0u, int(threadIdx.x), 1);
    if (other && order == BY_MBARRIER) mbarrier_wait(barrier.at(0, 1), 0);
    if (other) y[0] += 1;
}
EXPORT(check_order)

// ---------------------------------------------------------------- bad kernels

// A barrier is missing: wrong under some order of threads, right under others.
KERNEL void bad_race(const float* x, float* y) {
    const Shared<float> s = shared<float>(0, blockDim.x);
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[(threadIdx.x + 1) % blockDim.x];
}
EXPORT(bad_race)

KERNEL void bad_deadlock(float* y) {
    float v = threadIdx.x;
    if (threadIdx.x != 3) v = __shfl_down_sync(0xffffffffu, v, 1);
    __syncthreads();
    y[threadIdx.x] = v;
}
EXPORT(bad_deadlock)

KERNEL void bad_barriers(float* y) {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}
EXPORT(bad_barriers)

KERNEL void bad_return(float* y) {
    if (threadIdx.x == 0) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}
EXPORT(bad_return)

KERNEL void bad_mask(float* y) { y[threadIdx.x] = __shfl_sync(0x0000ffffu, float(threadIdx.x), 0); }
EXPORT(bad_mask)

KERNEL void bad_meeting(int* y) {
    y[threadIdx.x] = threadIdx.x < 9 ? __any_sync(0xffffffffu, 1) : __shfl_sync(0xffffffffu, 1, 0);
}
EXPORT(bad_meeting)

KERNEL void bad_warp(float* c) {
    float d[4] = {};
    uint32_t a[4] = {}, b[2] = {};
    mma_m16n8k16_bf16(d, a, b);
    c[threadIdx.x] = d[0];
}
EXPORT(bad_warp)

KERNEL void bad_index(float* y) {
    const Shared<float> s = shared<float>(0, 32);
    s[threadIdx.x] = 0;
    y[threadIdx.x] = s[int(threadIdx.x) - 1];
}
EXPORT(bad_index)

KERNEL void bad_shared(float* y) { y[0] = shared<float>(64, 17)[0]; }
EXPORT(bad_shared)

KERNEL void bad_alignment(uint32_t* y) {
    const Shared<uint16_t> s = shared<uint16_t>(0, 1024);
    uint32_t r[4];
    ldmatrix_x4<false>(r, s.at(8 * threadIdx.x + 1, 8));
    y[threadIdx.x] = r[0];
}
EXPORT(bad_alignment)

// Two groups of copies, of which only the first is waited for; y: one value from each.
KERNEL void bad_wait(const float* x, float* y) {
    const Shared<float> s = shared<float>(0, 8);
    for (int i = 0; i < 8; i += 4) {
        cp_async_16(s.at(i, 4), x + i);
        cp_async_commit();
    }
    cp_async_wait<1>();
    y[0] = s[3];
    y[1] = s[4];
}
EXPORT(bad_wait)

// Reads shared memory that it has not written, though an earlier block may have.
KERNEL void bad_start(float* y) {
    const Shared<float> s = shared<float>(0, 1);
    y[blockIdx.x] = s[0];
    s[0] = 1;
}
EXPORT(bad_start)

KERNEL void bad_flag(int* y) {
    const Shared<volatile int> flag = shared<volatile int>(0, 1);
    flag[0] = 0;
    while (flag[0] == 0) __nanosleep(20);
    y[0] = 1;
}
EXPORT(bad_flag)

KERNEL void bad_trap(int* y) {
    y[threadIdx.x] = 1;
    if (threadIdx.x == 3) __trap();
}
EXPORT(bad_trap)

KERNEL void bad_before(float* y) { y[-1] = 1; }
EXPORT(bad_before)

KERNEL void bad_address(float** y) { *y[1] = 1; }
EXPORT(bad_address)

DEVICE int deeper(volatile int* depth) {
    volatile int frame[256];
    frame[*depth % 256] = *depth;
    *depth = *depth + 1;
    return *depth < 100000 ? deeper(depth) + frame[0] : 0;
}
KERNEL void bad_recursion(int* y) { y[0] = deeper(y + 1); }
EXPORT(bad_recursion)

// ---- of warpgroups, each with one mistake in the same product of two operands [64,32] of ones

enum Mistake {
    NONE,
    NO_WAIT,         // the results are used before the wait
    NO_FENCE,        // no wgmma.fence after accumulators were written
    NO_PROXY_FENCE,  // operands were written, and not fenced
    NO_BARRIER,      // … by others, which nobody waits for
    EARLY,           // an operand is overwritten before the wait
    UNEQUAL,         // a warp asks for another product
    MISALIGNED,      // an operand that does not begin with its pattern
    UNDONE,          // the kernel ends without a wait
};
// 128 threads, 8192 + 8 bytes.
KERNEL void bad_product(float* y, int mistake) {
    const Shared<__nv_bfloat16> left = shared<__nv_bfloat16>(0, 64 * SWIZZLED);
    const Shared<__nv_bfloat16> right = shared<__nv_bfloat16>(4096, 64 * SWIZZLED);
    const Shared<uint64_t> barrier = shared<uint64_t>(8192, 1);
    const int thread = threadIdx.x;
    if (thread == 0) mbarrier_init(barrier.at(0, 1), 1);
    __syncthreads();
    for (int i = thread; i < 64 * SWIZZLED; i += WARPGROUP)
        left[i] = right[i] = __float2bfloat16_rn(1);
    if (mistake != NO_PROXY_FENCE) proxy_fence();
    if (mistake != NO_BARRIER) __syncthreads();
    float sums[32] = {};
    if (mistake != NO_FENCE) wgmma_fence();
    const int skip = mistake == UNEQUAL && thread >= 96 ? 1 : 0;
    const int places = mistake == MISALIGNED ? 128 : 0;
    wgmma<64>(sums, swizzled_operand(left.at(places, 1), skip), swizzled_operand(right.at(0, 1), 0));
    wgmma_commit();
    if (mistake == EARLY) {
        right[thread] = __float2bfloat16_rn(9);
        proxy_fence();
    }
    if (mistake == UNDONE) return;
    if (mistake != NO_WAIT) wgmma_wait<0>(sums);
    float sum = 0;
    for (const float value : sums) sum += value;
    wgmma_wait<0>(sums);
    y[thread] = sum;
}
EXPORT(bad_product)

// Copies 64 floats to y via shared memory, with one mistake. 32 threads, 256 + 8 bytes.
enum Slip { NO_SLIP, NO_INIT_FENCE, NO_TRY_WAIT, NO_EXPECT, WRONG_BYTES, TWO_ARRIVALS, NO_INIT };
KERNEL void bad_bulk(const float* x, float* y, int slip) {
    const Shared<float> s = shared<float>(0, 64);
    const Shared<uint64_t> barrier = shared<uint64_t>(256, 1);
    if (threadIdx.x == 0) {
        if (slip != NO_INIT) mbarrier_init(barrier.at(0, 1), 1);
        if (slip != NO_INIT_FENCE) proxy_fence();
        if (slip != NO_EXPECT) mbarrier_expect(barrier.at(0, 1), slip == WRONG_BYTES ? 512 : 256);
        bulk_copy(s.at(0, 64), x, 256, barrier.at(0, 1));
        if (slip == TWO_ARRIVALS) {
            mbarrier_arrive(barrier.at(0, 1));
            mbarrier_arrive(barrier.at(0, 1));
        }
    }
    __syncthreads();
    if (slip != NO_TRY_WAIT) mbarrier_wait(barrier.at(0, 1), 0);
    y[threadIdx.x] = s[2 * threadIdx.x];
    mbarrier_wait(barrier.at(0, 1), 0);
}
EXPORT(bad_bulk)

KERNEL void bad_registers(float* y) {
    if (threadIdx.x < 96) give_registers<40>();
    y[threadIdx.x] = 0;
}
EXPORT(bad_registers)

KERNEL void bad_named(float* y) {
    named_barrier(1, 64);
    y[threadIdx.x] = 0;
}
EXPORT(bad_named)
