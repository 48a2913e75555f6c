// Integration of many small systems of bodies at once. Mathematics, CPU twin and tests: src/ops/rk4/.
//
// A thread moves one body; the bodies of a system are neighbours in a block and exchange positions through shared
// memory. A body adds up the forces of all others in order, so that the result is, bit for bit, that of the CPU with
// fused multiply-adds (its AVX2 level); products that must not be fused with a sum are __dmul_rn. exp, log, … in a
// user-defined potential differ in the last place.
//
// A launch makes frames first … first + count - 1 of all runs and leaves the states from which the next one continues.
#include "common/device.cuh"
#include "common/laws.cuh"
#include "common/program.cuh"

// The state of an adaptive integration.
struct Progress {
    double time, step;
    unsigned frame;     // the first that is not stored
    unsigned rejected;  // the step before was: this one may not grow
};
LAYOUT(Progress, time, step, frame, rejected)

struct Rk4Args {
    double* states;                // [run, 2, body, dim]
    const double* masses;          // [run, body]
    const double* charges;         // [run, body]
    const uint4* potential;        // [instructions] dU12/dr of a user's law
    const double* constants;       // [n_constants] its numbers
    float* stored;                 // [3, run, count, body, dim] positions, velocities, accelerations
    Progress* progress;            // [run] for `adaptive`
    unsigned long long* failures;  // [run] bits of the time beyond which a motion cannot be followed
    unsigned runs, bodies;
    unsigned law;                  // by its place in `Law::ALL`
    unsigned substeps;             // of `fixed`
    unsigned first, count, frames;
    unsigned instructions, n_constants, root, slots;
    unsigned symmetric;            // the potential is the same with the bodies exchanged
    double dt;
    double end;                    // time of the last frame
    double tolerance;              // of `adaptive`
    double drag;                   // of all pairs of a body together; 0 for most laws
};
LAYOUT(Rk4Args, states, masses, charges, potential, constants, stored, progress, failures, runs, bodies,
       law, substeps, first, count, frames, instructions, n_constants, root, slots, symmetric, dt, end,
       tolerance, drag)

namespace {

constexpr unsigned THREADS = 64;
constexpr unsigned STAGES = 16;  // of the embedded pair
constexpr double SMALLEST = 2.2250738585072014e-308;

// The body of this thread, and its view of the system.
struct Self {
    unsigned run, body;
    unsigned base;          // the system's first thread
    bool live;              // there is such a run and body
    unsigned buffer;        // of two for positions
    double mass, inverse_mass, charge;
    Shared<double> masses;     // [THREADS]
    Shared<double> charges;    // [THREADS]
    Shared<double> positions;  // [2, dim, THREADS]
    // For `adaptive`:
    Shared<double> errors;     // [2, 2, dim, THREADS]
    Shared<double> stages;     // [STAGES, 2, dim, THREADS]; a thread touches its own only
    // For a user-defined potential:
    Shared<uint4> code;
    Shared<double> constants;
    Shared<double> results;    // [slots, THREADS]

