// The radius graph in a periodic box, with a cell list. Mathematics, CPU twin and tests: src/ops/neighbours/.
#include "common/device.cuh"

struct NeighboursArgs {
    const float* positions;          // [node, 3]
    unsigned* cell_count;            // [cell] nodes of each
    unsigned* rank;                  // [node] its place in its cell
    unsigned long long* cell_start;  // [cell + 1]
    float4* sorted;                  // [node] cell after cell: x, y, z and the bits of the number
    unsigned* degree;                // [node] neighbours of each
    unsigned long long* row_start;   // [node + 1]
    unsigned* senders;               // [edge]
    double edge, radius;
    double scale;  // cells per unit of length
    unsigned side;  // cells along each axis
    unsigned nodes;
};
LAYOUT(NeighboursArgs, positions, cell_count, rank, cell_start, sorted, degree, row_start, senders,
       edge, radius, scale, side, nodes)

struct ScanArgs {
    const unsigned* counts;      // [len]
    unsigned long long* starts;  // [len + 1] the sums of what comes before, and of all
    unsigned long long len;
};
LAYOUT(ScanArgs, counts, starts, len)

constexpr unsigned WARP = 32, ALL = 0xffffffffu;

// The cell of a coordinate; the number of cells along an axis comes from the host.
DEVICE unsigned along(const NeighboursArgs& args, float x) {
    return min(unsigned(double(x) * args.scale), args.side - 1);
}

DEVICE size_t cell_of(const NeighboursArgs& args, const float* row) {
    size_t cell = 0;
    for (int axis = 0; axis < 3; axis++) cell = cell * args.side + along(args, row[axis]);
    return cell;
}

// The place of each node in its cell, one thread for each. Which of a cell's nodes is first depends on the order of
// threads; the rows do not, since they are sorted.
KERNEL void neighbours_place(NeighboursArgs args) {
    const unsigned node = blockIdx.x * blockDim.x + threadIdx.x;
    if (node >= args.nodes) return;
    const size_t cell = cell_of(args, args.positions + 3 * size_t(node));
    args.rank[node] = atomicAdd(&args.cell_count[cell], 1u);
}
EXPORT(neighbours_place)

// Prefix sums, by one block of SCAN_THREADS, PER_THREAD at a time for each thread.
KERNEL void neighbours_scan(ScanArgs args) {
    constexpr unsigned SCAN_THREADS = 1024, PER_THREAD = 8;
    const unsigned thread = threadIdx.x;
    const Shared<unsigned long long> sums = shared<unsigned long long>(0, SCAN_THREADS);
    unsigned long long before = 0;
    for (size_t first = 0; first < args.len; first += SCAN_THREADS * PER_THREAD) {
        const size_t own = first + size_t(thread) * PER_THREAD;
        unsigned counts[PER_THREAD];
        unsigned long long sum = 0;
        UNROLL
        for (unsigned k = 0; k < PER_THREAD; k++) {
            counts[k] = own + k < args.len ? args.counts[own + k] : 0;
            sum += counts[k];
        }
        // The sums of this thread and of all before it.
        unsigned long long to_here = sum;
        sums[thread] = to_here;
        __syncthreads();
        for (unsigned step = 1; step < SCAN_THREADS; step *= 2) {
            if (thread >= step) to_here += sums[thread - step];
            __syncthreads();
            sums[thread] = to_here;
            __syncthreads();
        }
        unsigned long long start = before + to_here - sum;
        UNROLL
        for (unsigned k = 0; k < PER_THREAD; k++) {
            if (own + k < args.len) args.starts[own + k] = start;
            start += counts[k];
        }
        before += sums[SCAN_THREADS - 1];
        __syncthreads();
    }
    if (thread == 0) args.starts[args.len] = before;
}
EXPORT(neighbours_scan)

// Puts each node in its place in the cells, one thread for each.
KERNEL void neighbours_sort(NeighboursArgs args) {
    const unsigned node = blockIdx.x * blockDim.x + threadIdx.x;
    if (node >= args.nodes) return;
    const float* row = args.positions + 3 * size_t(node);
    args.sorted[args.cell_start[cell_of(args, row)] + args.rank[node]] =
        make_float4(row[0], row[1], row[2], __uint_as_float(node));
}
EXPORT(neighbours_sort)

// The square of the shorter distance along an axis; each operation is rounded separately.
DEVICE double square(const NeighboursArgs& args, float a, float b) {
    const double plain = fabs(double(a) - double(b)), around = args.edge - plain;
    const double distance = around < plain ? around : plain;
    return __dmul_rn(distance, distance);
}

// Cells begin … end - 1, up to one step from `cell` along an axis, each once: two ranges, the second often empty.
struct Around {
    unsigned begin[2], end[2];
};

