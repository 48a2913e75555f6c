// Our side of scripts/witness: fragments, operands and descriptors according to the kernels, and the stand-in's results
// for them.
#include "../common/device.cuh"
#include "../common/gemm.cuh"
#include "../common/fused.cuh"
#include "../common/hopper.cuh"
#include "../common/hopper_tiles.cuh"
#include "witness.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

namespace ours {

namespace {

Place place(Element e) { return {e.row, e.column}; }

// Runs `body` as the threads of one block.
void run(unsigned threads, size_t shared_bytes, const std::function<void()>& body) {
    static constexpr size_t sizes[] = {sizeof(void*), 0};
    const auto call = [](void* const* arguments) {
        (**static_cast<const std::function<void()>* const*>(arguments[0]))();
    };
    const simt::Function function{"witness", call, sizes, 1, nullptr};
    const std::function<void()>* pointer = &body;
    void* arguments[] = {&pointer};
    simt::Failure failure;
    if (simt::run(function, {1, 1, 1}, {threads, 1, 1}, shared_bytes, arguments, failure)) return;
    printf("FAILED on the stand-in: %s\n", failure.text);
    exit(1);
}

// Calls `body` with the constant `n`, one of the existing shapes.
template <class Body>
auto with(int n, Body body) {
    switch (n) {
        case 32: return body(std::integral_constant<int, 32>());
        case 64: return body(std::integral_constant<int, 64>());
        case 128: return body(std::integral_constant<int, 128>());
        case 192: return body(std::integral_constant<int, 192>());
        default: return body(std::integral_constant<int, 256>());
    }
}

const void* shared_at(unsigned at) { return simt::block.shared + at; }

}  // namespace

Place accumulator(int lane, int i) { return place(accumulator_element(lane, i)); }
Place a16(int lane, int i) { return place(a16_element(lane, i)); }
Place b16(int lane, int i) { return place(b16_element(lane, i)); }
Place a8(int lane, int i) { return place(a8_element(lane, i)); }
Place b8(int lane, int i) { return place(b8_element(lane, i)); }
Place wgmma_accumulator(int thread, int i) { return place(wgmma_element(thread, i)); }

unsigned stage(int row, int column) { return unsigned(swizzled(row, column)) * sizeof(Bf16); }
unsigned activation(int edge, int unit) {
    return unsigned(unit / SWIZZLED * HOPPER_BLOCK + swizzled(edge, unit % SWIZZLED)) * sizeof(Bf16);
}

uint64_t along(unsigned at, int k) { return swizzled_operand(shared_at(at), k); }
uint64_t across(unsigned at, int k) { return transposed_operand(shared_at(at), HOPPER_BLOCK_BYTES, k); }

std::vector<uint32_t> ldmatrix(const std::vector<uint16_t>& rows, bool transposed) {
    std::vector<uint32_t> registers(32 * 4);
    run(32, rows.size() * sizeof(Bf16), [&] {
        const Shared<Bf16> to = shared<Bf16>(0, rows.size());
        const int lane = int(threadIdx.x);
        for (int i = 8 * lane; i < 8 * lane + 8; i++) to[i] = __ushort_as_bfloat16(rows[size_t(i)]);
        __syncwarp();
        uint32_t own[4];
        if (transposed)
            ldmatrix_x4<true>(own, to.at(8 * lane, 8));
        else
            ldmatrix_x4<false>(own, to.at(8 * lane, 8));
        memcpy(&registers[size_t(4 * lane)], own, sizeof own);
    });
    return registers;
}

std::vector<uint16_t> stored(int n, const std::vector<uint32_t>& pairs) {
    std::vector<uint16_t> memory(size_t(HOPPER_ROWS * n));
    with(n, [&](auto constant) {
        constexpr int N = constant();
        run(WARPGROUP, memory.size() * sizeof(Bf16), [&] {
            const Shared<Bf16> to = shared<Bf16>(0, memory.size());
            uint32_t own[N / 4];
            memcpy(own, &pairs[threadIdx.x * (N / 4)], sizeof own);
            hopper_store<N>(to, 0, own);
            __syncthreads();
            for (size_t i = threadIdx.x; i < memory.size(); i += WARPGROUP)
                memory[i] = __bfloat16_as_ushort(to[i]);
        });
    });
    return memory;
}

std::vector<float> product(int n, bool transposed, const std::vector<uint16_t>& memory,
                           const std::vector<Operands>& steps) {
    std::vector<float> results(size_t(WARPGROUP * n / 2));
    with(n, [&](auto constant) {
        constexpr int N = constant();
        const size_t bytes = memory.size() * sizeof(Bf16);
        run(WARPGROUP, bytes + sizeof(uint64_t), [&] {
            const Shared<Bf16> to = shared<Bf16>(0, memory.size());
            // The stand-in records who writes what from the first one on.
            if (threadIdx.x == 0) mbarrier_init(shared<uint64_t>(bytes, 1).at(0, 1), 1);
            __syncthreads();
            for (size_t i = threadIdx.x; i < memory.size(); i += WARPGROUP)
                to[i] = __ushort_as_bfloat16(memory[i]);
            proxy_fence();
            __syncthreads();
            float sums[N / 2] = {};
            wgmma_fence();
            for (const Operands& step : steps) {
                if (transposed)
                    wgmma<N, true>(sums, step.a, step.b);
                else
                    wgmma<N>(sums, step.a, step.b);
            }
            wgmma_commit();
            wgmma_wait<0>(sums);
            memcpy(&results[threadIdx.x * (N / 2)], sums, sizeof sums);
        });
    });
    return results;
}

}  // namespace ours
