// Between the two sides of scripts/witness: ours, on the stand-in, and CuTe's. They cannot share a file, since the
// stand-in and CUDA's own headers use the same names.
#pragma once
#include <cstdint>
#include <vector>

namespace ours {

struct Place {
    int row, column;
};

// As in ptx.cuh and hopper.cuh: the place of element `i` of a lane or of a thread of a warpgroup.
Place accumulator(int lane, int i);
Place a16(int lane, int i);
Place b16(int lane, int i);
Place a8(int lane, int i);
Place b8(int lane, int i);
Place wgmma_accumulator(int thread, int i);

// Byte of an element of an operand in the layout of weights in a stage: rows of 32.
unsigned stage(int row, int column);
// The same for activations of 64 edges, in blocks of 32 units.
unsigned activation(int edge, int unit);

// The descriptor of such operands at byte `at` of shared memory, for step `k` of 16 along the sum.
uint64_t along(unsigned at, int k);
// For activations whose edges are summed.
uint64_t across(unsigned at, int k);

// The registers of a warp in the stand-in, [32][4], after ldmatrix.x4 of 32 rows of 8.
std::vector<uint32_t> ldmatrix(const std::vector<uint16_t>& rows, bool transposed);

// Shared memory after a warpgroup has stored pairs of neighbours in a row of its accumulators of m64n`n`k16, [128][n /
// 4], as activations.
std::vector<uint16_t> stored(int n, const std::vector<uint32_t>& pairs);

struct Operands {
    uint64_t a, b;
};
// The accumulators of m64n`n`k16, [128][n / 2], from the stand-in's wgmma, after the sum over some steps.
std::vector<float> product(int n, bool transposed, const std::vector<uint16_t>& memory,
                           const std::vector<Operands>& steps);

}  // namespace ours
