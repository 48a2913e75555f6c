// An independent check of what kernels and the stand-in both take from the PTX ISA (notes/hopper.md): which thread
// holds what, where operands lie, and their descriptors, against the layouts of CuTe, NVIDIA's own library, which are
// functions that a CPU can call. Run by scripts/witness.
#include <cstddef>
#include <cstdint>

// Shared memory as addressed by CuTe. Its descriptors are normally made on a GPU only; with these two lines also here.
alignas(1024) static unsigned char memory[96 << 10];
#define CUTE_CVTA_GENERIC_TO_SHARED_ACTIVATED 1
static size_t __cvta_generic_to_shared(const void* pointer) {
    return size_t(static_cast<const unsigned char*>(pointer) - memory);
}

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/tensor.hpp>

#include "witness.h"

#include <cstdio>
#include <cstring>
#include <vector>

using namespace cute;
using SM90::GMMA::Major;
using Number = bfloat16_t;

namespace {

// How many values were compared for each fact, and how many differ.
struct Total {
    const char* what;
    size_t compared, wrong;
};
std::vector<Total> totals;

// A fact, for one shape m64nNk16 or, with n = 0, one for all.
struct Fact {
    const char* what;
    int n;
    size_t compared = 0, wrong = 0;

    void expect(uint64_t own, uint64_t cute, int i, int j) {
        compared++;
        if (own == cute || wrong++) return;
        printf("DIFFERS: %s, N = %d, at (%d, %d): here %#llx, CuTe %#llx\n", what, n, i, j,
               static_cast<unsigned long long>(own), static_cast<unsigned long long>(cute));
    }
    ~Fact() {
        for (Total& total : totals)
            if (!strcmp(total.what, what)) {
                total.compared += compared;
                total.wrong += wrong;
                return;
            }
        totals.push_back({what, compared, wrong});
    }
};

template <int N, Major>
struct Product;
#define PRODUCT(N)                                                         \
    template <Major M>                                                     \
    struct Product<N, M> {                                                 \
        using Type = SM90::GMMA::MMA_64x##N##x16_F32BF16BF16_SS<M, M>;     \
    };
PRODUCT(32) PRODUCT(64) PRODUCT(128) PRODUCT(192) PRODUCT(256)

// ---------------------------------------------------------------- mma.sync and ldmatrix

// A map of CuTe goes from (lane, i) to row + rows · column; `swapped`: ours has them the other way round.
template <class Layout>
void map(const char* what, Layout layout, int rows, bool swapped, ours::Place (*own)(int, int)) {
    Fact fact{what, 0};
    for (int thread = 0; thread < size<0>(layout); thread++)
        for (int i = 0; i < size<1>(layout); i++) {
            const ours::Place place = own(thread, i);
            const int row = swapped ? place.column : place.row, column = swapped ? place.row : place.column;
            fact.expect(unsigned(row + rows * column), unsigned(int(layout(thread, i))), thread, i);
        }
}

void fragments() {
    using Bf16 = MMA_Traits<SM80_16x8x16_F32BF16BF16F32_TN>;
    using Tf32 = MMA_Traits<SM80_16x8x8_F32TF32TF32F32_TN>;
    map("accumulators of mma.m16n8k16", Bf16::CLayout{}, 16, false, ours::accumulator);
    map("A of mma.m16n8k16", Bf16::ALayout{}, 16, false, ours::a16);
    map("B of mma.m16n8k16", Bf16::BLayout{}, 8, true, ours::b16);
    map("accumulators of mma.m16n8k8", Tf32::CLayout{}, 16, false, ours::accumulator);
    map("A of mma.m16n8k8", Tf32::ALayout{}, 16, false, ours::a8);
    map("B of mma.m16n8k8", Tf32::BLayout{}, 8, true, ours::b8);
}

// Copies of CuTe are maps from (lane, bit) to bits, for what is read and for what arrives.
template <class Copy>
void ldmatrix(const char* what, bool transposed) {
    Fact fact{what, 0};
    const typename Copy_Traits<Copy>::SrcLayout from;
    const typename Copy_Traits<Copy>::DstLayout to;
    std::vector<uint16_t> rows(32 * 8), by_bit(32 * 8);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 8; i++) {
            rows[size_t(8 * lane + i)] = uint16_t(8 * lane + i);
            by_bit[size_t(int(from(lane, 16 * i)) / 16)] = uint16_t(8 * lane + i);
        }
    const std::vector<uint32_t> registers = ours::ldmatrix(rows, transposed);
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 8; i++) {
            const uint32_t own = registers[size_t(4 * lane + i / 2)] >> (16 * (i % 2)) & 0xffff;
            fact.expect(own, by_bit[size_t(int(to(lane, 16 * i)) / 16)], lane, i);
        }
}

