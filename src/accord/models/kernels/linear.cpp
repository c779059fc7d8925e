// The three products of a linear layer in training, in bfloat16 by matrix units: its result, the gradient of its input,
// and that of its weight. A float32 weight is rounded where it is read, so that no copy of it in bfloat16 is kept, and
// its gradient is written as it was summed, in float32.
//
// Work is handed out in small pieces to whoever is free: where one core is slower than the other, because it is shared
// with somebody else or of another kind, equal shares would leave the faster one waiting. Each number is summed by one
// thread in one order, so it depends neither on that nor on the other rows of a batch.

#include <algorithm>
#include <memory>

#include "product.h"

#if defined(HAS_TILES)
namespace {

constexpr int64_t SIDE = 32;              // of a block of a result: two by two tiles; numbers of a row of a tile
constexpr int64_t SLAB = 1 << 15;         // lines of weights laid out at a time (2 MB): they stay near
constexpr int64_t LONG = 64;              // steps of a sum laid out at a time, with some outputs
constexpr int64_t HIGH = 64, ACROSS = 384, NARROW = 96;  // rows and outputs of a piece of work, at most and at least
constexpr int64_t DEPTH = 1024, NEAR = 18432;  // tokens, and lines of their states, laid out at once: 1.2 MB, the second cache

// -- laying out: a line holds pairs of numbers, of what is summed over, for 16 outputs ---------------------------------

// Line p of `to`: numbers 2 p and 2 p + 1 of 16 rows of a weight, rounded here if they are float32.
void paired_rows(const bf16* from, int64_t stride, Line* to) { turned((const uint32_t*)from, stride / 2, ROWS, to); }
void paired_rows(const float* from, int64_t stride, Line* to) {
    alignas(64) uint32_t rows[ROWS][DEEP];
    for (int i = 0; i < ROWS; i++) {
        __m512 low = _mm512_loadu_ps(from + i * stride), high = _mm512_loadu_ps(from + i * stride + 16);
        _mm512_store_si512(rows[i], (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    turned(rows[0], DEEP, ROWS, to);
}

// -- result and gradient of the input ---------------------------------------------------------------------------------

// A block of a result whose sums are done: rounded and written while the units work on the next one, row by row.
struct Done {
    alignas(64) float sums[SIDE][SIDE];
    const float* bias = nullptr;
    bf16* y = nullptr;
    int64_t width = 0, rows = 0, at = 0;

    void write(int64_t count) {
        for (int64_t end = std::min(rows, at + count); at < end; at++) {
            __m512 low = _mm512_load_ps(sums[at]), high = _mm512_load_ps(sums[at] + 16);
            if (bias) low = _mm512_add_ps(low, _mm512_loadu_ps(bias)), high = _mm512_add_ps(high, _mm512_loadu_ps(bias + 16));
            _mm512_storeu_si512(y + at * width, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
};

// The sums of a block, where a product is made in several parts; in a tile's rows of 64 bytes.
struct alignas(64) Between { float of[4][ROWS * 16]; };

// Sums (rows, SIDE) of x (16 or 32 rows, 32 steps) times two columns of tiles: taken from `sums` unless it is the first
// part, left there or, of the last one, handed to `done`.
template <bool TWO>
void block(const bf16* x, int64_t stride, const Line* w, int64_t steps, Between* sums, bool first, bool last, const float* bias, bf16* y,
           int64_t width, int64_t rows, Done& done) {
    asm volatile("" ::: "memory");  // GCC does not know that tiles are read from memory
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (TWO) { _tile_zero(2); _tile_zero(3); }
    } else {
        _tile_loadd(0, sums->of[0], 64);
        _tile_loadd(1, sums->of[1], 64);
        if constexpr (TWO) { _tile_loadd(2, sums->of[2], 64); _tile_loadd(3, sums->of[3], 64); }
    }
    const bf16* below = x + ROWS * stride;
    const Line* beside = w + steps * DEEP;
    const int64_t each = (SIDE + steps - 1) / steps;
    for (int64_t i = 0, soon = last ? 0 : rows; i < steps; i++) {
        for (int64_t end = std::min(rows, soon + each); soon < end; soon++) __builtin_prefetch(y + soon * width, 1);
        done.write(each);
        _tile_loadd(4, x + i * SIDE, stride * sizeof(bf16));
        _tile_loadd(6, w + i * DEEP, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, beside + i * DEEP, 64);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (TWO) {
            _tile_loadd(5, below + i * SIDE, stride * sizeof(bf16));
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    done.write(SIDE);
    float *out = last ? done.sums[0] : sums->of[0], *right = last ? out + 16 : sums->of[1];
    const int64_t line = last ? sizeof done.sums[0] : 64;
    _tile_stored(0, out, line);
    _tile_stored(1, right, line);
    if constexpr (TWO) {
        _tile_stored(2, last ? done.sums[16] : sums->of[2], line);
        _tile_stored(3, last ? done.sums[16] + 16 : sums->of[3], line);
    }
    asm volatile("" ::: "memory");
    if (last) done.bias = bias, done.y = y, done.width = width, done.rows = rows, done.at = 0;
}

// y (M, O) = x (M, I) times a weight: (O, I), or, where it is turned, (I, O).
template <bool TURNED, typename T>
void multiply(const bf16* x, const T* w, const float* bias, bf16* y, int64_t M, int64_t O, int64_t I, int threads) {
    // Weights are laid out some outputs and, where rows are long, some steps of a sum at a time.
    const int64_t all = I / SIDE, most = std::min(all, LONG), slab = SLAB / (most * DEEP) * 16 / SIDE * SIDE;
    const int64_t columns = std::min(slab, O), down = (M + HIGH - 1) / HIGH;
    std::unique_ptr<Line[]> laid(new Line[columns / 16 * most * DEEP]);
    std::unique_ptr<Between[]> between(all > most ? new Between[(M + SIDE - 1) / SIDE * (columns / SIDE)] : nullptr);
#pragma omp parallel num_threads(threads)
    {
        tiles_begin();
        std::unique_ptr<bf16[]> last;  // rows that do not fill a tile
        Done done;
        for (int64_t begin = 0; begin < O; begin += slab)
        for (int64_t step = 0; step < all; step += most) {
            const int64_t some = std::min(slab, O - begin), steps = std::min(most, all - step);
            int64_t wide = ACROSS, across;
            while (across = (some + wide - 1) / wide, across * down < 8 * threads && wide > NARROW) wide /= 2;
            if constexpr (TURNED) {
#pragma omp for schedule(dynamic)
                for (int64_t i = 0; i < steps; i++)
                    for (int64_t o = 0; o < some; o += 16)
                        paired(w + (step + i) * SIDE * O + begin + o, O, SIDE, &laid[(o / 16 * steps + i) * DEEP]);
            } else {
#pragma omp for schedule(dynamic)
                for (int64_t o = 0; o < some; o += 16)
                    for (int64_t i = 0; i < steps; i++)
                        paired_rows(w + (begin + o) * I + (step + i) * SIDE, I, &laid[(o / 16 * steps + i) * DEEP]);
            }
#pragma omp for schedule(dynamic)
            for (int64_t piece = 0; piece < across * down; piece++) {
                const int64_t from = piece % down * HIGH, to = std::min(M, from + HIGH);
                const int64_t first = piece / down * wide, end = std::min(some, first + wide);
                for (int64_t m = from; m < to; m += SIDE) {
                    const int64_t rows = std::min(SIDE, to - m);
                    const bf16* in = x + m * I + step * SIDE;
                    int64_t stride = I;
                    if (rows % ROWS) {
                        if (!last) last.reset(new bf16[SIDE * most * SIDE]());
                        stride = most * SIDE;
                        for (int64_t i = 0; i < rows; i++) memcpy(last.get() + i * stride, in + i * I, steps * SIDE * sizeof(bf16));
                        in = last.get();
                    }
                    for (int64_t o = first; o < end; o += SIDE) {
                        auto two_or_one = rows > ROWS ? block<true> : block<false>;
                        Between* sums = between ? &between[m / SIDE * (columns / SIDE) + o / SIDE] : nullptr;
                        two_or_one(in, stride, &laid[o / 16 * steps * DEEP], steps, sums, !step, step + steps == all,
                                   bias ? bias + begin + o : nullptr, y + m * O + begin + o, O, rows, done);
                    }
                }
                done.write(SIDE);
            }
        }
        tiles_end();
    }
}

// -- gradient of the weight -------------------------------------------------------------------------------------------

// The same of a gradient, in float32. The last time it goes past the caches, for nobody reads it soon.
struct Summed {
    alignas(64) float sums[SIDE][SIDE];
    float* out = nullptr;
    int64_t width = 0, at = SIDE;
    bool past = false;

    void write(int64_t count) {
        for (int64_t end = std::min(SIDE, at + count); at < end; at++)
            for (int i = 0; i < SIDE; i += 16) {
                __m512 x = _mm512_load_ps(sums[at] + i);
                past ? _mm512_stream_ps(out + at * width + i, x) : _mm512_storeu_ps(out + at * width + i, x);
            }
    }
};

// One side of a product that sums over tokens: lines of 16 columns for 32 tokens, zeros from token `end` on.
struct Columns {
    const bf16* from;
    int64_t width;
    bool left;

    void lay(int64_t column, int64_t token, int64_t end, Line* to) const {
        const bf16* at = from + token * width + column;
        if (!left) return paired(at, width, end - token, to);
        Line pairs[DEEP];
        paired(at, width, end - token, pairs);
        turned(pairs[0].of, ROWS, DEEP, to);
    }
};

// What a block is to do with what is there already, and whether it will be read again.
struct Sums { bool add, past; };

// out (SIDE, SIDE) = left^T right, over 32 tokens a step; `next`: how far the block that follows is.
void two_by_two(const Line* left, const Line* right, int64_t steps, float* out, int64_t width, int64_t next, Sums how, Summed& done) {
    const int64_t stride = width * sizeof(float);
    asm volatile("" ::: "memory");  // GCC does not know that tiles are read from memory
    if (how.add) {
        _tile_loadd(0, out, stride);
        _tile_loadd(1, out + 16, stride);
        _tile_loadd(2, out + 16 * width, stride);
        _tile_loadd(3, out + 16 * width + 16, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const Line *below = left + steps * DEEP, *beside = right + steps * DEEP;
    const int64_t each = (SIDE + steps - 1) / steps;
    for (int64_t i = 0, soon = 0; i < steps; i++) {
        if (how.add || !how.past)  // its lines; behind the last one it does no harm
            for (int64_t end = std::min(SIDE, soon + each); soon < end; soon++) {
                __builtin_prefetch(out + next + soon * width, 1);
                __builtin_prefetch(out + next + soon * width + 16, 1);
            }
        done.write(each);
        _tile_loadd(4, left + i * DEEP, 64);
        _tile_loadd(6, right + i * DEEP, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, beside + i * DEEP, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, below + i * DEEP, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    done.write(SIDE);
    _tile_stored(0, done.sums[0], sizeof done.sums[0]);
    _tile_stored(1, done.sums[0] + 16, sizeof done.sums[0]);
    _tile_stored(2, done.sums[16], sizeof done.sums[0]);
    _tile_stored(3, done.sums[16] + 16, sizeof done.sums[0]);
    asm volatile("" ::: "memory");
    done.out = out, done.width = width, done.past = how.past, done.at = 0;
}

}  // namespace

// All sizes but the number of tokens are multiples of 32. Only where there are tiles.
extern "C" {

#define OF(T, NAME)                                                                                                         \
    /* y (M, N) = x (M, K) w^T + bias, of a weight (N, K) */                                                                \
    void linear_##NAME(const bf16* x, const T* w, const float* bias, bf16* y, int64_t M, int64_t N, int64_t K, int threads) { \
        multiply<false>(x, w, bias, y, M, N, K, threads);                                                                            \
    }                                                                                                                       \
    /* dx (M, K) = grad (M, N) w */                                                                                         \
    void linear_back_##NAME(const bf16* grad, const T* w, bf16* dx, int64_t M, int64_t N, int64_t K, int threads) {         \
        multiply<true>(grad, w, nullptr, dx, M, K, N, threads);                                                                         \
    }
OF(float, f32)
OF(bf16, bf16)

// out (N, K) = grad (T, N)^T x (T, K), or that added to it.
void weight_gradient_bf16(const bf16* grad, const bf16* x, float* out, int64_t T, int64_t N, int64_t K, bool add, int threads) {
    // The narrower one is laid out once, some columns at a time; of the other each thread lays out what it works on.
    const Columns left{grad, N, true}, right{x, K, false}, kept = N < K ? left : right, taken = N < K ? right : left;
    const int64_t most = (std::min(T, DEPTH) + SIDE - 1) / SIDE, room = NEAR / (most * DEEP) * 16;
    const int64_t count = (kept.width + room - 1) / room, some = (kept.width / SIDE + count - 1) / count * SIDE;
    const bool aligned = uintptr_t(out) % sizeof(Line) == 0;
    std::unique_ptr<Line[]> near(new Line[some / 16 * most * DEEP]);
#pragma omp parallel num_threads(threads)
    {
        tiles_begin();
        std::unique_ptr<Line[]> own(new Line[2 * most * DEEP]);
        Summed done;
        for (int64_t begin = 0; begin < T; begin += DEPTH) {
            const int64_t end = std::min(T, begin + DEPTH), steps = (end - begin + SIDE - 1) / SIDE;
            const Sums how{add || begin, aligned && end == T};
            for (int64_t first = 0; first < kept.width; first += some) {
                const int64_t last = std::min(kept.width, first + some);
#pragma omp for schedule(dynamic)
                for (int64_t i = 0; i < steps; i++)
                    for (int64_t c = first; c < last; c += 16) kept.lay(c, begin + SIDE * i, end, &near[((c - first) / 16 * steps + i) * DEEP]);
#pragma omp for schedule(dynamic)
                for (int64_t m = 0; m < taken.width; m += SIDE) {
                    for (int64_t i = 0; i < 2 * steps; i++) taken.lay(m + i / steps * 16, begin + SIDE * (i % steps), end, &own[i * DEEP]);
                    for (int64_t c = first; c < last; c += SIDE) {
                        const Line* known = &near[(c - first) / 16 * steps * DEEP];
                        if (kept.left) two_by_two(known, own.get(), steps, out + c * K + m, K, SIDE * K, how, done);
                        else two_by_two(own.get(), known, steps, out + m * K + c, K, SIDE, how, done);
                    }
                    done.write(SIDE);
                }
            }
        }
        _mm_sfence();  // what went past the caches is there for everybody
        tiles_end();
    }
}
}
#endif
