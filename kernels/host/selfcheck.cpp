// Checks the stand-in driver through its own interface: that good kernels compute what they should under every order of
// threads, that every mistake of a bad one is reported, and that memory, streams, events and graphs behave like a
// driver's. Run by `scripts/emulated --selfcheck`, once with eager and once with late streams; with `--races` only good
// kernels and what orders threads.
#include "driver.h"
#include "races.h"
#include "simt.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

int passed = 0, failed = 0;
std::string setting;  // which schedule, for the report

void check(bool good, const std::string& what) {
    (good ? passed : failed)++;
    if (good || failed > 10) return;
    const char* text = "";
    for (const CUresult code :
         {CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_VALUE})
        if (!*text && cuGetErrorString(code, &text)) text = "";
    printf("FAILED %s [%s] (last errors: %s)\n", what.c_str(), setting.c_str(), text);
}

std::string text_of(CUresult code) {
    const char* text = nullptr;
    return cuGetErrorString(code, &text) ? "" : text;
}

// A context of its own; a death ends with it.
struct Context {
    void *handle, *module;
    Context() {
        if (cuDevicePrimaryCtxRetain(&handle, 0) || cuCtxSetCurrent(handle) ||
            cuModuleLoadData(&module, "x")) {
            printf("no context\n");
            exit(1);
        }
    }
    ~Context() { cuDevicePrimaryCtxRelease_v2(0); }
    void* kernel(const char* name) const {
        void* function = nullptr;
        check(cuModuleGetFunction(&function, module, name) == CUDA_SUCCESS, name);
        return function;
    }
    template <class... A>
    CUresult launch(const char* name, dim3 grid, dim3 block, unsigned shared, void* stream,
                    A... arguments) const {
        void* pointers[] = {&arguments..., nullptr};
        return cuLaunchKernel(kernel(name), grid.x, grid.y, grid.z, block.x, block.y, block.z,
                              shared, stream, pointers, nullptr);
    }
    // Launches and waits.
    template <class... A>
    CUresult run(const char* name, dim3 grid, dim3 block, unsigned shared, A... arguments) const {
        const CUresult result = launch(name, grid, block, shared, nullptr, arguments...);
        return result ? result : cuCtxSynchronize();
    }
};

template <class T>
struct Buffer {
    CUdeviceptr address = 0;
    size_t count;
    explicit Buffer(size_t count) : count(count) {
        check(!cuMemAlloc_v2(&address, count * sizeof(T)), "alloc");
    }
    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
        check(!cuMemcpyHtoD_v2(address, values.data(), count * sizeof(T)), "upload");
    }
    std::vector<T> values() const {
        std::vector<T> values(count);
        check(!cuMemcpyDtoH_v2(values.data(), address, count * sizeof(T)), "download");
        return values;
    }
};

using Floats = std::vector<float>;

Floats normals(size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    Floats values(n);
    for (float& value : values) value = normal(generator);
    return values;
}

double error(const Floats& found, const Floats& expected) {
    double distance = 0, size = 0;
    for (size_t i = 0; i < found.size(); i++) {
        distance += (found[i] - expected[i]) * double(found[i] - expected[i]);
        size += double(expected[i]) * expected[i];
    }
    return sqrt(distance / size);
}

Floats product(const Floats& a, const Floats& b, int m, int n, int k) {
    Floats c(size_t(m) * n);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int l = 0; l < k; l++) sum += double(a[i * k + l]) * b[l * n + j];
            c[i * n + j] = float(sum);
        }
    return c;
}

// ---------------------------------------------------------------- good kernels