DEVICE Around around(const NeighboursArgs& args, unsigned cell) {
    const unsigned side = args.side;
    if (side <= 3) return {{0, 0}, {side, 0}};
    if (cell == 0) return {{0, side - 1}, {2, side}};
    if (cell == side - 1) return {{cell - 1, 0}, {side, 1}};
    return {{cell - 1, 0}, {cell + 2, 0}};
}

// Calls `use(mask, number)` for 32 candidates of a node at a time: the lanes with a neighbour, and the number of this
// lane's. Called by all lanes of the warp.
template <class Use>
DEVICE void candidates(const NeighboursArgs& args, float4 centre, Use use) {
    const unsigned lane = threadIdx.x % WARP;
    const double limit = __dmul_rn(args.radius, args.radius);
    const Around xs = around(args, along(args, centre.x));
    const Around ys = around(args, along(args, centre.y));
    const Around zs = around(args, along(args, centre.z));
    for (int i = 0; i < 2; i++)
        for (unsigned x = xs.begin[i]; x < xs.end[i]; x++)
            for (int j = 0; j < 2; j++)
                for (unsigned y = ys.begin[j]; y < ys.end[j]; y++)
                    for (int k = 0; k < 2; k++) {
                        if (zs.begin[k] == zs.end[k]) continue;
                        const unsigned long long* column =
                            args.cell_start + (size_t(x) * args.side + y) * args.side;
                        const size_t begin = column[zs.begin[k]], end = column[zs.end[k]];
                        for (size_t first = begin; first < end; first += WARP) {
                            bool joined = false;
                            unsigned number = 0;
                            if (first + lane < end) {
                                const float4 other = args.sorted[first + lane];
                                number = __float_as_uint(other.w);
                                const double distance = square(args, centre.x, other.x) +
                                                        square(args, centre.y, other.y) +
                                                        square(args, centre.z, other.z);
                                joined = distance <= limit && number != __float_as_uint(centre.w);
                            }
                            const unsigned mask = __ballot_sync(ALL, joined);
                            if (mask) use(mask, number);
                        }
                    }
}

// The neighbours of each node, one warp for each.
KERNEL void neighbours_count(NeighboursArgs args) {
    const size_t place = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (place >= args.nodes) return;
    const float4 centre = args.sorted[place];
    unsigned degree = 0;
    candidates(args, centre, [&](unsigned mask, unsigned) { degree += __popc(mask); });
    if (threadIdx.x % WARP == 0) args.degree[__float_as_uint(centre.w)] = degree;
}
EXPORT(neighbours_count)

// Sorts `len` numbers with one warp: a bitonic network in which the smaller number always moves down, so that elements
// beyond the end, which would be larger than all, need not exist.
template <class Numbers>
DEVICE void sort(Numbers numbers, unsigned len) {
    const unsigned lane = threadIdx.x % WARP;
    // Orders the numbers whose places differ by the bits of `mirror`; bit `top` is the highest of these.
    const auto step = [&](unsigned top, unsigned mirror) {
        for (unsigned k = lane;; k += WARP) {
            // The k-th place without the bit.
            const unsigned low = k >> top << (top + 1) | (k & ((1u << top) - 1));
            if (low >= len) break;
            const unsigned high = low ^ mirror;
            if (high < len && numbers[high] < numbers[low]) {
                const unsigned larger = numbers[low];
                numbers[low] = numbers[high];
                numbers[high] = larger;
            }
        }
        __syncwarp(ALL);
    };
    for (unsigned top = 0; len > 1u << top; top++) {
        step(top, (2u << top) - 1);
        for (unsigned next = top; next-- > 0;) step(next, 1u << next);
    }
}

// The longest row sorted in shared memory.
constexpr unsigned ROOM = 512;

// The senders of each node, ascending, one warp for each.
KERNEL void neighbours_write(NeighboursArgs args) {
    const size_t place = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (place >= args.nodes) return;
    const float4 centre = args.sorted[place];
    const unsigned lane = threadIdx.x % WARP, below = (1u << lane) - 1;
    const unsigned long long* ends = args.row_start + __float_as_uint(centre.w);
    unsigned* row = args.senders + ends[0];
    const unsigned len = unsigned(ends[1] - ends[0]);
    const auto list = [&](auto numbers) {
        unsigned found = 0;
        candidates(args, centre, [&](unsigned mask, unsigned number) {
            if (mask & (below + 1)) numbers[found + __popc(mask & below)] = number;
            found += __popc(mask);
        });
        __syncwarp(ALL);
        sort(numbers, len);
    };
    if (len > ROOM) return list(row);
    const Shared<unsigned> numbers = shared<unsigned>(threadIdx.x / WARP * ROOM * sizeof(unsigned), ROOM);
    list(numbers);
    for (unsigned k = lane; k < len; k += WARP) row[k] = numbers[k];
}
EXPORT(neighbours_write)
