// One step of Adam on a flat arena. Mathematics, argument struct in Rust, processor twin and tests:
// src/ops/adam/.
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
    float* parameters;               // [len]
    float* m;                        // [len] mean of the gradient
    float* v;                        // [len] mean of its square
    const float* gradients;          // [len]
    unsigned short* operands;        // [len] bf16 copy of the parameters, or null
    const Rates* rates;              // a table, of which this step uses entry *step
    const unsigned long long* step;  // or null, for entry 0
    unsigned long long len;
};
LAYOUT(AdamArgs, parameters, m, v, gradients, operands, rates, step, len)

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

// Any grid of one-dimensional blocks.
KERNEL void adam_step(AdamArgs args) {
    const size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t threads = size_t(gridDim.x) * blockDim.x;
    const Rates rates = args.rates[args.step ? *args.step : 0];

    // Four elements at a time where every array allows it, then the rest one by one.
    const bool wide = aligned(args.parameters, 16) && aligned(args.m, 16) && aligned(args.v, 16) &&
                      aligned(args.gradients, 16) && aligned(args.operands, 8);
    const size_t quads = wide ? args.len / 4 : 0;
    for (size_t i = thread; i < quads; i += threads) {
        float4& w_at = reinterpret_cast<float4*>(args.parameters)[i];
        float4& m_at = reinterpret_cast<float4*>(args.m)[i];
        float4& v_at = reinterpret_cast<float4*>(args.v)[i];
        const float4 g = reinterpret_cast<const float4*>(args.gradients)[i];
        float4 w = w_at, m = m_at, v = v_at;
        update(rates, w.x, m.x, v.x, g.x);
        update(rates, w.y, m.y, v.y, g.y);
        update(rates, w.z, m.z, v.z, g.z);
        update(rates, w.w, m.w, v.w, g.w);
        w_at = w;
        m_at = m;
        v_at = v;
        if (args.operands)
            reinterpret_cast<ushort4*>(args.operands)[i] =
                make_ushort4(rounded(w.x), rounded(w.y), rounded(w.z), rounded(w.w));
    }
    for (size_t i = 4 * quads + thread; i < args.len; i += threads) {
        update(rates, args.parameters[i], args.m[i], args.v[i], args.gradients[i]);
        if (args.operands) args.operands[i] = rounded(args.parameters[i]);
    }
}
EXPORT(adam_step)
