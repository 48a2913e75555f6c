// The standard normal noise of sampled messages, counter-based, as in src/ops/tiny/noise.rs.
#pragma once

// Sine and cosine of an angle in turns, in [0, 1): reduced to an eighth of a turn around the nearest quarter, then
// Taylor.
DEVICE float2 sin_cos_turns(float turn) {
    const float rounded = rintf(4 * turn);
    const int quarter = int(rounded);
    const float x = (turn - 0.25f * rounded) * 6.283185307f, z = x * x;
    const float sine =
        x + x * z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z * (1.0f / 362880))));
    const float cosine =
        1 + z * (-0.5f + z * (1.0f / 24 + z * (-1.0f / 720 + z * (1.0f / 40320))));
    const float2 turned = quarter & 1 ? make_float2(cosine, -sine) : make_float2(sine, cosine);
    return quarter & 2 ? make_float2(-turned.x, -turned.y) : turned;
}

// The noise of `unit` of `edge`.
DEVICE float noise(uint64_t seed, uint64_t step, unsigned edge, unsigned unit) {
    const Philox words =
        philox({{16 * (unit / 64) + unit % 16, edge, uint32_t(step), uint32_t(step >> 32)}},
               uint32_t(seed) ^ 0x6d657373u, uint32_t(seed >> 32) ^ 0x6e6f6973u);
    const unsigned quarter = unit / 16 % 4;
    const uint32_t first = quarter < 2 ? words.word[0] : words.word[2];
    const uint32_t second = quarter < 2 ? words.word[1] : words.word[3];
    const float u = (float(first >> 9) + 0.5f) * (1.0f / (1 << 23));
    const float2 angle = sin_cos_turns(float(second >> 8) * (1.0f / (1 << 24)));
    return sqrtf(-2 * logf(u)) * (quarter % 2 ? angle.x : angle.y);
}
