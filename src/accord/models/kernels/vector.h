// Registers of float32, and what reads and writes them. GCC and Clang make the best of them that the processor has.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int WIDTH = 16, WIDE = 4;  // floats of a register; registers of a row of a product held at once
#elif defined(__AVX__)
constexpr int WIDTH = 8, WIDE = 2;
#else
constexpr int WIDTH = 4, WIDE = 4;
#endif

typedef float vec __attribute__((vector_size(WIDTH * 4)));
typedef int32_t ivec __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t uvec __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t half __attribute__((vector_size(WIDTH * 2)));

struct bf16 { uint16_t bits; };

template <typename To, typename From> static inline To as(From x) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}

static inline vec load(const float* p) { vec x; memcpy(&x, p, sizeof x); return x; }
static inline vec load(const bf16* p) {
#if defined(__AVX512F__)  // one instruction where GCC makes four
    return as<vec>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
#else
    half x;
    memcpy(&x, p, sizeof x);
    return as<vec>(__builtin_convertvector(x, uvec) << 16);
#endif
}
static inline void store(float* p, vec x) { memcpy(p, &x, sizeof x); }
static inline void store(bf16* p, vec x) {  // to nearest, ties to even, NaN stays NaN: as torch rounds
#if defined(__AVX512BF16__)  // but for numbers below 1e-38, which become 0
    __m256bh y = _mm512_cvtneps_pbh(x);
#else
    uvec bits = as<uvec>(x), even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    half y = __builtin_convertvector(x == x ? even : uvec{} + 0x7FC0, half);
#endif
    memcpy(p, &y, sizeof y);
}
template <typename T> static inline vec rounded(vec x) { T y[WIDTH]; store(y, x); return load(y); }

// The halves of a register, down to four floats.
typedef float four __attribute__((vector_size(16)));
template <int N> struct Halves {
    typedef float part __attribute__((vector_size(N * 2)));
    part low, high;
};
#if defined(__clang__)
static inline four swapped(four x) { return __builtin_shufflevector(x, x, 2, 3, 0, 1); }
static inline four crossed(four x) { return __builtin_shufflevector(x, x, 1, 0, 3, 2); }
#else
typedef int32_t places __attribute__((vector_size(16)));
static inline four swapped(four x) { return __builtin_shuffle(x, places{2, 3, 0, 1}); }
static inline four crossed(four x) { return __builtin_shuffle(x, places{1, 0, 3, 2}); }
#endif
template <int N, typename V> static inline float sum_of(V x) {
    if constexpr (N == 4) {
        x += swapped(x);
        return (x + crossed(x))[0];
    } else {
        auto y = as<Halves<N>>(x);
        return sum_of<N / 2>(y.low + y.high);
    }
}
static inline float sum(vec x) { return sum_of<WIDTH>(x); }
template <int N, typename V> static inline float largest_of(V x) {
    if constexpr (N == 4) {
        four y = swapped(x);
        x = y > x ? y : x, y = crossed(x);
        return (y > x ? y : x)[0];
    } else {
        auto y = as<Halves<N>>(x);
        return largest_of<N / 2>(y.high > y.low ? y.high : y.low);
    }
}
static inline float largest(vec x) { return largest_of<WIDTH>(x); }  // what is not a number is passed over or on

// 0, 1, 2, ...
static inline ivec counted() {
    ivec x;
    for (int i = 0; i < WIDTH; i++) x[i] = i;
    return x;
}

// e^x for x < 88: 2^n e^f with n an integer and |f| <= ln 2 / 2, by its series, to 1e-7 of it. Below -87 it is 0, and
// what is not a number stays none.
static inline vec exponential(vec x0) {
    vec x = x0 < -87.0f ? vec{} - 87.0f : x0;
    vec t = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: what is added to it leaves n in the lowest bits
    vec n = t - 12582912.0f, f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec y = 1.0f + f * (1.0f + f * (0.5f + f * (1.6666667e-1f + f * (4.1666667e-2f + f * (8.3333333e-3f + f * 1.3888889e-3f)))));
    y = as<vec>(as<ivec>(y) + (as<ivec>(t) << 23));
    return x0 < -87.0f ? vec{} : x0 == x0 ? y : x0;
}
// 1 / (1 + e^-x)
static inline vec sigmoid(vec x) {
    vec small = exponential(x < 0.0f ? x : -x), share = 1.0f / (1.0f + small);  // e^-|x| does not overflow
    return x < 0.0f ? small * share : share;
}
