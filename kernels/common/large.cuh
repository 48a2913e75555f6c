// Products of large matrices in bf16: a tile of 128×128 results to each block of 256 threads. Operands
// are on their way to shared memory while those before them are multiplied; sums are f32.
//
// Rows in memory begin on 16 bytes and have a multiple of 8 elements; where that is more than the matrix
// has, the rest is zero.
#pragma once

constexpr int LARGE = 128, LARGE_DEPTH = 32;
constexpr int LARGE_THREADS = 256;
constexpr int LARGE_STAGES = 3;

// An operand: element (index of the results, summed index) is at[index · row + sum] if its neighbours
// along the sum lie side by side (Inner::sum), else at[sum · row + index].
struct LargeOperand {
    const Bf16* at;
    size_t row;
    int count;  // indices of the results
};

template <Inner I>
constexpr int LARGE_SIZE = I == Inner::sum ? LARGE * (LARGE_DEPTH + 8) : LARGE_DEPTH * (LARGE + 8);
// Rows in shared memory are an odd number of 16 bytes apart, for ldmatrix.
template <Inner I>
DEVICE int large_at(int outer, int k) {
    return I == Inner::sum ? outer * (LARGE_DEPTH + 8) + k : k * (LARGE + 8) + outer;
}

// Dynamic shared memory of a kernel with such products: as the Rust that launches it has it.
constexpr size_t LARGE_SHARED = 61440;

// Starts to copy a tile; zeros where the operand ends.
template <Inner I>
DEVICE void large_fetch(Shared<Bf16> to, const LargeOperand& from, int outer, int k, int end) {
    UNROLL
    for (int i = 0; i < LARGE * LARGE_DEPTH / 8 / LARGE_THREADS; i++) {
        const int piece = int(threadIdx.x) + LARGE_THREADS * i;
        const int o = I == Inner::sum ? piece / (LARGE_DEPTH / 8) : piece % (LARGE / 8) * 8;
        const int s = I == Inner::sum ? piece % (LARGE_DEPTH / 8) * 8 : piece / (LARGE / 8);
        Bf16* const target = to.at(large_at<I>(o, s), 8);
        const size_t index = size_t(outer + o), sum = size_t(k + s);
        if (outer + o < from.count && k + s < end)
            cp_async_16(target, from.at + (I == Inner::sum ? index * from.row + sum
                                                           : sum * from.row + index));
        else
            *reinterpret_cast<uint4*>(target) = make_uint4(0, 0, 0, 0);
    }
}

// A thread's share: its warp has 64×32 results, results[m][n] the fragment of rows 16 m … and columns
// 8 n …; sums[m] that of the product with a matrix of ones.
struct LargeTile {
    float results[4][4][4];
    float sums[4][4];

    static __device__ __forceinline__ Element corner() {
        const int warp = int(threadIdx.x) / 32;
        return {64 * (warp / 4), 32 * (warp % 4)};
    }
};

template <Inner A, Inner B>
DEVICE void large_multiply(LargeTile& tile, Shared<Bf16> a, Shared<Bf16> b, bool sums) {
    const Element first = LargeTile::corner();
    // Of the four 8×8 matrices of an ldmatrix: row `l` of matrix `high`, `low`.
    const int lane = int(threadIdx.x) % 32, l = lane % 8, low = lane / 8 % 2, high = lane / 16;
    UNROLL
    for (int k = 0; k < LARGE_DEPTH; k += 16) {
        uint32_t y[4][2];
        UNROLL
        for (int n = 0; n < 4; n += 2) {
            // Two fragments: columns 0… with k 0…, with k 8…, then columns 8….
            uint32_t pair[4];
            const int column = first.column + 8 * n + 8 * high;
            const int at = B == Inner::sum ? large_at<B>(column + l, k + 8 * low)
                                           : large_at<B>(column, k + 8 * low + l);
            ldmatrix_x4<B == Inner::result>(pair, b.at(at, 8));
            y[n][0] = pair[0], y[n][1] = pair[1], y[n + 1][0] = pair[2], y[n + 1][1] = pair[3];
        }
        UNROLL
        for (int m = 0; m < 4; m++) {
            // Matrices in the order of the fragment's registers: rows 0…, rows 8…, then k 8….
            uint32_t x[4];
            const int row = first.row + 16 * m + 8 * low;
            const int at = A == Inner::sum ? large_at<A>(row + l, k + 8 * high)
                                           : large_at<A>(row, k + 8 * high + l);
            ldmatrix_x4<A == Inner::result>(x, a.at(at, 8));
            UNROLL
            for (int n = 0; n < 4; n++) mma_m16n8k16_bf16(tile.results[m][n], x, y[n]);
            if (sums) {
                const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};
                mma_m16n8k16_bf16(tile.sums[m], x, ones);
            }
        }
    }
}

