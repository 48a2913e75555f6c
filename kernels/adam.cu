// One step of Adam on a stack of flat arenas, each with its gradient scaled to unit norm. Mathematics, CPU twin and
// tests: src/ops/adam/.
#include "common/device.cuh"

struct Rates {
    float rate;     // learning rate / (1 - beta1^t)
    float root;     // 1 / sqrt(1 - beta2^t)
    float fresh1;   // 1 - beta1
    float fresh2;   // 1 - beta2
    float epsilon;
};
LAYOUT(Rates, rate, root, fresh1, fresh2, epsilon)

struct AdamArgs {
    float* parameters;               // [runs, len]
    float* m;                        // [runs, len] mean of the gradient
    float* v;                        // [runs, len] mean of its square
    const float* gradients;          // [runs, len]
    unsigned short* operands;        // [runs, len] bf16 copy of the parameters, or null
    double* squares;                 // [runs, parts] |g|² of each part: from adam_norm to adam_step
    const Rates* rates;              // a table, of which this step uses entry *step
    const unsigned long long* step;  // or null, for entry 0
    unsigned long long len;          // of a run
    unsigned long long parts;        // of a run's gradient; they depend on `len` alone
};
LAYOUT(AdamArgs, parameters, m, v, gradients, operands, squares, rates, step, len, parts)

// Sums over the threads of the block, a power of two in number, in a fixed order; the result is in `sums[0]`, which
// thread 0 may read.
DEVICE void add_up(Shared<double> sums, double own) {
    sums[threadIdx.x] = own;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
}

// A block for each part along x and each run along y.
KERNEL void adam_norm(AdamArgs args) {
    constexpr unsigned AT_ONCE = 8;
    const size_t length = (args.len + args.parts - 1) / args.parts;
    const size_t begin = blockIdx.x * length, end = min(size_t(args.len), begin + length);
    const float* gradients = args.gradients + blockIdx.y * args.len;
    double sum = 0;
    for (size_t first = begin + threadIdx.x; first < end; first += AT_ONCE * blockDim.x) {
        // Loaded together: one by one, each would wait for memory.
        float g[AT_ONCE];
        UNROLL for (unsigned k = 0; k < AT_ONCE; k++) {
            const size_t i = first + k * blockDim.x;
            g[k] = i < end ? gradients[i] : 0;
        }
        UNROLL for (unsigned k = 0; k < AT_ONCE; k++) sum += double(g[k]) * double(g[k]);
    }
    const Shared<double> sums = shared<double>(0, blockDim.x);
    add_up(sums, sum);
    if (threadIdx.x == 0) args.squares[blockIdx.y * args.parts + blockIdx.x] = sums[0];
}
EXPORT(adam_norm)

DEVICE void update(const Rates& rates, float& w, float& m, float& v, float g) {
    m += rates.fresh1 * (g - m);
    v += rates.fresh2 * (g * g - v);
    w -= rates.rate * m / (sqrtf(v) * rates.root + rates.epsilon);
}

DEVICE unsigned short rounded(float x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

DEVICE bool aligned(const void* pointer, size_t bytes) {
    return reinterpret_cast<size_t>(pointer) % bytes == 0;
}

// Any number of blocks along x, one run for each along y. All blocks of a run add up the same squares in the same
// order: a separate kernel for that would take longer to start than they do.
KERNEL void adam_step(AdamArgs args) {
    const Rates rates = args.rates[args.step ? *args.step : 0];
    double sum = 0;
    for (size_t part = threadIdx.x; part < args.parts; part += blockDim.x)
        sum += args.squares[blockIdx.y * args.parts + part];
    const Shared<double> sums = shared<double>(0, blockDim.x);
    add_up(sums, sum);
    const Shared<float> shared_scale = shared<float>(blockDim.x * sizeof(double), 1);
    if (threadIdx.x == 0) shared_scale[0] = sums[0] > 0 ? float(1 / sqrt(sums[0])) : 0;
    __syncthreads();
    const float scale = shared_scale[0];

    const size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const size_t first = blockIdx.y * args.len;
    float* parameters = args.parameters + first;
    float* ms = args.m + first;
    float* vs = args.v + first;
    const float* gradients = args.gradients + first;
    unsigned short* operands = args.operands ? args.operands + first : nullptr;

    // Four elements at a time if every array allows it, then the rest one by one.
    const bool wide = aligned(parameters, 16) && aligned(ms, 16) && aligned(vs, 16) &&
                      aligned(gradients, 16) && aligned(operands, 8);
    const size_t quads = wide ? args.len / 4 : 0;
    for (size_t i = thread; i < quads; i += threads) {
        float4& w_at = reinterpret_cast<float4*>(parameters)[i];
        float4& m_at = reinterpret_cast<float4*>(ms)[i];
        float4& v_at = reinterpret_cast<float4*>(vs)[i];
        const float4 g = reinterpret_cast<const float4*>(gradients)[i];
        float4 w = w_at, m = m_at, v = v_at;
        update(rates, w.x, m.x, v.x, scale * g.x);
        update(rates, w.y, m.y, v.y, scale * g.y);
        update(rates, w.z, m.z, v.z, scale * g.z);
        update(rates, w.w, m.w, v.w, scale * g.w);
        w_at = w;
        m_at = m;
        v_at = v;
        if (operands)
            reinterpret_cast<ushort4*>(operands)[i] =
                make_ushort4(rounded(w.x), rounded(w.y), rounded(w.z), rounded(w.w));
    }
    for (size_t i = 4 * quads + thread; i < args.len; i += threads) {
        update(rates, parameters[i], ms[i], vs[i], scale * gradients[i]);
        if (operands) operands[i] = rounded(parameters[i]);
    }
}
EXPORT(adam_step)
