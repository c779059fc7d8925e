// What is made of the logits of a vocabulary: two passes over a row, which stays in a core's cache, in float32.
// The equations stand in accord/models/head.py. V, the size of the vocabulary, is a multiple of 16.

#include "vector.h"

namespace {

struct Row { float top, total, mixed; };  // largest z, sum of e^(z - top), sum of e^(z - top) (z - top); z = times x

template <typename T> Row row_of(const T* x, int64_t V, float times) {
    vec most = load(x) * times, total{}, mixed{};
    for (int64_t i = 0; i < V; i += WIDTH) { vec z = load(x + i) * times; most = z > most ? z : most; }
    float top = largest(most);
    for (int64_t i = 0; i < V; i += WIDTH) {
        vec z = load(x + i) * times - top, p = exponential(z);
        total += p;
        mixed += p == 0.0f ? vec{} : p * z;
    }
    return {top, sum(total), sum(mixed)};
}

// logprob = z_token - log sum e^z;  entropy = log sum e^z - sum p z. entropy may be null.
template <typename T>
void logprob(const T* x, const int64_t* token, float* logprob, float* entropy, int64_t rows, int64_t V, float times,
             int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < rows; t++) {
        Row row = row_of(x + t * V, V, times);
        float one[WIDTH], rest = std::log(row.total);
        int64_t block = token[t] / WIDTH * WIDTH;
        store(one, load(x + t * V + block) * times);
        logprob[t] = one[token[t] - block] - row.top - rest;
        if (entropy) entropy[t] = rest - row.mixed / row.total;
    }
}

// In place of x its gradient:  times (onehot g - p (g + h (log p + entropy))), for g and h those of both results.
template <typename T>
void logprob_back(T* x, const int64_t* token, const float* grad, const float* grad_entropy, int64_t rows, int64_t V, float times,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < rows; t++) {
        T* row = x + t * V;
        Row is = row_of(row, V, times);
        float g = grad[t], h = grad_entropy ? grad_entropy[t] : 0.0f;
        float part = 1.0f / is.total, constant = g - h * is.mixed / is.total;  // h (log p + entropy) = h (z - mean z)
        int64_t block = token[t] / WIDTH * WIDTH;
        for (int64_t i = 0; i < V; i += WIDTH) {
            vec z = load(row + i) * times - is.top, p = exponential(z) * part;
            vec d = p == 0.0f ? vec{} : -p * (constant + h * z);
            if (i == block) {
                float one[WIDTH];
                store(one, d);
                one[token[t] - block] += g;
                d = load(one);
            }
            store(row + i, d * times);
        }
    }
}

}  // namespace

extern "C" {

#define OF(T, NAME)                                                                                                         \
    void logprob_##NAME(const T* x, const int64_t* token, float* y, float* entropy, int64_t rows, int64_t V, float times,   \
                        int threads) {                                                                                      \
        logprob(x, token, y, entropy, rows, V, times, threads);                                                             \
    }                                                                                                                       \
    void logprob_back_##NAME(T* x, const int64_t* token, const float* grad, const float* grad_entropy, int64_t rows,        \
                             int64_t V, float times, int threads) {                                                         \
        logprob_back(x, token, grad, grad_entropy, rows, V, times, threads);                                                \
    }
OF(float, f32)
OF(bf16, bf16)
}
