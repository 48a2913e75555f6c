// The functions declared in races.h, and those that g++ calls under -fsanitize=thread. As in ThreadSanitizer, each word
// of memory remembers its last few accesses, and each thread remembers up to when it knows what each other thread has
// done (vector clocks); an access that conflicts with one unknown to its thread is a race, whatever the order in which
// the threads happened to run. Only the threads of one block are compared.
#include "races.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <unordered_map>

namespace simt::races {

bool on = false;
uintptr_t device_begin = 0, device_bytes = 0;

namespace {

enum Kind : uint8_t { READ, WRITE, ATOMIC };

struct Access {
    uint32_t clock;  // of its thread
    int32_t code;    // from `on`, or INT32_MIN and more: a place
    uint16_t thread;
    uint8_t bytes;  // of the word, a bit each; 0: no access
    Kind kind;
};

// After the threads of a block, warpgroups with what their products read.
constexpr unsigned GROUPS = 8;
constexpr size_t WORD = 4, PAGE_WORDS = 1024, KEPT_PAGES = 1024;

struct Word {
    uint64_t interval;
    Access accesses[4];
};

struct State {
    uint64_t interval = 0;
    unsigned turn = 0;
    Clock clocks[1024];
    std::vector<Where> places;
    std::vector<Word> shared;
    // Of device memory, by address / (WORD · PAGE_WORDS).
    std::unordered_map<uintptr_t, std::unique_ptr<Word[]>> pages;
    uintptr_t last_page = 0;
    Word* last_words = nullptr;
};
thread_local std::unique_ptr<State> own_state;

State& state() {
    if (!own_state) own_state = std::make_unique<State>();
    return *own_state;
}

unsigned threads() { return block.size.x * block.size.y * block.size.z; }

// The clock, reset if it is from an earlier interval, whose knowledge no longer matters.
Clock& present(Clock& clock) {
    if (clock.interval == state().interval) return clock;
    clock.interval = state().interval;
    clock.of.assign(threads() + GROUPS, 0);
    return clock;
}

Clock& clock_of(unsigned thread) {
    Clock& clock = present(state().clocks[thread]);
    if (clock.of[thread] == 0) clock.of[thread] = 1;
    return clock;
}

Word* words_at(uintptr_t address) {
    State& s = state();
    const size_t offset = address - reinterpret_cast<uintptr_t>(block.shared);
    if (offset < block.shared_bytes) {
        if (s.shared.empty()) s.shared.resize((227 << 10) / WORD);
        return &s.shared[offset / WORD];
    }
    const uintptr_t page = address / (WORD * PAGE_WORDS);
    if (page != s.last_page) {
        std::unique_ptr<Word[]>& words = s.pages[page];
        if (!words) words = std::make_unique<Word[]>(PAGE_WORDS);
        s.last_page = page;
        s.last_words = words.get();
    }
    return &s.last_words[address / WORD % PAGE_WORDS];
}

int32_t code_of(const Where& where) {
    std::vector<Where>& places = state().places;
    size_t i = 0;
    while (i < places.size() && (places[i].line() != where.line() || places[i].file_name() != where.file_name())) i++;
    if (i == places.size()) places.push_back(where);
    return INT32_MIN + int32_t(i);
}

// File and line of code.
std::string place(int32_t code) {
    if (const size_t i = size_t(int64_t(code) - INT32_MIN); i < state().places.size())
        return state().places[i].file_name() + (":" + std::to_string(state().places[i].line()));
    const char* at = reinterpret_cast<const char*>(&on) + code - 1;
    Dl_info info;
    if (!dladdr(at, &info)) return "unknown code";
    char command[4200], line[4200] = "";
    snprintf(command, sizeof command, "addr2line -e '%s' %#zx 2>/dev/null", info.dli_fname,
             size_t(at - static_cast<const char*>(info.dli_fbase)));
    if (FILE* output = popen(command, "r")) {
        if (!fgets(line, sizeof line, output)) *line = 0;
        pclose(output);
    }
    std::string text = line;
    text = text.substr(0, text.find_first_of(" \n"));
    const size_t folder = text.rfind("/common/") + 1;
    return folder ? text.substr(folder) : text.substr(text.rfind('/') + 1);
}

[[noreturn, gnu::noinline]] void report(const Access& before, const Access& now, uintptr_t address) {
    static const char* const does[] = {"reads", "writes", "changes"};
    static const char* const did[] = {"has read", "has written", "has changed"};
    const size_t offset = address - reinterpret_cast<uintptr_t>(block.shared);
    const dim3 size = block.size;
    const auto who = [&](unsigned t) {
        if (t >= threads()) return "wgmma of warpgroup " + std::to_string(t - threads());
        return "thread (" + std::to_string(t % size.x) + "," + std::to_string(t / size.x % size.y) + "," +
               std::to_string(t / size.x / size.y) + ")";
    };
    const std::string where = offset < block.shared_bytes ? "byte " + std::to_string(offset) + " of shared memory"
                                                          : "device memory";
    fail("a race: it %s, at %s, %s that %s %s, at %s, and nothing orders them", does[now.kind],
         place(now.code).c_str(), where.c_str(), who(before.thread).c_str(), did[before.kind],
         place(before.code).c_str());
}

int32_t code_of(const void* code) {
    return int32_t(static_cast<const char*>(code) - reinterpret_cast<const char*>(&on));
}

// An access by the running thread, or by a product that it starts.
template <class Code>
void access(const volatile void* pointer, size_t bytes, Kind kind, const Code& code, unsigned group = GROUPS,
            size_t product = 0) {
    if (!thread) return;
    const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    if (address - reinterpret_cast<uintptr_t>(block.shared) >= block.shared_bytes &&
        address - device_begin >= device_bytes)
        return;
    State& s = state();
    const Clock& clock = clock_of(thread->linear);
    const bool own = group == GROUPS;
    const unsigned self = own ? thread->linear : threads() + group;
    const uint32_t now_at = own ? clock.of[self] : uint32_t(product) + 1;
    const int32_t number = code_of(code);
    for (size_t done = 0; done < bytes;) {
        const size_t first = (address + done) % WORD, count = std::min(WORD - first, bytes - done);
        Word& word = *words_at(address + done);
        done += count;
        if (word.interval != s.interval) word = {s.interval, {}};
        const Access now = {now_at, number, uint16_t(self), uint8_t(((1u << count) - 1) << first), kind};
        Access* slot = nullptr;
        bool known = false;
        for (Access& before : word.accesses) {
            if (!before.bytes) {
                if (!slot) slot = &before;
            } else if (before.thread == self) {
                if (before.kind != kind || before.bytes & ~now.bytes) continue;
                slot = &before;
                known = own && before.clock == now.clock && before.bytes == now.bytes;
                if (known) break;
            } else if (clock.of[before.thread] < before.clock) {
                if (before.bytes & now.bytes && (before.kind != kind || kind == WRITE)) report(before, now, address);
            } else if (!slot && !(before.bytes & ~now.bytes) && (before.kind == READ || kind != READ)) {
                // Whoever knows of this access knows of that one.
                slot = &before;
            }
        }
        if (known) continue;
        // Otherwise a read rather than a write makes room.
        Access* any = nullptr;
        for (unsigned i = 0; !slot && i < 4; i++) {
            any = &word.accesses[s.turn++ % 4];
            if (any->kind == READ) slot = any;
        }
        *(slot ? slot : any) = now;
    }
}

}  // namespace

void next_interval() {
    if (!on) return;
    State& s = state();
    s.interval++;
    if (s.pages.size() <= KEPT_PAGES) return;
    s.pages.clear();
    s.last_page = 0;
}

void join(Clock& to, const Clock& from) {
    if (!on || from.interval != state().interval) return;
    present(to);
    for (size_t i = 0; i < from.of.size(); i++) to.of[i] = std::max(to.of[i], from.of[i]);
}

void release(Clock& to) {
    if (!on) return;
    Clock& own = clock_of(thread->linear);
    join(to, own);
    own.of[thread->linear]++;
}

void acquire(const Clock& from) {
    if (on) join(clock_of(thread->linear), from);
}

void meet(void** threads) {
    if (!on) return;
    Clock all;
    for (int l = 0; l < 32; l++)
        if (threads[l]) join(all, clock_of(static_cast<Thread*>(threads[l])->linear));
    for (int l = 0; l < 32; l++) {
        if (!threads[l]) continue;
        const unsigned t = static_cast<Thread*>(threads[l])->linear;
        clock_of(t).of = all.of;
        clock_of(t).of[t]++;
    }
}

void read(const void* address, size_t bytes, const Where& where) {
    if (on) access(address, bytes, READ, where);
}

void read(unsigned group, size_t product, const void* address, size_t bytes, const Where& where) {
    if (on) access(address, bytes, READ, where, group, product);
}

void have_read(unsigned group, size_t end) {
    if (!on) return;
    uint32_t& known = clock_of(thread->linear).of[threads() + group];
    known = std::max(known, uint32_t(end));
}

void write(const void* address, size_t bytes, const Where& where) {
    if (on) access(address, bytes, WRITE, where);
}

}  // namespace simt::races

