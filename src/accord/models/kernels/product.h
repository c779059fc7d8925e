// Products of few rows with large weights, as a step of decoding has them: bound by reading the weights, once, in order.
//
// Rows stand side by side, 16 of them a line of 64 bytes: a line holds one float of each row, or a pair of bfloat16 that
// follow each other. That is how matrix units and pair products want their right operand, the weights are the left one
// as they lie in memory, and what comes out, 16 outputs for 16 rows, is again a line for each output: sums and norms
// over features need no shuffling. Features come in multiples of 32, outputs of 16.
#pragma once

#include "vector.h"

#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

constexpr int ROWS = 16, OUTPUTS = 16, DEEP = 16;  // of a block: rows, outputs; lines of it that a matrix unit takes
constexpr int BLOCKS = 4;                          // of rows for which a weight is read once
enum Unit { VECTORS, PAIRS, TILES };               // what multiplies: float32 vectors, pairs of bfloat16, matrix units

template <typename T> constexpr int PER = 4 / sizeof(T);  // features of a line

struct alignas(64) Line { uint32_t of[ROWS]; };

// The lines of B blocks of rows, in the order in which tiles are read.
static inline int64_t place(int64_t line, int64_t b, int64_t B) { return (line / DEEP * B + b) * DEEP + line % DEEP; }

// to[j].of[i] = from[i * stride + j] for i < rows, else 0.
static inline void turned(const uint32_t* from, int64_t stride, int64_t rows, Line* to) {
#if defined(__AVX512F__)
    __m512i x[ROWS], y[ROWS];
    for (int64_t i = 0; i < ROWS; i++) x[i] = i < rows ? _mm512_loadu_si512(from + i * stride) : _mm512_setzero_si512();
    for (int i = 0; i < ROWS; i += 2) y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]), y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    for (int i = 0; i < ROWS; i += 4)  // quarter q of x[i + c] is then column 4 q + c of the four rows from i on
        for (int j = 0; j < 2; j++)
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]),
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
    for (int j = 0; j < 4; j++) {
        __m512i even = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), odd = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xDD);
        __m512i more = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88), rest = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xDD);
        _mm512_store_si512(to + j, _mm512_shuffle_i32x4(even, more, 0x88));
        _mm512_store_si512(to + 4 + j, _mm512_shuffle_i32x4(odd, rest, 0x88));
        _mm512_store_si512(to + 8 + j, _mm512_shuffle_i32x4(even, more, 0xDD));
        _mm512_store_si512(to + 12 + j, _mm512_shuffle_i32x4(odd, rest, 0xDD));
    }
#else
    for (int64_t i = 0; i < ROWS; i++)
        for (int j = 0; j < ROWS; j++) if (i < rows) memcpy(&to[j].of[i], from + i * stride + j, sizeof(uint32_t));  // which may be floats
            else to[j].of[i] = 0;
#endif
}

// Line of features k (float) or k and k + 1 (bfloat16), each given for 16 rows; numbers are rounded here.
static inline void put(Line& line, const float* x, const float*, const float) {
    memcpy(&line, x, sizeof line);
}
static inline void put(Line& line, const float* x, const float* next, const bf16) {
    for (int i = 0; i < ROWS; i += WIDTH) {
        uvec pair = as<uvec>(rounded<bf16>(load(x + i))) >> 16 | as<uvec>(rounded<bf16>(load(next + i)));
        memcpy(line.of + i, &pair, sizeof pair);
    }
}

// sums (OUTPUTS, ROWS) of one block of rows, by vectors.
template <typename T> static inline void by_vectors(const T* w, int64_t K, const Line* x, int64_t B, int64_t b, float* sums) {
    constexpr int PARTS = ROWS / WIDTH, SOME = 4;
    for (int o = 0; o < OUTPUTS; o += SOME) {
        vec total[SOME][PARTS] = {};
        for (int64_t k = 0; k < K; k += PER<T>) {
            const Line& line = x[place(k / PER<T>, b, B)];
            for (int p = 0; p < PARTS; p++) {
                uvec bits;
                memcpy(&bits, line.of + p * WIDTH, sizeof bits);
                for (int i = 0; i < SOME; i++) {
                    const T* at = w + (o + i) * K + k;
                    if constexpr (PER<T> == 1) total[i][p] += at[0] * as<vec>(bits);
                    else {
                        total[i][p] += as<float>(uint32_t(at[0].bits) << 16) * as<vec>(bits << 16);
                        total[i][p] += as<float>(uint32_t(at[1].bits) << 16) * as<vec>(bits & 0xFFFF0000);
                    }
                }
            }
        }
        for (int i = 0; i < SOME; i++)
            for (int p = 0; p < PARTS; p++) store(sums + (o + i) * ROWS + p * WIDTH, total[i][p]);
    }
}