// ---------------------------------------------------------------- wgmma

int chosen(unsigned& state) {
    state = state * 1664525u + 1013904223u;
    return int(state >> 24) % 5 - 2;
}

// Bytes from the start of shared memory to an element.
template <class Tensor>
unsigned byte_of(Tensor const& tensor, int i, int j) {
    return unsigned(reinterpret_cast<unsigned char*>(&tensor(i, j)) - memory);
}

// Small numbers in both operands, multiplied by the stand-in's product with CuTe's descriptors, against the product in
// plain loops.
template <int N, Major MAJOR, class A, class B>
void product(const char* what, A const& a, B const& b, const std::vector<ours::Operands>& steps) {
    Fact fact{what, N};
    memset(memory, 0xff, sizeof memory);
    unsigned state = 1;
    const int depth = int(size<1>(a));
    std::vector<float> left(size_t(64 * depth)), right(size_t(N * depth));
    const auto fill = [&](auto const& tensor, std::vector<float>& plain) {
        for (int i = 0; i < size<0>(tensor); i++)
            for (int k = 0; k < depth; k++) {
                plain[size_t(i * depth + k)] = float(chosen(state));
                tensor(i, k) = Number(plain[size_t(i * depth + k)]);
            }
    };
    fill(a, left);
    fill(b, right);
    std::vector<uint16_t> image(sizeof memory / 2);
    memcpy(image.data(), memory, sizeof memory);
    const std::vector<float> sums = ours::product(N, MAJOR == Major::MN, image, steps);
    const typename MMA_Traits<typename Product<N, MAJOR>::Type>::CLayout accumulators;
    for (int thread = 0; thread < 128; thread++)
        for (int i = 0; i < N / 2; i++) {
            const int at = int(accumulators(thread, i)), row = at % 64, column = at / 64;
            float sum = 0;
            for (int k = 0; k < depth; k++)
                sum += left[size_t(row * depth + k)] * right[size_t(column * depth + k)];
            uint32_t own, plain;
            memcpy(&own, &sums[size_t(thread * N / 2 + i)], 4);
            memcpy(&plain, &sum, 4);
            fact.expect(own, plain, thread, i);
        }
}

// The descriptors of both operands for each step of 16 along the sum, as the main loops of CUTLASS make them.
template <int N, Major MAJOR, class A, class B>
std::vector<ours::Operands> descriptors(A const& a, B const& b) {
    const auto thread = make_tiled_mma(typename Product<N, MAJOR>::Type{}).get_slice(0);
    const auto left = thread.make_fragment_A(thread.partition_A(a));
    const auto right = thread.make_fragment_B(thread.partition_B(b));
    std::vector<ours::Operands> steps;
    for (int k = 0; k < size<2>(left); k++)
        steps.push_back({uint64_t(left(0, 0, k)), uint64_t(right(0, 0, k))});
    return steps;
}

// Operands whose rows lie along the sum: activations × a stage of weights, both at byte `at` and behind.
template <int N>
void along(unsigned at) {
    using Atom = SM90::GMMA::Layout_K_SW64_Atom<Number>;
    const unsigned b_at = at + 64 * 64;
    const auto a = make_tensor(make_smem_ptr(reinterpret_cast<Number*>(memory + at)),
                               tile_to_shape(Atom{}, Shape<_64, _32>{}));
    const auto b = make_tensor(make_smem_ptr(reinterpret_cast<Number*>(memory + b_at)),
                               tile_to_shape(Atom{}, Shape<Int<N>, _32>{}));
    {
        Fact fact{"places of operands along the sum", N};
        for (int row = 0; row < 64; row++)
            for (int k = 0; k < 32; k++) fact.expect(at + ours::activation(row, k), byte_of(a, row, k), row, k);
        for (int row = 0; row < N; row++)
            for (int k = 0; k < 32; k++) fact.expect(b_at + ours::stage(row, k), byte_of(b, row, k), row, k);
    }
    const std::vector<ours::Operands> steps = descriptors<N, Major::K>(a, b);
    {
        Fact fact{"descriptors of operands along the sum", N};
        for (int k = 0; k < int(steps.size()); k++) {
            fact.expect(ours::along(at, k), steps[size_t(k)].a, 0, k);
            fact.expect(ours::along(b_at, k), steps[size_t(k)].b, 1, k);
        }
        fact.expect(steps.size(), 2, 2, 0);
    }
    product<N, Major::K>("the stand-in's product along the sum", a, b, steps);
}

