// exp, log, pow, sin, cos, tanh, asin, acos and atan as in src/simd/functions.rs, operation by operation, so that a
// value on the GPU is, bit for bit, that of the CPU's vectors. Products that must not be fused with a following sum are
// __fmul_rn.
#pragma once

// The second if they are equal, as 0 and −0 are, or if one is NaN: the min and max of x86. CUDA's consider −0 smaller,
// and prefer the number to a NaN.
DEVICE float smaller(float a, float b) { return a < b ? a : b; }
DEVICE float larger(float a, float b) { return a > b ? a : b; }

// c[0] xⁿ + … + c[n].
template <class T, int N>
DEVICE T polynomial(T x, const T (&c)[N]) {
    T y = c[0];
    UNROLL
    for (int i = 1; i < N; i++) y = fma(y, x, c[i]);
    return y;
}

// x · 2^n for integers n; overflow gives infinity, underflow zero or subnormal numbers.
DEVICE float times_power_of_2(float x, float n) {
    // In two steps, so that neither power leaves the range of normal numbers.
    const int whole = int(fminf(fmaxf(n, -252.0f), 252.0f));
    const int half = whole >> 1;
    const float first = __int_as_float((half + 127) << 23);
    const float second = __int_as_float((whole - half + 127) << 23);
    return __fmul_rn(x * first, second);
}

struct Split {
    float mantissa, exponent;
};

// |x| = mantissa · 2^exponent with the mantissa in [√½, √2], for |x| > 0.
DEVICE Split split(float x) {
    // Subnormal numbers are made normal first.
    const bool subnormal = fabsf(x) < 1.17549435e-38f;
    const uint32_t bits = __float_as_uint(fabsf(x) * (subnormal ? 16777216.0f : 1.0f));
    const float e = float(int(bits >> 23) - 127) - (subnormal ? 24.0f : 0.0f);
    const float m = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
    return m > 1.41421356f ? Split{m * 0.5f, e + 1.0f} : Split{m, e};
}

// e^r for |r| ≤ ln(2)/2.
DEVICE float exp_reduced(float r) {
    const float c[] = {1.9875691e-4f, 1.3982e-3f, 8.333452e-3f, 4.1665796e-2f, 1.6666665e-1f, 0.5f};
    return fmaf(polynomial(r, c), __fmul_rn(r, r), r) + 1.0f;
}

DEVICE float exponential(float x) {
    // Beyond ±200 the result is infinity or zero in any case.
    x = fminf(fmaxf(x, -200.0f), 200.0f);
    const float n = rintf(x * 1.44269504f);
    const float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
    return times_power_of_2(exp_reduced(r), n);
}

DEVICE float logarithm(float x) {
    const Split s = split(x);
    const float f = s.mantissa - 1.0f, e = s.exponent;
    const float z = __fmul_rn(f, f);
    const float c[] = {7.0376836e-2f,  -1.151461e-1f, 1.1676999e-1f,  -1.2420141e-1f, 1.4249323e-1f,
                       -1.6668058e-1f, 2.0000715e-1f, -2.4999994e-1f, 3.333333e-1f};
    float y = __fmul_rn(__fmul_rn(polynomial(f, c), f), z);
    y = fmaf(z, -0.5f, fmaf(e, -2.1219444e-4f, y));
    y = fmaf(e, 0.6933594f, f + y);
    if (x > 0) return x > 3.40282347e38f ? x : y;
    // −∞ at 0, NaN below; a NaN stays one.
    return x == 0 ? __uint_as_float(0xff800000u) : __uint_as_float(0x7fc00000u);
}