void good_kernels() {
    const Context context;
    {
        const int n = 10007;
        const Floats x = normals(n, 1);
        Floats expected(n);
        for (int i = 0; i < n; i++)
            expected[i] = x[i] / sqrtf(x[i] * x[i] + 1) + expf(-fabsf(x[i]));
        const Buffer<float> from(x), into(n);
        check(!context.run("check_scale", {7}, {192}, 0, from.address, into.address, n) &&
                  error(into.values(), expected) < 1e-6,
              "check_scale");
    }
    for (const unsigned threads : {32, 96, 256}) {
        const Floats x = normals(12345, 2);
        double sum = 0;
        for (const float v : x) sum += v;
        const Buffer<float> from(x), into(Floats{0});
        check(!context.run("check_sum", {5}, {threads}, 32, from.address, into.address, 12345) &&
                  fabs(into.values()[0] - sum) < 1e-2,
              "check_sum");
    }
    {
        const int m = 70, n = 45, k = 53;
        const Floats a = normals(m * k, 3), b = normals(k * n, 4);
        for (const unsigned tile : {8u, 16u}) {
            const Buffer<float> left(a), right(b), into(m * n);
            const dim3 grid{(n + tile - 1) / tile, (m + tile - 1) / tile};
            check(!context.run("check_matmul", grid, {tile, tile}, 2 * tile * tile * 4,
                               left.address, right.address, into.address, m, n, k) &&
                      error(into.values(), product(a, b, m, n, k)) < 1e-6,
                  "check_matmul");
        }
    }
    {
        const int n = 5000, segments = 300;
        const Floats x = normals(n, 5);
        std::vector<int> segment(n);
        std::mt19937 generator(6);
        for (int& s : segment) s = int(generator() % segments);
        std::sort(segment.begin(), segment.end());
        Floats expected(segments);
        for (int i = 0; i < n; i++) expected[segment[i]] += x[i];
        const Buffer<float> from(x), into(Floats(segments, 0));
        const Buffer<int> of(segment);
        check(!context.run("check_segments", {(n + 255) / 256}, {256}, 0, from.address, of.address,
                           into.address, n) &&
                  error(into.values(), expected) < 1e-5,
              "check_segments");
    }
    {
        const int m = 128, n = 64, k = 96;
        Floats a = normals(m * k, 7), b = normals(k * n, 8);
        const auto rounded = [](Floats& values) {
            std::vector<uint16_t> bits;
            for (float& value : values) {
                bits.push_back(simt::bf16_of_float(value));
                value = simt::float_of_bf16(bits.back());
            }
            return bits;
        };
        const Buffer<uint16_t> left(rounded(a)), right(rounded(b));
        const Buffer<float> into(m * n);
        check(!context.run("check_gemm_bf16", {1, 2}, {128}, 19456, left.address, right.address,
                           into.address, n, k) &&
                  error(into.values(), product(a, b, m, n, k)) < 1e-6,
              "check_gemm_bf16");
    }
    {
        const int k = 24;
        Floats a = normals(16 * k, 9), b = normals(k * 8, 10);
        const Buffer<float> left(a), right(b), into(16 * 8);
        check(!context.run("check_gemm_tf32", {1}, {32}, 0, left.address, right.address,
                           into.address, k),
              "tf32");
        for (Floats* values : {&a, &b})
            for (float& value : *values) {
                int exponent;
                const double mantissa = frexp(value, &exponent);
                value = float(ldexp(round(ldexp(mantissa, 11)), exponent - 11));
            }
        check(error(into.values(), product(a, b, 16, 8, k)) < 1e-6, "check_gemm_tf32");
    }
    {
        const float nan = __builtin_bit_cast(float, 0x7fffffff);  // which CUDA makes
        // Ties in bf16, to even: 1 + 2^-8 down, 1 + 3 2^-8 up. Ties in tf32, away: 1 + 2^-11 up.
        const Buffer<float> from(
            Floats{1.00390625f, 1.01171875f, -2, -0.0f, nan, 3.4e38f, 1.00048828125f, 1e-40f});
        const Buffer<uint32_t> pairs(4), words(8);
        check(!context.run("check_conversions", {1}, {4}, 0, from.address, pairs.address,
                           words.address),
              "convert");
        check(pairs.values() == std::vector<uint32_t>{0x3f823f80, 0, 0x7f807fff, 0x00013f80},
              "to bf16");
        check(
            words.values() == std::vector<uint32_t>{0x3f808000, 0x3f818000, 0xc0000000, 0x80000000,
                                                    0x7fffffff, 0x7f7fc000, 0x3f802000, 0x00012000},
            "to tf32");
    }
    {
        // Of equal numbers, and if one is NaN, the second: as on x86.
        const float nan = __builtin_bit_cast(float, 0x7fffffff);
        const Buffer<float> from(Floats{0.0f, -0.0f, -0.0f, 0.0f, nan, 1, 1, nan, 2, 1, -3, -2});
        const Buffer<uint32_t> words(12);
        check(!context.run("check_extremes", {1}, {6}, 0, from.address, words.address), "extremes");
        check(words.values() == std::vector<uint32_t>{0x80000000, 0x80000000, 0, 0, 0x3f800000, 0x3f800000,
                                                      0x7fffffff, 0x7fffffff, 0x3f800000, 0x40000000,
                                                      0xc0400000, 0xc0000000},
              "smaller and larger");
    }
    for (const int k : {32, 64, 96, 160}) {
        const int m = 64, n = 128;
        Floats a = normals(m * k, 11), b = normals(n * k, 12);
        std::vector<uint16_t> left(a.size()), right(b.size());
        Floats transposed(b.size());
        for (size_t i = 0; i < a.size(); i++)
            a[i] = simt::float_of_bf16(left[i] = simt::bf16_of_float(a[i]));
        for (int unit = 0; unit < n; unit++)
            for (int l = 0; l < k; l++) {
                const uint16_t bits = simt::bf16_of_float(b[unit * k + l]);
                transposed[l * n + unit] = simt::float_of_bf16(bits);
                // [block][piece][unit of the block][32], with the 16-byte pieces permuted.
                const size_t row = size_t(unit / 64 * (k / 32) + l / 32) * 64 + unit % 64;
                right[row * 32 + size_t(l % 32 / 8 ^ (unit >> 1 & 3)) * 8 + l % 8] = bits;
            }
        const Buffer<uint16_t> x(left), y(right);
        const Buffer<float> into(m * n);
        check(!context.run("check_warpgroup", {2}, {256}, 16448, x.address, y.address, into.address, k),
              "warpgroup");
        Floats found = into.values(), expected(m * n);
        const Floats exact = product(a, transposed, m, n, k);
        for (int row = 0; row < m; row++)
            for (int unit = 0; unit < n; unit++)
                expected[(unit / 64 * 64 + row) * 64 + unit % 64] = exact[row * n + unit];
        check(error(found, expected) < 1e-6, "check_warpgroup");
    }
    {
        Floats a = normals(32 * 64, 14), b = normals(32 * 128, 15), transposed(a.size());
        std::vector<uint16_t> left(a.size()), right(b.size());
        for (size_t i = 0; i < a.size(); i++)
            transposed[i % 64 * 32 + i / 64] = simt::float_of_bf16(left[i] = simt::bf16_of_float(a[i]));
        for (size_t i = 0; i < b.size(); i++)
            b[i] = simt::float_of_bf16(right[i] = simt::bf16_of_float(b[i]));
        const Buffer<uint16_t> x(left), y(right);
        const Buffer<float> into(64 * 128);
        check(!context.run("check_warpgroup_transposed", {1}, {128}, 12296, x.address, y.address,
                           into.address),
              "transposed warpgroup");
        check(error(into.values(), product(transposed, b, 64, 128, 32)) < 1e-6,
              "check_warpgroup_transposed");
    }
    {
        const Buffer<int> into(128);
        check(!context.run("check_named", {1}, {128}, 512, into.address), "named");
        const std::vector<int> found = into.values();
        bool good = true;
        for (int t = 0; t < 128; t++)
            good &= found[t] == t / 64 * 64 + (t + (t < 64 ? 2 : 3)) % 64;
        check(good, "check_named");
    }
    {
        const unsigned n = 96;
        const Buffer<int> into(10 * n);
        check(!context.run("check_votes", {1}, {n}, 4 * n, into.address), "votes");
        const std::vector<int> rows = into.values();
        bool good = true;
        for (int t = 0; t < int(n); t++) {
            const int* row = &rows[10 * t];
            const int lane = t % 32, first = t - lane;
            good &= row[0] == 0x49249249 && row[1] == 1 && row[2] == 0 && row[3] == first + 5;
            good &=
                row[4] == (lane % 8 < 4 ? t + 4 : t) && row[5] == 20 && row[6] == 1 && row[7] == 0;
            good &= row[8] == (lane < 16 ? 2 : 51) && row[9] == (t ^ 3);
        }
        check(good, "check_votes");
    }
    {
        const Buffer<int> into(std::vector<int>{0, 0, 0, 0, 0, 0, 0});
        check(!context.run("check_atomics", {10}, {100}, 0, into.address), "atomics");
        const std::vector<int> values = into.values();
        check(values[0] == 1000 && values[1] == 999 && values[2] == -999 && values[3] == 0xfffff &&
                  values[4] > 0 && values[5] == 1 && values[6] == 9,
              "check_atomics");
    }
    {
        const Buffer<float> into(std::vector<float>{0, 0, 3, 0, 0, 0, 0, -2});
        check(!context.run("check_vector_add", {10}, {100}, 0, into.address), "vector additions");
        check(into.values() == std::vector<float>{500, 249500, -247, 0, 500, 250000, -250, -2}, "check_vector_add");
    }
    {
        const Buffer<int> into(32);
        check(!context.run("check_flag", {1}, {64}, 4, into.address) &&
                  into.values() == std::vector<int>(32, 7),
              "check_flag");
    }
    {
        // What src/random.rs gives.
        const Buffer<uint32_t> words(11);
        const Buffer<double> numbers(3);
        check(!context.run("check_random", {1}, {1}, 0, words.address, numbers.address), "random");
        check(
            words.values() == std::vector<uint32_t>{0xc388caed, 0x7fce569f, 0xed0d81d0, 0x4381814c,
                                                    0x94e02796, 0x9bde7311, 774, 0x6627e8d5,
                                                    0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
            "the words of philox");
        const std::vector<double> found = numbers.values();
        check(found[0] == 0.4194090603031777 && fabs(found[1] - 0.67315028854118997) < 1e-15 &&
                  fabs(found[2] - 0.45266585506765894) < 1e-15,
              "uniform and normal numbers");
    }
}

// ---------------------------------------------------------------- bad kernels

// Checks that `launch`, in its own context, ends with `code` and a text that contains all of `words`; then the context
// is dead, and the next one is not.
void reported(const char* name, CUresult code, std::vector<const char*> words,
              const std::function<CUresult(const Context&)>& launch) {
    const auto context = std::make_unique<Context>();
    const CUresult result = launch(*context);
    std::string text = text_of(result);
    bool good = result == code;
    for (const char* word : words) good &= text.find(word) != std::string::npos;
    check(good, std::string(name) + " is reported (" + std::to_string(result) + ": " + text + ")");
    size_t free, total;
    check(cuMemGetInfo_v2(&free, &total) == code, std::string(name) + " kills the context");
}

// Numbers as in selfcheck.cu.
void orders() {
    enum { BY_BLOCK, BY_NAMED, BY_MBARRIER, BY_WARP, BY_SHUFFLE, BY_NOTHING };
    const auto run = [](const Context& context, int order) {
        const Buffer<int> y(std::vector<int>(65, 0));
        const CUresult result = context.run("check_order", {1}, {64}, 8, y.address, order);
        if (!result) check(y.values()[0] == 2, "check_order");
        return result;
    };
    for (const int order : {BY_BLOCK, BY_NAMED, BY_MBARRIER, BY_WARP})
        check(!run(Context(), order), "two threads, one after the other");
    if (!simt::races::on) return;
    for (const int order : {BY_SHUFFLE, BY_NOTHING})
        reported("check_order", CUDA_ERROR_LAUNCH_FAILED,
                 {"a race", "device memory", "selfcheck.cu:", "nothing orders them"},
                 [&](const Context& context) { return run(context, order); });
    const int no_barrier = 4;
    reported("bad_product", CUDA_ERROR_LAUNCH_FAILED, {"a race", "of shared memory", "selfcheck.cu:"},
             [&](const Context& context) {
                 const Buffer<float> y(128);
                 return context.run("bad_product", {1}, {128}, 8200, y.address, no_barrier);
             });
    reported("bad_race", CUDA_ERROR_LAUNCH_FAILED, {"a race", "of shared memory", "selfcheck.cu:"},
             [](const Context& context) {
                 const Buffer<float> x(normals(128, 1)), y(128);
                 return context.run("bad_race", {1}, {128}, 512, x.address, y.address);
             });
}

// Numbers as in selfcheck.cu.
void bad_products() {
    enum { NONE, NO_WAIT, NO_FENCE, NO_PROXY_FENCE, NO_BARRIER, EARLY, UNEQUAL, MISALIGNED, UNDONE };
    // 64 × 16 products of ones; a thread has the sums of 32 results.
    const Floats right(128, 32 * 16);
    const auto found = [](int mistake) {
        const Context context;
        const Buffer<float> y(128);
        check(!context.run("bad_product", {1}, {128}, 8200, y.address, mistake), "bad_product");
        return y.values();
    };
    const bool random = simt::options.policy == simt::Policy::random;
    check(found(NONE) == right, "a product");
    check(std::isnan(found(NO_WAIT)[0]), "results are not there before the wait");
    check(std::isnan(found(NO_PROXY_FENCE)[0]), "what was not fenced is not there");
    // Under other orders the operands are read late, at the latest by the wait, so these may arrive in time, or too
    // late.
    if (random) {
        bool wrong[2] = {};
        const simt::Options before = simt::options;
        for (unsigned seed = 1; seed < 9; seed++) {
            simt::options.seed = seed;
            wrong[0] |= found(NO_BARRIER) != right;
            wrong[1] |= found(EARLY) != right;
        }
        simt::options = before;
        check(wrong[0], "some order shows operands that nobody waits for");
        check(wrong[1], "some order shows operands that are overwritten too early");
    } else {
        check(found(EARLY) != right, "operands are overwritten too early");
    }
    const auto bad = [&](int mistake, std::vector<const char*> words) {
        words.push_back("bad_product");
        reported("bad_product", CUDA_ERROR_LAUNCH_FAILED, words, [=](const Context& context) {
            const Buffer<float> y(128);
            return context.run("bad_product", {1}, {128}, 8200, y.address, mistake);
        });
    };
    bad(NO_FENCE, {"no wgmma.fence precedes", "selfcheck.cu:"});
    bad(UNEQUAL, {"different products", "selfcheck.cu:"});
    bad(MISALIGNED, {"pattern of 512 bytes begins elsewhere", "selfcheck.cu:"});
    bad(UNDONE, {"before its wgmma is waited for"});
}

void bad_copies() {
    enum { NO_SLIP, NO_INIT_FENCE, NO_TRY_WAIT, NO_EXPECT, WRONG_BYTES, TWO_ARRIVALS, NO_INIT };
    const Floats x = normals(64, 13);
    {
        const Context context;
        const Buffer<float> from(x), y(32);
        const auto run = [&](int slip) {
            check(!context.run("bad_bulk", {1}, {32}, 264, from.address, y.address, slip), "bad_bulk");
            return y.values();
        };
        check(run(NO_SLIP)[31] == x[62], "a bulk copy");
        const bool random = simt::options.policy == simt::Policy::random;
        check(random || std::isnan(run(NO_TRY_WAIT)[31]), "a bulk copy that nobody waits for");
    }
    const auto bad = [&](int slip, std::vector<const char*> words) {
        words.push_back("bad_bulk");
        words.push_back("selfcheck.cu:");
        reported("bad_bulk", CUDA_ERROR_LAUNCH_FAILED, words, [=](const Context& context) {
            const Buffer<float> from(x), y(32);
            return context.run("bad_bulk", {1}, {32}, 264, from.address, y.address, slip);
        });
    };
    bad(NO_INIT_FENCE, {"no fence has made visible"});
    bad(NO_EXPECT, {"deadlock", "mbarrier.try_wait"});
    bad(WRONG_BYTES, {"deadlock", "mbarrier.try_wait"});
    // A copy that is made at once ends the phase; then these are arrivals of later phases.
    if (simt::options.policy != simt::Policy::random) bad(TWO_ARRIVALS, {"more arrivals"});
    bad(NO_INIT, {"no mbarrier"});
}

void bad_kernels() {
    const CUresult launch = CUDA_ERROR_LAUNCH_FAILED;
    const auto simple = [&](const char* name, CUresult code, std::vector<const char*> words,
                            dim3 block, unsigned shared) {
        words.push_back(name);
        reported(name, code, words, [=](const Context& context) {
            const Buffer<float> y(1024);
            return context.run(name, {1}, block, shared, y.address);
        });
    };
    simple("bad_deadlock", launch,
           {"deadlock", "__shfl_down_sync", "__syncthreads", "selfcheck.cu:"}, {64}, 0);
    simple("bad_barriers", launch, {"different barriers", "selfcheck.cu:"}, {32}, 0);
    simple("bad_return", launch, {"a thread of the block", "selfcheck.cu:"}, {32}, 0);
    simple("bad_mask", launch, {"__shfl_sync without the calling lane", "selfcheck.cu:"}, {32}, 0);
    simple("bad_meeting", launch, {"__any_sync", "__shfl_sync", "selfcheck.cu:"}, {32}, 0);
    simple("bad_warp", launch, {"mma.m16n8k16", "fewer than 32", "selfcheck.cu:"}, {31}, 0);
    simple("bad_index", launch, {"element -1 of 32", "thread (0,0,0)", "selfcheck.cu:"}, {32}, 128);
    simple("bad_shared", launch, {"17 elements of 4 bytes from byte 64 on of 128", "selfcheck.cu:"},
           {1}, 128);
    simple("bad_alignment", launch, {"ldmatrix", "not aligned", "selfcheck.cu:"}, {32}, 2048);
    simple("bad_trap", launch, {"bad_trap", "__trap", "selfcheck.cu:"}, {32}, 0);
    simple("bad_flag", launch, {"waits for a flag"}, {32}, 4);

    simple("bad_registers", launch, {"same setmaxnreg"}, {128}, 0);
    simple("bad_named", launch, {"deadlock", "32 threads", "bar.sync", "selfcheck.cu:"}, {32}, 0);
    bad_products();
    bad_copies();

    // A race shows as a difference between orders.
    const simt::Options before = simt::options;
    const auto race = [](simt::Policy policy) {
        simt::options.policy = policy;
        const Context context;
        const Buffer<float> x(normals(128, 1)), y(128);
        check(!context.run("bad_race", {1}, {128}, 512, x.address, y.address), "bad_race");
        return y.values();
    };
    check(race(simt::Policy::forward) != race(simt::Policy::reverse),
          "bad_race differs between orders");
    simt::options = before;
    // What has not arrived yet is NaN.
    {
        const Context context;
        const Buffer<float> x(normals(8, 1)), y(4);
        check(!context.run("bad_wait", {1}, {1}, 32, x.address, y.address), "bad_wait");
        check(y.values()[0] == x.values()[3], "what was waited for is there");
        // The random orders make some copies early.
        const bool random = simt::options.policy == simt::Policy::random;
        check(random || std::isnan(y.values()[1]), "what was not waited for is not");
        check(!context.run("bad_start", {4}, {1}, 4, y.address), "bad_start");
        for (const float value : y.values())
            check(std::isnan(value), "shared memory begins as NaN");
    }

    const auto address = [](const Context& context) {
        const Buffer<CUdeviceptr> y(std::vector<CUdeviceptr>{8, 8});
        return context.run("bad_address", {1}, {1}, 0, y.address);
    };
    const auto overrun = [](const Context& context) {
        const Buffer<float> x(Floats(33, 0));
        return context.run("check_add", {1}, {32}, 0, x.address, 1.0f, 34);
    };
    const auto underrun = [](const Context& context) {
        const Buffer<float> x(Floats(32, 0));
        return context.run("bad_before", {1}, {1}, 0, x.address);
    };
#if defined(__SANITIZE_ADDRESS__)
    // AddressSanitizer ends the process.
    for (const auto& launch :
         {std::function<CUresult(const Context&)>(address), {overrun}, {underrun}}) {
        const pid_t child = fork();
        if (child == 0) {
            if (!freopen("/dev/null", "w", stderr)) _exit(0);
            const Context context;
            launch(context);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        check(!WIFEXITED(status) || WEXITSTATUS(status),
              "a wrong address is found by AddressSanitizer");
    }
#else
    const CUresult illegal = CUDA_ERROR_ILLEGAL_ADDRESS;
    reported("bad_address", illegal,
             {"bad_address", "thread (0,0,0)", "0x8", "not in device memory"}, address);
    reported("a write after a buffer", illegal,
             {"check_add has written to byte 132 of a buffer of 132"}, overrun);
    reported("a write before a buffer", illegal,
             {"bad_before has written to 4 bytes before a buffer of 128"}, underrun);
    reported("a read far beyond a buffer", illegal,
             {"kernel check_struct", "byte 1024 of a buffer of 1024"}, [](const Context& context) {
                 const Buffer<float> x(Floats(256, 0)), y(2000);
                 const struct {
                     CUdeviceptr from, into;
                     uint16_t small;
                     unsigned n;
                 } args{x.address, y.address, 0, 2000};
                 return context.run("check_struct", {1}, {1}, 0, args);
             });
    simple("bad_recursion", launch, {"KiB of stack"}, {1}, 0);
#endif
}

// ---------------------------------------------------------------- the driver

void calls() {
    const Context context;
    const CUresult value = CUDA_ERROR_INVALID_VALUE;
    const Buffer<float> x(Floats(100, 1));
    const auto add = [&](dim3 grid, dim3 block, unsigned shared) {
        return context.launch("check_add", grid, block, shared, nullptr, x.address, 1.0f, 100);
    };
    check(add({0}, {32}, 0) == value, "no blocks");
    check(add({1}, {0}, 0) == value, "no threads");
    check(add({1, 65536}, {1}, 0) == value, "too many blocks");
    check(add({1}, {1025}, 0) == value, "too many threads");
    check(add({1}, {1, 1, 65}, 0) == value, "too many threads along z");
    check(add({1}, {32, 33}, 0) == value, "too many threads in all");
    check(add({1}, {32}, 49153) == value, "more shared memory than without an attribute");
    void* function = context.kernel("check_add");
    check(cuFuncSetAttribute(function, 8, 232449) == value, "more shared memory than there is");
    check(!cuFuncSetAttribute(function, 8, 232448) && !add({1}, {32}, 232448),
          "the most shared memory");
    check(cuModuleGetFunction(&function, context.module, "nope") == CUDA_ERROR_NOT_FOUND,
          "an unknown kernel");
    check(!cuCtxSynchronize() && x.values() == Floats(100, 2), "only the good launch ran");

    const Buffer<float> fresh(10);
    check(std::isnan(fresh.values()[9]), "fresh memory is NaN");
    check(!cuMemsetD32_v2(fresh.address, 0x40490fdb, 9) && fresh.values()[8] == 3.14159274f,
          "a fill by words");
    check(!cuMemsetD8_v2(fresh.address, 0, 4) && fresh.values()[0] == 0, "a fill by bytes");
    check(cuMemsetD8_v2(fresh.address, 0, 41) == value, "a fill that is too long");
    float host[11] = {};
    check(cuMemcpyHtoD_v2(fresh.address, host, 44) == value, "a copy that is too long");
    check(cuMemcpyDtoD_v2(fresh.address, x.address + 396, 8) == value,
          "a copy from beyond the end");
    check(cuMemcpyHtoD_v2(CUdeviceptr(&host), host, 4) == value, "a copy to a host address");

    size_t free, total;
    check(!cuMemGetInfo_v2(&free, &total) && total == 64 << 20 && free == total - 440 - 256,
          "free memory");
    CUdeviceptr large;
    check(cuMemAlloc_v2(&large, free + 1) == CUDA_ERROR_OUT_OF_MEMORY, "more memory than there is");
    check(!cuMemAlloc_v2(&large, free) && !cuMemFree_v2(large), "all memory");
    check(cuMemFree_v2(large) == value, "a second free");
    check(cuMemFree_v2(x.address + 4) == value, "a free within a buffer");

    const Buffer<float> gone(100);
    check(!cuMemFreeAsync(gone.address, nullptr), "free");
    check(cuMemcpyDtoH_v2(host, gone.address, 4) == value, "a copy from a freed buffer");
    check(context.launch("check_add", {1}, {32}, 0, nullptr, x.address - 4, 1.0f, 1) == value &&
              text_of(value).find("4 bytes before a buffer of 400") != std::string::npos,
          "a launch with a wrong address");
    check(context.launch("check_add", {1}, {32}, 0, nullptr, gone.address, 1.0f, 1) == value &&
              text_of(value).find("freed") != std::string::npos,
          "a launch with a freed buffer");

    // The arguments are read by the call, and so is pageable memory.
    struct {
        CUdeviceptr from, into;
        uint16_t small;
        unsigned n;
    } args{x.address, fresh.address, 3, 10};
    void* pointers[] = {&args};
    check(!cuLaunchKernel(context.kernel("check_struct"), 1, 1, 1, 32, 1, 1, 0, nullptr, pointers,
                          nullptr),
          "launch");
    args = {};
    check(fresh.values() == Floats(10, 5), "the arguments of the call");
    host[0] = 8;
    check(!cuMemcpyHtoDAsync_v2(fresh.address, host, 4, nullptr), "copy");
    host[0] = 9;
    check(fresh.values()[0] == 8, "the memory at the time of the call");

    const char* field;
    size_t offset, size;
    check(!lawsmith_layout("CheckArgs", 0, &field, &offset, &size) && size == 24,
          "the size of a struct");
    check(!lawsmith_layout("CheckArgs", 4, &field, &offset, &size) && std::string(field) == "n" &&
              offset == 20 && size == 4,
          "the layout of a field");
    check(lawsmith_layout("CheckArgs", 5, &field, &offset, &size) &&
              lawsmith_layout("Nope", 0, &field, &offset, &size),
          "the end of a struct, and an unknown one");
    check(text_of(CUDA_ERROR_NOT_READY) == "device not ready", "a plain text");
}

void two_streams(bool late) {
    const Context context;
    void *first, *second, *event;
    check(!cuStreamCreate(&first, 1) && !cuStreamCreate(&second, 1) && !cuEventCreate(&event, 0),
          "streams");
    const Buffer<float> x(Floats(8, 0));
    const auto add = [&](void* stream, float value) {
        check(!context.launch("check_add", {1}, {8}, 0, stream, x.address, value, 8), "add");
    };
    float* pinned;
    check(!cuMemHostAlloc(reinterpret_cast<void**>(&pinned), 32, 0), "pinned");
    const auto download = [&](void* stream) {
        check(!cuMemcpyDtoHAsync_v2(pinned, x.address, 32, stream), "download");
    };
    const auto wait = [](void* stream) { check(!cuStreamSynchronize(stream), "synchronize"); };

    add(first, 1);
    download(second);
    wait(second);
    check(pinned[0] == (late ? 0 : 1), "without a wait the other stream is late");
    check(!cuEventRecord(event, first) && !cuStreamWaitEvent(second, event, 0),
          "wait for an event");
    download(second);
    check(pinned[0] == (late ? 0 : 1), "without a wait the host is early");
    wait(second);
    check(pinned[0] == 1, "with both waits everything is in order");

    // For pageable memory the call waits.
    float pageable[8];
    add(first, 2);
    check(!cuMemcpyDtoHAsync_v2(pageable, x.address, 32, first) && pageable[7] == 3,
          "pageable memory");
    // From pinned memory the copy reads when it runs.
    pinned[0] = 10;
    check(!cuMemcpyHtoDAsync_v2(x.address, pinned, 4, first), "copy");
    pinned[0] = 20;
    wait(first);
    check(x.values()[0] == (late ? 20 : 10), "pinned memory is read late");

    // An event that nobody waits for still arrives, for a polling loop.
    add(first, 1);
    check(!cuEventRecord(event, first), "record");
    check(cuEventQuery(event) == (late ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS), "not ready at once");
    int asked = 0;
    while (cuEventQuery(event) == CUDA_ERROR_NOT_READY) asked++;
    check(asked < 10, "ready in the end");

    // Host functions, in stream order; they must not call the driver.
    static std::vector<int> order;
    order.clear();
    check(!cuLaunchHostFunc(
              first, [](void*) { order.push_back(cuCtxSynchronize()); }, nullptr),
          "host function");
    check(!cuLaunchHostFunc(
              first, [](void* i) { order.push_back(*static_cast<int*>(i)); }, &asked),
          "host function");
    check(order.size() == (late ? 0 : 2), "host functions are late");
    wait(first);
    check(order == std::vector<int>{CUDA_ERROR_NOT_PERMITTED, asked}, "host functions");

    void* begin;
    float milliseconds = -1;
    check(!cuEventCreate(&begin, 0) && !cuEventRecord(begin, first), "time");
    add(first, 0);
    check(!cuEventRecord(event, first), "time");
    check(cuEventElapsedTime(&milliseconds, begin, event) ==
              (late ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS),
          "no time before the end");
    check(!cuEventSynchronize(event) && !cuEventElapsedTime(&milliseconds, begin, event) &&
              milliseconds > 0 && milliseconds < 1000,
          "the time between events");

    // A buffer that another stream frees first.
    if (late) {
        CUdeviceptr y;
        check(!cuMemAllocAsync(&y, 32, first), "alloc");
        wait(first);
        check(!cuMemsetD8Async(y, 0, 32, second) && !cuMemFreeAsync(y, first), "free");
        wait(first);
        check(cuStreamSynchronize(second) == CUDA_ERROR_ILLEGAL_ADDRESS,
              "a fill after the free is found");
    }
}

void streams_in_order_with_null() {
    const Context context;
    void* blocking;
    check(!cuStreamCreate(&blocking, 0), "stream");
    const Buffer<float> x(Floats(8, 0));
    check(!context.launch("check_add", {1}, {8}, 0, blocking, x.address, 1.0f, 8), "add");
    check(x.values()[0] == 1, "the null stream waits for a blocking one");
    check(!context.launch("check_add", {1}, {8}, 0, nullptr, x.address, 1.0f, 8), "add");
    float host[8];
    check(!cuMemcpyDtoHAsync_v2(host, x.address, 32, blocking) && host[0] == 2,
          "and the other way round");
    // Many launches that nobody waits for.
    for (int i = 0; i < 3000; i++)
        check(!context.launch("check_add", {1}, {8}, 0, blocking, x.address, 1.0f, 8), "add");
    check(!cuStreamDestroy_v2(blocking) && !cuCtxSynchronize(), "destroy");
    check(x.values()[0] == 3002, "a destroyed stream does its work");
}

void recorded_graphs(bool late) {
    const Context context;
    void *first, *second, *fork, *join, *graph, *executable;
    check(!cuStreamCreate(&first, 1) && !cuStreamCreate(&second, 1), "streams");
    check(!cuEventCreate(&fork, 2) && !cuEventCreate(&join, 2), "events");
    const Buffer<float> x(Floats(8, 0)), y(Floats(8, 0));
    const auto add = [&](void* stream, const Buffer<float>& to, float value) {
        return context.launch("check_add", {1}, {8}, 0, stream, to.address, value, 8);
    };
    int status;

    // Two branches that join: x += 1; then x += 2 beside y += 4; then x += y.
    check(!cuStreamBeginCapture_v2(first, 1) && !cuStreamIsCapturing(first, &status) && status == 1,
          "capture");
    check(!add(first, x, 1) && !cuEventRecord(fork, first) && !cuStreamWaitEvent(second, fork, 0),
          "fork");
    check(!add(second, y, 4) && !add(first, x, 2), "branches");
    check(!cuEventRecord(join, second) && !cuStreamWaitEvent(first, join, 0), "join");
    check(!cuMemcpyDtoDAsync_v2(x.address, y.address, 4, first), "copy");
    check(!cuStreamEndCapture(first, &graph) && graph, "end");
    check(!cuStreamIsCapturing(second, &status) && status == 0, "the branch captures no more");
    check(x.values()[1] == 0, "nothing ran");
    check(!cuGraphInstantiateWithFlags(&executable, graph, 0) && !cuGraphDestroy(graph),
          "instantiate");
    check(!cuGraphUpload(executable, first), "upload");
    for (int i = 0; i < 3; i++)
        check(!cuGraphLaunch(executable, i == 1 ? second : first), "launch");
    if (late) check(x.values()[1] == 0, "launches are late");
    // Launches of one graph follow each other, even in different streams.
    check(!cuStreamSynchronize(first) && x.values()[1] == 9 && x.values()[0] == 12 &&
              y.values()[3] == 12,
          "three launches");
    check(!cuGraphExecDestroy(executable), "destroy");

    // Calls that cannot be recorded.
    const auto refused = [&](const char* what, CUresult code, CUresult end,
                             const std::function<CUresult()>& call) {
        check(!cuStreamBeginCapture_v2(first, 1), what);
        check(call() == code, what);
        check(cuStreamEndCapture(first, &graph) == end && !graph, what);
    };
    const CUresult unsupported = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    const CUresult invalidated = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    float host[8];
    refused("a wait in a capture", unsupported, invalidated,
            [&] { return cuStreamSynchronize(first); });
    refused("a wait for all in a capture", unsupported, invalidated,
            [&] { return cuCtxSynchronize(); });
    refused("a pageable copy in a capture", unsupported, invalidated,
            [&] { return cuMemcpyHtoDAsync_v2(x.address, host, 32, first); });
    CUdeviceptr address;
    refused("an allocation in a capture", unsupported, invalidated,
            [&] { return cuMemAlloc_v2(&address, 32); });
    refused("an event from outside", CUDA_ERROR_STREAM_CAPTURE_ISOLATION, invalidated, [&] {
        check(!cuEventRecord(fork, second), "record");
        return cuStreamWaitEvent(first, fork, 0);
    });
    refused("a branch that does not come back", CUDA_SUCCESS, CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
            [&] {
                check(!cuEventRecord(fork, first) && !cuStreamWaitEvent(second, fork, 0), "fork");
                return add(second, y, 1);
            });
    check(cuStreamEndCapture(first, &graph) == CUDA_ERROR_ILLEGAL_STATE, "no capture to end");
    check(cuStreamBeginCapture_v2(nullptr, 1) == unsupported, "the null stream cannot be captured");
    check(!add(first, x, 1) && !cuStreamSynchronize(first), "usable afterwards");
}

// Several threads of the program, each with its own stream.
void threads() {
    const Context context;
    std::vector<std::thread> threads;
    bool good[4] = {};
    for (bool& result : good)
        threads.emplace_back([&] {
            void* stream;
            CUdeviceptr x;
            Floats values(1000, 0);
            result = !cuCtxSetCurrent(context.handle) && !cuStreamCreate(&stream, 1) &&
                     !cuMemAllocAsync(&x, 4000, stream) &&
                     !cuMemcpyHtoDAsync_v2(x, values.data(), 4000, stream);
            void* function = nullptr;
            result &= !cuModuleGetFunction(&function, context.module, "check_add");
            for (int i = 0; i < 100; i++) {
                float one = 1;
                int n = 1000;
                void* arguments[] = {&x, &one, &n};
                result &= !cuLaunchKernel(function, 3, 1, 1, 64, 1, 1, 0, stream, arguments, nullptr);
                if (i % 10 == 0) result &= !cuCtxSynchronize();
            }
            result &= !cuMemcpyDtoHAsync_v2(values.data(), x, 4000, stream) &&
                      !cuMemFreeAsync(x, stream) && !cuStreamDestroy_v2(stream);
            result &= values == Floats(1000, 100);
        });
    for (std::thread& thread : threads) thread.join();
    for (const bool result : good) check(result, "threads side by side");
}

// What the pool of stream-ordered memory holds, and who may use it.
void pools() {
    setting = "pools";
    const Context context;
    void *pool, *stream;
    check(!cuDeviceGetMemPool(&pool, 0) && !cuStreamCreate(&stream, 1), "a pool");
    const auto held = [&](int attribute) {
        uint64_t bytes = 1;
        check(!cuMemPoolGetAttribute(pool, attribute, &bytes), "an attribute of a pool");
        return bytes;
    };
    const auto available = [] {
        size_t free, total;
        return cuMemGetInfo_v2(&free, &total) ? 0 : free;
    };
    const uint64_t size = 40 << 20, reserved = 5, used = 7;
    const size_t all = available();
    const auto come_and_go = [&] {
        CUdeviceptr pointer;
        check(!cuMemAllocAsync(&pointer, size, stream), "pooled memory");
        check(held(reserved) == size && held(used) == size && available() == all - size,
              "pooled memory in use");
        check(!cuMemFreeAsync(pointer, stream) && !cuStreamSynchronize(stream),
              "freed by a stream");
    };
    come_and_go();
    check(!held(4) && !held(reserved) && available() == all, "a wait gives everything back");

    uint64_t most = UINT64_MAX;
    check(!cuMemPoolSetAttribute(pool, 4, &most), "a threshold");
    come_and_go();
    come_and_go();
    check(held(reserved) == size && !held(used) && available() == all - size, "a pool that keeps");
    CUdeviceptr beside, pooled;
    check(cuMemAlloc_v2(&beside, size) == CUDA_ERROR_OUT_OF_MEMORY, "what a pool holds is its own");
    check(!cuMemAllocAsync(&pooled, all, stream) && held(reserved) == all, "a pool that grows");
    check(!cuMemPoolTrimTo(pool, 0) && held(reserved) == all, "what is in use is not trimmed");
    check(!cuMemFree_v2(pooled) && held(reserved) == all && !held(used), "freed by a call");
    check(!cuMemPoolTrimTo(pool, 1 << 20) && available() == all - (1 << 20), "trimmed to a size");
    check(!cuMemAlloc_v2(&beside, size) && !cuMemFree_v2(beside), "room beside a trimmed pool");
    check(cuMemPoolTrimTo(&most, 0) == CUDA_ERROR_INVALID_VALUE, "not a pool");

    void* module;
    check(!cuMemPoolTrimTo(pool, 0) && !cuMemAllocAsync(&pooled, all, stream) &&
              cuModuleLoadData(&module, "x") == CUDA_ERROR_OUT_OF_MEMORY,
          "no room for code");
    check(!cuMemFree_v2(pooled) && !cuMemPoolTrimTo(pool, 0) && !cuModuleLoadData(&module, "x") &&
              available() == all - 256 && !cuModuleUnload(module) && available() == all,
          "code beside the pool");
}

// Drivers without a device for us, each in its own process, whose environment is read once.
void drivers() {
    setting = "drivers";
    using Settings = std::vector<std::pair<const char*, const char*>>;
    const auto in_child = [](const std::string& what, const Settings& settings,
                             const std::function<bool()>& good) {
        const pid_t child = fork();
        if (!child) {
            for (const auto& [name, value] : settings) setenv(name, value, 1);
            _exit(!good());
        }
        int status;
        check(waitpid(child, &status, 0) == child && !status, what);
    };
    const char* fault = "LAWSMITH_EMULATED_DRIVER";
    const std::pair<const char*, CUresult> at_once[] = {
        {"stub", CUDA_ERROR_STUB_LIBRARY},
        {"no-device", CUDA_ERROR_NO_DEVICE},
        {"no-permission", CUDA_ERROR_OPERATING_SYSTEM},
        {"not-ready", CUDA_ERROR_SYSTEM_NOT_READY},
        {"mismatch", CUDA_ERROR_SYSTEM_DRIVER_MISMATCH},
        {"compat", CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE},
        {"nonsense", CUDA_ERROR_INVALID_VALUE},
    };
    for (const auto& [name, code] : at_once)
        in_child(name, {{fault, name}}, [&] { return cuInit(0) == code; });
    for (const auto& [name, mode] : {std::pair("exclusive", 3), std::pair("prohibited", 2)})
        in_child(name, {{fault, name}}, [&] {
            void* handle;
            int found;
            return !cuInit(0) && !cuDeviceGetAttribute(&found, 20, 0) && found == mode &&
                   cuDevicePrimaryCtxRetain(&handle, 0) == CUDA_ERROR_DEVICE_UNAVAILABLE;
        });
    in_child("old-ptx", {{fault, "old-ptx"}}, [] {
        void *handle, *module;
        return !cuInit(0) && !cuDevicePrimaryCtxRetain(&handle, 0) && !cuCtxSetCurrent(handle) &&
               cuModuleLoadData(&module, "x") == CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    });
    const Settings device = {{"LAWSMITH_EMULATED_VERSION", "12040"},
                             {"LAWSMITH_EMULATED_CAPABILITY", "75"},
                             {"LAWSMITH_EMULATED_NAME", "Tesla T4"}};
    in_child("a device of a choice", device, [] {
        int version, major, minor;
        char name[20];
        return !cuDriverGetVersion(&version) && version == 12040 && !cuInit(0) &&
               !cuDeviceGetAttribute(&major, 75, 0) && !cuDeviceGetAttribute(&minor, 76, 0) &&
               !cuDeviceGetName(name, 20, 0) && major == 7 && minor == 5 &&
               name == std::string("Tesla T4");
    });
    const std::pair<const char*, int> lists[] = {{"0,1", 2}, {"1,7,0", 1}, {"2", 0},
                                                 {"", 0},    {"-1", 0},    {"GPU-0f3a,MIG-77", 2}};
    for (const auto& [list, expected] : lists)
        in_child(std::string("visible: ") + list,
                 {{"LAWSMITH_EMULATED_DEVICES", "2"}, {"CUDA_VISIBLE_DEVICES", list}}, [&] {
                     int count, last;
                     if (!expected) return cuInit(0) == CUDA_ERROR_NO_DEVICE;
                     return !cuInit(0) && !cuDeviceGetCount(&count) && count == expected &&
                            !cuDeviceGet(&last, count - 1) &&
                            cuDeviceGet(&last, count) == CUDA_ERROR_INVALID_DEVICE;
                 });
}

}  // namespace

int main() {
    drivers();
    setenv("LAWSMITH_EMULATED_MEMORY", std::to_string(64 << 20).c_str(), 1);
    if (cuInit(0)) {
        printf("%s\n", text_of(CUDA_ERROR_INVALID_VALUE).c_str());
        return 1;
    }
    const char* streams = getenv("LAWSMITH_EMULATED_STREAMS");
    const bool late = streams && std::string(streams) == "late";
    std::vector<const char*> schedules = {"forward", "random:1"};
    if (!simt::races::on)
        schedules.insert(schedules.end(), {"reverse", "random:2", "random:3", "greedy", "greedy-reverse",
                                           "greedy-random:1", "greedy-random:2"});
    for (const char* schedule : schedules)
        for (const unsigned workers : {1u, 2u}) {
            simt::parse_schedule(schedule, simt::options);
            simt::options.workers = workers;
            setting = std::string(schedule) + ", " + std::to_string(workers) + " workers, " +
                      (late ? "late" : "eager");
            good_kernels();
            orders();
            if (!simt::races::on) bad_kernels();
        }
    calls();
    pools();
    two_streams(late);
    streams_in_order_with_null();
    recorded_graphs(late);
    threads();
    check(!simt::parse_schedule("nope", simt::options) &&
              !simt::parse_schedule("random:", simt::options) &&
              !simt::parse_schedule("random:1x", simt::options),
          "unknown schedules");
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
