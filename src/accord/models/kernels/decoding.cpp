// Attention of a step of decoding: one query a row, over the keys and values its row has in a cache.
// Products and softmax are float32; D and W, the widths of keys and values, are multiples of 16.

#include "vector.h"

namespace {

// Buffers (rows, G, room, width); the keys of a row are its columns first <= t <= column, of which the last is written here.
struct Step { int64_t rows, H, G, D, W, room, column, q_row, k_row, v_row; float scaling; int threads; };

constexpr int TOGETHER = 4;  // query heads that read a key at once

// score (N, columns) = queries (N, D) times the keys from `first` to `last`.
template <int N, typename T>
void scores(const float* q, const T* keys, int64_t D, int64_t first, int64_t last, float* score, int64_t line) {
    for (int64_t t = first; t <= last; t++) {
        vec sums[N] = {};
        for (int64_t d = 0; d < D; d += WIDTH) {
            vec x = load(keys + t * D + d);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sums[n] += load(q + n * D + d) * x;
        }
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) score[n * line + t] = sum(sums[n]);
    }
}

// out (N, W) = share (N, columns) times the values; V registers of them at a time.
template <int N, int V, typename T>
void mixed(const float* share, int64_t line, const T* values, int64_t W, int64_t first, int64_t last, T* out, int64_t d) {
    vec sums[N][V] = {};
    for (int64_t t = first; t <= last; t++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            vec x = load(values + t * W + d + v * WIDTH);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sums[n][v] += share[n * line + t] * x;
        }
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) store(out + n * W + d + v * WIDTH, sums[n][v]);
}

// Over columns first to last, in place.
void softmax(float* row, int64_t first, int64_t last) {
    float top = row[first];
    for (int64_t t = first; t <= last; t++) top = row[t] > top ? row[t] : top;
    int64_t stop = last + 1;
    for (int64_t t = stop; t < stop + WIDTH; t++) row[t] = -INFINITY;  // the line has room for them
    vec total{};
    for (int64_t t = first; t < stop; t += WIDTH) { vec x = exponential(load(row + t) - top); total += x; store(row + t, x); }
    float part = 1.0f / sum(total);
    for (int64_t t = first; t < stop; t += WIDTH) store(row + t, load(row + t) * part);
}

template <int N, typename T>
void heads(const float* q, const T* keys, const T* values, int64_t first, const Step& is, float* score, T* out) {
    const int64_t line = is.room + 2 * WIDTH;
    scores<N>(q, keys, is.D, first, is.column, score, line);
    for (int n = 0; n < N; n++) softmax(score + n * line, first, is.column);
    int64_t d = 0;
    for (; d + 4 * WIDTH <= is.W; d += 4 * WIDTH) mixed<N, 4>(score, line, values, is.W, first, is.column, out, d);
    for (; d < is.W; d += WIDTH) mixed<N, 1>(score, line, values, is.W, first, is.column, out, d);
}

template <typename T>
void step(const T* q, const T* k, const T* v, T* key_buffer, T* value_buffer, const int64_t* first, T* out, const Step& is) {
    const int64_t R = is.H / is.G;
#pragma omp parallel num_threads(is.threads)
    {
        std::vector<float> query(TOGETHER * is.D), score(TOGETHER * (is.room + 2 * WIDTH));
#pragma omp for schedule(static)
        for (int64_t item = 0; item < is.rows * is.G; item++) {
            const int64_t row = item / is.G, g = item % is.G;
            T *keys = key_buffer + item * is.room * is.D, *values = value_buffer + item * is.room * is.W;
            memcpy(keys + is.column * is.D, k + row * is.k_row + g * is.D, is.D * sizeof(T));
            memcpy(values + is.column * is.W, v + row * is.v_row + g * is.W, is.W * sizeof(T));
            for (int64_t h = g * R; h < (g + 1) * R;) {
                int64_t count = (g + 1) * R - h < TOGETHER ? (g + 1) * R - h : TOGETHER;
                for (int64_t n = 0; n < count; n++)
                    for (int64_t d = 0; d < is.D; d += WIDTH)
                        store(query.data() + n * is.D + d, load(q + row * is.q_row + (h + n) * is.D + d) * is.scaling);
                T* to = out + (row * is.H + h) * is.W;
                switch (count) {
                    case 1: heads<1>(query.data(), keys, values, first[row], is, score.data(), to); break;
                    case 2: heads<2>(query.data(), keys, values, first[row], is, score.data(), to); break;
                    case 3: heads<3>(query.data(), keys, values, first[row], is, score.data(), to); break;
                    default: heads<4>(query.data(), keys, values, first[row], is, score.data(), to);
                }
                h += count;
            }
        }
    }
}

}  // namespace

extern "C" {

#define OF(T, NAME)                                                                                                         \
    void step_##NAME(const T* q, const T* k, const T* v, T* keys, T* values, const int64_t* first, T* out, const Step* is) { \
        step(q, k, v, keys, values, first, out, *is);                                                                       \
    }
OF(float, f32)
OF(bf16, bf16)
}
