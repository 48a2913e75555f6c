// Counter-based random numbers: Philox 4x32-10 exactly as in src/random.rs, so that a number depends only on (seed,
// stream, counter). Words and uniforms are the same bits as there; normals differ in the last places, because log and
// cos do.
#pragma once

struct Philox {
    uint32_t word[4];
};

// Ten rounds on a 128-bit counter under a 64-bit key: four random words.
DEVICE Philox philox(Philox counter, uint32_t key0, uint32_t key1) {
    UNROLL
    for (int round = 0; round < 10; round++) {
        const uint64_t a = uint64_t(0xD2511F53u) * counter.word[0];
        const uint64_t b = uint64_t(0xCD9E8D57u) * counter.word[2];
        counter = {{uint32_t(b >> 32) ^ counter.word[1] ^ key0, uint32_t(b),
                    uint32_t(a >> 32) ^ counter.word[3] ^ key1, uint32_t(a)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// The words of `philox` at counters 0, 1, 2, … of one (seed, stream); `Random` of src/random.rs.
struct Random {
    uint64_t seed, stream, counter;
    Philox words;
    uint32_t used;
};

DEVICE Random random_new(uint64_t seed, uint64_t stream) { return {seed, stream, 0, {}, 4}; }

DEVICE uint32_t random_word(Random& random) {
    if (random.used == 4) {
        const uint64_t c = random.counter++, s = random.stream;
        random.words = philox({{uint32_t(c), uint32_t(c >> 32), uint32_t(s), uint32_t(s >> 32)}},
                              uint32_t(random.seed), uint32_t(random.seed >> 32));
        random.used = 0;
    }
    // Selected rather than indexed: an index unknown to the compiler would put the words into local memory.
    const uint32_t* word = random.words.word;
    const uint32_t low = random.used & 1 ? word[1] : word[0];
    const uint32_t high = random.used & 1 ? word[3] : word[2];
    return random.used++ & 2 ? high : low;
}

// Uniform in [0, 1), with 53 random bits.
DEVICE double random_uniform(Random& random) {
    const uint64_t high = random_word(random);
    const uint64_t bits = (high << 32 | random_word(random)) >> 11;
    return double(bits) * (1.0 / double(uint64_t(1) << 53));
}

// Uniform in 0..n, n far below 2^32.
DEVICE uint32_t random_below(Random& random, uint32_t n) {
    return uint32_t((uint64_t(random_word(random)) * n) >> 32);
}

// Standard normal: Box–Muller, the cosine branch.
DEVICE double random_normal(Random& random) {
    const double radius = sqrt(-2.0 * log(1.0 - random_uniform(random)));
    return radius * cos(6.28318530717958647692 * random_uniform(random));
}