// This thread's results of Σ a(row, k) · b(column, k) for k in begin … end; with `sums`, in the warps of
// the first columns, also Σ a(row, k). Every thread of the block calls.
template <Inner A, Inner B>
DEVICE LargeTile large_product(const LargeOperand& a, const LargeOperand& b, int row, int column,
                               int begin, int end, bool sums) {
    constexpr int A_SIZE = LARGE_SIZE<A>, B_SIZE = LARGE_SIZE<B>;
    static_assert(LARGE_STAGES * (A_SIZE + B_SIZE) * sizeof(Bf16) <= LARGE_SHARED);
    const Shared<Bf16> a_at = shared<Bf16>(0, LARGE_STAGES * A_SIZE);
    const Shared<Bf16> b_at =
        shared<Bf16>(LARGE_STAGES * A_SIZE * sizeof(Bf16), LARGE_STAGES * B_SIZE);
    LargeTile tile = {};
    const bool with_sums = sums && LargeTile::corner().column == 0;
    const int rounds = (end - begin + LARGE_DEPTH - 1) / LARGE_DEPTH;
    const auto fetch = [&](int round) {
        if (round < rounds) {
            const int stage = round % LARGE_STAGES, k = begin + round * LARGE_DEPTH;
            large_fetch<A>(a_at + stage * A_SIZE, a, row, k, end);
            large_fetch<B>(b_at + stage * B_SIZE, b, column, k, end);
        }
        // Also without a copy: the wait below counts groups.
        cp_async_commit();
    };
    UNROLL
    for (int round = 0; round < LARGE_STAGES - 1; round++) fetch(round);
    for (int round = 0; round < rounds; round++) {
        cp_async_wait<LARGE_STAGES - 2>();
        // Everyone's copies have arrived, and everyone is done with the stage that is filled next.
        __syncthreads();
        fetch(round + LARGE_STAGES - 1);
        const int stage = round % LARGE_STAGES;
        large_multiply<A, B>(tile, a_at + stage * A_SIZE, b_at + stage * B_SIZE, with_sums);
    }
    return tile;
}

// Calls `use(row, column, first, second)` for the results in columns `column` (even) and `column` + 1
// that are inside `rows` × `columns`, of which the latter is even.
template <class Use>
DEVICE void large_each(const LargeTile& tile, int row, int rows, int column, int columns, Use use) {
    const Element first = LargeTile::corner();
    UNROLL
    for (int m = 0; m < 4; m++) {
        UNROLL
        for (int n = 0; n < 4; n++) {
            UNROLL
            for (int i = 0; i < 4; i += 2) {
                const Element e = accumulator_element(int(threadIdx.x) % 32, i);
                const int r = row + first.row + 16 * m + e.row;
                const int c = column + first.column + 8 * n + e.column;
                if (r < rows && c < columns)
                    use(r, c, tile.results[m][n][i], tile.results[m][n][i + 1]);
            }
        }
    }
}

// Calls `use(row, sum)` for the sums of this thread.
template <class Use>
DEVICE void large_each_sum(const LargeTile& tile, int row, int rows, Use use) {
    const Element first = LargeTile::corner();
    if (first.column != 0) return;
    UNROLL
    for (int m = 0; m < 4; m++) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const Element e = accumulator_element(int(threadIdx.x) % 32, i);
            const int r = row + first.row + 16 * m + e.row;
            if (e.column == 0 && r < rows) use(r, tile.sums[m][i]);
        }
    }
}