    template <int D>
    __device__ __forceinline__ unsigned stage(unsigned stage, unsigned component) const {
        return (stage * 2 * D + component) * THREADS + threadIdx.x;
    }
};

template <class T>
DEVICE Shared<T> take(size_t& at, size_t count) {
    const Shared<T> room = shared<T>(at, count);
    at += (count * sizeof(T) + 15) / 16 * 16;
    return room;
}

DEVICE Self enter(const Rk4Args& args, unsigned dim, bool is_adaptive, bool potential) {
    if (!potential && args.law >= N_LAWS) __trap();
    const unsigned thread = threadIdx.x, systems = THREADS / args.bodies;
    const unsigned system = thread / args.bodies, run = blockIdx.x * systems + system;
    Self s;
    s.live = system < systems && run < args.runs;
    // The others follow an existing body, and store nothing.
    s.run = min(run, args.runs - 1);
    s.body = thread % args.bodies;
    s.base = system < systems ? thread - s.body : 0;
    s.buffer = 0;
    s.mass = args.masses[size_t(s.run) * args.bodies + s.body];
    s.inverse_mass = 1.0 / s.mass;
    s.charge = args.charges[size_t(s.run) * args.bodies + s.body];
    size_t at = 0;
    s.masses = take<double>(at, THREADS);
    s.charges = take<double>(at, THREADS);
    s.positions = take<double>(at, 2 * dim * THREADS);
    s.errors = take<double>(at, is_adaptive ? 4 * dim * THREADS : 0);
    s.stages = take<double>(at, is_adaptive ? STAGES * 2 * dim * THREADS : 0);
    s.code = take<uint4>(at, args.instructions);
    s.constants = take<double>(at, args.n_constants);
    s.results = take<double>(at, size_t(args.slots) * THREADS);
    s.masses[thread] = s.mass;
    s.charges[thread] = s.charge;
    for (unsigned i = thread; i < args.instructions; i += THREADS)
        s.code[i] = known(args.potential[i], WHOLE_POWER + 1);
    for (unsigned i = thread; i < args.n_constants; i += THREADS) s.constants[i] = args.constants[i];
    // Readers wait for the positions first.
    return s;
}

// ---------------------------------------------------------------- a user's potential

DEVICE double whole_power(double base, double exponent) {
    double product = 1.0;
    for (int i = int(fabs(exponent)); i > 0; i--) product *= base;
    return exponent < 0.0 ? 1.0 / product : product;
}

// `pull` of a user-defined potential: an interpreter, with its operands in a column for each thread.
DEVICE double pull_of_potential(const Rk4Args& args, const Self& s, const Pair& p) {
    double v = 0.0;
    unsigned place = ~0u;
    const auto operand = [&](unsigned operand) {
        const unsigned number = operand & 0xffff, kind = operand >> 16;
        if (kind == CONSTANT) return s.constants[number];
        if (kind == VARIABLE) {
            if (number == 0) return p.r + SOFTENING;
            if (number <= 2) return number == 1 ? p.m1 : p.m2;
            return number == 3 ? p.q1 : p.q2;
        }
        return number == place ? v : s.results[number * THREADS + threadIdx.x];
    };
    for (unsigned i = 0; i < args.instructions; i++) {
        const uint4 code = s.code[i];
        const unsigned op = code.x & OP;
        const double x = operand(code.y), y = is_binary(op) ? operand(code.z) : x;
        switch (op) {
#define ARM(NAME, TESTS, VALUE, VALUE_IN_F64, ...) \
    case NAME:                                     \
        v = VALUE_IN_F64;                          \
        break;
#define ARM_WITH_Z(NAME, TESTS, VALUE, VALUE_IN_F64, ...) \
    case NAME: {                                          \
        const double z = operand(code.w);                 \
        v = VALUE_IN_F64;                                 \
        break;                                            \
    }
            OPERATORS(ARM, ARM, ARM_WITH_Z)
#undef ARM_WITH_Z
#undef ARM
        case WHOLE_POWER:
            v = whole_power(x, y);
            break;
        }
        place = code.x >> SLOT;
        if (code.x & IS_KEPT) s.results[place * THREADS + threadIdx.x] = v;
    }
    return operand(args.root) * p.inverse_r;
}

// ---------------------------------------------------------------- y' = f(y)

// k = f(y) of this thread's body, both (r, v). Called by all threads of the block.
template <int D, bool POTENTIAL>
DEVICE void derivative(const Rk4Args& args, Self& s, const double (&y)[2 * D], double (&k)[2 * D]) {
    // Two buffers: threads still reading the previous one have not reached this barrier.
    const Shared<double> positions = s.positions + s.buffer * D * THREADS;
    s.buffer ^= 1;
    UNROLL
    for (int c = 0; c < D; c++) {
        positions[c * THREADS + threadIdx.x] = y[c];
        k[c] = y[D + c];
        k[D + c] = 0.0;
    }
    __syncthreads();
    for (unsigned other = 0; other + 1 < args.bodies; other++) {
        const unsigned sender = other + (other >= s.body), at = s.base + sender;
        double d[D];
        // Not 0 if two bodies coincide: then 0 · (1 / r) is 0, not NaN.
        double square = SMALLEST;
        UNROLL
        for (int c = 0; c < D; c++) {
            d[c] = y[c] - positions[c * THREADS + at];
            square = fma(d[c], d[c], square);
        }
        const double inverse_r = 1.0 / sqrt(square), r = __dmul_rn(square, inverse_r);
        Pair p{r, inverse_r, s.mass, s.masses[at], s.charge, s.charges[at]};
        // Both bodies compute the very same force.
        if (POTENTIAL && args.symmetric && sender < s.body)
            p = {r, inverse_r, p.m2, p.m1, p.q2, p.q1};
        const double force = POTENTIAL ? pull_of_potential(args, s, p) : pull(args.law, p);
        UNROLL
        for (int c = 0; c < D; c++) k[D + c] = fma(-force, d[c], k[D + c]);
    }
    UNROLL
    for (int c = 0; c < D; c++) {
        double force = k[D + c];
        if (!POTENTIAL && args.drag != 0.0) force = fma(-args.drag, y[D + c], force);
        k[D + c] = __dmul_rn(force, s.inverse_mass);
    }
}

// ---------------------------------------------------------------- states and frames

template <int D>
DEVICE double& component(const Rk4Args& args, const Self& s, int c) {
    const size_t part = 2 * size_t(s.run) + c / D;
    return args.states[(part * args.bodies + s.body) * D + c % D];
}

template <int D>
DEVICE void load(const Rk4Args& args, const Self& s, double (&y)[2 * D]) {
    UNROLL
    for (int c = 0; c < 2 * D; c++) y[c] = component<D>(args, s, c);
}

template <int D>
DEVICE void save(const Rk4Args& args, const Self& s, const double (&y)[2 * D]) {
    if (!s.live) return;
    UNROLL
    for (int c = 0; c < 2 * D; c++) component<D>(args, s, c) = y[c];
}

DEVICE void fail(const Rk4Args& args, const Self& s, double time) {
    // Times are not negative: their bits have the same order.
    atomicMin(&args.failures[s.run], (unsigned long long)__double_as_longlong(time));
}

// Writes one frame of this body; `k` is f(y).
template <int D>
DEVICE void store(const Rk4Args& args, const Self& s, unsigned frame, const double (&y)[2 * D],
                  const double (&k)[2 * D]) {
    const size_t row = size_t(s.run) * args.count + (frame - args.first);
    const size_t part = size_t(args.runs) * args.count * args.bodies * D;
    float* out = args.stored + (row * args.bodies + s.body) * D;
    double norm = 0.0;
    UNROLL
    for (int c = 0; c < D; c++) {
        const double values[] = {y[c], y[D + c], k[D + c]};
        UNROLL
        for (int i = 0; i < 3; i++) {
            out[i * part + c] = float(values[i]);
            norm = fma(values[i], values[i], norm);
        }
    }
    // The square of the largest f32; the comparison is false for NaN, too.
    if (!(norm < 3.4028234663852886e38 * 3.4028234663852886e38)) fail(args, s, frame * args.dt);
}

// ---------------------------------------------------------------- classical Runge–Kutta

template <int D, bool POTENTIAL>
DEVICE void fixed(const Rk4Args& args) {
    Self s = enter(args, D, false, POTENTIAL);
    double y[2 * D], stage[2 * D], k[2 * D], sum[2 * D];
    load<D>(args, s, y);
    const double h = args.dt / args.substeps;
    for (unsigned frame = args.first; frame < args.first + args.count; frame++) {
        const bool last = frame + 1 == args.frames;
        for (unsigned step = 0; step < args.substeps; step++) {
            UNROLL
            for (int c = 0; c < 2 * D; c++) {
                stage[c] = y[c];
                sum[c] = 0.0;
            }
            for (int i = 0; i < 4; i++) {
                derivative<D, POTENTIAL>(args, s, stage, k);
                if (step == 0 && i == 0) {
                    if (s.live) store<D>(args, s, frame, y, k);
                    if (last) break;
                }
                const double weight = i == 0 || i == 3 ? 1.0 : 2.0, offset = i < 2 ? 0.5 : 1.0;
                UNROLL
                for (int c = 0; c < 2 * D; c++) {
                    sum[c] = fma(k[c], weight, sum[c]);
                    stage[c] = fma(k[c], offset * h, y[c]);
                }
            }
            if (last) break;
            UNROLL
            for (int c = 0; c < 2 * D; c++) y[c] = fma(sum[c], h / 6.0, y[c]);
        }
    }
    save<D>(args, s, y);
}

// ---------------------------------------------------------------- the embedded pair

// Rows of the table: the combination of earlier stages for each stage from 1 on (row 11 is the step itself), the errors
// of order 5 and 3, the upper half of the interpolant. As in src/ops/rk4/dop853.rs.
constexpr unsigned ERROR_5 = 15, ERROR_3 = 16, INTERPOLANT = 17;

DEVICE double weight(unsigned row, unsigned stage) {
    static constexpr double WEIGHTS[21][STAGES] = {
        {0.05260015195876773, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {0.0197250569845379, 0.0591751709536137, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {0.02958758547680685, 0, 0.08876275643042054, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {0.2413651341592667, 0, -0.8845494793282861, 0.924834003261792, 0, 0, 0, 0, 0, 0, 0, 0, 0,
         0, 0, 0},
        {0.037037037037037035, 0, 0, 0.17082860872947386, 0.12546768756682242, 0, 0, 0, 0, 0, 0, 0,
         0, 0, 0, 0},
        {0.037109375, 0, 0, 0.17025221101954405, 0.06021653898045596, -0.017578125, 0, 0, 0, 0, 0,
         0, 0, 0, 0, 0},
        {0.03709200011850479, 0, 0, 0.17038392571223998, 0.10726203044637328, -0.015319437748624402,
         0.008273789163814023, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {0.6241109587160757, 0, 0, -3.3608926294469414, -0.868219346841726, 27.59209969944671,
         20.154067550477894, -43.48988418106996, 0, 0, 0, 0, 0, 0, 0, 0},
        {0.47766253643826434, 0, 0, -2.4881146199716677, -0.590290826836843, 21.230051448181193,
         15.279233632882423, -33.28821096898486, -0.020331201708508627, 0, 0, 0, 0, 0, 0, 0},
        {-0.9371424300859873, 0, 0, 5.186372428844064, 1.0914373489967295, -8.149787010746927,
         -18.52006565999696, 22.739487099350505, 2.4936055526796523, -3.0467644718982196, 0, 0, 0, 0,
         0, 0},
        {2.273310147516538, 0, 0, -10.53449546673725, -2.0008720582248625, -17.9589318631188,
         27.94888452941996, -2.8589982771350235, -8.87285693353063, 12.360567175794303,
         0.6433927460157636, 0, 0, 0, 0, 0},
        {0.054293734116568765, 0, 0, 0, 0, 4.450312892752409, 1.8915178993145003,
         -5.801203960010585, 0.3111643669578199, -0.1521609496625161, 0.20136540080403034,
         0.04471061572777259, 0, 0, 0, 0},
        {0.056167502283047954, 0, 0, 0, 0, 0, 0.25350021021662483, -0.2462390374708025,
         -0.12419142326381637, 0.15329179827876568, 0.00820105229563469, 0.007567897660545699,
         -0.008298, 0, 0, 0},
        {0.03183464816350214, 0, 0, 0, 0, 0.028300909672366776, 0.053541988307438566,
         -0.05492374857139099, 0, 0, -0.00010834732869724932, 0.0003825710908356584,
         -0.00034046500868740456, 0.1413124436746325, 0, 0},
        {-0.42889630158379194, 0, 0, 0, 0, -4.697621415361164, 7.683421196062599, 4.06898981839711,
         0.3567271874552811, 0, 0, 0, -0.0013990241651590145, 2.9475147891527724, -9.15095847217987,
         0},
        {0.01312004499419488, 0, 0, 0, 0, -1.2251564463762044, -0.4957589496572502,
         1.6643771824549864, -0.35032884874997366, 0.3341791187130175, 0.08192320648511571,
         -0.022355307863886294, 0, 0, 0, 0},
        {-0.18980075407240762, 0, 0, 0, 0, 4.450312892752409, 1.8915178993145003,
         -5.801203960010585, -0.4226823213237919, -0.1521609496625161, 0.20136540080403034,
         0.02265179219836082, 0, 0, 0, 0},
        {-8.428938276109013, 0, 0, 0, 0, 0.5667149535193777, -3.0689499459498917, 2.38466765651207,
         2.117034582445028, -0.871391583777973, 2.2404374302607883, 0.6315787787694688,
         -0.08899033645133331, 18.148505520854727, -9.194632392478356, -4.436036387594894},
        {10.427508642579134, 0, 0, 0, 0, 242.28349177525817, 165.20045171727028, -374.5467547226902,
         -22.113666853125306, 7.733432668472264, -30.674084731089398, -9.332130526430229,
         15.697238121770845, -31.139403219565178, -9.35292435884448, 35.81684148639408},
        {19.985053242002433, 0, 0, 0, 0, -387.0373087493518, -189.17813819516758, 527.8081592054236,
         -11.57390253995963, 6.8812326946963, -1.0006050966910838, 0.7777137798053443,
         -2.778205752353508, -60.19669523126412, 84.32040550667716, 11.99229113618279},
        {-25.69393346270375, 0, 0, 0, 0, -154.18974869023643, -231.5293791760455, 357.6391179106141,
         93.40532418362432, -37.45832313645163, 104.0996495089623, 29.8402934266605,
         -43.53345659001114, 96.32455395918828, -39.17726167561544, -149.72683625798564},
    };
    return WEIGHTS[row][stage];
}

// Σ weight · k over the first `stages` stages, for the components of this thread's body.
template <int D>
DEVICE void sum_of(const Self& s, unsigned row, unsigned stages, double (&sum)[2 * D]) {
    UNROLL
    for (int c = 0; c < 2 * D; c++) sum[c] = 0.0;
    for (unsigned i = 0; i < stages; i++) {
        const double w = weight(row, i);
        UNROLL
        for (int c = 0; c < 2 * D; c++) sum[c] = fma(s.stages[s.stage<D>(i, c)], w, sum[c]);
    }
}

// Computes the stages from `first` to `last`; `at` is the point of the last one.
template <int D, bool POTENTIAL>
DEVICE void make_stages(const Rk4Args& args, Self& s, unsigned first, unsigned last, double h,
                        const double (&y)[2 * D], double (&at)[2 * D]) {
    for (unsigned stage = first; stage <= last; stage++) {
        double k[2 * D];
        sum_of<D>(s, stage - 1, stage, k);
        UNROLL
        for (int c = 0; c < 2 * D; c++) at[c] = fma(k[c], h, y[c]);
        derivative<D, POTENTIAL>(args, s, at, k);
        UNROLL
        for (int c = 0; c < 2 * D; c++) s.stages[s.stage<D>(stage, c)] = k[c];
    }
}

// The error of the step in units of the tolerance, rms over the components of the system.
template <int D>
DEVICE double error_of(const Rk4Args& args, const Self& s, double h, const double (&y)[2 * D],
                       const double (&end)[2 * D]) {
    double five[2 * D], three[2 * D];
    sum_of<D>(s, ERROR_5, 12, five);
    sum_of<D>(s, ERROR_3, 12, three);
    const Shared<double> fives = s.errors, threes = s.errors + 2 * D * THREADS;
    UNROLL
    for (int c = 0; c < 2 * D; c++) {
        const double magnitude = fmax(fabs(end[c]), fabs(y[c]));
        const double unit = 1.0 / fma(magnitude, args.tolerance, args.tolerance);
        fives[c * THREADS + threadIdx.x] = __dmul_rn(five[c], unit);
        threes[c * THREADS + threadIdx.x] = __dmul_rn(three[c], unit);
    }
    __syncthreads();
    double error_5 = 0.0, error_3 = 0.0;
    for (unsigned part = 0; part < 2; part++)
        for (unsigned body = 0; body < args.bodies; body++) {
            UNROLL
            for (int c = 0; c < D; c++) {
                const unsigned at = (part * D + c) * THREADS + s.base + body;
                error_5 = fma(fives[at], fives[at], error_5);
                error_3 = fma(threes[at], threes[at], error_3);
            }
        }
    const double both = __dmul_rn(fma(error_3, 0.01, error_5), double(2 * D * args.bodies));
    // Avoids 0 / 0 if nothing moves.
    return h * error_5 * (1.0 / sqrt(both + SMALLEST));
}

template <int D, bool POTENTIAL>
DEVICE void adaptive(const Rk4Args& args) {
    Self s = enter(args, D, true, POTENTIAL);
    double y[2 * D], end[2 * D], point[2 * D], slope[2 * D];
    load<D>(args, s, y);
    Progress now = args.progress[s.run];
    const unsigned stop = args.first + args.count;
    bool active = s.live && now.frame < stop && args.failures[s.run] == ~0ull;
    derivative<D, POTENTIAL>(args, s, y, slope);
    UNROLL
    for (int c = 0; c < 2 * D; c++) s.stages[s.stage<D>(0, c)] = slope[c];
    while (__syncthreads_or(active)) {
        // The last step ends at the last frame.
        const double left = args.end - now.time;
        if (active && !(1.01 * now.step < left)) now.step = left;
        const double h = active ? now.step : 0.0;
        make_stages<D, POTENTIAL>(args, s, 1, 12, h, y, end);
        const double error = error_of<D>(args, s, h, y, end);
        // 0.9 error^(−1/8); at most 10, at least 0.2, also if the error is not finite.
        const double ideal = 0.9 * (1.0 / sqrt(sqrt(sqrt(error))));
        const double factor = fmax(fmin(ideal, now.rejected ? 1.0 : 10.0), 0.2);
        const bool accepted = active && error < 1.0;
        if (active && !accepted) {
            now.rejected = 1;
            now.step *= fabs(error) <= 1.7976931348623157e308 ? factor : 0.2;
            if (now.step < 1e-14 * (now.time + args.dt)) {
                fail(args, s, now.time);
                active = false;
            }
        }

        // Frames within the step.
        const double after = now.time + now.step;
        const bool done = after >= args.end;
        unsigned until = now.frame;
        if (accepted)
            while (until < args.frames && (done || until * args.dt <= after)) until++;
        if (__syncthreads_or(until > now.frame)) {
            make_stages<D, POTENTIAL>(args, s, 13, 15, h, y, point);
            double f[8][2 * D];
            UNROLL
            for (int c = 0; c < 2 * D; c++) {
                const double begin = __dmul_rn(s.stages[s.stage<D>(0, c)], h);
                const double finish = __dmul_rn(s.stages[s.stage<D>(12, c)], h);
                f[0][c] = y[c];
                f[1][c] = end[c] - y[c];
                f[2][c] = begin - f[1][c];
                f[3][c] = f[1][c] + f[1][c] - finish - begin;
            }
            UNROLL
            for (int i = 0; i < 4; i++) {
                sum_of<D>(s, INTERPOLANT + i, STAGES, f[4 + i]);
                UNROLL
                for (int c = 0; c < 2 * D; c++) f[4 + i][c] *= h;
            }
            unsigned frame = now.frame;
            while (__syncthreads_or(frame < min(until, stop))) {
                const double since = __dmul_rn(frame, args.dt) - now.time;
                const double theta = fmin(fmax(since / fmax(now.step, SMALLEST), 0.0), 1.0);
                const double rest = 1.0 - theta;
                // f0 + θ (f1 + (1 − θ) (f2 + θ (f3 + …)))
                UNROLL
                for (int c = 0; c < 2 * D; c++) {
                    point[c] = f[7][c];
                    UNROLL
                    for (int i = 6; i >= 0; i--)
                        point[c] = fma(point[c], i % 2 ? rest : theta, f[i][c]);
                }
                derivative<D, POTENTIAL>(args, s, point, slope);
                if (frame < min(until, stop)) store<D>(args, s, frame++, point, slope);
            }
        }
        if (!accepted) continue;
        if (until > stop) {
            // The next launch repeats this step, for the frames that have no room here.
            now.frame = stop;
            active = false;
            continue;
        }
        now.frame = until;
        now.time = after;
        now.step *= factor;
        now.rejected = 0;
        active = until < stop;
        UNROLL
        for (int c = 0; c < 2 * D; c++) {
            y[c] = end[c];
            s.stages[s.stage<D>(0, c)] = s.stages[s.stage<D>(12, c)];
        }
    }
    save<D>(args, s, y);
    if (s.live && s.body == 0) args.progress[s.run] = now;
}

}  // namespace

KERNEL void __launch_bounds__(64, 8) rk4_fixed_2d(Rk4Args args) { fixed<2, false>(args); }
KERNEL void __launch_bounds__(64, 8) rk4_fixed_3d(Rk4Args args) { fixed<3, false>(args); }
KERNEL void __launch_bounds__(64, 8) rk4_fixed_2d_potential(Rk4Args args) { fixed<2, true>(args); }
KERNEL void __launch_bounds__(64, 8) rk4_fixed_3d_potential(Rk4Args args) { fixed<3, true>(args); }
KERNEL void __launch_bounds__(64, 4) rk4_adaptive_2d(Rk4Args args) { adaptive<2, false>(args); }
KERNEL void __launch_bounds__(64, 4) rk4_adaptive_3d(Rk4Args args) { adaptive<3, false>(args); }
KERNEL void __launch_bounds__(64, 4) rk4_adaptive_2d_potential(Rk4Args args) { adaptive<2, true>(args); }
KERNEL void __launch_bounds__(64, 4) rk4_adaptive_3d_potential(Rk4Args args) { adaptive<3, true>(args); }
EXPORT(rk4_fixed_2d)
EXPORT(rk4_fixed_3d)
EXPORT(rk4_fixed_2d_potential)
EXPORT(rk4_fixed_3d_potential)
EXPORT(rk4_adaptive_2d)
EXPORT(rk4_adaptive_3d)
EXPORT(rk4_adaptive_2d_potential)
EXPORT(rk4_adaptive_3d_potential)
