// Matrix products, a tile of 32×64 results to each block of 128 threads; sums are f32 always. T says what
// becomes of the operands: `float`, on CUDA cores, or on tensor cores rounded to `Bf16` or `Tf32`, or
// split into two bf16 each (`Bf16x3`: three products, nearly the digits of f32).
//
// Operands come through functions that give element (result index, summed index), so that a product
// gathers, adds up or converts on the way; elements outside the matrices are never asked for.
#pragma once

constexpr int TILE_ROWS = 32, TILE_COLUMNS = 64, TILE_DEPTH = 32;
constexpr int TILE_THREADS = 128;

using Bf16 = __nv_bfloat16;
struct Tf32 {};
struct Bf16x3 {};

// How activations are kept in memory for products of T.
template <class T>
struct StoredAs {
    using Type = float;
};
template <>
struct StoredAs<Bf16> {
    using Type = Bf16;
};
template <class T>
using Stored = typename StoredAs<T>::Type;

// Kernels `name_f32`, … of the function template `function`, with the attributes that follow.
#define EACH_PRECISION(name, Args, function, ...)                                  \
    KERNEL void __VA_ARGS__ name##_f32(Args args) { function<float>(args); }       \
    KERNEL void __VA_ARGS__ name##_bf16(Args args) { function<Bf16>(args); }       \
    KERNEL void __VA_ARGS__ name##_tf32(Args args) { function<Tf32>(args); }       \
    KERNEL void __VA_ARGS__ name##_bf16x3(Args args) { function<Bf16x3>(args); }   \
    EXPORT(name##_f32)                                                             \
    EXPORT(name##_bf16)                                                            \
    EXPORT(name##_tf32)                                                            \
    EXPORT(name##_bf16x3)

// -1, 0 or 1.
DEVICE float sign(float x) { return float(x > 0) - float(x < 0); }

DEVICE float widened(float x) { return x; }
DEVICE float widened(Bf16 x) { return __bfloat162float(x); }
DEVICE void narrow(float x, float& to) { to = x; }
DEVICE void narrow(float x, Bf16& to) { to = __float2bfloat16_rn(x); }

// What a block computes: results from (row, column) on of `rows` × `columns`, each the sum over
// `begin` … `end`.
struct Part {
    int row, rows;
    int column, columns;
    int begin, end;
};

// Which index of an operand has its neighbours side by side in memory: the summed one, or that of the
// results. Neighbouring threads read along it.
enum class Inner { sum, result };

// ---------------------------------------------------------------- from memory to shared memory

// An element of an operand's tile.
struct Place {
    int outer, k;  // index of the results, summed index
};

// Element number `i` that this thread fetches. Along the sum, a warp reads 4 × 8 elements: whole
// sectors of 32 bytes, and different banks of shared memory in both layouts below.
template <int WIDTH, Inner I>
DEVICE Place fetched(int i) {
    const int t = int(threadIdx.x);
    if constexpr (I == Inner::sum)
        return {t / 8 + TILE_THREADS / 8 * (i / 4), t % 8 + 8 * (i % 4)};
    else
        return {t % WIDTH, t / WIDTH + TILE_THREADS / WIDTH * i};
}

template <int WIDTH>
struct Fetched {
    static constexpr int COUNT = WIDTH * TILE_DEPTH / TILE_THREADS;
    float value[COUNT];
};

template <int WIDTH, Inner I, class Load>
DEVICE void fetch(Fetched<WIDTH>& held, int outer, int outers, int k, int end, Load load) {
    UNROLL
    for (int i = 0; i < held.COUNT; i++) {
        const Place place = fetched<WIDTH, I>(i);
        const int o = outer + place.outer, s = k + place.k;
        held.value[i] = o < outers && s < end ? load(o, s) : 0.0f;
    }
}

// ---------------------------------------------------------------- a thread's share of a tile

template <class T>
struct Tile;

// f32: 4×4 results a thread.
template <>
struct Tile<float> {
    using Cell = float;
    float results[4][4];
    float sums[4];  // of the first operand's rows

    // Tiles lie [summed index][result index]; 4 more words than columns spread the banks.
    template <int WIDTH, Inner>
    static constexpr int SIZE = TILE_DEPTH * (WIDTH + 4);
    template <int WIDTH, Inner>
    static __device__ __forceinline__ int at(Place place) {
        return place.k * (WIDTH + 4) + place.outer;
    }
    template <int WIDTH, Inner I>
    static __device__ __forceinline__ void store(Shared<float> to, Place place, float x) {
        to[at<WIDTH, I>(place)] = x;
    }

    // Row and column in the tile of results[i][j]; j and j + 1 are neighbours for even j.
    static __device__ __forceinline__ Element element(int i, int j) {
        const int t = int(threadIdx.x);
        return {4 * (t / 16) + i, 4 * (t % 16) + j};
    }
    // Row of sums[i], or -1 where another thread has it.
    static __device__ __forceinline__ int sum_row(int i) {
        return threadIdx.x % 16 == 0 ? element(i, 0).row : -1;
    }

    template <Inner A, Inner B>
    __device__ __forceinline__ void multiply(Shared<float> a, Shared<float> b, bool with_sums) {
        const Element first = element(0, 0);
        UNROLL
        for (int k = 0; k < TILE_DEPTH; k++) {
            const float4 a4 = *reinterpret_cast<const float4*>(
                a.at(at<TILE_ROWS, A>({first.row, k}), 4));
            const float4 b4 = *reinterpret_cast<const float4*>(
                b.at(at<TILE_COLUMNS, B>({first.column, k}), 4));
            const float x[4] = {a4.x, a4.y, a4.z, a4.w}, y[4] = {b4.x, b4.y, b4.z, b4.w};
            UNROLL
            for (int i = 0; i < 4; i++) {
                UNROLL
                for (int j = 0; j < 4; j++) results[i][j] += x[i] * y[j];
            }
            if (with_sums) {
                UNROLL
                for (int i = 0; i < 4; i++) sums[i] += x[i];
            }
        }
    }
};

// On tensor cores each of four warps has 16×32 results, results[i] the fragment of columns 8 i ….
struct WarpTile {
    float results[4][4];
    float sums[4];  // fragment of the product with a matrix of ones

    // First row and column of this warp.
    static __device__ __forceinline__ Element corner() {
        const int warp = int(threadIdx.x) / 32;
        return {16 * (warp / 2), 32 * (warp % 2)};
    }
    static __device__ __forceinline__ Element element(int i, int j) {
        const Element first = corner();
        const Element e = accumulator_element(int(threadIdx.x) % 32, j);
        return {first.row + e.row, first.column + 8 * i + e.column};
    }
    static __device__ __forceinline__ int sum_row(int i) {
        const Element e = element(0, i);
        return e.column == 0 ? e.row : -1;
    }
};

// Operands as sums of PARTS numbers in bf16, each in a plane of its own; products of two small parts
// are left out.
template <int PARTS>
struct BfTile : WarpTile {
    using Cell = Bf16;
    // Planes lie as in memory; rows are an odd number of 16 bytes apart, for ldmatrix.
    template <int WIDTH, Inner I>
    static constexpr int PLANE =
        I == Inner::sum ? WIDTH * (TILE_DEPTH + 8) : TILE_DEPTH * (WIDTH + 8);
    template <int WIDTH, Inner I>
    static constexpr int SIZE = PARTS * PLANE<WIDTH, I>;
    template <int WIDTH, Inner I>
    static __device__ __forceinline__ int at(Place place) {
        if constexpr (I == Inner::sum)
            return place.outer * (TILE_DEPTH + 8) + place.k;
        else
            return place.k * (WIDTH + 8) + place.outer;
    }
    template <int WIDTH, Inner I>
    static __device__ __forceinline__ void store(Shared<Bf16> to, Place place, float x) {
        UNROLL
        for (int part = 0; part < PARTS; part++) {
            Bf16& cell = to[part * PLANE<WIDTH, I> + at<WIDTH, I>(place)];
            const Bf16 rounded = __float2bfloat16_rn(x);
            cell = rounded;
            x -= widened(rounded);
        }
    }

    template <Inner A, Inner B>
    __device__ __forceinline__ void multiply(Shared<Bf16> a, Shared<Bf16> b, bool with_sums) {
        const Element first = corner();
        // Of the four 8×8 matrices of an ldmatrix: row `l` of matrix `high`, `low`.
        const int lane = int(threadIdx.x) % 32;
        const int l = lane % 8, low = lane / 8 % 2, high = lane / 16;
        UNROLL
        for (int k = 0; k < TILE_DEPTH; k += 16) {
            // Matrices in the order of the fragment's registers: rows 0…, rows 8…, then k 8….
            uint32_t x[PARTS][4];
            const Place left = A == Inner::sum ? Place{first.row + 8 * low + l, k + 8 * high}
                                               : Place{first.row + 8 * low, k + 8 * high + l};
            UNROLL
            for (int part = 0; part < PARTS; part++)
                ldmatrix_x4<A == Inner::result>(
                    x[part], a.at(part * PLANE<TILE_ROWS, A> + at<TILE_ROWS, A>(left), 8));
            UNROLL
            for (int i = 0; i < 4; i += 2) {
                const int column = first.column + 8 * i + 8 * high;
                const Place right = B == Inner::sum ? Place{column + l, k + 8 * low}
                                                    : Place{column, k + 8 * low + l};
                UNROLL
                for (int part = 0; part < PARTS; part++) {
                    // Two fragments: columns 0… with k 0…, with k 8…, then columns 8….
                    uint32_t y[4];
                    ldmatrix_x4<B == Inner::result>(
                        y, b.at(part * PLANE<TILE_COLUMNS, B> + at<TILE_COLUMNS, B>(right), 8));
                    const uint32_t even[2] = {y[0], y[1]}, odd[2] = {y[2], y[3]};
                    UNROLL
                    for (int other = 0; other < PARTS - part; other++) {
                        mma_m16n8k16_bf16(results[i], x[other], even);
                        mma_m16n8k16_bf16(results[i + 1], x[other], odd);
                    }
                }
            }
            if (with_sums) {
                const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};
                UNROLL
                for (int part = 0; part < PARTS; part++) mma_m16n8k16_bf16(sums, x[part], ones);
            }
        }
    }
};
template <>
struct Tile<Bf16> : BfTile<1> {};
template <>
struct Tile<Bf16x3> : BfTile<2> {};

// tf32: the same share of results, operands of four bytes.
template <>
struct Tile<Tf32> : WarpTile {
    using Cell = uint32_t;
    // Tiles lie as in memory, with rows that spread the lanes of a fragment over the banks.
    template <int WIDTH, Inner I>
    static constexpr int SIZE =
        I == Inner::sum ? WIDTH * (TILE_DEPTH + 4) : TILE_DEPTH * (WIDTH + 8);
    template <int WIDTH, Inner I>
    static __device__ __forceinline__ int at(Place place) {
        if constexpr (I == Inner::sum)
            return place.outer * (TILE_DEPTH + 4) + place.k;
        else
            return place.k * (WIDTH + 8) + place.outer;
    }
    template <int WIDTH, Inner I>
    static __device__ __forceinline__ void store(Shared<uint32_t> to, Place place, float x) {
        to[at<WIDTH, I>(place)] = tf32(x);
    }

    template <Inner A, Inner B>
    __device__ __forceinline__ void multiply(Shared<uint32_t> a, Shared<uint32_t> b, bool with_sums) {
        const Element first = corner();
        const int lane = int(threadIdx.x) % 32;
        UNROLL
        for (int k = 0; k < TILE_DEPTH; k += 8) {
            uint32_t x[4];
            UNROLL
            for (int i = 0; i < 4; i++) {
                const Element e = a8_element(lane, i);
                x[i] = a[at<TILE_ROWS, A>({first.row + e.row, k + e.column})];
            }
            UNROLL
            for (int n = 0; n < 4; n++) {
                uint32_t y[2];
                UNROLL
                for (int i = 0; i < 2; i++) {
                    const Element e = b8_element(lane, i);
                    y[i] = b[at<TILE_COLUMNS, B>({first.column + 8 * n + e.column, k + e.row})];
                }
                mma_m16n8k8_tf32(results[n], x, y);
            }
            if (with_sums) {
                const uint32_t ones[2] = {0x3f800000u, 0x3f800000u};
                mma_m16n8k8_tf32(sums, x, ones);
            }
        }
    }
};

// ---------------------------------------------------------------- the product

// Dynamic shared memory of a kernel with products: two buffers for the largest of the tiles.
constexpr size_t TILE_SHARED = 2 * sizeof(Bf16) *
                               (BfTile<2>::SIZE<TILE_ROWS, Inner::sum> +
                                BfTile<2>::SIZE<TILE_COLUMNS, Inner::sum>);

// This thread's results of Σ a(row, k) · b(column, k); with `sums` also Σ a(row, k). Every thread of
// the block calls; shared memory is free again after the next barrier.
template <class T, Inner A, Inner B, class LoadA, class LoadB>
DEVICE Tile<T> product(const Part& part, bool sums, LoadA load_a, LoadB load_b) {
    using Cell = typename Tile<T>::Cell;
    constexpr int A_SIZE = Tile<T>::template SIZE<TILE_ROWS, A>;
    constexpr int B_SIZE = Tile<T>::template SIZE<TILE_COLUMNS, B>;
    static_assert(2 * sizeof(Cell) * (A_SIZE + B_SIZE) <= TILE_SHARED);
    const Shared<Cell> a = shared<Cell>(0, 2 * A_SIZE);
    const Shared<Cell> b = shared<Cell>(2 * A_SIZE * sizeof(Cell), 2 * B_SIZE);
    Tile<T> tile = {};
    Fetched<TILE_ROWS> next_a;
    Fetched<TILE_COLUMNS> next_b;
    const auto fetch_both = [&](int k) {
        fetch<TILE_ROWS, A>(next_a, part.row, part.rows, k, part.end, load_a);
        fetch<TILE_COLUMNS, B>(next_b, part.column, part.columns, k, part.end, load_b);
    };
    fetch_both(part.begin);
    // Two buffers and one barrier a round: what is overwritten was read before the last barrier.
    int buffer = 0;
    for (int k = part.begin; k < part.end; k += TILE_DEPTH) {
        const Shared<Cell> a_now = a + buffer * A_SIZE, b_now = b + buffer * B_SIZE;
        UNROLL
        for (int i = 0; i < next_a.COUNT; i++)
            Tile<T>::template store<TILE_ROWS, A>(a_now, fetched<TILE_ROWS, A>(i), next_a.value[i]);
        UNROLL
        for (int i = 0; i < next_b.COUNT; i++)
            Tile<T>::template store<TILE_COLUMNS, B>(b_now, fetched<TILE_COLUMNS, B>(i),
                                                     next_b.value[i]);
        __syncthreads();
        // On its way while the tile is multiplied.
        if (k + TILE_DEPTH < part.end) fetch_both(k + TILE_DEPTH);
        tile.template multiply<A, B>(a_now, b_now, sums);
        buffer ^= 1;
    }
    return tile;
}

// Calls `use(row, column, result)` for the results of this thread.
template <class T, class Use>
DEVICE void each(const Tile<T>& tile, const Part& part, Use use) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            const Element e = tile.element(i, j);
            const int row = part.row + e.row, column = part.column + e.column;
            if (row < part.rows && column < part.columns) use(row, column, tile.results[i][j]);
        }
    }
}