// ---------------------------------------------------------------- what the compiler calls

using namespace simt::races;

#define HOOK extern "C" __attribute__((visibility("default"))) void
#define HOOKS(bytes)                                                                                              \
    HOOK __tsan_read##bytes(void* at) { access(at, bytes, READ, __builtin_return_address(0)); }                   \
    HOOK __tsan_write##bytes(void* at) { access(at, bytes, WRITE, __builtin_return_address(0)); }                 \
    HOOK __tsan_unaligned_read##bytes(void* at) { access(at, bytes, READ, __builtin_return_address(0)); }         \
    HOOK __tsan_unaligned_write##bytes(void* at) { access(at, bytes, WRITE, __builtin_return_address(0)); }       \
    HOOK __tsan_volatile_read##bytes(void* at) { access(at, bytes, ATOMIC, __builtin_return_address(0)); }        \
    HOOK __tsan_volatile_write##bytes(void* at) { access(at, bytes, ATOMIC, __builtin_return_address(0)); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK __tsan_read_range(void* at, size_t bytes) { access(at, bytes, READ, __builtin_return_address(0)); }
HOOK __tsan_write_range(void* at, size_t bytes) { access(at, bytes, WRITE, __builtin_return_address(0)); }
HOOK __tsan_init() { on = true; }

// Those atomic operations that simt.h uses, and those that read guards of static variables.
#define ATOMICS(bits)                                                                                             \
    extern "C" __attribute__((visibility("default"))) uint##bits##_t __tsan_atomic##bits##_load(                  \
        const volatile uint##bits##_t* at, int) {                                                                 \
        access(at, bits / 8, ATOMIC, __builtin_return_address(0));                                                \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                             \
    }                                                                                                             \
    extern "C" __attribute__((visibility("default"))) int __tsan_atomic##bits##_compare_exchange_weak(            \
        volatile uint##bits##_t* at, uint##bits##_t* expected, uint##bits##_t desired, int, int) {                \
        access(at, bits / 8, ATOMIC, __builtin_return_address(0));                                                \
        return __atomic_compare_exchange_n(at, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
    }
ATOMICS(8)
ATOMICS(32)
ATOMICS(64)