DEVICE float power(float x, float b) {
    // log2 of the mantissa from its atanh series in s = (m − 1) / (m + 1), as high + low.
    const Split parts = split(x);
    const float m = parts.mantissa, e = parts.exponent;
    const float f = m - 1.0f, d = m + 1.0f;
    const float d_low = m - (d - 1.0f);
    const float s = f / d;
    const float s_low = fmaf(-s, d_low, fmaf(-s, d, f)) / d;
    const float q = __fmul_rn(s, s);
    const float c[] = {1.0f / 11.0f, 1.0f / 9.0f, 1.0f / 7.0f, 0.2f, 1.0f / 3.0f};
    const float tail = fmaf(__fmul_rn(polynomial(q, c), q), s, s_low);
    // 2 / ln 2, as high + low.
    const float k = 2.88539f, k_low = 3.851926e-8f;
    const float high = __fmul_rn(s, k);
    const float low = fmaf(tail, k, fmaf(s, k_low, fmaf(s, k, -high)));
    const float sum = e + high;
    const float sum_low = ((e - sum) + high) + low;
    // 2^(b · log2 x); beyond ±300 infinity or zero in any case.
    const float product = __fmul_rn(b, sum);
    const bool far = fabsf(product) > 300.0f;
    const float p_low = far ? 0.0f : fmaf(b, sum_low, fmaf(b, sum, -product));
    const float p = fminf(fmaxf(product, -300.0f), 300.0f);
    const float n = rintf(p);
    const float size = times_power_of_2(exp_reduced(((p - n) + p_low) * 0.69314718f), n);
    if (b == 0) return 1.0f;
    if (x > 0) return size;
    if (x == 0) return b > 0 ? 0.0f : __uint_as_float(0x7f800000u);
    // For a negative base: the sign of an odd power, NaN for a non-integer power.
    if (b != rintf(b)) return __uint_as_float(0x7fc00000u);
    return b * 0.5f != rintf(b * 0.5f) ? -size : size;
}

struct LargeQuadrant {
    double angle;  // x − number · π/2, in [−π/4, π/4]
    int number;
};

// With x · 2/π in integers, as in Payne and Hanek (1983).
DEVICE LargeQuadrant quadrant_of_large(float x) {
    if (fabsf(x) < 0.75f) return {x, 0};
    static constexpr uint32_t TWO_OVER_PI[] = {0,          0xa2f9836e, 0x4e441529, 0xfc2757d1,
                                               0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab};
    const uint32_t bits = __float_as_uint(x);
    const uint64_t mantissa = (bits & 0x007fffffu) | 0x00800000u;
    // |x| = mantissa · 2^(e − 150). Bits of 2/π that contribute whole turns are left out: 96 bits from
    // here on give x · 2/π modulo 4, in units of 2^−94.
    const uint32_t skip = (bits >> 23 & 0xff) - 150 + 30;
    const uint32_t* words = TWO_OVER_PI + (skip >> 5 & 7) % 5;
    const auto window = [&](int i) {
        return uint32_t((uint64_t(words[i]) << 32 | words[i + 1]) << (skip & 31) >> 32);
    };
    const uint64_t low = mantissa * window(2);
    const uint64_t middle = mantissa * window(1) + (low >> 32);
    const uint64_t high = mantissa * window(0) + (middle >> 32);
    const uint64_t turn = high << 32 | (middle & 0xffffffffu);
    const int number = int(turn >> 62) + int(turn >> 61 & 1);
    // The rest as a signed fraction of a quadrant, times π/2 / 2^64.
    const double angle = double(int64_t(turn << 2)) * 8.5153039502163873e-20;
    if ((bits & 0x7f800000u) == 0x7f800000u) return {double(x - x), 0};
    return bits >> 31 ? LargeQuadrant{-angle, -number} : LargeQuadrant{angle, number};
}

// sin(x + quarters · π/2) via f64, for any x: correctly rounded except for one in millions.
DEVICE float sine_of_large(float x, int quarters) {
    const LargeQuadrant q = quadrant_of_large(x);
    const double r = q.angle, z = r * r;
    double value;
    // Taylor series.
    if ((q.number + quarters) & 1) {
        const double c[] = {-1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320,
                            -1.0 / 720,         1.0 / 24,        -0.5,           1.0};
        value = polynomial(z, c);
    } else {
        const double c[] = {1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040,
                            1.0 / 120,        -1.0 / 6,        1.0};
        value = r * polynomial(z, c);
    }
    return float((q.number + quarters) & 2 ? -value : value);
}