// Calls `use(row, column, first, second)` for the results in columns `column` (even) and `column` + 1;
// the number of columns is even.
template <class T, class Use>
DEVICE void each_pair(const Tile<T>& tile, const Part& part, Use use) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        UNROLL
        for (int j = 0; j < 4; j += 2) {
            const Element e = tile.element(i, j);
            const int row = part.row + e.row, column = part.column + e.column;
            if (row < part.rows && column < part.columns)
                use(row, column, tile.results[i][j], tile.results[i][j + 1]);
        }
    }
}

// Calls `use(row, sum)` for the sums of this thread.
template <class T, class Use>
DEVICE void each_sum(const Tile<T>& tile, const Part& part, Use use) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int row = tile.sum_row(i);
        if (row >= 0 && part.row + row < part.rows) use(part.row + row, tile.sums[i]);
    }
}

// The sum over the threads of a block of TILE_THREADS, in a fixed order; thread 0 gets it.
DEVICE double block_sum(double x) {
    UNROLL
    for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(~0u, x, bits);
    const Shared<double> warps = shared<double>(0, TILE_THREADS / 32);
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0;
    if (threadIdx.x == 0)
        for (int warp = 0; warp < TILE_THREADS / 32; warp++) sum += warps[warp];
    return sum;
}

// ---------------------------------------------------------------- parts of loads and of results

// The tile of block (x, y) in a product of these sizes.
DEVICE Part tile_of(unsigned rows, unsigned columns, unsigned depth) {
    return {int(blockIdx.x) * TILE_ROWS,    int(rows),    int(blockIdx.y) * TILE_COLUMNS,
            int(columns), 0, int(depth)};
}

// Stores an activation where it goes: as f32, or, where that pointer is null, in bf16.
DEVICE void put(float* wide, Bf16* rounded, size_t at, float value) {
    if (wide)
        wide[at] = value;
    else
        narrow(value, rounded[at]);
}

// Element `column` of the sum of `group` rows from `first` on.
template <class T>
DEVICE float summed(const T* first, unsigned group, size_t row, int column) {
    float sum = widened(first[column]);
    for (unsigned g = 1; g < group; g++) sum += widened(first[g * row + column]);
    return sum;
}
