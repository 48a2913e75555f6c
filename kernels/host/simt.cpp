// The scheduler behind simt.h: one fiber per CUDA thread, barriers, warp collectives, reports.
#include "simt.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "races.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom,
                                                size_t* size);
extern "C" void __asan_unpoison_memory_region(const volatile void* address, size_t size);
#endif

namespace simt {

thread_local constinit Thread* thread = nullptr;
thread_local constinit Block block{};
constinit Function* functions = nullptr;
constinit const Layout* layouts = nullptr;
Options options;

Layout::Layout(const char* name, size_t size, std::vector<Field> fields)
    : name(name), size(size), fields(std::move(fields)), next(layouts) {
    layouts = this;
}

bool parse_schedule(const char* text, Options& options) {
    static const char* const names[] = {"forward", "reverse",        "random",
                                        "greedy",  "greedy-reverse", "greedy-random"};
    const char* colon = strchr(text, ':');
    const size_t length = colon ? size_t(colon - text) : strlen(text);
    for (int i = 0; i < 6; i++) {
        if (strlen(names[i]) != length || strncmp(names[i], text, length)) continue;
        char* end = nullptr;
        const unsigned long seed = colon ? strtoul(colon + 1, &end, 10) : 1;
        if (colon && (end == colon + 1 || *end)) return false;
        options.policy = Policy(i);
        options.seed = unsigned(seed);
        return true;
    }
    return false;
}

// ---------------------------------------------------------------- context switch

// Saves the registers that a call preserves on the current stack, its pointer in *save, and continues where `load` was
// saved.
extern "C" void simt_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
    .text
    .type simt_switch,@function
simt_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp,(%rdi)
    mov %rsi,%rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size simt_switch,.-simt_switch
)");
static void* fresh_stack(char* top, void (*entry)()) {
    // On entry to a function the stack is 8 bytes off a multiple of 16.
    void** sp = reinterpret_cast<void**>(top) - 1;
    *sp = nullptr;
    *--sp = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--sp = nullptr;  // the registers
    return sp;
}
#elif defined(__aarch64__)
asm(R"(
    .text
    .type simt_switch,%function
simt_switch:
    sub sp,sp,#160
    stp x19,x20,[sp,#0]
    stp x21,x22,[sp,#16]
    stp x23,x24,[sp,#32]
    stp x25,x26,[sp,#48]
    stp x27,x28,[sp,#64]
    stp x29,x30,[sp,#80]
    stp d8,d9,[sp,#96]
    stp d10,d11,[sp,#112]
    stp d12,d13,[sp,#128]
    stp d14,d15,[sp,#144]
    mov x9,sp
    str x9,[x0]
    mov sp,x1
    ldp x19,x20,[sp,#0]
    ldp x21,x22,[sp,#16]
    ldp x23,x24,[sp,#32]
    ldp x25,x26,[sp,#48]
    ldp x27,x28,[sp,#64]
    ldp x29,x30,[sp,#80]
    ldp d8,d9,[sp,#96]
    ldp d10,d11,[sp,#112]
    ldp d12,d13,[sp,#128]
    ldp d14,d15,[sp,#144]
    add sp,sp,#160
    ret
    .size simt_switch,.-simt_switch
)");
static void* fresh_stack(char* top, void (*entry)()) {
    void** sp = reinterpret_cast<void**>(top) - 20;
    memset(sp, 0, 160);
    sp[11] = reinterpret_cast<void*>(entry);  // x30, where `ret` goes
    return sp;
}
#else
#error "the stand-in driver has a context switch for x86-64 and aarch64 only"
#endif

// ---------------------------------------------------------------- state of an OS thread

static constexpr unsigned MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32, NONE = ~0u;
static constexpr size_t MAX_SHARED = 227 << 10, PAGE = 4096;
#if defined(__SANITIZE_ADDRESS__)
static constexpr size_t STACK = 512 << 10;  // of a CUDA thread; frames are larger
#else
static constexpr size_t STACK = 128 << 10;
#endif
// A kernel in which threads only yield this often in a row is considered hung.
static constexpr unsigned MAX_YIELDS = 200'000;

struct Warp {
    // Lanes that gather for a collective under one mask.
    struct Meeting {
        unsigned mask, arrived;
        bool whole;  // not without all 32 lanes
        Perform perform;
        const char* what;
        void* brought[32];
    };
    unsigned live, ready;  // lanes that have not ended; lanes that can run
    unsigned meetings;
    Meeting meeting[32];
};

struct Stack {
    char* memory;  // guard page first
    char* top;
};

struct Worker {
    Thread threads[MAX_THREADS];
    Warp warps[MAX_WARPS];
    unsigned n_threads, n_warps, n_live;
    unsigned last;              // thread that ran last, where a round-robin order goes on
    unsigned order[MAX_WARPS];  // of warps, for the greedy policies
    unsigned random;
    unsigned yields;  // since something happened
    // The block barrier.
    unsigned n_waiting, votes, result_votes;
    Where barrier_at;
    // Stacks, and which one a started thread is on.
    std::vector<Stack> stacks;
    std::vector<unsigned> free_stacks;
    unsigned stack_of[MAX_THREADS];
    unsigned started[MAX_WARPS];
    unsigned stack;  // the running one
    void* main_stack_pointer;
    char* emergency = nullptr;  // a stack for the report of a stack overflow
    char* shared = nullptr;
    bool failed;
    Failure failure;
    const Function* function;
    void* const* arguments;
    const void* fault_address;
    int fault_signal;
#if defined(__SANITIZE_ADDRESS__)
    const void* main_bottom = nullptr;
    size_t main_size = 0;
#endif

    unsigned next_random() {
        random ^= random << 13;
        random ^= random >> 17;
        return random ^= random << 5;
    }
    ~Worker() {
        for (const Stack& s : stacks) {
#if defined(__SANITIZE_ADDRESS__)
            // Whatever is mapped here next would seem to have the frames that never returned.
            __asan_unpoison_memory_region(s.memory, STACK + PAGE);
#endif
            munmap(s.memory, STACK + PAGE);
        }
        if (shared) munmap(shared, MAX_SHARED);
        free(emergency);
    }
};
static thread_local constinit Worker* worker = nullptr;

static unsigned take_stack() {
    Worker& w = *worker;
    if (w.free_stacks.empty()) {
        void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, PAGE, PROT_NONE)) {
            perror("emulated GPU: the stack of a CUDA thread");
            abort();
        }
        // Equal offsets within a page would make all stacks compete for the same cache sets.
        const size_t colour = (w.stacks.size() * 320) % PAGE & ~size_t(63);
        char* base = static_cast<char*>(memory);
        w.stacks.push_back({base, base + PAGE + STACK - colour});
        return unsigned(w.stacks.size() - 1);
    }
    const unsigned stack = w.free_stacks.back();
    w.free_stacks.pop_back();
    return stack;
}

// ---------------------------------------------------------------- who runs next

static unsigned nth_bit(unsigned bits, unsigned n) {
    while (n--) bits &= bits - 1;
    return unsigned(__builtin_ctz(bits));
}

// The ready thread nearest to `from`, `from` itself last, in the direction of `step`.
static unsigned next_in_turn(unsigned from, bool backwards) {
    Worker& w = *worker;
    const unsigned home = from / 32, lane = from % 32;
    const unsigned below = w.warps[home].ready & ((1u << lane) - 1);
    const unsigned above = w.warps[home].ready & ~((2u << lane) - 1);
    const auto pick = [&](unsigned warp, unsigned lanes) {
        return 32 * warp + unsigned(backwards ? 31 - __builtin_clz(lanes) : __builtin_ctz(lanes));
    };
    if (const unsigned lanes = backwards ? below : above) return pick(home, lanes);
    for (unsigned i = 1; i < w.n_warps; i++) {
        const unsigned warp = (backwards ? home + w.n_warps - i : home + i) % w.n_warps;
        if (w.warps[warp].ready) return pick(warp, w.warps[warp].ready);
    }
    if (const unsigned lanes = backwards ? above : below) return pick(home, lanes);
    return w.warps[home].ready >> lane & 1 ? from : NONE;
}

static unsigned ready_thread() {
    Worker& w = *worker;
    switch (options.policy) {
    case Policy::forward: return next_in_turn(w.last, false);
    case Policy::reverse: return next_in_turn(w.last, true);
    case Policy::random: {
        const unsigned first = w.next_random() % w.n_warps;
        for (unsigned i = 0; i < w.n_warps; i++) {
            const unsigned warp = (first + i) % w.n_warps, ready = w.warps[warp].ready;
            if (ready)
                return 32 * warp +
                       nth_bit(ready, w.next_random() % unsigned(__builtin_popcount(ready)));
        }
        return NONE;
    }
    default:
        for (unsigned i = 0; i < w.n_warps; i++) {
            const unsigned warp = w.order[i], ready = w.warps[warp].ready;
            if (ready) return 32 * warp + unsigned(__builtin_ctz(ready));
        }
        return NONE;
    }
}

static unsigned next_thread() {
    unsigned t = ready_thread();
    while (t == NONE && finish_something()) t = ready_thread();
    return t;
}

static void set_ready(unsigned t) { worker->warps[t / 32].ready |= 1u << (t % 32); }

// Makes `t` the running thread; true if it had not started.
static bool take(unsigned t) {
    Worker& w = *worker;
    Warp& warp = w.warps[t / 32];
    const unsigned bit = 1u << (t % 32);
    warp.ready &= ~bit;
    w.last = t;
    thread = &w.threads[t];
    const bool fresh = !(w.started[t / 32] & bit);
    w.started[t / 32] |= bit;
    return fresh;
}

// ---------------------------------------------------------------- switching

static void fiber();

// Leaves the current stack, whose pointer goes to *save, for stack pointer `load` on stack number `stack` (NONE: the OS
// thread's own). `dead` says that the stack is never returned to.
static void switch_to(void** save, void* load, unsigned stack, bool dead) {
    Worker& w = *worker;
    w.stack = stack;
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    const void* bottom = stack == NONE ? w.main_bottom : w.stacks[stack].memory + PAGE;
    const size_t size = stack == NONE ? w.main_size : STACK;
    __sanitizer_start_switch_fiber(dead ? nullptr : &fake_stack, bottom, size);
    simt_switch(save, load);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    (void)dead;
    simt_switch(save, load);
#endif
}

static void leave_for_main(bool dead) {
    void* nowhere;
    thread = nullptr;
    switch_to(&nowhere, worker->main_stack_pointer, NONE, dead);
}

static void start(void** save, unsigned t, bool dead) {
    Worker& w = *worker;
    const unsigned stack = take_stack();
    w.stack_of[t] = stack;
#if defined(__SANITIZE_ADDRESS__)
    // Frames of an earlier fiber may never have returned.
    __asan_unpoison_memory_region(w.stacks[stack].memory + PAGE, STACK);
#endif
    switch_to(save, fresh_stack(w.stacks[stack].top, fiber), stack, dead);
}

// The running thread cannot continue: runs others until it can.
static void suspend(unsigned next) {
    Thread& self = *thread;
    if (next == NONE) {
        leave_for_main(false);  // a deadlock; never comes back
    } else if (next == self.linear) {
        take(next);
    } else if (take(next)) {
        start(&self.stack_pointer, next, false);
    } else {
        switch_to(&self.stack_pointer, worker->threads[next].stack_pointer, worker->stack_of[next],
                  false);
    }
}

[[noreturn]] static void leave_failed() {
    worker->failed = true;
    leave_for_main(true);
    __builtin_unreachable();
}

// ---------------------------------------------------------------- reports

static void report(int code, const Where* where, const char* format, va_list arguments) {
    Failure& failure = worker->failure;
    failure.code = code;
    failure.address = reinterpret_cast<uintptr_t>(worker->fault_address);
    char* text = failure.text;
    const size_t size = sizeof failure.text;
    size_t n = 0;
    const auto advance = [&](int written) {
        n = std::min(size - 1, n + size_t(std::max(written, 0)));
    };
    advance(snprintf(text, size, "kernel %s, block (%u,%u,%u)", worker->function->name,
                     block.index.x, block.index.y, block.index.z));
    if (thread)
        advance(snprintf(text + n, size - n, ", thread (%u,%u,%u)", thread->index.x,
                         thread->index.y, thread->index.z));
    if (where) advance(snprintf(text + n, size - n, ", %s:%u", where->file_name(), where->line()));
    advance(snprintf(text + n, size - n, ": "));
    advance(vsnprintf(text + n, size - n, format, arguments));
}

void fail(const Where& where, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report(719, &where, format, arguments);
    va_end(arguments);
    leave_failed();
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report(719, nullptr, format, arguments);
    va_end(arguments);
    leave_failed();
}

[[gnu::format(printf, 2, 3)]] static void report_block(int code, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report(code, nullptr, format, arguments);
    va_end(arguments);
}

// No thread can run and not all have ended.
static void report_deadlock() {
    Worker& w = *worker;
    struct Group {
        const Thread* first;
        unsigned size;
    };
    std::vector<Group> groups;
    for (unsigned t = 0; t < w.n_threads; t++) {
        const Thread& thread = w.threads[t];
        if (!(thread.warp->live >> thread.lane & 1)) continue;
        const auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
            return group.first->waits_in == thread.waits_in &&
                   group.first->waits_at.line() == thread.waits_at.line() &&
                   group.first->waits_at.file_name() == thread.waits_at.file_name();
        });
        if (same == groups.end())
            groups.push_back({&thread, 1});
        else
            same->size++;
    }
    std::string text = "deadlock";
    for (const Group& group : groups) {
        const Thread& first = *group.first;
        char line[300];
        snprintf(line, sizeof line, "; %u threads, the first (%u,%u,%u), wait in %s at %s:%u",
                 group.size, first.index.x, first.index.y, first.index.z, first.waits_in,
                 first.waits_at.file_name(), first.waits_at.line());
        text += line;
    }
    if (w.n_live < w.n_threads)
        text += "; " + std::to_string(w.n_threads - w.n_live) + " threads have ended";
    report_block(719, "%s", text.c_str());
}

// ---------------------------------------------------------------- barriers and collectives

static void wait_in(const char* what, const Where& where) {
    Thread& self = *thread;
    self.waits_in = what;
    self.waits_at = where;
    suspend(next_thread());
    self.waits_in = nullptr;
}

void sleep(const char* what, const Where& where) { wait_in(what, where); }

void wake(const Thread& sleeper) {
    worker->yields = 0;
    set_ready(sleeper.linear);
}

bool chance() { return options.policy == Policy::random && worker->next_random() & 1; }

// All lanes have arrived: does the work and lets all but `self` (a lane, or -1) continue.
static void hold_meeting(Warp& warp, unsigned i, int self) {
    worker->yields = 0;
    Warp::Meeting meeting = warp.meeting[i];
    warp.meeting[i] = warp.meeting[--warp.meetings];
    meeting.perform(meeting.brought);
    warp.ready |= self < 0 ? meeting.arrived : meeting.arrived & ~(1u << self);
}

static void meet(unsigned mask, bool whole, void* mine, const char* what, const Where& where,
                 Perform perform) {
    Thread& self = *thread;
    Warp& warp = *self.warp;
    if (!(mask >> self.lane & 1)) fail(where, "%s without the calling lane in its mask", what);
    unsigned i = 0;
    while (i < warp.meetings && warp.meeting[i].mask != mask) i++;
    if (i == warp.meetings) {
        warp.meetings++;
        warp.meeting[i] = {mask, 0, whole, perform, what, {}};
    }
    Warp::Meeting& meeting = warp.meeting[i];
    if (meeting.perform != perform || meeting.what != what)
        fail(where, "lanes of one warp meet in %s and in %s", meeting.what, what);
    meeting.brought[self.lane] = mine ? mine : &self;
    meeting.arrived |= 1u << self.lane;
    if (meeting.arrived == (mask & warp.live))
        hold_meeting(warp, i, int(self.lane));
    else
        wait_in(what, where);
}

void collective(unsigned mask, void* mine, const char* what, const Where& where, Perform perform) {
    meet(mask, false, mine, what, where, perform);
}

// The lanes pass themselves.
void sync_warp(unsigned mask, const Where& where) {
    meet(mask, false, nullptr, "__syncwarp", where, races::meet);
}

void warp_collective(void* mine, const char* what, const Where& where, Perform perform) {
    if (thread->warp->live != ~0u) fail(where, "%s in a warp with fewer than 32 threads", what);
    meet(~0u, true, mine, what, where, perform);
}

static void open_barrier(unsigned self) {
    Worker& w = *worker;
    w.yields = 0;
    w.result_votes = w.votes;
    w.votes = w.n_waiting = 0;
    races::next_interval();
    for (unsigned i = 0; i < w.n_warps; i++) w.warps[i].ready = w.warps[i].live;
    w.warps[self / 32].ready &= ~(1u << (self % 32));
}

int block_barrier(bool predicate, Vote vote, const char* what, const Where& where) {
    Worker& w = *worker;
    if (w.n_live < w.n_threads) fail(where, "%s after a thread of the block has ended", what);
    if (w.n_waiting == 0)
        w.barrier_at = where;
    else if (w.barrier_at.line() != where.line() ||
             strcmp(w.barrier_at.file_name(), where.file_name()))
        fail(where, "threads of the block meet in different barriers, here and at %s:%u",
             w.barrier_at.file_name(), w.barrier_at.line());
    w.votes += predicate;
    if (++w.n_waiting == w.n_threads)
        open_barrier(thread->linear);
    else
        wait_in(what, where);
    switch (vote) {
    case Vote::count: return int(w.result_votes);
    case Vote::any: return w.result_votes > 0;
    default: return w.result_votes == w.n_threads;
    }
}

void yield() {
    if (++worker->yields > MAX_YIELDS) fail(Where::current(), "every thread waits for a flag");
    set_ready(thread->linear);
    // In turn under the greedy policies, too: they would come back here at once.
    suspend(options.policy == Policy::random ? next_thread() : next_in_turn(thread->linear, false));
}

static void end_thread() {
    Worker& w = *worker;
    Thread& self = *thread;
    Warp& warp = *self.warp;
    w.yields = 0;
    warp.live &= ~(1u << self.lane);
    w.n_live--;
    if (w.n_waiting) fail(w.barrier_at, "a thread of the block ends while others wait here");
    if (const char* wrong = end_of_thread()) fail(Where::current(), "%s", wrong);
    // Lanes that have ended do not block the others.
    for (unsigned i = 0; i < warp.meetings;)
        if (warp.meeting[i].whole) {
            fail(Where::current(), "a lane ends while others wait in %s", warp.meeting[i].what);
        } else if (warp.meeting[i].arrived == (warp.meeting[i].mask & warp.live)) {
            hold_meeting(warp, i, -1);
            i = 0;
        } else {
            i++;
        }
}

// ---------------------------------------------------------------- shared memory, async copies

void check_shared(const void* pointer, size_t bytes, const char* what, const Where& where) {
    const size_t offset = size_t(static_cast<const unsigned char*>(pointer) - block.shared);
    if (offset > block.shared_bytes || bytes > block.shared_bytes - offset)
        fail(where, "%s outside shared memory", what);
    if (offset % bytes) fail(where, "%s at byte %zu, not aligned to %zu", what, offset, bytes);
}

void copy_async(void* target, const void* source, size_t bytes, const Where& where) {
    check_shared(target, bytes, "cp.async", where);
    if (reinterpret_cast<uintptr_t>(source) % bytes)
        fail(where, "cp.async from an address that is not aligned to %zu", bytes);
    races::write(target, bytes, where);
    if (chance()) {
        memcpy(target, source, bytes);
        return;
    }
    memset(target, 0xff, bytes);
    thread->copies.push_back({target, source, bytes, thread->open_group});
}

void copy_wait(unsigned youngest) {
    std::vector<Copy>& copies = thread->copies;
    size_t kept = 0;
    for (const Copy& copy : copies)
        if (copy.group + youngest < thread->open_group) {
            races::write(copy.target, copy.bytes, Where::current());
            memcpy(copy.target, copy.source, copy.bytes);
        } else {
            copies[kept++] = copy;
        }
    copies.resize(kept);
}

// ---------------------------------------------------------------- a block

// The code of a fiber: runs threads from their start, one after another on this stack until one has to wait, so that a
// kernel without barriers is a plain loop without a switch.
static void fiber() {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!worker->main_bottom) {
        worker->main_bottom = bottom;
        worker->main_size = size;
    }
#endif
    Worker& w = *worker;
    const unsigned stack = w.stack;
    for (;;) {
        w.function->run(w.arguments);
        end_thread();
        const unsigned next = next_thread();
        if (next == NONE) break;
        if (take(next)) {
            w.stack_of[next] = stack;
            continue;
        }
        w.free_stacks.push_back(stack);  // nothing uses it before the switch
        void* nowhere;
        switch_to(&nowhere, w.threads[next].stack_pointer, w.stack_of[next], true);
        __builtin_unreachable();
    }
    w.free_stacks.push_back(stack);
    leave_for_main(true);
    __builtin_unreachable();
}

static bool run_block(uint64_t number) {
    Worker& w = *worker;
    w.n_threads = w.n_live = block.size.x * block.size.y * block.size.z;
    w.n_warps = (w.n_threads + 31) / 32;
    w.n_waiting = w.votes = w.yields = 0;
    w.failed = false;
    w.random = (options.seed * 2654435761u ^ unsigned(number) * 2246822519u) | 1;
    for (unsigned i = 0; i < w.n_warps; i++) {
        const unsigned lanes = std::min(32u, w.n_threads - 32 * i);
        w.warps[i].live = w.warps[i].ready = ~0u >> (32 - lanes);
        w.warps[i].meetings = 0;
        w.started[i] = 0;
        w.order[i] = options.policy == Policy::greedy_reverse ? w.n_warps - 1 - i : i;
    }
    if (options.policy == Policy::greedy_random)
        for (unsigned i = w.n_warps; i > 1; i--)
            std::swap(w.order[i - 1], w.order[w.next_random() % i]);
    unsigned t = 0;
    for (unsigned z = 0; z < block.size.z; z++)
        for (unsigned y = 0; y < block.size.y; y++)
            for (unsigned x = 0; x < block.size.x; x++, t++) {
                Thread& thread = w.threads[t];
                thread.index = {x, y, z};
                thread.linear = t;
                thread.lane = t % 32;
                thread.warp = &w.warps[t / 32];
                thread.waits_in = nullptr;
                thread.copies.clear();
                thread.open_group = 0;
            }
    if (block.shared_bytes) memset(block.shared, 0xff, block.shared_bytes);
    begin_units();
    races::next_interval();

    // The round-robin orders continue after the last thread, that is with the first (or last) one.
    w.last = options.policy == Policy::reverse ? 0 : w.n_threads - 1;
    const unsigned first = next_thread();
    take(first);
    start(&w.main_stack_pointer, first, false);

    if (!w.failed && w.n_live) {
        report_deadlock();
        w.failed = true;
    }
    if (const char* wrong = w.failed ? nullptr : end_of_block()) {
        report_block(719, "%s", wrong);
        w.failed = true;
    }
    if (w.failed) {  // every stack is free again, whatever was on it
        w.free_stacks.clear();
        for (unsigned i = 0; i < w.stacks.size(); i++) w.free_stacks.push_back(i);
    }
    return !w.failed;
}

// ---------------------------------------------------------------- faults
// An invalid address in a kernel is CUDA_ERROR_ILLEGAL_ADDRESS with its place, not the end of the process.
// AddressSanitizer has its own report.

static constexpr size_t EMERGENCY = 64 << 10;
#if !defined(__SANITIZE_ADDRESS__)
static struct sigaction previous[NSIG];

[[noreturn]] static void fault() {
    Worker& w = *worker;
    const char* address = static_cast<const char*>(w.fault_address);
    const bool overflow = w.stack != NONE && address >= w.stacks[w.stack].memory &&
                          address < w.stacks[w.stack].memory + PAGE;
    if (w.fault_signal == SIGFPE)
        report_block(719, "an integer is divided by zero");
    else if (overflow)
        report_block(719, "more than %zu KiB of stack", STACK >> 10);
    else
        report_block(700, "an access to the invalid address %p", w.fault_address);
    leave_failed();
}

static void on_signal(int signal, siginfo_t* info, void* machine) {
    if (!thread) {  // not in a kernel: whoever was asked before, when the instruction is repeated
        sigaction(signal, &previous[signal], nullptr);
        return;
    }
    worker->fault_address = info->si_addr;
    worker->fault_signal = signal;
    // Continues in `fault`, on an intact stack.
    auto& context = static_cast<ucontext_t*>(machine)->uc_mcontext;
    const uintptr_t top =
        reinterpret_cast<uintptr_t>(worker->emergency + EMERGENCY) & ~uintptr_t(63);
#if defined(__x86_64__)
    context.gregs[REG_RSP] = long(top - 8);
    context.gregs[REG_RIP] = reinterpret_cast<long>(&fault);
#else
    context.sp = top;
    context.pc = reinterpret_cast<uintptr_t>(&fault);
#endif
}

// Signals have their own stack, since a stack may have overflowed.
struct SignalStack {
    stack_t before{};
    char* memory = nullptr;
    SignalStack() {
        static std::once_flag once;
        std::call_once(once, [] {
            struct sigaction action{};
            action.sa_sigaction = on_signal;
            action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
            for (int signal : {SIGSEGV, SIGBUS, SIGFPE})
                sigaction(signal, &action, &previous[signal]);
        });
        sigaltstack(nullptr, &before);
        if (!(before.ss_flags & SS_DISABLE)) return;
        memory = static_cast<char*>(malloc(EMERGENCY));
        stack_t stack{};
        stack.ss_sp = memory;
        stack.ss_size = EMERGENCY;
        sigaltstack(&stack, nullptr);
    }
    ~SignalStack() {
        if (!memory) return;
        sigaltstack(&before, nullptr);
        free(memory);
    }
};
#endif

// ---------------------------------------------------------------- a launch

bool run(const Function& function, dim3 grid, dim3 size, size_t shared_bytes,
         void* const* arguments, Failure& failure) {
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    const auto work = [&] {
        // Kept from launch to launch, for its stacks.
        static thread_local std::unique_ptr<Worker> own;
        if (!own) {
            own = std::make_unique<Worker>();
            own->shared = static_cast<char*>(mmap(nullptr, MAX_SHARED, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            own->emergency = static_cast<char*>(malloc(EMERGENCY));
        }
#if !defined(__SANITIZE_ADDRESS__)
        const SignalStack signal_stack;
#endif
        worker = own.get();
        worker->function = &function;
        worker->arguments = arguments;
        block.size = size;
        block.grid = grid;
        block.shared = reinterpret_cast<unsigned char*>(worker->shared);
        block.shared_bytes = shared_bytes;
        for (uint64_t b; !failed && (b = next++) < blocks;) {
            block.index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                           unsigned(b / grid.x / grid.y)};
            if (!run_block(b) && !failed.exchange(true)) failure = worker->failure;
        }
        worker = nullptr;
    };
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < std::min<uint64_t>(options.workers, blocks); i++)
        others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
    return !failed;
}

}  // namespace simt