// Operands whose rows lie across the sum: activations of 64 edges, 64 units of one × N of the other.
template <int N>
void across(unsigned at) {
    using Atom = SM90::GMMA::Layout_MN_SW64_Atom<Number>;
    const unsigned b_at = at + 64 * 64 * 2;
    // Edges first, then blocks of units.
    const auto a = make_tensor(make_smem_ptr(reinterpret_cast<Number*>(memory + at)),
                               tile_to_shape(Atom{}, Shape<_64, _64>{}, Step<_2, _1>{}));
    const auto b = make_tensor(make_smem_ptr(reinterpret_cast<Number*>(memory + b_at)),
                               tile_to_shape(Atom{}, Shape<Int<N>, _64>{}, Step<_2, _1>{}));
    {
        Fact fact{"places of operands across the sum", N};
        for (int edge = 0; edge < 64; edge++) {
            for (int unit = 0; unit < 64; unit++)
                fact.expect(at + ours::activation(edge, unit), byte_of(a, unit, edge), unit, edge);
            for (int unit = 0; unit < N; unit++)
                fact.expect(b_at + ours::activation(edge, unit), byte_of(b, unit, edge), unit, edge);
        }
    }
    const std::vector<ours::Operands> steps = descriptors<N, Major::MN>(a, b);
    {
        Fact fact{"descriptors of operands across the sum", N};
        // With N = 32 there is one pattern across the sum, and the offset to the next is not used.
        const uint64_t b_counts = N == 32 ? ~(uint64_t(0x3fff) << 16) : ~uint64_t(0);
        for (int k = 0; k < int(steps.size()); k++) {
            fact.expect(ours::across(at, k), steps[size_t(k)].a, 0, k);
            fact.expect(ours::across(b_at, k) & b_counts, steps[size_t(k)].b & b_counts, 1, k);
        }
        fact.expect(steps.size(), 4, 2, 0);
    }
    product<N, Major::MN>("the stand-in's product across the sum", a, b, steps);
}

// The accumulators stored by a warpgroup are activations again.
template <int N>
void stored() {
    const typename MMA_Traits<typename Product<N, Major::K>::Type>::CLayout accumulators;
    {
        Fact fact{"accumulators of wgmma", N};
        for (int thread = 0; thread < 128; thread++)
            for (int i = 0; i < N / 2; i++) {
                const ours::Place own = ours::wgmma_accumulator(thread, i);
                fact.expect(unsigned(own.row + 64 * own.column), unsigned(int(accumulators(thread, i))), thread, i);
            }
    }
    Fact fact{"accumulators stored as activations", N};
    std::vector<uint32_t> pairs(128 * N / 4);
    for (int thread = 0; thread < 128; thread++)
        for (int i = 0; i < N / 4; i++)
            pairs[size_t(thread * N / 4 + i)] = uint32_t(int(accumulators(thread, 2 * i))) |
                                                uint32_t(int(accumulators(thread, 2 * i + 1))) << 16;
    const std::vector<uint16_t> found = ours::stored(N, pairs);
    const auto activations = make_tensor(make_smem_ptr(reinterpret_cast<Number*>(memory)),
                                         tile_to_shape(SM90::GMMA::Layout_K_SW64_Atom<Number>{}, Shape<_64, Int<N>>{}));
    for (int row = 0; row < 64; row++)
        for (int column = 0; column < N; column++)
            fact.expect(found[byte_of(activations, row, column) / 2], unsigned(row + 64 * column), row, column);
}

template <int N>
void shape() {
    stored<N>();
    // Starts of patterns of 512 bytes, which are not always starts of the 128-byte swizzle's.
    for (const unsigned at : {0u, 512u, 5u << 9}) along<N>(at), across<N>(at);
}

}  // namespace

int main() {
    fragments();
    ldmatrix<SM75_U32x4_LDSM_N>("ldmatrix.x4", false);
    ldmatrix<SM75_U16x8_LDSM_T>("ldmatrix.x4.trans", true);
    shape<32>();
    shape<64>();
    shape<128>();
    shape<192>();
    shape<256>();
    size_t wrong = 0;
    for (const Total& total : totals) {
        printf("%8zu values, %zu differ: %s\n", total.compared, total.wrong, total.what);
        wrong += total.wrong;
    }
    return wrong != 0;
}
