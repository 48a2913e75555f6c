// What async.h declares. State lives as long as a block; its fibers share one OS thread.
#include "async.h"

#include <deque>
#include <map>
#include <memory>

#include "races.h"

namespace simt {

namespace {

constexpr size_t MOST_SHARED = 227 << 10;
constexpr unsigned GROUP = 128;  // threads of a warpgroup
// What an initialised barrier looks like in memory.
constexpr uint64_t MARK = 0x6c61777362617272;

using Waiters = std::vector<Thread*>;

void wake_all(Waiters& waiters) {
    for (Thread* waiter : waiters) wake(*waiter);
    waiters.clear();
}

void sleep_among(Waiters& waiters, const char* what, const Where& where) {
    waiters.push_back(thread);
    sleep(what, where);
}

struct Barrier {
    unsigned count;
    int pending;     // arrivals that are missing
    int64_t bytes;   // that are missing
    unsigned phase;  // that is going on
    Waiters waiters;
    races::Clock arrived, passed;  // of the phase that is going on, and of those before
};

struct Bulk {
    void* target;
    const void* source;
    size_t bytes;
    size_t barrier;
    races::Clock written;
};

struct Named {
    unsigned count, arrived;
    Waiters waiters;
    races::Clock coming, passed;  // of those that wait, and of those that have met
};

// Accumulators of a warpgroup that take part in some operations.
struct Sums {
    unsigned n;
    std::vector<float> values;            // [64, n]
    std::vector<float*> of;               // registers of each thread, null where it has not come yet
    std::vector<bool> back;               // threads that have theirs again
    unsigned left = GROUP;                // threads that have not
};

// A product that all threads of a warpgroup ask for.
struct Product {
    Where where;
    uint64_t a, b;
    unsigned n;
    bool transposed;
    std::shared_ptr<Sums> sums;
    unsigned joined;
    bool read, done;
    std::vector<uint16_t> left, right;  // operands, once they are read
};

struct Registers {
    unsigned count;
    Where where;
};

struct Group {
    std::deque<Product> products;
    size_t first = 0;  // number of the front
    std::vector<std::shared_ptr<Sums>> sums;
    size_t issued[GROUP] = {};
    std::vector<size_t> commits[GROUP];  // what was issued when a thread committed
    bool fenced[GROUP] = {};
    Waiters waiters;
    std::vector<Registers> registers;
    size_t adjusted[GROUP] = {};
    PlaceOf place;
};

struct Piece {
    size_t begin, bytes;
};

struct Units {
    std::map<size_t, Barrier> barriers;  // by place in shared memory
    std::vector<Bulk> copies;
    std::map<unsigned, Named> named;
    Group groups[8];
    std::vector<Piece> touched[1024];  // by each thread since its last fence
    std::vector<unsigned char> seen;   // shared memory as the asynchronous proxy sees it
};
thread_local std::unique_ptr<Units> units;

Units& mine() {
    if (!units) units = std::make_unique<Units>();
    return *units;
}

size_t place_of(const volatile void* pointer) {
    return size_t(static_cast<const volatile unsigned char*>(pointer) - block.shared);
}

Barrier& barrier_at(const void* pointer, const char* what, const Where& where) {
    const auto found = mine().barriers.find(place_of(pointer));
    if (found == mine().barriers.end()) fail(where, "%s on what is no mbarrier", what);
    // Users of a barrier must know that it has been made; in this sense they only read it.
    races::read(pointer, 8, where);
    return found->second;
}

void end_phase(Barrier& barrier) {
    if (barrier.pending || barrier.bytes) return;
    barrier.phase++;
    races::join(barrier.passed, barrier.arrived);
    barrier.pending = int(barrier.count);
    wake_all(barrier.waiters);
}

void make(size_t index) {
    Units& u = mine();
    const Bulk copy = u.copies[index];
    u.copies.erase(u.copies.begin() + ptrdiff_t(index));
    memcpy(copy.target, copy.source, copy.bytes);
    memcpy(&u.seen[place_of(copy.target)], copy.source, copy.bytes);
    Barrier& barrier = u.barriers.at(copy.barrier);
    barrier.bytes -= int64_t(copy.bytes);
    races::join(barrier.arrived, copy.written);
    end_phase(barrier);
}

}  // namespace

// ---------------------------------------------------------------- for simt.cpp

void begin_units() {
    block.watched = false;
    units.reset();
}

bool finish_something() {
    if (!units || units->copies.empty()) return false;
    make(chance() ? units->copies.size() - 1 : 0);
    return true;
}

const char* end_of_thread() {
    if (!units) return nullptr;
    const unsigned number = thread->linear % GROUP;
    const Group& group = units->groups[thread->linear / GROUP];
    for (const auto& sums : group.sums)
        if (sums->of[number] && !sums->back[number]) return "a thread ends before its wgmma is waited for";
    return nullptr;
}

const char* end_of_block() {
    if (!units) return nullptr;
    if (!units->copies.empty()) return "the block ends before a cp.async.bulk has";
    const size_t threads = size_t(block.size.x) * block.size.y * block.size.z;
    for (size_t t = 0; t < threads; t++) {
        const Group& group = units->groups[t / GROUP];
        if (group.adjusted[t % GROUP] != group.registers.size())
            return "not all threads of a warpgroup execute the same setmaxnreg";
    }
    return nullptr;
}

void touched(const volatile void* pointer, size_t bytes) {
    mine().touched[thread->linear].push_back({place_of(pointer), bytes});
}

// ---------------------------------------------------------------- barriers and copies

void mbarrier_init(void* barrier, unsigned count, const Where& where) {
    check_shared(barrier, 8, "mbarrier.init", where);
    Units& u = mine();
    if (u.seen.empty()) u.seen.assign(MOST_SHARED, 0xff);
    block.watched = true;
    if (!u.barriers.emplace(place_of(barrier), Barrier{count, int(count), 0, 0, {}, {}, {}}).second)
        fail(where, "mbarrier.init of a barrier that is in use");
    races::write(barrier, 8, where);
    memcpy(barrier, &MARK, 8);
    touched(barrier, 8);
}

void mbarrier_arrive(void* pointer, unsigned bytes, const char* what, const Where& where) {
    Barrier& barrier = barrier_at(pointer, what, where);
    if (barrier.pending == 0) fail(where, "%s: more arrivals than the barrier counts", what);
    barrier.bytes += bytes;
    barrier.pending--;
    races::release(barrier.arrived);
    end_phase(barrier);
}

void mbarrier_wait(void* pointer, unsigned parity, const Where& where) {
    const char* what = "mbarrier.try_wait";
    Barrier& barrier = barrier_at(pointer, what, where);
    while (barrier.phase % 2 == parity) sleep_among(barrier.waiters, what, where);
    races::acquire(barrier.passed);
}

void bulk_copy(void* target, const void* source, unsigned bytes, void* pointer, const Where& where) {
    const char* what = "cp.async.bulk";
    const size_t at = place_of(target);
    check_shared(target, 16, what, where);
    if (bytes > block.shared_bytes - at) fail(where, "%s beyond shared memory", what);
    if (reinterpret_cast<uintptr_t>(source) % 16 || bytes % 16)
        fail(where, "%s of %u bytes, or from an address, that is no multiple of 16", what, bytes);
    barrier_at(pointer, what, where);
    Units& u = mine();
    if (memcmp(&u.seen[place_of(pointer)], &MARK, 8))
        fail(where, "%s on an mbarrier that no fence has made visible to it", what);
    memset(target, 0xff, bytes);
    memset(&u.seen[at], 0xff, bytes);
    u.copies.push_back({target, source, bytes, place_of(pointer), {}});
    races::write(target, bytes, where);
    races::release(u.copies.back().written);
    if (chance()) make(u.copies.size() - 1);
}

void proxy_fence() {
    if (!units || units->seen.empty()) return;
    std::vector<Piece>& pieces = units->touched[thread->linear];
    for (const Piece& piece : pieces)
        memcpy(&units->seen[piece.begin], block.shared + piece.begin, piece.bytes);
    pieces.clear();
}

void named_barrier(unsigned id, unsigned count, const Where& where) {
    Named& barrier = mine().named[id];
    if (barrier.arrived == 0) barrier.count = count;
    if (barrier.count != count || count % 32)
        fail(where, "barrier %u for %u threads, before for %u", id, count, barrier.count);
    races::release(barrier.coming);
    if (++barrier.arrived < count) {
        sleep_among(barrier.waiters, "bar.sync", where);
    } else {
        barrier.arrived = 0;
        barrier.passed = std::exchange(barrier.coming, {});
        wake_all(barrier.waiters);
    }
    races::acquire(barrier.passed);
}

// ---------------------------------------------------------------- products of a warpgroup

namespace {

// A matrix of `width` × 16 elements, the latter along the sum, laid out as in PTX ISA, "Matrix Descriptor Format" and
// "Shared Memory Matrix Layout", in a swizzled mode: rows as long as the swizzle, eight of them a pattern. Rows lie
// along the sum ("K-major"), and patterns are a stride apart; or across it ("MN-major"), and patterns are a stride
// apart along the sum, and the leading offset across it. Calls `use(first, second, at)` for each eight adjacent
// elements, at byte `at` of shared memory: in row `first` from `second` along the sum on; with rows across the sum, for
// eight rows from `first` on.
template <class Use>
void each_piece(unsigned width, uint64_t descriptor, bool transposed, const Where& where, Use use) {
    const auto field = [&](int bit) { return size_t(descriptor >> bit & 0x3fff) << 4; };
    const size_t start = field(0), leading = field(16), stride = field(32);
    static constexpr size_t BYTES[] = {0, 128, 64, 32};
    const size_t row_bytes = BYTES[descriptor >> 62], pattern = 8 * row_bytes;
    if (row_bytes == 0) fail(where, "a matrix descriptor without a swizzle, which the stand-in does not have");
    if (descriptor >> 49 & 7 || (start - start % row_bytes) % pattern || stride % pattern ||
        (transposed && (start % row_bytes || leading % pattern)))
        fail(where, "a matrix descriptor for byte %zu, whose pattern of %zu bytes begins elsewhere", start,
             pattern);
    if (!transposed && start % row_bytes + 32 > row_bytes)
        fail(where, "a matrix descriptor beyond the rows of its pattern");
    const auto piece = [&](unsigned first, unsigned second, size_t plain) {
        const size_t at = plain ^ (plain >> 7 & (row_bytes / 16 - 1)) << 4;
        if (at + 16 > block.shared_bytes)
            fail(where, "a matrix descriptor that reaches beyond shared memory");
        use(first, second, at);
    };
    if (!transposed) {
        for (unsigned row = 0; row < width; row++)
            for (unsigned half = 0; half < 2; half++)
                piece(row, 8 * half, start + row / 8 * stride + row % 8 * row_bytes + 16 * half);
        return;
    }
    for (unsigned k = 0; k < 16; k++)
        for (unsigned first = 0; first < width; first += 8) {
            const size_t across = 2 * first / row_bytes * leading + 2 * first % row_bytes;
            piece(first, k, start + k / 8 * stride + k % 8 * row_bytes + across);
        }
}

void read_operand(std::vector<uint16_t>& to, unsigned width, uint64_t descriptor, bool transposed,
                  const Where& where) {
    const std::vector<unsigned char>& seen = mine().seen;
    to.resize(width * 16);
    each_piece(width, descriptor, transposed, where, [&](unsigned first, unsigned second, size_t at) {
        if (!transposed) {
            memcpy(&to[first * 16 + second], &seen[at], 16);
            return;
        }
        uint16_t eight[8];
        memcpy(eight, &seen[at], 16);
        for (unsigned i = 0; i < 8; i++) to[(first + i) * 16 + second] = eight[i];
    });
}

void read_operands(Product& product) {
    product.read = true;
    read_operand(product.left, 64, product.a, product.transposed, product.where);
    read_operand(product.right, product.n, product.b, product.transposed, product.where);
}

void compute(Product& product) {
    if (!product.read) read_operands(product);
    product.done = true;
    using Eight [[gnu::vector_size(32), gnu::aligned(4)]] = float;
    std::vector<float> right(16 * product.n);
    for (unsigned column = 0; column < product.n; column++)
        for (int k = 0; k < 16; k++)
            right[k * product.n + column] = float_of_bf16(product.right[column * 16 + k]);
    for (int row = 0; row < 64; row++) {
        float* sums = &product.sums->values[row * product.n];
        for (int k = 0; k < 16; k++) {
            const float x = float_of_bf16(product.left[row * 16 + k]);
            const float* y = &right[k * product.n];
            for (unsigned column = 0; column < product.n; column += 8)
                *reinterpret_cast<Eight*>(sums + column) +=
                    x * *reinterpret_cast<const Eight*>(y + column);
        }
    }
    product.left.clear();
    product.right.clear();
}

// The sums that the accumulators `d` of this thread belong to; null if no operation is pending.
std::shared_ptr<Sums> sums_of(const Group& group, unsigned number, const float* d) {
    for (const auto& sums : group.sums)
        if (sums->of[number] == d && !sums->back[number]) return sums;
    return nullptr;
}

}  // namespace

void wgmma(float* d, unsigned n, uint64_t a, uint64_t b, bool transposed, PlaceOf place,
           const Where& where) {
    const size_t threads = size_t(block.size.x) * block.size.y * block.size.z;
    if (threads % GROUP) fail(where, "wgmma in a block of %zu threads, no warpgroups", threads);
    if (mine().seen.empty()) mine().seen.assign(MOST_SHARED, 0xff);
    const unsigned number = thread->linear % GROUP;
    Group& group = mine().groups[thread->linear / GROUP];
    group.place = place;
    std::shared_ptr<Sums> sums = sums_of(group, number, d);
    const size_t index = group.issued[number]++ - group.first;
    if (index == group.products.size()) {
        const auto fresh = [&] {
            auto sums = std::make_shared<Sums>();
            sums->n = n;
            sums->values.resize(64 * n);
            sums->of.resize(GROUP);
            sums->back.resize(GROUP);
            group.sums.push_back(sums);
            return sums;
        };
        group.products.push_back(
            {where, a, b, n, transposed, sums ? sums : fresh(), 0, false, false, {}, {}});
        if (chance()) read_operands(group.products.back());
    }
    Product& product = group.products[index];
    if (product.where.line() != where.line() || product.a != a || product.b != b || product.n != n)
        fail(where, "threads of a warpgroup ask for different products, here and at %s:%u",
             product.where.file_name(), product.where.line());
    // A thread of each warp must know who has written the operands.
    const auto reads = [&](unsigned, unsigned, size_t at) {
        races::read(thread->linear / GROUP, group.first + index, block.shared + at, 16, where);
    };
    if (races::on && number % 32 == 0) {
        each_piece(64, a, transposed, where, reads);
        each_piece(n, b, transposed, where, reads);
    }
    Sums& own = *product.sums;
    if (!sums && !own.of[number]) {
        if (!group.fenced[number]) fail(where, "wgmma on accumulators that no wgmma.fence precedes");
        own.of[number] = d;
        for (unsigned i = 0; i < n / 2; i++) {
            const Place at = place(int(number), int(i));
            own.values[at.row * n + at.column] = d[i];
        }
        memset(d, 0xff, n / 2 * sizeof *d);
    } else if (sums.get() != &own) {
        fail(where, "threads of a warpgroup add to different accumulators");
    }
    if (++product.joined == GROUP) wake_all(group.waiters);
}

void wgmma_fence() {
    mine().groups[thread->linear / GROUP].fenced[thread->linear % GROUP] = true;
}

void wgmma_commit() {
    Group& group = mine().groups[thread->linear / GROUP];
    const unsigned number = thread->linear % GROUP;
    group.commits[number].push_back(group.issued[number]);
}

void wgmma_wait(unsigned youngest, const Where& where) {
    Group& group = mine().groups[thread->linear / GROUP];
    const unsigned number = thread->linear % GROUP;
    const std::vector<size_t>& commits = group.commits[number];
    if (commits.size() <= youngest) return;
    const size_t end = commits[commits.size() - 1 - youngest];
    for (size_t i = group.first; i < end; i++) {
        // The front may be removed while this thread sleeps.
        while (i >= group.first && group.products[i - group.first].joined < GROUP)
            sleep_among(group.waiters, "wgmma.wait_group", where);
        if (i >= group.first && !group.products[i - group.first].done)
            compute(group.products[i - group.first]);
    }
    races::have_read(thread->linear / GROUP, end);
    // Accumulators with no pending operation of this thread.
    for (const auto& sums : group.sums) {
        if (!sums->of[number] || sums->back[number]) continue;
        bool busy = false;
        for (size_t i = std::max(end, group.first); i < group.issued[number]; i++)
            busy |= group.products[i - group.first].sums == sums;
        if (busy) continue;
        for (unsigned at = 0; at < sums->n / 2; at++) {
            const Place place = group.place(int(number), int(at));
            sums->of[number][at] = sums->values[place.row * sums->n + place.column];
        }
        sums->back[number] = true;
        sums->left--;
        group.fenced[number] = false;
    }
    std::erase_if(group.sums, [](const auto& sums) { return sums->left == 0; });
    while (!group.products.empty() && group.products.front().done &&
           group.products.front().sums->left == 0) {
        group.products.pop_front();
        group.first++;
    }
}

void set_registers(unsigned count, const Where& where) {
    Group& group = mine().groups[thread->linear / GROUP];
    const size_t index = group.adjusted[thread->linear % GROUP]++;
    if (index == group.registers.size()) group.registers.push_back({count, where});
    const Registers& first = group.registers[index];
    if (first.count != count || first.where.line() != where.line())
        fail(where, "threads of a warpgroup execute different setmaxnreg, here and at line %u",
             first.where.line());
}

}  // namespace simt