// True beyond the range in which the reduction of `sine` keeps its digits, and for NaN.
DEVICE bool is_large_angle(float x) { return !(fabsf(x) <= 1e4f); }

// sin(x + quarters · π/2), not for large angles.
DEVICE float sine(float x, int quarters) {
    const float n = rintf(x * 0.636619772f);
    // π/2 in three parts; each product is exact inside the fused multiply-add.
    const float r = fmaf(n, 1.71512e-15f, fmaf(n, 4.371139e-8f, fmaf(n, -1.5707964f, x)));
    const int number = int(n) + quarters;
    const float z = __fmul_rn(r, r);
    float value;
    if (number & 1) {
        const float c[] = {2.4433157e-5f, -1.3887316e-3f, 4.1666646e-2f};
        value = fmaf(__fmul_rn(polynomial(z, c), z), z, fmaf(z, -0.5f, 1.0f));
    } else {
        const float c[] = {-1.9515296e-4f, 8.332161e-3f, -1.6666655e-1f};
        value = fmaf(__fmul_rn(polynomial(z, c), z), r, r);
    }
    return number & 2 ? -value : value;
}

DEVICE float hyperbolic_tangent(float x) {
    const float size = fabsf(x);
    if (size > 0.625f) {
        const float far = 1.0f - 2.0f / (exponential(fminf(size + size, 100.0f)) + 1.0f);
        return x > 0 ? far : -far;
    }
    const float z = __fmul_rn(x, x);
    const float c[] = {-5.7049887e-3f, 2.063909e-2f, -5.3739716e-2f, 1.3331442e-1f, -3.333328e-1f};
    return fmaf(__fmul_rn(polynomial(z, c), z), x, x);
}

// asin |x| for |x| up to ½; above asin √((1 − |x|)/2), half the difference between π/2 and asin |x| (NaN above 1).
DEVICE float arcsine_part(float x) {
    const float size = fabsf(x);
    const bool far = size > 0.5f;
    const float z = far ? 0.5f * (1.0f - size) : __fmul_rn(size, size);
    const float r = far ? sqrtf(z) : size;
    const float c[] = {4.21632e-2f, 2.4181311e-2f, 4.5470026e-2f, 7.4953003e-2f, 1.6666752e-1f};
    return fmaf(__fmul_rn(polynomial(z, c), z), r, r);
}

// π/2 is 1.5707964f − 4.371139e-8f.
DEVICE float arcsine(float x) {
    const float part = arcsine_part(x);
    const float size = fabsf(x) > 0.5f ? 1.5707964f - ((part + part) + 4.371139e-8f) : part;
    return x < 0 ? 0.0f - size : size;
}

DEVICE float arccosine(float x) {
    const float part = arcsine_part(x), twice = part + part;
    if (x > 0.5f) return twice;
    if (x < -0.5f) return 3.1415927f - (twice + 8.742278e-8f);
    return 1.5707964f - ((x < 0 ? 0.0f - part : part) + 4.371139e-8f);
}

DEVICE float arctangent(float x) {
    // Above tan 67.5° counting down from π/2, above tan 22.5° from π/4.
    const float size = fabsf(x);
    const bool middle = size > 0.41421357f, far = size > 2.4142137f;
    const float r = (far ? -1.0f : middle ? size - 1.0f : size) / (far ? size : middle ? size + 1.0f : 1.0f);
    const float from = far ? 1.5707964f : middle ? 0.7853982f : 0.0f;
    const float z = __fmul_rn(r, r);
    const float c[] = {8.0537445e-2f, -1.3877686e-1f, 1.9977711e-1f, -3.333295e-1f};
    const float value = from + fmaf(__fmul_rn(polynomial(z, c), z), r, r);
    return x < 0 ? 0.0f - value : value;
}
