// The gradient of a linear layer's weight, float32 from bfloat16 by matrix units: nothing is rounded on its way, and
// what is written is what the optimiser reads.

#include <memory>

#include "product.h"

#if defined(HAS_TILES)
namespace {

constexpr int64_t DEPTH = 1024;  // tokens whose states are laid out at once: they stay in the second cache
constexpr int64_t SIDE = 32;     // of a block of the result: two by two tiles

// Line p of `to`: 16 columns of tokens 2 p and 2 p + 1 from a (tokens, width) matrix; zeros from token `tokens` on.
void paired(const bf16* from, int64_t width, int64_t tokens, Line* to) {
    auto row = [&](int64_t t) {
        return t < tokens ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(from + t * width))) : _mm512_setzero_si512();
    };
    for (int p = 0; p < DEEP; p++)
        _mm512_store_si512(to + p, _mm512_or_si512(row(2 * p), _mm512_slli_epi32(row(2 * p + 1), 16)));
}

void two_by_two(const Line* left, const Line* right, int64_t steps, float* out, int64_t width, bool more) {
    const int64_t stride = width * sizeof(float);
    asm volatile("" ::: "memory");  // GCC does not know that tiles are read from memory
    if (more) {
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
    for (int64_t i = 0; i < steps * DEEP; i += DEEP) {
        _tile_loadd(4, left + i, 64);
        _tile_loadd(6, right + i, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, beside + i, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, below + i, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, stride);
    _tile_stored(1, out + 16, stride);
    _tile_stored(2, out + 16 * width, stride);
    _tile_stored(3, out + 16 * width + 16, stride);
}

}  // namespace

extern "C" {

// out (N, K) = grad (T, N)^T x (T, K), or that added to it; N and K are multiples of 32. Only where there are tiles.
void weight_gradient_bf16(const bf16* grad, const bf16* x, float* out, int64_t T, int64_t N, int64_t K, bool add, int threads) {
    const int64_t most = ((T < DEPTH ? T : DEPTH) + 2 * DEEP - 1) / (2 * DEEP);
    std::unique_ptr<Line[]> right(new Line[K / 16 * most * DEEP]);
#pragma omp parallel num_threads(threads)
    {
        tiles_begin();
        std::unique_ptr<Line[]> left(new Line[2 * most * DEEP]);
        for (int64_t begin = 0; begin < T; begin += DEPTH) {
            const int64_t tokens = T - begin < DEPTH ? T - begin : DEPTH, steps = (tokens + 2 * DEEP - 1) / (2 * DEEP);
#pragma omp for schedule(static)
            for (int64_t k = 0; k < K / 16; k++)
                for (int64_t i = 0; i < steps; i++)
                    paired(x + (begin + 2 * DEEP * i) * K + 16 * k, K, tokens - 2 * DEEP * i, &right[(k * steps + i) * DEEP]);
#pragma omp for schedule(static)
            for (int64_t n = 0; n < N; n += SIDE) {
                for (int64_t i = 0; i < 2 * steps; i++) {
                    Line pairs[DEEP];
                    const int64_t t = 2 * DEEP * (i % steps);
                    paired(grad + (begin + t) * N + n + i / steps * 16, N, tokens - t, pairs);
                    turned(pairs[0].of, ROWS, DEEP, &left[i * DEEP]);
                }
                for (int64_t k = 0; k < K; k += SIDE)
                    two_by_two(left.get(), &right[k / 16 * steps * DEEP], steps, out + n * K + k, K, add || begin);
            }
        }
        tiles_end();
    }
}
}
#endif
