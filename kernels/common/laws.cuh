// The built-in laws of motion, a row each, in the order of src/law/mod.rs (a test compares the names). A law without a
// row traps, in `enter` of rk4.cu.
//
//   LAW(NAME, U12'(r) / |r1 − r2|)    at the softened distance r, for the pair p; the force on the receiver is
//                                     −LAW · (r1 − r2), without drag
#pragma once

#define LAWS(LAW)                                                                       \
    LAW(INVERSE_SQUARE, p.m1 * p.m2 * inverse(r) * inverse(r) * p.inverse_r)            \
    LAW(INVERSE, p.m1 * p.m2 * inverse(r) * p.inverse_r)                                \
    LAW(SPRING, spring(p))                                                              \
    LAW(DAMPED, spring(p))                                                              \
    LAW(CHARGE, -1.0 * p.q1 * p.q2 * inverse(r) * inverse(r) * p.inverse_r)             \
    LAW(DISCONTINUOUS, r < 2.0 ? 0.0 : spring(p))

enum Law : unsigned {
#define NUMBER(NAME, PULL) NAME,
    LAWS(NUMBER)
#undef NUMBER
    N_LAWS
};

constexpr double SOFTENING = 0.01;

// The quantities on which the force between a receiver 1 and a sender 2 depends.
struct Pair {
    double r, inverse_r, m1, m2, q1, q2;  // |r1 − r2| and its inverse
};

DEVICE double inverse(double r) { return 1.0 / r; }

// 2 (r' − 1) / r
DEVICE double spring(const Pair& p) { return fma(p.inverse_r, -2.0 * (1.0 - SOFTENING), 2.0); }

// U12'(r') / r of a law, by its place among the rows.
DEVICE double pull(unsigned law, const Pair& p) {
    const double r = p.r + SOFTENING;
    switch (law) {
#define ARM(NAME, PULL) \
    case NAME: return PULL;
        LAWS(ARM)
#undef ARM
    }
    return NAN;
}