#if defined(__AVX512BF16__)
static inline void by_pairs(const bf16* w, int64_t K, const Line* x, int64_t B, int64_t b, float* sums) {
    __m512 total[OUTPUTS];
    for (int o = 0; o < OUTPUTS; o++) total[o] = _mm512_setzero_ps();
    for (int64_t line = 0; line < K / 2; line++) {
        __m512i pairs = _mm512_load_si512(x + place(line, b, B));
#pragma GCC unroll 16
        for (int o = 0; o < OUTPUTS; o++) {
            int32_t weights;
            memcpy(&weights, w + o * K + 2 * line, sizeof weights);
            total[o] = _mm512_dpbf16_ps(total[o], (__m512bh)pairs, (__m512bh)_mm512_set1_epi32(weights));
        }
    }
    for (int o = 0; o < OUTPUTS; o++) _mm512_storeu_ps(sums + o * ROWS, total[o]);
}
#endif

#if defined(HAS_TILES)
// The system lets a process use tiles once it has asked; it refuses, or does not know the question, on some machines.
static inline bool tiles_allowed() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
struct alignas(64) Shape { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; };
static const Shape EIGHT = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
static inline void tiles_begin() { _tile_loadconfig(&EIGHT); }
static inline void tiles_end() { _tile_release(); }

// Line p of `to`: 16 columns of rows 2 p and 2 p + 1, which make up a tile; zeros from row `rows` on.
template <typename T> static inline void paired(const T* from, int64_t stride, int64_t rows, Line* to) {
    auto row = [&](int64_t i) {
        if (i >= rows) return _mm512_setzero_si512();
        if constexpr (sizeof(T) == sizeof(bf16)) return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(from + i * stride)));
        else return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i * stride)));
    };
    for (int p = 0; p < DEEP; p++)
        _mm512_store_si512(to + p, _mm512_or_si512(row(2 * p), _mm512_slli_epi32(row(2 * p + 1), 16)));
}

// N blocks of rows: each tile of weights is read once for all of them. The numbers of tiles have to be written out.
template <int N> static inline void by_tiles(const bf16* w, int64_t K, const Line* x, int64_t B, float* sums) {
    constexpr int BLOCK = OUTPUTS * ROWS;
    asm volatile("" ::: "memory");  // GCC does not know that tiles are read from memory
    _tile_zero(0);
    if constexpr (N > 1) _tile_zero(1);
    if constexpr (N > 2) _tile_zero(2);
    if constexpr (N > 3) _tile_zero(3);
    for (int64_t k = 0; k < K; k += 2 * DEEP, x += B * DEEP) {
        _tile_loadd(6, w + k, K * sizeof(bf16));
        for (int i = 0; i < 16; i++) _mm_prefetch((const char*)(w + K * OUTPUTS) + k * 32 + i * 64, _MM_HINT_T1);
        _tile_loadd(4, x, 64);
        _tile_dpbf16ps(0, 6, 4);
        if constexpr (N > 1) { _tile_loadd(5, x + DEEP, 64); _tile_dpbf16ps(1, 6, 5); }
        if constexpr (N > 2) { _tile_loadd(4, x + 2 * DEEP, 64); _tile_dpbf16ps(2, 6, 4); }
        if constexpr (N > 3) { _tile_loadd(5, x + 3 * DEEP, 64); _tile_dpbf16ps(3, 6, 5); }
    }
    _tile_stored(0, sums, 64);
    if constexpr (N > 1) _tile_stored(1, sums + BLOCK, 64);
    if constexpr (N > 2) _tile_stored(2, sums + 2 * BLOCK, 64);
    if constexpr (N > 3) _tile_stored(3, sums + 3 * BLOCK, 64);
}
#else
static inline bool tiles_allowed() { return false; }
static inline void tiles_begin() {}
static inline void tiles_end() {}
#endif

// The best of the units for bfloat16 here.
static inline Unit best_unit() {
#if defined(__AVX512BF16__)
    return tiles_allowed() ? TILES : PAIRS;
#else
    return VECTORS;
#endif
}

// sums (count, OUTPUTS, ROWS): OUTPUTS rows of weights (K features each) times `count` <= BLOCKS blocks of rows from b on.
static inline void multiply(const float* w, int64_t K, const Line* x, int64_t B, int64_t b, int64_t count, float* sums, Unit) {
    for (int64_t i = 0; i < count; i++) by_vectors(w, K, x, B, b + i, sums + i * OUTPUTS * ROWS);
}
static inline void multiply(const bf16* w, int64_t K, const Line* x, int64_t B, int64_t b, int64_t count, float* sums, Unit unit) {
#if defined(HAS_TILES)
    if (unit == TILES) {
        const Line* from = x + b * DEEP;
        switch (count) {
            case 1: return by_tiles<1>(w, K, from, B, sums);
            case 2: return by_tiles<2>(w, K, from, B, sums);
            case 3: return by_tiles<3>(w, K, from, B, sums);
            default: return by_tiles<4>(w, K, from, B, sums);
        }
    }
#endif
    for (int64_t i = 0; i < count; i++) {
#if defined(__AVX512BF16__)
        if (unit == PAIRS) { by_pairs(w, K, x, B, b + i, sums + i * OUTPUTS * ROWS); continue; }
#endif
        by_vectors(w, K, x, B, b + i, sums + i * OUTPUTS * ROWS);
    }
}
